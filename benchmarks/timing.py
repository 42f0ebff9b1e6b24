"""Measure contestants side by side: threads pinned, each checked before it is timed, in turn.

A workload is a module of this folder with

- ``cases(full)``: the points to measure, each a dictionary that JSON can hold;
- ``problem(case)``: what all contestants get, with ``problem.disagreement(result)``;
- ``CONTESTANTS``: for each name the function that makes a ``Task`` of a problem, or raises an
  ImportError where its library is not installed;
- ``UNIT`` and ``FACTOR`` of its table;

and where it differs from the others ``takes_part(name, case, full)``, ``ROUNDS`` and ``THREADS``.

On one thread all contestants of a case live in one worker process and take turns there. On several
threads each has a process of its own, since the idle threads of one library would disturb the
others; the processes take turns.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.metadata
import json
import math
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from problems import Case

import minidl
from minidl.checks import require
from minidl.files import as_path, from_json, to_json, write_text
from minidl.grid.runner import exit_with_parent
from minidl.view.cli import Parser, float_argument, int_argument

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.append(str(ROOT / "examples"))  # the scripts note the same about a machine
from homework.runs import environment as machine

SHORTEST = 0.01  # seconds of a round, at least: short calls are repeated
SETTLE = 0.02  # seconds between two processes, for the threads of the first to fall asleep


@dataclass(frozen=True)
class Task:
    """One contestant's work on one problem."""

    call: Callable[[], object]
    """The work that is timed; or, with ``measures``, a function that returns its own figure."""
    result: Callable[[], Any] | None = None
    """Computes what the problem compares with its reference; None for a bound."""
    parts: int = 1
    """The steps or examples in a call: figures are those of one of them."""
    measures: bool = False


@dataclass(frozen=True)
class Rounds:
    """At least ``least`` rounds, then more until the seconds of a case are over."""

    least: int = 3
    most: int = 40
    share: float = 1.0
    """Of the seconds of a case."""


# ---------------------------------------------------------------- threads and processes


def pin(threads: int) -> None:
    """Limit every library to ``threads`` threads in the processes that are started from now on.

    ``OPENBLAS_CORETYPE`` is removed, so that OpenBLAS chooses its kernels for this processor as
    the libraries of PyTorch and JAX do.
    """
    many = "true" if threads > 1 else "false"
    os.environ |= {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS", "MKL")}
    os.environ |= {
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={many} intra_op_parallelism_threads={threads}",
        "JAX_PLATFORMS": "cpu",
        # torch.compile: no helper processes beside the contestants, and nothing compiled before.
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    }
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)


def run_python(*arguments: str) -> str:
    """Return the output of a new Python process; RuntimeError with its last line if it fails."""
    path = os.pathsep.join(map(str, (Path(minidl.__file__).parents[1], HERE)))
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"exit status {done.returncode}: {last}")
    return done.stdout


class Workers:
    """Processes whose libraries have ``threads`` threads, started when they are needed."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.pools: dict[str, ProcessPoolExecutor] = {}
        pin(threads)

    def __call__(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the process in which a contestant lives, and return its result."""
        key = name if self.threads > 1 else "all"
        if key not in self.pools:
            context = multiprocessing.get_context("spawn")
            self.pools[key] = ProcessPoolExecutor(1, mp_context=context, initializer=_begin)
        try:
            return self.pools[key].submit(function, *arguments).result()
        except BrokenExecutor as error:
            raise OSError("a worker process died; the same command goes on") from error

    def close(self) -> None:
        for pool in self.pools.values():
            pool.shutdown(cancel_futures=True)


# ---------------------------------------------------------------- in the worker processes

_tasks: dict[str, Task] = {}


def _begin() -> None:
    """Leave Ctrl-C to the parent, and end when it has died."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module="torch")  # on the caches that are switched off
    exit_with_parent()


@functools.lru_cache(maxsize=1)
def _problem(workload: str, case: str) -> Any:
    return importlib.import_module(workload).problem(json.loads(case))


def prepare(workload: str, case: Case, name: str) -> dict[str, Any]:
    """Make a task, check it, and warm it up; return what a round needs, or why there is none."""
    try:
        problem = _problem(workload, json.dumps(case))
        task: Task = importlib.import_module(workload).CONTESTANTS[name](problem)
        made: dict[str, Any] = {"parts": task.parts, "calls": 1, "compilation": None}
        since = time.perf_counter()
        if task.result is not None:
            wrong = problem.disagreement(task.result())
            if wrong is not None:
                return {"error": f"computes something else: {wrong}"}
        elif not task.measures:
            task.call()
        if not task.measures:
            warm = time.perf_counter()
            task.call()
            second = time.perf_counter() - warm
            made["calls"] = math.ceil(SHORTEST / second)
            made["compilation"] = short(max(0.0, warm - since - second))
    except ImportError as error:
        return {"missing": str(error)}
    except Exception as error:  # any failure of another library is reported, and the others go on
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    _tasks[name] = task
    return made


def run_round(name: str, calls: int) -> float:
    """Return the seconds of a call in a round of ``calls`` calls, or the figure it measures."""
    task = _tasks[name]
    if task.measures:
        return float(task.call())  # type: ignore[arg-type]
    since = time.perf_counter()
    for _ in range(calls):
        task.call()
    return (time.perf_counter() - since) / calls


def forget() -> None:
    """Free the tasks and their problem."""
    _tasks.clear()
    _problem.cache_clear()
    gc.collect()


# ---------------------------------------------------------------- rounds and their statistics


def in_turn(
    contestants: Mapping[str, Callable[[], float]], seconds: float, rounds: Rounds
) -> dict[str, list[float]]:
    """Return the figures of each contestant, round by round: A B A B ..."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    since = time.perf_counter()
    for done in range(rounds.most):
        if done >= rounds.least and time.perf_counter() - since >= seconds:
            break
        for name, run in contestants.items():
            found[name].append(run())
    return found


