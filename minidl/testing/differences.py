"""Both derivatives of a subject along a direction, and the noise in them.

The analytic side runs in the subject's own dtype, the numeric side in float64 (or in float32, for
code that knows nothing else). A scalar ``phi(v) = <dy, f(v)>`` is followed along a direction of
one tensor, by central and one-sided differences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from minidl.checks import Array
from minidl.testing.options import FLOAT64, Settings
from minidl.testing.report import FAILED, KINK, OK, ROUNDING
from minidl.testing.subjects import Pass, Subject, Tensors

NEARBY = 12
"""The number of random points nearby, and of random roundings."""

Direction = Array | int
"""A direction in a tensor, or the flat index of a single entry."""


class Point:
    """A subject at one point, with its gradients for one cotangent.

    Attributes
    ----------
    output : array
    gradients : dict of array
        The analytic side, as float64.
    wide : dict of array
        The tensors in the precision of the numeric side.
    failed : set of str
        The tensors whose gradients turned out to be wrong here.
    inner_layers_pass : bool, optional
        Whether all gradients of each inner layer are right here, once that is known.
    """

    def __init__(
        self, subject: Subject, tensors: Tensors, settings: Settings, dy: Array | None = None
    ) -> None:
        self.subject, self.tensors, self.settings = subject, tensors, settings
        first = self.run()
        self.output = first.y
        self.dy = random_cotangent(settings.rng, first.y) if dy is None else dy
        self.gradients = as_float64(first.pull(self.dy))
        self.wide = {k: np.asarray(v, settings.precision.dtype) for k, v in tensors.items()}
        self.failed: set[str] = set()
        self.inner_layers_pass: bool | None = None

    def run(self) -> Pass:
        """Run one pass at this point, in the subject's own dtypes."""
        return self.subject.run(self.tensors)

    def nearby(self, distance: float) -> Point:
        """Return a random point nearby: every tensor moved, relative and absolute."""
        moved = {
            k: moved_at_random(self.settings.rng, v, distance) for k, v in self.tensors.items()
        }
        return Point(self.subject, moved, self.settings, self.dy)

    # The numeric side

    @cached_property
    def wide_output(self) -> Array:
        """The output in the precision of the numeric side."""
        return self.subject.run(self.wide).y.astype(np.float64)

    def moved_output(self, name: str, u: Direction, h: float) -> Array:
        """Return the output at a step of ``h`` along ``u``."""
        x = self.wide[name]
        if isinstance(u, int):
            moved = x.copy()
            moved.flat[u] += h
        else:
            moved = np.asarray(x + h * u, x.dtype)
        return self.subject.run({**self.wide, name: moved}).y.astype(np.float64)

    def slopes(self, name: str, u: Direction, h: float) -> tuple[float, float, float]:
        """Return the central and the two one-sided derivatives of ``<dy, f>`` along ``u``."""
        used = np.isfinite(self.wide_output)
        g, y = self.dy.astype(np.float64)[used], self.wide_output[used]
        above, below = (self.moved_output(name, u, step)[used] for step in (h, -h))
        return (
            float(g @ (above - below)) / (2 * h),
            float(g @ (y - below)) / h,
            float(g @ (above - y)) / h,
        )

    # The sizes to which errors are compared

    @cached_property
    def typical(self) -> dict[str, float]:
        """The root mean square of each gradient; entries that are not finite are left out."""
        return {name: rms(finite(gradient)) for name, gradient in self.gradients.items()}

    @cached_property
    def largest(self) -> float:
        """The largest of these, and of the cotangent's."""
        return max([*self.typical.values(), rms(self.dy) if self.dy.ndim else 0])

    def tolerance(self, name: str, *slopes: float) -> float:
        """Return the error that is allowed to a derivative beside those of the other side.

        Relative to the typical entry too: along a random direction a sum may cancel by chance.
        """
        size = max(self.typical[name], *map(abs, slopes))
        return self.settings.atol + self.settings.rtol * size

    # Noise

    @cached_property
    def difference_noise(self) -> dict[str, float]:
        """The rounding in ``phi(v + h u) - phi(v)``, from the outputs and from the step itself."""
        with np.errstate(invalid="ignore"):  # 0 times infinity is left out
            outputs = np.linalg.norm(finite(self.dy.astype(np.float64) * self.wide_output))
            steps = {
                name: np.linalg.norm(finite(x * self.gradients[name]))
                for name, x in self.wide.items()
            }
        unit = self.settings.precision.unit
        return {name: float(outputs + step) * unit for name, step in steps.items()}

    @cached_property
    def measured_noise(self) -> float:
        """The range of ``phi`` under random rounding of the tensors and of all between layers."""
        g = self.dy.astype(np.float64)
        with self.subject.tapped(lambda _, x: (self._rounded(x), lambda dy: dy)):
            runs = [
                self.subject.run({k: self._rounded(v) for k, v in self.wide.items()}).y
                for _ in range(NEARBY)
            ]
        used = np.isfinite(self.wide_output)
        return float(np.ptp([g[used] @ (y - self.wide_output)[used] for y in runs]))

    @cached_property
    def rounded_gradients(self) -> list[dict[str, Array]]:
        """Gradients after random rounding of the tensors, the cotangent and all between layers."""
        gradients = []
        with self.subject.tapped(lambda _, x: (self._rounded(x), self._rounded)):
            for _ in range(NEARBY):
                dy = self._rounded(self.dy)
                run = self.subject.run({k: self._rounded(v) for k, v in self.tensors.items()})
                gradients.append(as_float64(run.pull(dy)))
        return gradients

    def _rounded(self, v: Array) -> Array:
        """Return ``v`` with each entry changed by -1, 0 or 1 unit in the last place."""
        ulps = self.settings.rng.integers(-1, 2, v.shape).astype(v.dtype)
        return np.asarray(
            v + np.where(np.isfinite(v), v, 0) * ulps * np.finfo(v.dtype).eps, v.dtype
        )


