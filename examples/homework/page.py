"""Reports of finished runs: one HTML page, and the same as Markdown. The folder of a run has

=====================================  =====================================================
``grid.json``, ``*run*.json``          settings, and the axes of a grid
``sessions.jsonl``                     where, when and how long; the data (see ``homework.runs``)
``*scores*.json``                      metrics by name
``*.csv`` with a last column ``best``  tables; the ``.md`` file beside it has the title
``answers.json``                       sentences by the picture that they stand below
``results.jsonl``                      the runs of a grid, shown if there is no table
``*.png``                              pictures, with their descriptions
=====================================  =====================================================
"""

from __future__ import annotations

import base64
import csv
import io
import math
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import Any, TypeVar

from homework.answers import FILE as ANSWERS
from homework.runs import SESSIONS
from minidl.checks import require
from minidl.files import from_json, to_json, write_text
from minidl.grid.folder import RECORD, RESULTS, kept
from minidl.view.plots import DPI
from minidl.view.tables import Table

RECORDS, SCORES = (RECORD, "*run*.json"), ("*scores*.json",)
LARGEST, CELLS = 4_000_000, 100_000
"""The bytes of a file or a line of JSON, and the cells of a table, at most."""
SIZES = {".png": 20_000_000, ".jsonl": 32_000_000}
"""The bytes of a file of these suffixes, at most."""
LIMIT = 5_000_000
"""The largest page, in bytes; pictures that do not fit are linked."""
SPECIAL = re.compile(r"([\\`*_\[\]#|~$])")
NUMBER = re.compile(r"([-+]?[\d.,]+(e[-+]?\d+)?|[-+]?inf|nan)?")
T = TypeVar("T")


@dataclass
class Picture:
    """A picture in a file and as a ``data:`` address, with its size on the page in CSS pixels."""

    file: Path
    description: str
    width: int
    height: int
    uri: str
    address: str = ""
    """Of its copy, relative to the page."""
    inline: bool = False


@dataclass
class Run:
    """The contents of one folder; settings and scores are by the titles of their tables."""

    title: str
    folder: Path
    sessions: list[dict[str, Any]]
    kept: int = 0
    """The number of runs of a grid that ended."""
    finished: bool = False
    """Whether the last session ended, and left results; without one, whether all of a grid did."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """The duration of all sessions."""
        return sum(float(s["seconds"]) for s in self.sessions)

    @property
    def state(self) -> str:
        """State, duration and data, as the list of runs shows them."""
        words, data = "finished" if self.finished else "not finished", self.last("data")
        drawn = " (drawn by a program: not to be compared with figures of real data)"
        name = f"{data.get('name', 'none')}{drawn if data.get('generated') else ''}"
        return f"{words}, {duration(self.seconds)}, data: {name}"

    def last(self, name: str, record: str = "") -> Any:
        """Return what the last session that has ``name`` noted, of those of a file of settings."""
        of = [s for s in self.sessions if not record or s.get("record", record) == record]
        return next((s[name] for s in reversed(of) if s.get(name)), {})


def run_folders(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the folders of runs at or below the paths by their paths from these, their titles.

    ValueError names a path at or below which there is no run.
    """
    found: dict[Path, str] = {}
    for path in (path.resolve() for path in paths):
        below = [path, *sorted(p for p in path.rglob("*") if p.is_dir())]
        titles = {p: p.relative_to(path.parent).as_posix() for p in below}
        runs = {p: t for p, t in titles.items() if "/." not in t and _files(p, *RECORDS, SESSIONS)}
        if not runs:
            files = "run.json, grid.json or sessions.jsonl"
            raise ValueError(f"{path}: expected the folder of a run, with {files}, or one of those")
        found |= {p: title for p, title in runs.items() if p not in found}
    return found


