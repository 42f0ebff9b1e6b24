"""Metrics: by hand, with weights, ends, and which loss has which."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl import (
    CrossEntropy,
    FenchelYoung,
    Perceptron,
    SmoothedNLL,
    SquaredError,
    relumax,
    sparsemax,
)
from minidl.evaluation import (
    accuracy,
    check_loss,
    checked_loss,
    exact_match,
    exp_r2,
    mean_accuracy,
    metrics_of,
    r2,
    sign_accuracy,
)
from minidl.testing.catalogue import LOSSES

Z = np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 0.0], [-1.0, -2.0, 0.5]])
LABELS = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 1]])
CASES = [
    (accuracy, Z, np.array([1, 1, 2]), 2 / 3),  # of tied outputs the first is predicted
    (accuracy, Z, np.array([1, 1, 2], ">u2"), 2 / 3),
    (accuracy, Z, np.array([[0.1, 0.7, 0.2], [0.4, 0.5, 0.1], [0, 0, 1]]), 2 / 3),
    (sign_accuracy, Z[:, :1], np.array([1, -1, -1]), 2 / 3),
    (sign_accuracy, np.zeros((3, 1)), np.array([[1], [-1], [-1]]), 2 / 3),
    (exact_match, Z, LABELS, 1 / 3),
    (exact_match, Z, LABELS > 0, 1 / 3),
    (exact_match, Z, 0.4 + 0.2 * LABELS, 1 / 3),
    (mean_accuracy, Z, LABELS, 7 / 9),
    (mean_accuracy, Z[:, :1], np.array([1, 0, 0]), 2 / 3),
]


@pytest.mark.parametrize(("metric", "outputs", "y", "expected"), CASES)
def test_by_hand(metric, outputs, y, expected):
    assert metric(outputs, y) == pytest.approx(expected, rel=1e-15)
    assert type(metric(outputs, y)) is float


def test_r2_by_hand():
    # The first two are examples of sklearn.metrics.r2_score's documentation.
    z, y = np.array([[2.5], [0.0], [2], [8]]), np.array([3, -0.5, 2, 7])
    assert r2(z, y) == pytest.approx(0.9486081370449679, rel=1e-14)
    z, y = np.array([[0, 2], [-1, 2], [8, -5]]), np.array([[0.5, 1], [-1, 1], [7, -6]])
    first, second = 1 - 1.25 / (50.25 - 6.5**2 / 3), 1 - 3 / (38 - 16 / 3)
    assert r2(z, y) == pytest.approx((first + second) / 2, rel=1e-14)
    assert r2(np.array([[2], [2], [2]]), np.array([1, 2, 3])) == 0
    assert r2(np.array([[3], [2], [1]]), np.array([1, 2, 3])) == -3


def test_r2_of_constant_targets():
    y = np.full(3, 0.1)  # the mean of three is not 0.1, so the sum of squares is not 0
    assert r2(y[:, None], y) == 1
    assert r2(y[:, None] + 1e-9, y) == 0
    assert math.isnan(r2(np.ones((1, 1)), np.ones(1)))


@given(n=st.integers(2, 8), seed=st.integers(0, 2**31), integer=st.booleans())
def test_a_weight_counts_as_the_example_repeated(n, seed, integer):
    rng = np.random.default_rng(seed)
    weight = rng.integers(0, 4, n)
    weight[:2] += 1
    z, labels = rng.normal(size=(n, 3)), rng.integers(0, 2, (n, 3))
    for metric, y in (
        (accuracy, rng.integers(0, 3, n)),
        (exact_match, labels),
        (mean_accuracy, labels),
        (r2, rng.normal(size=(n, 3))),
    ):
        repeated = metric(np.repeat(z, weight, axis=0), np.repeat(y, weight, axis=0))
        scaled = weight if integer else weight * 1e300
        assert metric(z, y, scaled) == pytest.approx(repeated, rel=1e-12, abs=1e-12)
        assert metric(z, y) == pytest.approx(metric(z, y, np.full(n, 0.1)), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    "metric", [accuracy, sign_accuracy, exact_match, mean_accuracy, r2, exp_r2]
)
def test_nothing_to_measure_is_nan(metric):
    assert math.isnan(metric(np.zeros((0, 1)), np.zeros(0)))
    assert math.isnan(metric(np.zeros((2, 1)), np.ones(2), np.zeros(2)))


@pytest.mark.parametrize(
    "metric", [accuracy, sign_accuracy, exact_match, mean_accuracy, r2, exp_r2]
)
def test_errors(metric):
    name = metric.__name__
    with pytest.raises(ValueError, match=rf"^{name}: expected outputs of shape \(n, K\), got \(2,"):
        metric(np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match=rf"^{name}: expected y of shape .*, got \(3,\)"):
        metric(np.zeros((2, 1)), np.zeros(3))
    with pytest.raises(ValueError, match=rf"^{name}: expected finite weights .* weight\[1\] = -1"):
        metric(np.zeros((2, 1)), np.zeros(2), np.array([1, -1]))


def test_each_loss_names_its_metrics():
    found = {name: [f"{k}: {f.__name__}" for k, f in metrics_of(e.loss).items()] for name, e in LOSSES.items()}  # fmt: skip
    for name, named in found.items():
        expected = {
            "BinaryLogistic": ["accuracy: sign_accuracy"],
            "BinaryCrossEntropy": ["exact_match: exact_match", "mean_accuracy: mean_accuracy"],
            "SquaredError": ["r2: r2"],
            "AbsoluteError": ["r2: r2"],
            "Huber": ["r2: r2"],
            "Poisson": ["r2: exp_r2"],
            "Quantile": [],
        }.get(name.partition(",")[0], ["accuracy: accuracy"])
        assert named == expected, name


@pytest.mark.parametrize(
    "given", [("r2",), ["r2"], {"r2": "r2"}, {"r2": r2}], ids=["tuple", "list", "name", "function"]
)
def test_an_own_loss_names_metrics_or_gives_functions(given):
    class Own(minidl.losses.ReducedLoss):
        metrics = given

        def per_example(self, logits, y):
            return np.square(logits - y), 2 * (logits - y)

    x = np.random.default_rng(0).normal(size=(9, 2))
    model, y = minidl.Sequential(minidl.Linear(2, 1), rng=0, dtype="float64"), x[:, 0]
    assert minidl.evaluate(model, (x, y), Own())["r2"] == r2(minidl.outputs(model, x), y)
    data, sgd = minidl.Dataset((x, y), (x, y)), minidl.SGD(model, 0.1)
    history = minidl.fit(model, data, Own(), sgd, epochs=1, rng=0, monitor="valid_r2")
    assert np.isfinite(history.column("valid_r2")).all()


def test_a_metric_that_is_not_known_is_named():
    class Own(minidl.CrossEntropy):
        metrics = ("acuracy",)

    model = minidl.Sequential(minidl.Linear(2, 2), rng=0)
    with pytest.raises(ValueError, match=r"Own\(.*expected metric 'accuracy' or .*, got 'acuracy'"):
        minidl.evaluate(model, (np.ones((3, 2)), np.zeros(3, int)), Own())


def test_probabilities():
    z = np.array([[0.5, -1.0, 2.0], [0.0, 0.0, 1000.0]])
    for loss, map in (
        (CrossEntropy(), minidl.softmax),
        (FenchelYoung(sparsemax), sparsemax),
        (SmoothedNLL(relumax(2)), relumax(2)),
    ):
        np.testing.assert_array_equal(loss.probabilities(z), map(z))
    for loss in (minidl.BinaryLogistic(), minidl.BinaryCrossEntropy()):
        np.testing.assert_allclose(loss.probabilities(z), 1 / (1 + np.exp(-z)), rtol=1e-15)
        assert loss.probabilities(np.array([[-1000.0]], np.float32)).dtype == np.float32
    for loss in (Perceptron(), minidl.SquaredError(), minidl.Quantile(0.5)):
        with pytest.raises(TypeError, match=f"{type(loss).__name__}.* has no probabilities"):
            loss.probabilities(z)


@pytest.mark.parametrize(
    "metric", [accuracy, sign_accuracy, exact_match, mean_accuracy, r2, exp_r2]
)
@given(n=st.integers(2, 6), k=st.integers(1, 3), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_outputs_with_nan_have_no_metric(metric, n, k, seed):
    rng = np.random.default_rng(seed)
    k = 1 if metric is sign_accuracy else k
    z = rng.normal(size=(n, k))
    y = rng.integers(0, k, n) if metric is accuracy else rng.integers(0, 2, (n, k))
    bad = rng.integers(0, n)
    z[bad, rng.integers(0, k)] = math.nan
    assert math.isnan(metric(z, y))
    assert math.isnan(metric(z, np.zeros_like(y)))  # of constant targets, too
    weight = np.ones(n + 2)
    weight[bad] = 0  # an example of weight 0 counts as absent
    z, y = np.concatenate([z, np.zeros((2, k))]), np.concatenate([y, y[:2]])
    assert math.isfinite(metric(z, y, weight))


@pytest.mark.parametrize(
    "value",
    [None, "0.5", np.ones(2), np.ones((3, 1)), [0.1, 0.2], (), 1j, {}],
    ids=repr,
)
def test_a_metric_that_returns_no_number_is_named(value):
    x = np.ones((3, 2))
    data, model = minidl.Dataset((x, x[:, 0])), minidl.Sequential(minidl.Linear(2, 1), rng=0)
    loss, metrics = minidl.SquaredError(), {"mine": lambda z, y: value}
    with pytest.raises(TypeError, match="metric 'mine': expected it to return a number, got"):
        minidl.evaluate(model, data.train, loss, metrics)
    with pytest.raises(TypeError, match="data: train: metric 'mine'"):
        minidl.fit(model, data, loss, minidl.SGD(model, 0.1), epochs=1, rng=0, metrics=metrics)


@pytest.mark.parametrize("value", [1, 0.5, True, np.float32(0.5), np.int64(3), np.array(0.5), np.array([0.5]), np.bool_(True)], ids=repr)  # fmt: skip
def test_a_metric_returns_any_number(value):
    model = minidl.Sequential(minidl.Linear(2, 1), rng=0)
    data = np.ones((3, 2)), np.ones(3)
    figures = minidl.evaluate(model, data, minidl.SquaredError(), {"mine": lambda z, y: value})
    assert figures["mine"] == float(np.ravel(value)[0])


def test_what_a_loss_returns_is_checked():
    z, y = np.ones((3, 2), np.float32), np.zeros(3, int)
    assert checked_loss(CrossEntropy(), z, y)[0] == CrossEntropy()(z, y)[0]
    for loss, error, message in (
        (lambda z, y: 1.0, TypeError, "to return value, dlogits"),
        (lambda z, y: (1.0, z, z), TypeError, "to return value, dlogits"),
        (lambda z, y: [1.0, z], TypeError, "to return value, dlogits"),
        (lambda z, y: (1j, z), TypeError, "its value to be a number"),
        (lambda z, y: (np.ones(1), z), TypeError, "its value to be a number"),
        (lambda z, y: (None, z), TypeError, "its value to be a number"),
        (lambda z, y: (1.0, z.tolist()), (TypeError, ValueError), "expected dlogits"),
        (lambda z, y: (1.0, z.astype(float)), (TypeError, ValueError), "expected dlogits"),
        (lambda z, y: (1.0, z[:2]), ValueError, r"the shape of the logits, \(3, 2\)"),
    ):
        with pytest.raises(error, match=message):
            checked_loss(loss, z, y)


def test_a_weighted_loss_divides_by_the_sum_of_the_weights():
    z, y, weight = np.ones((3, 1)), np.zeros(3), np.array([1.0, 2, 3])
    check_loss(SquaredError(), z, y)
    check_loss(SquaredError(), z, y, weight)
    check_loss(SquaredError("sum"), z, y, weight)  # it says so
    check_loss(lambda z, y, w: (math.inf, z), z, y, weight)  # nothing to compare
    with pytest.raises(ValueError, match="expected the weighted mean"):
        check_loss(lambda z, y, w: SquaredError("sum")(z, y, w), z, y, weight)
