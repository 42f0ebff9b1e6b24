"""The contents of the folders of runs.

==================================  ===========================================================
``run.json``, ``grid.json``         settings, and the axes of a grid
``sessions.jsonl``                  where, when and how long; the data (see ``homework.sessions``)
``scores.json``                     figures by name
``*.csv`` with a column ``best``    tables; the ``.md`` file beside it has the title
``answers.json``                    sentences by the picture that they stand below
``results.jsonl``                   the runs of a grid, shown if there is no table
``*.png``                           pictures, with their descriptions
==================================  ===========================================================

The names of ``run.json`` and ``scores.json`` may have words around them, as
``ffn-scores-lr-0.1.json``, where several runs share a folder. Files of other programs are left out
and listed. Every file is bounded in size.
"""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from homework.answers import FILE as ANSWERS
from homework.page.pictures import Picture, read_picture
from homework.sessions import SESSIONS, sessions
from minidl.files import from_json, open_to_read
from minidl.grid.folder import RECORD, RESULTS, kept
from minidl.view.tables import Table

RECORDS = (RECORD, "run.json", "*-run-*.json")
SCORES = ("scores.json", "*-scores-*.json")
KINDS = (".csv", ".png", ".svg")
"""Suffixes of tables and pictures."""
BEST = "best"
"""The last column of the file of a table."""
LARGEST = 4_000_000
"""The size of a file of JSON or of a table, in bytes, at most."""
LARGEST_RESULTS = 8 * LARGEST
"""The size of the results of a grid; each line is at most ``LARGEST``."""
CELLS = 100_000
"""Of a table, at most."""
TOO_MANY = f"more than {CELLS:,} cells"


@dataclass
class Run:
    """The contents of one folder."""

    title: str
    folder: Path
    settings: list[Table] = field(default_factory=list)
    scores: list[Table] = field(default_factory=list)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The scores themselves, by the titles of their tables."""
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=dict)
    """Sentences by the name of the picture, without a suffix, that they stand below."""
    left_out: dict[str, str] = field(default_factory=dict)
    """The names of pictures and tables that are not shown, and why."""
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


def run_folders(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the folders of runs at or below the paths, and titles for them.

    A title is the path of a folder from the one that was given, or all of it if others share that.

    Raises
    ------
    ValueError
        If there is no run at or below a path; names it.
    """
    found: dict[Path, tuple[Path, str]] = {}
    for path in paths:
        below: list[Path] = []
        for name, folders, _ in os.walk(path):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            below += [Path(name)] if is_run(Path(name)) else []
        if not below:
            raise ValueError(
                f"{path}: expected the folder of a run, with run.json, grid.json or "
                "sessions.jsonl, or a folder of those"
            )
        for folder in below:
            full = folder.resolve()
            title = full.relative_to(path.resolve().parent).as_posix()
            found.setdefault(full, (folder, title))
    count = Counter(title for _, title in found.values())
    return {
        folder: title if count[title] == 1 else folder.as_posix()
        for folder, title in found.values()
    }


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
    results = _results(folder)
    run = Run(title or folder.resolve().name, folder, sessions=sessions(folder), kept=len(results))
    records, scores = _files(folder, RECORDS), _files(folder, SCORES)
    for file in records:
        name = f"{run.title}, {file.stem}" if len(records) > 1 else run.title
        noted = run.last("settings", {}, record=file.name)
        settings = _flat({**_object(file), "session": noted})
        run.settings.append(pairs(settings, "setting", f"Settings of {name}"))
    for file in scores:
        name = f"{run.title}, {file.stem}" if len(scores) > 1 else run.title
        run.values[name] = _object(file)
        run.scores.append(pairs(run.values[name], "figure", f"Figures of {name}"))
    for file in sorted(folder.iterdir()):
        if file.suffix not in KINDS or file.name.startswith(".") or file.is_dir():
            continue
        try:
            if not file.is_file():
                raise LeftOutError("a device, a pipe or a broken link")
            if file.suffix == ".csv":
                run.tables.append(read_table(file))
            elif file.suffix == ".png":
                run.pictures.append(read_picture(file))
            elif not file.with_suffix(".png").is_file():
                raise LeftOutError("pictures are read from PNG files")
        except LeftOutError as reason:
            run.left_out[file.name] = str(reason)
    if results and not run.tables and _is_whole(run):
        table = Table(list(dict.fromkeys(name for row in results for name in row)), "Runs")
        if len(table.columns) * (1 + len(results)) > CELLS:
            run.left_out[RESULTS] = TOO_MANY
        else:
            for row in results:
                table.add(*(text(row.get(name)) for name in table.columns))
            run.tables.append(table)
    if (file := folder / ANSWERS).is_file():
        for name, sentences in _object(file).items():
            if not isinstance(sentences, list):
                raise ValueError(f"{file}: expected lists of sentences, got {sentences!r:.80}")
            run.answers[name] = list(map(str, sentences))
    return run