@dataclass(frozen=True)
class Comparison:
    """The two derivatives along a direction, and the verdict on them.

    The verdict is OK, KINK (the analytic one lies between the one-sided ones), ROUNDING or FAILED.
    ``step`` is that of the numeric one. ``smooth`` if two steps and both sides gave the same.
    """

    verdict: str
    analytic: float
    numeric: float
    step: float
    smooth: bool = False


def compare(point: Point, name: str, u: Direction) -> Comparison:
    """Compare both derivatives along a direction, at smaller steps as long as they disagree."""
    analytic, settings = along(point.gradients[name], u), point.settings
    error, before, between = math.inf, None, False
    for k, h in enumerate(settings.steps(u)):
        noise = point.difference_noise[name] / h
        slopes = point.slopes(name, u, h)
        tolerance = point.tolerance(name, analytic, slopes[0]) + noise
        if k >= settings.precision.sure and noise > 0.1 * tolerance:
            break  # the step is too small to prove anything
        if noise > error:
            break  # its rounding would hide the error that a larger step has shown
        numeric, step, error = slopes[0], h, abs(analytic - slopes[0])
        between = min(slopes[1:]) - tolerance <= analytic <= max(slopes[1:]) + tolerance
        if error <= tolerance:
            return Comparison(OK, analytic, numeric, h)
        if before is not None and np.ptp([*slopes, *before]) + noise < 0.01 * error:
            return Comparison(FAILED, analytic, numeric, h, smooth=True)
        before = slopes
    return Comparison(KINK if between else FAILED, analytic, numeric, step)


def judge(point: Point, name: str, u: Direction) -> Comparison:
    """As ``compare``, or ROUNDING if that explains a difference."""
    compared = compare(point, name, u)
    if compared.verdict == FAILED and within_rounding(point, name, u, compared):
        return replace(compared, verdict=ROUNDING)
    return compared


