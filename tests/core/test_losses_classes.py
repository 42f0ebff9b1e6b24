"""Losses of classes: laws, masked and far logits, rows without a distribution, the perceptron."""

import math

import entmax
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidl import (
    CrossEntropy,
    FenchelYoung,
    Perceptron,
    SmoothedNLL,
    entmax15,
    relumax,
    softmax,
    sparsemax,
)
from minidl.losses import hessian

REGULARIZED = {"softmax": softmax, "sparsemax": sparsemax, "entmax15": entmax15}
LOSSES = {
    repr(loss): loss
    for loss in (
        *map(FenchelYoung, REGULARIZED.values()),
        CrossEntropy("sum"),
        SmoothedNLL(relumax(2), 0.1),
        SmoothedNLL(relumax(10), 1e-3, "sum"),
        SmoothedNLL(sparsemax, 0.5),
        SmoothedNLL(entmax15, 0.01),
        SmoothedNLL(softmax, 0),
    )
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
every_regularized = pytest.mark.parametrize("map", REGULARIZED.values(), ids=REGULARIZED.keys())

LOGITS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 6)),
    elements=st.one_of(st.floats(-50, 50), st.sampled_from([-1.0, 0.0, 1.0, 2.0])),
)


def labels_of_both_kinds(n, k, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.dirichlet(np.full(k, 0.5), n)
    y[0] = np.eye(k)[0]  # a row with zeros
    return rng.integers(0, k, n), y


@every_loss
@given(z=LOGITS, offset=st.integers(-(2**20), 2**20), seed=st.integers(0, 99))
def test_never_negative_invariant_to_an_offset_and_alike_for_both_kinds_of_labels(loss, z, offset, seed):  # fmt: skip
    z = np.round(z * 1024) / 1024  # adding a whole number rounds nothing
    labels, distributions = labels_of_both_kinds(*z.shape, seed)
    for y in (labels, distributions):
        value, dz = loss(z, y)
        assert value >= 0
        np.testing.assert_allclose(dz.sum(axis=1), 0, atol=1e-12)
        shifted = loss(z + offset, y)
        assert shifted[0] == value
        np.testing.assert_array_equal(shifted[1], dz)
    value, dz = loss(z, labels)
    assert dz[0, labels[0]] <= 0
    same = loss(z, np.eye(z.shape[1])[labels])
    assert same[0] == pytest.approx(value, rel=1e-13, abs=1e-300)
    np.testing.assert_allclose(same[1], dz, rtol=1e-13, atol=1e-300)


@every_regularized
@given(z=LOGITS, seed=st.integers(0, 99))
def test_fenchel_young(map, z, seed):
    """``omega*(z) + omega(y) - <z, y>``; 0 where the prediction is the label, and nowhere else."""
    for y in labels_of_both_kinds(*z.shape, seed):
        target = np.eye(z.shape[1])[y] if y.ndim == 1 else y
        p = map(z)
        conjugate = (p * z).sum(axis=1) - map.omega(p)
        raw = (conjugate + map.omega(target) - (target * z).sum(axis=1)).mean()
        assert FenchelYoung(map)(z, y)[0] == pytest.approx(raw, rel=1e-12, abs=1e-12)
    value, dz = FenchelYoung(map)(z, map(z))
    assert 0 <= value < 1e-14
    assert np.abs(dz).max() < 1e-15
    other = FenchelYoung(map)(z, np.roll(map(z), 1, axis=1))[0]
    assume(np.ptp(map(z), axis=1).max() > 1e-3)
    assert other > 1e-9


@pytest.mark.parametrize(("map", "lead"), [(sparsemax, 1.0), (entmax15, 2.0)])
@given(z=LOGITS, seed=st.integers(0, 99))
def test_zero_exactly_where_the_label_leads(map, lead, z, seed):
    y = labels_of_both_kinds(*z.shape, seed)[0]
    for row, label in zip(z, y, strict=True):
        others = np.delete(row, label).max(initial=-np.inf)
        value, dz = FenchelYoung(map)(row[None], np.array([label]))
        assert (value == 0) == (row[label] - others >= lead)
        assert (value == 0) == (dz == 0).all()


def test_the_hessian_of_cross_entropy_is_diag_p_minus_pp():
    z = np.random.default_rng(0).normal(size=(2000, 6)) * 5
    p, y = softmax(z), np.zeros(2000, int)
    H = hessian(CrossEntropy("sum"), z, y)
    expected = p[:, :, None] * np.eye(6) - p[:, :, None] * p[:, None]
    np.testing.assert_allclose(H, expected, atol=1e-15)
    assert -1e-12 <= np.linalg.eigvalsh(H).min() <= 1e-12  # the ones are in the null space


def test_the_hessian_of_entmax_away_from_kinks():
    z, loss, y = np.array([[0.3, 0.1, -0.2, -5]]), FenchelYoung(entmax15), np.array([1])
    steps = 1e-6 * np.eye(4)
    numeric = np.stack([(loss(z + d, y)[1] - loss(z - d, y)[1])[0] / 2e-6 for d in steps], axis=-1)
    np.testing.assert_allclose(hessian(loss, z, y)[0], numeric, atol=1e-8)


def test_least_value_of_the_smoothed_loss():
    z, y = np.array([[9.0, 0, 0]]), np.array([0])
    for eps in (0, 1e-3, 0.5):
        value, dz = SmoothedNLL(relumax(1), eps)(z, y)
        assert value == pytest.approx(math.log((1 + 3 * eps) / (1 + eps)), abs=1e-15)
        assert (value == 0) == (eps == 0)
        np.testing.assert_array_equal(dz, 0)


@pytest.mark.parametrize("map", [sparsemax, entmax15, relumax(1)])
def test_why_plain_log_probabilities_fail(map):
    """For a label outside the support, -log p is infinite and its gradient is 0."""
    z, y = np.array([[3.0, 0, -1]]), np.array([1])
    assert map(z)[0, 1] == 0
    value, dz = SmoothedNLL(map, eps=0)(z, y)
    assert value == np.inf
    np.testing.assert_array_equal(dz, 0)
    value, dz = SmoothedNLL(map, eps=0.01)(z, y)  # finite, but the gradient is still 0
    assert value == pytest.approx(math.log(1.03 / 0.01))
    np.testing.assert_array_equal(dz, 0)
    if hasattr(map, "omega"):
        value, dz = FenchelYoung(map)(z, y)
        assert 0 < value < 4
        assert dz[0, 1] == -1


def test_smoothed_relumax_equals_autograd():
    rng = np.random.default_rng(0)
    z, y = 2 * rng.normal(size=(64, 26)), rng.integers(0, 26, 64)
    for b in (0.5, 2, 20):
        for eps in (0.01, 0.5):
            t = torch.from_numpy(z).requires_grad_()
            u = torch.relu(t - t.max(dim=1, keepdim=True).values + b)
            p = (u / u.sum(dim=1, keepdim=True))[torch.arange(64), torch.from_numpy(y)]
            loss = -torch.log((p + eps) / (1 + 26 * eps)).mean()
            loss.backward()
            value, dz = SmoothedNLL(relumax(b), eps)(z, y)
            assert value == pytest.approx(loss.item(), rel=1e-12)
            np.testing.assert_allclose(dz, t.grad.numpy(), rtol=0, atol=1e-12)


# ---------------------------------------------------------------- where others go wrong

THEIRS = {"sparsemax": entmax.sparsemax_loss, "entmax15": entmax.entmax15_loss}


@pytest.mark.parametrize("name", THEIRS)
def test_a_masked_class_where_entmax_gives_nan(name):
    loss = FenchelYoung(REGULARIZED[name])
    z, y = np.array([[0.3, -np.inf, 0.1, -2]]), np.array([2])
    assert torch.isnan(THEIRS[name](torch.from_numpy(z), torch.from_numpy(y))).all()
    value, dz = loss(z, y)
    without = loss(np.delete(z, 1, axis=1), np.array([1]))
    assert value == pytest.approx(without[0], rel=1e-15)
    np.testing.assert_allclose(np.delete(dz, 1, axis=1), without[1], rtol=0, atol=1e-15)
    assert dz[0, 1] == 0
    # if the label is masked, the loss is infinite
    value, dz = loss(z, np.array([1]))
    assert value == np.inf
    assert np.isfinite(dz).all()


@pytest.mark.parametrize("name", THEIRS)
def test_a_common_offset_where_entmax_goes_negative(name):
    z = 0.5 * np.random.default_rng(0).normal(size=(20_000, 5))
    z[:, 0] += 1.5  # most labels lead: small losses
    z, y = torch.from_numpy((z + 1e4).astype(np.float32)), torch.zeros(20_000, dtype=torch.int64)
    exact, values = (THEIRS[name](logits, y).numpy() for logits in (z.double(), z))
    assert values.min() < -1e-4
    assert np.abs(values - exact).max() > 1e-3
    some = np.r_[np.argsort(values)[:500], np.abs(values - exact).argmax(), :500]
    ours = [FenchelYoung(REGULARIZED[name])(z.numpy()[i, None], y[:1].numpy())[0] for i in some]
    assert min(ours) >= 0
    np.testing.assert_allclose(ours, exact[some], rtol=1e-5, atol=1e-6)


@every_loss
def test_masks_and_equal_logits(loss):
    for dtype in ("float32", "float64"):
        z = np.array([[0, -np.inf, 1, 0.5], [1e4, 1e4, 1e4, -1e4]], dtype)
        for y in (np.array([2, 0]), np.array([[0, 0, 0.5, 0.5], [1, 0, 0, 0]])):
            value, dz = loss(z, y)
            assert math.isfinite(value)
            assert dz.dtype == dtype
            assert np.isfinite(dz).all()
            assert dz[0, 1] == 0


def test_extreme_logits_of_cross_entropy():
    inf = np.inf
    for dtype in ("float32", "float64"):
        z = np.array([[0, -inf, 1], [1e4, 1e4, 1e4], [-1e4, 1e4, 0]], dtype)
        value, dz = CrossEntropy("sum")(z, np.array([2, 0, 1]))
        assert value == pytest.approx(math.log1p(math.exp(-1)) + math.log(3), rel=1e-6)
        assert dz[0, 1] == 0
        assert CrossEntropy()(z[:1], np.array([1]))[0] == inf


SIZES = [1, 2, 4, 127, 128, 129, 511, 512, 600, 5000]
"""Numbers of classes on both sides of every change of algorithm, or of a possible one."""


@every_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_without_a_distribution_make_the_value_nan(loss, dtype):
    for k in SIZES:
        good = np.random.default_rng(k).normal(size=k)
        rows = [np.full(k, value) for value in (-np.inf, np.inf, np.nan)]
        for i in {0, k // 2, k - 1}:
            for value in (np.inf, np.nan):
                for other in (good, np.full(k, -np.inf)):
                    rows.append(other.copy())
                    rows[-1][i] = value
        for row in rows:
            z = np.array([good, row, good], dtype)
            for label in {0, k - 1}:
                value, dz = loss(z, np.array([0, label, 0]))
                assert math.isnan(value)
                assert np.isfinite(dz[[0, 2]]).all()
        for y in (np.zeros(0, int), np.zeros((0, k))):
            value, dz = loss(np.zeros((0, k), dtype), y)
            assert (value, dz.shape, dz.dtype) == (0, (0, k), dtype)


@every_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_further_apart_than_the_largest_number(loss, dtype):
    largest = float(np.finfo(dtype).max)
    for k in (2, 3, 127, 128, 200, 600):
        z = np.zeros((2, k), dtype)
        z[:, 0], z[:, 1] = 0.9 * largest, -0.9 * largest
        value, dz = loss(z, np.array([0, 0]))
        assert 0 <= value < 10
        assert np.abs(dz).max() < 1e-12
        for y in (np.array([1, 0]), np.array([0, 1]), np.eye(k)[[1, 0]]):
            value, dz = loss(z, y)
            assert np.isfinite(dz).all()
            if isinstance(loss, FenchelYoung) and dtype == "float32":
                # the label's logit is 1.8 times the largest float32 below the largest logit
                mean = 2 if loss.reduction == "mean" else 1
                assert value == pytest.approx(1.8 * largest / mean, rel=1e-6)
            elif isinstance(loss, FenchelYoung):
                assert value == np.inf
            elif loss.eps:
                assert value <= 2 * math.log(1 / loss.eps + k)
            else:
                assert value == np.inf
        z[:, 2:] = -np.inf
        if k > 2 and isinstance(loss, FenchelYoung):
            assert loss(z, np.array([0, 2]))[0] == np.inf  # the label's logit is -inf


def test_cross_entropy_is_fenchel_young_of_softmax():
    for k in (5, 128, 129, 300):
        z, y = np.random.default_rng(k).normal(size=(40, k)), np.arange(40) % k
        value, dz = CrossEntropy()(z, y)
        p = softmax(z)
        assert value == pytest.approx(-np.log(p[np.arange(40), y]).mean(), rel=1e-13)
        np.testing.assert_allclose(dz, (p - np.eye(k)[y]) / 40, rtol=0, atol=1e-15)
        for reduction in ("mean", "sum"):
            assert isinstance(CrossEntropy(reduction), FenchelYoung)
            ours, general = CrossEntropy(reduction)(z, y), FenchelYoung(softmax, reduction)(z, y)
            assert ours[0] == general[0]
            np.testing.assert_array_equal(ours[1], general[1])
    assert repr(CrossEntropy()) == "CrossEntropy()"
    assert repr(CrossEntropy("sum")) == "CrossEntropy(reduction='sum')"
    assert repr(FenchelYoung(sparsemax)) == "FenchelYoung(sparsemax)"
    assert repr(SmoothedNLL(relumax(2), 0.1)) == "SmoothedNLL(relumax(2), eps=0.1)"


@every_loss
def test_labels_are_checked(loss):
    for y, error, message in (
        ([0, 3], ValueError, r"labels in 0..2, got y\[1\] = 3"),
        ([-1, 0], ValueError, r"labels in 0..2, got y\[0\] = -1"),
        ([0, 1, 2], ValueError, r"y of shape \(2,\) or \(2, 3\), got \(3,\)"),
        ([0.0, 1.0], TypeError, "integer labels, got dtype float64"),
        ([[1, 0, 0], [0.5, 0.4, 0]], ValueError, r"got the sum of y\[1\] = 0.9"),
        ([[1.5, -0.5, 0], [1, 0, 0]], ValueError, r"got y\[0, 1\] = -0.5"),
        ([[1, 0, 0], [1.5, -0.5, 0]], ValueError, r"got y\[1, 1\] = -0.5"),
        ([[np.nan, 0, 1], [1, 0, 0]], ValueError, r"got y\[0, 0\] = nan"),
        ([[True, False, False]] * 2, TypeError, "distributions of numbers, got dtype bool"),
    ):
        with pytest.raises(error, match=f"^{type(loss).__name__}: expected .*{message}"):
            loss(np.zeros((2, 3)), np.array(y))


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"SmoothedNLL: expected eps to be .* >= 0, got -0.1"):
        SmoothedNLL(sparsemax, -0.1)
    with pytest.raises(
        TypeError, match=r"omega \(for relumax there is SmoothedNLL\), got relumax\(1\)"
    ):
        FenchelYoung(relumax(1))
    with pytest.raises(TypeError, match=r"FenchelYoung: expected a map .* got <function"):
        FenchelYoung(lambda z: z)
    with pytest.raises(TypeError, match=r"expected a map as relumax\(5.0\), got 'sparsemax'"):
        SmoothedNLL("sparsemax")


# ---------------------------------------------------------------- the perceptron


def test_perceptron_by_hand():
    z = np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 0.0], [5.0, 5.0, 0.0]])
    value, dz = Perceptron("sum")(z, np.array([2, 1, 0]))
    assert value == 1.0
    # A tie goes to the first index: a mistake without a loss if the label comes second.
    np.testing.assert_array_equal(dz, [[0, 1, -1], [1, -1, 0], [0, 0, 0]])
    mean, dmean = Perceptron()(z, np.array([2, 1, 0]))
    assert mean == pytest.approx(1 / 3)
    np.testing.assert_allclose(dmean, dz / 3)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_perceptron_where_the_largest_logit_is_not_finite(reduction):
    inf, nan, loss = np.inf, np.nan, Perceptron(reduction)
    for dtype in ("float32", "float64"):
        for k in (1, 2, 26, 127, 128, 600):
            rows = [np.full(k, value) for value in (-inf, inf, nan)]
            for i in {0, k - 1}:
                rows += [np.where(np.arange(k) == i, value, 1.0) for value in (inf, nan)]
            for row in rows:
                for label in {0, k - 1}:
                    z = np.array([np.zeros(k), row], dtype)
                    assert math.isnan(loss(z, np.array([0, label]))[0])
            masked = np.array([[-inf] * (k - 1) + [2.0]], dtype)
            value, dz = loss(masked, np.array([k - 1]))
            assert (value, dz.any()) == (0, False)
            if k > 1:
                value, dz = loss(masked, np.array([0]))
                assert value == inf
                assert (dz[0, 0], dz[0, -1]) == (-1, 1)


def test_perceptron_of_logits_far_apart():
    for dtype in ("float32", "float64"):
        for k in (2, 128):
            largest = float(np.finfo(dtype).max)
            z = np.zeros((2, k), dtype)
            z[:, 0], z[:, 1] = largest, -largest
            assert Perceptron()(z, np.array([0, 0]))[0] == 0
            value, dz = Perceptron("sum")(z, np.array([1, 0]))
            assert value == 2 * largest  # inf for float64
            np.testing.assert_array_equal(dz[0, :2], [1, -1])


def test_labels_of_the_perceptron():
    for y, error, message in (
        (np.zeros(2), TypeError, "expected integer labels, got dtype float64"),
        (np.zeros((2, 2)), ValueError, r"expected y of shape \(n,\), got \(2, 2\)"),
        (np.array([0, 2]), ValueError, r"expected labels in 0\.\.1, got y\[1\] = 2"),
    ):
        with pytest.raises(error, match=f"^Perceptron: {message}"):
            Perceptron()(np.zeros((2, 2)), y)
