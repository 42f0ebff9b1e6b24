"""One monitored figure: early stopping, the best weights and history.best follow it."""

import contextlib
import functools
import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric import flat
from sklearn.datasets import load_wine

import minidl
from minidl import Adam, CrossEntropy, Dataset, Linear, ReLU, Sequential, Standardize
from minidl.callbacks import Callback, Run
from minidl.history import Epoch, History


@pytest.fixture(scope="module")
def wine():
    x, y = load_wine(return_X_y=True)
    order = np.random.default_rng(1).permutation(len(x))
    cuts = np.split(order, [100, 140])
    return Standardize().fit_transform(Dataset(*[(x[rows], y[rows]) for rows in cuts]))


def train(data, epochs=60, **options):
    model = Sequential(Linear(data.features, 32), ReLU(), Linear(32, 3), rng=0)
    history = minidl.fit(model, data, CrossEntropy(), Adam(model, 3e-3), epochs=epochs, batch_size=16, rng=0, **options)  # fmt: skip
    return model, history


def test_early_stopping_and_the_best_weights_follow_the_monitored_loss(wine):
    """The accuracy is 1 long before the loss is lowest: they must not be mixed."""
    stopping = minidl.EarlyStopping(patience=5)
    model, history = train(wine, monitor="valid_loss", callbacks=[stopping], restore_best=True)
    losses = history.column("valid_loss")
    assert history.best.epoch == int(np.argmin(losses))
    assert len(history) - 1 - history.best.epoch == 5 or len(history) == 61
    assert minidl.evaluate(model, wine.valid, CrossEntropy())["loss"] == min(losses)
    by_accuracy = train(wine, callbacks=[stopping], restore_best=True)[1].best
    assert by_accuracy.epoch < history.best.epoch
    assert by_accuracy.valid_loss > 2 * min(losses)


@pytest.mark.parametrize(
    ("monitor", "pick"),
    [("valid_loss", np.argmin), ("train_loss", np.argmin), ("valid_accuracy", np.argmax), ("train_accuracy", np.argmax)],
)  # fmt: skip
def test_every_measured_figure_can_be_monitored(wine, monitor, pick):
    kept = []

    class Keep(Callback):
        def on_epoch(self, run):
            kept.append(run.model.theta.copy())

    model, history = train(wine, epochs=8, monitor=monitor, restore_best=True, callbacks=[Keep()])
    assert history.best.epoch == pick(history.column(monitor))
    np.testing.assert_array_equal(model.theta, kept[history.best.epoch - 1])


def test_without_validation_part_the_training_loss_is_monitored(wine):
    alone = Dataset((wine.train.x, wine.train.y))
    kept = []

    def shake(run):  # makes the last epochs worse
        if len(run.history) > 4:
            run.model.theta[:] += np.random.default_rng(0).normal(size=run.model.theta.size)

    class Keep(Callback):
        def on_epoch(self, run):
            kept.append(run.model.theta.copy())
            shake(run)

    model, history = train(alone, epochs=8, restore_best=True, callbacks=[Keep()])
    assert history.monitor == "train_loss"
    assert 0 < history.best.epoch == np.argmin(history.column("train_loss")) < 8
    np.testing.assert_array_equal(model.theta, kept[history.best.epoch - 1])


def test_an_own_figure_that_should_be_low(wine):
    def miss(outputs, y):
        return np.mean(outputs.argmax(axis=1) != y)

    options = {"metrics": {"miss": miss}, "monitor": "valid_miss", "epochs": 10}
    lowest = train(wine, mode="min", **options)[1]
    assert lowest.best.valid_miss == min(lowest.column("valid_miss"))
    assert train(wine, **options)[1].best.valid_miss == max(lowest.column("valid_miss")[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"monitor": "valid_acuracy"}, "no metric 'valid_acuracy' to monitor, did you mean 'valid_accuracy'"),
        ({"monitor": "valid_f1"}, "no metric 'valid_f1' to monitor"),
        ({"monitor": "train_accuracy", "parts": ("valid",)}, "no metric 'train_accuracy' to monitor"),
        ({"mode": "lowest"}, "expected mode 'min' or 'max', got 'lowest'"),
    ],
)  # fmt: skip
def test_bad_monitors(wine, options, message):
    with pytest.raises(ValueError, match=message):
        train(wine, epochs=1, **options)


