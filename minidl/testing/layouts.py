"""The memory layouts that an array of the same values can come in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl.typing import Array

Layout = Callable[[Array], Array]


def contiguous(x: Array) -> Array:
    """C order."""
    return np.array(x, order="C")


def fortran(x: Array) -> Array:
    """Fortran order: the first axis runs fastest."""
    return np.array(x, order="F")


def strided(x: Array) -> Array:
    """Every other entry of each axis of a larger array, whose other entries are NaN."""
    larger = np.full([2 * n for n in x.shape], np.nan, x.dtype)
    view = larger[tuple(slice(None, None, 2) for _ in x.shape)]
    view[...] = x
    return view


def reversed_strides(x: Array) -> Array:
    """Negative strides along every axis."""
    backwards = tuple(slice(None, None, -1) for _ in x.shape)
    return np.array(x[backwards], order="C")[backwards]


def empty(x: Array) -> Array:
    """A batch of no examples."""
    return x[:0]


LAYOUTS: dict[str, Layout] = {
    "C": contiguous,
    "Fortran": fortran,
    "strided": strided,
    "reversed": reversed_strides,
    "empty": empty,
}
