"""Losses: laws, gradients by finite differences, equality with PyTorch, labels checked."""

import math

import numeric
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidl import CrossEntropy, SquaredError

LOGITS = hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.floats(-1e3, 1e3))  # fmt: skip


def labels_for(logits, seed=0):
    return np.random.default_rng(seed).integers(0, logits.shape[1], len(logits))


@given(logits=LOGITS, offset=st.floats(-1e4, 1e4))
def test_cross_entropy_laws(logits, offset):
    y = labels_for(logits)
    value, dlogits = CrossEntropy()(logits, y)
    assert value >= 0
    np.testing.assert_allclose(dlogits.sum(axis=1), 0, atol=1e-15)
    assert (np.delete(dlogits[0], y[0]) >= 0).all()
    assert dlogits[0, y[0]] <= 0
    shifted, dshifted = CrossEntropy()(logits + offset, y)
    assert shifted == pytest.approx(value, abs=1e-10)
    np.testing.assert_allclose(dshifted, dlogits, atol=1e-10)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss", [CrossEntropy, SquaredError])
@given(n=st.integers(1, 5), k=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_value_and_gradient_belong_together(loss, reduction, n, k, seed):
    rng = np.random.default_rng(seed)
    z = 2 * rng.normal(size=(n, k))
    y = rng.integers(0, k, n) if loss is CrossEntropy else rng.normal(size=(n, k))
    f = loss(reduction)
    dz = f(z, y)[1]
    expected = numeric.gradient(lambda: f(z, y)[0], z)
    assert numeric.agree(dz, expected)
    if k > 1:
        assert not numeric.agree(1.01 * dz, expected)
        assert not numeric.agree(-dz, expected)


@pytest.mark.parametrize("n", [1, 7, 64])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_equal_pytorch(reduction, n):
    rng = np.random.default_rng(n)
    z, y, target = 5 * rng.normal(size=(n, 26)), rng.integers(0, 26, n), rng.normal(size=(n, 26))
    factor = 26 / 2 if reduction == "mean" else 1 / 2  # PyTorch's has no half, and averages outputs
    for ours, theirs in (
        (CrossEntropy(reduction)(z, y), lambda t: torch.nn.functional.cross_entropy(t, torch.from_numpy(y), reduction=reduction)),
        (SquaredError(reduction)(z, target), lambda t: factor * torch.nn.functional.mse_loss(t, torch.from_numpy(target), reduction=reduction)),
    ):  # fmt: skip
        t = torch.from_numpy(z).requires_grad_()
        value = theirs(t)
        value.backward()
        assert ours[0] == pytest.approx(value.item(), rel=1e-12)
        np.testing.assert_allclose(ours[1], t.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits(dtype):
    inf = np.inf
    z = np.array([[0, -inf, 1], [1e4, 1e4, 1e4], [-1e4, 1e4, 0]], dtype)
    value, dz = CrossEntropy("sum")(z, np.array([2, 0, 1]))
    assert value == pytest.approx(math.log1p(math.exp(-1)) + math.log(3), rel=1e-6)
    assert dz.dtype == dtype
    assert np.isfinite(dz).all()
    assert dz[0, 1] == 0
    value, dz = CrossEntropy()(z[:1], np.array([1]))
    assert value == inf
    assert np.isfinite(dz).all()
    for row in ([-inf, -inf], [inf, 0], [np.nan, 0]):
        with np.errstate(invalid="ignore"):
            assert math.isnan(CrossEntropy()(np.array([row], dtype), np.array([0]))[0])


def test_squared_error_accepts_a_column_as_a_vector_but_never_broadcasts():
    z = np.array([[1.0], [2.0]])
    value, dz = SquaredError()(z, np.array([1.0, 4.0]))
    assert (value, dz.tolist()) == (1.0, [[0.0], [-1.0]])
    with pytest.raises(ValueError, match=r"outputs' shape \(2, 3\), got \(2,\)"):
        SquaredError()(np.zeros((2, 3)), np.zeros(2))


def test_zero_size_batch():
    value, dz = CrossEntropy()(np.zeros((0, 3)), np.zeros(0, int))
    assert (value, dz.shape) == (0, (0, 3))


@pytest.mark.parametrize("kind", ["int64", "int8", "uint8"])
def test_label_kinds(kind):
    y = np.array([0, 2, 1], kind)
    assert CrossEntropy()(np.eye(3), y)[0] == CrossEntropy()(np.eye(3), y.astype(int))[0]


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.array([0, 3, 1]), ValueError, r"labels in 0..2, got y\[1\] = 3"),
        (np.array([0, 1, -2]), ValueError, r"labels in 0..2, got y\[2\] = -2"),
        (np.array([0, 1]), ValueError, r"y of shape \(3,\) or \(3, 3\), got \(2,\)"),
        (np.array([0.0, 1, 2]), TypeError, r"integer labels, got dtype float64"),
    ],
)
def test_labels_are_checked(y, error, message):
    with pytest.raises(error, match=message):
        CrossEntropy()(np.zeros((3, 3)), y)


def test_other_errors():
    with pytest.raises(ValueError, match="reduction 'mean' or 'sum', got 'max'"):
        CrossEntropy("max")
    with pytest.raises(ValueError, match=r"logits of shape \(n, K\), K > 0, got \(3, 0\)"):
        CrossEntropy()(np.zeros((3, 0)), np.zeros(3, int))
