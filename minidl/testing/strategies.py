"""Hypothesis strategies for tests of layers, losses and maps; needs the extra ``testing``.

For gradient checks they draw sizes, layouts and a seed, and fill the arrays from the seed: the
entries of an array that Hypothesis drew itself shrink onto kinks. For algebraic laws, where
ties and zeros are what one wants, ``logits`` draws the entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minidl.layer import Layer, Sequential
from minidl.testing.layouts import LAYOUTS
from minidl.testing.networks import random_batch, random_layer, random_network
from minidl.typing import Array

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as npst
    from hypothesis.strategies import DrawFn, SearchStrategy
except ImportError as error:
    raise ImportError(
        f"minidl.testing.strategies needs hypothesis: pip install 'minidl[testing]' ({error})"
    ) from error

Size = int | None
"""A number, or None to draw one."""

SEEDS = st.integers(0, 2**32 - 1)


def layouts() -> SearchStrategy[Callable[[Array], Array]]:
    """A function that puts an array into a memory layout.

    C order, Fortran order, strided, negative strides, or a batch of no examples. Each is a
    function of ``minidl.testing.layouts``.
    """
    return st.sampled_from(sorted(LAYOUTS)).map(LAYOUTS.__getitem__)


@st.composite
def batches(
    draw: DrawFn,
    features: Size = None,
    *,
    rows: Size = None,
    dtype: DTypeLike = np.float64,
    layout: SearchStrategy[Callable[[Array], Array]] | None = None,
) -> Array:
    """A batch ``(rows, features)``, normal or of small whole numbers, in any memory layout.

    Parameters
    ----------
    features, rows : int, optional
        Drawn from 1 to 8 and 1 to 6 if not given. The layout may leave no rows.
    dtype : float32 or float64
    layout : strategy of functions
        By default ``layouts()``; ``st.just(np.ascontiguousarray)`` for plain arrays.
    """
    shape = _size(draw, rows, 6), _size(draw, features, 8)
    rng = np.random.default_rng(draw(SEEDS))
    x = random_batch(rng, *shape, dtype, kinks=draw(st.booleans()))
    return draw(layouts() if layout is None else layout)(x)


@st.composite
def logits(
    draw: DrawFn,
    classes: Size = None,
    *,
    rows: Size = None,
    dtype: DTypeLike = np.float64,
    neg_inf: bool = False,
) -> Array:
    """Logits ``(rows, classes)``, drawn entry by entry: ties, one-hot rows, extreme scales.

    Parameters
    ----------
    classes, rows : int, optional
        Drawn from 1 to 8 and 1 to 6 if not given.
    dtype : float32 or float64
    neg_inf : bool
        Whether entries may be ``-inf``; at least one of each row is finite.
    """
    kind = np.dtype(dtype)
    shape = _size(draw, rows, 6), _size(draw, classes, 8)
    elements = st.floats(-10, 10, width=32 if kind == np.float32 else 64, allow_subnormal=False)
    z = draw(npst.arrays(kind, shape, elements=elements))
    form = draw(st.sampled_from(["any", "tied", "one-hot", "huge", "tiny"]))
    if form == "tied":
        z = np.round(z / 4)
    elif form == "one-hot":
        z = 30 * np.eye(shape[1], dtype=kind)[z.argmax(axis=1)]
    else:
        z = z * {"any": 1, "huge": 1e4, "tiny": 1e-6}[form]
    if neg_inf:
        masked = draw(npst.arrays(bool, shape))
        masked[np.arange(shape[0]), draw(labels(*shape))] = False
        z[masked] = -np.inf
    return np.asarray(z, kind)


def labels(rows: int, classes: int) -> SearchStrategy[Array]:
    """A class for each row: integers ``(rows,)`` in ``0..classes-1``."""
    return npst.arrays(np.int64, (rows,), elements=st.integers(0, classes - 1))


@st.composite
def layers(draw: DrawFn, features: Size = None, *, dtype: DTypeLike = np.float64) -> Layer:
    """Any layer of minidl, with values, on batches ``(n, features)``.

    Parameters
    ----------
    features : int, optional
        Drawn from 1 to 8 if not given; give it to know which batches fit.
    dtype : float32 or float64
    """
    rng = np.random.default_rng(draw(SEEDS))
    return random_layer(rng, _size(draw, features, 8)).initialize(rng, dtype)


@st.composite
def networks(
    draw: DrawFn,
    features: Size = None,
    *,
    depth: int = 4,
    dtype: DTypeLike = np.float64,
    kinks: bool = True,
) -> Sequential:
    """A chain of random layers on batches ``(n, features)``.

    Parameters
    ----------
    features : int, optional
        Drawn from 1 to 8 if not given; give it to know which batches fit.
    depth : int
        At most so many layers.
    dtype : float32 or float64
    kinks : bool
        Whether weights may be small whole numbers and biases 0, so that units sit on kinks.
    """
    rng = np.random.default_rng(draw(SEEDS))
    features, on_kinks = _size(draw, features, 8), kinks and draw(st.booleans())
    return random_network(rng, features, depth=depth, dtype=dtype, kinks=on_kinks)


def _size(draw: DrawFn, size: Size, most: int) -> Any:
    return draw(st.integers(1, most)) if size is None else size
