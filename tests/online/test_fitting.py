"""One example at a time in blocks: the updates of the plain loop, for every block size."""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import minidl
from minidl import OnlineRun, compounding, fit_online, fit_side_by_side, layer
from minidl.data.readers import read_idx
from minidl.online import tails
from minidl.online.blocks import max_block_size

BLOCKS = (1, 2, 63, 64, 10_000)


def data(n=300, features=20, classes=5, seed=0, pixels=True, valid=40):
    """Learnable data: each class is brightest in features of its own."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n + valid)
    x = rng.integers(0, 200, (n + valid, features))
    x[np.arange(n + valid), y % features] += 50
    x = x.astype(np.uint8) if pixels else x / 200
    return minidl.Dataset((x[:n], y[:n]), (x[n:], y[n:]), classes=classes)


def network(dataset, hidden=(), dtype="float64", bias=True, between=minidl.ReLU, drop=None, seed=1):
    sizes = [dataset.features, *hidden, dataset.classes]
    layers = []
    for i, o in itertools.pairwise(sizes):
        layers += [minidl.Linear(i, o, bias=bias), between(), *([minidl.Dropout(drop)] if drop else [])]  # fmt: skip
    keep = -2 if drop else -1
    return minidl.Sequential(*layers[:keep], rng=seed, dtype=dtype)


def trained(
    dataset,
    loss,
    block,
    *,
    epochs=2,
    lr=0.05,
    weight_decay=0.0,
    l1=0.0,
    rng=0,
    callbacks=(),
    **shape,
):
    model = network(dataset, **shape)
    history = fit_online(model, dataset, loss, lr=lr, weight_decay=weight_decay, l1=l1, epochs=epochs, block_size=block, rng=rng, callbacks=callbacks)  # fmt: skip
    return model, history


def distance(a, b):
    """The largest difference, relative to the largest entry."""
    return np.abs(a - b).max() / np.abs(b).max()


def same_history(one, other, tolerance=1e-12):
    for a, b in zip(one.to_dict()["records"], other.to_dict()["records"], strict=True):
        del a["seconds"], b["seconds"]
        assert [k for k, v in a.items() if v is None] == [k for k, v in b.items() if v is None]
        for key in a:
            if a[key] is not None:
                assert a[key] == pytest.approx(b[key], rel=tolerance, abs=tolerance), key


# The plain loop equals fit.


@pytest.mark.parametrize("loss", [minidl.CrossEntropy(), minidl.Perceptron()])
def test_the_plain_loop_is_fit_with_batches_of_one(loss):
    dataset = data()
    model, history = trained(dataset, loss, 1, weight_decay=0.01, hidden=(6,))
    other = network(dataset, hidden=(6,))
    optimizer = minidl.SGD(other, 0.05, weight_decay=0.01)
    expected = minidl.fit(other, dataset, loss, optimizer, epochs=2, batch_size=1, rng=0)
    assert (model.theta == other.theta).all()
    same_history(history, expected, 0)


# Blocks equal the plain loop.


@pytest.mark.parametrize("block", [2, 63, 64, 50_000])
def test_perceptron_on_fashion_mnist_to_the_last_bit(shared, block, plain_perceptron):
    dataset, expected = plain_perceptron(shared)
    model = zero_linear(dataset)
    fit_online(model, dataset, minidl.Perceptron(), lr=1, epochs=1, block_size=block, rng=0, parts=("valid",))  # fmt: skip
    assert (model.theta == expected).all()


def zero_linear(dataset, dtype="float64"):
    return minidl.Linear(dataset.features, dataset.classes, weight_init=minidl.init.zeros, bias_init=minidl.init.zeros, rng=0, dtype=dtype)  # fmt: skip


@pytest.fixture(scope="module")
def plain_perceptron():
    """One epoch of Fashion-MNIST by a loop without code of the library."""
    cache = []

    def run(shared):
        if not cache:
            folder = shared / "data/fashion-mnist"
            x = read_idx(folder / "train-images-idx3-ubyte.gz", 3)[:20_000].reshape(-1, 784)
            y = read_idx(folder / "train-labels-idx1-ubyte.gz", 1)[:20_000]
            dataset = minidl.Dataset((x, y))
            w = np.zeros((10, 785))
            order = minidl.training.epoch_rng(0, 1).permutation(len(y))
            for i in order:
                xi = np.append(x[i] / 256, 1)
                predicted = int((w @ xi).argmax())
                if predicted != y[i]:
                    w[y[i]] += xi
                    w[predicted] -= xi
            cache.append((dataset, np.vstack([w.T[:784], w.T[784:]]).ravel()))
        return cache[0]

    return run


@pytest.mark.parametrize("weight_decay", [0.0, 1e-3])
def test_perceptrons_side_by_side_use_the_gram_matrix(weight_decay):
    """BlockSteps in place of PerceptronSteps: without weight decay it is as exact."""
    dataset = data(1000)
    runs = [OnlineRun(zero_linear(dataset), 1.0, weight_decay) for _ in range(2)]
    fit_side_by_side(runs, dataset, minidl.Perceptron(), epochs=2, rng=0)
    model = zero_linear(dataset)
    fit_online(model, dataset, minidl.Perceptron(), lr=1, weight_decay=weight_decay, epochs=2, block_size=1, rng=0)  # fmt: skip
    for run in runs:
        if weight_decay:
            assert distance(run.model.theta, model.theta) < 1e-12
        else:
            assert (run.model.theta == model.theta).all()


@pytest.mark.parametrize(
    ("hidden", "weight_decay"),
    [((), 0.0), ((), 0.1), ((16,), 1e-4), ((16, 9), 0.1), ((16, 9, 7), 0.0)],
)
def test_5000_updates_in_float64(hidden, weight_decay):
    dataset = data(5000, features=30, classes=8)
    plain, expected = trained(dataset, minidl.CrossEntropy(), 1, epochs=1, lr=0.02, weight_decay=weight_decay, hidden=hidden)  # fmt: skip
    model, history = trained(dataset, minidl.CrossEntropy(), 64, epochs=1, lr=0.02, weight_decay=weight_decay, hidden=hidden)  # fmt: skip
    assert distance(model.theta, plain.theta) < 1e-12
    same_history(history, expected)
    other, _ = trained(dataset, minidl.CrossEntropy(), 64, epochs=1, lr=0.02 * (1 + 1e-9), weight_decay=weight_decay, hidden=hidden)  # fmt: skip
    assert distance(other.theta, plain.theta) > 1e-12  # the tolerance detects another rate


@given(
    n=st.integers(1, 150),
    features=st.integers(1, 12),
    classes=st.integers(2, 6),
    hidden=st.lists(st.integers(1, 6), max_size=3),
    block=st.sampled_from([2, 3, 63, 64, 500]),
    weight_decay=st.sampled_from([0.0, 1e-6, 0.1, 3.0, 9.0, 15.0]),
    bias=st.booleans(),
    repeated=st.booleans(),
    dark=st.booleans(),
    loss=st.sampled_from([minidl.CrossEntropy(), minidl.CrossEntropy("sum"), minidl.Perceptron()]),
    seed=st.integers(0, 2**16),
)
@example(n=65, features=3, classes=2, hidden=[], block=64, weight_decay=20.0, bias=True, repeated=False, dark=False, loss=minidl.CrossEntropy(), seed=0)  # fmt: skip
@example(n=125, features=1, classes=2, hidden=[3], block=2, weight_decay=15.0, bias=False, repeated=False, dark=False, loss=minidl.CrossEntropy(), seed=0)  # fmt: skip
@settings(max_examples=60)
def test_blocks_equal_the_plain_loop(n, features, classes, hidden, block, weight_decay, bias, repeated, dark, loss, seed):  # fmt: skip
    rng = np.random.default_rng(seed)
    # Real-valued features: with small integers two logits may be equal but rounded differently.
    x, y = rng.normal(size=(n, features)), rng.integers(0, classes, n)
    if repeated:
        x[:], y[: n // 2] = x[0], y[0]
    if dark:
        x[rng.random(n) < 0.5] = 0
    dataset = minidl.Dataset((x, y), classes=classes)
    options = {"lr": 0.05, "weight_decay": weight_decay, "hidden": hidden, "bias": bias}
    plain, expected = trained(dataset, loss, 1, **options)
    model, history = trained(dataset, loss, block, **options)
    scale = max(np.abs(plain.theta).max(), 1e-3)
    assert np.abs(model.theta - plain.theta).max() < 1e-11 * scale
    if (
        np.abs(plain(x)).max() > 1e-100
    ):  # else rounding decides which of equal logits is the largest
        same_history(history, expected, 1e-9)


@pytest.mark.parametrize("block", BLOCKS[1:])
@pytest.mark.parametrize(
    "shape",
    [
        {"hidden": (8,), "between": minidl.Tanh},
        {"hidden": (8,), "drop": 0.3},
        {"hidden": (8, 4), "drop": 0.5, "between": minidl.Sigmoid},
    ],
)
def test_any_layers_may_follow_with_the_same_dropout_masks(shape, block):
    dataset = data()
    plain, expected = trained(dataset, minidl.CrossEntropy(), 1, weight_decay=1e-3, **shape)
    model, history = trained(dataset, minidl.CrossEntropy(), block, weight_decay=1e-3, **shape)
    assert distance(model.theta, plain.theta) < 1e-12
    same_history(history, expected)


def test_layer_norm_and_residual_may_follow():
    dataset = data()
    thetas = []
    for block in (1, 64):
        inner = minidl.Residual(minidl.Linear(8, 8), minidl.Tanh())
        model = minidl.Sequential(minidl.Linear(20, 8), minidl.LayerNorm(8, dtype="float64"), inner, minidl.Linear(8, 5), rng=0, dtype="float64")  # fmt: skip
        fit_online(model, dataset, minidl.CrossEntropy(), lr=0.05, weight_decay=1e-3, epochs=2, block_size=block, rng=0)  # fmt: skip
        thetas.append(model.theta)
    assert distance(*thetas) < 1e-12


def test_losses_without_a_kernel():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 7))
    signs = np.sign(x[:, 0] + 0.1)
    for loss in (minidl.BinaryLogistic(), minidl.SquaredError()):
        dataset = minidl.Dataset((x[:150], signs[:150]), (x[150:], signs[150:]))
        thetas = []
        for block in (1, 64):
            model = minidl.Sequential(minidl.Linear(7, 1), rng=0, dtype="float64")
            history = fit_online(model, dataset, loss, lr=0.05, epochs=3, block_size=block, rng=0)
            thetas.append(model.theta)
            assert history[3].valid_loss < 0.7 * history[0].valid_loss
        assert distance(*thetas) < 1e-12


def test_a_subclass_of_a_loss_with_a_kernel_is_called_itself():
    class Half(minidl.CrossEntropy):
        def __call__(self, logits, y):
            value, dlogits = super().__call__(logits, y)
            return value / 2, dlogits / 2

    dataset = data()
    plain, _ = trained(dataset, Half(), 1)
    model, _ = trained(dataset, Half(), 64)
    other, _ = trained(dataset, minidl.CrossEntropy(), 64)
    assert distance(model.theta, plain.theta) < 1e-12 < distance(other.theta, plain.theta)
    runs = [OnlineRun(network(dataset), 0.05) for _ in range(2)]
    fit_side_by_side(runs, dataset, Half(), epochs=2, rng=0)
    assert distance(runs[1].model.theta, plain.theta) < 1e-12


@pytest.mark.parametrize("hidden", [(), (16,)])
def test_float32_is_kept_and_close_to_float64(hidden):
    dataset = data(2000)
    exact, _ = trained(dataset, minidl.CrossEntropy(), 64, hidden=hidden)
    model, _ = trained(dataset, minidl.CrossEntropy(), 64, hidden=hidden, dtype="float32")
    assert model.theta.dtype == np.float32
    assert distance(model.theta, exact.theta) < 1e-4


@pytest.mark.parametrize(("lr", "weight_decay", "n"), [(0.1, 0.2, 5000), (0.05, 15.0, 300), (0.1, 9.9, 300)])  # fmt: skip
def test_weight_decay_whose_powers_overflow_float32(lr, weight_decay, n):
    dataset = data(n)
    exact, _ = trained(dataset, minidl.CrossEntropy(), 1, lr=lr, weight_decay=weight_decay, epochs=1)  # fmt: skip
    model, _ = trained(dataset, minidl.CrossEntropy(), 64, lr=lr, weight_decay=weight_decay, epochs=1, dtype="float32")  # fmt: skip
    assert distance(model.theta, exact.theta) < 1e-5


def test_the_smallest_weight_decay_has_an_effect_in_float32():
    """1 - lr weight_decay rounds to 1 in float32; in the plain loop no weight would decay."""
    x = np.zeros((1000, 3), np.float32)
    dataset = minidl.Dataset((x, np.zeros(1000, int)), classes=2)
    model = minidl.Linear(3, 2, rng=0)
    before = model.weight.value.copy()
    fit_online(model, dataset, minidl.CrossEntropy(), lr=1e-4, weight_decay=1e-4, epochs=50, rng=0)
    shrunk = 1 - np.abs(model.weight.value).sum() / np.abs(before).sum()
    assert shrunk == pytest.approx(1 - math.exp(-50_000 * 1e-8), rel=0.01)


# Side by side.


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("hidden", [(), (6,)])
def test_nearly_denormal_weights_without_a_gradient_become_zero(hidden, block):
    rng = np.random.default_rng(0)
    x, y = rng.random((300, 20)), rng.integers(0, 5, 300)
    x[:, 0] = 0  # a dark pixel
    dataset = minidl.Dataset((x, y), classes=5)
    model = network(dataset, hidden, dtype="float32")
    tiny = [model[0].weight.value[0]]
    if hidden:  # and a dead unit
        model[0].bias.value[0] = -1e6
        tiny.append(model[2].weight.value[0])
    for weights in tiny:
        weights[:] = 1e-20
    fit_online(model, dataset, minidl.CrossEntropy(), lr=0.05, epochs=1, block_size=block, rng=0, parts=("train",))  # fmt: skip
    assert not np.any(tiny[-1])
    assert not np.any(tiny[0])


@pytest.mark.parametrize("hidden", [(), (6,)])
def test_side_by_side_equals_one_by_one(hidden):
    dataset = data(500)
    grid = [(0.1, 0.0), (0.1, 0.1), (0.001, 1e-4)]
    runs = [OnlineRun(network(dataset, hidden), lr, decay) for lr, decay in grid]
    histories = fit_side_by_side(runs, dataset, minidl.CrossEntropy(), epochs=2, rng=0)
    for run, history, (lr, decay) in zip(runs, histories, grid, strict=True):
        alone, expected = trained(dataset, minidl.CrossEntropy(), 64, lr=lr, weight_decay=decay, hidden=hidden)  # fmt: skip
        assert distance(run.model.theta, alone.theta) < 1e-12
        same_history(history, expected)
        assert history is run.history


@given(
    settings=st.lists(
        st.tuples(
            st.sampled_from([0.001, 0.1, 0.5]),
            st.sampled_from([0.0, 1e-4, 0.1, 0.5, 1.5, 3.0]),
            st.sampled_from([0.0, 0.001, 0.05]),
            st.sampled_from([(), (4,)]),
        ),
        min_size=2,
        max_size=4,
    ),
    block=st.sampled_from([1, 3, 20, 64, 500]),
)
@example(settings=[(0.1, 0.0, 0.05, ()), (0.5, 0.5, 0.0, ())], block=64)
@example(settings=[(0.1, 0.0, 0.05, ()), (0.5, 3.0, 0.0, ()), (0.1, 0.5, 0.05, (4,))], block=64)
@settings(max_examples=25)
def test_a_run_does_not_depend_on_its_neighbours(settings, block):
    """Any learning rates, L2 and L1 penalties, whose blocks may differ in length."""
    dataset, loss = data(130, features=6, classes=3, valid=10), minidl.CrossEntropy()
    runs = [OnlineRun(network(dataset, hidden), lr, l2, l1) for lr, l2, l1, hidden in settings]
    fit_side_by_side(runs, dataset, loss, epochs=2, block_size=block, rng=0)
    for run, (lr, l2, l1, hidden) in zip(runs, settings, strict=True):
        alone, expected = trained(dataset, loss, block, lr=lr, weight_decay=l2, l1=l1, hidden=hidden)  # fmt: skip
        assert np.abs(run.model.theta - alone.theta).max() < 1e-10
        same_history(run.history, expected, 1e-9)


@pytest.mark.parametrize("block", [1, 8, 64])
@pytest.mark.parametrize("hidden", [(), (6,)])
@pytest.mark.parametrize("late", [("lr",), ("weight_decay",), ("l1",), ("lr", "weight_decay", "l1")])  # fmt: skip
def test_settings_of_a_run_may_change_before_the_training(late, hidden, block):
    dataset, rule = data(60), {"lr": 0.02, "weight_decay": 0.5, "l1": 0.001}
    before = {"lr": 0.1, "weight_decay": 0.0, "l1": 0.0}
    first = rule | {name: before[name] for name in late}
    runs = [OnlineRun(network(dataset, hidden), **options) for options in (first, rule)]
    for name in late:
        setattr(runs[0], name, rule[name])
    for run in runs:
        fit_side_by_side([run], dataset, minidl.CrossEntropy(), epochs=2, block_size=block, rng=0)
    np.testing.assert_array_equal(runs[0].model.theta, runs[1].model.theta)


@pytest.mark.parametrize("between", [minidl.ReLU, minidl.Tanh])
def test_nested_layers_give_the_same_bits(between):
    dataset, loss, thetas = data(130), minidl.CrossEntropy(), []
    for nested in (False, True):
        layers = [minidl.Linear(20, 8), between(), minidl.Linear(8, 5)]
        layers = (
            [minidl.Sequential(minidl.Sequential(*layers[:2]), layers[2])] if nested else layers
        )
        model = minidl.Sequential(*layers, rng=0)
        fit_online(model, dataset, loss, lr=0.05, weight_decay=1e-3, epochs=2, rng=0)
        thetas.append(model.theta)
    np.testing.assert_array_equal(*thetas)


def test_layers_are_checked_in_the_first_step_of_an_epoch(monkeypatch):
    """And a weight that a callback changes between two epochs counts."""
    checks = []

    def checked(model):
        checks.append(model)
        return layer.checked(model)

    class Halve(minidl.Callback):
        def on_epoch(self, run):
            run.model.theta *= 0.5

    monkeypatch.setattr(tails, "checked", checked)
    dataset, loss = data(130), minidl.CrossEntropy()
    options = {"between": minidl.Tanh, "epochs": 4, "callbacks": [Halve()]}
    plain, expected = trained(dataset, loss, 1, hidden=(8,), **options)
    assert checks == []
    model, history = trained(dataset, loss, 64, hidden=(8,), **options)
    assert len(checks) == 4  # not in each step, and not in the plain loop
    assert distance(model.theta, plain.theta) < 1e-12
    same_history(history, expected)


def test_groups_of_runs_see_the_same_orders_and_share_the_time():
    """A stream or an iterator of orders is read once an epoch, however many groups there are."""
    dataset, loss = data(130), minidl.CrossEntropy()
    grid = [(0.1, 0.0), (0.5, 0.5), (0.5, 3.0), (0.1, 20.0)]
    for make in (lambda: np.random.default_rng(5), lambda: compounding(130, np.random.default_rng(5))):  # fmt: skip
        runs = [OnlineRun(network(dataset), lr, l2) for lr, l2 in grid]
        fit_side_by_side(runs, dataset, loss, epochs=3, rng=make())
        for run, (lr, l2) in zip(runs, grid, strict=True):
            alone, _ = trained(dataset, loss, 64, lr=lr, weight_decay=l2, epochs=3, rng=make())
            assert distance(run.model.theta, alone.theta) < 1e-10


@given(
    lr=st.floats(1e-4, 1),
    weight_decay=st.floats(0, 5),
    block=st.sampled_from([1, 2, 7, 64, 1000]),
)
@example(lr=1.0, weight_decay=1.0, block=64)
@example(lr=1.0, weight_decay=0.9995, block=64)
@example(lr=1.0, weight_decay=0.97, block=64)
def test_a_block_is_as_long_as_weight_decay_allows(lr, weight_decay, block):
    """Within a block weights shrink at most a thousandfold; one example more would be too many."""
    run = OnlineRun(minidl.Linear(3, 2, rng=0), lr, weight_decay)
    length, factor = max_block_size(run, block), 1 - lr * weight_decay
    assert 1 <= length <= block
    if length > 1:
        assert factor**length > 1e-3 * (1 - 1e-9)
    if length < block:
        assert factor <= 0 or factor ** (length + 1) < 1e-3 * (1 + 1e-9)


def test_side_by_side_takes_models_of_different_kinds():
    dataset = data(200)
    models = [network(dataset), network(dataset, (6,)), network(dataset, (4,), drop=0.2)]
    fit_side_by_side([OnlineRun(m, 0.05) for m in models], dataset, minidl.CrossEntropy(), epochs=1, rng=0)  # fmt: skip
    for model, shape in zip(models, ({}, {"hidden": (6,)}, {"hidden": (4,), "drop": 0.2}), strict=True):  # fmt: skip
        alone, _ = trained(dataset, minidl.CrossEntropy(), 1, epochs=1, **shape)
        assert distance(model.theta, alone.theta) < 1e-12


# The best epoch, resuming, orders, L1.


def test_restore_best_takes_the_first_of_equals():
    dataset = data(60, valid=6)
    model = network(dataset)
    history = fit_online(model, dataset, minidl.CrossEntropy(), lr=0.5, epochs=12, rng=0, restore_best=True)  # fmt: skip
    scores = history.column("valid_accuracy")
    equal = [i for i, score in enumerate(scores) if score == max(scores)]
    assert len(equal) > 1, "no tie, so this shows nothing"
    assert history.best.epoch == equal[0]
    again = network(dataset)
    fit_online(again, dataset, minidl.CrossEntropy(), lr=0.5, epochs=equal[0], rng=0)
    assert (model.theta == again.theta).all()


def test_side_by_side_restores_the_best_epoch_of_each_run():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 20)), rng.integers(0, 5, 80)
    dataset = minidl.Dataset((x[:40], y[:40]), (x[40:], y[40:]))
    runs = [OnlineRun(network(dataset), lr) for lr in (0.01, 1.0)]
    histories = fit_side_by_side(runs, dataset, minidl.CrossEntropy(), epochs=6, rng=0, restore_best=True)  # fmt: skip
    assert histories[1].best.epoch < 6
    for run, history in zip(runs, histories, strict=True):
        found = minidl.evaluate(run.model, dataset.valid, minidl.CrossEntropy())
        assert found["loss"] == pytest.approx(history.best.valid_loss, rel=1e-12)


@pytest.mark.parametrize("block", [1, 8])
def test_side_by_side_names_the_run_whose_metric_is_never_finite(block):
    x, y = np.ones((20, 2), np.float32), np.arange(20) % 3
    dataset = minidl.Dataset((x, y), (1e37 * x, y))
    runs = [OnlineRun(network(dataset, dtype="float32"), 1e-3) for _ in range(2)]
    runs[0].model.theta[:], runs[1].model.theta[:] = 100, 0
    fit_side_by_side(runs, dataset, minidl.CrossEntropy(), epochs=2, block_size=block, rng=0)
    assert "the outputs were finite after none of the 2 epochs" in runs[0].error
    assert runs[1].error is None


@pytest.mark.parametrize("loss", [minidl.CrossEntropy(), minidl.Perceptron(), minidl.FenchelYoung(minidl.sparsemax)], ids=repr)  # fmt: skip
@pytest.mark.parametrize("hidden", [(), (6,)])
def test_the_training_loss_of_weighted_examples_is_that_of_the_plain_loop(hidden, loss):
    rng = np.random.default_rng(0)
    x, y, weight = rng.normal(size=(60, 8)), rng.integers(0, 3, 60), rng.choice([0, 0.5, 3], 60)
    dataset = minidl.Dataset((x, y, weight))
    _, plain = trained(dataset, loss, 1, hidden=hidden)
    _, blocks = trained(dataset, loss, 16, hidden=hidden)
    same_history(blocks, plain, tolerance=1e-9)


def test_compounding_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"^compounding: expected n .* got 2\.5"):
        compounding(2.5, np.random.RandomState(0))
    state = compounding(3, np.random.RandomState(0)).state_dict()
    with pytest.raises(ValueError, match=r"^compounding: expected order of shape \(4,\)"):
        compounding(4, np.random.RandomState(0)).load_state_dict(state)


def test_a_run_can_be_resumed():
    dataset = data()
    uninterrupted, _ = trained(dataset, minidl.CrossEntropy(), 64, epochs=4)
    model, history = trained(dataset, minidl.CrossEntropy(), 64, epochs=2)
    fit_online(model, dataset, minidl.CrossEntropy(), lr=0.05, epochs=4, rng=0, history=history)
    assert len(history) == 5
    assert (model.theta == uninterrupted.theta).all()


def test_compounding_is_shuffling_the_arrays_in_place():
    orders = compounding(50, np.random.RandomState(42))
    legacy = np.random.RandomState(42)
    x = np.arange(50)
    for _ in range(3):
        x = x[legacy.permutation(50)]
        assert (next(orders) == x).all()


def test_given_orders_are_used():
    dataset = data()
    backwards = np.arange(len(dataset.train))[::-1]
    model, _ = trained(dataset, minidl.CrossEntropy(), 64, epochs=1, rng=iter([backwards]))
    plain, _ = trained(dataset, minidl.CrossEntropy(), 1, epochs=1, rng=iter([backwards]))
    other, _ = trained(dataset, minidl.CrossEntropy(), 64, epochs=1, rng=0)
    assert distance(model.theta, plain.theta) < 1e-12 < distance(other.theta, plain.theta)
    with pytest.raises(ValueError, match=r"order of 300 rows for epoch 2, got shape \(0,\)"):
        trained(dataset, minidl.CrossEntropy(), 64, epochs=2, rng=iter([backwards]))
    with pytest.raises(ValueError, match=r"order of 300 rows for epoch 1, got shape \(9,\)"):
        trained(dataset, minidl.CrossEntropy(), 64, rng=iter([backwards[:9]]))


@pytest.mark.parametrize("block", [1, 64])
@pytest.mark.parametrize(
    "order",
    [
        np.arange(299), np.arange(301), np.arange(0), np.arange(600), np.arange(300)[:, None],
        np.arange(300)[None], np.array(3), list(range(299)),
    ],
    ids=lambda order: str(np.shape(order)),
)  # fmt: skip
def test_an_order_of_another_length_is_refused(order, block):
    dataset, good = data(), np.arange(300)[::-1]
    model, runs = network(dataset), [OnlineRun(network(dataset), 0.05) for _ in range(2)]
    before, history = model.theta.copy(), minidl.History()
    message = rf"order of 300 rows for epoch 2, got shape {re.escape(str(np.shape(order)))}"
    with pytest.raises(ValueError, match=message):
        fit_online(model, dataset, minidl.CrossEntropy(), lr=0.05, epochs=2, block_size=block, rng=iter([good, order]), history=history)  # fmt: skip
    assert len(history) == 2
    assert (model.theta != before).any()
    with pytest.raises(ValueError, match=message):
        fit_side_by_side(runs, dataset, minidl.CrossEntropy(), epochs=2, block_size=block, rng=iter([good, order]))  # fmt: skip
    assert [len(run.history) for run in runs] == [2, 2]


@pytest.mark.parametrize("block", [1, 64])
def test_l1_is_a_proximal_step_after_each_block(block):
    dataset = data(130)
    model, _ = trained(dataset, minidl.CrossEntropy(), block, epochs=1, lr=0.01, weight_decay=0.1, l1=0.1, hidden=(4,))  # fmt: skip
    plain = network(dataset, (4,))
    optimizer, loss = minidl.SGD(plain, 0.01, weight_decay=0.1), minidl.CrossEntropy()
    order = minidl.training.epoch_rng(0, 1).permutation(130)
    for start in range(0, 130, block):
        rows = order[start : start + block]
        for i in rows:
            logits, backward = plain.forward(dataset.train.rows(np.array([i]), "float64"), train=True)  # fmt: skip
            backward(loss(logits, dataset.train.y[[i]])[1])
            optimizer.step()
        by = len(rows) * 0.01 * 0.1
        plain.theta[:] = np.sign(plain.theta) * np.maximum(np.abs(plain.theta) - by, 0)
    assert distance(model.theta, plain.theta) < 1e-12
    assert 0.1 < np.mean(model.theta == 0) < 0.9
    assert ((model.theta == 0) == (plain.theta == 0)).all()


def test_callbacks_are_called_per_block_and_may_stop():
    seen = []

    class Count(minidl.Callback):
        def on_batch(self, run):
            seen.append(run.batches)

        def on_epoch(self, run):
            return len(run.history) == 3

    dataset = data(130)
    history = fit_online(network(dataset), dataset, minidl.CrossEntropy(), lr=0.1, epochs=9, rng=0, callbacks=[Count()])  # fmt: skip
    assert len(history) == 3
    assert seen == [3] * 6


@pytest.mark.parametrize("changed", [True, False])
@pytest.mark.parametrize("loss", [minidl.CrossEntropy(), minidl.Perceptron()])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 2.0}, {"hidden": (6,), "between": minidl.Tanh}])  # fmt: skip
def test_a_callback_sees_and_changes_the_weights_within_an_epoch(options, loss, changed):
    """All of them, as the first layer's at other times than the rest's."""
    dataset, seen = data(150), {1: [], 64: []}

    class Shrink(minidl.Callback):
        def __init__(self, every):
            self.every, self.steps = every, 0

        def on_batch(self, run):
            self.steps += 1
            if self.steps % 150 in (64 // self.every, 128 // self.every):
                seen[64 // self.every].append(run.model.theta.copy())
                if changed:
                    run.model.theta *= 0.7
                    run.model.theta[3:9] = 0.1

    plain, expected = trained(dataset, loss, 1, epochs=1, callbacks=[Shrink(1)], **options)
    model, history = trained(dataset, loss, 64, epochs=1, callbacks=[Shrink(64)], **options)
    assert distance(model.theta, plain.theta) < 1e-12
    np.testing.assert_allclose(seen[1], seen[64], rtol=1e-10, atol=1e-12)
    same_history(history, expected, 1e-10)
    unwatched, _ = trained(dataset, loss, 64, epochs=1, **options)
    assert np.array_equal(unwatched.theta, model.theta) != changed


@pytest.mark.parametrize("block", [1, 64])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("shape", [(), (1,), (3,)])
@pytest.mark.parametrize("weighted", [False, True])
def test_an_own_loss_gets_the_arrays_that_fit_gives_it(weighted, shape, dtype, block):
    rng, kinds = np.random.default_rng(0), []
    x, y = rng.normal(size=(90, 4)).astype("f4"), rng.integers(0, 3, (90, *shape)).astype(dtype)
    dataset = minidl.Dataset((x, y, rng.uniform(1, 2, 90)) if weighted else (x, y))

    def loss(z, *targets):
        kinds[-1].add(tuple((part.dtype.name, part.shape[1:]) for part in (z, *targets)))
        y, w = (*targets, np.ones(len(z)))[:2]
        w = (w / w.sum())[:, None].astype(z.dtype)
        return float((w * (z - y) ** 2).sum()), 2 * w * (z - y).astype(z.dtype)

    models = [minidl.Linear(4, (*shape, 1)[0], rng=0) for _ in "ab"]
    options = {"epochs": 1, "rng": 0, "parts": ()}
    kinds.append(set())
    minidl.fit(models[0], dataset, loss, minidl.SGD(models[0], 0.01), batch_size=1, **options)
    kinds.append(set())
    fit_online(models[1], dataset, loss, lr=0.01, block_size=block, **options)
    assert kinds[0] == kinds[1]
    np.testing.assert_allclose(models[1].theta, models[0].theta, rtol=1e-4, atol=1e-6)


def test_ctrl_c_leaves_the_weights_after_the_last_completed_epoch():
    class Interrupt(minidl.Callback):
        def on_batch(self, run):
            if len(run.history) == 3:
                raise KeyboardInterrupt

    dataset, model = data(), network(data(), (6,))
    with pytest.raises(KeyboardInterrupt):
        fit_online(model, dataset, minidl.CrossEntropy(), lr=0.05, epochs=9, rng=0, callbacks=[Interrupt()])  # fmt: skip
    expected, _ = trained(dataset, minidl.CrossEntropy(), 64, epochs=2, hidden=(6,))
    assert (model.theta == expected.theta).all()


# Errors.


@pytest.mark.parametrize("block", [1, 64])
@pytest.mark.parametrize("hidden", [(), (6,)])
def test_divergence_names_epoch_step_and_layer(hidden, block):
    dataset, model, history = data(), network(data(), hidden, "float32"), minidl.History()
    before = model.theta.copy()
    with pytest.raises(minidl.NonFiniteLossError, match=r"epoch 1, step \d+: the loss is nan; the first output that is not finite is that of layer") as one:  # fmt: skip
        fit_online(model, dataset, minidl.CrossEntropy(), lr=1e38, epochs=3, block_size=block, rng=0, history=history)  # fmt: skip
    assert (model.theta == before).all()
    assert len(history) == 1
    other = network(dataset, hidden, "float32")
    with pytest.raises(minidl.NonFiniteLossError) as two:
        fit_online(other, dataset, minidl.CrossEntropy(), lr=1e38, epochs=3, block_size=65 - block, rng=0)  # fmt: skip
    assert str(one.value) == str(two.value)


@pytest.mark.parametrize("loss", [minidl.CrossEntropy(), minidl.Perceptron()])
@pytest.mark.parametrize("shape", [{}, {"hidden": (6,)}, {"hidden": (6,), "drop": 0.0}])
def test_divergence_in_a_later_block(shape, loss):
    """A few examples with huge features, long after the start, give the plain loop's error."""
    rng = np.random.default_rng(0)
    x = data(pixels=False).train.x.astype(np.float32)
    x[10:20] = rng.choice([-1e30, 1e30], (10, 20))
    dataset = minidl.Dataset((x, data().train.y), classes=5)
    # They are in the fourth block, so the step in the message depends on where it starts.
    order, messages = np.roll(np.arange(300), 182), []
    for block in (1, 64):
        model = network(dataset, dtype="float32", **shape)
        with pytest.raises(minidl.NonFiniteLossError, match=r"epoch 1, step 19\d: ") as error:
            fit_online(model, dataset, loss, lr=1e9, epochs=1, block_size=block, rng=iter([order]))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_side_by_side_other_runs_continue_after_a_divergence():
    dataset = data()
    runs = [OnlineRun(network(dataset, dtype="float32"), lr, decay) for lr, decay in ((0.05, 0.0), (1e38, 0.0), (0.01, 0.1))]  # fmt: skip
    fit_side_by_side(runs, dataset, minidl.CrossEntropy(), epochs=2, rng=0)
    assert [len(run.history) for run in runs] == [3, 1, 3]
    assert [run.error is None for run in runs] == [True, False, True]
    assert "epoch 1, step" in runs[1].error
    assert np.isfinite(runs[1].model.theta).all()
    for run in (runs[0], runs[2]):
        alone, _ = trained(dataset, minidl.CrossEntropy(), 64, lr=run.lr, weight_decay=run.weight_decay, dtype="float32")  # fmt: skip
        assert distance(run.model.theta, alone.theta) < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 0}, "expected block_size to be a whole number >= 1, got 0"),
        ({"lr": 0}, "expected lr to be a finite number > 0, got 0"),
        ({"lr": math.nan}, "expected lr to be a finite number > 0, got nan"),
        ({"weight_decay": -1}, "expected weight_decay to be a finite number >= 0, got -1"),
        ({"l1": "a"}, "expected l1 to be a finite number >= 0, got 'a'"),
        ({"epochs": -1}, "expected epochs to be a whole number >= 0, got -1"),
    ],
)
def test_bad_options(options, message):
    dataset = data()
    with pytest.raises(ValueError, match=message):
        fit_online(network(dataset), dataset, minidl.CrossEntropy(), **{"lr": 0.1, "epochs": 1, "rng": 0, **options})  # fmt: skip


