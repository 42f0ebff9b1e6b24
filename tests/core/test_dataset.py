"""Data sets of any targets: the loss decides the task, and says which metric describes success."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

import minidl
from minidl import (
    Adam,
    BinaryCrossEntropy,
    BinaryLogistic,
    CrossEntropy,
    Dataset,
    Linear,
    ReLU,
    Sequential,
    SquaredError,
    Standardize,
)
from minidl.testing.catalogue import LOSSES


def parts(x, y, seed=0):
    """Three parts of 60, 20 and 20 per cent."""
    order = np.random.default_rng(seed).permutation(len(x))
    cuts = np.split(order, [int(0.6 * len(x)), int(0.8 * len(x))])
    return [(x[rows], y[rows]) for rows in cuts]


def network(features, out, dtype="float32"):
    return Sequential(Linear(features, 32), ReLU(), Linear(32, out), rng=0, dtype=dtype)


def train(data, loss, out, epochs=40, **options):
    model = network(data.features, out)
    history = minidl.fit(model, data, loss, Adam(model, 3e-3), epochs=epochs, batch_size=32, rng=0, **options)  # fmt: skip
    return model, history


# ---------------------------------------------------------------- the loss decides


def test_integers_are_the_targets_of_a_regression_if_the_loss_says_so():
    x, y = load_diabetes(return_X_y=True)
    y = np.round(y / 10).astype(int)  # 3 to 35
    data = Standardize().fit_transform(Dataset(*parts(x, y)))
    model, history = train(data, SquaredError(), 1, restore_best=True)
    assert history.monitor == "valid_loss"
    assert history.best.epoch > 0
    assert history.best.valid_loss == min(history.column("valid_loss"))
    assert "valid_accuracy" not in history[0].metrics
    figures = minidl.evaluate(model, data.splits["test"], SquaredError())
    assert set(figures) == {"loss", "r2"}
    untrained = minidl.evaluate(network(10, 1), data.splits["test"], SquaredError())
    assert figures["r2"] > 0 > untrained["r2"]  # 0 is the mean of the targets
    residual = minidl.outputs(model, data.test)[:, 0] - data.test.y
    assert figures["r2"] == pytest.approx(1 - np.sum(residual**2) / np.sum((data.test.y - data.test.y.mean()) ** 2))  # fmt: skip


def test_validation_targets_of_a_regression_may_exceed_those_of_training():
    x, y = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30)
    data = Dataset((x[:20], y[:20]), (x[20:], y[20:]))
    train(data, SquaredError(), 1, epochs=1)
    with pytest.raises(ValueError, match=r"data: valid: CrossEntropy: expected labels in 0\.\.19, got y\[0\] = 20"):  # fmt: skip
        train(data, CrossEntropy(), 20, epochs=1)


def test_labels_of_one_logit_are_signs():
    x, y = load_breast_cancer(return_X_y=True)
    data = Standardize().fit_transform(Dataset(*parts(x, 2 * y - 1)))
    _, history = train(data, BinaryLogistic(), 1, epochs=10)
    assert history.monitor == "valid_accuracy"
    assert history.best.valid_accuracy > 0.93


def test_several_labels():
    x, y = load_wine(return_X_y=True)
    labels = np.stack([y == 0, y == 2, x[:, 0] > 13], axis=1)  # booleans (n, 3)
    data = Standardize().fit_transform(Dataset(*parts(x, labels)))
    model, history = train(data, BinaryCrossEntropy(), 3, restore_best=True)
    assert history.monitor == "valid_loss"
    predicted = minidl.outputs(model, data.valid) > 0
    best = history.best
    assert best.valid_exact_match == np.mean((predicted == data.valid.y).all(axis=1))
    assert best.valid_mean_accuracy == pytest.approx(np.mean(predicted == data.valid.y))
    assert best.valid_exact_match > 0.75


def test_distributions():
    x, y = load_wine(return_X_y=True)
    data = Standardize().fit_transform(Dataset(*parts(x, y))).smoothed(0.1)
    np.testing.assert_allclose(data.train.y.sum(axis=1), 1, rtol=1e-6)
    assert data.train.y.max() == pytest.approx(0.9 + 0.1 / 3)
    assert set(np.unique(data.valid.y)) == {0, 1}
    _, history = train(data, CrossEntropy(), 3)
    assert history.best.valid_accuracy > 0.9


@pytest.mark.parametrize(
    ("y", "loss", "message"),
    [
        (np.linspace(0, 1, 8), CrossEntropy(), "train: CrossEntropy: expected integer labels"),
        (np.arange(8), BinaryLogistic(), "train: BinaryLogistic: expected labels -1 and \\+1"),
        (np.arange(8) - 1, minidl.Perceptron(), r"train: Perceptron: expected labels in 0\.\.1, got y\[0\] = -1"),
        (np.zeros((8, 2), int), CrossEntropy(), "train: CrossEntropy: expected distributions"),
        (np.full((8, 2), 3), BinaryCrossEntropy(), "train: BinaryCrossEntropy: expected"),
        (np.zeros((8, 3)), SquaredError(), "train: SquaredError: expected y of"),
    ],
)  # fmt: skip
def test_targets_that_a_loss_does_not_take_are_refused_before_training(y, loss, message):
    out = 1 if isinstance(loss, BinaryLogistic) else 2
    model = network(2, out)
    before = model.theta.copy()
    with pytest.raises((TypeError, ValueError), match=message):
        minidl.fit(model, Dataset((np.ones((8, 2)), y)), loss, Adam(model), epochs=1, rng=0)
    np.testing.assert_array_equal(model.theta, before)


# ---------------------------------------------------------------- own metrics


def test_metrics_of_the_user_are_kept_in_the_history(tmp_path):
    x, y = load_wine(return_X_y=True)
    data = Standardize().fit_transform(Dataset(*parts(x, y)))

    def recall_of_2(outputs, y):
        return np.mean(outputs.argmax(axis=1)[y == 2] == 2)

    model, history = train(data, CrossEntropy(), 3, epochs=5, metrics={"recall": recall_of_2}, monitor="valid_recall", restore_best=True)  # fmt: skip
    assert history.best.valid_recall == max(history.column("valid_recall"))
    assert history.best.valid_recall == recall_of_2(minidl.outputs(model, data.valid), data.valid.y)
    history.to_csv(tmp_path / "h.csv")
    assert "train_recall" in (tmp_path / "h.csv").read_text().splitlines()[0].split(",")
    assert minidl.History.from_dict(history.to_dict()).records == history.records
    history.plot(tmp_path / "h.png")


# ---------------------------------------------------------------- labels of any kind


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (np.array(["dog", "cat", "cat", "owl"]), ["cat", "dog", "owl"]),
        (["dog", "cat", "cat", "owl"], ["cat", "dog", "owl"]),
        (np.array(["dog", "cat", "cat", "owl"], dtype=object), ["cat", "dog", "owl"]),
        (np.array([7, -3, -3, 1000]), [-3, 7, 1000]),
        (np.array([7, 3, 3, 200], ">u2"), [3, 7, 200]),
        (np.array([True, False, False, True]), [False, True]),
    ],
)
def test_labels_of_any_kind_are_mapped(y, names):
    data = Dataset.from_labels((np.eye(4), y), (np.eye(4)[:2], y[:2]))
    assert data.classes == len(names)
    assert data.class_names.tolist() == names
    assert data.class_names[data.train.y].tolist() == list(y)
    assert data.class_names[data.valid.y].tolist() == list(y[:2])
    assert data.sample(train=2).class_names is data.class_names


@pytest.mark.parametrize(
    ("train", "valid", "error", "message"),
    [
        (["a", "b"], ["a", "c"], ValueError, r"valid: expected the labels of the training part, \['a', 'b'\], got y\[1\] = c"),
        ([1, 2], [2, 3], ValueError, r"valid: .* \[1, 2\], got y\[1\] = 3"),
        ([1, 2], ["x", "y"], ValueError, r"valid: expected the labels"),
        ([0.5, 1.5], None, TypeError, "train: expected labels .* of integers, strings or booleans"),
        ([None, "a"], None, TypeError, r"train: expected labels \(n,\) of .*, got object \(2,\): .*None"),
        (np.eye(2, dtype=int), None, TypeError, "train: expected labels"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_mapped(train, valid, error, message):
    x = np.eye(2)
    with pytest.raises(error, match=message):
        Dataset.from_labels((x, train), None if valid is None else (x, valid))


@pytest.mark.parametrize("y", [["a", "b"], np.array(["a", "b"], object)])
def test_other_labels_are_refused(y):
    with pytest.raises(TypeError, match=r"data: train: expected y of real numbers, got dtype"):
        Dataset((np.eye(2), y))


@pytest.mark.parametrize("dtype", ["<i2", ">i2", ">i8", ">u4", "u1", "u8"])
def test_labels_of_every_byte_order_train(dtype):
    y = (np.arange(40) % 3).astype(dtype)
    x = np.eye(3)[np.arange(40) % 3].astype(">f4")
    _, history = train(Dataset((x, y), (x, y)), CrossEntropy(), 3, epochs=20)
    assert history[-1].valid_accuracy == 1


# ---------------------------------------------------------------- weights


def test_class_weights_move_the_decision():
    rng = np.random.default_rng(0)
    y = (rng.random(600) < 0.05).astype(int)
    x = rng.normal(size=(600, 2)) + 1.2 * y[:, None]
    data = Dataset((x[:400], y[:400]), (x[400:], y[400:]))
    recalls = []
    for each in (data, data.weighted("balanced"), data.weighted({1: 40.0})):
        model, _ = train(each, CrossEntropy(), 2, epochs=15)
        predicted = minidl.outputs(model, data.valid).argmax(axis=1)
        recalls.append(np.mean(predicted[data.valid.y == 1] == 1))
    assert recalls[0] < recalls[1] <= recalls[2]
    balanced = data.weighted("balanced").train
    sums = [balanced.weight[balanced.y == k].sum() for k in (0, 1)]
    np.testing.assert_allclose(sums, [200, 200])


def test_weights_and_repeated_examples_are_the_same():
    rng = np.random.default_rng(0)
    x, y, counts = rng.normal(size=(20, 3)), rng.integers(0, 3, 20), rng.integers(1, 4, 20)
    weighted = Dataset((x, y, counts))
    repeated = Dataset((np.repeat(x, counts, axis=0), np.repeat(y, counts)))
    models = []
    for data in (weighted, repeated):
        model = Sequential(Linear(3, 3), rng=0, dtype="float64")
        history = minidl.fit(model, data, CrossEntropy(), minidl.SGD(model, 0.1), epochs=5, batch_size=100, rng=0)  # fmt: skip
        models.append((model.theta.copy(), history.column("train_loss"), history.column("train_accuracy")))  # fmt: skip
    np.testing.assert_allclose(models[0][0], models[1][0], rtol=1e-12)
    np.testing.assert_allclose(models[0][1:], models[1][1:], rtol=1e-12)


def test_weights_go_with_their_examples(tmp_path):
    x, y, w = np.arange(12.0)[:, None], np.arange(12) % 2, np.arange(12.0)
    data = Dataset((x, y, w))
    for each in (
        data,
        data.sample(train=5),
        data.map(lambda rows: rows),
        minidl.data.mapped(data, tmp_path),
    ):
        np.testing.assert_array_equal(each.train.x[:, 0], each.train.weight)
        for rows, _, weight in each.train.batches(2, np.random.default_rng(0)):
            np.testing.assert_array_equal(rows[:, 0], weight)
            assert weight.all()
    assert data.checksum() != Dataset((x, y)).checksum()
    assert data.checksum() != Dataset((x, y, w + 1)).checksum()


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0], r"expected weight of shape \(2,\), got \(1,\)"),
        ([1.0, -1.0], r"expected finite weights that are not negative, got weight\[1\] = -1"),
        ([np.nan, 1], r"expected finite weights .* got weight\[0\] = nan"),
        ([0.0, 0.0], "expected a weight above 0"),
        (["a", "b"], "expected weight of real numbers"),
    ],
)
def test_bad_weights(weight, message):
    with pytest.raises((TypeError, ValueError), match=f"data: train: {message}"):
        Dataset((np.eye(2), [0, 1], weight))


def test_bad_class_weights():
    data = Dataset((np.eye(2), [0, 1]))
    with pytest.raises(ValueError, match="class_weight: no class 2"):
        data.weighted({2: 1.0})
    with pytest.raises(ValueError, match="expected class_weight as a mapping or 'balanced', got 'even'"):  # fmt: skip
        data.weighted("even")
    with pytest.raises(TypeError, match="class weights need labels"):
        Dataset((np.eye(2), [0.5, 1])).weighted("balanced")
    with pytest.raises(TypeError, match="label smoothing needs labels"):
        Dataset((np.eye(2), [0.5, 1])).smoothed(0.1)
    with pytest.raises(ValueError, match=r"^mine: expected eps .* got 2"):
        Dataset((np.eye(2), [0, 1]), name="mine").smoothed(2)


@pytest.mark.parametrize("shape", [(2,), (2, 0), (2, 0, 3), (2, 3, 0)])
def test_rows_have_features(shape):
    with pytest.raises(ValueError, match=r"data: train: expected x of shape \(n, features\), got"):
        Dataset((np.zeros(shape), [0, 1]))


def own_loss(z, y, weight=None):
    """The squared error of one output, as a plain function."""
    weight = np.ones(len(z)) if weight is None else weight
    share = (weight / weight.sum()).astype(z.dtype)[:, None]
    error = z - y.reshape(z.shape)
    return float((share * error**2).sum() / 2), share * error


OBJECTIVES = {name: (entry.loss, entry.targets, entry.outputs or 4) for name, entry in LOSSES.items()}  # fmt: skip
OBJECTIVES["own"] = own_loss, lambda rng, z: z[:, 0], 1


@pytest.mark.parametrize("name", OBJECTIVES)
@given(size=st.integers(1, 12), seed=st.integers(0, 99), weighted=st.booleans())
@settings(max_examples=8)
def test_weights_have_their_full_effect_in_batches_of_any_size(name, size, seed, weighted):
    """The gradients of an epoch add up to that of the repeated examples; so do the losses."""
    loss, targets, outputs = OBJECTIVES[name]
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(11, 3))
    y = targets(rng, x @ rng.normal(size=(3, outputs)))
    twice = rng.choice([0, 1, 2, 6], 11) if weighted else np.full(11, 2)
    twice[0] = 2
    data = Dataset((x, y, twice / 2)) if weighted else Dataset((x, y))
    model, seen = Sequential(Linear(3, outputs), rng=seed, dtype="float64"), []

    class Add(minidl.Callback):
        def on_gradient(self, run):
            n = min(size, used - size * len(seen))
            seen.append(run.model.grad * (1 if is_sum else n))

    used, is_sum = np.count_nonzero(twice), getattr(loss, "reduction", "mean") == "sum"
    history = minidl.fit(model, data, loss, minidl.SGD(model, 0.0), epochs=1, batch_size=size, rng=seed, callbacks=[Add()])  # fmt: skip
    assert len(seen) == -(-used // size)
    logits, backward = model.forward(np.repeat(x, twice, axis=0), train=True)
    value, dlogits = loss(logits, np.repeat(y, twice, axis=0))
    backward(dlogits)
    scale = 0.5 if is_sum else used
    np.testing.assert_allclose(sum(seen), scale * model.grad, rtol=1e-10, atol=1e-10)
    assert history[1].train_loss == pytest.approx(0.5 * value if is_sum else value, rel=1e-10)
    assert history[1].train_loss == pytest.approx(history[0].train_loss, rel=1e-10)


def weighted_classes(n=60, classes=3, **options):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 5))
    weight = rng.choice([0, 0.5, 1, 3], n)
    return Dataset((x, (x @ rng.normal(size=(5, classes))).argmax(axis=1), weight), **options)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy("sum"), minidl.Perceptron(), minidl.FenchelYoung(minidl.sparsemax)], ids=repr)  # fmt: skip
def test_online_sgd_weights_each_example(decay, loss):
    """Every kind of block takes the steps of fit with batches of one, also side by side."""
    data = weighted_classes()

    def networks():
        hidden = [], [Linear(5, 4), ReLU()], [Linear(5, 4), minidl.Tanh()]
        inputs = 5, 4, 4
        return [Sequential(*h, Linear(i, 3), rng=0, dtype="float64") for h, i in zip(hidden, inputs, strict=True)]  # fmt: skip

    plain, expected = networks(), []
    for slow in plain:
        sgd = minidl.SGD(slow, 0.1, weight_decay=decay)
        expected += minidl.fit(slow, data, loss, sgd, epochs=2, batch_size=1, rng=0)[2:]
    for block in (2, 7, 64):
        together = [minidl.OnlineRun(m, 0.1, decay) for m in networks()]
        linear = [minidl.OnlineRun(networks()[0], lr, decay) for lr in (0.1, 0.2)]
        for runs in (together, linear):
            minidl.fit_side_by_side(runs, data, loss, epochs=2, block_size=block, rng=0)
        np.testing.assert_allclose(linear[0].model.theta, together[0].model.theta, rtol=1e-9)
        for slow, last, fast, run in zip(plain, expected, networks(), together, strict=True):
            history = minidl.fit_online(fast, data, loss, lr=0.1, weight_decay=decay, epochs=2, block_size=block, rng=0)  # fmt: skip
            for model, record in ((fast, history[2]), (run.model, run.history[2])):
                np.testing.assert_allclose(model.theta, slow.theta, rtol=1e-9, atol=1e-11)
                assert record.train_loss == pytest.approx(last.train_loss, rel=1e-9)


@pytest.mark.parametrize("how", ["fit", "online", "order"])
def test_rows_of_weight_0_are_left_out(how):
    data = weighted_classes(n=61)
    split, kept = data.train, data.train.weight > 0
    models = []
    for x, y, w in ((split.x, split.y, split.weight), (split.x[kept], split.y[kept], split.weight[kept])):  # fmt: skip
        each = Dataset((x, y, w))
        norm = [] if how != "fit" else [minidl.BatchNorm(5)]
        model = Sequential(*norm, Linear(5, 3), rng=0, dtype="float64")
        if how == "fit":
            minidl.fit(model, each, CrossEntropy(), minidl.Adam(model), epochs=2, batch_size=4, rng=0)  # fmt: skip
        else:
            rng = 0 if how == "online" else iter([np.arange(len(x))] * 2)
            minidl.fit_online(model, each, CrossEntropy(), lr=0.1, epochs=2, rng=rng)
        models.append(model.state_dict())
    for name, value in models[0].items():
        np.testing.assert_array_equal(value, models[1][name])


@pytest.mark.parametrize("unit", [1e-300, 1e307])
@pytest.mark.parametrize("online", [False, True])
def test_the_unit_of_weights_does_not_matter(unit, online):
    thetas = []
    for scale in (1.0, unit):
        train = weighted_classes().train
        data = Dataset((train.x, train.y, train.weight * scale))
        model = Linear(5, 3, rng=0, dtype="float64")
        if online:
            minidl.fit_online(model, data, CrossEntropy(), lr=0.1, epochs=2, rng=0)
        else:
            minidl.fit(model, data, CrossEntropy(), minidl.SGD(model, 0.1), epochs=2, batch_size=7, rng=0)  # fmt: skip
        thetas.append(model.theta)
    np.testing.assert_allclose(thetas[0], thetas[1], rtol=1e-12)


@pytest.mark.parametrize("block", [None, 1, 16])
@pytest.mark.parametrize("parts", [("train",), ()])
def test_an_own_loss_that_does_not_divide_by_the_weights(block, parts):
    data, model = weighted_classes(classes=2), Linear(5, 2, rng=0, dtype="float64")

    def loss(z, y, weight):
        return CrossEntropy("sum")(z, y, weight)

    def go():
        options = {"epochs": 1, "rng": 0, "parts": parts}
        if block is not None:
            return minidl.fit_online(model, data, loss, lr=1e-300, block_size=block, **options)
        return minidl.fit(model, data, loss, minidl.SGD(model, 0.0), batch_size=7, **options)

    with pytest.raises(ValueError, match=r"loss: expected the weighted mean, .* doubled, got .*; one that sums has reduction"):  # fmt: skip
        go()
    loss.reduction = "sum"
    history, wanted = go(), minidl.evaluate(model, data.train, loss)["loss"]
    assert history[1].train_loss == pytest.approx(wanted)


@pytest.mark.parametrize("loss", [CrossEntropy(), SquaredError()])
def test_online_sgd_takes_targets_of_any_shape(loss):
    """Distributions and several outputs, as the plain loop of fit."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.dirichlet(np.ones(3), 30)
    data = Dataset((x, y))
    models = [Sequential(Linear(4, 5), ReLU(), Linear(5, 3), rng=0, dtype="float64") for _ in "ab"]
    minidl.fit_online(models[0], data, loss, lr=0.1, epochs=2, rng=0)
    minidl.fit(models[1], data, loss, minidl.SGD(models[1], 0.1), epochs=2, batch_size=1, rng=0)
    np.testing.assert_allclose(models[0].theta, models[1].theta, rtol=1e-10)


