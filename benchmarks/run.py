"""Run all benchmarks and write one report.

    python benchmarks/run.py            # some minutes
    python benchmarks/run.py --full     # all cases on one thread and on all: about an hour

Each workload is also a command: ``python benchmarks/step.py``. Results go to ``runs/benchmarks/``:
a JSON file each, ``performance.md`` and ``step.png``. Each case is written when it is measured;
after Ctrl-C the same command goes on.
"""

from __future__ import annotations

from tables import write_report
from timing import cores, make_parser, measure

from minidl.view.cli import run_main

WORKLOADS = ("imports", "evaluate", "maps", "online", "step", "estimators", "grid")


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--only", type=lambda text: text.split(","), help=", ".join(WORKLOADS))
    args = parser.parse_args()
    args.threads = args.threads or (sorted({1, cores()}) if args.full else [1])
    for name in args.only or ():
        if name not in WORKLOADS:
            parser.error(f"--only: no {name!r}, there are {', '.join(WORKLOADS)}")
    try:
        found = {name: measure(name, args) for name in args.only or WORKLOADS}
    except ValueError as error:
        parser.error(str(error))
    print(f"wrote {write_report(args.out, found)}")
    return int(any(row["refused"] for results in found.values() for row in results.rows))


if __name__ == "__main__":
    run_main(main)
