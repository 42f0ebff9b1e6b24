"""The verdict on the gradient of a tensor.

Both derivatives are compared along random directions. If they disagree, the reason is sought in
this order:

1. The step was too large: try a hundredth of it, and less while rounding leaves room.
2. The point is on a kink: the two sides agree at random points nearby, and here the analytic
   value lies between the two one-sided derivatives.
3. Several kinks meet there (a row of zeros, biases of zero), which can take the value outside:
   the two sides agree nearby, at every distance, and the value is within the range of theirs;
   or, for a layer made of layers, each inner one passes by itself on its input here.
4. Rounding: the analytic value changes as much when its inputs change by one unit in the last
   place, or the numeric one does. An error that shows beside the noise is not explained by it;
   where none would show, the check cannot tell.
5. The search for wrong entries finds none (kinks in several entries at once). At an entry
   where several kinks meet, the value may leave their range by twice its width, and the
   report says so.

Otherwise the gradient is wrong, and the worst entry is named.
"""

from __future__ import annotations

import numpy as np

from minidl.checks import Array
from minidl.testing.differences import (
    NEARBY,
    Comparison,
    Direction,
    Point,
    climb,
    compare,
    explain_by_rounding,
    judge,
    random_direction,
    relative_direction,
)
from minidl.testing.layers import LayerSubject
from minidl.testing.report import FAILED, KINK, KINKS, OK, ROUNDING, UNSURE, TensorCheck
from minidl.testing.search import search

DIRECTIONS = 2


def check_tensor(point: Point, name: str, directions: int = DIRECTIONS) -> TensorCheck:
    """Check the gradient of one tensor along random directions, until one disagrees."""
    checks: list[TensorCheck] = []
    around: Array | None = None
    while len(checks) < directions and not (checks and checks[-1].verdict == FAILED):
        if checks:
            u = relative_direction(point, name)
        else:
            u = random_direction(point.settings.rng, point.wide[name])
        check, around = _check_along(point, name, u, around)
        checks.append(check)
    return max(checks, key=_badness)


def _badness(check: TensorCheck) -> tuple[bool, bool, bool, float]:
    verdict = check.verdict
    return verdict == FAILED, verdict == UNSURE, verdict != OK, check.error


def _check_along(
    point: Point, name: str, u: Array, around: Array | None
) -> tuple[TensorCheck, Array | None]:
    compared = compare(point, name, u)
    verdict, worst = compared.verdict, None
    if verdict == UNSURE:
        compared = climb(point, name, u, compared)
        if compared.verdict in (OK, FAILED):
            point.reach[name] *= compared.step / point.steps(name, u)[0]
        verdict = compared.verdict
        if verdict == FAILED:
            verdict = explain_by_rounding(point, name, u, compared)
    elif compared.verdict != OK and np.isfinite(compared.analytic):
        verdict, seen = explain_by_kinks(point, name, u, compared)
        around = around if seen is None else seen
        if verdict == FAILED:
            verdict = explain_by_rounding(point, name, u, compared)
    if verdict == FAILED:
        found = search(point, name, around)
        worst = found.worst
        if found.complete and worst is None:
            right_nearby = around is not None and not compared.smooth
            verdict = KINKS if found.kinks else KINK if right_nearby else FAILED
    sides = compared.analytic, compared.numeric
    return TensorCheck(name, point.wide[name].shape, *sides, verdict, worst), around


def explain_by_kinks(
    point: Point, name: str, u: Direction, compared: Comparison
) -> tuple[str, Array | None]:
    """Return KINK, ROUNDING or UNSURE if kinks explain a difference, else FAILED.

    Also return the gradients nearby, if they are right there. Several distances are tried, since a
    function of strong curvature needs a small one. A value between the one-sided derivatives is
    not enough: the kink of one entry would hide the error of another.
    """
    label, inside, around = KINK, [], None
    for distance in point.settings.precision.distances:
        agree, points, seen = _look_around(point, name, u, distance)
        if not agree:
            if all(c.smooth for c in seen):
                return FAILED, around  # wrong where there is no kink
            continue
        label = ROUNDING if any(c.verdict == ROUNDING for c in seen) else label
        label = UNSURE if sum(c.verdict == UNSURE for c in seen) > NEARBY // 2 else label
        if compared.verdict == KINK or inner_layers_pass(point):
            return label, around
        slopes = [c.numeric for c in seen]
        inside.append(min(slopes) <= compared.analytic <= max(slopes))
        # Where four pieces meet, a few points may miss one of them.
        points += [point.nearby(distance) for _ in range(3 * NEARBY)]
        around = np.array([p.gradients[name] for p in points])
    # A kink is there at every distance; the slopes of a smooth function converge.
    return (label if inside and all(inside) else FAILED), around


def _look_around(
    point: Point, name: str, u: Direction, distance: float
) -> tuple[bool, list[Point], list[Comparison]]:
    """Compare both sides at random points nearby, and return whether they agree at most."""
    points: list[Point] = []
    seen: list[Comparison] = []
    while len(seen) < NEARBY:
        points.append(point.nearby(distance))
        seen.append(judge(points[-1], name, u))
        verdicts = [c.verdict for c in seen]
        if verdicts.count(FAILED) > NEARBY // 4 or verdicts.count(KINK) > NEARBY // 2:
            return False, points, seen
    return True, points, seen


def inner_layers_pass(point: Point) -> bool:
    """Return whether there are inner layers, and all gradients of each are right here."""
    if point.inner_layers_pass is None:
        point.inner_layers_pass = _inner_layers_pass(point)
    return point.inner_layers_pass


def _inner_layers_pass(point: Point) -> bool:
    subject, settings = point.subject, point.settings
    if not isinstance(subject, LayerSubject):
        return False
    calls = subject.inner_calls(point.tensors, point.dy)
    known = {id(layer) for layer, _, _ in calls}
    if not calls or any(id(layer) not in known for layer in subject.innermost()):
        return False
    for layer, x, dy in calls:
        inner = LayerSubject(layer, x, train=subject.train)
        with inner.preserved(settings.rng):
            at = Point(inner, inner.tensors, settings, dy)
            if any(check_tensor(at, name).verdict == FAILED for name in inner.tensors):
                return False
    return True
