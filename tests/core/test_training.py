"""fit, evaluate, History, callbacks, checkpoints."""

import csv
import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numeric import flat

import minidl
from minidl import Callback, CrossEntropy, Dataset, Dropout, Linear, ReLU, Sequential
from minidl.callbacks import Progress
from minidl.evaluation import evaluate, outputs
from minidl.history import Epoch, History
from minidl.training import fit


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 6))
    parts = []
    for n in (130, 40, 40):
        y = rng.integers(0, 3, n)
        parts.append(((centres[y] + 0.7 * rng.normal(size=(n, 6))).astype(np.float32), y))
    return Dataset(*parts)


def make(seed=0, dropout=0.2, lr=1e-2, dtype="float32"):
    model = Sequential(Linear(6, 8), ReLU(), Dropout(dropout), Linear(8, 3), rng=seed, dtype=dtype)
    return model, minidl.Adam(model, lr, weight_decay=1e-4)


def train(data, epochs=4, **options):
    model, optimizer = make()
    return model, fit(model, data, CrossEntropy(), optimizer, epochs=epochs, batch_size=32, rng=1, **options)  # fmt: skip


class At(Callback):
    """Calls ``what(run)`` after an epoch, or after a batch of it."""

    def __init__(self, epoch, what, batch=None):
        self.epoch, self.what, self.batch, self.batches = epoch, what, batch, 0
        self.ended = 0

    def on_epoch(self, run):
        if self.batch is None and len(run.history) - 1 == self.epoch:
            return self.what(run)
        self.batches = 0
        return None

    def on_batch(self, run):
        self.batches += 1
        if len(run.history) == self.epoch and self.batches == self.batch:
            self.what(run)

    def on_end(self, run):
        self.ended += 1


def raising(error):
    def raise_(run):
        raise error

    return raise_


def test_fit_learns_and_records(data):
    model, history = train(data, epochs=20)
    assert [r.epoch for r in history] == list(range(21))
    assert history[-1].valid_accuracy > 0.85 > history[0].valid_accuracy
    first = history[0]
    start, _ = make()
    assert first.train_loss == evaluate(start, data.train, CrossEntropy())["loss"]
    assert history[-1].valid_loss == evaluate(model, data.valid, CrossEntropy())["loss"]
    assert history[-1].train_accuracy == np.mean(
        outputs(model, data.train).argmax(1) == data.train.y
    )
    assert all(r.seconds > 0 and r.lr == 1e-2 for r in history)
    assert history.best.valid_accuracy == max(history.column("valid_accuracy"))


def test_train_loss_is_the_mean_over_the_examples_during_the_epoch(data):
    seen = []

    class Watching(CrossEntropy):
        def __call__(self, logits, y, weight=None):
            value, dlogits = super().__call__(logits, y)
            seen.append((len(y), value))
            return value, dlogits

    model, optimizer = make()
    history = fit(model, data, Watching(), optimizer, epochs=1, batch_size=32, rng=1, parts=("valid",))  # fmt: skip
    batches = [(n, value) for n, value in seen if n in (32, 2)]
    assert len(batches) == 5  # 130 = 4 * 32 + 2
    assert history[1].train_loss == pytest.approx(sum(n * value for n, value in batches) / 130)
    assert set(history[1].metrics) == {"train_loss", "valid_loss", "valid_accuracy"}


def test_same_seed_same_bits(data):
    (a, history_a), (b, history_b) = train(data), train(data)
    np.testing.assert_array_equal(a.theta, b.theta)
    assert history_a.column("train_loss") == history_b.column("train_loss")
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - to see that fit does not use it
    train(data, epochs=1)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_the_order_of_examples_has_an_independent_stream(data):
    """With the seed of the model in fit, batches do not depend on dropout masks or weights."""
    order = minidl.training.epoch_rng(0, 1).random(4)
    for other in (np.random.default_rng(0), *np.random.default_rng(0).spawn(3)):
        assert (other.random(4) != order).all()
    first, second = (minidl.training.epoch_rng(0, e).permutation(9).tolist() for e in (1, 2))
    assert first != second


