"""Runs that are stopped at any moment and resumed end with the bits of runs that were not."""

import contextlib
import functools
import json
import sys
import threading

import numpy as np
import pytest
from numeric import flat

import minidl
from minidl import (
    Adam,
    BatchNorm,
    Callback,
    CrossEntropy,
    Dataset,
    Dropout,
    History,
    Linear,
    OnlineRun,
    ReLU,
    Sequential,
    TorchRandom,
    compounding,
    fit,
    fit_online,
    fit_side_by_side,
)

rng = np.random.default_rng(0)
Y = rng.integers(0, 3, 90)
X = (rng.normal(size=(3, 6))[Y] + 0.7 * rng.normal(size=(90, 6))).astype(np.float32)
DATA = Dataset((X[:70], Y[:70]), (X[70:], Y[70:]))

ORDERS = {
    "seed": lambda: 5,
    "SeedSequence": lambda: np.random.SeedSequence(5, spawn_key=(1,)),
    "PCG64": lambda: np.random.default_rng(5),
    "MT19937": lambda: np.random.Generator(np.random.MT19937(5)),
    "TorchRandom": lambda: TorchRandom(5),
    "compounding": lambda: compounding(70, np.random.RandomState(5)),
    "compounding, Generator": lambda: compounding(70, np.random.default_rng(5)),
}
FOR_FIT = [name for name in ORDERS if not name.startswith("compounding")]


class Stop(Callback):
    """Does what Ctrl-C does in a batch of an epoch, or when it has ended; counts the epochs."""

    only_watches = True

    def __init__(self, epoch=None, batch=None):
        self.epoch, self.batch, self.seen, self.epochs = epoch, batch, 0, []

    def on_batch(self, run):
        self.seen += 1
        if len(run.history) == self.epoch and self.seen == self.batch:
            raise KeyboardInterrupt

    def on_epoch(self, run):
        self.seen = 0
        self.epochs.append(run.history[-1].epoch)
        if self.batch is None and self.epochs[-1] == self.epoch:
            raise KeyboardInterrupt

    def state_dict(self):
        return {"epochs": self.epochs, "squares": np.array(self.epochs) ** 2}

    def load_state_dict(self, state):
        self.epochs = list(state["epochs"])
        assert (state["squares"] == np.array(self.epochs) ** 2).all()


def network(seed=0):
    layers = Linear(6, 8), BatchNorm(8), ReLU(), Dropout(0.3), Linear(8, 3)
    return Sequential(*layers, rng=seed)


def with_fit(order, *callbacks, model=None, epochs=6, lr=0.05, **options):
    """A new process: a model and an optimizer with other initial values, or those given."""
    model = model or network(options.pop("seed", 0))
    optimizer = Adam(model, lr, weight_decay=1e-4)
    history = fit(model, DATA, CrossEntropy(), optimizer, epochs=epochs, batch_size=16, rng=order, callbacks=callbacks, **options)  # fmt: skip
    return outcome(model, history) | {"steps": optimizer.steps}


def with_fit_online(order, *callbacks, epochs=6, lr=0.05, **options):
    layers = Linear(6, 8), ReLU(), Dropout(0.3), Linear(8, 3)
    model = Sequential(*layers, rng=options.pop("seed", 0))
    history = fit_online(model, DATA, CrossEntropy(), lr=lr, l1=1e-3, epochs=epochs, block_size=16, rng=order, callbacks=callbacks, **options)  # fmt: skip
    return outcome(model, history)


def outcome(model, history):
    records = [{k: v for k, v in r.to_dict().items() if k != "seconds"} for r in history]
    return {
        "state": {k: v.tobytes() for k, v in model.state_dict().items()},
        "records": records,
        "best": flat(history.best_state).tobytes(),
    }


CASES = [(with_fit, name) for name in FOR_FIT] + [(with_fit_online, name) for name in ORDERS]