def test_online_sgd_checks_labels_when_it_resumes():
    data = Dataset((np.eye(3), [0, 1, 2]), classes=3)
    model, history = Linear(3, 2, rng=0), minidl.History()
    small = Dataset((np.eye(3), [0, 1, 1]))
    minidl.fit_online(model, small, CrossEntropy(), lr=0.1, epochs=1, rng=0, history=history)
    with pytest.raises(ValueError, match=r"CrossEntropy: expected labels in 0\.\.1, got y\[2\] = 2"):  # fmt: skip
        minidl.fit_online(model, data, CrossEntropy(), lr=0.1, epochs=2, rng=0, history=history)


# ---------------------------------------------------------------- one shape for outputs and targets


def seen_shapes(loss, y, out, how):
    """Return the shapes of the outputs and targets that the loss and a metric get."""
    seen = set()
    rows, parts = np.random.default_rng(0).normal(size=(len(y), 3)), []

    class Watched(type(loss) if isinstance(loss, minidl.losses.ReducedLoss) else minidl.losses.ReducedLoss):  # fmt: skip
        def __init__(self):  # without super().__init__()
            given = self._given  # how this object was made, not the other one
            vars(self).update(vars(loss) if isinstance(loss, minidl.losses.ReducedLoss) else {})
            self._given = given

        def __call__(self, z, y, weight=None):
            seen.add((z.ndim, z.shape[1:], y.shape[1:], y.ndim))
            return super().__call__(z, y, weight)

        if loss is None:

            def per_example(self, z, y):
                return (z - z), np.zeros_like(z)

    def metric(z, y):
        parts.append(y.shape[1:])
        return 0.0

    used, data = Watched(), Dataset((rows, y), (rows, y))
    model = Sequential(Linear(3, out), rng=0)
    if how == "check":
        minidl.testing.checks.check_loss(used, np.asarray(model(rows.astype("f4")), "f8"), y)
    else:
        options = {"epochs": 1, "rng": 0, "metrics": {"mine": metric}}
        if how == "fit":
            minidl.fit(model, data, used, minidl.SGD(model, 0.1), batch_size=4, **options)
        else:
            minidl.fit_online(model, data, used, lr=0.1, block_size=int(how), **options)
    (shape,) = {found[2] for found in seen}
    assert set(parts) <= {shape}
    return shape