def test_bad_models():
    dataset, loss = data(), minidl.CrossEntropy()

    class Twice(minidl.Linear):
        def forward(self, x, *, train=False):
            return super().forward(2 * x, train=train)

    class Own(minidl.Sequential):
        def forward(self, x, *, train=False):
            return super().forward(2 * x, train=train)

    for model, named in (
        (minidl.Sequential(Twice(20, 5), rng=0), r"Twice\(20, 5\)"),
        (Own(minidl.Linear(20, 5), rng=0), r"Own\(Linear\(20, 5\)\)"),
        (minidl.Sequential(minidl.Dropout(0.5), minidl.Linear(20, 5), rng=0), r"Dropout\(0.5\)"),
        (minidl.ReLU(), r"ReLU\(\)"),
        (minidl.Sequential(), r"Sequential\(\)"),
    ):
        with pytest.raises(ValueError, match=f"whose first layer is Linear, .*, got {named}"):
            fit_online(model, dataset, loss, lr=0.1, epochs=1, rng=0)
    with pytest.raises(ValueError, match=r"expected x of shape \(n, 3\), got \(300, 20\)"):
        fit_online(minidl.Linear(3, 5, rng=0), dataset, loss, lr=0.1, epochs=1, rng=0)
    with pytest.raises(TypeError, match="rng"):
        fit_online(network(dataset), dataset, loss, lr=0.1, epochs=1, rng=None)


