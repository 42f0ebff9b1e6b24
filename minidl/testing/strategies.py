"""Hypothesis strategies for tests of layers, losses and maps; needs the extra ``testing``.

Batches for gradient checks are filled from a seed: entries that Hypothesis draws itself shrink onto
kinks, which ``logits`` is for. A size of None is drawn: ``rows`` up to 6, other sizes up to 8.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from minidl.checks import Array
from minidl.testing.subjects import LAYOUTS, Layout

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as npst
    from hypothesis.strategies import DrawFn, SearchStrategy
except ImportError as error:
    raise ImportError(
        f"minidl.testing.strategies needs hypothesis: pip install 'minidl[testing]' ({error})"
    ) from error

Size = int | None


def layouts() -> SearchStrategy[Layout]:
    """Draw one of ``minidl.testing.subjects.LAYOUTS``, as a function of an array."""
    return st.sampled_from(sorted(LAYOUTS)).map(LAYOUTS.__getitem__)


@st.composite
def batches(
    draw: DrawFn,
    features: Size = None,
    *,
    rows: Size = None,
    dtype: DTypeLike = np.float64,
    layout: SearchStrategy[Layout] | None = None,
) -> Array:
    """Draw a batch ``(rows, features)``, normal or of small whole numbers with a row of zeros."""
    shape = draw(_size(rows, 6)), draw(_size(features, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    whole = draw(st.booleans())
    x = (rng.integers(-2, 3, shape) if whole else rng.standard_normal(shape)).astype(dtype)
    if whole and len(x) > 2:
        x[0], x[1] = 0, x[2]
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
    """Draw logits ``(rows, classes)`` entry by entry: ties, one-hot rows, extreme scales.

    With ``neg_inf``, entries may be ``-inf``; at least one of each row is finite.
    """
    kind = np.dtype(dtype)
    shape = draw(_size(rows, 6)), draw(_size(classes, 8))
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
    """Draw a class for each row: integers ``(rows,)`` in ``0..classes-1``."""
    return npst.arrays(np.int64, (rows,), elements=st.integers(0, classes - 1))


def _size(size: Size, most: int) -> SearchStrategy[int]:
    return st.integers(1, most) if size is None else st.just(size)
