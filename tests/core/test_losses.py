"""Every loss: gradients, Hessians, PyTorch, weights, targets of every dtype, errors of the base."""

import math

import entmax
import numeric
import numpy as np
import pytest
import torch
from torch.nn import functional

from minidl import (
    SGD,
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryLogistic,
    CrossEntropy,
    Dataset,
    FenchelYoung,
    Huber,
    Linear,
    Perceptron,
    Quantile,
    Sequential,
    SmoothedNLL,
    SquaredError,
    entmax15,
    fit,
    relumax,
    softmax,
    sparsemax,
)
from minidl.checks import shaped_targets
from minidl.dataset import Split, check_labels
from minidl.losses import ReducedLoss, hessian
from minidl.parity.formulas import criterion
from minidl.testing.catalogue import LOSSES, TARGETS, LossEntry, distributions
from minidl.testing.checks import check_loss

classes, signs = TARGETS["classes"], TARGETS["signs"]

CASES = {
    **LOSSES,
    "BinaryLogistic, sum": LossEntry(BinaryLogistic("sum"), signs, outputs=1),
    "Perceptron, sum": LossEntry(Perceptron("sum"), classes),
    "FenchelYoung(softmax)": LossEntry(FenchelYoung(softmax), classes),
    "SmoothedNLL(relumax), large b": LossEntry(SmoothedNLL(relumax(10), 1e-3, "sum"), distributions),
    "SmoothedNLL(softmax), eps 0": LossEntry(SmoothedNLL(softmax, 0), classes),
    "SmoothedNLL(entmax15)": LossEntry(SmoothedNLL(entmax15, 0.01), classes),
}  # fmt: skip
every_loss = pytest.mark.parametrize("name", CASES)
of_classes = [name for name, entry in CASES.items() if entry.targets is classes]
SEEDS = range(12)


def case(name, n, seed, dtype="float64", k=4, scale=2.0):
    entry, rng = CASES[name], np.random.default_rng(seed)
    z = (scale * rng.standard_normal((n, entry.outputs or k))).astype(dtype)
    return entry.loss, z, entry.targets(rng, z), rng


def assert_same(got, expected):
    assert got[0] == expected[0]
    np.testing.assert_array_equal(got[1], expected[1])


# ---------------------------------------------------------------- derivatives


@every_loss
def test_value_and_gradient_belong_together(name):
    """With and without weights, by independent differences, which see every fault."""
    for seed, (n, k) in enumerate([(1, 1), (1, 2), (2, 5), (3, 4), (4, 6), (5, 3)]):
        loss, z, y, rng = case(name, n, seed, k=k, scale=1.0)
        for weight in ((), (rng.uniform(0, 3, n) + 0.1,)):
            dz = loss(z, y, *weight)[1]
            expected = numeric.gradient(lambda w=weight: loss(z, y, *w)[0], z)
            assert numeric.agree(dz, expected)
            if np.abs(dz).max() > 1e-2:
                for fault in (-dz, 1.01 * dz, 3 * dz, dz / 3):
                    assert not numeric.agree(fault, expected)


@every_loss
def test_a_gradient_has_the_dtype_of_the_logits_and_nothing_changes(name):
    for dtype in ("float32", "float64"):
        loss, z, y, rng = case(name, 7, 6, dtype)
        weight = rng.uniform(0, 3, 7) * (np.arange(7) != 2)
        check_loss(lambda logits, y, w=weight: loss(logits, y, w), z, y).raise_if_failed()
        before = z.copy(), y.copy(), weight.copy()
        for result in (loss(z, y), loss(z, y, weight)):
            assert type(result[0]) is float
            assert result[1].dtype == dtype
            assert not np.shares_memory(result[1], z)
        for other in (np.asfortranarray(z), np.repeat(z, 2, axis=1)[:, ::2], z[::-1].copy()[::-1]):
            value, dz = loss(other, y)
            assert value == pytest.approx(loss(z, y)[0], rel=1e-6)
            np.testing.assert_allclose(dz, loss(z, y)[1], rtol=1e-5, atol=1e-7)
        for now, then in zip((z, y, weight), before, strict=True):
            np.testing.assert_array_equal(now, then)


