"""The verdict on the gradient of a tensor.

Both derivatives are compared along random directions. If they disagree, the reason is sought in
this order: a step that was too large, a kink, several kinks, rounding, and last the wrong entries.
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

SEVERITY = OK, KINK, KINKS, ROUNDING, UNSURE, FAILED
ENOUGH = 100  # wrong entries end the search
FEW = 3  # entries are measured one by one
NEAR = 1e-3  # gradients at points nearby differ so much where they are of one piece
SEARCHES = 500  # points at most, for a piece that touches a point


def check_tensor(point: Point, name: str, directions: int = 2) -> TensorCheck:
    """Check the gradient of one tensor along random directions, until one disagrees.

    Along the first all entries of the tensor count, along the others all of its gradient.
    """
    checks: list[TensorCheck] = []
    around: Array | None = None  # gradients nearby, if they are right there
    while len(checks) < directions and not (checks and checks[-1].failure):
        rng, x = point.settings.rng, point.wide[name]
        u = relative_direction(point, name) if checks else random_direction(rng, x)
        line = Line(point, name, u)
        compared, worst = line.compare(), None
        verdict = compared.verdict
        if compared.step > line.steps[0]:
            point.reach[name] *= compared.step / line.steps[0]
        if verdict in (FAILED, KINK) and np.isfinite(compared.analytic):
            verdict, seen = explain_by_kinks(line, compared)
            around = around if seen is None else seen
        if verdict == FAILED:
            verdict = line.explained(compared)
        if verdict == FAILED:
            wrong_here = around is None or (compared.smooth and line.is_smooth())
            verdict, worst = search(point, name, around, UNSURE if wrong_here else KINK)
        sides = compared.analytic, compared.numeric
        checks.append(TensorCheck(name, u.shape, *sides, verdict, worst))
    return max(checks, key=lambda check: (SEVERITY.index(check.verdict), check.error))


def explain_by_kinks(line: Line, compared: Comparison) -> tuple[str, Array | None]:
    """Return KINK, ROUNDING or UNSURE if kinks explain a difference, else FAILED.

    Also return the gradients nearby, if they are right there. Several distances are tried, since
    strong curvature needs a small one. A value between the one-sided derivatives is not enough:
    the kink of one entry would hide the error of another.
    """
    point, label, inside, around = line.point, FAILED, [], None
    for distance in point.settings.precision.distances:
        label, points, seen = _look_around(line, distance)
        if label == FAILED:
            if all(c.smooth for c in seen):
                return FAILED, around  # wrong where there is no kink
            continue
        if compared.verdict == KINK or inner_layers_pass(point):
            return label, around
        slopes = [c.numeric for c in seen]
        inside.append(min(slopes) <= compared.analytic <= max(slopes))
        # Where four pieces meet, a few points may miss one of them.
        points += [point.nearby(distance) for _ in range(3 * NEARBY)]
        around = np.array([p.gradients[line.name] for p in points])
    # A kink is there at every distance; the slopes of a smooth function converge.
    return (KINK if inside and all(inside) else FAILED), around


def _look_around(line: Line, distance: float) -> tuple[str, list[Point], list[Comparison]]:
    """Compare both sides at random points nearby, until too many disagree: then FAILED."""
    points, seen, verdicts = list[Point](), list[Comparison](), list[str]()
    while len(seen) < NEARBY:
        points.append(line.point.nearby(distance))
        seen.append(Line(points[-1], line.name, line.u).judge())
        verdicts.append(seen[-1].verdict)
        if verdicts.count(FAILED) > NEARBY // 4 or verdicts.count(KINK) > NEARBY // 2:
            return FAILED, points, seen
    hidden = verdicts.count(UNSURE) > NEARBY // 2
    return (UNSURE if hidden else ROUNDING if ROUNDING in verdicts else KINK), points, seen


def inner_layers_pass(point: Point) -> bool:
    """Return whether there are inner layers, and all gradients of each are right here."""
    subject = point.subject
    if point.inner_layers_pass is None and isinstance(subject, LayerSubject):
        calls = subject.inner_calls(point.tensors, point.dy)
        inner = ((LayerSubject(layer, x, train=subject.train), dy) for layer, x, dy in calls)
        point.inner_layers_pass = bool(calls) and all(_passes(point, *call) for call in inner)
    return bool(point.inner_layers_pass)


def _passes(outer: Point, subject: LayerSubject, dy: Array) -> bool:
    with subject.preserved(outer.settings.rng):
        point = Point(subject, subject.tensors, outer.settings, dy)
        return not any(check_tensor(point, name).failure for name in subject.tensors)


def search(
    point: Point, name: str, around: Array | None, otherwise: str
) -> tuple[str, Entry | None]:
    """Return the verdict and the worst entry, by halving sets of entries.

    A set is wrong if the two sides disagree along a random direction in it. First the smallest set
    is halved, until one wrong entry is known; then the one with the largest error. ``around`` are
    gradients at points nearby, if the tensor's are right there. ``otherwise`` is the verdict if no
    set is left and no entry explains the error.
    """
    x, settings, start = point.wide[name], point.settings, time.thread_time()
    sets = [(np.flatnonzero(np.isfinite(x)), math.inf)]  # entries, and the error along a direction
    wrong: list[tuple[int, float, float]] = []

    def line(entries: Array, values: Array) -> Line:
        u = np.zeros(x.shape)
        u.flat[entries] = values.flat[entries]
        return Line(point, name, normalized(u))

    while sets and len(wrong) < ENOUGH:
        if time.thread_time() - start > settings.seconds_left / (2 if wrong else 1):
            break
        ranks = [error if wrong else -len(entries) for entries, error in sets]
        entries, _ = sets.pop(int(np.argmax(ranks)))
        if len(entries) > FEW:
            halves = np.array_split(entries, 2)
            errors = [line(half, relative_direction(point, name)).error() for half in halves]
            sets += [pair for pair in zip(halves, errors, strict=True) if pair[1]]
            continue
        for j in map(int, entries):
            compared = line(np.array([j]), np.ones(x.shape)).judge()
            if compared.verdict == FAILED and on_several_kinks(point, name, around, j):
                otherwise = KINKS
            elif compared.verdict == FAILED:
                wrong.append((j, compared.analytic, compared.numeric))
    settings.seconds_left -= time.thread_time() - start
    if not wrong:
        return FAILED if sets else otherwise, None
    j, analytic, numeric = max(wrong, key=lambda w: np.nan_to_num(abs(w[1] - w[2]), nan=np.inf))
    index = tuple(map(int, np.unravel_index(j, x.shape)))
    sizes = len(wrong), x.size - sum(len(entries) for entries, _ in sets), x.size
    label, nearby, ratio = point.subject.label(name), around is not None, common_ratio(wrong)
    return FAILED, Entry(label, index, analytic, numeric, *sizes, nearby, ratio)


def on_several_kinks(point: Point, name: str, around: Array | None, j: int) -> bool:
    """Return whether several kinks at an entry explain its value.

    It may be that of a neighbouring piece that the line along the entry does not touch. Or the
    gradients nearby take three values or more; the value here may then leave their range, by twice
    its width.
    """
    if around is None:
        return False
    values, analytic = np.sort(around.reshape(len(around), -1)[:, j]), point.gradients[name].flat[j]
    jumps = int((np.diff(values) > NEAR * np.abs(values).max()).sum())
    if jumps >= 2 and abs(analytic - values.mean()) <= 2.5 * float(np.ptp(values)):
        return True
    return touches_a_piece(point, name, j)


def touches_a_piece(point: Point, name: str, j: int) -> bool:
    """Return whether a piece that touches the point has its value of an entry.

    Where many kinks meet, points at random miss most pieces. So some entries of a point nearby are
    moved anew, and the move is kept if no fewer entries of the gradient are those of the point.
    """
    rng, distance = point.settings.rng, point.settings.precision.distances[-1]
    here, best, most = point.gradients[name], point, 0
    for k in range(SEARCHES):
        other, share = point.nearby(distance), rng.random()
        if k % 100 == 0:  # begin anew
            best, most = other, 0
        tensors = {
            k: np.where(rng.random(v.shape) < share, other.tensors[k], v)
            for k, v in best.tensors.items()
        }
        found = point.moved_to(tensors)
        same = np.abs(found.gradients[name] - here) <= NEAR * np.abs(here).max()
        if same.flat[j]:
            return True
        if same.sum() >= most:
            best, most = found, int(same.sum())
    return False


def common_ratio(wrong: list[tuple[int, float, float]]) -> float | None:
    """Return analytic / numeric if it is the same for all entries, and these are three or more."""
    ratios = np.array([a / n if n else np.nan for _, a, n in wrong])
    middle = float(np.median(ratios))
    if len(ratios) < 3 or not np.isfinite(middle):
        return None
    return middle if (np.abs(ratios - middle) < 1e-3 * abs(middle)).all() else None
