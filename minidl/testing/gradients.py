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

Otherwise the gradient is wrong, and the worst entry is named.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from minidl.testing.differences import Comparison, Differences, Direction, along, rms, wide
from minidl.testing.options import Settings
from minidl.testing.report import FAILED, KINK, KINKS, OK, ROUNDING, TensorCheck
from minidl.testing.search import search
from minidl.testing.styles import layer_subject
from minidl.testing.subjects import Subject, Tensors
from minidl.typing import Array

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

        Where several kinks meet, the gradients nearby take three values or more; the value here
        may then leave their range, by twice its width.
        """
        compared = self.judge(name, j)
        if compared.verdict == FAILED and name in self.around:
            values = np.sort(self.around[name].reshape(NEARBY, -1)[:, j])
            width = values[-1] - values[0]
            jumps = np.diff(values) > 1e-3 * np.abs(values).max()
            if jumps.sum() >= 2 and abs(compared.analytic - values.mean()) <= 2.5 * width:
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
