"""The contents of the folders of runs.

==================================  ===========================================================
``run.json``, ``grid.json``         settings, and the axes of a grid
``sessions.jsonl``                  where, when and how long; the data (see ``homework.sessions``)
``scores.json``                     figures by name
``*.csv`` with a column ``best``    tables; the ``.md`` file beside it has the title
``answers.json``                    sentences by the picture that they stand below
``results.jsonl``                   the runs of a grid, shown if there is no table
``*.png``, ``*.svg``                pictures, with their descriptions
==================================  ===========================================================

The names of ``run.json`` and ``scores.json`` may have words around them, as
``ffn-scores-lr-0.1.json``, where several runs share a folder.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from homework.answers import FILE as ANSWERS
from homework.page.pictures import Picture, read_pictures
from homework.sessions import SESSIONS, sessions
from minidl.files import from_json
from minidl.grid.folder import RECORD, kept
from minidl.view.tables import Table

RECORDS = (RECORD, "run.json", "*-run-*.json")
SCORES = ("scores.json", "*-scores-*.json")
BEST = "best"
"""The last column of the file of a table."""


@dataclass
class Run:
    """The contents of one folder."""

    title: str
    folder: Path
    settings: list[Table] = field(default_factory=list)
    scores: list[Table] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=dict)
    """Sentences by the name of the picture, without a suffix, that they stand below."""
    sessions: list[dict[str, Any]] = field(default_factory=list)
    kept: int = 0
    """The number of runs of a grid that ended."""

    @property
    def finished(self) -> bool:
        """Whether the last session ended, and left results."""
        ended = not self.sessions or self.sessions[-1]["ended"]
        return bool(ended and (self.scores or self.tables))

    @property
    def others(self) -> list[str]:
        """The answers that belong to no picture."""
        shown = {picture.file.stem for picture in self.pictures}
        return [s for name, found in self.answers.items() if name not in shown for s in found]

    @property
    def seconds(self) -> float | None:
        """The duration of all sessions; None if none was recorded."""
        return sum(s["seconds"] for s in self.sessions) if self.sessions else None

    def last(self, name: str, default: Any = None, record: str = "") -> Any:
        """Return what the last session that has ``name`` noted, of those of a file of settings."""
        of = [s for s in self.sessions if not record or s.get("record", record) == record]
        found = [s[name] for s in of if s.get(name)]
        return found[-1] if found else default


def run_folders(paths: Iterable[Path]) -> list[Path]:
    """Return the folders of runs: the paths, or the folders in them that hold runs.

    Raises
    ------
    ValueError
        If a path is neither; names it.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.iterdir() if is_run(p)) if path.is_dir() else []
        if not is_run(path) and not inside:
            raise ValueError(
                f"{path}: expected the folder of a run, with run.json, grid.json or "
                "sessions.jsonl, or a folder of those"
            )
        found += [path] if is_run(path) else inside
    return list(dict.fromkeys(found))


def is_run(folder: Path) -> bool:
    """Return whether a folder holds the settings or the sessions of a run."""
    return folder.is_dir() and bool(_files(folder, (*RECORDS, SESSIONS)))


def read_run(folder: Path, title: str = "") -> Run:
    """Read the folder of a run; the title is by default its name.

    Raises
    ------
    ValueError
        If a file is not as its program wrote it; names it.
    """
    results = kept(folder)
    run = Run(title or folder.resolve().name, folder, sessions=sessions(folder), kept=len(results))
    records, scores = _files(folder, RECORDS), _files(folder, SCORES)
    for file in records:
        noted = run.last("settings", {}, record=file.name)
        settings = _flat({**_object(file), "session": noted})
        run.settings.append(
            _pairs(settings, "setting", _named(f"Settings of {run.title}", file, records))
        )
    for file in scores:
        run.scores.append(
            _pairs(_object(file), "figure", _named(f"Figures of {run.title}", file, scores))
        )
    run.tables = [table for file in _files(folder, ["*.csv"]) if (table := read_table(file))]
    if results and not run.tables and _is_whole(run):
        rows = [{**r.point, **_scalars(r.values), "seconds": r.seconds} for r in results.values()]
        table = Table(list(dict.fromkeys(name for row in rows for name in row)), "Runs")
        for row in rows:
            table.add(*(_text(row.get(name)) for name in table.columns))
        run.tables.append(table)
    run.pictures = read_pictures(folder)
    if (file := folder / ANSWERS).is_file():
        run.answers = {name: list(map(str, found)) for name, found in _object(file).items()}
    return run


def _is_whole(run: Run) -> bool:
    """Return whether the last session of a grid ended; without sessions, whether no run lacks."""
    if run.sessions:
        return bool(run.sessions[-1]["ended"])
    axes = _object(run.folder / RECORD)["axes"]
    return run.kept >= math.prod(map(len, axes.values()))


def read_table(file: Path) -> Table | None:
    """Read a file that ``Table.write`` wrote; None for a CSV file of another kind."""
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            header, *rows = list(csv.reader(lines)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file}: cannot be read as a table ({error})") from error
    if header[-1:] != [BEST]:
        return None
    beside = file.with_suffix(".md")
    first = beside.read_text(encoding="utf-8").partition("\n")[0] if beside.is_file() else ""
    table = Table(header[:-1], first.removeprefix("# ") if first.startswith("# ") else file.stem)
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"{file}, line {number}: expected {len(header)} cells, got {len(row)}")
        table.add(*row[:-1], marked=row[-1] == "1")
    return table


def _files(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the files of a folder that match, without hidden ones."""
    found = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    return [file for file in found if file.is_file() and not file.name.startswith(".")]


def _object(file: Path) -> dict[str, Any]:
    try:
        content = from_json(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected an object, got {type(content).__name__}")
    return content


def _named(title: str, file: Path, files: Sequence[Path]) -> str:
    """Return the title, with the name of the file if there are several of its kind."""
    return f"{title}, {file.stem}" if len(files) > 1 else title


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of nested objects by their own names; those that say nothing are left out.

    The inner one of two values with the same name comes last and stays.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value)
        elif value is not None and value != "(path)":
            found[name] = value
    return found


def _pairs(values: Mapping[str, Any], what: str, title: str) -> Table:
    """Return a table with one row for each value that is not an object."""
    table = Table([what, "value"], title)
    for name, value in values.items():
        if isinstance(value, list):
            table.add(name.replace("_", " "), ", ".join(map(str, value)))
        elif value is not None and not isinstance(value, dict):
            table.add(name.replace("_", " "), str(value) if what == "setting" else _text(value))
    return table


def _text(value: object) -> str:
    """Return a figure as text; floats have four decimals, unless they are near 0."""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) >= 0.01 else f"{value:.4g}"
    return "" if value is None else str(value)


def _scalars(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v for name, v in values.items() if isinstance(v, (bool, int, float, str))}
