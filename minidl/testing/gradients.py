"""The comparison of an analytic gradient with central differences.

The numeric side runs in float64 (or in float32, for code that knows nothing else), the analytic
side in the subject's own dtype. A scalar ``phi(v) = <cotangent, f(v)>`` is followed along random
directions, one tensor at a time. If the two sides disagree, the reason is sought in this order:

1. The step was too large: try a hundredth of it, and less while rounding leaves room.
2. The point is on a kink: the two sides agree at random points nearby, and here the analytic
   value lies between the two one-sided derivatives.
3. Several kinks meet there (a row of zeros, biases of zero), which can take the value outside:
   the two sides agree nearby, at every distance, and the value is within the range of theirs;
   or, for a layer made of layers, each inner one passes by itself on its input here.
4. Rounding: the analytic value changes as much when its inputs change by one unit in the last
   place, or the numeric one does.
5. The search for wrong entries finds none (kinks in several entries at once). At an entry
   where several kinks meet, the value may leave their range by twice its width, and the
   report says so.

Otherwise the gradient is wrong, and the worst entry is named."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from minidl.checks import Array
from minidl.testing.options import FLOAT64, Settings
from minidl.testing.report import FAILED, KINK, KINKS, OK, ROUNDING, Entry, TensorCheck
from minidl.testing.subjects import Pass, Subject, Tensors, layer_subject

if TYPE_CHECKING:
    pass


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


ENOUGH = 100
FEW = 3
"""Smaller sets are measured entry by entry."""


@dataclass(frozen=True)
class Outcome:
    """The result of a search: the worst entry if one is wrong, and whether no set was left."""

    worst: Entry | None
    complete: bool


@dataclass(frozen=True, eq=False)
class Suspects:
    """A set of entries in which the two sides disagree, by ``error`` along a direction."""

    entries: Array
    error: float


def search(at: Linearization, name: str) -> Outcome:
    """Return the worst entry among the wrong ones of a tensor.

    First the smallest set is halved, until one wrong entry is known; then the one with the
    largest error.
    """
    x, a = at.wide[name], at.gradients[name]
    limit = at.settings.time
    start = time.thread_time()
    sets = [Suspects(np.flatnonzero(np.isfinite(x)), math.inf)]
    found: list[tuple[float, int, float, float]] = []
    while sets and len(found) < ENOUGH:
        spent = time.thread_time() - start
        if spent > (limit.left / 2 if found else limit.left):
            break
        if found:
            chosen = max(sets, key=lambda s: s.error)
        else:
            chosen = min(sets, key=lambda s: (len(s.entries), -s.error))
        sets.remove(chosen)
        if len(chosen.entries) > FEW:
            halves = np.array_split(chosen.entries, 2)
            errors = (at.difference(name, part_of(at.direction(x), half)) for half in halves)
            sets += [Suspects(h, e) for h, e in zip(halves, errors, strict=True) if e]
            continue
        for j in map(int, chosen.entries):
            verdict, numeric = at.judge_entry(name, j)
            if verdict == FAILED:
                found.append((abs(float(a.flat[j]) - numeric), j, float(a.flat[j]), numeric))
    limit.left -= time.thread_time() - start
    if not found:
        return Outcome(None, not sets)
    _, j, analytic, numeric = max(found, key=lambda f: (not np.isfinite(f[0]), f[0]))
    index = tuple(int(i) for i in np.unravel_index(j, x.shape))
    searched = x.size - sum(len(s.entries) for s in sets)
    ratio = common(np.array([f[2] / f[3] if f[3] else np.inf for f in found]))
    label, nearby = at.subject.label(name), at.right_nearby(name)
    entry = Entry(label, index, analytic, numeric, len(found), searched, x.size, nearby, ratio)
    return Outcome(entry, not sets)


def part_of(u: Array, entries: Array) -> Array:
    """Return a unit direction along ``u`` that moves only these entries."""
    part = np.zeros(u.shape, u.dtype)
    part.flat[entries] = u.flat[entries]
    return part / max(float(np.linalg.norm(part.ravel())), 1e-300)


def common(ratios: Array) -> float | None:
    """Return the number that all ratios are equal to, None if there is none or only two."""
    middle = float(np.median(ratios))
    if len(ratios) < 3 or not np.isfinite(ratios).all() or not middle:
        return None
    return middle if (np.abs(ratios - middle) < 1e-3 * abs(middle)).all() else None


DIRECTIONS = 2
NEARBY = 12


class Linearization(Differences):
    """A subject at one point, and the verdicts on its gradients.

    ``failed`` collects the names of the tensors whose gradients turned out to be wrong,
    ``around`` the gradients at points nearby, for tensors that are right there.
    """

    def __init__(self, subject: Subject, tensors: Tensors, dy: Array, settings: Settings) -> None:
        super().__init__(subject, tensors, dy, settings)
        self.failed: set[str] = set()
        self.around: dict[str, Array] = {}
        self.several_kinks: set[str] = set()

    @property
    def notes(self) -> tuple[str, ...]:
        """A note for each tensor at whose entries several kinks meet."""
        return tuple(
            f"{name}: several kinks meet here, and no difference can tell the right value; "
            "nearby it is right. Check elsewhere too, as at x + 1e-3 * normal numbers"
            for name in sorted(self.several_kinks)
        )

    def check(self, name: str, directions: int = DIRECTIONS) -> TensorCheck:
        """Check one tensor along random directions, until one disagrees."""
        checks: list[TensorCheck] = []
        while len(checks) < directions and not (checks and checks[-1].verdict == FAILED):
            checks.append(self._check_along(name))
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
                gradients.append(wide(run.pull(dy)))
        return gradients

    @cached_property
    def _numeric_noise(self) -> float:
        """The rounding in ``phi`` itself: its range under the same rounding as in ``rounded``."""
        g = self.dy.astype(np.float64)
        with self.subject.tapped(lambda _, x: (self._rounded(x), lambda dy: dy)):
            runs = [
                self.subject.run({k: self._rounded(v) for k, v in self.wide.items()}).y
                for _ in range(NEARBY)
            ]
        finite = np.isfinite(self.wide_output)
        return float(np.ptp([g[finite] @ (y - self.wide_output)[finite] for y in runs]))

    @cached_property
    def _largest(self) -> float:
        return max([*self.typical.values(), rms(self.dy) if self.dy.ndim else 0])

    def _check_along(self, name: str) -> TensorCheck:
        u = self.direction(self.wide[name])
        compared = self.compare(name, u)
        verdict, worst = compared.verdict, None
        if verdict != OK and np.isfinite(compared.analytic):
            verdict = self._on_kink(name, u, compared)
            if verdict == FAILED and self._within_rounding(name, u, compared):
                verdict = ROUNDING
        if verdict == FAILED:
            outcome = search(self, name)
            worst = outcome.worst
            if outcome.complete and worst is None:
                verdict = FAILED if compared.smooth else KINK
                verdict = KINKS if name in self.several_kinks else verdict
        sides = compared.analytic, compared.numeric
        jacobians = self.jacobians(name) if verdict == FAILED else None
        return TensorCheck(name, self.wide[name].shape, *sides, verdict, worst, jacobians)

    def _on_kink(self, name: str, u: Direction, compared: Comparison) -> str:
        """Steps 2 and 3, at several distances: a function of strong curvature needs a small one.

        A value between is not enough: the kink of one entry would hide the error of another.
        """
        a, between = compared.analytic, compared.verdict == KINK
        inside, label = [], KINK
        for distance in self.settings.precision.distances:
            points: list[Linearization] = []
            seen: list[Comparison] = []
            for _ in range(NEARBY):
                points.append(self.nearby(distance))
                seen.append(points[-1].judge(name, u))
                verdicts = [c.verdict for c in seen]
                if verdicts.count(FAILED) > NEARBY // 4 or verdicts.count(KINK) > NEARBY // 2:
                    break
            else:
                label = ROUNDING if ROUNDING in verdicts else label
                if between or self._inner_layers_pass:
                    return label
                slopes = [c.numeric for c in seen]
                inside.append(min(slopes) <= a <= max(slopes))
                # Where four pieces meet, a few points may miss one of them.
                points += [self.nearby(distance) for _ in range(3 * NEARBY)]
                self.around[name] = np.array([point.gradients[name] for point in points])
                continue
            if all(c.smooth for c in seen):
                return FAILED  # wrong where there is no kink
        # A kink is there at every distance; the slopes of a smooth function converge.
        return label if inside and all(inside) else FAILED

    def judge(self, name: str, u: Direction) -> Comparison:
        """As ``compare``, or ROUNDING if that explains a difference."""
        compared = self.compare(name, u)
        if compared.verdict == FAILED and self._within_rounding(name, u, compared):
            return Comparison(ROUNDING, compared.analytic, compared.numeric, compared.step)
        return compared

    def judge_entry(self, name: str, j: int) -> tuple[str, float]:
        """Return the verdict on one entry, and its numeric derivative.

        Where several kinks meet, the value here may be that of a neighbouring piece that the line
        along the entry does not touch: one of the gradients nearby has it. Or these take three
        values or more; the value here may then leave their range, by twice its width.
        """
        compared = self.judge(name, j)
        if compared.verdict == FAILED and name in self.around:
            values = np.sort(self.around[name].reshape(4 * NEARBY, -1)[:, j])
            width = values[-1] - values[0]
            close = 1e-3 * np.abs(values).max()
            jumps, here = np.diff(values) > close, np.abs(values - compared.analytic)
            one_of_them = bool(jumps.any()) and here.min() <= close
            far = abs(compared.analytic - values.mean()) > 2.5 * width
            if one_of_them or (jumps.sum() >= 2 and not far):
                self.several_kinks.add(name)
                return KINK, compared.numeric
        return compared.verdict, compared.numeric

    def right_nearby(self, name: str) -> bool:
        """Return whether the gradient was found to be right at points nearby."""
        return name in self.around

    @cached_property
    def _inner_layers_pass(self) -> bool:
        """Whether there are inner layers, and all gradients of each are right here."""
        calls = self.subject.inner_calls(self.tensors, self.dy)
        known = {id(layer) for layer, _, _ in calls}
        if not calls or any(id(layer) not in known for layer in self.subject.innermost()):
            return False
        inner = [(layer_subject(m, x, self.subject.train), dy) for m, x, dy in calls]
        return all(self._passes(subject, dy) for subject, dy in inner)

    def _passes(self, subject: Subject, dy: Array) -> bool:
        with subject.preserved(self.settings.rng):
            point = Linearization(subject, subject.tensors, dy, self.settings)
            return all(point.check(name).verdict != FAILED for name in subject.tensors)

    def _within_rounding(self, name: str, u: Direction, compared: Comparison) -> bool:
        """Step 4."""
        a, rtol = compared.analytic, self.settings.rtol
        # The remainder of a gradient that cancels to nothing, beside others that do not.
        error, floor = abs(a - compared.numeric), 0.01 * rtol * self._largest
        if error > math.sqrt(rtol) * self._largest:
            return False  # at a tie, a unit in the last place may change anything
        if error <= 4 * self._numeric_noise / compared.step + floor:
            return True
        values = [a, *(along(gradients[name], u) for gradients in self.rounded)]
        return error <= 4 * (max(values) - min(values)) + floor

    def _rounded(self, v: Array) -> Array:
        """Return ``v`` with each entry changed by -1, 0 or 1 unit in the last place."""
        ulps = self.settings.rng.integers(-1, 2, v.shape).astype(v.dtype)
        finite = np.where(np.isfinite(v), v, 0)
        return np.asarray(v + finite * ulps * np.finfo(v.dtype).eps, v.dtype)


def perturb(rng: np.random.Generator, v: Array, step: float) -> Array:
    """Return ``v`` moved at random by ``step``, relative and absolute."""
    normal = rng.standard_normal(v.shape).astype(v.dtype)
    return np.asarray(v + step * (1 + np.abs(v)) * normal, v.dtype)


def cotangent(rng: np.random.Generator, y: Array) -> Array:
    """Return a random cotangent, never all ones: with those every error of a simplex map passes."""
    if y.ndim == 0:
        return np.ones_like(y)
    return np.asarray(rng.standard_normal(y.shape), y.dtype)
