"""The losses of Question 1: the perceptron loss and the binary logistic loss."""

import math

import numeric
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import BinaryLogistic, CrossEntropy, Perceptron


def test_perceptron_by_hand():
    z = np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 0.0], [5.0, 5.0, 0.0]])
    value, dz = Perceptron("sum")(z, np.array([2, 1, 0]))
    assert value == 1.0
    # A tie goes to the first index: a mistake without a loss if the label comes second.
    np.testing.assert_array_equal(dz, [[0, 1, -1], [1, -1, 0], [0, 0, 0]])
    mean, dmean = Perceptron()(z, np.array([2, 1, 0]))
    assert mean == pytest.approx(1 / 3)
    np.testing.assert_allclose(dmean, dz / 3)


@given(n=st.integers(1, 6), k=st.integers(2, 6), seed=st.integers(0, 2**16))
def test_perceptron_value_and_gradient_belong_together(n, k, seed):
    rng = np.random.default_rng(seed)
    z, y = rng.normal(size=(n, k)), rng.integers(0, k, n)
    dz = Perceptron()(z, y)[1]
    expected = numeric.gradient(lambda: Perceptron()(z, y)[0], z, 1e-9)
    assert numeric.agree(dz, expected, 1e-5)
    assert numeric.agree(dz, 2 * expected, 1e-5) == (not dz.any())


@given(n=st.integers(1, 6), seed=st.integers(0, 2**16), reduction=st.sampled_from(["mean", "sum"]))
def test_binary_logistic_derivatives(n, seed, reduction):
    rng = np.random.default_rng(seed)
    z, y = 3 * rng.normal(size=(n, 1)), rng.choice([-1, 1], n)
    loss = BinaryLogistic(reduction)
    dz = loss(z, y)[1]
    first = numeric.gradient(lambda: loss(z, y)[0], z)
    second = numeric.gradient(lambda: loss(z, y)[1].sum(), z)
    assert numeric.agree(dz, first)
    assert not numeric.agree(-dz, first)
    assert numeric.agree(loss.second_derivative(z, y), second)
    assert not numeric.agree(1.01 * loss.second_derivative(z, y), second)


@given(n=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_binary_logistic_is_softmax_of_two(n, seed):
    rng = np.random.default_rng(seed)
    z, y = 3 * rng.normal(size=(n, 1)), rng.choice([-1, 1], n)
    value, dz = BinaryLogistic()(z, y)
    other, dother = CrossEntropy()(np.hstack([np.zeros_like(z), z]), (y + 1) // 2)
    assert value == pytest.approx(other, rel=1e-12)
    np.testing.assert_allclose(dz[:, 0], dother[:, 1], rtol=1e-12)


def test_binary_logistic_at_large_margins():
    z = np.array([[1000.0], [-1000.0]])
    value, dz = BinaryLogistic("sum")(z, np.array([-1.0, -1.0]))
    assert value == 1000
    np.testing.assert_array_equal(dz, [[1], [0]])
    assert BinaryLogistic("sum")(np.zeros((1, 1)), np.array([1]))[0] == pytest.approx(math.log(2))
    assert (BinaryLogistic().second_derivative(z, np.array([1, 1])) == 0).all()


@pytest.mark.parametrize("loss", [Perceptron(), BinaryLogistic()])
def test_float32_stays_float32(loss):
    z = np.ones((3, 1), np.float32)
    y = np.zeros(3, int) if isinstance(loss, Perceptron) else np.ones(3, int)
    assert loss(z, y)[1].dtype == np.float32
    assert isinstance(loss(z, y)[0], float)
    assert BinaryLogistic().second_derivative(z, np.ones(3)).dtype == np.float32


def test_labels_of_the_wrong_kind():
    z = np.zeros((2, 1))
    for y, error, message in (
        (np.array([0, 1]), ValueError, r"expected labels -1 and \+1, got y\[0\] = 0"),
        (np.array([1.0, 0.5]), ValueError, r"expected labels -1 and \+1, got y\[1\] = 0.5"),
        (np.array([True, False]), TypeError, "got dtype bool"),
        (np.array([1, 1, 1]), ValueError, r"expected y of the outputs' shape \(2, 1\), got \(3,\)"),
    ):
        with pytest.raises(error, match=message):
            BinaryLogistic()(z, y)
    with pytest.raises(ValueError, match=r"logits of shape \(n, 1\), got \(2, 2\)"):
        BinaryLogistic()(np.zeros((2, 2)), np.array([1, 1]))
    with pytest.raises(TypeError, match="Perceptron: expected integer labels, got dtype float64"):
        Perceptron()(np.zeros((2, 2)), np.zeros(2))
    with pytest.raises(ValueError, match=r"Perceptron: expected y of shape \(n,\), got \(2, 2\)"):
        Perceptron()(np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"Perceptron: expected labels in 0\.\.1, got y\[1\] = 2"):
        Perceptron()(np.zeros((2, 2)), np.array([0, 2]))


@pytest.mark.parametrize("k", [1, 2, 26, 127, 128, 600])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_perceptron_where_the_largest_logit_is_not_finite(k, dtype, reduction):
    inf, nan = np.inf, np.nan
    rows = [np.full(k, value) for value in (-inf, inf, nan)]
    for i in {0, k - 1}:
        rows += [np.where(np.arange(k) == i, value, 1.0) for value in (inf, nan)]
    for row in rows:
        for label in {0, k - 1}:
            z = np.array([np.zeros(k), row], dtype)
            assert math.isnan(Perceptron(reduction)(z, np.array([0, label]))[0])
    masked = np.array([[-inf] * (k - 1) + [2.0]], dtype)
    value, dz = Perceptron(reduction)(masked, np.array([k - 1]))
    assert (value, dz.any()) == (0, False)
    if k > 1:
        value, dz = Perceptron(reduction)(masked, np.array([0]))
        assert value == inf
        assert (dz[0, 0], dz[0, -1]) == (-1, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("k", [2, 128])
def test_perceptron_of_logits_far_apart(k, dtype):
    largest = float(np.finfo(dtype).max)
    z = np.zeros((2, k), dtype)
    z[:, 0], z[:, 1] = largest, -largest
    assert Perceptron()(z, np.array([0, 0]))[0] == 0
    value, dz = Perceptron("sum")(z, np.array([1, 0]))
    assert value == 2 * largest  # inf for float64
    np.testing.assert_array_equal(dz[0, :2], [1, -1])


def test_perceptron_of_logits_in_any_layout():
    z = np.random.default_rng(0).normal(size=(6, 5))
    y = np.arange(6) % 5
    expected = Perceptron()(z, y)
    for other in (np.asfortranarray(z), np.repeat(z, 2, axis=1)[:, ::2], z[::-1].copy()[::-1]):
        value, dz = Perceptron()(other, y)
        assert value == expected[0]
        np.testing.assert_array_equal(dz, expected[1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_logistic_of_logits_that_are_not_finite(dtype):
    loss, largest = BinaryLogistic("sum"), float(np.finfo(dtype).max)
    for z, y, expected in (
        (np.inf, 1, 0), (np.inf, -1, np.inf), (-np.inf, -1, 0), (-np.inf, 1, np.inf),
        (np.nan, 1, np.nan), (np.nan, -1, np.nan), (largest, 1, 0), (largest, -1, largest),
    ):  # fmt: skip
        np.testing.assert_equal(loss(np.array([[z]], dtype), np.array([y]))[0], expected)
