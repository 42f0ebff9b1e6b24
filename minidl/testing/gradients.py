"""The comparison of an analytic gradient with central differences.

The numeric side runs in float64, the analytic side in the subject's own dtype. A scalar
``phi(v) = <cotangent, f(v)>`` is followed along random directions, one tensor at a time. If the
two sides disagree, the reason is sought in this order:

1. The step was too large: try a hundredth of it, and less while rounding leaves room.
2. The point is on a kink: the two sides agree at random points nearby, and here the analytic
   value lies between the two one-sided derivatives.
3. Several kinks meet there (a row of zeros, biases of zero), which can take the value outside:
   the two sides agree nearby, at every distance, and the value is within the range of theirs;
   or, for a layer made of layers, each inner one passes by itself on its input here.
4. Rounding: the analytic value changes as much when its inputs change by one unit in the last
   place.
5. Each entry of the tensor passes 1 or 2 (kinks in several entries at once).

Otherwise the gradient is wrong, and the entries of the whole Jacobian, contracted with the
cotangent, name the worst one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minidl.testing.report import FAILED, KINK, OK, ROUNDING, Entry, TensorCheck
from minidl.testing.subjects import Pass, Subject, Tensors
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
"""A larger tensor is halved towards the larger error until it has at most so many entries."""

Direction = Array | int
"""A direction in a tensor, or the flat index of a single entry."""


@dataclass(frozen=True)
class Settings:
    """The generator, the step and the tolerances of a check."""

    rng: np.random.Generator
    eps: float
    rtol: float
    atol: float


class Linearization:
    """A subject at one point: its gradients for one cotangent, and differences around it.

    ``failed`` collects the names of the tensors whose gradients turned out to be wrong.
    """

    def __init__(self, subject: Subject, tensors: Tensors, dy: Array, settings: Settings) -> None:
        self.subject, self.tensors, self.dy, self.settings = subject, tensors, dy, settings
        self.gradients = _wide(self.run().pull(dy))
        self.wide = _wide(tensors)
        self.failed: set[str] = set()

    def run(self) -> Pass:
        """Run one pass at this point, in the subject's own dtypes."""
        return self.subject.run(self.tensors)

    def check(self, name: str) -> TensorCheck:
        """Check one tensor along random directions; check its entries only if those disagree."""
        checks = [self._check_along(name) for _ in range(DIRECTIONS)]
        worst = max(checks, key=lambda c: (c.verdict == FAILED, c.verdict != OK, c.error))
        if worst.verdict == FAILED:
            self.failed.add(name)
        return worst

    def nearby(self, step: float) -> Linearization:
        """Return a random point nearby: every tensor moved by ``step``, relative and absolute."""
        moved = {k: perturb(self.settings.rng, v, step) for k, v in self.tensors.items()}
        return Linearization(self.subject, moved, self.dy, self.settings)

    @cached_property
    def rounded(self) -> list[dict[str, Array]]:
        """Gradients after random rounding of the tensors, the cotangent and all between layers."""
        gradients = []
        with self.subject.tapped(lambda _, x: (self._rounded(x), self._rounded)):
            for _ in range(NEARBY):
                dy = self._rounded(self.dy)
                run = self.subject.run({k: self._rounded(v) for k, v in self.tensors.items()})
                gradients.append(_wide(run.pull(dy)))
        return gradients

    def taylor_slope(self) -> float:
        """Return the slope of ``log |phi(v + h u) - phi(v) - h <grad, u>|`` over ``log h``.

        The median over the smallest steps whose remainder is above rounding.
        """
        g, here = self.dy.astype(np.float64).ravel(), self.subject.run(self.wide)
        y, gradients = here.y.ravel(), here.pull(self.dy.astype(np.float64))
        u = {name: direction(self.settings.rng, x) for name, x in self.wide.items()}
        slope = sum(float(np.vdot(gradients[name], u[name])) for name in u)
        finite = np.isfinite(y)
        floor = 2**-44 * float(np.linalg.norm(g * np.where(finite, y, 0)) + abs(slope))
        points = []
        for h in 10.0 ** np.arange(-2, -6.5, -0.5):
            moved = self.subject.run({name: x + h * u[name] for name, x in self.wide.items()}).y
            remainder = abs(float(g[finite] @ (moved.ravel() - y)[finite]) - h * slope)
            if remainder > floor:
                points.append((np.log(h), np.log(remainder)))
        if len(points) < 2:
            return math.inf
        steps = np.diff(np.array(points), axis=0)
        return float(np.median(steps[-3:, 1] / steps[-3:, 0]))

    def _slopes(self, name: str, u: Direction, h: float) -> tuple[float, float, float]:
        """Return the central and the one-sided derivatives of ``<dy, y>`` along ``u``."""
        g, finite = self.dy.astype(np.float64), np.isfinite(self._y)
        y, above, below = self._y, self._moved(name, u, h), self._moved(name, u, -h)
        g, y, above, below = g[finite], y[finite], above[finite], below[finite]
        central = float(g @ (above - below)) / (2 * h)
        return central, float(g @ (y - below)) / h, float(g @ (above - y)) / h

    def _moved(self, name: str, u: Direction, h: float) -> Array:
        """Return the output at a step of ``h`` along ``u``."""
        x = self.wide[name]
        if isinstance(u, int):
            moved = x.copy()
            moved.flat[u] += h
        else:
            moved = x + h * u
        return self.subject.run({**self.wide, name: moved}).y

    @cached_property
    def _y(self) -> Array:
        return self.subject.run(self.wide).y

    @cached_property
    def _typical(self) -> dict[str, float]:
        """The root mean square of each gradient."""
        return {name: _rms(gradient) for name, gradient in self.gradients.items()}

    @cached_property
    def _largest(self) -> float:
        return max([*self._typical.values(), _rms(self.dy) if self.dy.ndim else 0])

    @cached_property
    def _rounding(self) -> dict[str, float]:
        """The rounding in a difference, from the outputs and from the step itself."""
        y = np.where(np.isfinite(self._y), self._y, 0)
        outputs = np.linalg.norm(self.dy.astype(np.float64) * y)
        steps = {
            name: np.linalg.norm((np.where(np.isfinite(x), x, 0) * self.gradients[name]).ravel())
            for name, x in self.wide.items()
        }
        return {name: float(outputs + step) * 2**-50 for name, step in steps.items()}

    def _check_along(self, name: str) -> TensorCheck:
        u = direction(self.settings.rng, self.wide[name])
        verdict, numeric = self._compare(name, u)
        a, worst = _along(self.gradients[name], u), None
        if verdict != OK and np.isfinite(a):
            verdict = self._on_kink(name, u, between=verdict == KINK)
            if verdict == FAILED and self._within_rounding(name, u, numeric):
                verdict = ROUNDING
        if verdict == FAILED:
            worst = self._worst_entry(name)
            verdict = FAILED if worst else KINK
        return TensorCheck(name, self.wide[name].shape, a, numeric, verdict, worst)

    def _compare(self, name: str, u: Direction) -> tuple[str, float]:
        """Step 1: return OK, KINK (between the one-sided ones) or FAILED, and the derivative."""
        a, settings = _along(self.gradients[name], u), self.settings
        for h in (settings.eps / 100**k for k in range(STEPS)):
            (central, *sides), rounding = self._slopes(name, u, h), self._rounding[name] / h
            # Relative to the typical entry too: a sum may cancel by chance.
            size = max(abs(a), abs(central), self._typical[name])
            tolerance = settings.atol + settings.rtol * size + rounding
            if h < settings.eps / 1e3 and rounding > 0.1 * tolerance:
                break  # the step is too small to prove anything
            numeric, low, high = central, min(sides) - tolerance, max(sides) + tolerance
            if abs(a - numeric) <= tolerance:
                return OK, numeric
        return (KINK if low <= a <= high else FAILED), numeric

    def _on_kink(self, name: str, u: Direction, between: bool) -> str:
        """Steps 2 and 3, at several distances: a function of strong curvature needs a small one.

        A value between is not enough: the kink of one entry would hide the error of another.
        """
        a, inside, label = _along(self.gradients[name], u), [], KINK
        for distance in (1e-4, 1e-6, 1e-8):
            points = [self.nearby(distance) for _ in range(NEARBY)]
            verdicts, slopes = zip(*(p.judge(name, u) for p in points), strict=True)
            if verdicts.count(FAILED) > NEARBY // 4 or verdicts.count(KINK) > NEARBY // 2:
                continue
            label = ROUNDING if ROUNDING in verdicts else label
            if between or self._inner_layers_pass:
                return label
            inside.append(min(slopes) <= a <= max(slopes))
        # A kink is there at every distance; the slopes of a smooth function converge.
        return label if inside and all(inside) else FAILED

    def judge(self, name: str, u: Direction) -> tuple[str, float]:
        """As ``_compare``, or ROUNDING if that explains a difference."""
        verdict, numeric = self._compare(name, u)
        if verdict == FAILED and self._within_rounding(name, u, numeric):
            verdict = ROUNDING
        return verdict, numeric

    @cached_property
    def _inner_layers_pass(self) -> bool:
        """Whether there are inner layers, and all gradients of each are right here."""
        inner = self.subject.inner_layers(self.tensors, self.dy)
        return bool(inner) and all(self._passes(subject, dy) for subject, dy in inner)

    def _passes(self, subject: Subject, dy: Array) -> bool:
        with subject.preserved(self.settings.rng):
            point = Linearization(subject, subject.tensors, dy, self.settings)
            return all(point.check(name).verdict != FAILED for name in subject.tensors)

    def _within_rounding(self, name: str, u: Direction, numeric: float) -> bool:
        """Step 4."""
        a, rtol = _along(self.gradients[name], u), self.settings.rtol
        # The remainder of a gradient that cancels to nothing, beside others that do not.
        error, floor = abs(a - numeric), 0.01 * rtol * self._largest
        if error > math.sqrt(rtol) * self._largest:
            return False  # at a tie, a unit in the last place may change anything
        values = [a, *(_along(gradients[name], u) for gradients in self.rounded)]
        return error <= 4 * (max(values) - min(values)) + floor

    def _rounded(self, v: Array) -> Array:
        """Return ``v`` with each entry changed by -1, 0 or 1 unit in the last place."""
        ulps = self.settings.rng.integers(-1, 2, v.shape).astype(v.dtype)
        finite = np.where(np.isfinite(v), v, 0)
        return np.asarray(v + finite * ulps * np.finfo(v.dtype).eps, v.dtype)

    def _worst_entry(self, name: str) -> Entry | None:
        """Step 5: return the entry with the largest error, or None if each one is right."""
        entries, x = self._suspects(name), self.wide[name]
        found: list[tuple[float, int, float, float]] = []
        for j in entries:
            a, (verdict, numeric) = _along(self.gradients[name], j), self.judge(name, j)
            if verdict == FAILED:
                found.append((abs(a - numeric), j, a, numeric))
        if not found:
            return None
        _, j, a, numeric = max(found, key=lambda f: (not np.isfinite(f[0]), f[0]))
        index = tuple(int(i) for i in np.unravel_index(j, x.shape))
        return Entry(self.subject.label(name), index, a, numeric, len(found), len(entries), x.size)

    def _suspects(self, name: str) -> list[int]:
        """Return flat indices, halved towards the larger error while there are too many."""
        x = self.wide[name]
        left, u = np.flatnonzero(np.isfinite(x)), direction(self.settings.rng, x)

        def error(entries: Array) -> float:
            part = np.zeros(u.shape)
            part.flat[entries] = u.flat[entries]
            return abs(
                _along(self.gradients[name], part) - self._slopes(name, part, self.settings.eps)[0]
            )

        while len(left) > ALL_ENTRIES:
            left = max(np.array_split(left, 2), key=error)
        return [int(j) for j in left]


