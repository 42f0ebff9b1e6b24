"""The report of the benchmarks: Markdown tables, and the picture of a step's ratios."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from timing import Results, make_parser, measure

from minidl.files import write_text
from minidl.view.plots import Panel, line_plot

BOUND = "matrix products"
"""The name of the bound: no library that uses the same BLAS is faster than its products."""
COMPILED = "torch.compile", "JAX"


def main(workload: str) -> int:
    module = importlib.import_module(workload)
    parser = make_parser(module.__doc__)
    try:
        results = measure(workload, parser.parse_args())
    except ValueError as error:
        parser.error(str(error))
    print(section(workload, results))
    print(f"wrote {results.path}")
    return int(any(row["refused"] for row in results.rows))


def section(workload: str, results: Results) -> str:
    """Return the Markdown of one workload: what is measured, where, and a table of each thread."""
    module = importlib.import_module(workload)
    text = f"## {workload}\n\n{(module.__doc__ or '').strip()}\n\n{machine(results)}"
    for threads in dict.fromkeys(row["threads"] for row in results.rows):
        rows = [row for row in results.rows if row["threads"] == threads]
        text += (
            f"\n{module.UNIT}, {threads} thread{'s' if threads > 1 else ''}: the median; then the "
            f"ratio minidl / theirs, median of the rounds (quartiles); of {' and '.join(COMPILED)} "
            f"also the seconds of compilation:\n\n"
        )
        names = [n for n in module.CONTESTANTS if any(n in row["contestants"] for row in rows)]
        lines = [[label(row["case"]), *cells(row, names, module.FACTOR)] for row in rows]
        text += markdown_table(["case", *names], lines)
    return text


def machine(results: Results) -> str:
    known = results.known
    names = ("Python", "NumPy", "torch", "jax", "scikit-learn", "entmax", "minidl")
    versions = ", ".join(f"{name} {known[name]}" for name in names if known.get(name))
    text = f"{known['processor']}, {known['cores']} cores, {known['BLAS']}; {versions}; commit "
    text += f"{known.get('commit', 'unknown')}.\n"
    loads = [value for row in results.rows for value in row["load"] if value is not None]
    if loads:
        text += f"Load average {min(loads):g} to {max(loads):g}, the benchmark's own among it.\n"
    for row in results.rows:
        for name, why in row["refused"].items():
            text += f"Refused in {label(row['case'])}: {name}: {why}\n"
    return text


def cells(row: dict[str, Any], names: Sequence[str], factor: float) -> Iterator[str]:
    """Yield a figure, and the ratio of ours to it, for each contestant."""
    for name in names:
        found = row["contestants"].get(name)
        text = "" if found is None else digits(factor * found["median"])
        if found and name != "minidl" and "ratio" in found:
            low, high = found["quartiles"]
            text += f"; {found['ratio']:.2f} ({low:.2f}, {high:.2f})"
            if name in COMPILED:
                text += f"; {found['compilation']:.1f} s"
        yield text


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the first column is text, the others are figures."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def label(case: dict[str, Any]) -> str:
    shown = {k: f"{v:g}" if isinstance(v, float) else v for k, v in case.items()}
    return ", ".join(f"{k} {v}" for k, v in shown.items())


def digits(value: float) -> str:
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def panels(results: Results) -> Iterator[Panel]:
    """Yield the ratio against width on each number of threads."""
    base = {"batch": 64, "depth": 1, "optimizer": "Adam"}
    rows = [row for row in results.rows if row["case"].items() >= base.items()]
    for threads in sorted({row["threads"] for row in rows}):
        here = sorted(
            (row for row in rows if row["threads"] == threads), key=lambda row: row["case"]["width"]
        )
        widths = [row["case"]["width"] for row in here]
        curves: dict[str, tuple[list[float], list[float]]] = {}
        for row in here:
            for name, found in row["contestants"].items():
                if name not in ("minidl", BOUND) and "ratio" in found:
                    x, y = curves.setdefault(name, ([], []))
                    x.append(row["case"]["width"])
                    y.append(found["ratio"])
        if curves:
            curves["equal"] = (widths, [1.0] * len(widths))
            title = f"{threads} thread{'s' if threads > 1 else ''}"
            ylabel = "time of minidl / time of theirs"
            yield Panel(curves, "width", ylabel, title, widths, ylog=True, dashed=["equal"])


def draw(path: Path, results: Results) -> bool:
    """Draw the ratios of a step against width; return whether there were any."""
    made = list(panels(results))
    if made:
        title = "One training step with Adam, batch 64: below 1 minidl is faster"
        line_plot(path, *made, title=title)
    return bool(made)


def write_report(folder: Path, found: dict[str, Results]) -> Path:
    text = "# Measured\n\n"
    if "step" in found and draw(folder / "step.png", found["step"]):
        text += "![Ratio of the times of a step against width](step.png)\n\n"
    text += "\n".join(section(name, results) for name, results in found.items())
    path = folder / "performance.md"
    write_text(path, text)
    return path
