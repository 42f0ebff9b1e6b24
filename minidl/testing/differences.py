"""Both derivatives of a subject along a direction, and the noise in them.

The analytic side runs in the subject's own dtype, the numeric side in float64 (or in float32, for
code that knows nothing else): differences of ``phi(v) = <dy, f(v)>`` along a direction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from minidl.checks import Array
from minidl.testing.options import FLOAT64, Settings
from minidl.testing.report import FAILED, KINK, OK, ROUNDING, UNSURE
from minidl.testing.subjects import Pass, Subject, Tensors

NEARBY = 12  # random points nearby, and random roundings
TRIALS, GROW = 56, 4  # larger steps, and the factor between two of them
FAR = 2**8  # so many times a tensor's size is another region of the function


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

    def _size(self, name: str) -> float:
        if size := rms(self.wide[name]):
            return size
        size, here = 1.0, rms(self.wide_output)
        u = self.settings.rng.choice([-1.0, 1.0], self.wide[name].shape)
        with np.errstate(all="ignore"):
            for _ in range(TRIALS if here and u.size else 0):
                stepped = self.stepped({name: size * u})
                change = rms(self.output_at(stepped) - self.wide_output)
                if 2**-20 * here <= change <= here:
                    # Large numbers may change nothing but the rounding of others.
                    clear = size <= 1 or 4 * self.noise_at(stepped) <= abs(self.phi(stepped))
                    return size if clear else 1.0
                size *= 2**16 if change < here else 2**-8
        return 1.0

    def run(self) -> Pass:
        """Run one pass at this point, in the subject's own dtypes."""
        return self.subject.run(self.tensors)

    def moved_to(self, tensors: Tensors) -> Point:
        """Return the point at these values, with this cotangent and these sizes."""
        dy = self.dy.astype(next(iter(tensors.values())).dtype, copy=False)
        return Point(self.subject, tensors, self.settings, dy, self.sizes)

    def moved(self, name: str, distance: float) -> Array:
        """Return a tensor moved at random, relative to its size and entries."""
        v = self.tensors[name]
        normal = self.settings.rng.standard_normal(v.shape)
        return np.asarray(v + distance * (self.sizes[name] + np.abs(v)) * normal, v.dtype)

    def nearby(self, distance: float) -> Point:
        """Return a random point nearby."""
        return self.moved_to({name: self.moved(name, distance) for name in self.tensors})

    @cached_property
    def in_float64(self) -> Point:
        """The same point with the analytic side in float64 too."""
        return self.moved_to(self.wide)

    # The numeric side

    def output_at(self, tensors: Tensors) -> Array:
        """Return the output at these values, in float64."""
        return self.subject.run(tensors).y.astype(np.float64)

    @cached_property
    def wide_output(self) -> Array:
        """The output in the precision of the numeric side."""
        return self.output_at(self.wide)

    def phi(self, tensors: Tensors) -> float:
        """Return the change of ``<dy, f>`` from here to these values, where f is finite here."""
        used, y = np.isfinite(self.wide_output), self.output_at(tensors)
        return float(self.dy.astype(np.float64)[used] @ (y[used] - self.wide_output[used]))

    def stepped(self, steps: Tensors) -> dict[str, Array]:
        """Return the tensors after steps in some of them."""
        dtype = self.settings.precision.dtype
        return self.wide | {k: np.asarray(self.wide[k] + h, dtype) for k, h in steps.items()}

    # Noise

    @cached_property
    def phi_size(self) -> float:
        """The size of ``phi`` before its terms cancel."""
        with np.errstate(invalid="ignore"):  # 0 times infinity is left out
            return norm(self.dy.astype(np.float64) * self.wide_output)

    @cached_property
    def measured_noise(self) -> float:
        """The range of ``phi`` under random rounding of the tensors and of all between layers."""
        return self.noise_at(self.wide)

    def noise_at(self, tensors: Tensors) -> float:
        """Return this range at other values, where numbers may be larger."""
        with self.subject.tapped(lambda _, x: (self._rounded(x), lambda dy: dy)):
            return float(np.ptp([self.phi(self._all_rounded(tensors)) for _ in range(NEARBY)]))

    @cached_property
    def rounded_gradients(self) -> list[dict[str, Array]]:
        """Gradients after random rounding of the tensors, the cotangent and all between layers."""
        found = []
        with self.subject.tapped(lambda _, x: (self._rounded(x), self._rounded)):
            for _ in range(NEARBY):
                run = self.subject.run(self._all_rounded(self.tensors))
                found.append(as_float64(run.pull(self._rounded(self.dy))))
        return found

    def _all_rounded(self, tensors: Tensors) -> Tensors:
        return {name: self._rounded(v) for name, v in tensors.items()}

    def _rounded(self, v: Array) -> Array:
        """Return ``v`` with each entry changed by -1, 0 or 1 unit in the last place."""
        ulps = self.settings.rng.integers(-1, 2, v.shape).astype(v.dtype) * np.finfo(v.dtype).eps
        return np.asarray(v + np.where(np.isfinite(v), v, 0) * ulps, v.dtype)


