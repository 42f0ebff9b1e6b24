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

import base64
import csv
import io
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from homework.answers import FILE as ANSWERS
from homework.sessions import SESSIONS, sessions
from minidl.checks import require
from minidl.files import from_json, open_to_read
from minidl.grid.folder import RECORD, RESULTS, kept
from minidl.view.plots import DPI
from minidl.view.tables import Table

RECORDS = (RECORD, "run.json", "*-run-*.json")
SCORES = ("scores.json", "*-scores-*.json")
BYTES = {".png": 20_000_000, ".jsonl": 32_000_000}
"""The size of a file, at most, by its suffix; of others, and of a line of JSON, ``SIZE``."""
SIZE = 4_000_000
PIXELS, CELLS = 20_000_000, 100_000
"""Of a picture and of a table, at most."""


@dataclass(frozen=True)
class Picture:
    """A picture, with its size on the page in CSS pixels."""

    file: Path
    description: str
    width: int
    height: int

    @property
    def uri(self) -> str:
        """The picture as a ``data:`` address."""
        content = base64.b64encode(self.file.read_bytes()).decode("ascii")
        return f"data:image/png;base64,{content}"

    @property
    def weight(self) -> int:
        """The length of what stands for it on the page, at most."""
        around = 500 + 2 * len(os.fsencode(self.file.name)) + len(self.description.encode())
        return self.file.stat().st_size * 4 // 3 + around


@dataclass
class Run:
    """The contents of one folder."""

    title: str
    folder: Path
    sessions: list[dict[str, Any]]
    kept: int = 0
    """The number of runs of a grid that ended."""
    settings: list[Table] = field(default_factory=list)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The scores, by the titles of their tables."""
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=dict)
    """Sentences by the name of the picture, without a suffix, that they stand below."""
    left_out: dict[str, str] = field(default_factory=dict)
    """The names of pictures and tables that are not shown, and why."""

    @property
    def scores(self) -> list[Table]:
        """The tables of the scores."""
        return [pairs(v, "figure", f"Figures of {title}") for title, v in self.values.items()]

    @property
    def finished(self) -> bool:
        """Whether the last session ended, and left results."""
        ended = not self.sessions or self.sessions[-1]["ended"]
        return bool(ended and (self.values or self.tables))

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
        return next((s[name] for s in reversed(of) if s.get(name)), default)


def run_folders(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the folders of runs at or below the paths, and titles for them.

    A title is the path of a folder from the one that was given, or all of it if others share that.
    ValueError names a path at or below which there is no run.
    """
    found: dict[Path, tuple[Path, str]] = {}
    for path in paths:
        below = [path, *sorted(p for p in path.rglob("*") if p.is_dir())]
        shown = [p for p in below if not any(n[0] == "." for n in p.relative_to(path).parts)]
        runs = [p for p in shown if _files(p, (*RECORDS, SESSIONS))]
        if not runs:
            files = "run.json, grid.json or sessions.jsonl"
            raise ValueError(f"{path}: expected the folder of a run, with {files}, or one of those")
        for folder in runs:
            full = folder.resolve()
            title = full.relative_to(path.resolve().parent).as_posix()
            found.setdefault(full, (folder, title))
    count = Counter(title for _, title in found.values())
    return {f: title if count[title] == 1 else f.as_posix() for f, title in found.values()}


