"""Buffers of users' layers: saved, copied, restored with the parameters, and never dropped unseen."""

import copy
import pickle

import numpy as np
import pytest

import minidl
from minidl import Layer, Linear, Parameter, ReLU, Residual, Sequential
from minidl.saving import safetensors


class OwnBatchNorm(Layer):
    """A user's batch normalisation, written by hand."""

    buffers = ("running_mean", "running_var")

    def __init__(self, features):
        self.weight = Parameter(np.ones(features, np.float32))
        self.bias = Parameter(np.zeros(features, np.float32))
        self.running_mean, self.running_var = np.zeros(features), np.ones(features)

    def forward(self, x, *, train=False):
        mean, var = (x.mean(0), x.var(0)) if train else (self.running_mean, self.running_var)
        if train:
            self.running_mean = 0.9 * self.running_mean + 0.1 * mean
            self.running_var = 0.9 * self.running_var + 0.1 * var
        scale = 1 / np.sqrt(var + x.dtype.type(1e-5))
        h = (x - mean) * scale

        def backward(dy):
            self.weight.grad, self.bias.grad = (dy * h).sum(0), dy.sum(0)
            dh = dy * self.weight.value
            return scale * (dh - dh.mean(0) - h * (dh * h).mean(0)) if train else scale * dh

        return h * self.weight.value + self.bias.value, backward


class Duck:
    """Batch statistics in a class that does not derive from Layer."""

    buffers = ("seen",)

    def __init__(self):
        self.seen = np.array(0)

    def forward(self, x, *, train=False):
        if train:
            self.seen = self.seen + len(x)
        return x, lambda dy: dy


def network(seed=0, dtype="float32", norm=OwnBatchNorm):
    return Sequential(Linear(6, 12), norm(12), ReLU(), Residual(norm(12), Duck()), Linear(12, 4), rng=seed, dtype=dtype)  # fmt: skip


BUFFERS = ["1.running_mean", "1.running_var", "3.inner.0.running_mean", "3.inner.0.running_var", "3.inner.1.seen"]  # fmt: skip


def data(seed=0):
    rng = np.random.default_rng(seed)
    centres = 3 * rng.normal(size=(4, 6)) + 5
    y = rng.integers(4, size=400)
    x = (centres[y] + 2 * rng.normal(size=(400, 6))).astype(np.float32)
    return minidl.Dataset((x[:300], y[:300]), (x[300:], y[300:]))


def trained(seed=0):
    model, dataset = network(seed), data()
    optimizer = minidl.Adam(model, 1e-2)
    minidl.fit(model, dataset, minidl.CrossEntropy(), optimizer, epochs=5, rng=0)
    return model, optimizer, dataset.valid


def test_a_hand_written_batch_norm_reloads_with_the_same_accuracy(tmp_path):
    model, optimizer, valid = trained()
    score = np.mean(model(valid.x).argmax(1) == valid.y)
    assert score > 0.8
    path = tmp_path / "model.npz"

    def reloaded(load):
        other = network(seed=1)
        load(other)
        np.testing.assert_array_equal(other(valid.x), model(valid.x))
        return np.mean(other(valid.x).argmax(1) == valid.y)

    minidl.Checkpoint(path).save(model=model, optimizer=optimizer)
    safetensors.save(tmp_path / "model.safetensors", model)
    assert reloaded(lambda other: minidl.Checkpoint(path).load(model=other)) == score
    assert reloaded(lambda other: other.load_state_dict(model.state_dict())) == score
    assert reloaded(lambda other: safetensors.load(tmp_path / "model.safetensors", other)) == score
    # The test sees what used to happen: the parameters alone are another model.
    alone = network(seed=1)
    alone.theta[:] = model.theta
    assert np.abs(alone(valid.x) - model(valid.x)).max() > 0.1


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.copy()]
)
def test_copies_have_buffers_of_their_own(clone):
    model, _, valid = trained()
    other = clone(model)
    np.testing.assert_array_equal(other(valid.x), model(valid.x))
    before = model.state_dict()
    other.forward(valid.x, train=True)
    np.testing.assert_equal(model.state_dict(), before)
    assert (other[1].running_mean != model[1].running_mean).all()
    assert other[3].inner[1].seen == model[3].inner[1].seen + 100


def test_names_are_in_the_state_in_the_order_of_pytorch():
    state = network().state_dict()
    assert [name for name in state if name in BUFFERS] == BUFFERS
    assert list(state)[2:6] == ["1.weight", "1.bias", "1.running_mean", "1.running_var"]
    assert state["3.inner.1.seen"].dtype.kind == "i"


def test_buffers_of_floats_have_the_dtype_of_the_parameters():
    model = network(dtype="float64")
    assert network()[1].running_mean.dtype == np.float32  # written as float64 zeros
    assert model[1].running_mean.dtype == np.float64
    small = model.copy("float32")
    assert small[1].running_var.dtype == np.float32
    assert small[3].inner[1].seen.dtype.kind == "i"
    x = np.ones((3, 6), np.float32)
    assert small(x).dtype == small.forward(x, train=True)[0].dtype == np.float32


