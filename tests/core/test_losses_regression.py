"""Losses of numbers: PyTorch, kinks, best constants, targets of every kind, ends, errors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidl import AbsoluteError, Huber, Quantile, SquaredError
from minidl.testing.checks import check_loss

LOSSES = [SquaredError, AbsoluteError, Huber, lambda r="mean": Quantile(0.25, r)]
every_loss = pytest.mark.parametrize("make", LOSSES)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    ("make", "theirs"),
    [
        (AbsoluteError, torch.nn.L1Loss),
        (lambda r: Huber(0.7, r), lambda reduction: torch.nn.HuberLoss(delta=0.7, reduction=reduction)),
        (lambda r: Huber(5, r), lambda reduction: torch.nn.HuberLoss(delta=5, reduction=reduction)),
    ],
)  # fmt: skip
def test_equal_to_pytorch_which_averages_over_outputs_too(make, theirs, reduction):
    rng = np.random.default_rng(0)
    z, y = 2 * rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    z[3], z[4] = y[3], y[4] + 0.7  # kinks, and where the second derivative jumps
    t = torch.from_numpy(z).requires_grad_()
    expected = theirs(reduction=reduction)(t, torch.from_numpy(y)) * (
        4 if reduction == "mean" else 1
    )
    expected.backward()
    value, dz = make(reduction)(z, y)
    assert value == pytest.approx(expected.item(), rel=1e-13)
    np.testing.assert_allclose(dz, t.grad.numpy(), rtol=1e-13, atol=1e-16)


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


@every_loss
@pytest.mark.parametrize("dtype", ["?", "i1", "u2", ">i4", "i8", "f2", ">f4", "f8"])
def test_targets_of_every_kind_of_number(make, dtype):
    z = np.linspace(-1, 1, 30, dtype=np.float32)[:, None]
    y = np.arange(30) % (2 if dtype == "?" else 7)
    expected = make()(z, y.astype(np.float32)[:, None])
    for same in (y.astype(dtype), y.astype(dtype)[:, None], y.tolist()):
        value, dz = make()(z, same)
        assert value == expected[0]
        np.testing.assert_array_equal(dz, expected[1])


@every_loss
@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.zeros((2, 2)), ValueError, r"y of the outputs' shape \(2, 3\), got \(2, 2\)"),
        (np.zeros(2), ValueError, r"y of the outputs' shape \(2, 3\), got \(2,\)"),
        (np.full((2, 3), "a"), TypeError, "y of integers or floats, got dtype <U1$"),
        (np.zeros((2, 3), object), TypeError, "got dtype object$"),
    ],
)
def test_other_targets_are_refused_by_name(make, y, error, message):
    name = type(make()).__name__
    with pytest.raises(
        error, match=f"^{name}: expected {message}" if "y of" in message else message
    ):
        make()(np.zeros((2, 3)), y)


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
