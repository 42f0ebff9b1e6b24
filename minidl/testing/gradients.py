"""The verdict on the gradient of a tensor.

Both derivatives are compared along random directions. If they disagree, the reason is sought in
this order: a step that was too large, a kink, several kinks, rounding, and last the wrong entries.
``docs/gradient-checks.md`` says what each of them must show.
"""

from __future__ import annotations

import math
import time

import numpy as np

from minidl.checks import Array
from minidl.testing.differences import (
    NEARBY,
    Comparison,
    Line,
    Point,
    normalized,
    random_direction,
    relative_direction,
)
from minidl.testing.layers import LayerSubject
from minidl.testing.report import FAILED, KINK, KINKS, OK, ROUNDING, UNSURE, Entry, TensorCheck


def check_tensor(point: Point, name: str, directions: int = 2) -> TensorCheck:
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
    """Check along one direction; ``around`` are gradients nearby, if they are right there."""
    line, worst = Line(point, name, u), None
    compared = line.compare()
    verdict = compared.verdict
    if verdict == UNSURE:
        compared = line.climb(compared)
        verdict = compared.verdict
        if verdict in (OK, FAILED):
            point.reach[name] *= compared.step / line.steps[0]
    elif verdict != OK and np.isfinite(compared.analytic):
        verdict, seen = explain_by_kinks(line, compared)
        around = around if seen is None else seen
    if verdict == FAILED:
        verdict = line.explained(compared)
    if verdict == FAILED:
        right_nearby = around is not None and not compared.smooth
        verdict, worst = search(point, name, around, KINK if right_nearby else FAILED)
    sides = compared.analytic, compared.numeric
    return TensorCheck(name, point.wide[name].shape, *sides, verdict, worst), around


def explain_by_kinks(line: Line, compared: Comparison) -> tuple[str, Array | None]:
    """Return KINK, ROUNDING or UNSURE if kinks explain a difference, else FAILED.

    Also return the gradients nearby, if they are right there. Several distances are tried, since a
    function of strong curvature needs a small one. A value between the one-sided derivatives is
    not enough: the kink of one entry would hide the error of another.
    """
    point, label, inside, around = line.point, KINK, [], None
    for distance in point.settings.precision.distances:
        agree, points, seen = _look_around(line, distance)
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
        around = np.array([p.gradients[line.name] for p in points])
    # A kink is there at every distance; the slopes of a smooth function converge.
    return (label if inside and all(inside) else FAILED), around


def _look_around(line: Line, distance: float) -> tuple[bool, list[Point], list[Comparison]]:
    """Compare both sides at random points nearby, and return whether they agree at most."""
    points: list[Point] = []
    seen: list[Comparison] = []
    while len(seen) < NEARBY:
        points.append(line.point.nearby(distance))
        there = Line(points[-1], line.name, line.u)
        seen.append(there.judge(there.measure()))
        verdicts = [c.verdict for c in seen]
        if verdicts.count(FAILED) > NEARBY // 4 or verdicts.count(KINK) > NEARBY // 2:
            return False, points, seen
    return True, points, seen


def inner_layers_pass(point: Point) -> bool:
    """Return whether there are inner layers, and all gradients of each are right here."""
    if point.inner_layers_pass is None:
        subject = point.subject
        point.inner_layers_pass = isinstance(subject, LayerSubject) and _all_pass(point, subject)
    return point.inner_layers_pass


def _all_pass(point: Point, subject: LayerSubject) -> bool:
    calls = subject.inner_calls(point.tensors, point.dy)
    for layer, x, dy in calls:
        inner = LayerSubject(layer, x, train=subject.train)
        with inner.preserved(point.settings.rng):
            at = Point(inner, inner.tensors, point.settings, dy)
            if any(check_tensor(at, name).verdict == FAILED for name in inner.tensors):
                return False
    return bool(calls)


ENOUGH = 100
"""The search ends with so many wrong entries."""