def test_a_history_is_judged_by_one_figure(wine):
    model, history = train(wine, epochs=1)
    options = {"epochs": 2, "rng": 0, "history": history}
    with pytest.raises(ValueError, match=r"judged by valid_accuracy \(max\); expected the same, got valid_loss"):  # fmt: skip
        minidl.fit(model, wine, CrossEntropy(), Adam(model), monitor="valid_loss", **options)
    minidl.fit(model, wine, CrossEntropy(), Adam(model), monitor="valid_accuracy", **options)
    assert len(history) == 3


def test_a_history_is_of_one_model(wine):
    _, history = train(wine, epochs=1)
    with pytest.raises(ValueError, match="those of another model; expected a new one"):
        train(wine, epochs=2, history=history)
    assert len(history) == 2


def fake(figures, **options):
    model, history = Linear(1, 1, rng=0), History(**options)
    for epoch, figure in enumerate(figures):
        history.append(Epoch(epoch, 0.1, 0.01, {"train_loss": 1.0, "valid_loss": figure}), model)
    return Run(model, Adam(model, 0.01), history, 99, 1)


@pytest.mark.parametrize(
    ("figures", "patience", "min_delta", "stops"),
    [
        ([3, 2, 1.95, 1.9], 2, 0.0, False),
        ([3, 2, 1.95, 1.9], 2, 0.2, True),
        ([3, 2, 2, 2], 2, 0.0, True),
        ([3, 2, 2, 2], 3, 0.0, False),
        ([np.nan, np.nan, np.nan], 2, 0.0, True),
    ],
)
def test_patience(figures, patience, min_delta, stops):
    stopping = minidl.EarlyStopping(patience, min_delta=min_delta)
    assert stopping.on_epoch(fake(figures)) == stops


def test_nan_is_never_the_best():
    assert fake([np.nan, 2, np.nan, 1, np.nan]).history.best.epoch == 3


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("mode", ["min", "max"])
def test_reduce_on_plateau_follows_pytorch(seed, mode):
    import torch

    rng = np.random.default_rng(seed)
    figures = np.cumsum(rng.normal(size=60)) * 0.3
    options = {"patience": int(rng.integers(0, 5))}
    min_delta = float(rng.choice([0.0, 0.1]))
    theirs = torch.optim.SGD([torch.zeros(1)], lr=0.01)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, mode, 0.5, threshold=min_delta, threshold_mode="abs", eps=0, **options)  # fmt: skip
    run = fake([0.0], monitor="valid_loss", mode=mode)
    ours = minidl.ReduceOnPlateau(0.5, min_delta=min_delta, **options)
    ours.on_start(run)
    for epoch, figure in enumerate(figures, 1):
        run.history.append(Epoch(epoch, 0.1, run.optimizer.lr, {"train_loss": 1.0, "valid_loss": figure}), run.model)  # fmt: skip
        ours.on_epoch(run)
        scheduler.step(figure)
        assert run.optimizer.lr == pytest.approx(theirs.param_groups[0]["lr"])
    resumed = Run(run.model, Adam(run.model, 0.01), run.history, 99, 1)
    ours.on_start(resumed)
    assert resumed.optimizer.lr == run.optimizer.lr


def test_reduce_on_plateau_in_a_run_and_its_errors(wine):
    model = Sequential(Linear(wine.features, 3), rng=0)
    plateau = minidl.ReduceOnPlateau(0.5, patience=0)
    optimizer = Adam(model, 1e-9)  # no improvement
    history = minidl.fit(model, wine, CrossEntropy(), optimizer, epochs=4, rng=0, callbacks=[plateau])  # fmt: skip
    assert history.column("lr") == pytest.approx([1e-9, 1e-9, 1e-9, 5e-10, 2.5e-10])
    scheduled = Adam(model, minidl.Cosine(0.1, 10))
    with pytest.raises(TypeError, match="expected an optimizer with a fixed lr, got a schedule"):
        minidl.fit(model, wine, CrossEntropy(), scheduled, epochs=1, rng=0, callbacks=[plateau])
    with pytest.raises(ValueError, match="factor"):
        minidl.ReduceOnPlateau(1.0)