@pytest.mark.parametrize("way", ["end", "early", "ctrl-c", "not finite"])
def test_best_weights_are_restored_however_training_ends(data, way):
    best = {}

    class Keep(Callback):
        def on_epoch(self, run):
            if run.history.best.epoch == len(run.history) - 1:
                best["theta"] = run.model.theta.copy()

    def poison(run):
        run.model.theta[:] = np.nan

    leave = {
        "end": At(99, print),
        "early": At(6, lambda run: True),
        "ctrl-c": At(6, raising(KeyboardInterrupt()), batch=2),
        "not finite": At(6, poison, batch=2),
    }[way]
    model, optimizer = make(lr=0.3)  # so large that the last weights are not the best
    history = History()
    arguments = {"epochs": 9, "batch_size": 32, "rng": 1, "restore_best": True}
    expected = {"ctrl-c": KeyboardInterrupt, "not finite": minidl.NonFiniteLossError}.get(way)

    def go():
        fit(model, data, CrossEntropy(), optimizer, callbacks=[Keep(), leave], history=history, **arguments)  # fmt: skip

    if expected:
        with pytest.raises(expected):
            go()
    else:
        go()
    np.testing.assert_array_equal(model.theta, best["theta"])
    assert len(history) == {"end": 10, "early": 7, "ctrl-c": 6, "not finite": 6}[way]
    assert history.best.valid_accuracy == evaluate(model, data.valid, CrossEntropy())["accuracy"]
    assert leave.ended == 1


def test_best_weights_are_not_restored_unless_asked(data):
    ends = []

    class Last(Callback):
        def on_epoch(self, run):
            ends.append(run.model.theta.copy())

    model, optimizer = make(lr=0.3)  # so large that the last weights are not the best
    history = fit(model, data, CrossEntropy(), optimizer, epochs=9, batch_size=32, rng=1, callbacks=[Last()])  # fmt: skip
    assert history.best.epoch < 9
    np.testing.assert_array_equal(model.theta, ends[-1])
    assert (flat(history.best_state) != model.theta).any()


def test_a_loss_that_is_not_finite_names_epoch_step_and_layer(data):
    def poison(run):
        run.model[3].weight.value[0, 0] = np.inf

    model, optimizer = make(dropout=0)
    with np.errstate(all="ignore"), pytest.raises(minidl.NonFiniteLossError) as caught:
        fit(model, data, CrossEntropy(), optimizer, epochs=3, batch_size=32, rng=1, callbacks=[At(2, poison, batch=3)])  # fmt: skip
    assert "epoch 2, step 3: the loss is nan" in str(caught.value)
    assert "layer 3, Linear(8, 3)" in str(caught.value)


class Poison(minidl.Layer):
    """The identity, whose backward pass gives ``value`` in one call of training."""

    buffers = ("seen",)

    def __init__(self, when, value=math.nan, into="gradient"):
        self.calls, self.when, self.value, self.into = 0, when, value, into
        self.seen, self.lowest = np.full(2, math.inf), None

    def forward(self, x, *, train=False):
        self.calls += train
        now = train and self.calls == self.when
        if now and self.into == "buffer":
            self.seen = np.full(2, self.value)
        return x, lambda dy: dy * (self.value if now and self.into == "gradient" else 1)


class Seen(Callback):
    def __init__(self):
        self.epochs = []

    def on_epoch(self, run):
        self.epochs.append(run.model.theta.copy())


STEPS = {
    "SGD": lambda m: minidl.SGD(m, 0.1),
    "momentum": lambda m: minidl.SGD(m, 0.1, momentum=0.9),
    "Adam": minidl.Adam,
    "AdamW": minidl.AdamW,
    "clipped": lambda m: minidl.SGD(m, 0.1, clip_norm=1.0),
}


@pytest.mark.parametrize("restore_best", [False, True])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("step", STEPS)
def test_no_epoch_ends_with_parameters_that_are_not_finite(data, tmp_path, step, value, restore_best):  # fmt: skip
    """The gradient of the last step of epoch 3 is not finite; its loss is."""
    model = Sequential(Linear(6, 5), Poison(3 * 5, value), Linear(5, 3), rng=0)
    optimizer, history, seen = STEPS[step](model), History(), Seen()
    with pytest.raises(FloatingPointError) as error:
        fit(
            model, data, CrossEntropy(), optimizer, epochs=5, batch_size=32, rng=1,
            history=history, callbacks=[seen], checkpoint=minidl.Checkpoint(tmp_path / "run.npz"),
            restore_best=restore_best,
        )  # fmt: skip
    if step != "clipped":
        assert isinstance(error.value, minidl.NonFiniteLossError)
        assert "epoch 3: every loss is finite, but 0.weight is not" in str(error.value)
    assert len(history) == 3
    assert len(seen.epochs) == 2
    wanted = flat(history.best_state, model) if restore_best else seen.epochs[-1]
    np.testing.assert_array_equal(model.theta, wanted)
    np.testing.assert_array_equal(
        minidl.load(tmp_path / "run.npz", layers=[Poison]).theta, seen.epochs[-1]
    )
    assert optimizer.steps == 10
    assert all(np.isfinite(v).all() for v in optimizer.state_dict().values())