TWICE = [name for name, e in CASES.items() if hasattr(e.loss, "hessian_vector_product")]
SMOOTH = (CrossEntropy, BinaryLogistic, BinaryCrossEntropy, SquaredError)


@pytest.mark.parametrize("name", TWICE)
@pytest.mark.parametrize("weighted", [False, True])
def test_hessian(name, weighted):
    """By differences of the gradient; positive semidefinite, symmetric, in the logits' dtype."""
    for seed in SEEDS:
        n, k = 1 + seed % 5, 1 + seed % 7
        loss, z, y, rng = case(name, n, seed, k=k)
        weight = (np.r_[rng.uniform(0, 3, n - 1), 1],) if weighted else ()
        H, v = hessian(loss, z, y, *weight), rng.standard_normal(z.shape)
        product = loss.hessian_vector_product(z, y, v, *weight)
        np.testing.assert_allclose(product, np.einsum("nij,nj->ni", H, v), atol=1e-12)
        np.testing.assert_allclose(H, np.swapaxes(H, 1, 2), atol=1e-15)
        assert np.linalg.eigvalsh(H).min() >= -1e-12
        if isinstance(loss, SMOOTH):  # the others jump at kinks, which the next test avoids
            step = 1e-5 * v
            differences = loss(z + step, y, *weight)[1] - loss(z - step, y, *weight)[1]
            np.testing.assert_allclose(product, differences / 2e-5, atol=1e-7)
        assert hessian(loss, z.astype("float32"), y, *weight).dtype == np.float32


@pytest.mark.parametrize("name", TWICE)
def test_hessian_with_weights(name):
    loss, z, y, rng = case(name, 5, 2)
    weight = np.array([0, 1, 2, 0.5, 3])
    v = rng.standard_normal(z.shape)
    differences = (loss(z + 1e-6 * v, y, weight)[1] - loss(z - 1e-6 * v, y, weight)[1]) / 2e-6
    np.testing.assert_allclose(loss.hessian_vector_product(z, y, v, weight), differences, atol=1e-7)
    assert not numeric.agree(loss.hessian_vector_product(z, y, v), differences, 1e-3)


# ---------------------------------------------------------------- PyTorch


THEIRS = {
    "CrossEntropy": (CrossEntropy, functional.cross_entropy, False),
    "SquaredError": (SquaredError, lambda z, y, reduction: functional.mse_loss(z, y, reduction=reduction) / 2, True),
    "AbsoluteError": (AbsoluteError, functional.l1_loss, True),
    "Huber(0.7)": (lambda r: Huber(0.7, r), lambda z, y, reduction: functional.huber_loss(z, y, reduction=reduction, delta=0.7), True),
    "Huber(5)": (lambda r: Huber(5, r), lambda z, y, reduction: functional.huber_loss(z, y, reduction=reduction, delta=5), True),
    "sparsemax": (lambda r: FenchelYoung(sparsemax, r), lambda z, y, reduction: getattr(entmax.sparsemax_loss(z, y), reduction)(), False),
    "entmax15": (lambda r: FenchelYoung(entmax15, r), lambda z, y, reduction: getattr(entmax.entmax15_loss(z, y), reduction)(), False),
}  # fmt: skip
"""Our loss, a function of PyTorch or entmax, and whether that averages over outputs too."""


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_equal_to_pytorch_and_entmax(name, reduction):
    make, theirs, averages = THEIRS[name]
    for scale, n, k in ((0.01, 1, 2), (1, 7, 26), (5, 64, 26), (30, 300, 26), (1, 4, 3000)):
        rng = np.random.default_rng(n)
        z = scale * rng.normal(size=(n, k))
        y = rng.normal(size=(n, k)) if averages else rng.integers(0, k, n)
        if averages:
            z[0] = y[0]  # kinks
            z[-1, 0] = y[-1, 0] + 0.7  # where the second derivative of Huber jumps
        t = torch.from_numpy(z).requires_grad_()
        factor = k if averages and reduction == "mean" else 1
        expected = factor * theirs(t, torch.from_numpy(y), reduction=reduction)
        expected.backward()
        value, dz = make(reduction)(z, y)
        assert value == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(dz, t.grad.numpy(), rtol=1e-12, atol=1e-12)


