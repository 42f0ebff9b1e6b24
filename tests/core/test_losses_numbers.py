"""Losses of signs, labels and numbers: kinks, best constants, far outputs, targets, errors."""

import math

import numeric
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidl import (
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryLogistic,
    CrossEntropy,
    Huber,
    Poisson,
    Quantile,
    SquaredError,
)
from minidl.evaluation import exp_r2, r2
from minidl.losses import hessian
from minidl.testing.checks import check_loss

# ---------------------------------------------------------------- signs


@given(n=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_binary_losses_are_each_other_and_softmax_of_two(n, seed):
    rng = np.random.default_rng(seed)
    z, y = 3 * rng.normal(size=(n, 1)), rng.choice([-1, 1], n)
    value, dz = BinaryLogistic()(z, y)
    other, dother = CrossEntropy()(np.hstack([np.zeros_like(z), z]), (y + 1) // 2)
    assert value == pytest.approx(other, rel=1e-12)
    # Softmax has p - 1, which is exact to the rounding of p alone.
    np.testing.assert_allclose(dz[:, 0], dother[:, 1], rtol=1e-12, atol=np.finfo(float).eps / n)
    value, dz = BinaryLogistic()(10 * z, y)
    other, dother = BinaryCrossEntropy()(10 * z, (y + 1) // 2)
    assert value == pytest.approx(other, rel=1e-13)
    np.testing.assert_allclose(dz, dother, rtol=1e-13)


def test_second_derivative_of_the_logistic_loss():
    for seed in range(8):
        rng = np.random.default_rng(seed)
        z, y = 3 * rng.normal(size=(4, 1)), rng.choice([-1, 1], 4)
        for loss in (BinaryLogistic(), BinaryLogistic("sum")):
            second = numeric.gradient(lambda f=loss: f(z, y)[1].sum(), z)
            assert numeric.agree(loss.second_derivative(z, y), second)
            assert not numeric.agree(1.01 * loss.second_derivative(z, y), second)
    assert BinaryLogistic().second_derivative(z.astype("float32"), y).dtype == np.float32


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logistic_loss_of_far_and_infinite_logits(dtype):
    loss, largest, inf = BinaryLogistic("sum"), float(np.finfo(dtype).max), np.inf
    for z, y, expected in (
        (inf, 1, 0), (inf, -1, inf), (-inf, -1, 0), (-inf, 1, inf),
        (np.nan, 1, np.nan), (np.nan, -1, np.nan), (largest, 1, 0), (largest, -1, largest),
    ):  # fmt: skip
        np.testing.assert_equal(loss(np.array([[z]], dtype), np.array([y]))[0], expected)
    z = np.array([[1000.0], [-1000.0]], dtype)
    value, dz = loss(z, np.array([-1.0, -1.0]))
    assert value == 1000
    np.testing.assert_array_equal(dz, [[1], [0]])
    assert loss(np.zeros((1, 1)), np.array([1]))[0] == pytest.approx(math.log(2))
    assert (BinaryLogistic().second_derivative(z, np.array([1, 1])) == 0).all()


def test_signs_of_the_wrong_kind():
    z = np.zeros((2, 1))
    for y, error, message in (
        (np.array([0, 1]), ValueError, r"expected labels -1 and \+1 .*, got y\[0\] = 0"),
        (np.array([1.0, 0.5]), ValueError, r"expected labels -1 and \+1 .*, got y\[1\] = 0.5"),
        (np.array([True, False]), TypeError, "got dtype bool"),
        (np.array([1, 1, 1]), ValueError, r"expected y of the outputs' shape \(2, 1\), got \(3,\)"),
    ):
        with pytest.raises(error, match=message):
            BinaryLogistic()(z, y)
    with pytest.raises(ValueError, match=r"logits of shape \(n, 1\), got \(2, 2\)"):
        BinaryLogistic()(np.zeros((2, 2)), np.array([1, 1]))


# ---------------------------------------------------------------- several labels


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_several_labels_are_those_of_pytorch(reduction):
    rng = np.random.default_rng(0)
    for soft in (False, True):
        z, y = 4 * rng.normal(size=(30, 5)), rng.uniform(size=(30, 5))
        y = y if soft else y.round()
        t = torch.from_numpy(z).requires_grad_()
        expected = torch.nn.BCEWithLogitsLoss(reduction=reduction)(t, torch.from_numpy(y))
        expected.backward()
        value, dz = BinaryCrossEntropy(reduction)(z, y)
        assert value == pytest.approx(expected.item(), rel=1e-13)
        np.testing.assert_allclose(dz, t.grad.numpy(), rtol=1e-12, atol=1e-16)


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


def test_the_value_of_an_example_is_the_mean_or_sum_of_its_labels():
    z, y, weight = np.array([[1.0, -2, 0.5], [0, 3, -1]]), np.array([[1, 0, 0], [1, 1, 1]]), [1, 3]
    rows = [BinaryCrossEntropy("sum")(z[[i]], y[[i]])[0] for i in (0, 1)]
    assert BinaryCrossEntropy()(z, y)[0] == pytest.approx(sum(rows) / 6)
    assert BinaryCrossEntropy()(z, y, weight)[0] == pytest.approx((rows[0] + 3 * rows[1]) / 3 / 4)
    assert BinaryCrossEntropy("sum")(z, y, weight)[0] == pytest.approx(rows[0] + 3 * rows[1])


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([[0, 1, 2], [3, 0, 0]], ValueError, r"y in \[0, 1\] \(BinaryLogistic takes -1 and \+1\), got y\[0, 2\] = 2$"),
        ([[0, 1, 1], [0, -1, 0]], ValueError, r"\(BinaryLogistic takes -1 and \+1\), got y\[1, 1\] = -1$"),
        ([[0, 1, 1], [0, math.nan, 0]], ValueError, r"\(BinaryLogistic takes -1 and \+1\), got y\[1, 1\] = nan$"),
        ([0, 1], ValueError, r"outputs' shape \(2, 3\), got \(2,\)$"),
        ([[0, 1], [1, 0]], ValueError, r"y of the outputs' shape \(2, 3\), got \(2, 2\)$"),
        ([["a", "b", "c"]] * 2, TypeError, r"y in \[0, 1\] .*, got dtype <U1"),
    ],
)  # fmt: skip
def test_other_labels_are_refused_by_name(y, error, message):
    with pytest.raises(error, match=f"^BinaryCrossEntropy: expected .*{message}"):
        BinaryCrossEntropy()(np.zeros((2, 3)), np.array(y))
    with pytest.raises(ValueError, match=r"logits of shape \(n, K\), K > 0, got \(2, 0\)"):
        BinaryCrossEntropy()(np.zeros((2, 0)), np.zeros((2, 0)))


# ---------------------------------------------------------------- numbers


def test_squared_error_accepts_a_column_as_a_vector_but_never_broadcasts():
    z = np.array([[1.0], [2.0]])
    value, dz = SquaredError()(z, np.array([1.0, 4.0]))
    assert (value, dz.tolist()) == (1.0, [[0.0], [-1.0]])
    with pytest.raises(ValueError, match=r"outputs' shape \(2, 3\), got \(2,\)"):
        SquaredError()(np.zeros((2, 3)), np.zeros(2))


def test_huber_is_quadratic_up_to_delta_and_linear_beyond():
    loss, z = Huber(2, "sum"), np.array([[-3.0, -2.0, 0.0, 1.9, 2.0, 2.1]])
    H = hessian(loss, z, np.zeros((1, 6)))
    np.testing.assert_array_equal(H[0], np.diag([0, 1, 1, 1, 1, 0]))
    away = z != np.round(z)
    difference = (loss(z + 1e-6, np.zeros((1, 6)))[1] - loss(z - 1e-6, np.zeros((1, 6)))[1]) / 2e-6
    np.testing.assert_allclose(difference[away], [1, 0], atol=1e-9)


@given(n=st.integers(1, 9), d=st.integers(1, 3), seed=st.integers(0, 2**31))
def test_limits_of_each_other(n, d, seed):
    rng = np.random.default_rng(seed)
    z, y = rng.normal(size=(n, d)), rng.normal(size=(n, d))
    for ours, other, factor in (
        (Quantile(0.5), AbsoluteError(), 0.5),
        (Huber(1e6), SquaredError(), 1),
        (Huber(1e-9), AbsoluteError(), 1e-9),
        (Quantile([0.3] * d) if d == 1 else Quantile(0.3), Quantile((0.3,)) if d == 1 else Quantile(0.3), 1),
    ):  # fmt: skip
        (value, dz), (expected, dexpected) = ours(z, y), other(z, y)
        assert value == pytest.approx(factor * expected, rel=1e-6)
        np.testing.assert_allclose(dz, factor * dexpected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kinks(dtype):
    z, y = np.array([[-1], [0], [1]], dtype), np.zeros(3)
    for loss, expected in (
        (AbsoluteError("sum"), [-1, 0, 1]),
        (Quantile(0.25, "sum"), [-0.25, 0, 0.75]),
        (Huber(1, "sum"), [-1, 0, 1]),
        (Huber(0.5, "sum"), [-0.5, 0, 0.5]),
    ):
        value, dz = loss(z, y)
        np.testing.assert_array_equal(dz[:, 0], np.array(expected, dtype))
        assert dz.dtype == dtype
        check_loss(loss, z, y).raise_if_failed()  # between the one-sided derivatives
    assert AbsoluteError()(z, y)[0] == pytest.approx(2 / 3)
    assert Quantile(0.25, "sum")(z, y)[0] == 1
    assert Huber(0.5, "sum")(z, y)[0] == 2 * 0.5 * 0.75


@given(seed=st.integers(0, 2**31), n=st.integers(3, 30), q=st.sampled_from([0.1, 0.5, 0.77]))
def test_the_best_constants(seed, n, q):
    y = np.random.default_rng(seed).normal(size=n)

    def best(loss):
        values = [loss(np.full((n, 1), c), y)[0] for c in np.sort(y)]
        return np.sort(y)[int(np.argmin(values))]

    at = best(Quantile(q))
    assert (y < at).mean() <= q <= (y <= at).mean() + 1e-12
    assert abs((y < best(AbsoluteError())).mean() - 0.5) <= 1 / n + 1e-12


def test_several_quantiles_are_several_losses():
    rng = np.random.default_rng(0)
    z, y, levels = rng.normal(size=(8, 3)), rng.normal(size=8), (0.1, 0.5, 0.9)
    value, dz = Quantile(levels)(z, y)
    parts = [Quantile(q)(z[:, [i]], y) for i, q in enumerate(levels)]
    assert value == pytest.approx(sum(part[0] for part in parts), rel=1e-14)
    np.testing.assert_array_equal(dz, np.hstack([part[1] for part in parts]))
    for same in (Quantile(list(levels)), Quantile(np.array(levels))):
        assert same(z, y[:, None])[0] == value
        assert repr(same) == "Quantile((0.1, 0.5, 0.9))"
    with pytest.raises(
        ValueError, match=r"expected one output for each quantile, \(n, 3\), got \(8, 2"
    ):
        Quantile(levels)(z[:, :2], y)
    with pytest.raises(
        ValueError, match=r"Quantile: expected y of the outputs' shape \(8, 1\), got"
    ):
        Quantile(levels)(z, z)


LOSSES = [SquaredError(), AbsoluteError(), Huber(), Quantile(0.25)]


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_other_targets_are_refused_by_name(loss):
    name, shape = type(loss).__name__, r"y of the outputs' shape \(2, 3\), got "
    for y, error, message in (
        (np.zeros((2, 2)), ValueError, shape + r"\(2, 2\)"),
        (np.zeros(2), ValueError, shape + r"\(2,\)"),
        (np.full((2, 3), "a"), TypeError, "y of integers or floats, got dtype <U1$"),
        (np.zeros((2, 3), object), TypeError, ".*got dtype object$"),
    ):
        with pytest.raises(error, match=f"^{name}: expected {message}"):
            loss(np.zeros((2, 3)), y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_apart_and_not_finite(dtype):
    largest, inf = float(np.finfo(dtype).max), np.inf
    for loss, slope in ((AbsoluteError(), 1), (Huber(0.5), 0.5), (Quantile(0.25), 0.75)):
        value, dz = loss(np.array([[largest / 2]], dtype), np.zeros(1))
        assert value == pytest.approx(slope * largest / 2, rel=1e-6)
        assert dz == [[slope]]
        value, dz = loss(np.array([[inf]], dtype), np.zeros(1))
        assert (value, dz) == (inf, slope)
        assert np.isnan(loss(np.array([[np.nan]], dtype), np.zeros(1))[0])


@given(n=st.integers(1, 9), d=st.integers(1, 3), seed=st.integers(0, 2**31), total=st.booleans())
def test_poisson_is_that_of_pytorch_less_its_least_value(n, d, seed, total):
    rng = np.random.default_rng(seed)
    z, weight = rng.normal(size=(n, d)), rng.uniform(0.1, 2, n)
    y = rng.poisson(1.5, (n, d)) * rng.choice([1, 0.5], (n, d))
    t, loss = torch.from_numpy(z).requires_grad_(), Poisson("sum" if total else "mean")
    values = torch.nn.PoissonNLLLoss(reduction="none")(t, torch.from_numpy(y))
    values = values + torch.xlogy(torch.from_numpy(y), torch.from_numpy(y)) - torch.from_numpy(y)
    expected = torch.from_numpy(weight) @ values.sum(dim=1) / (1 if total else weight.sum())
    expected.backward()
    value, dz = loss(z, y, weight)
    assert value == pytest.approx(expected.item(), rel=1e-12, abs=1e-13)
    np.testing.assert_allclose(dz, t.grad.numpy(), rtol=1e-12, atol=1e-15)
    v = rng.normal(size=(n, d))
    product = (loss(z + 1e-6 * v, y, weight)[1] - loss(z - 1e-6 * v, y, weight)[1]) / 2e-6
    np.testing.assert_allclose(loss.hessian_vector_product(z, y, v, weight), product, atol=1e-7)
    np.testing.assert_array_equal(loss.predict(z), np.exp(z)[:, 0] if d == 1 else np.exp(z))
    assert loss(np.log(y + (y == 0) * 1e-30), y)[0] == pytest.approx(0, abs=1e-12)
    np.testing.assert_equal(exp_r2(z, y, weight), r2(np.exp(z), y, weight))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_poisson_at_its_ends(dtype):
    for z, y, expected in (
        (-np.inf, 0, 0), (-np.inf, 2, np.inf), (np.inf, 0, np.inf), (np.inf, 2, np.inf),
        (1000, 3, np.inf), (-1000, 0, 0), (np.nan, 1, np.nan),
    ):  # fmt: skip
        np.testing.assert_equal(Poisson()(np.array([[z]], dtype), np.array([y]))[0], expected)
    for bad in (-1.0, np.nan):
        message = rf"^Poisson: expected y of numbers >= 0, got y\[1, 0\] = {bad}"
        with pytest.raises(ValueError, match=message):
            Poisson()(np.zeros((2, 1), dtype), np.array([[0.0], [bad]]))


def test_settings():
    assert repr(Huber()) == "Huber(1)"
    assert repr(Huber(0.5, "sum")) == "Huber(0.5, reduction='sum')"
    assert repr(Quantile(0.5)) == "Quantile(0.5)"
    for bad in (0, -1, np.inf, "x", None):
        with pytest.raises(ValueError, match="Huber: expected delta to be a finite number > 0"):
            Huber(bad)
    for bad in (0, 1, -0.1, np.nan, (0.5, 1.0), "x", None):
        with pytest.raises(
            ValueError, match="Quantile: expected q to be a finite number > 0 and < 1"
        ):
            Quantile(bad)
    with pytest.raises(ValueError, match="Quantile: expected at least one q"):
        Quantile(())