def test_the_best_epoch_has_finite_outputs_whatever_the_loss_says():
    def rises(z, y):
        return -float(np.minimum(z, 3e38).mean(dtype=float)), np.full_like(z, -1 / len(z))

    x = np.ones((4, 1), np.float32)
    data = Dataset((x, np.zeros(4)), (1e38 * x, np.zeros(4)))
    model = Sequential(Linear(1, 1, bias=False), rng=0, dtype="float32")
    model.theta[:] = -2.5
    history = fit(model, data, rises, minidl.SGD(model, 1.0), epochs=8, batch_size=4, rng=0)
    assert [record.finite for record in history] == [True] * 6 + [False] * 3
    assert history.best.epoch == 5


def test_a_run_is_resumed_with_or_without_a_progress_bar(data, tmp_path):
    file = minidl.Checkpoint(tmp_path / "run.npz", resume=True)
    for epochs, callbacks in enumerate(([], [Progress()], []), start=1):
        model = Sequential(Linear(6, 3), rng=0)
        history = fit(model, data, CrossEntropy(), minidl.SGD(model, 0.1), epochs=epochs, batch_size=32, rng=1, callbacks=callbacks, checkpoint=file)  # fmt: skip
        assert len(history) == epochs + 1


@pytest.mark.parametrize("weight", [(), (np.ones(60),), (np.full(60, 3.0),)])
def test_a_mean_weight_divides_every_gradient(weight):
    rng = np.random.default_rng(0)
    data, models = Dataset((rng.normal(size=(60, 4)), rng.integers(0, 3, 60), *weight)), []
    for lr, mean_weight in ((0.1, 2.0), (0.05 * (weight[0][0] if weight else 1), None)):
        model = Sequential(Linear(4, 3), rng=0, dtype="float64")
        fit(model, data, CrossEntropy(), minidl.SGD(model, lr), epochs=2, batch_size=7, rng=0, mean_weight=mean_weight)  # fmt: skip
        models.append(model.theta)
    np.testing.assert_allclose(*models, rtol=1e-12)


def test_a_buffer_that_becomes_not_finite(data):
    """One that starts with infinity, such as a mask or an extreme so far, may keep it."""
    for value in (math.inf, 1.0, math.nan):
        model = Sequential(Linear(6, 3), Poison(1, value, "buffer"), rng=0)
        fit(model, data, CrossEntropy(), minidl.SGD(model, 0.1), epochs=1, rng=0)
    model = Sequential(Linear(6, 3), Poison(1, math.nan, "buffer"), rng=0)
    model[1].seen = np.zeros(2, np.float32)
    with pytest.raises(minidl.NonFiniteLossError, match=r"epoch 1: .* but 1\.seen is not"):
        fit(model, data, CrossEntropy(), minidl.SGD(model, 0.1), epochs=1, rng=0)
    np.testing.assert_array_equal(model[1].seen, [0, 0])


@pytest.mark.parametrize("block", [1, 64])
def test_no_online_epoch_ends_with_parameters_that_are_not_finite(data, block):
    def make(when):
        return Sequential(Linear(6, 5), Poison(when), Linear(5, 3), rng=0)

    model, history = make(2 * 130), History()
    with pytest.raises(minidl.NonFiniteLossError, match=r"epoch 2: .* but 0\.weight is not"):
        minidl.fit_online(model, data, CrossEntropy(), lr=0.01, epochs=3, block_size=block, rng=0, history=history)  # fmt: skip
    runs = [minidl.OnlineRun(make(when), 0.01) for when in (0, 2 * 130)]
    minidl.fit_side_by_side(runs, data, CrossEntropy(), epochs=3, block_size=block, rng=0)
    good = make(0)
    minidl.fit_online(good, data, CrossEntropy(), lr=0.01, epochs=1, block_size=block, rng=0)
    np.testing.assert_allclose(model.theta, good.theta, rtol=1e-5)
    np.testing.assert_allclose(runs[1].model.theta, good.theta, rtol=1e-5)
    assert [len(history), *(len(run.history) for run in runs)] == [2, 4, 2]
    assert runs[0].error is None
    assert "0.weight" in runs[1].error


