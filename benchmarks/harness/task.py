"""The contract between a contestant, the check of its results and the clock."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Task:
    """One contestant's work on one problem."""

    call: Callable[[], object]
    """The work that is timed."""
    check: Callable[[], Any] | None = None
    """Computes what the workload compares with its reference; None for a bound."""
    parts: int = 1
    """A call does its work so many times; times are those of one part."""


@dataclass(frozen=True)
class Entry:
    """A contestant by name: the function that makes its task, and the package that it needs."""

    make: str
    """``"module.function"`` in ``contestants``, called with the problem and the options."""
    needs: str = "numpy"
    options: Mapping[str, Any] = field(default_factory=dict)

    def task(self, problem: Any) -> Task:
        """Return the task, in a worker process."""
        module, _, function = self.make.rpartition(".")
        made: Task = getattr(importlib.import_module(f"contestants.{module}"), function)(
            problem, **self.options
        )
        return made


def is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False