@pytest.mark.parametrize(
    ("train", "order", "every"), [(*c, 1 + i % 2) for i, c in enumerate(CASES)]
)
def test_the_bits_are_those_of_a_run_that_was_not_stopped(tmp_path, train, order, every):
    expected = train(ORDERS[order](), Stop())
    files = {"checkpoint": minidl.Checkpoint(tmp_path / "run.npz", every=every, resume=True)}
    for stop in (Stop(1, 2), Stop(3, 2), Stop(5)):
        with pytest.raises(KeyboardInterrupt):
            train(ORDERS[order](), stop, **files, seed=9 if files["checkpoint"].exists() else 0)
    watch = Stop()
    assert train(ORDERS[order](), watch, seed=9, **files) == expected
    assert watch.epochs == [1, 2, 3, 4, 5, 6]  # its own state is in the file
    again = Stop()
    assert train(ORDERS[order](), again, seed=9, **files) == expected  # at once
    longer = train(ORDERS[order](), Stop(), seed=9, epochs=8, **files)
    assert longer == train(ORDERS[order](), Stop(), epochs=8)


@pytest.mark.parametrize("order", FOR_FIT)
@pytest.mark.parametrize("restore_best", [False, True])
def test_ctrl_c_in_process_goes_back_to_the_start_of_the_epoch(order, restore_best):
    expected = with_fit(ORDERS[order]())
    model, history, stream = network(), History(), ORDERS[order]()
    optimizer = Adam(model, 0.05, weight_decay=1e-4)
    options = {"epochs": 6, "batch_size": 16, "rng": stream, "history": history}
    with pytest.raises(KeyboardInterrupt):
        fit(model, DATA, CrossEntropy(), optimizer, callbacks=[Stop(4, 3)], restore_best=restore_best, **options)  # fmt: skip
    assert optimizer.steps == 3 * 5  # not 3 * 5 + 3
    assert (model.theta == flat(history.best_state, model)).all() == (restore_best or history.best.epoch == 3)  # fmt: skip
    fit(model, DATA, CrossEntropy(), optimizer, **options)
    assert outcome(model, history) | {"steps": optimizer.steps} == expected


class Batches(Callback):
    """Counts the batches; its state is what it counts with."""

    def __init__(self, stop):
        self.counts, self.stop = [0], stop

    def on_batch(self, run):
        self.counts[0] += 1
        if self.counts[0] == self.stop:
            self.stop = None
            raise KeyboardInterrupt

    def state_dict(self):
        return {"counts": self.counts}

    def load_state_dict(self, state):
        self.counts = state["counts"]


@pytest.mark.parametrize("train", ["fit", "fit_online"])
def test_ctrl_c_in_process_goes_back_in_the_callbacks_too(train):
    model, history = Sequential(Linear(6, 3), rng=0), History()
    counter = Batches(13 if train == "fit" else 6)
    for _ in range(2):
        with contextlib.suppress(KeyboardInterrupt):
            if train == "fit":
                fit(model, DATA, CrossEntropy(), Adam(model), epochs=4, batch_size=16, rng=0, history=history, callbacks=[counter])  # fmt: skip
            else:
                fit_online(model, DATA, CrossEntropy(), lr=0.1, epochs=4, rng=0, history=history, callbacks=[counter])  # fmt: skip
    assert len(history) == 5
    assert counter.counts == [4 * (5 if train == "fit" else 2)]  # a block is a batch


class Log(Callback):
    """Its state is empty before the first epoch, and then of any kind."""

    def __init__(self, stop, error):
        self.seen, self.stop, self.error = {}, stop, error

    def on_batch(self, run):
        self.seen[str(len(self.seen))] = 1.0
        if len(self.seen) == self.stop:
            raise self.error

    def state_dict(self):
        return dict(self.seen)

    def load_state_dict(self, state):
        self.seen = dict(state)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ZeroDivisionError, ValueError])
