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
from numpy.typing import DTypeLike

from minidl.checks import Array
from minidl.testing.options import FLOAT64, Settings
from minidl.testing.report import FAILED, KINK, OK, ROUNDING, UNSURE
from minidl.testing.subjects import Pass, Subject, Tensors

NEARBY = 12
"""The number of random points nearby, and of random roundings."""

TRIALS, GROW = 56, 16
"""The number of larger steps, and the factor between two of them."""

FAR = 2**8
"""A step of so many times a tensor's size leads to another region of the function."""


class Point:
    """A subject at one point, with its gradients for one cotangent.

    ``sizes`` are the root mean squares of the tensors; for one of zeros, a size that changes the
    output. Steps are relative to ``reach``: larger sizes where rounding hides small steps.
    """

    def __init__(
        self,
        subject: Subject,
        tensors: Tensors,
        settings: Settings,
        dy: Array | None = None,
        sizes: dict[str, float] | None = None,
    ) -> None:
        self.subject, self.tensors, self.settings = subject, tensors, settings
        self.dtype = next(iter(tensors.values())).dtype
        first = self.run()
        self.output = first.y
        self.dy = random_cotangent(settings, first.y) if dy is None else dy
        self.gradients = as_float64(first.pull(self.dy))  # the analytic side
        # The tensors in the precision of the numeric side.
        self.wide = {k: np.asarray(v, settings.precision.dtype) for k, v in tensors.items()}
        self.sizes = sizes or {name: self._size(name) for name in tensors}
        self.reach = dict(self.sizes)
        self.failed: set[str] = set()  # the tensors whose gradients turned out to be wrong here
        self.inner_layers_pass: bool | None = None  # not known yet

    def run(self) -> Pass:
        """Run one pass at this point, in the subject's own dtypes."""
        return self.subject.run(self.tensors)

    def moved_to(self, tensors: Tensors, dtype: DTypeLike | None = None) -> Point:
        """Return the point at these values, with this cotangent and these sizes."""
        dy = self.dy if dtype is None else self.dy.astype(dtype)
        return Point(self.subject, tensors, self.settings, dy, self.sizes)

    def nearby(self, distance: float) -> Point:
        """Return a random point nearby: every tensor moved, relative to its size and entries."""
        return self.moved_to({name: self.moved(name, distance) for name in self.tensors})

    def moved(self, name: str, distance: float) -> Array:
        """Return a tensor moved at random, relative to its size and entries."""
        v = self.tensors[name]
        normal = self.settings.rng.standard_normal(v.shape)
        return np.asarray(v + distance * (self.sizes[name] + np.abs(v)) * normal, v.dtype)

    @cached_property
    def in_float64(self) -> Point:
        """The same point with the analytic side in float64 too."""
        return self.moved_to(self.wide, np.float64)

    def _size(self, name: str) -> float:
        x = self.wide[name]
        if size := rms(finite(x)):
            return size
        here = rms(finite(self.wide_output))
        u, size = self.settings.rng.choice([-1.0, 1.0], x.shape), 1.0
        with np.errstate(all="ignore"):
            for _ in range(TRIALS if here and x.size else 0):
                moved = self.output_at(stepped := self.stepped(name, size * u))
                change = rms((moved - self.wide_output)[np.isfinite(self.wide_output)])
                if 2**-20 * here <= change <= here:
                    # Large numbers may change nothing but the rounding of others.
                    noise = 0.0 if size <= 1 else self.noise_at(stepped)
                    return size if 4 * noise <= abs(self.phi(moved)) else 1.0
                size *= 2**16 if change < here else 2**-8
        return 1.0

    # The numeric side

    def output_at(self, tensors: Tensors) -> Array:
        """Return the output at these values, in float64."""
        return self.subject.run(tensors).y.astype(np.float64)

    @cached_property
    def wide_output(self) -> Array:
        """The output in the precision of the numeric side."""
        return self.output_at(self.wide)

    def phi(self, y: Array) -> float:
        """Return the change of ``<dy, f>`` from here to an output, where this one is finite."""
        used = np.isfinite(self.wide_output)
        return float(self.dy.astype(np.float64)[used] @ (y[used] - self.wide_output[used]))

    def stepped(self, name: str, step: Array) -> Tensors:
        """Return the tensors after a step in one of them."""
        x = self.wide[name]
        return {**self.wide, name: np.asarray(x + step, x.dtype)}

    @cached_property
    def typical(self) -> dict[str, float]:
        """The root mean square of each gradient; entries that are not finite are left out."""
        return {name: rms(finite(gradient)) for name, gradient in self.gradients.items()}

    # Noise

    @cached_property
    def phi_size(self) -> float:
        """The size of ``phi`` before its terms cancel."""
        with np.errstate(invalid="ignore"):  # 0 times infinity is left out
            return float(np.linalg.norm(finite(self.dy.astype(np.float64) * self.wide_output)))

    @cached_property
    def difference_noise(self) -> dict[str, float]:
        """The rounding in ``phi(v + h u) - phi(v)``, from the outputs and from the step itself."""
        noise, unit = {}, self.settings.precision.unit
        for name, x in self.wide.items():
            with np.errstate(invalid="ignore"):
                step = float(np.linalg.norm(finite(x * self.gradients[name])))
            noise[name] = (self.phi_size + step) * unit
        return noise

    @cached_property
    def measured_noise(self) -> float:
        """The range of ``phi`` under random rounding of the tensors and of all between layers."""
        return self.noise_at(self.wide)

    def noise_at(self, tensors: Tensors) -> float:
        """Return this range at other values, where numbers may be larger."""
        with self.subject.tapped(lambda _, x: (self._rounded(x), lambda dy: dy)):
            rounded = [{k: self._rounded(v) for k, v in tensors.items()} for _ in range(NEARBY)]
            return float(np.ptp([self.phi(self.output_at(values)) for values in rounded]))

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

    The verdict is OK, KINK (the analytic one lies between the one-sided ones), ROUNDING, UNSURE
    (noise hides the numeric one) or FAILED. ``step`` and ``noise`` are those of the numeric one;
    it is ``stable`` if two steps gave the same, and ``smooth`` if both sides did too.
    """

    verdict: str
    analytic: float
    numeric: float
    step: float
    noise: float = 0.0
    stable: bool = False
    smooth: bool = False

    @property
    def error(self) -> float:
        """The difference of the two."""
        return abs(self.analytic - self.numeric)


class Line:
    """A direction in one tensor at a point: both derivatives along it, and the noise in them.

    ``size`` is that of the derivative as a sum of random signs: it may itself cancel by chance.
    Errors are allowed, and must be clear, in relation to it.
    """

    def __init__(self, point: Point, name: str, u: Array) -> None:
        self.point, self.name, self.u, settings = point, name, u, point.settings
        gradient = point.gradients[name]
        self.analytic = along(gradient, u)
        size = float(np.linalg.norm(finite(gradient * u)))
        self.size = max(size, settings.floor * point.typical[name])
        self.allowed, self.clear = settings.atol + settings.rtol * self.size, settings.clear

    @property
    def steps(self) -> list[float]:
        """The steps, from the largest to the smallest."""
        return [self.point.reach[self.name] * h for h in self.point.settings.steps(self.u)]

    def slopes(self, h: float) -> tuple[float, float, float]:
        """Return the central and the two one-sided derivatives of ``<dy, f>``."""
        point = self.point
        ahead, back = (
            point.phi(point.output_at(point.stepped(self.name, step * self.u))) for step in (h, -h)
        )
        return (ahead - back) / (2 * h), -back / h, ahead / h

    def noise(self, h: float) -> float:
        """Return the rounding in the numeric derivative at a step, as it is assumed."""
        return self.point.difference_noise[self.name] / h

    @cached_property
    def gradient_noise(self) -> float:
        """The range of the analytic derivative under random rounding."""
        found = (self.point.gradients, *self.point.rounded_gradients)
        return float(np.ptp([along(g[self.name], self.u) for g in found]))

    def compare(self) -> Comparison:
        """Compare both derivatives, at smaller steps as long as they disagree."""
        analytic, precision = self.analytic, self.point.settings.precision
        found, before, between = Comparison(FAILED, analytic, math.nan, math.nan), None, False
        for k, h in enumerate(self.steps):
            noise = self.noise(h)
            hidden = noise > self.clear * max(self.size, abs(found.numeric))
            if noise > found.error or (k >= precision.sure and hidden):
                break  # rounding would hide the error that a larger step has shown, or everything
            slopes = self.slopes(h)
            now = Comparison(FAILED, analytic, slopes[0], h, noise)
            tolerance = self.allowed + noise
            moved = abs(slopes[0] - found.numeric)
            if noise > 0.1 * found.error and moved < 0.5 * found.error:
                break
            if now.error <= tolerance:
                clear = noise <= (self.allowed if k == 0 else self.clear * self.size)
                return replace(now, verdict=OK if clear else UNSURE)
            between = min(slopes[1:]) - tolerance <= analytic <= max(slopes[1:]) + tolerance
            if before is not None:
                change, same = abs(slopes[0] - before[0]), noise + found.noise
                stable = change <= 0.1 * abs(slopes[0]) + same and change + noise < 0.01 * now.error
                now = replace(now, stable=stable)
                if stable and np.ptp([*slopes, *before]) + noise < 0.01 * now.error:
                    return replace(now, smooth=True)
            found, before = now, slopes
        return replace(found, verdict=KINK if between else FAILED)

    def climb(self, base: Comparison) -> Comparison:
        """Compare both derivatives at larger steps, where rounding hides the small ones.

        The derivative is the first value that two steps share. It proves an error if all smaller
        steps gave the same within their noise, and agreement if these did.
        A gradient that is zero by its own rounding is right if the output does not change at small
        steps, and at larger ones not in proportion.
        """
        point = self.point
        seen, level = self._larger_steps()
        zero = base.verdict == UNSURE and (
            not base.analytic or abs(base.analytic) <= 4 * self.gradient_noise
        )
        if level < 0:
            hidden = seen and abs(seen[0][1]) <= 2 * seen[0][2]
            if zero and hidden and point.difference_noise[self.name] <= self.clear * point.phi_size:
                return replace(base, verdict=ROUNDING)
            return self._measured(base)
        (_, before, rough), (h, n, noise) = seen[level - 1 : level + 1]
        now = Comparison(FAILED, base.analytic, n, h, noise, stable=True, smooth=True)
        vague = min(noise + abs(n - before), self.clear * max(self.size, abs(n)))
        agree = now.error <= self.allowed + vague
        if all(abs(m - n) <= self.clear * abs(n) + 2 * rough for _, m, rough in seen[:level]):
            if agree:
                return replace(now, verdict=OK)
            sure = now.error > self.clear * abs(n) + noise + rough
            return now if sure else self._measured(base)
        if agree:
            return replace(now, verdict=UNSURE)
        first = next((h for h, m, rough in seen if abs(m) > 2 * rough), math.inf)
        near = first <= FAR * point.reach[self.name]
        return replace(base, verdict=ROUNDING) if zero and near else self._measured(base)

    def _larger_steps(self) -> tuple[list[tuple[float, float, float]], int]:
        """Return steps, derivatives and their noise, and the last that agrees with one before."""
        seen: list[tuple[float, float, float]] = []
        level, point, rtol = -1, self.point, self.point.settings.rtol
        with np.errstate(all="ignore"):
            for k in range(TRIALS):
                h = self.steps[0] * GROW**k
                try:
                    n, noise = self.slopes(h)[0], self.noise(h)
                except Exception:  # the subject refuses such numbers
                    break
                if not np.isfinite(n):
                    break
                _, before, rough = seen[-1] if seen else (0.0, math.inf, math.inf)
                seen.append((h, n, noise))
                close = (self.clear if level < 0 else rtol) * abs(n)
                same = abs(n - before) <= noise + rough + close
                if level >= 0 and not same:
                    break
                if same and rough <= 0.03 * abs(n):
                    far = point.noise_at(point.stepped(self.name, h * self.u)) / h
                    if 4 * far <= self.clear * abs(n):
                        level = k
                    elif level >= 0:
                        break  # the numbers are so large that their rounding is all that is seen
                if level >= 0 and noise <= rtol * max(self.size, abs(n)):
                    break
        return seen, level

    def _measured(self, base: Comparison) -> Comparison:
        """Return OK if the noise that is measured at the small step lets an error show."""
        clear = self.clear * self.size
        noise = 4 * self.point.measured_noise / base.step
        if base.verdict != UNSURE or min(noise, base.noise) > clear:
            return base
        return replace(base, verdict=OK if base.error <= clear else UNSURE)

    def measure(self) -> Comparison:
        """Compare both derivatives, at larger steps where rounding hides the small ones."""
        compared = self.compare()
        return self.climb(compared) if compared.verdict == UNSURE else compared

    def explained(self, compared: Comparison) -> str:
        """Return ROUNDING or UNSURE if rounding explains a difference, else FAILED.

        A narrow dtype is checked in float64 first: there the formula must be right. Elsewhere both
        sides must change as much when their inputs change by one unit in the last place.
        """
        point, error = self.point, compared.error
        if not np.isfinite(error):
            return FAILED
        clear = error <= self.clear * max(self.size, abs(compared.numeric))
        if point.dtype != point.settings.precision.dtype:
            line = Line(point.in_float64, self.name, self.u)
            there = line.measure()
            if there.verdict in (FAILED, KINK):
                return line._unless_unstable(there)
            right = there.verdict != UNSURE and (clear or error <= 4 * self.gradient_noise)
            return ROUNDING if right else UNSURE
        noise = self.gradient_noise
        if error > 4 * (noise + point.measured_noise / compared.step):
            if compared.smooth and compared.numeric:
                return FAILED
            if self.climb(compared).verdict == UNSURE:
                return UNSURE
        elif clear or (
            error <= 4 * noise + compared.noise
            and self.climb(replace(compared, verdict=UNSURE)).verdict == ROUNDING
        ):
            return ROUNDING
        return self._unless_unstable(compared)

    def _unless_unstable(self, compared: Comparison) -> str:
        """Return FAILED if another step gives the same numeric value, else UNSURE.

        UNSURE too where a unit in the last place of the tensors changes the output itself.
        """
        if self.point.measured_noise > self.clear * self.point.phi_size:
            return UNSURE
        if compared.stable:
            return FAILED
        for factor in (8, 1 / 8):
            n, noise = self.slopes(factor * compared.step)[0], compared.noise * (1 + 1 / factor)
            change, size = abs(n - compared.numeric), max(abs(n), abs(compared.numeric))
            if change <= 0.1 * size + noise and change + noise < 0.5 * compared.error:
                return FAILED
        return UNSURE

    def judge(self, compared: Comparison) -> Comparison:
        """Return a comparison with the verdict that rounding explains, if it is FAILED."""
        if compared.verdict != FAILED:
            return compared
        return replace(compared, verdict=self.explained(compared))

    def error(self) -> float:
        """Return the error at the largest step, 0 if within the tolerance."""
        h = self.steps[0]
        error = abs(self.analytic - self.slopes(h)[0])
        if error <= self.allowed + self.noise(h):
            return 0.0
        return error if np.isfinite(error) else math.inf


def taylor_slope(point: Point) -> tuple[float, float]:
    """Return the slope of ``log |phi(v + h u) - phi(v) - h <grad, u>|`` over ``log h``.

    The median over the smallest steps whose remainder is above rounding; NaN if the numeric
    side is float32. Also return the smallest of these remainders, relative to ``h <grad, u>``; 0 at
    a kink, where the steps to both sides do not agree and the slope is 1 for every gradient.
    """
    if point.settings.precision is not FLOAT64:
        return math.nan, math.nan
    point = point.in_float64
    u = {k: point.sizes[k] * random_direction(point.settings.rng, x) for k, x in point.wide.items()}
    slopes = [along(point.gradients[name], u[name]) for name in u]
    slope, size = sum(slopes), float(np.linalg.norm(slopes))

    def change(h: float) -> float:
        return point.phi(point.output_at({k: x + h * u[k] for k, x in point.wide.items()}))

    remainders = [(h, abs(change(h) - h * slope)) for h in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)]
    floor = 2**-44 * (point.phi_size + abs(slope))
    points = [(h, remainder) for h, remainder in remainders if remainder > floor]
    if len(points) < 2:
        return math.inf, 0.0
    h, remainder = points[-1]
    if abs(change(h) + change(-h)) > remainder / 2:
        remainder = 0.0
    steps: Array = np.diff(np.log(points), axis=0)
    return float(np.median(steps[-3:, 1] / steps[-3:, 0])), remainder / max(h * size, 1e-300)


def along(gradient: Array, u: Array) -> float:
    """Return the derivative along a direction; where that is 0 the gradient may be anything."""
    used = u != 0
    return float(gradient[used] @ u[used])


def rms(x: Array) -> float:
    """Return the root mean square of the entries, without overflow."""
    x = x.astype(np.float64)
    largest = float(np.abs(x).max(initial=0))
    if not 0 < largest < math.inf:
        return largest
    return largest * float(np.linalg.norm((x / largest).ravel())) / math.sqrt(x.size)


def finite(x: Array) -> Array:
    """Return the entries that are finite, as a vector."""
    return x[np.isfinite(x)]


def largest(x: Array) -> float:
    """Return the absolute value of the largest entry that is finite."""
    return float(np.abs(finite(x)).max(initial=0))


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


def relative_direction(point: Point, name: str) -> Array:
    """Return a random unit direction along which all entries of the gradient count equally.

    Along other directions the error of a small entry is lost beside the large ones.
    """
    size = np.abs(np.where(np.isfinite(g := point.gradients[name]), g, 0))
    u = random_direction(point.settings.rng, point.wide[name])
    floor = point.settings.floor * point.typical[name]
    return normalized(u * point.typical[name] / (size + floor)) if floor else u


def random_cotangent(settings: Settings, y: Array) -> Array:
    """Return a random cotangent, never all ones: with those every error of a simplex map passes."""
    normal = settings.rng.standard_normal(y.shape) if y.ndim else 1.0
    return np.asarray(settings.cotangent * normal, y.dtype)