def within_rounding(point: Point, name: str, u: Direction, compared: Comparison) -> bool:
    """Return whether either side changes as much when its inputs change by a last place."""
    rtol, error = point.settings.rtol, abs(compared.analytic - compared.numeric)
    if error > math.sqrt(rtol) * point.largest:
        return False  # at a tie, a unit in the last place may change anything
    # The remainder of a gradient that cancels to nothing, beside others that do not.
    floor = 0.01 * rtol * point.largest
    if error <= 4 * point.measured_noise / compared.step + floor:
        return True
    values = [compared.analytic, *(along(g[name], u) for g in point.rounded_gradients)]
    return error <= 4 * (max(values) - min(values)) + floor


def error_along(point: Point, name: str, u: Direction) -> float:
    """Return the error along a direction at the largest step, 0 if within the tolerance."""
    h = point.settings.steps(u)[0]
    analytic, numeric = along(point.gradients[name], u), point.slopes(name, u, h)[0]
    error = abs(analytic - numeric)
    tolerance = point.tolerance(name, analytic, numeric) + point.difference_noise[name] / h
    return 0.0 if error <= tolerance else error if np.isfinite(error) else math.inf


def taylor_slope(point: Point) -> float:
    """Return the slope of ``log |phi(v + h u) - phi(v) - h <grad, u>|`` over ``log h``.

    The median over the smallest steps whose remainder is above rounding; NaN if the numeric
    side is float32.
    """
    if point.settings.precision is not FLOAT64:
        return math.nan
    g, here = point.dy.astype(np.float64).ravel(), point.subject.run(point.wide)
    y, gradients = here.y.ravel(), here.pull(point.dy.astype(np.float64))
    u = {name: random_direction(point.settings.rng, x) for name, x in point.wide.items()}
    slope = sum(float(np.vdot(gradients[name], u[name])) for name in u)
    used = np.isfinite(y)
    floor = 2**-44 * float(np.linalg.norm(g * np.where(used, y, 0)) + abs(slope))
    points = []
    for h in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        moved = point.subject.run({name: x + h * u[name] for name, x in point.wide.items()}).y
        remainder = abs(float(g[used] @ (moved.ravel() - y)[used]) - h * slope)
        if remainder > floor:
            points.append((np.log(h), np.log(remainder)))
    if len(points) < 2:
        return math.inf
    steps: Array = np.diff(np.array(points), axis=0)
    return float(np.median(steps[-3:, 1] / steps[-3:, 0]))


def along(gradient: Array, u: Direction) -> float:
    """Return the derivative along a direction."""
    return float(gradient.flat[u] if isinstance(u, int) else np.vdot(gradient, u))


def rms(x: Array) -> float:
    """Return the root mean square of the entries."""
    return float(np.linalg.norm(x.ravel())) / math.sqrt(max(x.size, 1))


def finite(x: Array) -> Array:
    """Return the entries that are finite, as a vector."""
    return x[np.isfinite(x)]


def as_float64(tensors: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.asarray(x, np.float64) for name, x in tensors.items()}


def normalized(u: Array) -> Array:
    """Return a direction of length 1 along ``u``."""
    return u / max(float(np.linalg.norm(u.ravel())), 1e-300)


def random_direction(rng: np.random.Generator, x: Array) -> Array:
    """Return a unit direction without small entries, of random signs; 0 at infinities."""
    return normalized(
        rng.choice([-1.0, 1.0], x.shape) * rng.uniform(0.5, 1.5, x.shape) * np.isfinite(x)
    )


def random_cotangent(rng: np.random.Generator, y: Array) -> Array:
    """Return a random cotangent, never all ones: with those every error of a simplex map passes."""
    return np.asarray(rng.standard_normal(y.shape) if y.ndim else 1, y.dtype)


def moved_at_random(rng: np.random.Generator, v: Array, step: float) -> Array:
    """Return ``v`` moved at random by ``step``, relative and absolute."""
    normal = rng.standard_normal(v.shape).astype(v.dtype)
    return np.asarray(v + step * (1 + np.abs(v)) * normal, v.dtype)
