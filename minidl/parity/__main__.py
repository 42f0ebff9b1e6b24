"""``python -m minidl.parity``: the standard set compared with PyTorch, in one table.

Exits with 1 if a relative difference is above its tolerance.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidl.checks import require
from minidl.files import as_path, to_json, write_text
from minidl.view.cli import Parser, int_argument, run_main
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

if TYPE_CHECKING:
    from minidl.parity.report import ParityReport
    from minidl.parity.standard import ParityCase

Runs = list[tuple["ParityCase", "ParityReport"]]


def main() -> None:
    parser = Parser(prog="python -m minidl.parity", description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    parser.add_argument("--steps", type=int_argument("steps"), default=200, help="(default 200)")
    parser.add_argument("--json", type=as_path, metavar="FILE", help="write all figures")
    parser.add_argument("--plot", type=as_path, metavar="FILE", help="draw how differences grow")
    args = parser.parse_args()
    require("torch", "parity")
    from minidl.parity.standard import standard_set  # these import torch
    from minidl.parity.torch_model import one_thread

    cases, runs = standard_set(), Runs()
    with one_thread(), _bar(len(cases) * args.steps) as bar:
        for case in cases:
            bar.set_description_str(case.name, refresh=False)
            runs.append((case, case.run(args.steps, args.dtype, bar.update)))
    failed = [report for _, report in runs if not report]
    _table(runs).show()
    _print_growth(runs)
    if args.json:
        content = {"passed": not failed, "cases": [report.to_dict() for _, report in runs]}
        write_text(args.json, to_json(content, indent=1) + "\n")
    if args.plot:
        _plot_growth(runs, args.plot)
    for report in failed:
        print(f"{report.title}: {report.verdict()}")
    print(f"{len(runs) - len(failed)} of {len(runs)} cases are within the tolerance")
    if failed:
        sys.exit(1)


def _bar(total: int) -> Any:
    """Return a bar over all steps with the time left; on no terminal, a line once a minute."""
    text = "{desc}: {n_fmt} of {total_fmt} steps, {elapsed} passed, {remaining} left\n"
    lines = {"mininterval": 60, "maxinterval": 60, "bar_format": text}
    options = {"leave": False} if sys.stderr.isatty() else lines
    tqdm = require("tqdm", "examples").tqdm
    return tqdm(total=total, desc="comparing", unit="step", **options)


def _table(runs: Runs) -> Table:
    """Tabulate the largest relative difference of each kind of quantity, case by case."""
    report = runs[0][1]
    title = (
        f"Largest relative differences from PyTorch, {report.dtype}, {len(report.relative)} steps"
    )
    kinds = ("order", "logits", "loss", "dlogits", "gradient", "moments", "parameter")
    table = Table(["case", *kinds, "beyond the tolerance from"], title)
    for _, report in runs:
        moments = [report.of(kind).max() for kind in report.kinds if kind not in kinds]
        worst = {kind: report.of(kind).max() for kind in report.kinds}
        worst["moments"] = max(moments, default=None)
        cells = ["-" if worst.get(k) is None else f"{worst[k]:.0e}" for k in kinds]
        first = report.first
        table.add(report.title, *cells, f"step {first[0]}, {first[1]}" if first else None)
    return table


def _growth(runs: Runs) -> dict[str, list[float]]:
    """Return the largest relative difference at each step, by optimizer and depth."""
    curves: dict[str, list[float]] = {}
    for family in ("SGD", "Adam"):
        for depth in dict.fromkeys(case.depth for case, _ in runs if case.depth):
            group = [
                report.relative.max(axis=1)
                for case, report in runs
                if case.depth == depth and case.optimizer[0].__name__.startswith(family)
            ]
            curves[f"{family}, depth {depth}"] = [max(step) for step in zip(*group, strict=True)]
    return curves


def _print_growth(runs: Runs) -> None:
    print("The largest relative difference of any quantity up to a step:")
    for name, curve in _growth(runs).items():
        marks = [t for t in (1, 10, 50, 100, 200, 500, 1000) if t <= len(curve)]
        print(f"  {name:<15}" + ", ".join(f"step {t}: {max(curve[:t]):.0e}" for t in marks))
    print(
        "The rounding error of a gradient is small relative to its largest entry. SGD keeps it\n"
        "so at any depth. Adam divides each entry by its own size. Where an entry is far smaller\n"
        "than the largest, as most are in the first layers of a deep network, its rounding error\n"
        "becomes part of the step, and the curvature of the loss multiplies it."
    )


def _plot_growth(runs: Runs, path: Path) -> None:
    report = runs[0][1]
    steps = range(1, len(report.relative) + 1)
    curves = {name: (steps, curve) for name, curve in _growth(runs).items()}
    curves["tolerance"] = (steps, [report.tolerance(step) for step in steps])
    title = f"minidl and PyTorch, {report.dtype}"
    line_plot(path, Panel(curves, "step", "largest relative difference", title, ylog=True))


if __name__ == "__main__":
    run_main(main)
