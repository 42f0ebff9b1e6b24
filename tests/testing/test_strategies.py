"""The strategies draw what their docstrings promise, and work in a user's own test."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from minidl.testing import strategies
from minidl.testing.subjects import LAYOUTS

FIRST = settings(max_examples=2000, deadline=None, phases=[Phase.generate])
"""The first example is enough: it need not be made smaller."""
DTYPES = st.sampled_from([np.float32, np.float64])


@given(st.data(), DTYPES)
def test_batches(data, dtype):
    x = data.draw(strategies.batches(features=4, rows=3, dtype=dtype))
    assert x.dtype == dtype
    assert x.shape in {(3, 4), (0, 4)}
    assert np.isfinite(x).all()


@given(strategies.batches(rows=4, layout=st.just(np.asarray)))
def test_batches_of_whole_numbers_begin_with_zeros_and_equal_rows(x):
    if (x == np.round(x)).all():
        np.testing.assert_array_equal(x[0], 0)
        np.testing.assert_array_equal(x[1], x[2])


@given(strategies.batches(), strategies.layouts())
def test_layouts_keep_the_values(x, layout):
    laid = layout(x)
    assert layout in LAYOUTS.values()
    assert laid.dtype == x.dtype
    np.testing.assert_array_equal(laid, x[: len(laid)])


@pytest.mark.parametrize(
    "wanted",
    [
        lambda x: len(x) == 0,
        lambda x: x.size > 3 and x.strides[0] < 0,
        lambda x: x.shape > (1, 1) and not x.flags.c_contiguous and x.flags.f_contiguous,
        lambda x: x.size > 3 and not x.any(axis=1).all(),
    ],
    ids=["empty", "reversed", "Fortran", "a row of zeros"],
)
def test_batches_find(wanted):
    find(strategies.batches(), wanted, settings=FIRST)


@given(st.data(), DTYPES, st.booleans())
def test_logits(data, dtype, neg_inf):
    z = data.draw(strategies.logits(5, rows=2, dtype=dtype, neg_inf=neg_inf))
    assert (z.shape, z.dtype) == ((2, 5), dtype)
    assert np.isfinite(z).any(axis=1).all()
    assert (z < np.inf).all()
    assert neg_inf or np.isfinite(z).all()


@pytest.mark.parametrize(
    "wanted",
    [
        lambda z: z.shape[1] > 2 and np.ptp(z[0]) > 0 and (z[0] == z[0].max()).sum() > 1,
        lambda z: z.shape[1] > 2 and sorted(set(z[0])) == [0, 30],
        lambda z: np.abs(z).max() > 1e4,
        lambda z: 0 < np.abs(z).max() < 1e-5,
        lambda z: np.isneginf(z).any(),
    ],
    ids=["ties", "one-hot", "huge", "tiny", "-inf"],
)
def test_logits_find(wanted):
    find(strategies.logits(neg_inf=True), wanted, settings=FIRST)


@given(strategies.labels(6, 3))
def test_labels(y):
    assert y.shape == (6,)
    assert set(y) <= {0, 1, 2}


def test_without_hypothesis():
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "import minidl.testing, numpy as np\n"
        "assert minidl.testing.checks.check_layer(minidl.testing.cached.Cached.__mro__ and __import__('minidl').Tanh(), np.ones((2, 2)))\n"
        "try:\n    import minidl.testing.strategies\nexcept ImportError as e:\n    print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "needs hypothesis: pip install 'minidl[testing]'" in done.stdout, done.stderr
