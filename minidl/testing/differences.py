"""Both derivatives of a subject along a direction: the analytic one and central differences.

The numeric side runs in float64 (or in float32, for code that knows nothing else), the analytic
side in the subject's own dtype.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minidl.testing.options import FLOAT64, Settings
from minidl.testing.report import FAILED, KINK, OK
from minidl.testing.subjects import Pass, Subject, Tensors
from minidl.typing import Array

SMALL = 48
"""Jacobians of so many outputs and entries are kept for a picture."""

Direction = Array | int
"""A direction in a tensor, or the flat index of a single entry."""


@dataclass(frozen=True)
class Comparison:
    """The two derivatives along a direction: OK, KINK (between the one-sided ones) or FAILED.

    ``step`` is that of the numeric one. ``smooth`` if two steps and both sides gave the same.
    """

    verdict: str
    analytic: float
    numeric: float
    step: float
    smooth: bool = False


class Differences:
    """A subject at one point, its gradients for one cotangent, and differences around it."""

    def __init__(self, subject: Subject, tensors: Tensors, dy: Array, settings: Settings) -> None:
        self.subject, self.tensors, self.dy, self.settings = subject, tensors, dy, settings
        first = self.run()
        self.output, self.gradients = first.y, wide(first.pull(dy))
        self.wide = {k: np.asarray(v, settings.precision.dtype) for k, v in tensors.items()}

    def run(self) -> Pass:
        """Run one pass at this point, in the subject's own dtypes."""
        return self.subject.run(self.tensors)

    def direction(self, x: Array) -> Array:
        """Return a unit direction without small entries, of random signs; 0 at infinities."""
        rng = self.settings.rng
        u = rng.choice([-1.0, 1.0], x.shape) * rng.uniform(0.5, 1.5, x.shape) * np.isfinite(x)
        return u / max(float(np.linalg.norm(u.ravel())), 1e-300)

    def taylor_slope(self) -> float:
        """Return the slope of ``log |phi(v + h u) - phi(v) - h <grad, u>|`` over ``log h``.

        The median over the smallest steps whose remainder is above rounding; NaN if the numeric
        side is float32.
        """
        if self.settings.precision is not FLOAT64:
            return math.nan
        g, here = self.dy.astype(np.float64).ravel(), self.subject.run(self.wide)
        y, gradients = here.y.ravel(), here.pull(self.dy.astype(np.float64))
        u = {name: self.direction(x) for name, x in self.wide.items()}
        slope = sum(float(np.vdot(gradients[name], u[name])) for name in u)
        finite = np.isfinite(y)
        floor = 2**-44 * float(np.linalg.norm(g * np.where(finite, y, 0)) + abs(slope))
        points = []
        for h in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
            moved = self.subject.run({name: x + h * u[name] for name, x in self.wide.items()}).y
            remainder = abs(float(g[finite] @ (moved.ravel() - y)[finite]) - h * slope)
            if remainder > floor:
                points.append((np.log(h), np.log(remainder)))
        if len(points) < 2:
            return math.inf
        steps: Array = np.diff(np.array(points), axis=0)
        return float(np.median(steps[-3:, 1] / steps[-3:, 0]))

    def compare(self, name: str, u: Direction) -> Comparison:
        """Step 1."""
        a, settings, noise = along(self.gradients[name], u), self.settings, self._rounding[name]
        before: tuple[float, float, float] | None = None
        error = math.inf
        for k, h in enumerate(settings.steps(u)):
            slopes = self._slopes(name, u, h)
            central, *sides = slopes
            # Relative to the typical entry too: a sum may cancel by chance.
            size = max(abs(a), abs(central), self.typical[name])
            tolerance = settings.atol + settings.rtol * size + noise / h
            if k >= settings.precision.sure and noise / h > 0.1 * tolerance:
                break  # the step is too small to prove anything
            if noise / h > error:
                break  # its rounding would hide the error that a larger step has shown
            numeric, step = central, h
            low, high = min(sides) - tolerance, max(sides) + tolerance
            error = abs(a - numeric)
            if error <= tolerance:
                return Comparison(OK, a, numeric, h)
            if before is not None and np.ptp([*slopes, *before]) + noise / h < 0.01 * error:
                return Comparison(FAILED, a, numeric, h, smooth=True)
            before = slopes
        return Comparison(KINK if low <= a <= high else FAILED, a, numeric, step)

    def difference(self, name: str, u: Direction) -> float:
        """Return the error along a direction at the largest step, 0 if within the tolerance."""
        a, settings, h = along(self.gradients[name], u), self.settings, self.settings.steps(u)[0]
        central, *_ = self._slopes(name, u, h)
        size = max(abs(a), abs(central), self.typical[name])
        error = abs(a - central)
        right = error <= settings.atol + settings.rtol * size + self._rounding[name] / h
        return 0.0 if right else error if np.isfinite(error) else math.inf

    def _slopes(self, name: str, u: Direction, h: float) -> tuple[float, float, float]:
        """Return the central and the one-sided derivatives of ``<dy, y>`` along ``u``."""
        g, finite = self.dy.astype(np.float64), np.isfinite(self.wide_output)
        y, above, below = self.wide_output, self._moved(name, u, h), self._moved(name, u, -h)
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
            moved = np.asarray(x + h * u, x.dtype)
        return self.subject.run({**self.wide, name: moved}).y.astype(np.float64)

    @cached_property
    def wide_output(self) -> Array:
        return self.subject.run(self.wide).y.astype(np.float64)

    @cached_property
    def typical(self) -> dict[str, float]:
        """The root mean square of each gradient; entries that are not finite are left out."""
        return {name: rms(finite(gradient)) for name, gradient in self.gradients.items()}

    @cached_property
    def _rounding(self) -> dict[str, float]:
        """The rounding in a difference, from the outputs and from the step itself."""
        with np.errstate(invalid="ignore"):  # 0 times infinity is left out
            outputs = np.linalg.norm(finite(self.dy.astype(np.float64) * self.wide_output))
            steps = {
                name: np.linalg.norm(finite(x * self.gradients[name]))
                for name, x in self.wide.items()
            }
        unit = self.settings.precision.unit
        return {name: float(outputs + step) * unit for name, step in steps.items()}

    def jacobians(self, name: str) -> tuple[Array, Array] | None:
        """Return both Jacobians of a tensor if they are small: outputs times entries."""
        x, y, h = self.wide[name], self.wide_output, self.settings.steps(0)[0]
        if x.size > SMALL or y.size > SMALL or not x.size * y.size or self.settings.time.left <= 0:
            return None
        rows, start = [], time.thread_time()
        for i in range(y.size):
            unit = np.zeros_like(self.dy)
            unit.flat[i] = 1
            rows.append(self.run().pull(unit)[name].ravel())
        columns = [
            (self._moved(name, j, h) - self._moved(name, j, -h)).ravel() / (2 * h)
            for j in range(x.size)
        ]
        self.settings.time.left -= time.thread_time() - start
        return np.array(rows, np.float64), np.array(columns).T


def along(gradient: Array, u: Direction) -> float:
    return float(gradient.flat[u] if isinstance(u, int) else np.vdot(gradient, u))


def rms(x: Array) -> float:
    """Return the root mean square of the entries."""
    return float(np.linalg.norm(x.ravel())) / math.sqrt(max(x.size, 1))


def finite(x: Array) -> Array:
    """Return the entries that are finite, as a vector."""
    return x[np.isfinite(x)]


def wide(tensors: Tensors) -> dict[str, Array]:
    return {name: np.asarray(x, np.float64) for name, x in tensors.items()}