class Scaler(Layer):
    """A layer without parameters keeps the precision of its buffers."""

    buffers = ("mean",)

    def __init__(self, mean):
        self.mean = mean

    def forward(self, x, *, train=False):
        return x - self.mean, lambda dy: dy


def test_a_model_without_parameters_keeps_the_dtype_of_its_buffers():
    model = Sequential(Scaler(np.full(3, 1 / 3)))
    assert model.dtype == np.float64
    np.testing.assert_array_equal(model(np.zeros((1, 3))), -1 / 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("1.running_mean"), "no value for '1.running_mean'"),
        (lambda s: s.update({"1.running_men": s["1.bias"]}), "no parameter or buffer '1.running_men', did you mean '1.running_mean'"),
        (lambda s: s.update({"1.running_mean": np.ones(3)}), r"expected 1.running_mean of shape \(12,\), got \(3,\)"),
        (lambda s: s.update({"3.inner.1.seen": np.array("x")}), "3.inner.1.seen to be real numbers"),
        (lambda s: s.update({"3.inner.1.seen": np.array(0.5)}), "3.inner.1.seen to be real numbers, got dtype float64"),
    ],
)  # fmt: skip
def test_all_or_nothing(change, message):
    model, other = trained()[0], network(seed=1)
    before, state = other.state_dict(), model.state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(state)
    np.testing.assert_equal(other.state_dict(), before)


@pytest.mark.parametrize("layer", [ReLU(), Sequential(), minidl.Tanh(), minidl.Dropout(0.5)])
def test_a_state_for_a_layer_without_one(layer):
    with pytest.raises(ValueError, match=r"no parameter or buffer 'foo', expected none$"):
        layer.load_state_dict({"foo": 1})


def test_a_snapshot_is_a_copy_and_fits_one_model():
    model, _, valid = trained()
    before, outputs = model.state_dict(), model(valid.x)
    model.theta[:] = 0
    for _ in range(3):
        model.forward(10 * valid.x, train=True)
    model.load_state_dict(before)
    np.testing.assert_array_equal(model(valid.x), outputs)
    model.forward(10 * valid.x, train=True)
    model.load_state_dict(before)  # a second time: the state was not changed
    np.testing.assert_array_equal(model(valid.x), outputs)
    with pytest.raises(ValueError, match=r"no value for '1.running_mean'"):
        model.load_state_dict({k: v for k, v in before.items() if k != "1.running_mean"})
    with pytest.raises(ValueError, match=r"expected 0.weight of shape"):
        model.load_state_dict({**before, "0.weight": before["0.weight"][1:]})


class Undeclared(Layer):
    def __init__(self):
        self.mean = np.zeros(3)

    def forward(self, x, *, train=False):
        return x - self.mean, lambda dy: dy


class UndeclaredDuck:
    def __init__(self):
        self.mean = np.zeros(3)

    def forward(self, x, *, train=False):
        return x - self.mean, lambda dy: dy


class NotSaved(Undeclared):
    buffers = ()


class AsText(Undeclared):
    buffers = "mean"


class Missing(Undeclared):
    buffers = ("mean", "var")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sequential(Linear(3, 3), Undeclared(), rng=0), r"Undeclared: the array 'mean' \(1.mean\) is neither a parameter nor a buffer.* buffers = \('mean',\), or buffers = \(\) if"),
        (lambda: Sequential(UndeclaredDuck()), "UndeclaredDuck: the array 'mean'"),
        (lambda: Sequential(Residual(Sequential(ReLU(), Undeclared()))), "Undeclared: the array 'mean'"),
        (lambda: minidl.SGD(Undeclared()), "Undeclared: the array 'mean'"),
        (lambda: Sequential(AsText()), r"AsText: expected the names of buffers in a tuple, as buffers = \('mean',\), got 'mean'"),
        (lambda: Sequential(Missing()), "Missing: expected the buffer 'var' to be an array of real numbers, got None"),
    ],
)  # fmt: skip
def test_an_array_that_is_not_declared_is_an_error_before_training(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("names", ["mean", {"mean"}, {"mean": 0}, np.array(["mean"])])
def test_buffers_that_are_no_tuple_of_names_are_never_left_out(tmp_path, names):
    layer = type("Own", (Undeclared,), {"buffers": names})()
    for use in (layer.state_dict, lambda: layer.load_state_dict({}), lambda: minidl.save(tmp_path / "a.npz", layer)):  # fmt: skip
        with pytest.raises(ValueError, match="Own: expected the names of buffers in a tuple"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_a_layer_may_have_arrays_that_are_not_saved():
    model = Sequential(NotSaved(), Linear(3, 2), rng=0)
    assert list(model.state_dict()) == ["1.weight", "1.bias"]
    minidl.SGD(model, 0.1)


class WithMask(NotSaved):
    """``buffers`` of a subclass replace those of its base, as any attribute."""

    buffers = ("mask",)

    def __init__(self):
        super().__init__()
        self.mask = np.array([True, False, True])


def test_buffers_may_be_of_any_real_kind():
    layer = WithMask()
    other = copy.deepcopy(layer)
    layer.mask = np.array([False, False, True])
    other.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(other.mask, [False, False, True])
    assert other.mask.dtype == bool
