"""The page of a report, filled in from the templates: HTML with everything in it, and Markdown."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from homework.page.reading import Picture, Run, pairs, text
from minidl.checks import require
from minidl.files import to_json, write_text
from minidl.view.tables import Table

LIMIT = 5_000_000
"""The largest page, in bytes; pictures that do not fit are linked."""
SHORT = 25
"""The most rows of a table that stands before the pictures."""
NUMBER = re.compile(r"([-+]?[\d.,]+(e[-+]?\d+)?|[-+]?inf|nan)?")
SPECIAL = re.compile(r"([\\`*_\[\]#|~$])")


def write_report(
    runs: Sequence[Run], out: Path, *, title: str = "Report", limit: int = LIMIT
) -> Path:
    """Write ``report.html``, ``report.md`` and the folder ``pictures`` to ``out`` (needs jinja2).

    The HTML page, whose path is returned, has its pictures in it and makes no request. The smallest
    ones come first, up to ``limit`` bytes; the others are linked.
    """
    if not runs:
        raise ValueError("write_report: expected at least one run")
    copies = _copy(runs, out / "pictures")
    machines = _distinct(s.get("environment", {}) for run in runs for s in run.sessions)
    trained = [run for run in runs if run.last("data")]
    generated = [run.title for run in trained if run.last("data").get("generated")]
    everything = generated and len(generated) == len(trained)
    values: dict[str, Any] = {
        "title": title,
        "runs": runs,
        "written": time.strftime("%d %B %Y, %H:%M UTC", time.gmtime()),
        "seconds": sum(run.seconds or 0 for run in runs),
        "summary": _summary(runs),
        "scores": _scores(runs),
        "links": [f"#run-{i}" for i, _ in enumerate(runs, start=1)],
        "data": _data_sets(runs),
        "machines": [pairs(m, "property", f"Machine {i}") for i, m in enumerate(machines, start=1)],
        "generated": "All runs with data" if everything else ", ".join(generated),
        "short": lambda tables: [t for t in tables if len(t.rows) <= SHORT],
        "long": lambda tables: [t for t in tables if len(t.rows) > SHORT],
        "facts": lambda run: _facts(run, machines),
        "files": copies,
    }
    room = limit - len(_render("report.html.j2", inline=(), **values).encode())
    inline = []
    for picture in sorted(copies, key=lambda picture: picture.weight):
        room -= picture.weight
        if room > 0:
            inline.append(picture)
    page = out / "report.html"
    write_text(page, _render("report.html.j2", inline=inline, **values))
    write_text(out / "report.md", _render("report.md.j2", **values))
    return page


def duration(seconds: float | None) -> str:
    """Return a duration in words, as ``1 h 5 min``, ``1 min 5 s`` or ``5.0 s``."""
    if seconds is None:
        return "not recorded"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def number_columns(table: Table) -> set[int]:
    """Return the indices of the columns after the first that hold numbers only."""
    columns = [[row[i] for row in table.rows] for i in range(len(table.columns))]
    return {i for i, cells in enumerate(columns) if i and all(map(NUMBER.fullmatch, cells))}


def markdown(value: object) -> str:
    """Return a text in which nothing is a sign of Markdown or HTML, on one line."""
    plain = " ".join(str(value).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\1", plain)


def _render(template: str, **values: Any) -> str:
    jinja2 = require("jinja2", "examples")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=template.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"duration": duration, "markdown": markdown, "numbers": number_columns}
    page = str(environment.get_template(template).render(**values))
    return page.encode(errors="replace").decode()  # names of files that are not UTF-8


def _copy(runs: Sequence[Run], folder: Path) -> dict[Picture, str]:
    """Copy all pictures to one folder; return their addresses, relative to the page."""
    addresses = {}
    for i, run in enumerate(runs, start=1):
        for picture in run.pictures if run.finished else ():
            name = re.sub(r"[^\w.=-]", "-", f"{i}-{run.folder.resolve().name}-{picture.file.name}")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture.file, folder / name)
            addresses[picture] = f"{folder.name}/{name}"
    return addresses


def _distinct(values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({to_json(value): value for value in values if value}.values())


def _facts(run: Run, machines: Sequence[dict[str, Any]]) -> str:
    """Return when, how long and where a run was computed, and on which data."""
    last, n = run.sessions[-1], len(run.sessions)
    start = run.sessions[0].get("started", "").replace("T", " ").replace("Z", " UTC")
    words = [f"Started {start}", f"took {duration(run.seconds)}"]
    words += [f"in {n} sessions"] * (n > 1)
    named = {"processes": "processes", "threads": "BLAS threads of each"}
    words += [f"{text}: {last[key]}" for key, text in named.items() if key in last]
    where = [machines.index(s["environment"]) + 1 for s in run.sessions if s.get("environment")]
    words.append(f"machine {', '.join(map(str, dict.fromkeys(where)))}")
    if data := run.last("data"):
        words.append(f"data: {data.get('name')}")
    return "; ".join(words) + "."


def _summary(runs: Sequence[Run]) -> Table:
    """Return the table of all runs."""
    table = Table(["run", "state", "duration", "data"], "State, duration and data of all runs")
    for run in runs:
        data = run.last("data", {}).get("name", "none")
        state = "finished" if run.finished else "not finished"
        table.add(run.title, state, duration(run.seconds), data)
    return table


def _scores(runs: Sequence[Run]) -> Table:
    """Return the scores of all finished runs: of each part of the data the first, and the others.

    Scores of the best epoch come first in the files.
    """
    parts = {"validation": "valid", "training": "train", "test": "test"}
    table = Table(["run", *parts, "others"], "Scores of all runs")
    for title, values in ((t, v) for run in runs if run.finished for t, v in run.values.items()):
        numbers = {k: v for k, v in values.items() if type(v) in (int, float)}
        shown = [next((k for k in numbers if word in k), "") for word in parts.values()]
        others = [f"{k.replace('_', ' ')} {text(v)}" for k, v in numbers.items() if k not in shown]
        table.add(title, *(text(numbers.get(k)) for k in shown), ", ".join(others))
    return table


def _data_sets(runs: Sequence[Run]) -> Table:
    """Return a table of the data sets."""
    columns = ["data set", "drawn by a program", "examples", "features", "classes", "SHA-256"]
    table = Table([*columns, "runs"], "Data sets")
    for one in _distinct(run.last("data", {}) for run in runs):
        examples = ", ".join(f"{n:,} {part}" for part, n in one.get("examples", {}).items())
        users = [run.title for run in runs if run.last("data") == one]
        made = "yes" if one.get("generated") else "no"
        cells = [one.get(name) for name in ("features", "classes", "sha256")]
        shown = "all" if len(users) == len(runs) else ", ".join(users)
        table.add(one.get("name"), made, examples, *cells, shown)
    return table