def read_run(folder: Path, title: str = "") -> Run:
    """Read the folder of a run; the title is by default its name.

    ValueError names a file that is not as its program wrote it.
    """
    title = title or folder.resolve().name
    sessions = [s for file in _files(folder, SESSIONS) for s in _read(file, _sessions)]
    rows = [row for file in _files(folder, RESULTS) for row in _read(file, _results)]
    run = Run(title, folder, sessions, len(rows))
    for found, patterns in ((run.settings, RECORDS), (run.scores, SCORES)):
        files = _files(folder, *patterns)
        for file in files:
            name = f"{title}, {file.stem}" if len(files) > 1 else title
            noted = run.last("settings", file.name) if found is run.settings else {}
            found[name] = _flat({**_read(file, _object), "session": noted})
    run.tables = [table for file in _files(folder, "*.csv") if (table := _read(file, _table))]
    run.pictures = [_read(file, _picture) for file in _files(folder, "*.png")]
    for file in _files(folder, ANSWERS):
        run.answers = _read(file, _answers)
    axes = [_read(file, _axes) for file in _files(folder, RECORD)]
    ended = sessions[-1]["ended"] if sessions else axes and len(rows) >= sum(map(math.prod, axes))
    run.finished = bool(ended and (run.scores or run.tables or rows))
    if rows and not run.tables:
        run.tables.append(Table(list(dict.fromkeys(name for row in rows for name in row)), "Runs"))
        for row in rows:
            run.tables[0].add(*(text(row.get(name)) for name in run.tables[0].columns))
    return run


def _files(folder: Path, *patterns: str) -> list[Path]:
    """Return the files of a folder that match, without hidden ones, devices and pipes."""
    found = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    return [file for file in found if file.is_file() and not file.name.startswith(".")]


def _read(file: Path, parse: Callable[[Path], T]) -> T:
    """Return what ``parse`` makes of a file; a ValueError names the file, whatever it holds."""
    try:
        if file.stat().st_size > (limit := SIZES.get(file.suffix, LARGEST)):
            raise ValueError(f"expected at most {limit:,} bytes")
        if file.suffix == ".jsonl" and max(map(len, file.read_bytes().split(b"\n"))) > LARGEST:
            raise ValueError(f"expected at most {LARGEST:,} bytes in a line")
        return parse(file)
    except Exception as error:
        why = " ".join(f"{error!s:.200}".split())
        raise ValueError(f"{file}: not as it was written ({why})") from error


def _object(file: Path) -> dict[str, Any]:
    found = from_json(file.read_bytes())
    if not isinstance(found, dict):
        raise TypeError(f"expected an object, got {type(found).__name__}")
    return found


def _axes(file: Path) -> list[int]:
    """Return the numbers of the values of the axes of a grid."""
    return [len(values) for values in _object(file)["axes"].values()]


def _answers(file: Path) -> dict[str, list[str]]:
    found = _object(file)
    if not all(isinstance(sentences, list) for sentences in found.values()):
        raise TypeError("expected lists of sentences")
    return {name: [str(s) for s in sentences] for name, sentences in found.items()}


def _sessions(file: Path) -> list[dict[str, Any]]:
    """Return the sessions, the first one first; a last line that is cut short is left out."""
    found = []
    for one in map(from_json, file.read_bytes().split(b"\n")[:-1]):
        if not 0 <= float(one["seconds"]) < 1e12:
            raise ValueError(f"expected seconds, got {one['seconds']}")
        parts = {name: dict(one.get(name, {})) for name in ("environment", "data", "settings")}
        found.append({**one, **parts, "ended": bool(one["ended"])})
    return found


def _results(file: Path) -> list[dict[str, Any]]:
    """Return points, metrics and seconds of the runs of a grid that ended."""
    rows = []
    for result in kept(file.parent).values():
        plain = {k: v for k, v in result.values.items() if isinstance(v, (bool, int, float, str))}
        rows.append({**result.point, **plain, "seconds": result.seconds})
    return rows


def _table(file: Path) -> Table | None:
    """Return the table of a file, None if none of our scripts has written it."""
    text = io.StringIO(file.read_text(encoding="utf-8"), newline="")
    header, *rows = list(csv.reader(text)) or [[]]
    if header[-1:] != ["best"]:
        return None
    if len(header) * (1 + len(rows)) > CELLS:
        raise ValueError(f"expected at most {CELLS:,} cells")
    table, beside = Table(header[:-1], file.stem), file.with_suffix(".md")
    if beside.is_file():
        with beside.open(encoding="utf-8", errors="replace") as lines:
            table.title = lines.readline(1000).removeprefix("# ").strip() or file.stem
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"line {number}: expected {len(header)} cells, got {len(row)}")
        table.add(*row[:-1], marked=row[-1] == "1")
    return table


def _picture(file: Path) -> Picture:
    """Read a PNG file with its description; its pixels are not decompressed."""
    content, pillow = file.read_bytes(), require("PIL.Image", "plot")
    with pillow.open(io.BytesIO(content), formats=["PNG"]) as picture:
        width, height = (round(side * 96 / DPI) for side in picture.size)
        description = str(picture.info.get("Description", ""))
        picture.verify()
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return Picture(file, description, width, height, uri)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of nested objects by their own names, without those that say nothing."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value)
        elif value is not None and value != "(path)":
            found[name] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return found