FEW = 3
"""Smaller sets are measured entry by entry."""


def search(
    point: Point, name: str, around: Array | None, otherwise: str
) -> tuple[str, Entry | None]:
    """Return the verdict and the worst entry, by halving sets of entries.

    First the smallest set is halved, until one wrong entry is known; then the one with the
    largest error. ``around`` are gradients at points nearby, if the tensor's are right there.
    ``otherwise`` is the verdict if no set is left and no entry explains the error.
    """
    x, settings, start = point.wide[name], point.settings, time.thread_time()
    sets = [(np.flatnonzero(np.isfinite(x)), math.inf)]  # entries, and the error along a direction
    wrong: list[tuple[int, float, float]] = []
    while sets and len(wrong) < ENOUGH:
        limit = settings.seconds_left / 2 if wrong else settings.seconds_left
        if time.thread_time() - start > limit:
            break
        ranks = [(0 if wrong else -len(entries), error) for entries, error in sets]
        entries, _ = sets.pop(ranks.index(max(ranks)))
        if len(entries) > FEW:
            sets += _wrong_halves(point, name, entries)
            continue
        for j in map(int, entries):
            u = np.zeros(x.shape)
            u.flat[j] = 1
            line = Line(point, name, u)
            compared = line.judge(line.compare())
            if compared.verdict != FAILED:
                continue
            if around is not None and on_several_kinks(compared.analytic, around, j):
                otherwise = KINKS
            else:
                wrong.append((j, compared.analytic, compared.numeric))
    settings.seconds_left -= time.thread_time() - start
    if not wrong:
        return FAILED if sets else otherwise, None
    j, analytic, numeric = max(wrong, key=_error)
    index = tuple(int(i) for i in np.unravel_index(j, x.shape))
    sizes = len(wrong), x.size - sum(len(entries) for entries, _ in sets), x.size
    nearby, ratio = around is not None, common_ratio(wrong)
    label = point.subject.label(name)
    return FAILED, Entry(label, index, analytic, numeric, *sizes, nearby, ratio)


def _wrong_halves(point: Point, name: str, whole: Array) -> list[tuple[Array, float]]:
    """Return the halves of a set in which the two sides disagree along a random direction."""
    found, shape = [], point.wide[name].shape
    for half in np.array_split(whole, 2):
        u = np.zeros(shape)
        u.flat[half] = relative_direction(point, name).flat[half]
        if error := Line(point, name, normalized(u)).error():
            found.append((half, error))
    return found


def _error(entry: tuple[int, float, float]) -> tuple[bool, float]:
    """Return the error of an entry, to sort by; those that are not finite are the largest."""
    error = abs(entry[1] - entry[2])
    return not np.isfinite(error), error


def on_several_kinks(analytic: float, around: Array, j: int) -> bool:
    """Return whether several kinks at an entry explain its value.

    It may be that of a neighbouring piece that the line along the entry does not touch: one of the
    gradients nearby has it. Or these take three values or more; the value here may then leave
    their range, by twice its width.
    """
    values = np.sort(around.reshape(len(around), -1)[:, j])
    close = 1e-3 * np.abs(values).max()
    jumps = np.diff(values) > close
    one_of_them = bool(jumps.any()) and np.abs(values - analytic).min() <= close
    far = abs(analytic - values.mean()) > 2.5 * (values[-1] - values[0])
    return bool(one_of_them or (jumps.sum() >= 2 and not far))


def common_ratio(wrong: list[tuple[int, float, float]]) -> float | None:
    """Return analytic / numeric if it is the same for all entries, and these are three or more."""
    ratios = np.array([a / n if n else np.inf for _, a, n in wrong])
    middle = float(np.median(ratios))
    if len(ratios) < 3 or not np.isfinite(ratios).all() or not middle:
        return None
    return middle if (np.abs(ratios - middle) < 1e-3 * abs(middle)).all() else None
