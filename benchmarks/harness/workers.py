"""Worker processes with pinned threads, and rounds of contestants over them.

On one thread all contestants of a case live in one worker process and take turns there. On several
threads each has a process of its own, since the idle threads of one library's pool would disturb
the others; the processes take turns.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import math
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from functools import partial
from typing import Any

from harness.task import Task
from harness.threads import pinned
from harness.timing import Budget, describe, in_turn

Case = dict[str, Any]
"""The point of a workload that is measured, as JSON holds it."""

SETTLE = 0.02
"""Seconds between two processes in turn, for the threads of the first to fall asleep."""

SHORTEST = 0.01
"""Seconds of a round, at least: short calls are repeated."""


class Worker:
    """A process whose libraries have ``threads`` threads."""

    def __init__(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin)
        with pinned(threads):
            self(int)  # starts the process

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of a module in the process, and return its result.

        Raises
        ------
        OSError
            If the process has died.
        """
        try:
            return self.pool.submit(function, *arguments).result()
        except BrokenExecutor as error:
            raise OSError(
                "a worker process died (out of memory?); what was measured is kept, the same "
                "command goes on"
            ) from error

    def close(self) -> None:
        """End the process."""
        self.pool.shutdown(cancel_futures=True)


class Workers:
    """The worker processes of one workload on one number of threads, started when needed."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.workers: dict[str, Worker] = {}

    def of(self, contestant: str) -> Worker:
        """Return the process in which a contestant lives."""
        key = contestant if self.threads > 1 else "all"
        if key not in self.workers:
            self.workers[key] = Worker(self.threads)
        return self.workers[key]

    def close(self) -> None:
        """End all processes."""
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()


@contextlib.contextmanager
def workers(threads: int) -> Iterator[Workers]:
    """Yield worker processes, and end them."""
    made = Workers(threads)
    try:
        yield made
    finally:
        made.close()


def play(
    workers: Workers, workload: str, case: Case, names: Sequence[str], budget: Budget
) -> dict[str, Any]:
    """Check and time the contestants of a case, in turn; minidl's times are the first of a ratio.

    Returns
    -------
    dict
        ``"contestants"``: for each name the figures of ``describe``, the seconds of the check,
        which compiles, beyond those of a call, and the cores that it kept busy.
        ``"refused"``: for each contestant that failed or computes something else, the reason.
    """
    found: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    for name in names:
        made = workers.of(name)(prepare, workload, case, name, budget.warm_up)
        if "error" in made:
            refused[name] = made["error"]
        else:
            found[name] = made
    cpu = dict.fromkeys(found, 0.0)

    def one_round(name: str) -> float:
        if workers.threads > 1:
            time.sleep(SETTLE)
        seconds, busy = workers.of(name)(run_round, name, found[name]["calls"])
        cpu[name] += busy
        return float(seconds)

    seconds = in_turn({name: partial(one_round, name) for name in found}, budget)
    for name in names:
        workers.of(name)(forget)
    for name, made in found.items():
        parts = made["parts"]
        ours = (
            [s / found["minidl"]["parts"] for s in seconds["minidl"]] if "minidl" in found else None
        )
        made["cores"] = cpu[name] / (sum(seconds[name]) * made["calls"])
        made["rounds"] = len(seconds[name])
        made |= describe([s / parts for s in seconds[name]], ours)
        del made["calls"]
    return {"contestants": found, "refused": refused}


# In the worker processes.

_tasks: dict[str, Task] = {}


def _begin() -> None:
    """Leave Ctrl-C to the parent, and end when it has died."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module="torch")  # on the caches that are switched off
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@functools.lru_cache(maxsize=1)
def _problem(workload: str, case: str) -> Any:
    return importlib.import_module(f"workloads.{workload}").problem(json.loads(case))


def prepare(workload: str, case: Case, name: str, warm_up: bool) -> dict[str, Any]:
    """Make a task, check it, and warm it up; return an ``"error"`` or what a round needs."""
    module = importlib.import_module(f"workloads.{workload}")
    try:
        problem = _problem(workload, json.dumps(case))
        task = module.CONTESTANTS[name].task(problem)
        since, wrong = time.perf_counter(), None
        found = task.check() if task.check is not None else task.call()
        first = time.perf_counter() - since
        if task.check is not None:
            wrong = module.disagreement(problem, found)
        if wrong is not None:
            return {"error": f"computes something else: {wrong}"}
        made: dict[str, Any] = {"parts": task.parts, "calls": 1}
        if warm_up:
            since = time.perf_counter()
            task.call()
            second = time.perf_counter() - since
            made["calls"] = max(1, math.ceil(SHORTEST / second))
            made["compilation"] = max(0.0, first - second)
    except Exception as error:  # any failure of another library is reported, and the others go on
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    _tasks[name] = task
    return made


def run_round(name: str, calls: int) -> tuple[float, float]:
    """Return the seconds of a call in a round of ``calls`` calls, and the CPU seconds of all."""
    call = _tasks[name].call
    cpu, since = time.process_time(), time.perf_counter()
    for _ in range(calls):
        call()
    seconds = time.perf_counter() - since
    return seconds / calls, time.process_time() - cpu


def forget() -> None:
    """Free the tasks and their problem."""
    _tasks.clear()
    _problem.cache_clear()
    gc.collect()