FLOATS, LABELS, SIGNS = np.arange(8) / 8, np.arange(8) % 2, 2 * (np.arange(8) % 2) - 1


@pytest.mark.parametrize("how", ["fit", "check", "1", "3"])
@pytest.mark.parametrize(
    ("loss", "y", "out", "shape"),
    [
        (None, FLOATS, 1, (1,)),
        (None, LABELS, 1, (1,)),
        (None, LABELS, 2, ()),
        (None, FLOATS, 2, ()),
        (None, np.ones((8, 2)), 2, (2,)),
        (CrossEntropy(), LABELS, 2, ()),
        (CrossEntropy(), 0 * LABELS, 1, ()),
        (minidl.Perceptron(), LABELS, 2, ()),
        (minidl.FenchelYoung(minidl.sparsemax), np.eye(2)[LABELS], 2, (2,)),
        (BinaryLogistic(), SIGNS, 1, (1,)),
        (BinaryCrossEntropy(), LABELS, 1, (1,)),
        (SquaredError(), FLOATS, 1, (1,)),
        (minidl.Quantile(0.5), FLOATS, 1, (1,)),
        (minidl.Quantile((0.1, 0.5, 0.9)), FLOATS, 3, (1,)),
    ],
    ids=lambda value: repr(getattr(value, "shape", value)),
)
def test_losses_and_metrics_see_targets_of_one_shape(loss, y, out, shape, how):
    assert seen_shapes(loss, y, out, how) == shape