@pytest.mark.parametrize("train", [fit, fit_online])
def test_an_error_in_the_first_epoch_goes_back_whatever_state_was_empty(train, kind):
    model = Sequential(Linear(6, 3), Dropout(0.2), rng=0)
    before, optimizer, stream = model.theta.copy(), Adam(model), np.random.default_rng(5)
    state, options = stream.bit_generator.state, {"epochs": 4, "rng": stream}
    options["callbacks"] = [Log(2, kind("own"))]
    options |= {"optimizer": optimizer, "batch_size": 16} if train is fit else {"lr": 0.1}
    with pytest.raises(kind, match="own"):
        train(model, DATA, CrossEntropy(), **options)
    assert (model.theta == before).all()
    assert optimizer.steps == 0
    assert stream.bit_generator.state == state


def test_an_error_is_told_when_no_epoch_is_left():
    model, history = Linear(6, 3, rng=0), History()
    fit(model, DATA, CrossEntropy(), Adam(model), epochs=4, rng=0, history=history)
    data = Dataset((X, Y.astype(np.float32)))
    with pytest.raises(TypeError, match="expected integer labels"):
        fit(model, data, CrossEntropy(), Adam(model), epochs=2, rng=0, history=history)
    assert len(history) == 5


@pytest.mark.parametrize(
    "own", [{"note": "x"}, {"inner": {"a": [1, None]}}, {"array": np.array(["x"])}]
)
@pytest.mark.parametrize("train", ["fit", "fit_online"])
def test_a_model_with_a_state_of_its_own(train, own):
    class Own(Sequential):
        def state_dict(self):
            return {**super().state_dict(), **own}

        def load_state_dict(self, state):
            super().load_state_dict({k: v for k, v in state.items() if k not in own})

    def trained(kind, stop):
        model, history = kind(Linear(6, 3), Dropout(0.1), rng=0), History()
        options = {"epochs": 2, "rng": 0, "history": history, "restore_best": True}
        for callbacks in ([Log(stop, KeyboardInterrupt)] if stop else [], []):
            with contextlib.suppress(KeyboardInterrupt):
                if train == "fit":
                    fit(model, DATA, CrossEntropy(), Adam(model), callbacks=callbacks, **options)
                else:
                    fit_online(model, DATA, CrossEntropy(), lr=0.1, callbacks=callbacks, **options)
        return model.theta

    for stop in (None, 1):
        assert (trained(Own, stop) == trained(Sequential, None)).all()


@pytest.mark.parametrize("order", ORDERS)
def test_ctrl_c_in_process_online(order):
    expected = with_fit_online(ORDERS[order]())
    model = Sequential(Linear(6, 8), ReLU(), Dropout(0.3), Linear(8, 3), rng=0)
    options = {"lr": 0.05, "l1": 1e-3, "epochs": 6, "block_size": 16, "rng": ORDERS[order](), "history": History()}  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        fit_online(model, DATA, CrossEntropy(), callbacks=[Stop(4, 3)], **options)
    assert outcome(model, fit_online(model, DATA, CrossEntropy(), **options)) == expected


def test_a_run_that_early_stopping_has_ended_trains_no_further_epoch(tmp_path):
    files = {"checkpoint": minidl.Checkpoint(tmp_path / "run.npz", resume=True)}
    first = with_fit(0, minidl.EarlyStopping(1), epochs=50, **files)
    assert len(first["records"]) < 40
    assert with_fit(0, minidl.EarlyStopping(1), epochs=50, **files) == first
    for callbacks, message in (
        ((), "callbacks.0 was 'EarlyStopping', now it is None"),
        ((minidl.EarlyStopping(2),), "callbacks.0.patience was 1, now it is 2"),
        ((minidl.EarlyStopping(1), Batches(None)), "callbacks.1 was None, now it is 'Batches'"),
    ):
        with pytest.raises(ValueError, match=f"run.npz: holds another run: {message}"):
            with_fit(0, *callbacks, epochs=50, **files)


def test_a_reduced_learning_rate_is_resumed(tmp_path):
    def plateau():
        return minidl.ReduceOnPlateau(0.5, patience=0)

    class Halve(Callback):
        def on_epoch(self, run):
            run.optimizer.lr = run.optimizer.lr * 0.9

    for make in (plateau, Halve):
        files = {"checkpoint": minidl.Checkpoint(tmp_path / f"{make.__name__}.npz", resume=True)}
        expected = with_fit(0, make())
        assert expected["records"][-1]["lr"] < 0.05
        with pytest.raises(KeyboardInterrupt):
            with_fit(0, make(), Stop(4, 1), **files)
        assert with_fit(0, make(), **files) == expected