def test_bad_labels():
    x = np.random.default_rng(0).normal(size=(30, 4))
    floats = minidl.Dataset((x, x[:, 0]))
    for loss in (minidl.CrossEntropy(), minidl.Perceptron()):
        with pytest.raises(TypeError, match="expected integer labels, got dtype float64"):
            fit_online(minidl.Linear(4, 2, rng=0, dtype="float64"), floats, loss, lr=0.1, epochs=1, rng=0)  # fmt: skip
        with pytest.raises(ValueError, match=r"expected labels in 0\.\.1, got y\[2\] = 2"):
            fit_online(minidl.Linear(4, 2, rng=0, dtype="float64"), minidl.Dataset((x, np.arange(30) % 3)), loss, lr=0.1, epochs=1, rng=0)  # fmt: skip


def test_runs_that_do_not_fit_together():
    dataset, loss = data(), minidl.CrossEntropy()
    good = network(dataset)
    for other, message in (
        (network(dataset, bias=False), "alike in inputs, bias, dtype"),
        (network(dataset, dtype="float32"), "alike in inputs, bias, dtype"),
        (minidl.Linear(3, 5, rng=0, dtype="float64"), "alike in inputs, bias, dtype"),
        (good, "a model of its own"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_side_by_side([OnlineRun(good, 0.1), OnlineRun(other, 0.1)], dataset, loss, epochs=1, rng=0)  # fmt: skip
    with pytest.raises(TypeError, match="at least one run"):
        fit_side_by_side([], dataset, loss, epochs=1, rng=0)


def test_training_has_one_blas_thread():
    """Two threads would take dozens of times as long; the old number is restored."""
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def threads():
        return [p["num_threads"] for p in threadpoolctl.threadpool_info()]

    before, seen = threads(), []

    class Watch(minidl.Callback):
        def on_batch(self, run):
            seen.extend(threads())

    dataset = data()
    model = network(dataset)
    minidl.fit_online(model, dataset, minidl.CrossEntropy(), lr=0.1, epochs=1, rng=0, callbacks=[Watch()])  # fmt: skip
    assert seen
    assert set(seen) == {1}
    assert threads() == before
