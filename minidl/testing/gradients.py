"""Both sides of the comparison: the gradient that was written, and central differences.

The numeric side runs in float64, the analytic side in the subject's own dtype. A scalar
``phi(v) = <cotangent, f(v)>`` is followed along random directions, one tensor at a time. Where
the two sides disagree, the reason is sought in this order:

1. the step was too large: try a hundredth of it, and go on where rounding leaves room;
2. the point is on a kink: the two sides agree at random points beside it, and here the
   analytic value lies between the two one-sided derivatives;
3. several kinks meet there (a row of zeros, biases of zero), which can take the value outside:
   the two sides agree beside it, however near, and the value is within the range of theirs;
   or, for a layer made of layers, each inner one passes by itself on what it was given here;
4. rounding: the analytic value moves as much when what it is computed from moves by one unit in
   the last place;
5. each entry of the tensor passes 1 or 2 (kinks in several entries at once).

What is left is wrong, and the entries of the whole Jacobian, contracted with the cotangent,
name the worst one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minidl.testing.report import FAILED, KINK, OK, ROUNDING, Entry, TensorCheck
from minidl.testing.subjects import Run, Subject, Tensors
from minidl.typing import Array

TOLERANCES = {
    np.dtype(np.float64): (1e-6, 1e-9),
    np.dtype(np.float32): (1e-4, 1e-7),
    np.dtype(np.float16): (1e-2, 1e-3),
}
"""Relative and absolute, by the dtype of the analytic side."""

DIRECTIONS = 2
STEPS = 5
NEARBY = 12
ALL_ENTRIES = 20_000
"""Larger tensors are halved towards the largest error until this many are left."""


Direction = Array | int
"""A direction in a tensor, or the flat index of the entry that alone moves."""


@dataclass(frozen=True)
class Settings:
    """What a check is asked for."""

    rng: np.random.Generator
    eps: float
    rtol: float
    atol: float


@dataclass(frozen=True)
class Slopes:
    """The derivative along a direction as seen from the middle and from each side."""

    central: float
    left: float
    right: float
    noise: float


class Point:
    """A subject at one point with one cotangent."""

    def __init__(self, subject: Subject, tensors: Tensors, dy: Array, settings: Settings) -> None:
        self.subject, self.native, self.dy, self.settings = subject, tensors, dy, settings
        self.gradients = _wide(subject.run(tensors).pull(dy))
        self.wide = _wide(tensors)

    @cached_property
    def _y(self) -> Array:
        return self.subject.run(self.wide).y

    @cached_property
    def _typical(self) -> dict[str, float]:
        """Of each gradient, the root mean square of the entries."""
        return {name: _rms(gradient) for name, gradient in self.gradients.items()}

    @cached_property
    def _rounding(self) -> dict[str, float]:
        """What rounding of the outputs, and of the step itself, does to a difference."""
        y = np.where(np.isfinite(self._y), self._y, 0)
        outputs = np.linalg.norm(self.dy.astype(np.float64) * y)
        steps = {
            name: np.linalg.norm((np.where(np.isfinite(x), x, 0) * self.gradients[name]).ravel())
            for name, x in self.wide.items()
        }
        return {name: float(outputs + step) * 2**-50 for name, step in steps.items()}

    def _value(self, name: str, u: Direction, h: float) -> Array:
        x = self.wide[name]
        if isinstance(u, int):
            moved = x.copy()
            moved.flat[u] += h
        else:
            moved = x + h * u
        return self.subject.run({**self.wide, name: moved}).y

    def slopes(self, name: str, u: Direction, h: float) -> Slopes:
        """Numeric derivatives of ``<dy, y>`` along ``u``."""
        g = self.dy.astype(np.float64)
        y, above, below = self._y, self._value(name, u, h), self._value(name, u, -h)
        finite = np.isfinite(y)
        g, y, above, below = g[finite], y[finite], above[finite], below[finite]
        return Slopes(
            float(g @ (above - below)) / (2 * h),
            float(g @ (y - below)) / h,
            float(g @ (above - y)) / h,
            self._rounding[name] / h,
        )

    def analytic(self, name: str, u: Direction) -> float:
        return _along(self.gradients[name], u)

    def tolerance(self, name: str, a: float, n: float, noise: float) -> float:
        """The tolerance is relative to the typical entry, since a sum may cancel by chance."""
        size = max(abs(a), abs(n), self._typical[name])
        return self.settings.atol + self.settings.rtol * size + noise

    def judge(self, name: str, u: Direction) -> tuple[str, float]:
        """Whether the sides agree, or the value lies between; and the numeric derivative."""
        a, h = self.analytic(name, u), self.settings.eps
        for k in range(STEPS):
            finer = self.slopes(name, u, h / 100**k)
            tolerance = self.tolerance(name, a, finer.central, finer.noise)
            if k > 1 and finer.noise > 0.1 * tolerance:
                break  # a step so small proves nothing
            s = finer
            if abs(a - s.central) <= tolerance:
                return OK, s.central
        low, high = sorted((s.left, s.right))
        slack = self.tolerance(name, a, s.central, s.noise)
        verdict = KINK if low - slack <= a <= high + slack else FAILED
        return verdict, s.central

    def on_kink(self, name: str, u: Direction, between: bool) -> str:
        """Steps 2 and 3 of the policy, at several distances: a curved function needs a small one.

        That the value lies between is not enough: one entry's kink would hide another's error.
        """
        a, inside, label = self.analytic(name, u), [], KINK
        for distance in (1e-4, 1e-6, 1e-8):
            points = [self.beside(distance) for _ in range(NEARBY)]
            verdicts, slopes = zip(*(point.agrees(name, u) for point in points), strict=True)
            if verdicts.count(FAILED) > NEARBY // 4 or verdicts.count(KINK) > NEARBY // 2:
                continue
            label = ROUNDING if ROUNDING in verdicts else label
            if between or self._parts_pass:
                return label
            inside.append(min(slopes) <= a <= max(slopes))
        # A kink is there at every distance; a smooth function's slopes draw together.
        return label if inside and all(inside) else FAILED

    def agrees(self, name: str, u: Direction) -> tuple[str, float]:
        """As ``judge``, and whether rounding explains a difference."""
        verdict, numeric = self.judge(name, u)
        if verdict == FAILED and self.within_rounding(name, u, numeric):
            verdict = ROUNDING
        return verdict, numeric

    @cached_property
    def _parts_pass(self) -> bool:
        """Whether there are inner layers, and each is right on what it is given here."""
        parts = self.subject.parts(self.native, self.dy)
        return bool(parts) and all(right(part, dy, self.settings) for part, dy in parts)

    def beside(self, step: float) -> Point:
        """A random point nearby: every tensor moved by ``step``, relative and absolute."""
        normal = self.settings.rng.standard_normal
        moved = {
            k: np.asarray(v + step * (1 + np.abs(v)) * normal(v.shape).astype(v.dtype), v.dtype)
            for k, v in self.native.items()
        }
        return Point(self.subject, moved, self.dy, self.settings)

    @cached_property
    def rounded(self) -> list[dict[str, Array]]:
        """The gradients again, with tensors, cotangents and what passes between inner layers
        moved by units in the last place.
        """
        with self.subject.shaken(self._ulps):
            return [
                _wide(self.subject.run({k: self._ulps(v) for k, v in self.native.items()}).pull(dy))
                for dy in (self._ulps(self.dy) for _ in range(NEARBY))
            ]

    def within_rounding(self, name: str, u: Direction, numeric: float) -> bool:
        """Step 4 of the policy."""
        a, rtol = self.analytic(name, u), self.settings.rtol
        # What is left of a gradient that cancels to nothing, beside others that do not.
        error, floor = abs(a - numeric), 0.01 * rtol * self._largest
        if error > math.sqrt(rtol) * self._largest:
            return False  # at a tie, a unit in the last place may change anything
        values = [a, *(_along(gradients[name], u) for gradients in self.rounded)]
        return error <= 4 * (max(values) - min(values)) + floor

    @cached_property
    def _largest(self) -> float:
        return max([*self._typical.values(), _rms(self.dy) if self.dy.ndim else 0])

    def _ulps(self, v: Array) -> Array:
        ulps = self.settings.rng.integers(-1, 2, v.shape).astype(v.dtype)
        finite = np.where(np.isfinite(v), v, 0)
        return np.asarray(v + finite * ulps * np.finfo(v.dtype).eps, v.dtype)

    def check(self, name: str) -> TensorCheck:
        """One tensor along random directions; the entries only where those disagree."""
        checks = [self._check_along(name) for _ in range(DIRECTIONS)]
        return max(checks, key=lambda c: (c.verdict == FAILED, c.verdict != OK, c.error))

    def _check_along(self, name: str) -> TensorCheck:
        x = self.wide[name]
        u = direction(self.settings.rng, x)
        verdict, numeric = self.judge(name, u)
        a = self.analytic(name, u)
        worst = None
        if verdict != OK and np.isfinite(a):
            verdict = self.on_kink(name, u, between=verdict == KINK)
            if verdict == FAILED and self.within_rounding(name, u, numeric):
                verdict = ROUNDING
        if verdict == FAILED:
            worst = self.worst_entry(name)
            verdict = FAILED if worst else KINK
        return TensorCheck(name, x.shape, a, numeric, verdict, worst)

    def worst_entry(self, name: str) -> Entry | None:
        """The entry with the largest error, or None if each entry by itself is right."""
        entries = self._suspects(name)
        shape = self.wide[name].shape
        found: list[tuple[float, int, float, float]] = []
        for j in entries:
            a, (verdict, numeric) = self.analytic(name, j), self.judge(name, j)
            if verdict == FAILED and not self.within_rounding(name, j, numeric):
                found.append((abs(a - numeric), j, a, numeric))
        if not found:
            return None
        _, j, a, numeric = max(found, key=lambda f: (not np.isfinite(f[0]), f[0]))
        index = tuple(int(i) for i in np.unravel_index(j, shape))
        label, size = self.subject.label(name), self.wide[name].size
        return Entry(label, index, a, numeric, len(found), len(entries), size)

    def _suspects(self, name: str) -> list[int]:
        """Flat indices, halved towards the larger error while there are too many."""
        x = self.wide[name]
        left = np.flatnonzero(np.isfinite(x))
        u = direction(self.settings.rng, x)
        while len(left) > ALL_ENTRIES:
            halves = np.array_split(left, 2)
            left = max(halves, key=lambda half: self._error_within(name, u, half))
        return [int(j) for j in left]

    def _error_within(self, name: str, u: Array, entries: Array) -> float:
        part = np.zeros(u.shape)
        part.flat[entries] = u.flat[entries]
        slope = self.slopes(name, part, self.settings.eps).central
        return abs(self.analytic(name, part) - slope)


def right(subject: Subject, dy: Array, settings: Settings) -> bool:
    """Whether all gradients pass at the subject's own tensors."""
    with subject.held():
        point = Point(subject, subject.tensors, dy, settings)
        return all(point.check(name).verdict != FAILED for name in subject.tensors)