def perturb(rng: np.random.Generator, v: Array, step: float) -> Array:
    """Return ``v`` moved at random by ``step``, relative and absolute."""
    normal = rng.standard_normal(v.shape).astype(v.dtype)
    return np.asarray(v + step * (1 + np.abs(v)) * normal, v.dtype)


def direction(rng: np.random.Generator, x: Array) -> Array:
    """Return a unit direction without small entries, of random signs; 0 where x is not finite."""
    u = rng.choice([-1.0, 1.0], x.shape) * rng.uniform(0.5, 1.5, x.shape) * np.isfinite(x)
    return u / max(float(np.linalg.norm(u.ravel())), 1e-300)


def cotangent(rng: np.random.Generator, y: Array) -> Array:
    """Return a random cotangent, never all ones: with those every error of a simplex map passes."""
    if y.ndim == 0:
        return np.ones_like(y)
    return np.asarray(rng.standard_normal(y.shape), y.dtype)


def _along(gradient: Array, u: Direction) -> float:
    return float(gradient.flat[u] if isinstance(u, int) else np.vdot(gradient, u))


def _rms(x: Array) -> float:
    """Return the root mean square of the entries."""
    return float(np.linalg.norm(x.ravel())) / math.sqrt(max(x.size, 1))


def _wide(tensors: Tensors) -> dict[str, Array]:
    return {name: np.asarray(x, np.float64) for name, x in tensors.items()}
