"""Ridge regression: beside other formulas, singular problems, dtypes, bad input."""

import warnings

import numpy as np
import pytest
from homework.ridge import ridge
from hypothesis import given
from hypothesis import strategies as st


@given(
    n=st.integers(1, 12),
    features=st.integers(1, 12),
    rank=st.integers(0, 12),
    outputs=st.sampled_from([None, 1, 3]),
    l2=st.sampled_from([0, 1e-300, 1e-4, 1.0, 1e300]),
    seed=st.integers(0, 2**31),
)
def test_solves_the_normal_equations_with_the_smallest_norm(n, features, rank, outputs, l2, seed):
    rng = np.random.default_rng(seed)
    rank = min(rank, n, features)
    x = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, features))
    y = rng.normal(size=n if outputs is None else (n, outputs))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        w = ridge(x, y, l2)
    assert w.shape == (features, *y.shape[1:])
    if l2 in (0, 1e-300):
        expected = np.linalg.pinv(x, rcond=max(x.shape) * 2.3e-16) @ y
    else:
        expected = x.T @ np.linalg.solve(x @ x.T / l2 + np.eye(n), y) / l2
    scale = max(np.abs(expected).max(), 1e-300)
    np.testing.assert_allclose(w / scale, expected / scale, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-18, 1, 1e18])
def test_dtype_and_scale(dtype, scale):
    """In float32 the squares of these singular values would overflow or underflow."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(30, 4)), rng.normal(size=4)
    found = ridge((scale * x).astype(dtype), (scale * x @ w).astype(dtype), 0)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, w, rtol=1e-4 if dtype == "float32" else 1e-12)


def test_a_formula_with_an_explicit_inverse_is_worse():
    """The check above would see the loss of digits of the normal equations."""
    x = np.vander(np.linspace(0, 1, 30), 10)
    w = np.ones(10)
    ours = np.abs(ridge(x, x @ w, 0) - w).max()
    normal = np.abs(np.linalg.inv(x.T @ x) @ (x.T @ (x @ w)) - w).max()
    assert ours < 1e-6 < normal


@pytest.mark.parametrize(
    ("x", "y", "l2", "error", "message"),
    [
        (np.eye(3), np.ones(2), 0, ValueError, r"got x \(3, 3\) and y \(2,\)"),
        (np.zeros((0, 3)), np.ones(0), 0, ValueError, "not empty"),
        (np.eye(3), np.ones(3), -1, ValueError, "l2 to be a finite number >= 0, got -1"),
        (np.eye(3, dtype=int), np.ones(3), 0, TypeError, "float32 or float64, got int64"),
        (np.eye(3), np.array([1, np.nan, 0]), 0, ValueError, "finite x and y"),
        (np.eye(3), np.array(["a"] * 3), 0, TypeError, "y of real numbers"),
    ],
)
def test_bad_input(x, y, l2, error, message):
    with pytest.raises(error, match=message):
        ridge(x, y, l2)
