"""Losses made from the maps: laws, gradients, comparison with the entmax package."""

import math

import entmax
import numeric
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidl import CrossEntropy, FenchelYoung, SmoothedNLL, entmax15, relumax, softmax, sparsemax

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
def test_never_negative_and_invariant_to_a_common_offset(loss, z, offset, seed):
    z = np.round(z * 1024) / 1024  # adding a whole number rounds nothing
    for y in labels_of_both_kinds(*z.shape, seed):
        value, dz = loss(z, y)
        assert value >= 0
        np.testing.assert_allclose(dz.sum(axis=1), 0, atol=1e-12)
        shifted = loss(z + offset, y)
        assert shifted[0] == value
        np.testing.assert_array_equal(shifted[1], dz)


@every_loss
@given(n=st.integers(1, 4), k=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_value_and_gradient_belong_together(loss, n, k, seed):
    z = np.random.default_rng(seed).normal(size=(n, k))
    for y in labels_of_both_kinds(n, k, seed):
        dz = loss(z, y)[1]
        assert numeric.agree(dz, numeric.gradient(lambda y=y: loss(z, y)[0], z))


@every_loss
def test_the_check_above_sees_a_fault(loss):
    z = 0.3 * np.random.default_rng(2).normal(size=(3, 4))
    for y in labels_of_both_kinds(3, 4):
        dz = loss(z, y)[1]
        expected = numeric.gradient(lambda y=y: loss(z, y)[0], z)
        assert numeric.agree(dz, expected)
        for fault in (-dz, 1.01 * dz, 3 * dz, dz / 3, dz[:, ::-1]):
            assert not numeric.agree(fault, expected)


@every_loss
@given(z=LOGITS, seed=st.integers(0, 99))
def test_both_kinds_of_labels_agree(loss, z, seed):
    y = labels_of_both_kinds(*z.shape, seed)[0]
    one_hot = np.eye(z.shape[1])[y]
    value, dz = loss(z, y)
    for same in (one_hot, one_hot.astype(int), one_hot.astype(np.float32)):
        assert loss(z, same)[0] == pytest.approx(value, rel=1e-13, abs=1e-300)
        np.testing.assert_allclose(loss(z, same)[1], dz, rtol=1e-13, atol=1e-300)


@every_regularized
@given(z=LOGITS, seed=st.integers(0, 99))
def test_fenchel_young_identity(map, z, seed):
    for y in labels_of_both_kinds(*z.shape, seed):
        target = np.eye(z.shape[1])[y] if y.ndim == 1 else y
        p = map(z)
        conjugate = (p * z).sum(axis=1) - map.omega(p)
        raw = (conjugate + map.omega(target) - (target * z).sum(axis=1)).mean()
        assert FenchelYoung(map)(z, y)[0] == pytest.approx(raw, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("map", "lead"), [(sparsemax, 1.0), (entmax15, 2.0)])
@given(z=LOGITS, seed=st.integers(0, 99))
def test_zero_exactly_where_the_label_leads(map, lead, z, seed):
    y = labels_of_both_kinds(*z.shape, seed)[0]
    for row, label in zip(z, y, strict=True):
        others = np.delete(row, label).max(initial=-np.inf)
        value, dz = FenchelYoung(map)(row[None], np.array([label]))
        assert (value == 0) == (row[label] - others >= lead)
        assert (value == 0) == (dz == 0).all()


@every_regularized
@given(z=LOGITS)
def test_zero_where_the_prediction_is_the_label(map, z):
    value, dz = FenchelYoung(map)(z, map(z))
    assert 0 <= value < 1e-14
    assert np.abs(dz).max() < 1e-15
    other = FenchelYoung(map)(z, np.roll(map(z), 1, axis=1))[0]
    assume(np.ptp(map(z), axis=1).max() > 1e-3)
    assert other > 1e-9


@pytest.mark.parametrize("eps", [0, 1e-3, 0.5])
def test_least_value_of_the_smoothed_loss(eps):
    z, y = np.array([[9.0, 0, 0]]), np.array([0])
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


def theirs(name, z, y):
    """Return the entmax package's value for each row, and the gradient of their mean."""
    t = torch.from_numpy(z).requires_grad_()
    if name == "softmax":
        values = torch.nn.functional.cross_entropy(t, torch.from_numpy(y), reduction="none")
    else:
        function = {"sparsemax": entmax.sparsemax_loss, "entmax15": entmax.entmax15_loss}[name]
        values = function(t, torch.from_numpy(y))
    values.mean().backward()
    return values.detach().numpy(), t.grad.numpy()


@every_regularized
@pytest.mark.parametrize("scale", [0.01, 1, 30])
@pytest.mark.parametrize(("n", "k"), [(1, 2), (64, 26), (300, 26), (4, 3000)])
def test_equal_to_pytorch_and_entmax(map, n, k, scale):
    rng = np.random.default_rng(k)
    z, y = scale * rng.normal(size=(n, k)), rng.integers(0, k, n)
    value, dz = FenchelYoung(map)(z, y)
    values, grad = theirs(repr(map), z, y)
    assert value == pytest.approx(values.mean(), rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(dz, grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("b", [0.5, 2, 20])
@pytest.mark.parametrize("eps", [0.01, 0.5])
def test_smoothed_relumax_equals_autograd(b, eps):
    rng = np.random.default_rng(0)
    z, y = 2 * rng.normal(size=(64, 26)), rng.integers(0, 26, 64)
    t = torch.from_numpy(z).requires_grad_()
    u = torch.relu(t - t.max(dim=1, keepdim=True).values + b)
    p = (u / u.sum(dim=1, keepdim=True))[torch.arange(64), torch.from_numpy(y)]
    loss = -torch.log((p + eps) / (1 + 26 * eps)).mean()
    loss.backward()
    value, dz = SmoothedNLL(relumax(b), eps)(z, y)
    assert value == pytest.approx(loss.item(), rel=1e-12)
    np.testing.assert_allclose(dz, t.grad.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
def test_a_masked_class_where_entmax_gives_nan(name):
    map = REGULARIZED[name]
    z, y = np.array([[0.3, -np.inf, 0.1, -2]]), np.array([2])
    assert np.isnan(theirs(name, z, y)[0]).all()
    value, dz = FenchelYoung(map)(z, y)
    without = FenchelYoung(map)(np.delete(z, 1, axis=1), np.array([1]))
    assert value == pytest.approx(without[0], rel=1e-15)
    np.testing.assert_allclose(np.delete(dz, 1, axis=1), without[1], rtol=0, atol=1e-15)
    assert dz[0, 1] == 0
    # if the label is masked, the loss is infinite
    value, dz = FenchelYoung(map)(z, np.array([1]))
    assert value == np.inf
    assert np.isfinite(dz).all()


@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
def test_a_common_offset_where_entmax_goes_negative(name):
    z = 0.5 * np.random.default_rng(0).normal(size=(20_000, 5))
    z[:, 0] += 1.5  # most labels lead: small losses
    z, y = (z + 1e4).astype(np.float32), np.zeros(20_000, int)
    exact, _ = theirs(name, z.astype(float), y)
    values, _ = theirs(name, z, y)
    assert values.min() < -1e-4
    assert np.abs(values - exact).max() > 1e-3
    ours = [FenchelYoung(REGULARIZED[name])(z[i : i + 1], y[:1])[0] for i in range(len(z))]
    assert min(ours) >= 0
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-6)


@every_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_masks_and_nothing_changed(loss, dtype):
    z = np.array([[0, -np.inf, 1, 0.5], [1e4, 1e4, 1e4, -1e4]], dtype)
    one_hot = np.array([[0, 0, 0.5, 0.5], [1, 0, 0, 0]])
    for y in (np.array([2, 0]), one_hot):
        before = z.copy(), y.copy()
        value, dz = loss(z, y)
        assert type(value) is float
        assert math.isfinite(value)
        assert dz.dtype == dtype
        assert np.isfinite(dz).all()
        assert dz[0, 1] == 0
        np.testing.assert_array_equal(z, before[0])
        np.testing.assert_array_equal(y, before[1])


SIZES = [1, 2, 4, 127, 128, 129, 511, 512, 600, 1000, 5000]


@every_loss
@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_without_a_distribution_make_the_value_nan(loss, k, dtype):
    good = np.random.default_rng(k).normal(size=k)
    rows = [np.full(k, value) for value in (-np.inf, np.inf, np.nan)]
    for i in {0, k // 2, k - 1}:
        for value in (np.inf, np.nan):
            for other in (good, np.zeros(k), np.full(k, -np.inf)):
                rows.append(other.copy())
                rows[-1][i] = value
    for row in rows:
        z = np.array([good, row, good], dtype)
        for label in {0, k // 2, k - 1}:
            value, dz = loss(z, np.array([0, label, 0]))
            assert math.isnan(value)
            assert np.isfinite(dz[[0, 2]]).all()


@every_loss
@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_examples(loss, k, dtype):
    for y in (np.zeros(0, int), np.zeros((0, k))):
        value, dz = loss(np.zeros((0, k), dtype), y)
        assert (value, dz.shape, dz.dtype) == (0, (0, k), dtype)


@every_loss
@pytest.mark.parametrize("k", [2, 3, 127, 128, 200, 600])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_further_apart_than_the_largest_number(loss, k, dtype):
    largest = float(np.finfo(dtype).max)
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


@pytest.mark.parametrize("k", [5, 128, 129, 300])
def test_cross_entropy_is_the_same_by_class_and_by_row(k):
    z, y = np.random.default_rng(k).normal(size=(40, k)), np.arange(40) % k
    value, dz = CrossEntropy()(z, y)
    p = softmax(z)
    assert value == pytest.approx(-np.log(p[np.arange(40), y]).mean(), rel=1e-13)
    np.testing.assert_allclose(dz, (p - np.eye(k)[y]) / 40, rtol=0, atol=1e-15)


def test_cross_entropy_is_fenchel_young_of_softmax():
    z, y = np.random.default_rng(0).normal(size=(7, 5)), np.arange(7) % 5
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
@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([0, 3], ValueError, r"labels in 0..2, got y\[1\] = 3"),
        ([-1, 0], ValueError, r"labels in 0..2, got y\[0\] = -1"),
        ([0, 1, 2], ValueError, r"y of shape \(2,\) or \(2, 3\), got \(3,\)"),
        ([0.0, 1.0], TypeError, "integer labels, got dtype float64"),
        ([[1, 0, 0], [0.5, 0.4, 0]], ValueError, r"got y\[1\] with sum 0.9 and least entry 0"),
        ([[1.5, -0.5, 0], [1, 0, 0]], ValueError, r"got y\[0\] with sum 1 and least entry -0.5"),
        ([[np.nan, 0, 1], [1, 0, 0]], ValueError, r"got y\[0\] with sum nan"),
        ([[True, False, False]] * 2, TypeError, "distributions of numbers, got dtype bool"),
    ],
)
def test_labels_are_checked(loss, y, error, message):
    with pytest.raises(error, match=f"^{type(loss).__name__}: expected .*{message}"):
        loss(np.zeros((2, 3)), np.array(y))


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"SmoothedNLL: expected eps to be .* >= 0, got -0.1"):
        SmoothedNLL(sparsemax, -0.1)
    with pytest.raises(TypeError, match=r"regulariser omega, got relumax\(1\); for relumax there"):
        FenchelYoung(relumax(1))
    with pytest.raises(TypeError, match=r"FenchelYoung: expected a map .* got <function"):
        FenchelYoung(lambda z: z)
    with pytest.raises(TypeError, match=r"expected a map as relumax\(5.0\), got 'sparsemax'"):
        SmoothedNLL("sparsemax")
    with pytest.raises(ValueError, match="reduction 'mean' or 'sum', got 'none'"):
        FenchelYoung(sparsemax, "none")
    for loss in LOSSES.values():
        with pytest.raises(ValueError, match=r"logits of shape \(n, K\), K > 0, got \(2, 0\)"):
            loss(np.zeros((2, 0)), np.zeros(2, int))
