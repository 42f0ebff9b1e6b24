"""Shards: the parts of a grid that several machines train."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count``, counted from 1.

    Raises
    ------
    ValueError
        If ``index`` is not in ``1..count``.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            last = f"{self.count}/{self.count}"
            raise ValueError(f"expected a shard from 1/{self.count} to {last}, got {self}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``"2/4"``."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise ValueError(f"expected a shard such as 2/4, got {text!r}")
        return cls(int(index), int(count))

    @classmethod
    def of_slurm(cls, environment: Mapping[str, str] = os.environ) -> Shard | None:
        """Return the shard of a task of a SLURM array, None outside of one.

        The tasks may be counted from any number and in any equal steps.
        """
        if "SLURM_ARRAY_TASK_ID" not in environment:
            return None
        task, count = (int(environment[f"SLURM_ARRAY_TASK_{key}"]) for key in ("ID", "COUNT"))
        first = int(environment.get("SLURM_ARRAY_TASK_MIN", 1))
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", 1))
        return cls((task - first) // step + 1, count)

    def part(self, items: Sequence[T]) -> Sequence[T]:
        """Return every ``count``-th item; the parts of all shards are the items."""
        return items[self.index - 1 :: self.count]

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