@every_loss
def test_equal_to_the_formulas_of_parity(name):
    loss, z, y, rng = case(name, 9, 1)
    for weight in (np.ones(9), rng.uniform(0, 3, 9)):
        t, targets = torch.from_numpy(z).requires_grad_(), torch.from_numpy(y)
        theirs = criterion(loss)(t, targets, torch.from_numpy(weight))
        theirs.backward()
        value, dz = loss(z, y, weight)
        assert value == pytest.approx(theirs.item(), rel=1e-12, abs=1e-12)
        if not isinstance(loss, Perceptron):  # a subgradient is chosen at a tie
            np.testing.assert_allclose(dz, t.grad.numpy(), rtol=0, atol=1e-12)


# ---------------------------------------------------------------- weights


@every_loss
def test_a_weight_counts_as_the_example_repeated(name):
    for seed in SEEDS:
        n = 1 + seed % 6
        loss, z, y, rng = case(name, n, seed)
        weight = rng.integers(0, 4, n)
        weight[0] += 1
        value, dz = loss(z, y, weight)
        repeated, drepeated = loss(np.repeat(z, weight, axis=0), np.repeat(y, weight, axis=0))
        assert value == pytest.approx(repeated, rel=1e-12, abs=1e-14)
        sums = np.array([part.sum(axis=0) for part in np.split(drepeated, np.cumsum(weight)[:-1])])
        np.testing.assert_allclose(dz, sums, rtol=1e-12, atol=1e-14)
        # equal weights are none
        value, dz = loss(z, y)
        ones, dones = loss(z, y, np.ones(n, int))
        assert ones == pytest.approx(value, rel=1e-14)
        np.testing.assert_array_equal(dones, dz)
        if loss.reduction == "mean":
            for c in (1e-300, 0.1, 1e308):
                np.testing.assert_array_equal(loss(z, y, np.full(n, c))[1], dz)


@every_loss
def test_an_example_of_weight_0_is_absent_whatever_it_is(name):
    loss, z, y, _ = case(name, 4, 3)
    expected = loss(np.delete(z, 2, axis=0), np.delete(y, 2, axis=0))
    for bad in (math.nan, math.inf, -math.inf):
        z[2] = bad
        with np.errstate(all="ignore"):
            value, dz = loss(z, y, np.array([1, 1, 0, 1]))
        assert value == pytest.approx(expected[0], rel=1e-14)
        np.testing.assert_array_equal(dz[2], 0)
        np.testing.assert_allclose(np.delete(dz, 2, axis=0), expected[1], rtol=1e-14)
    value, dz = loss(z, y, np.zeros(4))
    assert (value, dz.any()) == (0, False)


WRONG_WEIGHTS = [
    ([1, 2], ValueError, r"expected weight of shape \(3,\), got \(2,\)"),
    ([[1], [2], [3]], ValueError, r"expected weight of shape \(3,\), got \(3, 1\)"),
    ([1, 2, -1], ValueError, r"finite weights that are not negative, got weight\[2\] = -1"),
    ([1, math.inf, 1], ValueError, r"got weight\[1\] = inf"),
    ([math.nan, 1, 1], ValueError, r"got weight\[0\] = nan"),
    (["a", "b", "c"], TypeError, "expected weight of real numbers, got dtype <U1"),
]


@every_loss
def test_wrong_weights_and_no_examples(name):
    loss, z, y, _ = case(name, 3, 4)
    for weight, error, message in WRONG_WEIGHTS:
        with pytest.raises(error, match=f"^{type(loss).__name__}: .*{message}"):
            loss(z, y, np.array(weight))
    for dtype in ("float32", "float64"):
        for weight in ((), (np.zeros(0),)):
            value, dz = loss(z[:0].astype(dtype), y[:0], *weight)
            assert (value, dz.shape, dz.dtype) == (0, (0, z.shape[1]), dtype)


