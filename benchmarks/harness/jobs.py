"""Workloads, and their cases as jobs that give rows of results."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from harness.environment import load
from harness.task import is_installed
from harness.workers import Case, Workers, play, workers


@dataclass(frozen=True)
class Workload:
    """A module of ``workloads``, and how its rows are measured and shown."""

    name: str
    unit: str
    factor: float
    """Multiplies the measured values for the unit."""
    cost: float
    """Seconds of a case at the default time box, roughly, for the time left."""
    many_threads: bool = False
    """Whether it is also measured on all cores."""

    @property
    def module(self) -> ModuleType:
        """The module; its docstring says what is measured."""
        return importlib.import_module(f"workloads.{self.name}")

    @property
    def about(self) -> str:
        """The docstring of the module."""
        return (self.module.__doc__ or "").strip()


@dataclass(frozen=True)
class Job:
    """One case of a workload on one number of threads."""

    workload: Workload
    case: Case
    threads: int

    def measure(self, only: list[str] | None, seconds: float, quick: bool, pool: Workers) -> Any:
        """Return the row of results: the load, the contestants, who was left out and why."""
        module = self.workload.module
        known = [n for n in module.contestants(self.case, quick) if not only or n in only]
        missing = {
            n: needs for n in known if not is_installed(needs := module.CONTESTANTS[n].needs)
        }
        names = [n for n in known if n not in missing]
        before, since = load(), time.perf_counter()
        if hasattr(module, "measure"):
            found = module.measure(self.case, names)
        else:
            budget = module.budget(seconds, quick)
            found = play(pool, self.workload.name, self.case, names, budget)
        return {
            "load": [before, load()],
            "seconds": round(time.perf_counter() - since, 1),
            **found,
            "missing": missing,
        }


def jobs(
    workloads: Iterable[Workload], threads: list[int], quick: bool, data: str | None
) -> list[Job]:
    """Return all jobs of these workloads; those for one thread run on one in any case."""
    return [
        Job(workload, case, t)
        for workload in workloads
        for t in (threads if workload.many_threads else [1])
        for case in workload.module.cases(quick, data)
    ]


def in_pools(todo: list[Job]) -> Iterator[tuple[Job, Workers]]:
    """Yield the jobs, each with the worker processes of its workload and threads."""
    keys = list(dict.fromkeys((job.workload.name, job.threads) for job in todo))
    for key in keys:
        with workers(key[1]) as pool:
            for job in todo:
                if (job.workload.name, job.threads) == key:
                    yield job, pool
