"""Run all benchmarks and write their report.

    python benchmarks/run.py            # some minutes
    python benchmarks/run.py --full     # all cases on one thread and on all: about an hour

Each workload is also a command: ``python benchmarks/step.py``. Results go to ``runs/benchmarks/``:
a JSON file each, ``performance.md`` and ``step.png``. Each case is written when it is measured;
after Ctrl-C the same command goes on.
"""

from tables import main

from minidl.view.cli import run_main

WORKLOADS = ("imports", "evaluate", "maps", "online", "step", "estimators", "grid")

if __name__ == "__main__":
    run_main(lambda: main(*WORKLOADS))