def describe(values: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """Return median, extremes and, pair by pair, the ratios ours / theirs with their quartiles.

    The ratio is the median of those of the rounds: a drift of the machine is in both times.
    """
    ratios = [a / b for a, b in zip(ours, values, strict=True)]
    low, ratio, high = statistics.quantiles(ratios * (1 + (len(ratios) == 1)), method="inclusive")
    return {
        "median": short(statistics.median(values)),
        "extremes": [short(min(values)), short(max(values))],
        "rounds": len(values),
        "ratio": short(ratio),
        "quartiles": [short(low), short(high)],
    }


def short(value: float) -> float:
    """Return a figure with four digits."""
    return float(f"{value:.4g}")


def play(
    workers: Workers, workload: str, case: Case, names: Sequence[str], seconds: float
) -> dict[str, Any]:
    """Check and time the contestants of a case, in turn.

    Returns for each name its figures, those of ``describe`` and the seconds that its first call
    took beyond the others (it compiles); and why others were refused, or are missing.
    """
    rounds: Rounds = getattr(importlib.import_module(workload), "ROUNDS", Rounds())
    made = {name: workers(name, prepare, workload, case, name) for name in names}
    refused = {name: one["error"] for name, one in made.items() if "error" in one}
    missing = {name: one["missing"] for name, one in made.items() if "missing" in one}

    def one_round(name: str) -> float:
        if workers.threads > 1:
            time.sleep(SETTLE)
        figure = workers(name, run_round, name, made[name]["calls"])
        return float(figure) / float(made[name]["parts"])

    takers = {n: functools.partial(one_round, n) for n in names if "calls" in made[n]}
    values = in_turn(takers, seconds * rounds.share, rounds) if "minidl" in takers else {}
    for name in names:
        workers(name, forget)
    found = {
        n: {**describe(v, values["minidl"]), "compilation": made[n]["compilation"]}
        for n, v in values.items()
    }
    return {"contestants": found, "refused": refused, "missing": missing}


# ---------------------------------------------------------------- the file of results


def environment() -> dict[str, Any]:
    """Return the machine, the versions of the contestants, and the commit where git knows one."""
    found: dict[str, Any] = machine()
    for name in ("torch", "jax", "scikit-learn", "entmax"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    with contextlib.suppress(OSError):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        found["commit"] = done.stdout.strip()
    return found


@dataclass
class Results:
    """The rows of a workload in a file, and the settings and the machine that they belong to."""

    path: Path
    known: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def read(self) -> None:
        """Take the rows of the file, to go on with them; ValueError if they are of other settings.

        The machine and the versions, also of minidl, belong to the settings.
        """
        if not self.path.exists():
            return
        try:
            content = from_json(self.path.read_bytes())
            before, rows = dict(content["known"]), list(content["rows"])
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(
                f"{self.path} is not a file of results ({error}); remove it"
            ) from error
        for name in {**self.known, **before}:
            if before.get(name) != self.known.get(name):
                raise ValueError(
                    f"{self.path} has results with {name} = {before.get(name)!r}, not "
                    f"{self.known.get(name)!r}: remove it, or give another --out"
                )
        self.rows = rows

    def add(self, row: dict[str, Any]) -> None:
        """Add a row, and write the file."""
        self.rows.append(row)
        write_text(self.path, to_json({"known": self.known, "rows": self.rows}) + "\n")


# ---------------------------------------------------------------- the commands


def make_parser(about: str | None) -> Parser:
    parser = Parser(description=(about or "").splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--full", action="store_true", help="all cases, longer")
    add("--threads", nargs="+", type=int_argument("threads"), metavar="N", help="default 1")
    kind = float_argument("seconds", low=0, open_low=True)
    add("--seconds", type=kind, help="time box of a case after its warm-up (1; --full: 6)")
    add("--out", type=as_path, default=ROOT / "runs" / "benchmarks")
    return parser


def measure(workload: str, args: Any) -> Results:
    """Measure the cases of a workload that are not in its file yet, and return all of them."""
    module = importlib.import_module(workload)
    seconds = args.seconds or (6.0 if args.full else 1.0)
    settings = {"full": args.full, "seconds": seconds}
    results = Results(args.out / f"{workload}.json", {**settings, **environment()})
    results.read()
    done = [(row["case"], row["threads"]) for row in results.rows]
    todo = [
        (case, threads)
        for threads in (args.threads or [1])
        if threads == 1 or getattr(module, "THREADS", False)
        for case in module.cases(args.full)
        if (case, threads) not in done
    ]
    takes_part = getattr(module, "takes_part", lambda name, case, full: True)
    missing: dict[str, str] = {}
    workers = Workers(1)
    try:
        bar = require("tqdm", "examples").tqdm
        for case, threads in bar(todo, unit="case", desc=workload, smoothing=0.1):
            if threads != workers.threads:
                workers.close()
                workers = Workers(threads)
            names = [name for name in module.CONTESTANTS if takes_part(name, case, args.full)]
            before = load()
            found = play(workers, workload, case, names, seconds)
            for name, reason in found["refused"].items():
                print(f"{name} is refused in {workload}: {reason}", file=sys.stderr)
            missing |= found.pop("missing")
            results.add({"case": case, "threads": threads, "load": [before, load()], **found})
    except KeyboardInterrupt as error:
        kept = f"{len(results.rows)} cases are kept, the same command goes on"
        raise KeyboardInterrupt(kept) from error
    finally:
        workers.close()
    for name, reason in missing.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    return results


def load() -> float:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else math.nan
