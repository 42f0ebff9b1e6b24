"""The report of the benchmarks: Markdown tables, and the picture of a step's ratios."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

from timing import Results, make_parser, measure

from minidl.files import write_text
from minidl.view.plots import Panel, line_plot

BOUND = "matrix products"  # no library that uses the same BLAS is faster than its products
COMPILED = "torch.compile", "JAX"


def main(*workloads: str) -> int:
    """Measure workloads as the command line says; print the tables of one, write those of several.

    The exit status is 1 where a contestant was refused.
    """
    modules = [importlib.import_module(name) for name in workloads]
    parser = make_parser(modules[0].__doc__ if len(modules) == 1 else "Run all benchmarks.")
    args = parser.parse_args()
    if args.full and len(modules) > 1:
        args.threads = args.threads or sorted({1, os.cpu_count() or 1})
    try:
        found = {name: measure(name, args) for name in workloads}
    except ValueError as error:
        parser.error(str(error))
    text = "\n".join(section(name, results) for name, results in found.items())
    path = args.out / f"{workloads[0]}.json"
    if len(found) == 1:
        print(text)
    else:
        path = args.out / "performance.md"
        title = "One training step with Adam, batch 64: below 1 minidl is faster"
        line_plot(args.out / "step.png", *panels(found["step"]), title=title)
        picture = "![Ratio of the times of a step against width](step.png)"
        write_text(path, f"# Measured\n\n{picture}\n\n{text}")
    print(f"wrote {path}")
    return int(any(row["refused"] for results in found.values() for row in results.rows))


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
        ruler = ["---", *["---:"] * len(names)]  # the first column is text, the others are figures
        text += "".join(f"| {' | '.join(line)} |\n" for line in [["case", *names], ruler, *lines])
    return text


def machine(results: Results) -> str:
    """Return a line on the processor and the versions, one on the load, and what was refused."""
    known = results.known
    names = ("Python", "NumPy", "torch", "jax", "scikit-learn", "entmax", "minidl")
    versions = ", ".join(f"{name} {known[name]}" for name in names if known.get(name))
    text = f"{known['processor']}, {known['cores']} cores, {known['BLAS']}; {versions}; commit "
    text += f"{known.get('commit', 'unknown')}.\n"
    loads = [value for row in results.rows for value in row["load"]]
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
        if found and name != "minidl":
            low, high = found["quartiles"]
            text += f"; {found['ratio']:.2f} ({low:.2f}, {high:.2f})"
            if name in COMPILED:
                text += f"; {found['compilation']:.1f} s"
        yield text


def label(case: dict[str, Any]) -> str:
    shown = {k: f"{v:g}" if isinstance(v, float) else v for k, v in case.items()}
    return ", ".join(f"{k} {v}" for k, v in shown.items())


def digits(value: float) -> str:
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def panels(results: Results) -> Iterator[Panel]:
    """Yield the ratio of a step against width on each number of threads."""
    base = {"batch": 64, "depth": 1, "optimizer": "Adam"}
    rows = [row for row in results.rows if {**base, "width": row["case"]["width"]} == row["case"]]
    rows.sort(key=lambda row: row["case"]["width"])
    for threads in sorted({row["threads"] for row in rows}):
        widths = [row["case"]["width"] for row in rows if row["threads"] == threads]
        curves: dict[str, tuple[list[float], list[float]]] = {}
        for row in rows:
            for name, found in row["contestants"].items():
                if row["threads"] == threads and name not in ("minidl", BOUND):
                    x, y = curves.setdefault(name, ([], []))
                    x.append(row["case"]["width"])
                    y.append(found["ratio"])
        curves["equal"] = (widths, [1.0] * len(widths))
        title = f"{threads} thread{'s' if threads > 1 else ''}"
        ylabel = "time of minidl / time of theirs"
        yield Panel(curves, "width", ylabel, title, widths, ylog=True, dashed=["equal"])
