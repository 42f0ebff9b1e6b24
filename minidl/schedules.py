"""Learning-rate schedules: functions of the number of steps taken so far."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

from minidl.validation import check_float, check_int

Schedule = Callable[[int], float]
"""The learning rate as a function of the number of steps taken so far."""


@dataclass(frozen=True)
class StepDecay:
    """A factor after every few steps: ``lr * factor ** (t // every)``, as PyTorch's StepLR."""

    lr: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        check_float("StepDecay", "lr", self.lr, low=0)
        check_int("StepDecay", "every", self.every)
        check_float("StepDecay", "factor", self.factor, low=0)

    def __call__(self, t: int) -> float:
        return self.lr * self.factor ** (t // self.every)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine period from ``lr`` to ``final`` over ``steps``, then ``final``.

    ``final + (lr - final) (1 + cos(pi t / steps)) / 2``, as PyTorch's CosineAnnealingLR.
    """

    lr: float
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        check_float("Cosine", "lr", self.lr, low=0)
        check_int("Cosine", "steps", self.steps)
        check_float("Cosine", "final", self.final, low=0)

    def __call__(self, t: int) -> float:
        return _half_cosine(self.lr, self.final, min(t, self.steps) / self.steps)


@dataclass(frozen=True)
class WarmUp:
    """A linear rise over the first ``steps``, then ``lr``, a number or a schedule.

    Step ``t`` has ``lr`` times ``min(1, (t + 1) / steps)``, so the rate of the first step is not 0.
    """

    lr: float | Schedule
    steps: int

    def __post_init__(self) -> None:
        if not callable(self.lr):
            check_float("WarmUp", "lr", self.lr, low=0)
        check_int("WarmUp", "steps", self.steps)

    def __call__(self, t: int) -> float:
        lr = self.lr(t) if callable(self.lr) else self.lr
        return lr * min(1.0, (t + 1) / self.steps)


@dataclass(frozen=True)
class OneCycle:
    """A rise to ``lr`` and a fall to almost 0 (Smith and Topin 2019), as PyTorch's OneCycleLR.

    From ``lr / div_factor`` to ``lr`` over the first part ``pct_start`` of the ``steps``, then to
    ``lr / (div_factor * final_div_factor)``, where it stays; each part is half a cosine period. The
    first step has the lowest rate of the rise, step ``pct_start * steps - 1`` has ``lr``, and step
    ``steps - 1`` the last rate. Momentum is not changed (PyTorch: ``cycle_momentum=False``).
    """

    lr: float
    steps: int
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __post_init__(self) -> None:
        check_float("OneCycle", "lr", self.lr, low=0)
        check_int("OneCycle", "steps", self.steps)
        check_float("OneCycle", "pct_start", self.pct_start, low=0, high=1)
        check_float("OneCycle", "div_factor", self.div_factor, low=0, open_low=True)
        check_float("OneCycle", "final_div_factor", self.final_div_factor, low=0, open_low=True)

    def __call__(self, t: int) -> float:
        first = self.lr / self.div_factor
        final = first / self.final_div_factor
        top, last = self.pct_start * self.steps - 1, self.steps - 1
        if t >= last:
            return self.lr if top == last else final
        if t <= top:
            return _half_cosine(first, self.lr, t / top if top else 1.0)
        return _half_cosine(self.lr, final, (t - top) / (last - top))

    def __repr__(self) -> str:
        values = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}
        shown = [f"{name}={v!r}" for name, (v, default) in values.items() if v != default]
        return f"OneCycle({', '.join(shown)})"


def _half_cosine(start: float, end: float, part: float) -> float:
    """Return the rate after a ``part`` of the way along half a cosine period."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