def test_runs_side_by_side(tmp_path):
    def train(stop=None, **files):
        runs = [OnlineRun(Linear(6, 3, rng=seed, dtype="float32"), lr) for seed, lr in enumerate((1e38, 0.05, 0.5))]  # fmt: skip
        order = compounding(70, np.random.RandomState(1))
        if stop:
            first = order.__next__
            calls = []

            def interrupt(self):
                calls.append(1)
                if len(calls) == stop:
                    raise KeyboardInterrupt
                return first()

            order = type("compounding", (compounding,), {"__next__": interrupt})(70, order.rng)
            first = lambda: compounding.__next__(order)  # noqa: E731
        fit_side_by_side(runs, DATA, CrossEntropy(), epochs=5, block_size=16, rng=order, **files)
        return [(outcome(r.model, r.history), r.error) for r in runs]

    expected = train()
    assert "the loss is nan" in expected[0][1]
    files = {"checkpoint": minidl.Checkpoint(tmp_path / "runs.npz", resume=True)}
    for stop in (3, 2):
        with pytest.raises(KeyboardInterrupt):
            train(stop, **files)
    assert train(**files) == expected
    assert train(**files) == expected


def test_an_iterator_without_a_state_is_refused(tmp_path):
    model, orders = Linear(6, 3, rng=0), iter([np.arange(70)] * 2)
    options = {"lr": 0.1, "epochs": 2, "rng": orders}
    with pytest.raises(TypeError, match="fit_online: expected rng with a state that checkpoint= can save"):  # fmt: skip
        fit_online(
            model,
            DATA,
            CrossEntropy(),
            checkpoint=minidl.Checkpoint(tmp_path / "run.npz"),
            **options,
        )
    assert len(fit_online(model, DATA, CrossEntropy(), **options)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.1}, "optimizer.lr was 0.05, now it is 0.1"),
        ({"lr": minidl.Cosine(0.05, 9)}, "optimizer.lr was 0.05, now it is 'Cosine'"),
        ({"order": 6}, "rng was 5, now it is 6"),
        ({"order": TorchRandom(5)}, r"rng was 5, now it is 'TorchRandom\(5\)"),
        ({"parts": ("valid",)}, r"parts was \['train', 'valid'\], now it is \['valid'\]"),
        ({"monitor": "valid_loss"}, "judged by valid_accuracy"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, change, message):
    files = {"checkpoint": minidl.Checkpoint(tmp_path / "run.npz", resume=True)}
    with_fit(5, epochs=2, **files)
    model = network(3)
    before = model.theta.copy()
    with pytest.raises(ValueError, match=message):
        with_fit(change.pop("order", 5), model=model, **files, **change)
    if "monitor" not in change:
        assert (model.theta == before).all()
    with pytest.raises(TypeError, match=r"fit: resume= is now checkpoint=minidl.Checkpoint"):
        with_fit(5, resume=True)
    with pytest.raises(TypeError, match=r"fit: expected checkpoint=minidl.Checkpoint\(path\), got 'a.npz'"):  # fmt: skip
        with_fit(5, checkpoint="a.npz")


# What a user writes. Each function makes one with a value, of which a resumed run needs the same.

RATE = 0.05


class Schedule:
    def __init__(self, value):
        self._value = value

    def __call__(self, step):
        return self._value


class Quiet(Schedule):
    def __repr__(self):
        return "Quiet"


class Slots:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value

    def __call__(self, step):
        return self.value


class Hidden(minidl.losses.NumberLoss):
    """Keeps a function under another name."""

    def __init__(self, function):
        self._call = function

    def per_example(self, logits, y):
        value = self._call(logits - y)
        return value.sum(axis=1), value


