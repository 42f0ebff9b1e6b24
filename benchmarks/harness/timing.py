"""Rounds of contestants in turn, and the statistics of their times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Seconds for one call, or for one part of a call."""

    median: float
    minimum: float


def alternate(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    calls: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time ``calls`` calls of each candidate in turn, for ``rounds`` rounds after a warm-up.

    The candidates take turns because the speed of a shared machine drifts. With
    ``time.process_time`` as ``clock``, the time that other processes take is not counted.
    """

    def timed(call: Callable[[], object]) -> float:
        since = clock()
        for _ in range(calls):
            call()
        return (clock() - since) / calls

    for call in candidates.values():  # caches, allocators and just-in-time compilers
        timed(call)
    boxed = Budget(seconds=0, least=rounds, most=rounds)
    calls_of = {name: lambda call=call: timed(call) for name, call in candidates.items()}
    return {n: Timing(statistics.median(s), min(s)) for n, s in in_turn(calls_of, boxed).items()}


@dataclass(frozen=True)
class Budget:
    """The number of rounds: at least ``least``, then more until the seconds are over.

    Where ``least`` rounds take more than three times the seconds, three are enough.
    """

    seconds: float
    least: int = 5
    most: int = 40
    warm_up: bool = True
    """Whether a call goes before the rounds; where none does, every call is of interest."""


def in_turn(rounds: Mapping[str, Callable[[], float]], budget: Budget) -> dict[str, list[float]]:
    """Return the seconds of each contestant, round by round: A B A B ...

    Each contestant is a function that runs a round and returns its seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in rounds}
    since, least = time.perf_counter(), budget.least
    for done in range(budget.most):
        passed = time.perf_counter() - since
        if budget.seconds and passed > 3 * budget.seconds:
            least = min(least, 3)
        if done >= least and passed >= budget.seconds:
            break
        for name, run in rounds.items():
            seconds[name].append(run())
    return seconds


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and the third quartile; of one value, it twice."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def describe(values: Sequence[float], ours: Sequence[float] | None) -> dict[str, Any]:
    """Return median, minimum, spread and, pair by pair, the ratios ours / theirs.

    The spread is the distance of the quartiles as a share of the median. ``ratio`` is the median
    of the ratios of the rounds, with its quartiles: a drift of the machine is in both times.
    """
    low, high = quartiles(values)
    middle = statistics.median(values)
    figures: dict[str, Any] = {
        "median": middle,
        "minimum": min(values),
        "spread": (high - low) / middle if middle else 0.0,
        "values": [float(f"{v:.4g}") for v in values],
    }
    if ours is not None:
        ratios = [a / b for a, b in zip(ours, values, strict=True)]
        figures["ratio"] = statistics.median(ratios)
        figures["ratio quartiles"] = list(quartiles(ratios))
    return figures
