"""Time minidl beside PyTorch, JAX, scikit-learn, NumPy loops and entmax.

    python benchmarks/run.py                       # all workloads: about 33 minutes on two cores
    python benchmarks/run.py --quick               # a rough picture in some minutes
    python benchmarks/run.py --only step,online --threads 1

Writes results.json, performance.md and step.png. Each case is written when it is measured; after
Ctrl-C the same command goes on. Contestants that are not installed are named and left out, and
each one is first checked to compute the same thing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.commands import ROOT
from harness.environment import environment
from harness.jobs import Job, in_pools, jobs
from harness.report import write_report
from harness.results import Results, key
from harness.targets import verdicts
from harness.threads import cores
from workloads import WORKLOADS

from minidl.checks import did_you_mean, require
from minidl.files import as_path
from minidl.view.cli import Interrupted, Parser, float_argument, int_argument, run_main

SECONDS, QUICK_SECONDS = 6.0, 0.5


def names(text: str) -> list[str]:
    """Return the names in a list with commas."""
    return [name.strip() for name in text.split(",")]


def make_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--only", type=names, metavar="NAME,...", help=f"of {', '.join(WORKLOADS)}")
    add("--quick", action="store_true", help="fewer cases, shorter: rough figures")
    add("--threads", nargs="+", type=int_argument("threads"), metavar="N",
        help="for step and evaluate (default: 1 and all cores, with --quick 1)")  # fmt: skip
    add("--contestants", type=names, metavar="NAME,...", help="some of them (default: all)")
    add("--data", type=as_path, metavar="PATH", help="for real: folder of IDX files or course .npz")
    add("--seconds", type=float_argument("seconds", low=0, open_low=True),
        help=f"time box of a case, once each was warmed up (default {SECONDS:g})")  # fmt: skip
    add("--out", type=as_path, help="default runs/benchmarks, with --quick runs/benchmarks-quick")
    add("--again", action="store_true", help="measure anew what the folder has results of")
    return parser


def check_names(parser: Parser, flag: str, given: list[str] | None, known: list[str]) -> None:
    """End the program if a flag has an unknown name."""
    for name in given or ():
        if name not in known:
            parser.error(f"{flag}: no {name!r}{did_you_mean(name, known)}")


def all_contestants() -> list[str]:
    """Return the names of the contestants of all workloads."""
    return list(dict.fromkeys(n for w in WORKLOADS.values() for n in w.module.CONTESTANTS))


def saved(job: Job) -> dict[str, Any]:
    """Return the first entries of a row; of paths it keeps the last part only."""
    case = {n: Path(v).name if n == "data" else v for n, v in job.case.items()}
    return {"workload": job.workload.name, "case": case, "threads": job.threads}


@contextmanager
def progress(todo: list[Job], scale: float) -> Iterator[Callable[[Job], None]]:
    """Show a bar with the time left, by the rough costs of the cases."""
    costs = [job.workload.cost * scale for job in todo]
    bar = require("tqdm", "examples").tqdm(
        total=sum(costs), smoothing=0.1,
        bar_format="{percentage:3.0f}%|{bar}| {elapsed}, {remaining} left, {desc}",
    )  # fmt: skip
    with bar:
        yield lambda job: bar.update(job.workload.cost * scale)


def main() -> int:
    parser = make_parser()
    args = parser.parse_args()
    check_names(parser, "--only", args.only, list(WORKLOADS))
    check_names(parser, "--contestants", args.contestants, all_contestants())
    if args.data is not None and not args.data.exists():
        parser.error(f"--data: no such file or folder: {args.data}")
    seconds = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
    out = args.out or ROOT / "runs" / ("benchmarks-quick" if args.quick else "benchmarks")
    only = ["minidl", *args.contestants] if args.contestants else None
    settings = {"quick": args.quick, "seconds": seconds, "contestants": only}
    results = Results.open(out / "results.json", settings, environment(), again=args.again)
    data = None if args.data is None else str(args.data.absolute())
    threads = args.threads or ([1] if args.quick else sorted({1, cores()}))
    chosen = [w for name, w in WORKLOADS.items() if not args.only or name in args.only]
    todo = jobs(chosen, threads, args.quick, data)
    if args.again:
        results.drop(saved(job) for job in todo)
    todo = [job for job in todo if key(saved(job)) not in results.rows]
    try:
        measure(todo, only, seconds, args.quick, results)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"{len(results.rows)} cases are kept, the same command (without --again) goes on"
        ) from error
    write_report(out, results, WORKLOADS.values())
    return summary(out, results)


def measure(
    todo: list[Job], only: list[str] | None, seconds: float, quick: bool, results: Results
) -> None:
    """Measure the jobs, and add their rows to the results."""
    named: set[str] = set()
    with progress(todo, 0.1 if quick else 1) as advance:
        for job, pool in in_pools(todo):
            row = {**saved(job), **job.measure(only, seconds, quick, pool)}
            for name, package in row["missing"].items():
                if name not in named:
                    named.add(name)
                    print(f"{name} is left out: {package} is not installed", file=sys.stderr)
            for name, reason in row["refused"].items():
                print(f"{name} is refused in {job.workload.name}: {reason}", file=sys.stderr)
            results.add(row)
            advance(job)


def summary(out: Path, results: Results) -> int:
    """Print how many targets are met, and which are missed; return the exit status."""
    judged = verdicts(results)
    missed = [v for v in judged if v.met is False]
    for v in missed:
        print(f"missed: {v.target.text}: {v.ratio:.3f}, target {v.target.at_most:g}")
    met = sum(v.met is True for v in judged)
    print(
        f"{met} targets met, {len(missed)} missed, {len(judged) - met - len(missed)} not measured"
    )
    print(f"wrote {out / 'results.json'}, {out / 'performance.md'}")
    refused = [n for row in results.rows.values() for n in row["refused"]]
    if refused:
        print(f"refused: {', '.join(dict.fromkeys(refused))}", file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    run_main(main)
