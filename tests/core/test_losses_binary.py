"""Binary cross-entropy of several labels: PyTorch, far logits, targets of every kind, errors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidl import BinaryCrossEntropy, BinaryLogistic


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("soft", [False, True])
def test_equal_to_pytorch(soft, reduction):
    rng = np.random.default_rng(0)
    z, y = 4 * rng.normal(size=(30, 5)), rng.uniform(size=(30, 5))
    y = y if soft else y.round()
    t = torch.from_numpy(z).requires_grad_()
    expected = torch.nn.BCEWithLogitsLoss(reduction=reduction)(t, torch.from_numpy(y))
    expected.backward()
    value, dz = BinaryCrossEntropy(reduction)(z, y)
    assert value == pytest.approx(expected.item(), rel=1e-13)
    np.testing.assert_allclose(dz, t.grad.numpy(), rtol=1e-12, atol=1e-16)


@given(n=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_of_one_label_is_the_logistic_loss(n, seed):
    rng = np.random.default_rng(seed)
    z, y = 30 * rng.normal(size=(n, 1)), rng.integers(0, 2, n)
    (value, dz), (other, dother) = BinaryCrossEntropy()(z, y), BinaryLogistic()(z, 2 * y - 1)
    assert value == pytest.approx(other, rel=1e-13)
    np.testing.assert_allclose(dz, dother, rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradient_of_confident_logits_is_exact(dtype):
    z = np.array([[20, 20, -20, -20]], dtype)
    _, dz = BinaryCrossEntropy("sum")(z, np.array([[1, 0, 1, 0]]))
    small = 1 / (1 + math.exp(20))
    np.testing.assert_allclose(dz, [[-small, 1 - small, small - 1, small]], rtol=2e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_and_infinite_logits(dtype):
    loss, largest, inf = BinaryCrossEntropy("sum"), float(np.finfo(dtype).max), np.inf
    for z, y, value, slope in (
        (inf, 1, 0, 0), (inf, 0, inf, 1), (-inf, 0, 0, 0), (-inf, 1, inf, -1),
        (largest, 1, 0, 0), (largest, 0, largest, 1), (-largest, 0.5, largest / 2, -0.5),
        (0, 0.25, math.log(2), 0.25),
    ):  # fmt: skip
        got, dz = loss(np.array([[z]], dtype), np.array([y]))
        assert got == pytest.approx(value, rel=1e-6)
        assert (dz.dtype, dz.item()) == (dtype, slope)
    for y in (0, 1, 0.5):
        assert math.isnan(loss(np.array([[np.nan]], dtype), np.array([y]))[0])


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", ">i8", "f2", "f4", ">f8"])
def test_targets_of_every_kind(dtype):
    z, y = np.linspace(-3, 3, 12, dtype=np.float32).reshape(4, 3), np.eye(4)[:, :3]
    expected = BinaryCrossEntropy()(z, y)
    value, dz = BinaryCrossEntropy()(z, y.astype(dtype))
    assert value == expected[0]
    np.testing.assert_array_equal(dz, expected[1])
    column = BinaryCrossEntropy()(z[:, :1], y[:, 0].astype(dtype))
    assert column[0] == BinaryCrossEntropy()(z[:, :1], y[:, :1])[0]


def test_the_value_of_an_example_is_the_mean_or_sum_of_its_labels():
    z, y, weight = np.array([[1.0, -2, 0.5], [0, 3, -1]]), np.array([[1, 0, 0], [1, 1, 1]]), [1, 3]
    rows = [BinaryCrossEntropy("sum")(z[[i]], y[[i]])[0] for i in (0, 1)]
    assert BinaryCrossEntropy()(z, y)[0] == pytest.approx(sum(rows) / 6)
    assert BinaryCrossEntropy()(z, y, weight)[0] == pytest.approx((rows[0] + 3 * rows[1]) / 3 / 4)
    assert BinaryCrossEntropy("sum")(z, y, weight)[0] == pytest.approx(rows[0] + 3 * rows[1])


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([[0, 1, 2], [0, 0, 0]], ValueError, r"y in \[0, 1\], got y\[0, 2\] = 2; BinaryLogistic takes -1 and \+1$"),
        ([[0, 1, 1], [0, -1, 0]], ValueError, r"got y\[1, 1\] = -1; BinaryLogistic takes -1 and \+1$"),
        ([[0, 1, 1], [0, math.nan, 0]], ValueError, r"got y\[1, 1\] = nan; BinaryLogistic takes -1 and \+1$"),
        ([0, 1], ValueError, r"outputs' shape \(2, 3\), got \(2,\); CrossEntropy takes one class of"),
        ([[0, 1], [1, 0]], ValueError, r"y of the outputs' shape \(2, 3\), got \(2, 2\)$"),
        ([["a", "b", "c"]] * 2, TypeError, r"y in \[0, 1\], got dtype <U1"),
    ],
)  # fmt: skip
def test_other_targets_are_refused_by_name(y, error, message):
    with pytest.raises(error, match=f"^BinaryCrossEntropy: expected .*{message}"):
        BinaryCrossEntropy()(np.zeros((2, 3)), np.array(y))
    with pytest.raises(ValueError, match=r"logits of shape \(n, K\), K > 0, got \(2, 0\)"):
        BinaryCrossEntropy()(np.zeros((2, 0)), np.zeros((2, 0)))


def test_one_class_for_each_row_gets_a_hint():
    z, hint = np.zeros((3, 4)), "; CrossEntropy takes one class of several"
    shapes = r"expected y of the outputs' shape \(3, 4\), got "
    with pytest.raises(ValueError, match=rf"{shapes}\(3,\){hint}$"):
        BinaryCrossEntropy()(z, np.zeros(3, int))
    with pytest.raises(ValueError, match=rf"{shapes}\(3, 5\)$"):
        BinaryCrossEntropy()(z, np.zeros((3, 5), int))
