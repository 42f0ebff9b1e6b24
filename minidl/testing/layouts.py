"""Memory layouts of arrays: the same values, which a backward pass must treat the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl.checks import Array

Layout = Callable[[Array], Array]


def fortran(x: Array) -> Array:
    """Return a copy in Fortran order: the first axis varies fastest."""
    return np.array(x, order="F")


def strided(x: Array) -> Array:
    """Return every other entry of each axis of a larger array; the entries between are NaN."""
    larger = np.full([2 * n for n in x.shape], np.nan, x.dtype)
    view = larger[(slice(None, None, 2),) * x.ndim]
    view[...] = x
    return view


def reversed_strides(x: Array) -> Array:
    """Return a copy with negative strides along every axis."""
    backwards = (slice(None, None, -1),) * x.ndim
    return np.array(x[backwards], order="C")[backwards]


LAYOUTS: dict[str, Layout] = {
    "C": lambda x: np.array(x, order="C"),
    "Fortran": fortran,
    "strided": strided,
    "reversed": reversed_strides,
    "empty": lambda x: x[:0],  # a batch of no examples
}


def copy_with_strides(x: Array) -> Array:
    """Return a copy with the strides of ``x``, so that the caller's memory layout is checked."""
    if x.size == 0 or x.flags.c_contiguous:
        return x.copy()
    ends = [s * (n - 1) for s, n in zip(x.strides, x.shape, strict=True)]
    low, high = sum(min(e, 0) for e in ends), sum(max(e, 0) for e in ends)
    buffer = np.zeros(high - low + x.itemsize, np.uint8)
    copy: Array = np.ndarray(x.shape, x.dtype, buffer.data, -low, x.strides)
    copy[...] = x
    return copy