@dataclass(frozen=True)
class Comparison:
    """The two derivatives along a direction, and the verdict on them.

    The verdict is OK, KINK (the analytic one lies between the one-sided ones), ROUNDING, UNSURE
    (noise hides the numeric one) or FAILED. ``step`` and ``noise`` are those of the numeric one,
    which is ``smooth`` if two steps gave the same to both sides.
    """

    verdict: str
    analytic: float
    numeric: float
    step: float
    noise: float = 0.0
    smooth: bool = False

    @property
    def error(self) -> float:
        """The difference of the two."""
        return abs(self.analytic - self.numeric)


class Line:
    """A direction in one tensor at a point: both derivatives along it, and the noise in them.

    ``size`` is that of the derivative as a sum of random signs: it may itself cancel by chance.
    Errors are allowed, and must be clear, in relation to it. ``rounding`` is that in
    ``phi(v + h u) - phi(v)``, from the outputs and from the step itself, as it is assumed.
    """

    def __init__(self, point: Point, name: str, u: Array) -> None:
        self.point, self.name, self.u, settings = point, name, u, point.settings
        gradient = point.gradients[name]
        self.analytic = along(gradient, u)
        self.size = max(norm(gradient * u), settings.floor * rms(gradient))
        self.allowed, self.clear = settings.atol + settings.rtol * self.size, settings.clear
        self.steps = [point.reach[name] * h for h in settings.steps(u)]
        with np.errstate(invalid="ignore"):
            step = norm(point.wide[name] * gradient)
        self.rounding = settings.precision.unit * (point.phi_size + step)

    def slopes(self, h: float) -> tuple[float, float, float]:
        """Return the central and the two one-sided derivatives of ``<dy, f>``."""
        ahead, back = (
            self.point.phi(self.point.stepped({self.name: step * self.u})) for step in (h, -h)
        )
        return (ahead - back) / (2 * h), -back / h, ahead / h

    @cached_property
    def gradient_noise(self) -> float:
        """The range of the analytic derivative under random rounding."""
        found = (self.point.gradients, *self.point.rounded_gradients)
        return float(np.ptp([along(g[self.name], self.u) for g in found]))

    def error(self) -> float:
        """Return the error at the largest step, 0 if within the tolerance."""
        h = self.steps[0]
        error = abs(self.analytic - self.slopes(h)[0])
        if error <= self.allowed + self.rounding / h:
            return 0.0
        return error if np.isfinite(error) else math.inf

    def compare(self) -> Comparison:
        """Compare both derivatives, at smaller steps as long as they disagree.

        At larger ones where rounding hides the derivative.
        """
        analytic, sure = self.analytic, self.point.settings.precision.sure
        found, before, between = Comparison(FAILED, analytic, math.nan, math.nan), None, False
        for k, h in enumerate(self.steps):
            noise = self.rounding / h
            hidden = noise > self.clear * max(self.size, abs(found.numeric))
            if noise > found.error or (k >= sure and hidden):
                break  # rounding would hide the error that a larger step has shown, or everything
            slopes = self.slopes(h)
            now = Comparison(FAILED, analytic, slopes[0], h, noise)
            moved, tolerance = abs(slopes[0] - found.numeric), self.allowed + noise
            if noise > 0.1 * found.error and moved < 0.5 * found.error:
                break
            if now.error <= tolerance:
                if noise <= (self.allowed if k == 0 else self.clear * self.size):
                    return replace(now, verdict=OK)
                return self.climb(replace(now, verdict=UNSURE))
            between = min(slopes[1:]) - tolerance <= analytic <= max(slopes[1:]) + tolerance
            if before is not None:
                same = moved <= 0.1 * abs(slopes[0]) + noise + found.noise
                if same and np.ptp([*slopes, *before]) + noise < 0.01 * now.error:
                    return replace(now, smooth=True)
            found, before = now, slopes
        return replace(found, verdict=KINK if between else FAILED)

    def is_smooth(self) -> bool:
        """Return whether a wrong derivative is the same to both sides along the other diagonal.

        Kinks may cancel along one direction by chance, but hardly along two.
        """
        signs = self.point.settings.rng.choice([-1.0, 1.0], self.u.shape)
        found = Line(self.point, self.name, self.u * signs).compare()
        return found.smooth and found.verdict == FAILED

    def climb(self, base: Comparison) -> Comparison:
        """Compare both derivatives at larger steps, where rounding hides the small ones.

        The derivative is the first value that two steps share. It proves an error or agreement if
        all smaller steps gave the same within their noise. A gradient that is zero by its own
        rounding is right if the output does not change at small steps, and at others not in
        proportion.
        """
        point, clear, (seen, agree) = self.point, self.clear, self._larger_steps()
        if agree:
            (_, before, rough), (h, n, noise) = seen[-2:]
            now = Comparison(FAILED, base.analytic, n, h, noise, smooth=True)
            vague = min(noise + abs(n - before), clear * max(self.size, abs(n)))
            steady = all(abs(m - n) <= clear * abs(n) + 4 * rough for _, m, rough in seen[:-1])
            if now.error <= self.allowed + vague:
                return replace(now, verdict=OK if steady else UNSURE)
            if steady and now.error > clear * abs(n) + noise + rough + abs(n - before):
                return now
            first = next((h for h, m, rough in seen if abs(m) > 2 * rough), math.inf)
            flat = not steady and first <= FAR * point.reach[self.name]
        else:
            hidden = bool(seen) and abs(seen[0][1]) <= 2 * seen[0][2]
            flat = hidden and self.rounding <= clear * point.phi_size
        if base.verdict == UNSURE and flat and abs(base.analytic) <= 4 * self.gradient_noise:
            return replace(base, verdict=ROUNDING)
        # The noise that is measured at the small step may let an error show.
        shows = base.verdict == UNSURE and base.error <= clear * self.size
        if shows and min(4 * point.measured_noise / base.step, base.noise) <= clear * self.size:
            return replace(base, verdict=OK)
        return base

    def _larger_steps(self) -> tuple[list[tuple[float, float, float]], bool]:
        """Return steps, derivatives and their noise, and whether the last two agree."""
        seen, before, rough, agree = list[tuple[float, float, float]](), 0.0, math.inf, 0
        with np.errstate(all="ignore"), suppress(Exception):  # the subject may refuse such numbers
            for k in range(TRIALS):
                h = self.steps[0] * GROW**k
                n, noise, clear = self.slopes(h)[0], self.rounding / h, self.clear
                if not np.isfinite(n):
                    break
                seen.append((h, n, noise))
                same = abs(n - before) <= noise + rough + clear * abs(n) and rough <= 0.03 * abs(n)
                # Numbers may be so large that their rounding is all that is seen.
                far = self.point.stepped({self.name: h * self.u})
                if same and 4 * self.point.noise_at(far) / h <= clear * abs(n):
                    agree = len(seen)
                elif agree:
                    break
                if agree and noise <= clear * abs(n):
                    break
                before, rough = n, noise
        return seen[: agree or None], agree > 0

    def judge(self) -> Comparison:
        """Return the comparison with the verdict that rounding explains, if it is FAILED."""
        found = self.compare()
        return replace(found, verdict=self.explained(found)) if found.verdict == FAILED else found

    def explained(self, compared: Comparison) -> str:
        """Return ROUNDING or UNSURE if rounding explains a difference, else FAILED.

        A narrow dtype is judged in float64 first: there the formula must be right. Elsewhere both
        sides must change as much when their inputs change by one unit in the last place.
        """
        point, error = self.point, compared.error
        if not np.isfinite(error):
            return FAILED
        clear = error <= self.clear * max(self.size, abs(compared.numeric))
        if point.dtype != point.settings.precision.dtype:
            line = Line(point.in_float64, self.name, self.u)
            there = line.judge()
            if there.verdict in (FAILED, KINK):
                return line._unless_hidden(there)
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
        return self._unless_hidden(compared)

    def _unless_hidden(self, compared: Comparison) -> str:
        """Return FAILED if another step shows the error beside the measured noise, else UNSURE.

        UNSURE too where a unit in the last place of the tensors changes the output itself.
        """
        measured, h, error = self.point.measured_noise, compared.step, compared.error
        if measured > self.clear * self.point.phi_size:
            return UNSURE
        if compared.smooth and measured / h < 0.5 * error:
            return FAILED
        for step in (8 * h, h / 8, self.steps[0]):
            n, noise = self.slopes(step)[0], max(self.rounding, measured) * (1 / h + 1 / step)
            change, size = abs(n - compared.numeric), max(abs(n), abs(compared.numeric))
            if change <= 0.1 * size + noise and change + noise < 0.5 * error:
                return FAILED
        return UNSURE


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
        return point.phi(point.stepped({name: h * v for name, v in u.items()}))

    h = np.array([1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
    remainders = np.abs([change(step) for step in h] - h * slope)
    used = remainders > 2**-44 * (point.phi_size + abs(slope))
    if used.sum() < 2:
        return math.inf, 0.0
    h, remainders = h[used], remainders[used]
    smooth = abs(change(h[-1]) + change(-h[-1])) <= remainders[-1] / 2
    rates = np.diff(np.log(remainders)) / np.diff(np.log(h))
    share = float(remainders[-1] / max(h[-1] * size, 1e-300)) if smooth else 0.0
    return float(np.median(rates[-3:])), share


def along(gradient: Array, u: Array) -> float:
    """Return the derivative along a direction; where that is 0 the gradient may be anything."""
    used = u != 0
    return float(gradient[used] @ u[used])


def finite(x: Array) -> Array:
    """Return the entries that are finite, as a vector of float64."""
    return x[np.isfinite(x)].astype(np.float64)


def largest(x: Array) -> float:
    """Return the absolute value of the largest entry that is finite."""
    return float(np.abs(finite(x)).max(initial=0))


def norm(x: Array) -> float:
    """Return the length of the entries that are finite."""
    return float(np.linalg.norm(finite(x)))


def rms(x: Array) -> float:
    """Return the root mean square of the entries that are finite, without overflow."""
    x, size = finite(x), largest(x)
    return size * norm(x / size) / math.sqrt(x.size) if size else 0.0


def as_float64(tensors: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.asarray(x, np.float64) for name, x in tensors.items()}


def normalized(u: Array) -> Array:
    """Return a direction of length 1 along ``u``."""
    return u / max(float(np.linalg.norm(u.ravel())), 1e-300)


def random_direction(rng: np.random.Generator, x: Array) -> Array:
    """Return a unit direction without small entries, of random signs; 0 at infinities."""
    signs = rng.choice([-1.0, 1.0], x.shape) * np.isfinite(x)
    return normalized(signs * rng.uniform(0.5, 1.5, x.shape))


def relative_direction(point: Point, name: str) -> Array:
    """Return a random unit direction along which all entries of the gradient count equally.

    Along other directions the error of a small entry is lost beside the large ones.
    """
    gradient, u = point.gradients[name], random_direction(point.settings.rng, point.wide[name])
    floor = point.settings.floor * (typical := rms(gradient))
    size = np.abs(np.where(np.isfinite(gradient), gradient, 0))
    return normalized(u * typical / (size + floor)) if floor else u


def random_cotangent(settings: Settings, y: Array) -> Array:
    """Return a random cotangent, never all ones: with those every error of a simplex map passes."""
    normal = settings.rng.standard_normal(y.shape) if y.ndim else 1.0
    return np.asarray(settings.cotangent * normal, y.dtype)
