"""The search for the wrong entries of a tensor, by halving the set of its entries."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from minidl.checks import Array
from minidl.testing.differences import Point, error_along, judge, normalized, relative_direction
from minidl.testing.report import FAILED, Entry

ENOUGH = 100
"""The search ends with so many wrong entries."""

FEW = 3
"""Smaller sets are measured entry by entry."""


@dataclass(frozen=True)
class Outcome:
    """The result of a search.

    ``worst`` is the worst entry, if one is wrong. ``complete`` if no set was left. ``kinks`` if
    several kinks meet at an entry.
    """

    worst: Entry | None
    complete: bool
    kinks: bool


@dataclass(frozen=True, eq=False)
class Suspects:
    """A set of entries in which the two sides disagree, by ``error`` along a direction."""

    entries: Array
    error: float


def search(point: Point, name: str, around: Array | None) -> Outcome:
    """Return the worst entry among the wrong ones of a tensor.

    First the smallest set is halved, until one wrong entry is known; then the one with the
    largest error. ``around`` are gradients at points nearby, if the tensor's are right there.
    """
    x, settings, start = point.wide[name], point.settings, time.thread_time()
    sets = [Suspects(np.flatnonzero(np.isfinite(x)), math.inf)]
    wrong: list[tuple[int, float, float]] = []
    kinks = False
    while sets and len(wrong) < ENOUGH:
        limit = settings.seconds_left / 2 if wrong else settings.seconds_left
        if time.thread_time() - start > limit:
            break
        chosen = _next(sets, largest_error=bool(wrong))
        sets.remove(chosen)
        if len(chosen.entries) > FEW:
            sets += _wrong_halves(point, name, chosen)
            continue
        for j in map(int, chosen.entries):
            compared = judge(point, name, j)
            if compared.verdict != FAILED:
                continue
            if around is not None and on_several_kinks(compared.analytic, around, j):
                kinks = True
            else:
                wrong.append((j, compared.analytic, compared.numeric))
    settings.seconds_left -= time.thread_time() - start
    if not wrong:
        return Outcome(None, not sets, kinks)
    searched = x.size - sum(len(s.entries) for s in sets)
    j, analytic, numeric = max(wrong, key=_error)
    index = tuple(int(i) for i in np.unravel_index(j, x.shape))
    label, ratio = point.subject.label(name), common_ratio(wrong)
    sizes = len(wrong), searched, x.size
    entry = Entry(label, index, analytic, numeric, *sizes, around is not None, ratio)
    return Outcome(entry, not sets, kinks)


def _next(sets: list[Suspects], *, largest_error: bool) -> Suspects:
    if largest_error:
        return max(sets, key=lambda s: s.error)
    return min(sets, key=lambda s: (len(s.entries), -s.error))


def _wrong_halves(point: Point, name: str, whole: Suspects) -> list[Suspects]:
    """Return the halves of a set in which the two sides disagree along a random direction."""
    found, shape = [], point.wide[name].shape
    for half in np.array_split(whole.entries, 2):
        u = np.zeros(shape)
        u.flat[half] = relative_direction(point, name).flat[half]
        error = error_along(point, name, normalized(u))
        if error:
            found.append(Suspects(half, error))
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