@pytest.mark.parametrize("seed", range(5))
def test_an_own_metric_and_an_own_loss_of_one_output(seed):
    """The mean absolute error by hand, and the same least squares as the loss of the library."""

    def half_squares(z, y):
        return 0.5 * float(np.square(z - y).sum()) / len(z), (z - y) / len(z)

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(int(rng.integers(5, 40)), 3))
    y = rng.integers(-5, 5, len(x)) if seed % 2 else x @ [1.0, -2.0, 0.5]
    data = Dataset((x, y), (x[:4], y[:4]))
    results = []
    for loss in (half_squares, SquaredError()):
        model = network(3, 1, "float64")
        history = minidl.fit(
            model, data, loss, Adam(model, 1e-2), epochs=15, batch_size=8, rng=seed,
            metrics={"mae": lambda z, y: np.abs(z - y).mean()}, monitor="valid_mae",
            restore_best=True,
        )  # fmt: skip
        by_hand = np.abs(minidl.outputs(model, x[:4])[:, 0] - y[:4]).mean()
        assert history.mode == "min"
        assert history.best.valid_mae == pytest.approx(by_hand, rel=1e-12)
        results.append(model.theta)
    np.testing.assert_allclose(*results, rtol=1e-9)


def test_integers_that_int64_does_not_hold_are_refused():
    y = np.array([0, 2**63], np.uint64)
    with pytest.raises(ValueError, match=rf"expected integers below 2.63, got y\[1\] = {2**63}"):
        Dataset((np.eye(2), y))
