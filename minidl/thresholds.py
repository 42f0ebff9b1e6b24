"""Thresholds of sparse maps: the entries of a row above its threshold are its support.

The largest entry of each row is 0. The map gives its formula as ``threshold_of_sorted``, a
function from rows in descending order, (n, k), to their thresholds, (n, 1), and the ``power`` with
``sum (z - tau)_+^power = 1``. A row of NaN, which has none, may get any.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl.typing import Array


def row_thresholds(z: Array, threshold_of_sorted: Callable[[Array], Array], power: int) -> Array:
    """Return the thresholds (n, 1) of rows; long rows are sorted only in part.

    The largest entry is 0 and its probability at most 1, so the threshold is at least -1. It is
    also at least the threshold of any subset of the row, for instance of the maxima of 128
    groups of entries. Entries below such a bound are outside the support. If the entries above
    it are few, only these are sorted. (Compared with a partial sort of the 100 largest, on
    1,000 and 32,000 classes: three times as fast for small supports, equal for large ones.)
    """
    candidates = None
    if z.shape[1] >= 128:
        candidates = entries_above(z, -1)
        if candidates is None and (length := z.shape[1] // 128) > 3:
            maxima = z[:, : 128 * length].reshape(len(z), length, 128).max(axis=1)
            bound = thresholds_by_sorting(maxima, threshold_of_sorted)
            bound *= 1 + 1e-6  # lower, by more than its rounding error
            candidates = entries_above(z, bound.astype(z.dtype))
    candidates = z if candidates is None else candidates
    # The formula's error, in eps of float64, grows as K or K^2; float32 has digits to spare.
    long = z.dtype == np.float64 and z.shape[1] >= 128
    tau = thresholds_by_sorting(candidates, threshold_of_sorted, power if long else None)
    return tau.astype(z.dtype)


def thresholds_by_sorting(
    z: Array, threshold_of_sorted: Callable[[Array], Array], power: int | None = None
) -> Array:
    """Return the thresholds (n, 1) of rows, sorted in full; entries below -1 count as -1.

    With a ``power``, they are refined. The result is float64.
    """
    rows = max(1, 2**15 // z.shape[1])  # a block whose intermediate results fit in the cache
    blocks = []
    for i in range(0, max(len(z), 1), rows):
        s = np.sort(np.maximum(z[i : i + rows], -1), axis=-1)[:, ::-1]
        tau = threshold_of_sorted(s)
        blocks.append(tau if power is None else refined(s, tau, power))
    return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]


def refined(s: Array, tau: Array, power: int) -> Array:
    """Return float64 thresholds of rows in descending order, correct to some eps.

    ``tau`` comes from prefix sums of ``k`` terms, which lose ``k eps``, and from the difference of
    two of them, which loses ``k^2 eps``. Here Newton's method solves ``sum (s - tau)_+^power = 1``,
    a convex function, with pairwise sums over the support. A row's result does not depend on the
    other rows: a step that is not above the rounding error is not taken.
    """
    for _ in range(20):  # mostly 2
        inside = ~(s <= tau)  # a prefix of each row; the whole of a row of NaN
        counts = np.count_nonzero(inside, axis=1)
        starts = np.cumsum(counts) - counts
        excess = s[inside] - np.repeat(tau, counts)
        if power == 1:
            total, slope = np.add.reduceat(excess, starts), counts
        else:
            total, slope = (
                np.add.reduceat(np.square(excess), starts),
                2 * np.add.reduceat(excess, starts),
            )
        step = ((total - 1) / slope)[:, None]
        large = np.abs(step) > 4 * np.finfo(np.float64).eps * np.abs(tau)
        if not large.any():
            break
        tau = np.where(large, tau + step, tau)
    return tau


def entries_above(z: Array, bound: Array | float) -> Array | None:
    """Return the entries of each row above ``bound``, padded with -1.

    Returns None if they are more than a quarter of all entries.
    """
    inside = z > bound
    count = np.count_nonzero(inside)
    if 4 * count > z.size:
        return None
    flat = np.flatnonzero(inside)
    rows = flat // z.shape[1]
    counts = np.bincount(rows, minlength=len(z))
    columns = np.arange(count) - (np.cumsum(counts) - counts)[rows]
    entries = np.full((len(z), counts.max(initial=1)), -1, z.dtype)
    entries[rows, columns] = z.ravel()[flat]
    return entries