class Act(Callback):
    def __init__(self, value=0):
        self._value = value


class Counts(Act):
    """Has a state, beside what it was made with."""

    def state_dict(self):
        return {"n": 3}


class Part(Callback):
    """Keeps a part of what it was made with, and a state."""

    def __init__(self, data):
        self.split, self.values = data.train, []

    def state_dict(self):
        return {"values": self.values}


class Noise(Callback):
    def __init__(self, rng):
        self.rng = np.random.default_rng(rng)


class Watches(Act):
    only_watches = True


class Gain(minidl.Layer):
    def __init__(self, gain):
        self._gain = gain

    def forward(self, x, *, train=False):
        return x * 1, lambda dy: dy * 1


class Table(Gain):
    """Holds an array that is neither a parameter nor a buffer."""

    buffers = ()


class Signs(minidl.SGD):
    """Keeps a function under another name."""

    def __init__(self, model, function):
        super().__init__(model, 0.01)
        self._function = function


def with_attribute(made, value):
    made.more = value
    return made


CYCLE: list = []
CYCLE.append(CYCLE)


def closure(value):
    import math

    def rate(step):
        return math.fabs(inner(step))

    def inner(step):
        return value

    return rate


def squares(factor):
    def loss(logits, y):
        error = (logits - y).astype(logits.dtype)
        return factor * float((error**2).mean()), factor * 2 / len(y) * error

    return loss


def reads_a_constant(step):
    return RATE


def calls_another(step):
    return reads_a_constant(step)


def constant(rate, value):
    globals()["RATE"] = value
    return rate


RATES = {
    "own class": Schedule,
    "own class with a repr": Quiet,
    "own class with slots": Slots,
    "closure": closure,
    "default argument": lambda value: lambda step, rate=value: rate,
    "lambdas of one line": lambda value: [lambda step: 0.1, lambda step: 0.2][value > 1],
    "no source": lambda value: eval(f"lambda step: {value}"),
    "method": lambda value: Schedule(value).__call__,
    "partial": lambda value: functools.partial(closure(value)),
    "cached": lambda value: functools.cache(closure(value)),
    "schedule of a schedule": lambda value: minidl.WarmUp(closure(value), 3),
    "own optimizer": lambda value: functools.partial(Signs, function=closure(value)),
    "constant of the module": lambda value: constant(reads_a_constant, value),
    "constant of a function it calls": lambda value: constant(calls_another, value),
}
LOSSES = {
    "closure": squares,
    "closure over a list": lambda value: (lambda seen: lambda z, y: squares(seen[0])(z, y))(
        [value]
    ),
    "own class with a lambda": lambda value: Hidden(lambda d: value * np.tanh(d)),
    "own class with an attribute": lambda value: with_attribute(Hidden(np.tanh), value),
}
CALLBACKS = {
    "argument": Act,
    "array": lambda value: Act(np.full(3, value)),
    "function": lambda value: Act(lambda run: value),
    "attribute": lambda value: with_attribute(Act(), value),
    "generator": Noise,
    "with a state": Counts,
    "with a state and a part of its argument": lambda value: Part(Dataset((X[value:], Y[value:]))),
    "missing": lambda value: Act() if value == 1 else None,
    "another one": lambda value: Act() if value == 1 else Counts(),
}
LAYERS = {
    "private argument": Gain,
    "array": lambda value: Table(np.full(3, value)),
    "function": lambda value: Gain(lambda x: x * value),
    "attribute": lambda value: with_attribute(Gain(1), value),
    "in another layer": lambda value: minidl.Residual(Sequential(Gain(value))),
}
SEEDS = {"generator": np.random.default_rng}
KINDS = {"lr": RATES, "loss": LOSSES, "callbacks": CALLBACKS, "layer": LAYERS, "rng": SEEDS, "metrics": {"function": squares}}  # fmt: skip
ONLINE = {"compounding": lambda value: compounding(70, np.random.RandomState(value)), "compounding, Generator": lambda value: compounding(70, np.random.default_rng(value))}  # fmt: skip
CHANGES = [("fit", what, kind) for what, kinds in KINDS.items() for kind in kinds]
for function, parts in (("online", ("loss", "callbacks", "layer")), ("beside", ("loss", "layer"))):
    CHANGES += [(function, what, next(iter(KINDS[what]))) for what in parts]
    CHANGES += [(function, "rng", kind) for kind in (*SEEDS, *ONLINE)]


