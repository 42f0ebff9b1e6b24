"""Labels of every integer dtype and byte order: the same value, gradient and errors as int64."""

import numpy as np
import pytest

from minidl import (
    SGD,
    BinaryLogistic,
    CrossEntropy,
    Dataset,
    FenchelYoung,
    Linear,
    Perceptron,
    Sequential,
    SmoothedNLL,
    SquaredError,
    entmax15,
    fit,
    relumax,
    softmax,
    sparsemax,
)
from minidl.dataset import Split

DTYPES = [f"{order}{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8) for order in "<>"]
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

LOSSES = [
    CrossEntropy(),
    CrossEntropy("sum"),
    FenchelYoung(softmax),
    FenchelYoung(sparsemax),
    FenchelYoung(entmax15),
    SmoothedNLL(softmax, 0.01),
    SmoothedNLL(sparsemax, 0.01),
    SmoothedNLL(entmax15, 0.01),
    SmoothedNLL(relumax(5.0), 0.01),
    Perceptron(),
]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)

SIZES = [(64, 26)]
SIZES += [(n, k) for k in (2, 127, 128) for n in (1, 127, 128, 255, 256, 300)]
SIZES += [(3, k) for k in (129, 255, 256, 257, 300)]
LARGE = [(32767, 2), (32768, 2), (3, 32767), (3, 32768), (3, 65537)]


def assert_same(got, expected):
    assert got[0] == expected[0]
    np.testing.assert_array_equal(got[1], expected[1])


def same_as_int64(loss, dtype, n, k):
    y = np.arange(n) % min(k, np.iinfo(dtype).max + 1)
    y[-1] = min(k - 1, np.iinfo(dtype).max)  # the largest label that the dtype can hold
    z = np.random.default_rng(n + k).normal(size=(n, k)).astype(np.float32)
    expected = loss(z, y)
    assert_same(loss(z, y.astype(dtype)), expected)
    assert_same(loss(z, np.repeat(y, 2).astype(dtype)[::2]), expected)  # not contiguous


@every_loss
@every_dtype
def test_losses_are_the_same_as_with_int64(loss, dtype):
    for n, k in SIZES:
        same_as_int64(loss, dtype, n, k)


@every_dtype
@pytest.mark.parametrize("loss", [CrossEntropy(), FenchelYoung(sparsemax), Perceptron()], ids=repr)
def test_losses_of_many_rows_or_classes_are_the_same_as_with_int64(loss, dtype):
    for n, k in LARGE:
        same_as_int64(loss, dtype, n, k)


@every_loss
@every_dtype
def test_labels_outside_are_refused(loss, dtype):
    limits = np.iinfo(dtype)
    for k in (2, 100, 127, 128, 255, 256, 300, 32767, 32768, 65536, 70_000):
        z = np.zeros((3, k), np.float32)
        for wrong in {-1, limits.min, k, limits.max}:
            if limits.min <= wrong <= limits.max and not 0 <= wrong < k:
                y = np.array([0, wrong, 0], dtype)
                with pytest.raises(
                    ValueError, match=rf"0\.\.{k - 1}, got y\[1\] = {wrong}; Dataset.from_labels"
                ):
                    loss(z, y)


@every_loss
@every_dtype
def test_one_hot_distributions_of_every_dtype(loss, dtype):
    z, y = np.random.default_rng(0).normal(size=(130, 4)), np.arange(130) % 4
    one_hot = np.eye(4)[y]
    if isinstance(loss, Perceptron):
        with pytest.raises(ValueError, match=r"Perceptron: expected y of shape \(n,\)"):
            loss(z, one_hot.astype(dtype))
        return
    for kind in (dtype, "<f4", ">f4", "<f8", ">f8", "<f2", ">f2"):
        assert_same(loss(z, one_hot.astype(kind)), loss(z, one_hot))
    z, y = np.zeros((1, 257)), np.ones((1, 257), dtype)  # the sum is 1 modulo 256
    with pytest.raises(ValueError, match=r"got y\[0\] with sum 257"):
        loss(z, y)


@every_dtype
def test_labels_of_the_logistic_loss(dtype):
    z, y = np.array([[0.3], [-2.0]], np.float32), np.array([1, -1 if "i" in dtype else 1], dtype)
    loss = BinaryLogistic()
    if "u" in dtype:  # it cannot hold -1
        native = np.dtype(dtype).newbyteorder("=")
        with pytest.raises(
            TypeError,
            match=rf"labels -1 and \+1, got dtype {native}; BinaryCrossEntropy takes 0 and 1$",
        ):
            loss(z, y)
        return
    assert_same(loss(z, y), loss(z, y.astype(np.int64)))
    np.testing.assert_array_equal(
        loss.second_derivative(z, y), loss.second_derivative(z, y.astype(np.int64))
    )
    least = np.iinfo(dtype).min  # equal to its own absolute value
    for wrong in (0, 2, least):
        with pytest.raises(
            ValueError, match=rf"got y\[1\] = {wrong}; BinaryCrossEntropy takes 0 and 1$"
        ):
            loss(z, np.array([1, wrong], dtype))


@every_dtype
def test_targets_of_the_squared_error(dtype):
    z, y = np.linspace(-1, 1, 300, dtype=np.float32)[:, None], np.arange(300) % 128
    assert_same(SquaredError()(z, y.astype(dtype)), SquaredError()(z, y.astype(np.float32)))


@every_dtype
def test_fit_on_splits_that_are_passed_as_they_are(dtype):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 5)), np.arange(300) % 26

    def trained(labels):
        data = Dataset(Split(x, labels, 1.0), classes=26 if labels.dtype.kind == "i" else None)
        model = Sequential(Linear(5, 26), rng=0, dtype="float64")
        fit(model, data, CrossEntropy(), SGD(model, lr=0.1), epochs=1, batch_size=300, rng=0)
        return model.theta

    np.testing.assert_array_equal(trained(y.astype(dtype)), trained(y))


@every_dtype
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_no_examples(loss, dtype):
    for k in (1, 127, 128, 300, 1000):
        value, dz = loss(np.zeros((0, k)), np.zeros(0, dtype))
        assert (value, dz.shape) == (0, (0, k))
