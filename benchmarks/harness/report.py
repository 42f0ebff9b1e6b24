"""The report of a run: Markdown with targets and tables, and the picture of the ratios."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.jobs import Workload
from harness.results import Results, Row
from harness.targets import verdicts
from minidl.files import write_text
from minidl.view.plots import Panel, line_plot

BOUND = "matrix products"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the first column is text, the others are figures."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write_report(folder: Path, results: Results, workloads: Iterable[Workload]) -> None:
    """Write ``performance.md``, and ``step.png`` where steps were measured."""
    sections = [machine(results), targets(results)]
    if draw(folder / "step.png", results):
        sections.append("![Ratio of the times of a step against width](step.png)\n")
    sections += [workload_section(w, results) for w in workloads if any(results.of(w.name))]
    if paid := break_even(results):
        sections.append(paid)
    write_text(folder / "performance.md", "\n".join(["# Measured", "", *sections]))


def machine(results: Results) -> str:
    """Describe machine, versions, load, and who did not take part."""
    known = results.environment
    versions = ", ".join(
        f"{name} {known[name]}"
        for name in ("Python", "NumPy", "torch", "jax", "scikit-learn", "entmax", "minidl")
        if known.get(name)
    )
    loads = [value for row in results.rows.values() for value in row["load"] if value is not None]
    text = (
        f"{known['processor']}, {known['cores']} cores, {known['BLAS']}; "
        f"{versions}; commit {known['commit']}.\n"
    )
    if loads:
        text += (
            f"Load average between {min(loads):g} and {max(loads):g} (the benchmark itself is a "
            "load of 1, or as many as it has threads or processes).\n"
        )
    if results.settings.get("quick"):
        text += "A quick run: its figures are rough.\n"
    missing = {n: p for row in results.rows.values() for n, p in row["missing"].items()}
    text += "".join(f"Left out: {n}, since {p} is not installed.\n" for n, p in missing.items())
    for row in results.rows.values():
        text += "".join(
            f"Refused in {row['workload']} {describe_case(row['case'])}: {name}: {why}\n"
            for name, why in row["refused"].items()
        )
    return text


def targets(results: Results) -> str:
    """Return the table of the targets."""
    rows = []
    for v in verdicts(results):
        sign = "≥" if v.target.is_share else "≤"
        ratio = "" if v.ratio is None else f"{v.ratio:.3f}"
        word = f"**{v.word}**" if v.met is False else v.word
        rows.append([v.target.text, f"{sign} {v.target.at_most:g}", ratio, v.against, word])
    columns = ["workload, against", "ratio ours / theirs", "measured", "the best", "verdict"]
    return f"## Targets\n\n{markdown_table(columns, rows)}"


def describe_case(case: dict[str, Any]) -> str:
    """Return the coordinates of a case in one line."""
    return ", ".join(
        f"{k} {v if isinstance(v, str) else format_number(v)}" for k, v in case.items()
    )


def format_number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def figure(value: float) -> str:
    """Format a time or a size with three digits."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{digits}f}"


def workload_section(workload: Workload, results: Results) -> str:
    """Return the tables of one workload: medians, and ratios with their quartiles."""
    rows = list(results.of(workload.name))
    names = list(dict.fromkeys(n for row in rows for n in row["contestants"]))
    text = f"## {workload.name}\n\n{workload.about}\n"
    for threads in dict.fromkeys(row["threads"] for row in rows):
        here = [row for row in rows if row["threads"] == threads]
        text += f"\n{workload.unit}, median (minimum, spread), {threads} thread(s):\n\n"
        text += tabulate(here, names, lambda f: times(f, workload.factor))
        text += "\nratio minidl / theirs, median of the rounds (quartiles):\n\n"
        text += tabulate(here, [n for n in names if n != "minidl"], ratios)
    if workload.name == "real":
        text += f"\nfirst epoch, slowest epoch, last epoch:\n\n{tabulate(rows, names, epochs)}"
    return text


def tabulate(rows: list[Row], names: list[str], cell: Callable[[dict[str, Any]], str]) -> str:
    """Return a table with a line for each case and a column for each contestant."""
    lines = [
        [
            describe_case(row["case"]),
            *[cell(row["contestants"][n]) if n in row["contestants"] else "" for n in names],
        ]
        for row in rows
    ]
    return markdown_table(["case", *names], lines)


def times(found: dict[str, Any], factor: float) -> str:
    """Return median, minimum and, of several rounds, the spread."""
    shown = f"{figure(factor * found['median'])} ({figure(factor * found['minimum'])}"
    return f"{shown}, {100 * found['spread']:.0f}%)" if found["rounds"] > 1 else f"{shown})"


def ratios(found: dict[str, Any]) -> str:
    """Return the ratio and its quartiles."""
    if "ratio" not in found:
        return ""
    low, high = found["ratio quartiles"]
    return f"{found['ratio']:.2f} ({low:.2f}, {high:.2f})"


def epochs(found: dict[str, Any]) -> str:
    """Return the first, the slowest and the last value."""
    values = found["values"]
    return ", ".join(map(figure, (values[0], max(values), values[-1])))


def break_even(results: Results) -> str:
    """Return after how many steps JAX's compilation has paid, and torch.compile's."""
    rows = []
    for row in results.of("step"):
        ours = row["contestants"].get("minidl")
        for name in ("JAX", "JAX vmap", "torch.compile"):
            theirs = row["contestants"].get(name)
            if ours and theirs:
                rows.append(
                    [
                        f"{describe_case(row['case'])}, {row['threads']} thread(s)",
                        name,
                        f"{theirs['compilation']:.1f}",
                        steps_to_pay(theirs["compilation"], ours["median"], theirs["median"]),
                    ]
                )
    if not rows:
        return ""
    columns = ["case", "compiled", "compilation in seconds", "steps until it has paid"]
    return f"## Compilation\n\n{markdown_table(columns, rows)}"


def steps_to_pay(compilation: float, ours: float, theirs: float) -> str:
    """Return the number of steps after which compiling once is faster than minidl."""
    if theirs >= ours:
        return "never"
    return f"{math.ceil(compilation / (ours - theirs)):,}"


def panels(results: Results) -> Iterator[Panel]:
    """Yield the ratio against width on each number of threads."""
    base = {"batch": 64, "depth": 1, "optimizer": "Adam"}
    for threads in sorted({row["threads"] for row in results.of("step")}):
        curves: dict[str, tuple[list[float], list[float]]] = {}
        widths: list[float] = []
        for row in sorted(results.of("step", threads), key=lambda row: row["case"]["width"]):
            if any(row["case"][name] != value for name, value in base.items()):
                continue
            widths.append(row["case"]["width"])
            for name, found in row["contestants"].items():
                if name not in ("minidl", BOUND) and "ratio" in found:
                    x, y = curves.setdefault(name, ([], []))
                    x.append(widths[-1])
                    y.append(found["ratio"])
        if curves:
            curves["equal"] = (widths, [1.0] * len(widths))
            title = f"{threads} thread{'s' if threads > 1 else ''}"
            ylabel = "time of minidl / time of theirs"
            yield Panel(curves, "width", ylabel, title, widths, ylog=True, dashed=["equal"])


def draw(path: Path, results: Results) -> bool:
    """Draw the ratios of training steps; return whether there were any."""
    found = list(panels(results))
    if found:
        line_plot(
            path, *found, title="One training step with Adam, batch 64: below 1 minidl is faster"
        )
    return bool(found)