def test_a_callback_between_gradient_and_step(wine):
    """Gradients of the first layer are set to zero, so its weights do not change."""

    class Freeze(Callback):
        def on_gradient(self, run):
            run.model[0].grad[:] = 0

    start = Sequential(Linear(wine.features, 32), ReLU(), Linear(32, 3), rng=0)
    model, _ = train(wine, epochs=2, callbacks=[Freeze()])
    np.testing.assert_array_equal(model[0].theta, start[0].theta)
    assert (model[2].theta != start[2].theta).all()


# ---------------------------------------------------------------- the best epoch is a trained one

SETTINGS = itertools.product(
    range(3), ("float32", "float64"), (1e2, 1e8, 1e20, 1e150), ("se", "ce", "bce", "q"),
    (True, False), (True, False), (1, 3),
)  # fmt: skip


def test_restore_best_never_leaves_nan():
    """Quadratic layers and a rate that throws the weights far away, one batch an epoch."""
    losses = {"se": minidl.SquaredError(), "ce": CrossEntropy(), "bce": minidl.BinaryCrossEntropy(), "q": minidl.Quantile(0.3)}  # fmt: skip
    # Every fifth: 5 divides no number of choices, so each pair of choices is among them.
    for seed, dtype, lr, name, with_valid, evaluate_train, epochs in itertools.islice(SETTINGS, 0, None, 5):  # fmt: skip
        x = np.random.default_rng(seed).normal(size=(24, 3))
        y = x[:, 0] if name in ("se", "q") else (x[:, 0] > 0).astype(int)
        data = Dataset((x[:16], y[:16]), (x[16:], y[16:]) if with_valid else None)
        layers = Linear(3, 4), minidl.Quadratic(), Linear(4, 4), minidl.Quadratic(), Linear(4, 1 + (name == "ce"))  # fmt: skip
        model = Sequential(*layers, rng=seed, dtype=dtype)
        with contextlib.suppress(minidl.NonFiniteLossError, ValueError):
            minidl.fit(
                model, data, losses[name], minidl.SGD(model, lr), epochs=epochs, batch_size=16,
                rng=seed, restore_best=True, parts=("train", "valid") if evaluate_train else ("valid",),
            )  # fmt: skip
        seen = x if with_valid else x[:16]
        assert np.isfinite(model.theta).all()
        assert np.isfinite(minidl.outputs(model, seen)).all(), (seed, dtype, lr, name)


@given(
    figures=st.lists(st.sampled_from([math.nan, -math.inf, 0.1, 0.2, math.inf]), min_size=2),
    finite=st.lists(st.booleans(), min_size=20, max_size=20),
    mode=st.sampled_from(["min", "max"]),
)
@settings(deadline=None)
def test_a_record_with_outputs_that_are_not_finite_is_never_the_best(figures, finite, mode):
    model, history = Linear(1, 1, rng=0), History(monitor="valid_loss", mode=mode)
    for i, figure in enumerate(figures[:20]):
        model.theta[:] = i
        record = {"train_loss": 1.0, "valid_loss": figure}
        history.append(Epoch(i, 0.1, 0.1, record, finite[i]), model)
    fit = [i for i, f in enumerate(figures[:20]) if i and finite[i] and math.isfinite(f)]
    expected = {"min": min, "max": max}[mode](fit, key=figures.__getitem__, default=0)
    assert history.best.epoch == expected == History.from_dict(history.to_dict()).best.epoch
    if fit or finite[0]:
        assert flat(history.best_state)[0] == expected
    else:
        assert history.best_state is None