def write_report(
    runs: Sequence[Run], out: Path, *, title: str = "Report", limit: int = LIMIT
) -> Path:
    """Write ``report.md``, the folder ``pictures``, and ``report.html``, whose path is returned.

    It makes no request, and has the smallest pictures in it, up to ``limit`` bytes.
    """
    if not runs:
        raise ValueError("write_report: expected at least one run")
    pictures = [
        (i, run, one) for i, run in enumerate(runs, 1) if run.finished for one in run.pictures
    ]
    for i, run, one in pictures:
        name = re.sub(r"[^\w.=-]", "-", f"{i}-{run.folder.resolve().name}-{one.file.name}")
        one.address, one.inline = f"pictures/{name}", False
        (out / "pictures").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(one.file, out / one.address)
    write_text(out / "report.md", _render("markdown", runs, title))
    room = limit - len(_render("html", runs, title).encode())
    for *_, one in sorted(pictures, key=lambda each: len(each[-1].uri)):
        room -= len(one.uri) + 500  # with what stands around it
        one.inline = room > 0
    write_text(out / "report.html", _render("html", runs, title))
    return out / "report.html"


def _render(format: str, runs: Sequence[Run], title: str) -> str:
    """Return the page in a format, for whose macros there is a template of its name."""
    jinja2 = require("jinja2", "examples")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=format == "html",
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"numbers": number_columns, "markdown": markdown}
    written = time.strftime("%d %B %Y, %H:%M UTC", time.gmtime())
    computed = f"{len(runs)} runs, {duration(sum(run.seconds for run in runs))} of computation."
    machines = _distinct(s["environment"] for run in runs for s in run.sessions)
    text = environment.get_template("report.j2").render(
        format=format,
        title=title,
        runs=runs,
        opening=f"{computed} Written by examples/report.py on {written}.",
        scores=_scores(runs),
        pairs=pairs,
        facts=lambda run: _facts(run, machines),
        data=_distinct(s["data"] for run in runs for s in run.sessions),
        machines=machines,
    )
    return str(text).encode(errors="replace").decode() + "\n"  # names that are not UTF-8


def _facts(run: Run, machines: Sequence[dict[str, Any]]) -> str:
    """Return when, how long and where a run was computed."""
    on = {machines.index(s["environment"]) + 1: None for s in run.sessions if s["environment"]}
    words = [f"{duration(run.seconds)} in {len(run.sessions)} session(s)"]
    words += [f"processes: {run.last('processes') or 1}", f"machine: {', '.join(map(str, on))}"]
    return f"Started {run.sessions[0].get('started')}; {'; '.join(words)}."


def _scores(runs: Sequence[Run]) -> Table:
    """Return the scores of all finished runs: of each part of the data the first."""
    table = Table(["run", "validation", "training", "test"], "Scores of all runs")
    for title, values in (pair for run in runs if run.finished for pair in run.scores.items()):
        numbers = {k: v for k, v in values.items() if type(v) in (int, float)}
        shown = (
            [v for k, v in numbers.items() if part in k] for part in ("valid", "train", "test")
        )
        table.add(title, *(text(found[0]) if found else "" for found in shown))
    return table


def _distinct(values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({to_json(value): value for value in values if value}.values())


def pairs(values: Mapping[str, Any], what: str, title: str) -> Table:
    """Return a table with one row for each value; figures are rounded, settings are not."""
    table, shown = Table([what, "value"], title), text if what == "figure" else str
    for name, value in _flat(values).items():
        table.add(name.replace("_", " "), shown(value))
    return table


def text(value: object) -> str:
    """Return a figure as text; floats have four decimals, unless they are near 0."""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) >= 0.01 else f"{value:.4g}"
    return "" if value is None else str(value)


def duration(seconds: float) -> str:
    """Return a duration as ``5.0 s``, or with minutes and hours as ``1:05:00 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{timedelta(seconds=round(seconds))} h"


def number_columns(table: Table) -> set[int]:
    """Return the indices of the columns after the first that hold numbers only."""
    columns = [[row[i] for row in table.rows] for i in range(len(table.columns))]
    return {i for i, cells in enumerate(columns) if i and all(map(NUMBER.fullmatch, cells))}


def markdown(value: object) -> str:
    """Return a text in which nothing is a sign of Markdown or HTML, on one line."""
    return SPECIAL.sub(r"\\\1", escape(" ".join(str(value).split()), quote=False))
