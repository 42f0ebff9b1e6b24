"""Learning-rate schedules: functions of the number of steps taken so far."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

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
        turn = math.pi * min(t, self.steps) / self.steps
        return self.final + (self.lr - self.final) * (1 + math.cos(turn)) / 2


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