@pytest.mark.parametrize("block", [None, 1, 64])
def test_the_order_is_set_back_with_the_epoch_that_did_not_end(data, block):
    """Another call with the same history goes on from the start of the epoch, as one run does."""
    model = Sequential(Linear(6, 5), Poison(2 * 130 if block else 2 * 5), Linear(5, 3), rng=0)
    rng, history = np.random.default_rng(5), History()
    options = {"epochs": 3, "rng": rng, "history": history}
    states = []

    class States(minidl.Callback):
        def on_epoch(self, run):
            states.append(rng.bit_generator.state)

    options |= {"callbacks": [States()]}
    if block is None:
        train, how = fit, {"optimizer": minidl.SGD(model, 0.01), "batch_size": 32}
    else:
        train, how = minidl.fit_online, {"lr": 0.01, "block_size": block}
    with pytest.raises(minidl.NonFiniteLossError, match="epoch 2: "):
        train(model, data, CrossEntropy(), **how, **options)
    assert len(states) == 1
    assert rng.bit_generator.state == states[0]


def test_the_seconds_of_runs_side_by_side_are_those_of_all(data):
    runs = [minidl.OnlineRun(Linear(6, 3, rng=0), lr) for lr in (0.1, 0.2, 0.3)]
    histories = minidl.fit_side_by_side(runs, data, CrossEntropy(), epochs=2, rng=0)
    for records in zip(*histories, strict=True):
        assert len({record.seconds for record in records}) == 1


def test_an_epoch_is_pickled_and_names_a_metric_that_it_does_not_have():
    record = Epoch(1, 0.1, 0.01, {"train_loss": 0.5})
    assert pickle.loads(pickle.dumps(record)) == record
    with pytest.raises(AttributeError, match=r"no metric 'train_los' among .'train_loss'"):
        _ = record.train_los


# A layer that gives probabilities, before a loss that expects logits.


class LogSoftmax(minidl.Softmax):
    def forward(self, x, *, train=False):
        y, backward = super().forward(x, train=train)
        return np.log(y), lambda dy: backward(dy / y)


def ends(last):
    """Models that end with a layer, at any depth."""
    yield Sequential(Linear(6, 3), last(), rng=0)
    yield Sequential(Linear(6, 3), Sequential(minidl.ReLU(), Sequential(last())), Sequential(), rng=0)  # fmt: skip


GIVES = [minidl.Softmax, minidl.Sparsemax, minidl.Entmax15, lambda: minidl.Relumax(2.0), lambda: minidl.Simplex(minidl.softmax), minidl.Sigmoid]  # fmt: skip
LABELS = np.arange(12) % 3
EXPECTS = [
    (CrossEntropy(), LABELS),
    (minidl.FenchelYoung(minidl.sparsemax), LABELS),
    (minidl.SmoothedNLL(minidl.relumax(5.0)), LABELS),
    (minidl.Perceptron(), LABELS),
    (minidl.BinaryCrossEntropy(), np.eye(3, dtype=int)[LABELS]),
]


@pytest.mark.parametrize("last", GIVES)
@pytest.mark.parametrize(("loss", "y"), EXPECTS, ids=lambda v: repr(v)[:12])
def test_probabilities_before_a_loss_of_logits_are_named_once(last, loss, y):
    data = Dataset((np.random.default_rng(0).normal(size=(12, 6)), y))
    for model in ends(last):
        with pytest.warns(UserWarning, match=r"the model ends with .*max|Sigmoid.* expects logits") as seen:  # fmt: skip
            fit(model, data, loss, minidl.SGD(model, 0.1), epochs=2, rng=0)
        assert [w.filename for w in seen] == [__file__]
        with pytest.warns(UserWarning, match="fit_online: the model ends") as seen:
            minidl.fit_online(model, data, loss, lr=0.1, epochs=2, rng=0)
        assert [w.filename for w in seen] == [__file__]