class LeftOutError(Exception):
    """A file is not one that our scripts write; the reason is the text."""


def _results(folder: Path) -> list[dict[str, Any]]:
    """Return points, metrics and seconds of the runs of a grid that ended."""
    for file in _files(folder, ["results*.jsonl"]):
        too_large = file.stat().st_size > LARGEST_RESULTS
        with open_to_read(file) as lines:
            too_large = too_large or any(len(line) > LARGEST for line in lines)
        if too_large:
            raise ValueError(
                f"{file}: expected at most {LARGEST_RESULTS:,} bytes, and {LARGEST:,} in a line"
            )
    rows = []
    for result in kept(folder).values():
        if not (isinstance(result.point, dict) and isinstance(result.values, dict)):
            raise ValueError(f"{folder}: expected results with points and values as objects")
        rows.append({**result.point, **_scalars(result.values), "seconds": result.seconds})
    return rows


def _is_whole(run: Run) -> bool:
    """Return whether the last session of a grid ended; without sessions, whether no run lacks."""
    if run.sessions:
        return bool(run.sessions[-1]["ended"])
    record = run.folder / RECORD
    axes = _object(record).get("axes") if record.is_file() else {}
    if not isinstance(axes, dict) or not all(isinstance(axis, list) for axis in axes.values()):
        raise ValueError(f"{record}: expected axes with lists of values")
    return run.kept >= math.prod(map(len, axes.values()))


def read_table(file: Path) -> Table:
    """Read a file that ``Table.write`` wrote; LeftOutError for a CSV file of another kind."""
    try:
        header, *rows = list(csv.reader(text_of(file).splitlines(keepends=True))) or [[]]
    except csv.Error as error:
        raise ValueError(f"{file}: cannot be read as a table ({error})") from error
    if header[-1:] != [BEST] or len(header) < 2:
        raise LeftOutError(f"no table with a last column {BEST}")
    if len(header) * (1 + len(rows)) > CELLS:
        raise LeftOutError(TOO_MANY)
    beside = file.with_suffix(".md")
    first = text_of(beside).partition("\n")[0] if beside.is_file() else ""
    table = Table(header[:-1], first.removeprefix("# ") if first.startswith("# ") else file.stem)
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"{file}, line {number}: expected {len(header)} cells, got {len(row)}")
        table.add(*row[:-1], marked=row[-1] == "1")
    return table


def text_of(file: Path) -> str:
    """Return the text of a file of at most ``LARGEST`` bytes; ValueError names it."""
    with open_to_read(file) as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"{file}: expected at most {LARGEST:,} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected UTF-8 ({error})") from error


def _files(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the files of a folder that match, without hidden ones."""
    found = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    return [file for file in found if file.is_file() and not file.name.startswith(".")]


def _object(file: Path) -> dict[str, Any]:
    try:
        content = from_json(text_of(file))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected an object, got {type(content).__name__}")
    return content


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


def pairs(values: Mapping[str, Any], what: str, title: str) -> Table:
    """Return a table with one row for each value that is not an object."""
    table = Table([what, "value"], title)
    for name, value in values.items():
        if isinstance(value, list):
            table.add(name.replace("_", " "), ", ".join(map(str, value)))
        elif value is not None and not isinstance(value, dict):
            table.add(name.replace("_", " "), str(value) if what == "setting" else text(value))
    return table


def text(value: object) -> str:
    """Return a figure as text; floats have four decimals, unless they are near 0."""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) >= 0.01 else f"{value:.4g}"
    return "" if value is None else str(value)


def _scalars(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v for name, v in values.items() if isinstance(v, (bool, int, float, str))}
