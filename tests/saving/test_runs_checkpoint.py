"""Checkpoints: a load sets everything or changes nothing; formats, streams, optimizers, histories."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numeric import flat

import minidl
from minidl import SGD, Adam, AdamW, Checkpoint, Dropout, Linear, ReLU, Sequential, TorchRandom
from minidl.checks import check_array
from minidl.history import Epoch, History

GENERATORS = {
    "PCG64": lambda seed: np.random.default_rng(seed),
    "MT19937": lambda seed: np.random.Generator(np.random.MT19937(seed)),
    "TorchRandom": TorchRandom,
    "Philox": lambda seed: np.random.Generator(np.random.Philox(seed)),
    "SFC64": lambda seed: np.random.Generator(np.random.SFC64(seed)),
}
OPTIMIZERS = {"Adam": Adam, "AdamW": AdamW, "SGD": lambda m: SGD(m, momentum=0.9)}


def run(seed=0, dtype="float32", generators=("PCG64", "PCG64"), optimizer="Adam", width=8):
    """A model with two random streams, its optimizer and its history after a few steps."""
    model = Sequential(
        Linear(6, width), ReLU(), Dropout(0.5), Linear(width, 3), Dropout(0.2), rng=seed, dtype=dtype
    )  # fmt: skip
    for i, (layer, kind) in enumerate(zip((model[2], model[4]), generators, strict=True)):
        layer.rng = GENERATORS[kind](seed + i)
    optimizer, history = OPTIMIZERS[optimizer](model), History()
    rng = np.random.default_rng(seed)
    for epoch in range(3):
        model.grad[:] = rng.normal(size=model.grad.size)
        optimizer.step()
        model.forward(np.ones((4, 6), dtype), train=True)
        figures = {"train_loss": 1.0, "train_accuracy": 0.5, "valid_accuracy": 0.1 * seed}
        history.append(Epoch(epoch, 0.1, 0.01, figures), model)
    return model, optimizer, history


def named(model, optimizer=None, history=None):
    parts = {"model": model, "optimizer": optimizer, "history": history}
    return {name: part for name, part in parts.items() if part is not None}


def save(path, *parts):
    Checkpoint(path).save(**named(*parts))


def load(path, *parts):
    """Load a checkpoint into these objects and a new history, which is returned."""
    history = History()
    Checkpoint(path).load(**named(*parts), history=history)
    return history


def state(model, optimizer):
    """All that a load may change."""
    streams = [layer.rng.bit_generator.state for layer in (model[2], model[4])]
    return {"theta": model.theta.copy(), "streams": streams, **optimizer.state_dict()}


def rewrite(path, change):
    """Change the arrays and the meta data of a checkpoint."""
    with np.load(path) as archive:
        arrays = dict(archive)
    meta = json.loads(str(arrays.pop("meta")))
    meta = change(arrays, meta) or meta
    np.savez(path, meta=np.array(json.dumps(meta)), **arrays)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_everything_is_restored(tmp_path, kind, optimizer, dtype):
    saved = run(1, dtype, (kind, "PCG64"), optimizer)
    save(tmp_path / "run.npz", *saved)
    other = run(2, dtype, (kind, "PCG64"), optimizer)
    history = load(tmp_path / "run.npz", *other[:2])
    np.testing.assert_equal(state(*other[:2]), state(*saved[:2]))
    assert history.to_dict() == saved[2].to_dict()
    np.testing.assert_array_equal(flat(history.best_state), flat(saved[2].best_state))
    assert flat(history.best_state).dtype == dtype
    x = np.ones((4, 6), dtype)
    masks = [model.forward(x, train=True)[0] for model in (saved[0], other[0])]
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("saved", GENERATORS)
@pytest.mark.parametrize("own", GENERATORS)
@pytest.mark.parametrize("position", [0, 1])
def test_a_stream_of_another_kind_changes_nothing(tmp_path, saved, own, position):
    if {saved, own} <= {"MT19937", "TorchRandom"} or saved == own:
        return  # the same bit generator
    kinds = [["PCG64", "PCG64"], ["PCG64", "PCG64"]]
    kinds[0][position], kinds[1][position] = saved, own
    save(tmp_path / "run.npz", *run(1, generators=kinds[0]))
    model, optimizer, _ = run(2, generators=kinds[1])
    before = state(model, optimizer)
    for target in (optimizer, None):
        with pytest.raises(ValueError, match=rf"run.npz: random stream {position}: expected a state of \w+ \("):  # fmt: skip
            load(tmp_path / "run.npz", model, target)
        np.testing.assert_equal(state(model, optimizer), before)


def drop(container, key):
    del container[key]


def put(container, *keys, value):
    for key in keys[:-1]:
        container = container[key]
    container[keys[-1]] = value


def deep(n):
    """Lists in lists."""
    return [deep(n - 1)] if n else []


DAMAGE = {
    "format": lambda a, m: put(m, "format", value=1),
    "format as text": lambda a, m: put(m, "format", value="2"),
    "no format": lambda a, m: drop(m, "format"),
    "meta is a list": lambda a, m: [m],
    "meta is a number": lambda a, m: 7,
    "no architecture": lambda a, m: drop(m, "architecture"),
    "architecture is a list": lambda a, m: put(m, "architecture", value=[]),
    "layers are a number": lambda a, m: put(m, "architecture", "arguments", "layers", value=3),
    "layers are numbers": lambda a, m: put(m, "architecture", "arguments", "layers", "items", value=[1, 2, 3, 4, 5]),
    "another layer": lambda a, m: put(m, "architecture", "arguments", "layers", "items", 1, "class", value="Tanh"),
    "no arguments": lambda a, m: drop(m["architecture"], "arguments"),
    "no streams": lambda a, m: drop(m["parts"], "model streams"),
    "streams are a number": lambda a, m: put(m, "parts", "model streams", value=2),
    "streams have other names": lambda a, m: put(m, "parts", "model streams", value={"a": 1, "b": 2}),
    "one stream": lambda a, m: drop(m["parts"]["model streams"], "1"),
    "three streams": lambda a, m: put(m, "parts", "model streams", "2", value=m["parts"]["model streams"]["0"]),
    "a stream is null": lambda a, m: put(m, "parts", "model streams", "1", value=None),
    "a stream is a list": lambda a, m: put(m, "parts", "model streams", "1", value=[1]),
    "a stream is empty": lambda a, m: put(m, "parts", "model streams", "1", value={}),
    "half of a stream": lambda a, m: drop(m["parts"]["model streams"]["1"], "state"),
    "half of a stream's state": lambda a, m: drop(m["parts"]["model streams"]["1"]["state"], "inc"),
    "a stream's end is missing": lambda a, m: drop(m["parts"]["model streams"]["1"], "uinteger"),
    "a stream's number is text": lambda a, m: put(m, "parts", "model streams", "1", "state", "inc", value="x"),
    "a stream's number is negative": lambda a, m: put(m, "parts", "model streams", "1", "uinteger", value=-1),
    "a stream's number is huge": lambda a, m: put(m, "parts", "model streams", "1", "uinteger", value=2**200),
    "another optimizer": lambda a, m: put(m, "made", "optimizer", value="SGD"),
    "no optimizer": lambda a, m: drop(m["parts"], "optimizer"),
    "no steps": lambda a, m: drop(m["parts"]["optimizer"], "steps"),
    "steps are negative": lambda a, m: put(m, "parts", "optimizer", "steps", value=-1),
    "steps are a fraction": lambda a, m: put(m, "parts", "optimizer", "steps", value=1.5),
    "no second moment": lambda a, m: drop(a, "optimizer/scaled_exp_avg_sq"),
    "short second moment": lambda a, m: put(a, "optimizer/scaled_exp_avg_sq", value=np.ones(3)),
    "text for a moment": lambda a, m: put(a, "optimizer/scaled_exp_avg_sq", value=np.full(83, "x")),
    "unknown moment": lambda a, m: put(a, "optimizer/momentum", value=np.ones(83)),
    "no bias": lambda a, m: drop(a, "model/3.bias"),
    "short bias": lambda a, m: put(a, "model/3.bias", value=np.ones(2)),
    "text for a bias": lambda a, m: put(a, "model/3.bias", value=np.array(["a", "b", "c"])),
    "complex bias": lambda a, m: put(a, "model/3.bias", value=np.ones(3, complex)),
    "dates for a bias": lambda a, m: put(a, "model/3.bias", value=np.ones(3, "M8[s]")),
    "times for a bias": lambda a, m: put(a, "model/3.bias", value=np.ones(3, "m8[s]")),
    "records for a bias": lambda a, m: put(a, "model/3.bias", value=np.ones(3, [("x", "f4")])),
    "dates for best parameters": lambda a, m: put(a, "history/best/0.weight", value=np.ones((6, 8), "M8[s]")),
    "lists without end": lambda a, m: put(m, "parts", "history", value=deep(900)),
    "architecture without end": lambda a, m: put(m, "architecture", "arguments", value=deep(900)),
    "a rate that is text": lambda a, m: put(m, "parts", "optimizer", "lr", value="fast"),
    "no settings of the optimizer": lambda a, m: put(m, "made", "optimizer", value={"class": "Adam"}),
    "other betas": lambda a, m: put(m, "made", "optimizer", "arguments", "betas", value=[0.5, 0.999]),
    "unknown parameter": lambda a, m: put(a, "model/4.bias", value=np.ones(3)),
    "short best parameters": lambda a, m: put(a, "history/best/0.weight", value=np.ones(82)),
    "long best parameters": lambda a, m: put(a, "history/best/0.weight", value=np.ones(84)),
    "one best parameter": lambda a, m: put(a, "history/best/0.weight", value=np.ones(1)),
    "best parameters as a matrix": lambda a, m: put(a, "history/best/0.weight", value=np.ones((83, 1))),
    "text for best parameters": lambda a, m: put(a, "history/best/0.weight", value=np.full(83, "x")),
    "history is a list": lambda a, m: put(m, "parts", "history", value=[]),
    "history is null": lambda a, m: put(m, "parts", "history", value=None),
    "history without records": lambda a, m: drop(m["parts"]["history"], "records"),
    "records are a number": lambda a, m: put(m, "parts", "history", "records", value=3),
    "a record is a number": lambda a, m: put(m, "parts", "history", "records", 2, value=3),
    "a record without a figure": lambda a, m: drop(m["parts"]["history"]["records"][2], "lr"),
    "a record with a boolean": lambda a, m: put(m, "parts", "history", "records", 2, "f1", value=True),
    "a record without its loss": lambda a, m: drop(m["parts"]["history"]["records"][2], "train_loss"),
    "another monitor": lambda a, m: put(m, "parts", "history", "monitor", value=3),
    "no monitor": lambda a, m: drop(m["parts"]["history"], "monitor"),
    "another mode": lambda a, m: put(m, "parts", "history", "mode", value="best"),
    "text for a figure": lambda a, m: put(m, "parts", "history", "records", 2, "valid_accuracy", value="x"),
    "null for a loss": lambda a, m: put(m, "parts", "history", "records", 2, "train_loss", value=None),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_changes_nothing(tmp_path, name):
    path = tmp_path / "run.npz"
    save(path, *run(1))
    rewrite(path, lambda arrays, meta: None)
    load(path, *run(2)[:2])  # what is written anew is as good as before
    rewrite(path, DAMAGE[name])
    model, optimizer, _ = run(2)
    before, theta = state(model, optimizer), model.theta
    with pytest.raises(ValueError, match=r"run.npz: \w"):
        load(path, model, optimizer)
    np.testing.assert_equal(state(model, optimizer), before)
    assert model.theta is theta


def test_meta_data_nested_too_deeply_are_one_line(tmp_path):
    path = tmp_path / "run.npz"
    save(path, *run(1))
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, "meta": np.array("[" * 100_000)})
    with pytest.raises(ValueError, match="cannot be read as a model or checkpoint"):
        load(path, *run(2)[:2])


@pytest.mark.parametrize("name", [name for name in DAMAGE if "archit" in name or "layers" in name])
def test_no_damaged_architecture_is_a_traceback(tmp_path, name):
    path = tmp_path / "run.npz"
    save(path, *run(1))
    rewrite(path, DAMAGE[name])
    with pytest.raises(ValueError, match=r"run.npz: \w"):
        minidl.load(path)


def test_times_are_no_integers():
    with pytest.raises(ValueError, match="expected n to be real numbers, got dtype timedelta64"):
        check_array("owner", "n", np.ones(3, "m8[s]"), (3,), np.dtype("i8"))


@given(
    saved=st.tuples(st.sampled_from(list(OPTIMIZERS)), st.integers(7, 9)),
    own=st.tuples(st.sampled_from(list(OPTIMIZERS)), st.integers(7, 9)),
    kinds=st.lists(st.sampled_from(list(GENERATORS)), min_size=4, max_size=4),
)
def test_a_load_sets_everything_or_nothing(tmp_path_factory, saved, own, kinds):
    path = tmp_path_factory.mktemp("run") / "run.npz"
    source = run(1, optimizer=saved[0], width=saved[1], generators=kinds[:2])
    save(path, *source)
    model, optimizer, _ = run(2, optimizer=own[0], width=own[1], generators=kinds[2:])
    before = state(model, optimizer)
    try:
        load(path, model, optimizer)
    except ValueError:
        np.testing.assert_equal(state(model, optimizer), before)
        same = [k.replace("TorchRandom", "MT19937") for k in kinds]
        assert saved != own or same[:2] != same[2:]
    else:
        np.testing.assert_equal(state(model, optimizer), state(*source[:2]))


def test_the_format_is_named(tmp_path):
    path = tmp_path / "run.npz"
    save(path, *run(1))
    rewrite(path, lambda arrays, meta: put(meta, "format", value=99))
    with pytest.raises(ValueError, match=r"run\.npz: expected format 2, got 99"):
        load(path, *run(1)[:2])


def test_a_model_alone_and_a_history_alone(tmp_path):
    model, optimizer, history = run(1)
    save(tmp_path / "model.npz", model)
    other, other_optimizer, _ = run(2)
    before = state(other, other_optimizer)
    with pytest.raises(ValueError, match="has no state of 'optimizer'"):
        load(tmp_path / "model.npz", other, other_optimizer)
    np.testing.assert_equal(state(other, other_optimizer), before)
    with pytest.raises(ValueError, match="has no state of 'history'"):
        load(tmp_path / "model.npz", other)
    Checkpoint(tmp_path / "model.npz").load(model=other)
    np.testing.assert_array_equal(other.theta, model.theta)
    save(tmp_path / "both.npz", model, None, history)
    assert load(tmp_path / "both.npz", run(3)[0]).records == history.records


def test_another_dtype_is_converted(tmp_path):
    model, optimizer, history = run(1, "float64")
    save(tmp_path / "run.npz", model, optimizer, history)
    other, other_optimizer, _ = run(2, "float32")
    loaded = load(tmp_path / "run.npz", other, other_optimizer)
    assert other.theta.dtype == flat(loaded.best_state).dtype == np.float32
    np.testing.assert_array_equal(other.theta, model.theta.astype(np.float32))
    np.testing.assert_array_equal(
        flat(loaded.best_state), flat(history.best_state).astype(np.float32)
    )


# The state of a model.

WRONG = [np.ones(3, "M8[s]"), np.ones(3, "m8[s]"), np.ones(3, [("x", "f4")]), np.ones(2), np.ones((3, 1)), 1.0, np.array(["a", "b", "c"]), np.ones(3, complex), [None] * 3]  # fmt: skip


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "3.bias"])
def test_a_model_s_state_that_is_refused_changes_nothing(name):
    good, (model, *_) = run(1)[0].state_dict(), run(2)
    before = model.theta.copy()
    wrong = [{**good, name: value} for value in WRONG]
    wrong += [{k: v for k, v in good.items() if k != name}, {**good, "5.bias": good[name]}, {}]
    wrong += [{**good, name: np.full(good[name].shape, value)} for value in ("x", None, 1j)]
    for one in wrong:
        with pytest.raises(ValueError, match="Sequential: "):
            model.load_state_dict(one)
        np.testing.assert_array_equal(model.theta, before)
    model.load_state_dict(good)
    np.testing.assert_equal(model.state_dict(), good)


def test_parameters_may_be_exchanged_within_a_model():
    model = Sequential(Linear(3, 3), Linear(3, 3), rng=0)
    views, values = dict(model.named_parameters()), model.state_dict()
    swapped = {f"{1 - int(name[0])}{name[1:]}": p.value for name, p in views.items()}
    model.load_state_dict(swapped)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, values[f"{1 - int(name[0])}{name[1:]}"])