def test_probabilities_where_they_are_right(data):
    """pytest makes a warning an error."""
    x, y = data.train.x, data.train.y
    for loss, targets in ((minidl.SquaredError(), np.eye(3)[y]), (minidl.AbsoluteError(), np.eye(3)[y])):  # fmt: skip
        for model in ends(minidl.Sigmoid):
            fit(model, Dataset((x, targets)), loss, minidl.SGD(model, 0.1), epochs=1, rng=0)
    for layers in (
        [Linear(6, 3), minidl.Residual(minidl.Softmax())],
        [Linear(6, 3), minidl.Softmax(), Linear(3, 3)],
        [Linear(6, 3), LogSoftmax()],
    ):
        model = Sequential(*layers, rng=0)
        fit(model, data, CrossEntropy(), minidl.SGD(model, 0.1), epochs=1, rng=0)
    z = minidl.outputs(model, x)
    np.testing.assert_allclose(minidl.probabilities(model, x), np.exp(z), rtol=1e-5)


def test_early_stopping(data):
    model, optimizer = make(lr=0)  # never improves after epoch 1, the first that counts
    stopping = minidl.EarlyStopping(patience=3)
    history = fit(model, data, CrossEntropy(), optimizer, epochs=20, rng=1, callbacks=[stopping])
    assert len(history) == 5


def test_progress_bar(data, capsys):
    train(data, epochs=2, callbacks=[Progress()])
    shown = capsys.readouterr().err
    assert "10/10" in shown
    assert "valid_accuracy=" in shown


@pytest.mark.parametrize("done", [None, 0, 1, 2, 3])
def test_the_progress_bar_starts_after_the_epochs_that_are_done(data, done):
    """Without a history, or with one of ``done`` epochs after the record before training."""
    seen = []

    class Watch(Callback):
        def on_start(self, run):
            seen.append((bar.bar.n, bar.bar.total))

        def on_end(self, run):
            seen.append((bar.bar.n, bar.bar.total))

    model, optimizer = make()
    options, bar, history = {"batch_size": 32, "rng": 1}, Progress(), History()
    if done is not None:
        fit(model, data, CrossEntropy(), optimizer, epochs=done, history=history, **options)
    fit(model, data, CrossEntropy(), optimizer, epochs=3, history=history, callbacks=[bar, Watch()], **options)  # fmt: skip
    assert seen == [(5 * (done or 0), 15), (15, 15)]


