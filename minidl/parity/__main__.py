"""``python -m minidl.parity``: the standard set compared with PyTorch, in one table.

Exits with 1 if a relative difference is above its tolerance.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from minidl.checks import progress_bar, require
from minidl.files import as_path, to_json, write_text
from minidl.view.cli import Parser, int_argument, run_main
from minidl.view.tables import Table

if TYPE_CHECKING:
    from minidl.parity.report import ParityReport


def main() -> None:
    parser = Parser(prog="python -m minidl.parity", description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    parser.add_argument("--steps", type=int_argument("steps"), default=200, help="(default 200)")
    parser.add_argument("--json", type=as_path, metavar="FILE", help="write all differences")
    args = parser.parse_args()
    require("torch", "parity")
    from minidl.parity.standard import standard_set  # these import torch
    from minidl.parity.torch_model import one_thread

    cases, reports = standard_set(), []
    with one_thread(), progress_bar(total=len(cases), desc="comparing", unit="case") as bar:
        for case in cases:
            bar.set_description_str(case.name, refresh=False)
            reports.append(case.run(args.steps, args.dtype))
            bar.update()
    _table(reports).show()
    failed = [report for report in reports if not report]
    if args.json:
        content = {"passed": not failed, "cases": [report.to_dict() for report in reports]}
        write_text(args.json, to_json(content, indent=1) + "\n")
    for report in failed:
        print(f"{report.title}: {report.verdict()}")
    print(f"{len(reports) - len(failed)} of {len(reports)} cases are within the tolerance")
    if failed:
        sys.exit(1)


def _table(reports: list[ParityReport]) -> Table:
    """Tabulate the largest relative difference of each kind of quantity, case by case."""
    steps, dtype = len(reports[0].relative), reports[0].dtype
    kinds = ("order", "logits", "loss", "dlogits", "gradient", "moments", "parameter")
    title = f"Largest relative differences from PyTorch, {dtype}, {steps} steps"
    table = Table(["case", *kinds, "beyond the tolerance from"], title)
    for report in reports:
        worst: dict[str, Any] = {kind: x.max() for kind, x in report.by_kind.items()}
        worst["moments"] = max((x for k, x in worst.items() if k not in kinds), default=None)
        cells = ["-" if worst.get(k) is None else f"{worst[k]:.0e}" for k in kinds]
        first = report.first
        table.add(report.title, *cells, f"step {first[0]}, {first[1]}" if first else None)
    return table


if __name__ == "__main__":
    run_main(main)
