"""Weights of examples in every loss: laws, gradients, PyTorch, ends, errors."""

import math

import numeric
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidl.losses import CrossEntropy, ReducedLoss, SquaredError, hessian
from minidl.parity.formulas import criterion
from minidl.testing.catalogue import LOSSES
from minidl.testing.checks import check_loss

every_loss = pytest.mark.parametrize("name", LOSSES)
examples = given(n=st.integers(1, 6), seed=st.integers(0, 2**31))


def case(name, n, seed, dtype="float64"):
    entry, rng = LOSSES[name], np.random.default_rng(seed)
    z = (2 * rng.standard_normal((n, entry.outputs or 4))).astype(dtype)
    return entry.loss, z, entry.targets(rng, z), rng


TWICE = [name for name, e in LOSSES.items() if hasattr(e.loss, "hessian_vector_product")]


@every_loss
@examples
def test_a_weight_counts_as_the_example_repeated(name, n, seed):
    loss, z, y, rng = case(name, n, seed)
    weight = rng.integers(0, 4, n)
    weight[0] += 1
    value, dz = loss(z, y, weight)
    repeated, drepeated = loss(np.repeat(z, weight, axis=0), np.repeat(y, weight, axis=0))
    assert value == pytest.approx(repeated, rel=1e-12, abs=1e-14)
    sums = np.array([part.sum(axis=0) for part in np.split(drepeated, np.cumsum(weight)[:-1])])
    np.testing.assert_allclose(dz, sums, rtol=1e-12, atol=1e-14)
    assert type(value) is float


@every_loss
@examples
def test_equal_weights_are_none(name, n, seed):
    loss, z, y, _ = case(name, n, seed)
    value, dz = loss(z, y)
    ones, dones = loss(z, y, np.ones(n, int))
    assert ones == pytest.approx(value, rel=1e-14)
    np.testing.assert_array_equal(dones, dz)
    if loss.reduction == "mean":
        for c in (1e-300, 0.1, 1e308):
            np.testing.assert_array_equal(loss(z, y, np.full(n, c))[1], dz)


@every_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradient(name, dtype):
    loss, z, y, rng = case(name, 7, 6, dtype)
    weight = rng.uniform(0, 3, 7) * (np.arange(7) != 2)
    check_loss(lambda logits, y: loss(logits, y, weight), z, y).raise_if_failed()
    assert loss(z, y, weight)[1].dtype == dtype


@every_loss
def test_equal_to_pytorch(name):
    loss, z, y, rng = case(name, 9, 1)
    weight = rng.uniform(0, 3, 9)
    t, targets = torch.from_numpy(z).requires_grad_(), torch.from_numpy(y)
    theirs = criterion(loss)(t, targets, torch.from_numpy(weight))
    theirs.backward()
    value, dz = loss(z, y, weight)
    assert value == pytest.approx(theirs.item(), rel=1e-12, abs=1e-12)
    if name != "Perceptron":  # a subgradient is chosen at a tie; elsewhere see test_gradient
        np.testing.assert_allclose(dz, t.grad.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TWICE)
def test_hessian(name):
    loss, z, y, rng = case(name, 5, 2)
    weight = np.array([0, 1, 2, 0.5, 3])
    H = hessian(loss, z, y, weight)
    v = rng.standard_normal(z.shape)
    differences = (loss(z + 1e-6 * v, y, weight)[1] - loss(z - 1e-6 * v, y, weight)[1]) / 2e-6
    np.testing.assert_allclose(loss.hessian_vector_product(z, y, v, weight), differences, atol=1e-7)
    np.testing.assert_allclose(np.einsum("nij,nj->ni", H, v), differences, atol=1e-7)
    assert not numeric.agree(loss.hessian_vector_product(z, y, v), differences, 1e-3)


@every_loss
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_example_of_weight_0_is_absent_whatever_it_is(name, bad):
    loss, z, y, _ = case(name, 4, 3)
    expected = loss(np.delete(z, 2, axis=0), np.delete(y, 2, axis=0))
    z[2] = bad
    with np.errstate(all="ignore"):
        value, dz = loss(z, y, np.array([1, 1, 0, 1]))
    assert value == pytest.approx(expected[0], rel=1e-14)
    np.testing.assert_array_equal(dz[2], 0)
    np.testing.assert_allclose(np.delete(dz, 2, axis=0), expected[1], rtol=1e-14)


@every_loss
def test_all_weights_0_and_no_examples(name):
    loss, z, y, _ = case(name, 4, 3)
    value, dz = loss(z, y, np.zeros(4))
    assert (value, dz.any()) == (0, False)
    value, dz = loss(z[:0], y[:0], np.zeros(0))
    assert (value, dz.shape) == (0, (0, z.shape[1]))


@every_loss
@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        ([1, 2], ValueError, r"expected weight of shape \(3,\), got \(2,\)"),
        ([[1], [2], [3]], ValueError, r"expected weight of shape \(3,\), got \(3, 1\)"),
        ([1, 2, -1], ValueError, r"finite weights that are not negative, got weight\[2\] = -1"),
        ([1, math.inf, 1], ValueError, r"got weight\[1\] = inf"),
        ([math.nan, 1, 1], ValueError, r"got weight\[0\] = nan"),
        (["a", "b", "c"], TypeError, "expected weight of numbers, got dtype <U1"),
    ],
)
def test_errors(name, weight, error, message):
    loss, z, y, _ = case(name, 3, 4)
    with pytest.raises(error, match=f"^{type(loss).__name__}: .*{message}"):
        loss(z, y, np.array(weight))


def test_logits_of_integers_are_refused():
    with pytest.raises(
        TypeError, match="SquaredError: expected logits of dtype float32 or float64, got int64"
    ):
        SquaredError()(np.zeros((2, 2), int), np.zeros((2, 2)))


def test_far_apart_float32_logits_with_weights():
    z = np.array([[3e38, -3e38], [0, 0]], np.float32)
    value, _ = CrossEntropy()(z, np.array([1, 0]), np.array([1, 3]))
    assert value == pytest.approx(6e38 / 4, rel=1e-6)
    assert CrossEntropy()(z, np.array([1, 0]), np.array([0, 3]))[0] == pytest.approx(math.log(2))


def test_a_loss_of_ones_own_inherits_weights():
    class LogSquaredError(ReducedLoss):
        def per_example(self, logits, y):
            error = logits - np.log(y)
            return np.square(error) / 2, error

    z, y = np.zeros((2, 1)), np.array([[math.e], [math.e**3]])
    assert LogSquaredError()(z, y, np.array([3, 1]))[0] == pytest.approx((3 + 9) / 8)
    assert LogSquaredError("sum")(z, y)[0] == pytest.approx(5)
    with pytest.raises(TypeError, match="abstract"):
        ReducedLoss()