def own(function, path, epochs=1, seed=0, **parts):
    """Train with parts of the user's own."""
    layers = Linear(6, 3), parts.get("layer") or ReLU(), Linear(3, 1)
    model = Sequential(*layers, rng=seed)
    data = Dataset((X[:70], X[:70, :1]), (X[70:], X[70:, :1]))
    loss, file = parts.get("loss") or minidl.SquaredError(), minidl.Checkpoint(path, resume=True)
    options = {"epochs": epochs, "rng": parts.get("rng", 0), "checkpoint": file}
    if function == "beside":
        fit_side_by_side([OnlineRun(model, 0.01)], data, loss, **options)
        return model.theta
    callbacks = [c for c in [parts.get("callbacks")] if c is not None]
    options |= {"callbacks": callbacks, "metrics": {"own": lambda *a: 0.0} if "metrics" not in parts else {"own": lambda *a, f=parts["metrics"]: f(*a)[0]}}  # fmt: skip
    if function == "online":
        fit_online(model, data, loss, lr=0.01, **options)
    else:
        lr = parts.get("lr", 0.01)
        made = getattr(lr, "func", None) is Signs
        fit(model, data, loss, lr(model) if made else minidl.SGD(model, lr), **options)
    return model.theta


@pytest.mark.parametrize(("function", "what", "kind"), CHANGES)
def test_what_a_user_writes_is_compared(tmp_path, function, what, kind):
    """With the same value a new object goes on; with another one nothing is mixed."""
    make = {**KINDS[what], **ONLINE}[kind]
    path = tmp_path / "run.npz"
    own(function, path, **{what: make(1)})
    own(function, path, epochs=2, seed=9, **{what: make(1)})
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"run.npz: "):
        own(function, path, epochs=3, **{what: make(2)})
    assert path.read_bytes() == content


@pytest.mark.parametrize("function", ["fit", "online", "beside"])
def test_what_changes_no_result_may_differ(tmp_path, function):
    """The seed of the model, whose weights are in the file, and callbacks that only watch."""
    watch = {} if function == "beside" else {"callbacks": Watches(1)}
    unseeded = np.random.default_rng
    own(function, tmp_path / "a.npz", seed=1, rng=unseeded(), **watch)
    own(function, tmp_path / "a.npz", seed=2, rng=unseeded(), epochs=2)
    expected = own(function, tmp_path / "b.npz", seed=1, epochs=2)
    own(function, tmp_path / "c.npz", seed=1)
    assert (own(function, tmp_path / "c.npz", seed=2, epochs=2) == expected).all()


@pytest.mark.parametrize("function", ["fit", "online", "beside"])
def test_fewer_epochs_than_the_file_has_are_refused(tmp_path, function):
    path = tmp_path / "run.npz"
    own(function, path, epochs=3)
    content = path.read_bytes()
    for epochs in (2, 0):
        with pytest.raises(ValueError, match=rf"run.npz: holds 3 epochs, and epochs={epochs} asks for fewer"):  # fmt: skip
            own(function, path, epochs=epochs)
    own(function, path, epochs=3)
    assert path.read_bytes() == content


class Stateless:
    """An optimizer of one's own that has no state."""

    def __init__(self, model):
        self.model, self.steps, self.lr = model, 0, 0.1

    def lr_at(self, step):
        return self.lr

    def step(self):
        self.model.theta -= self.lr * self.model.grad
        self.steps += 1