def read_run(folder: Path, title: str = "") -> Run:
    """Read the folder of a run; the title is by default its name.

    ValueError names a file that is not as its program wrote it.
    """
    rows = _results(folder)
    run = Run(title or folder.resolve().name, folder, sessions(folder), len(rows))
    records, scores = _files(folder, RECORDS), _files(folder, SCORES)
    for file in records:
        settings = _flat({**_object(file), "session": run.last("settings", {}, file.name)})
        name = f"{run.title}, {file.stem}" if len(records) > 1 else run.title
        run.settings.append(pairs(settings, "setting", f"Settings of {name}"))
    for file in scores:
        name = f"{run.title}, {file.stem}" if len(scores) > 1 else run.title
        run.values[name] = _object(file)
    for file in sorted(folder.iterdir()):
        if file.suffix in (".csv", ".png", ".svg") and file.name[0] != "." and not file.is_dir():
            reason = _take(run, file)
            if reason:
                run.left_out[file.name] = reason
    if rows and not run.tables and _is_whole(run):
        table = Table(list(dict.fromkeys(name for row in rows for name in row)), "Runs")
        for row in rows:
            table.add(*(text(row.get(name)) for name in table.columns))
        if len(table.columns) * (1 + len(rows)) > CELLS:
            run.left_out[RESULTS] = f"more than {CELLS:,} cells"
        else:
            run.tables.append(table)
    if (file := folder / ANSWERS).is_file():
        for name, sentences in _object(file).items():
            if not isinstance(sentences, list):
                raise ValueError(f"{file}: expected lists of sentences, got {sentences!r:.80}")
            run.answers[name] = list(map(str, sentences))
    return run


def _take(run: Run, file: Path) -> str:
    """Add the table or picture of a file to a run, or return why it is none of our scripts'."""
    if not file.is_file():
        return "a device, a pipe or a broken link"
    if file.suffix == ".svg":
        drawn = file.with_suffix(".png").is_file()
        return "" if drawn else "pictures are read from PNG files"
    if file.suffix == ".png":
        run.pictures.append(read_picture(file))
        return ""
    try:
        header, *rows = list(csv.reader(io.StringIO(_read(file).decode(), newline=""))) or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read as a table ({error})") from error
    if header[-1:] != ["best"] or len(header) < 2:
        return "no table with a last column best"
    if len(header) * (1 + len(rows)) > CELLS:
        return f"more than {CELLS:,} cells"
    beside = file.with_suffix(".md")
    first = _read(beside).decode(errors="replace") if beside.is_file() else ""
    title = first.partition("\n")[0].removeprefix("# ") if first.startswith("# ") else file.stem
    table = Table(header[:-1], title)
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"{file}, line {number}: expected {len(header)} cells, got {len(row)}")
        table.add(*row[:-1], marked=row[-1] == "1")
    run.tables.append(table)
    return ""


def read_picture(file: Path) -> Picture:
    """Read size and description of a PNG file; its pixels are not decompressed.

    ValueError names a file that is too large, is no PNG picture, or was changed.
    """
    pillow, content = require("PIL.Image", "plot"), _read(file)  # matplotlib has it
    try:
        with pillow.open(io.BytesIO(content), formats=["PNG"]) as picture:
            width, height = picture.size
            description = str(picture.info.get("Description", ""))
            picture.verify()
        if width * height > PIXELS:
            raise ValueError(f"more than {PIXELS:,} pixels")
    except Exception as error:  # of many kinds, some of them Pillow's own
        raise ValueError(f"{file}: expected a PNG picture ({error})") from error
    return Picture(file, description, round(width * 96 / DPI), round(height * 96 / DPI))


def _results(folder: Path) -> list[dict[str, Any]]:
    """Return points, metrics and seconds of the runs of a grid that ended."""
    for file in _files(folder, ["results*.jsonl"]):
        _read(file)
    rows = []
    for result in kept(folder).values():
        if not isinstance(result.point, dict):
            raise ValueError(f"{folder}: expected results with points as objects")
        plain = {k: v for k, v in result.values.items() if isinstance(v, (bool, int, float, str))}
        rows.append({**result.point, **plain, "seconds": result.seconds})
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


def _read(file: Path) -> bytes:
    limit = BYTES.get(file.suffix, SIZE)
    with open_to_read(file) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{file}: expected at most {limit:,} bytes")
    if file.suffix == ".jsonl" and max(map(len, content.split(b"\n"))) > SIZE:
        raise ValueError(f"{file}: expected at most {SIZE:,} bytes in a line")
    return content


def _files(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the files of a folder that match, without hidden ones."""
    found = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    return [file for file in found if file.is_file() and not file.name.startswith(".")]


def _object(file: Path) -> dict[str, Any]:
    content = _read(file)
    try:
        found = from_json(content.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected an object, got {type(found).__name__}")
    return found


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