@pytest.mark.parametrize("online", [False, True])
def test_the_first_of_equals_among_trained_epochs(wine, online):
    """A rate of almost 0: all epochs are equal, and the one before training does not count."""
    model = Sequential(Linear(wine.features, 3), rng=0)
    start, options = model.theta.copy(), {"epochs": 4, "rng": 0, "restore_best": True}
    if online:
        history = minidl.fit_online(model, wine, CrossEntropy(), lr=1e-6, **options)
    else:
        history = minidl.fit(model, wine, CrossEntropy(), minidl.SGD(model, 1e-6), **options)
    assert history.best.epoch == 1
    assert not np.array_equal(model.theta, start)
    again = minidl.fit(model, wine, CrossEntropy(), Adam(model), epochs=0, rng=0, restore_best=True)
    assert again.best.epoch == 0 == len(again) - 1


def never(outputs, y):
    return math.nan


@pytest.mark.parametrize("restore_best", [False, True])
@pytest.mark.parametrize("run", ["fit", "online", "side by side"])
def test_a_figure_that_is_never_finite_is_named(wine, run, restore_best):
    model = Sequential(Linear(wine.features, 3), rng=0)
    options = {"epochs": 2, "rng": 0, "restore_best": restore_best}
    if run == "side by side":
        loss = CrossEntropy()
        loss.metrics = {"mine": never}
        one = minidl.OnlineRun(model, 0.1, history=History(monitor="valid_mine"))
        minidl.fit_side_by_side([one], wine, loss, **options)
        assert "valid_mine and the outputs were finite after none of the 2 epochs" in one.error
        return
    options |= {"metrics": {"mine": never}, "monitor": "valid_mine"}
    train = functools.partial(minidl.fit_online, lr=0.1)
    if run == "fit":
        train = functools.partial(minidl.fit, optimizer=Adam(model))
    with pytest.raises(ValueError, match=r"^fit\w*: valid_mine and the outputs were finite after none of the 2 epochs"):  # fmt: skip
        train(model, wine, CrossEntropy(), **options)


def test_a_monitor_of_the_history_is_checked_as_one_of_fit(wine):
    with pytest.raises(ValueError, match="no metric 'valid_acuracy' to monitor, did you mean"):
        train(wine, epochs=1, history=History(monitor="valid_acuracy"))
    run = minidl.OnlineRun(Sequential(Linear(13, 3), rng=0), 0.1, history=History(monitor="f1"))
    with pytest.raises(ValueError, match="no metric 'f1' to monitor"):
        minidl.fit_side_by_side([run], wine, CrossEntropy(), epochs=1, rng=0)


@pytest.mark.parametrize(
    ("low", "names"),
    [
        (True, "valid_loss valid_error mae val_mae valid_MSE valid_rmse valid_nrmse error_rate "
               "valid_error_rate train_hingeloss valid_logloss valid_MeanAbsoluteError valid_mae_0.5 "
               "valid_loss_of_bees valid_absolute_errors valid_msle valid_mape valid_TestLoss"),
        (False, "valid_accuracy valid_r2 valid_recall valid_f1 valid_maestro valid_terrorist_recall "
                "valid_lossless_share valid_auc"),
    ],
)  # fmt: skip
def test_names_that_say_error_or_loss_are_minimised(low, names):
    for name in names.split():
        assert History(monitor=name).mode == ("min" if low else "max"), name


def test_columns_and_cells_of_a_history(wine):
    _, history = train(wine, epochs=2)
    with pytest.raises(ValueError, match=r"expected metric .*'valid_accuracy'.*, got 'valid_acura"):
        history.column("valid_acuracy")
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", history._repr_html_())
    rows = [
        [record.to_dict().get(n) for n in ("epoch", *history.names)] for record in history.records
    ]
    width = 3 + len(history.names)
    shown = [cells[i : i + width - 2] for i in range(width, len(cells), width)]
    strip = functools.partial(re.sub, "<.*?>", "")
    assert [[strip(c) for c in row] for row in shown] == [
        ["" if v is None else f"{v:.4g}" for v in row] for row in rows
    ]
