"""The search for the wrong entries of a tensor, by bisection.

A set of entries is right if both sides agree along a random direction in it; otherwise it is
halved, the set with the larger error first. One wrong entry among 262,144 takes 18 halvings.
The search ends when no wrong set is left, with ``ENOUGH`` wrong entries, or with the time.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl.testing.report import FAILED, Entry
from minidl.typing import Array

if TYPE_CHECKING:
    from minidl.testing.gradients import Linearization

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