def test_an_optimizer_without_a_state_is_refused_before_training(tmp_path):
    model = Linear(6, 3, rng=0)
    before, path = model.theta.copy(), tmp_path / "run.npz"
    with pytest.raises(TypeError, match="fit: expected optimizer with a state that checkpoint= can save"):  # fmt: skip
        fit(model, DATA, CrossEntropy(), Stateless(model), epochs=1, rng=0, checkpoint=minidl.Checkpoint(path))  # fmt: skip
    assert (model.theta == before).all()
    assert not path.exists()
    fit(model, DATA, CrossEntropy(), Stateless(model), epochs=1, rng=0)


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("lr", Schedule(x for x in "ab")),
        ("lr", closure(threading.Lock())),
        ("loss", Hidden(threading.Lock())),
        ("callbacks", Act(sys.stderr)),
        ("layer", Gain(threading.Lock())),
        ("callbacks", with_attribute(Act(), CYCLE)),
    ],
)
def test_what_cannot_be_compared_is_refused_before_training(tmp_path, what, value):
    """And the message says how it can be."""
    with pytest.raises(TypeError, match=r"Checkpoint: \w+: .*cannot be compared with that of another run.*; define config\(\)"):  # fmt: skip
        own("fit", tmp_path / "a.npz", **{what: value})
    assert list(tmp_path.iterdir()) == []


def test_settings_of_the_optimizer_are_in_every_checkpoint(tmp_path):
    model, file = network(), minidl.Checkpoint(tmp_path / "run.npz")
    file.save(model=model, optimizer=Adam(model, betas=(0.8, 0.99)))
    with pytest.raises(ValueError, match=r"run.npz: .* optimizer.betas was \[0.8, 0.99\], now it is \[0.9, 0.999\]"):  # fmt: skip
        file.load(model=model, optimizer=Adam(model))
    file.load(model=model, optimizer=Adam(model, betas=(0.8, 0.99)))
    assert minidl.load(tmp_path / "run.npz")(X).tobytes() == model(X).tobytes()


DAMAGE = {
    "no parts": lambda m: m.pop("parts"),
    "parts are a list": lambda m: m.update(parts=[]),
    "no settings": lambda m: m.pop("settings"),
    "settings are a number": lambda m: m.update(settings=3),
    "nothing was made": lambda m: m.pop("made"),
    "no order": lambda m: m["parts"].pop("order"),
    "an order without a stream": lambda m: m["parts"]["order"].pop("stream"),
    "the stream is text": lambda m: m["parts"]["order"].update(stream="x"),
    "another stream": lambda m: m["parts"]["order"].update(stream=m["parts"]["model streams"]["0"]),
    "a callback without its state": lambda m: m["parts"].update({"Stop 1": {"x": 1}}),
    "a callback's state is text": lambda m: m["parts"].update({"Stop 1": "x"}),
    "no callback": lambda m: m["parts"].pop("Stop 1"),
    "two runs": lambda m: m["parts"]["training"]["errors"].append(None),
    "no errors": lambda m: m["parts"]["training"].pop("errors"),
    "no history": lambda m: m["parts"].pop("history"),
    "a rate that is text": lambda m: m["parts"]["optimizer"].update(lr="0.05"),
    "an optimizer's setting": lambda m: m["settings"]["optimizer"]["arguments"].pop("lr"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_changes_nothing(tmp_path, name):
    path = tmp_path / "run.npz"
    files = {"checkpoint": minidl.Checkpoint(path, resume=True)}
    order, stop = np.random.Generator(np.random.MT19937(5)), Stop()
    with_fit(order, stop, epochs=2, **files)
    with np.load(path) as archive:
        arrays = dict(archive)
    meta = json.loads(str(arrays.pop("meta")))
    DAMAGE[name](meta)
    np.savez(path, meta=np.array(json.dumps(meta)), **arrays)
    model, history, stop = network(3), History(), Stop()
    before, stream = model.theta.copy(), order.bit_generator.state
    with pytest.raises(ValueError, match=r"run.npz: \w"):
        with_fit(order, stop, model=model, history=history, **files)
    assert (model.theta == before).all()
    np.testing.assert_equal(order.bit_generator.state, stream)
    assert (len(history), stop.epochs) == (0, [])