@pytest.mark.parametrize("batch_size", [32, 130, 500])
@pytest.mark.parametrize("make_lr", [lambda: 0.01, lambda: minidl.StepDecay(0.5, 1, 0.9), lambda: minidl.Cosine(0.5, 12), lambda: minidl.WarmUp(0.5, 30)])  # fmt: skip
def test_the_learning_rate_of_an_epoch_is_that_of_its_last_step(data, make_lr, batch_size):
    lr, used = make_lr(), []

    class Watch(Callback):
        def on_batch(self, run):
            used.append(seen[-1])

    seen = []

    def watched(t):
        seen.append(lr(t) if callable(lr) else lr)
        return seen[-1]

    model = make()[0]
    optimizer = minidl.SGD(model, watched)
    options = {"batch_size": batch_size, "rng": 1, "callbacks": [Watch()]}
    history = fit(model, data, CrossEntropy(), optimizer, epochs=2, **options)
    history = fit(model, data, CrossEntropy(), optimizer, epochs=3, history=history, **options)
    batches = -(-130 // batch_size)
    assert len(used) == 3 * batches
    assert history.column("lr") == [lr(0) if callable(lr) else lr, *used[batches - 1 :: batches]]


def test_regression_keeps_the_lowest_loss():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    y = x @ [1.0, -2, 3, 0.5] + 1
    data = Dataset((x[:150], y[:150]), (x[150:], y[150:]))
    model = Sequential(Linear(4, 1), rng=0, dtype="float64")
    history = fit(model, data, minidl.SquaredError(), minidl.SGD(model, 0.1), epochs=20, rng=0, restore_best=True)  # fmt: skip
    assert history.best.valid_loss == min(history.column("valid_loss")) < 1e-3
    assert "valid_accuracy" not in history[0].metrics
    np.testing.assert_allclose(model[0].weight.value[:, 0], [1, -2, 3, 0.5], atol=0.05)


def test_without_a_validation_part(data):
    alone = Dataset((data.train.x, data.train.y))
    model, optimizer = make()
    history = fit(model, alone, CrossEntropy(), optimizer, epochs=2, rng=1, restore_best=True)
    assert set(history[2].metrics) == {"train_loss", "train_accuracy"}


def test_history_files(data, tmp_path):
    _, history = train(data)
    history.to_csv(tmp_path / "h.csv")
    with (tmp_path / "h.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r["valid_accuracy"]) for r in rows] == history.column("valid_accuracy")
    history.to_json(tmp_path / "h.json")
    assert History.from_json(tmp_path / "h.json").records == history.records
    assert json.loads((tmp_path / "h.json").read_text())["records"][0]["epoch"] == 0
    history.plot(tmp_path / "h.png", title="a run")
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "h.csv",
        "h.json",
        "h.png",
    ]  # no leftovers
    with pytest.raises(ValueError, match="no epoch is recorded"):
        _ = History().best


@given(
    figures=st.lists(st.sampled_from([math.nan, -math.inf, 0.1, 0.2, 0.3, math.inf]), min_size=1),
    mode=st.sampled_from(["min", "max"]),
    cut=st.integers(0, 20),
)
def test_the_kept_weights_are_those_of_the_best_record(figures, mode, cut):
    model, history = Linear(1, 1, rng=0), History(monitor="score", mode=mode)
    for i, figure in enumerate(figures):
        model.theta[:] = i
        history.append(Epoch(i, 0.0, 0.1, {"score": figure}), model)
        if i == cut:
            history = pickle.loads(pickle.dumps(history))
    assert flat(history.best_state)[0] == history.best.epoch
    trained = [figure for figure in figures[1:] if math.isfinite(figure)]
    if trained:
        best = {"min": min, "max": max}[mode](trained)
        among = [epoch for epoch, figure in enumerate(figures) if epoch and figure == best]
        assert history.best.epoch == among[0]
    else:
        assert history.best.epoch == 0


def test_the_first_of_equal_epochs_is_the_best_after_files_too(tmp_path):
    model, _ = make()
    history, from_checkpoint, best = History(), History(), 1
    for epoch, accuracy in enumerate([0.5, 0.8, 0.8]):
        figures = {"train_loss": 1.0, "valid_loss": 1.0, "valid_accuracy": accuracy}
        model.theta[:] = epoch
        history.append(Epoch(epoch, 0.1, 0.01, figures), model)
    history.to_json(tmp_path / "h.json")
    minidl.Checkpoint(tmp_path / "h.npz").save(model=model, history=history)
    minidl.Checkpoint(tmp_path / "h.npz").load(model=model, history=from_checkpoint)
    for copy in (
        History.from_dict(history.to_dict()),
        History.from_json(tmp_path / "h.json"),
        from_checkpoint,
    ):
        assert copy.records == history.records
        assert copy.best.epoch == best
    np.testing.assert_array_equal(flat(from_checkpoint.best_state), best)


def test_the_axis_labels_of_a_plot(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(
        "minidl.view.plots.line_plot", lambda path, *panels, title: drawn.append(panels)
    )
    history, regression = History(), History()
    model, _ = make()
    figures = {"train_loss": 1.0, "train_accuracy": 0.0, "valid_loss": 1.0, "valid_accuracy": 0.5}
    history.append(Epoch(0, 0.1, 0.01, figures), model)
    regression.append(Epoch(0, 0.1, 0.01, {"train_loss": 1.0}), model)
    for one, options in ((history, {}), (history, {"loss_unit": "logits"}), (regression, {}), (regression, {"loss_unit": "m"})):  # fmt: skip
        one.plot(tmp_path / "h.png", **options)
    labels = [[panel.ylabel for panel in panels] for panels in drawn]
    accuracy = "accuracy (share of examples)"
    assert labels == [["loss (nats)", accuracy], ["loss (logits)", accuracy], ["loss"], ["loss (m)"]]  # fmt: skip
    during, after = "training (during the epoch)", "training (after the epoch)"
    assert [list(p.curves) for p in drawn[0]] == [[during, "validation"], [after, "validation"]]
    assert [list(panel.curves) for panel in drawn[2]] == [[during]]


@pytest.mark.parametrize("unmeasured", [set(), {0}, {1}, {2}, {1, 2}, {0, 1, 2}])
@pytest.mark.parametrize("name", ["train_accuracy", "valid_loss", "valid_accuracy"])
def test_a_figure_that_is_missing_in_an_epoch_is_not_drawn(monkeypatch, tmp_path, name, unmeasured):
    drawn = []
    monkeypatch.setattr(
        "minidl.view.plots.line_plot", lambda path, *panels, title: drawn.extend(panels)
    )
    history = History()
    figures = {"train_loss": 1.0, "train_accuracy": 0.5, "valid_loss": 2.0, "valid_accuracy": 0.25}
    for epoch in range(3):
        shown = {k: v for k, v in figures.items() if k != name or epoch not in unmeasured}
        history.append(Epoch(epoch, 0.1, 0.01, shown), make()[0])
    history.plot(tmp_path / "h.png")
    curves = {
        f"{part[:5]}_{panel.ylabel.split()[0]}": curve
        for panel in drawn
        for part, curve in panel.curves.items()
    }
    expected = {k: ([0, 1, 2], [v] * 3) for k, v in figures.items() if not (unmeasured and k == name)}  # fmt: skip
    assert curves == expected
    if name == "valid_loss":  # a picture takes a third of a second
        monkeypatch.undo()
        history.plot(tmp_path / "h.png")
        assert (tmp_path / "h.png").exists()


def test_bad_arguments_of_fit(data):
    model, optimizer = make()
    other, _ = make()
    loss = CrossEntropy()
    with pytest.raises(ValueError, match="made for another model"):
        fit(other, data, loss, optimizer, epochs=1, rng=0)
    with pytest.raises(ValueError, match="expected batch_size to be a whole number >= 1, got 0"):
        fit(model, data, loss, optimizer, epochs=1, batch_size=0, rng=0)
    with pytest.raises(ValueError, match="epochs"):
        fit(model, data, loss, optimizer, epochs=-1, rng=0)
    with pytest.raises(TypeError, match="rng: expected a seed"):
        fit(model, data, loss, optimizer, epochs=1, rng=None)


# ---------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_resumed_run_has_the_same_bits(data, tmp_path, dtype):
    loss, options = CrossEntropy(), {"batch_size": 32, "rng": 1}
    uninterrupted, optimizer = make(dtype=dtype)
    expected = fit(uninterrupted, data, loss, optimizer, epochs=6, **options)
    model, optimizer = make(dtype=dtype)
    history = fit(model, data, loss, optimizer, epochs=3, **options)
    file = minidl.Checkpoint(tmp_path / "run.npz")
    file.save(model=model, optimizer=optimizer, history=history)
    other, other_optimizer = make(seed=9, dtype=dtype)
    history = History()
    file.load(model=other, optimizer=other_optimizer, history=history)
    assert len(history) == 4
    history = fit(other, data, loss, other_optimizer, epochs=6, history=history, **options)
    np.testing.assert_array_equal(other.theta, uninterrupted.theta)
    assert history.column("train_loss") == expected.column("train_loss")
    assert history.column("valid_accuracy") == expected.column("valid_accuracy")


def test_checkpoint_errors_change_nothing(data, tmp_path):
    model, optimizer = make()
    path = tmp_path / "run.npz"
    file = minidl.Checkpoint(path)
    file.save(model=model, optimizer=optimizer)
    wide = Sequential(Linear(6, 9), Dropout(0.1), Linear(9, 3), rng=0)
    before = wide.theta.copy()
    with pytest.raises(ValueError, match=r"run.npz: .*: model.0.out_features was 8, now it is 9"):
        file.load(model=wide)
    np.testing.assert_array_equal(wide.theta, before)
    with pytest.raises(ValueError, match="optimizer was 'Adam', now it is 'SGD'"):
        file.load(model=model, optimizer=minidl.SGD(model))
    with pytest.raises(ValueError, match=r"model\.2 was 'Dropout', now it is 'Linear'"):
        file.load(model=Sequential(Linear(6, 8), ReLU(), Linear(8, 3), rng=0))
    with pytest.raises(FileNotFoundError):
        minidl.Checkpoint(tmp_path / "nothing.npz").load(model=model)
    raw = path.read_bytes()
    for damaged in (raw[: len(raw) // 2], b"", b"hello"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"run.npz: \w"):
            file.load(model=model)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(ValueError, match=r"expected a model or checkpoint, .* found \['other'\]"):
        file.load(model=model)


def test_a_failed_save_leaves_the_old_file(data, tmp_path, monkeypatch):
    model, _ = make()
    path = tmp_path / "run.npz"
    minidl.Checkpoint(path).save(model=model)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="disk full"):
        minidl.Checkpoint(path).save(model=model)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]