def test_far_apart_float32_logits_with_weights():
    z = np.array([[3e38, -3e38], [0, 0]], np.float32)
    value, _ = CrossEntropy()(z, np.array([1, 0]), np.array([1, 3]))
    assert value == pytest.approx(6e38 / 4, rel=1e-6)
    assert CrossEntropy()(z, np.array([1, 0]), np.array([0, 3]))[0] == pytest.approx(math.log(2))


# ---------------------------------------------------------------- targets of every dtype

DTYPES = [f"{order}{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8) for order in "<>"]
SIZES = [(64, 26), (3, 129), (3, 255), (3, 256), (3, 257), (3, 300)]
SIZES += [(n, k) for k in (2, 127, 128) for n in (1, 127, 128, 255, 256, 300)]
LARGE = [(32767, 2), (32768, 2), (3, 32767), (3, 32768), (3, 65537)]


def largest_labels(dtype, n, k):
    """Return int64 labels; the last one is the largest that the dtype and the classes allow."""
    y = np.arange(n) % min(k, np.iinfo(dtype).max + 1)
    y[-1] = min(k - 1, np.iinfo(dtype).max)
    return y


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_check_of_labels_returns_int64_or_refuses(dtype):
    for n, k in SIZES + LARGE:
        y = largest_labels(dtype, n, k)
        for same in (y.astype(dtype), np.repeat(y, 2).astype(dtype)[::2]):  # not contiguous
            checked = check_labels("A loss", np.zeros((n, k), np.float32), same)
            assert checked.dtype == np.int64
            np.testing.assert_array_equal(checked, y)
    limits = np.iinfo(dtype)
    for k in (2, 100, 127, 128, 255, 256, 300, 32767, 32768, 65536, 70_000):
        for wrong in {-1, limits.min, k, limits.max}:
            if limits.min <= wrong <= limits.max and not 0 <= wrong < k:
                message = rf"^A loss: .*0\.\.{k - 1}, got y\[1\] = {wrong}$"
                with pytest.raises(ValueError, match=message):
                    check_labels("A loss", np.zeros((3, k)), np.array([0, wrong, 0], dtype))
    z, y = np.zeros((1, 257)), np.ones((1, 257), dtype)  # the sum is 1 modulo 256
    with pytest.raises(ValueError, match=r"got the sum of y\[0\] = 257"):
        check_labels("A loss", z, y)


@pytest.mark.parametrize("name", of_classes)
def test_labels_and_distributions_of_every_dtype(name):
    loss = CASES[name].loss
    for dtype in DTYPES:
        n, k = (300, 128) if dtype == "<i1" else (9, 300)
        y, z = largest_labels(dtype, n, k), case(name, n, k, "float32", k)[1]
        assert_same(loss(z, y.astype(dtype)), loss(z, y))
    z, y = np.random.default_rng(0).normal(size=(130, 4)), np.arange(130) % 4
    for dtype in (*DTYPES, "<f4", ">f4", "<f8", ">f8", "<f2", ">f2"):
        one_hot = np.eye(4)[y].astype(dtype)
        if isinstance(loss, Perceptron):
            with pytest.raises(ValueError, match=r"Perceptron: expected y of shape \(n,\)"):
                loss(z, one_hot)
        else:
            assert_same(loss(z, one_hot), loss(z, one_hot.astype(float)))


NUMBERS = [SquaredError(), AbsoluteError(), Huber(), Quantile(0.25), BinaryCrossEntropy()]


@pytest.mark.parametrize("loss", NUMBERS, ids=repr)
def test_numbers_of_every_dtype(loss):
    for dtype in (*DTYPES, "?", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8"):
        z = np.linspace(-1, 1, 300, dtype=np.float32)[:, None]
        y = np.arange(300) % (2 if dtype == "?" or isinstance(loss, BinaryCrossEntropy) else 128)
        expected = loss(z, y.astype(np.float32)[:, None])
        for same in (y.astype(dtype), y.astype(dtype)[:, None], y.tolist()):
            assert_same(loss(z, same), expected)


def test_signs_of_every_dtype():
    z, loss = np.array([[0.3], [-2.0]], np.float32), BinaryLogistic()
    for dtype in DTYPES:
        if "u" in dtype:  # it cannot hold -1
            native = np.dtype(dtype).newbyteorder("=")
            message = (
                rf"labels -1 and \+1 \(BinaryCrossEntropy takes 0 and 1\), got dtype {native}$"
            )
            with pytest.raises(TypeError, match=message):
                loss(z, np.array([1, 1], dtype))
            continue
        y = np.array([1, -1], dtype)
        assert_same(loss(z, y), loss(z, y.astype(np.int64)))
        second = loss.second_derivative(z, y.astype(np.int64))
        np.testing.assert_array_equal(loss.second_derivative(z, y), second)
        for wrong in (0, 2, np.iinfo(dtype).min):  # the least is equal to its own absolute value
            message = rf"\(BinaryCrossEntropy takes 0 and 1\), got y\[1\] = {wrong}$"
            with pytest.raises(ValueError, match=message):
                loss(z, np.array([1, wrong], dtype))


# ---------------------------------------------------------------- the base


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


def test_other_errors():
    for make in (CrossEntropy, SquaredError, Huber, lambda r: FenchelYoung(sparsemax, r)):
        args = (1, "none") if make is Huber else ("none",)
        with pytest.raises(ValueError, match="reduction 'mean' or 'sum', got 'none'"):
            make(*args)
    for name in of_classes:
        with pytest.raises(ValueError, match=r"logits of shape \(n, K\), K > 0, got \(3, 0\)"):
            CASES[name].loss(np.zeros((3, 0)), np.zeros(3, int))
    message = "SquaredError: expected logits of dtype float32 or float64, got int64"
    with pytest.raises(TypeError, match=message):
        SquaredError()(np.zeros((2, 2), int), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="expected logits with rows, got one number"):
        SquaredError()(np.float64(1), np.float64(1))
    with pytest.raises(ValueError, match="BinaryCrossEntropy takes classes of one output"):
        CrossEntropy()(np.zeros((2, 1)), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"labels in 0..3"):
        CrossEntropy().hessian_vector_product(np.zeros((1, 4)), np.array([4]), np.ones((1, 4)))


def test_what_losses_predict_and_the_targets_that_they_see():
    z = np.array([[-1.0], [0], [2]])
    np.testing.assert_array_equal(BinaryLogistic().predict(z), [-1, -1, 1])
    np.testing.assert_array_equal(BinaryCrossEntropy().predict(z), [0, 0, 1])
    np.testing.assert_array_equal(BinaryCrossEntropy().predict(np.hstack([z, -z])), [[0, 1], [0, 0], [1, 0]])  # fmt: skip
    np.testing.assert_array_equal(SquaredError().predict(z), [-1, 0, 2])
    assert SquaredError().predict(np.hstack([z, z])).shape == (3, 2)
    np.testing.assert_array_equal(CrossEntropy().predict(np.array([[1, 3, 3.0]])), [1])
    y, wide = np.zeros(3), np.hstack([z, z])
    for loss, outputs, shape in (
        (SquaredError(), z, (3, 1)), (len, z, (3, 1)), (len, wide, (3,)),
        (CrossEntropy(), z, (3,)), (CrossEntropy(), wide, (3,)),
    ):  # fmt: skip
        assert shaped_targets(loss, outputs, y).shape == shape


def test_fit_takes_labels_of_every_dtype():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 5)), np.arange(300) % 26

    def trained(labels):
        data = Dataset(Split(x, labels, 1.0), classes=26 if labels.dtype.kind == "i" else None)
        model = Sequential(Linear(5, 26), rng=0, dtype="float64")
        fit(model, data, CrossEntropy(), SGD(model, lr=0.1), epochs=1, batch_size=300, rng=0)
        return model.theta

    expected = trained(y)
    for dtype in DTYPES:
        np.testing.assert_array_equal(trained(y.astype(dtype)), expected)