def direction(rng: np.random.Generator, x: Array) -> Array:
    """A unit direction with random signs and no small entries; 0 where ``x`` is not finite."""
    u = rng.choice([-1.0, 1.0], x.shape) * rng.uniform(0.5, 1.5, x.shape) * np.isfinite(x)
    return u / max(float(np.linalg.norm(u.ravel())), 1e-300)


def cotangent(rng: np.random.Generator, run: Run) -> Array:
    """Random, never all ones: on a simplex map those give 0, and every error would pass."""
    if run.y.ndim == 0:
        return np.ones_like(run.y)
    return np.asarray(rng.standard_normal(run.y.shape), run.y.dtype)


def taylor_slope(subject: Subject, tensors: Tensors, dy: Array, rng: np.random.Generator) -> float:
    """The slope of ``log |phi(v + h u) - phi(v) - h <grad, u>|`` over ``log h``.

    The median over the smallest steps whose remainder stands out of rounding.
    """
    wide, g = _wide(tensors), dy.astype(np.float64).ravel()
    run = subject.run(wide)
    y, gradients = run.y.ravel(), run.pull(dy.astype(np.float64))
    u = {name: direction(rng, x) for name, x in wide.items()}
    slope = sum(float(np.vdot(gradients[name], u[name])) for name in wide)
    finite = np.isfinite(y)
    floor = 2**-44 * float(np.linalg.norm(g * np.where(finite, y, 0)) + abs(slope))
    points = []
    for h in 10.0 ** np.arange(-2, -6.5, -0.5):
        moved = subject.run({name: wide[name] + h * u[name] for name in wide}).y.ravel()
        remainder = abs(float(g[finite] @ (moved - y)[finite]) - h * slope)
        if remainder > floor:
            points.append((np.log(h), np.log(remainder)))
    if len(points) < 2:
        return math.inf
    steps = np.diff(np.array(points), axis=0)
    return float(np.median(steps[-3:, 1] / steps[-3:, 0]))


def _along(gradient: Array, u: Direction) -> float:
    return float(gradient.flat[u] if isinstance(u, int) else np.vdot(gradient, u))


def _rms(x: Array) -> float:
    """The root mean square of the entries."""
    return float(np.linalg.norm(x.ravel())) / math.sqrt(max(x.size, 1))


def _wide(tensors: Tensors) -> dict[str, Array]:
    return {name: np.asarray(x, np.float64) for name, x in tensors.items()}
