"""Layers shared, copied and replaced as users do: it works, or one clear error says what to do."""

import copy
import gc
import pickle

import numpy as np
import pytest

import minidl
from minidl import SGD, Dropout, Layer, Linear, Parameter, ReLU, Residual, Sequential, Tanh
from minidl.layer import check_model

x = np.random.default_rng(0).normal(size=(60, 4))
dataset = minidl.Dataset((x, np.arange(60) % 3))


def network(seed=0):
    return Sequential(Linear(4, 5), Tanh(), Linear(5, 3), rng=seed, dtype="float64")


def train(model, **options):
    return minidl.fit(model, dataset, minidl.CrossEntropy(), SGD(model, 0.5), epochs=3, rng=0, **options)  # fmt: skip


SHARED = r"the parameter '0.weight' belongs to another model, a Sequential; .* layer.copy\(\)"


def test_a_layer_in_two_models_computes_in_both_and_learns_in_the_first_alone():
    body = Linear(4, 5, rng=1, dtype="float64")
    first = Sequential(body, Tanh(), Linear(5, 3), rng=2)
    second = Sequential(body, ReLU(), Linear(5, 2), rng=3)
    theta, before = first.theta, second(x)
    with pytest.raises(ValueError, match=SHARED):
        SGD(second, 0.1)
    with pytest.raises(ValueError, match=SHARED):
        second.initialize()
    weight = body.weight.value.copy()
    train(first)
    assert (body.weight.value != weight).any()
    assert np.shares_memory(body.weight.value, first.theta)
    assert first.theta is theta
    assert np.abs(second(x) - before).max() > 0.01  # it shares the trained layer
    np.testing.assert_array_equal(second(x), second[2](np.maximum(body(x), 0)))
    train(first)  # and nothing was broken by the second model


def test_features_of_a_trained_model_are_live():
    model = network()
    features = Sequential(*model.layers[:-1])
    assert features.dtype == np.float64
    np.testing.assert_array_equal(features(x), np.tanh(model[0](x)))
    train(model)
    np.testing.assert_array_equal(features(x), np.tanh(model[0](x)))
    np.testing.assert_array_equal(minidl.outputs(features, dataset.train), features(x))
    assert "Linear(4, 5)" in features.summary()
    assert list(features.state_dict()) == ["0.weight", "0.bias"]
    with pytest.raises(ValueError, match=SHARED):
        _ = features.theta
    head = Sequential(features.copy(), Linear(5, 3), rng=1)  # a copy can be trained further
    before = model.theta.copy()
    train(head)
    np.testing.assert_array_equal(model.theta, before)


def test_a_model_may_replace_the_one_whose_layers_it_took():
    model = network()
    model = Sequential(*model, Linear(3, 3), rng=5)
    gc.collect()
    assert model.theta.size == 4 * 5 + 5 + 5 * 3 + 3 + 12
    history = train(model)
    assert history[-1].train_loss < history[0].train_loss
    check_model("fit", model)


def test_the_cell_of_a_notebook_may_run_twice():
    layers = Linear(4, 5), Dropout(0.2), Linear(5, 3)
    for _ in range(2):
        model = Sequential(*layers, rng=0, dtype="float64")
        train(model)
        gc.collect()


def test_an_inner_model_becomes_a_part_of_the_outer_one():
    inner = network()
    outer = Sequential(inner, Linear(3, 3), rng=1)
    assert np.shares_memory(inner.theta, outer.theta)
    before = inner.theta.copy()
    train(outer)
    assert (inner.theta != before).any()
    train(inner)  # its vectors are a part of the outer one's
    with pytest.raises(ValueError, match="belongs to another model"):
        inner.initialize()  # this would take it out of the outer one
    train(outer)


@pytest.mark.parametrize("clone", [copy.copy, lambda m: copy.copy(copy.copy(m))])
def test_a_shallow_copy_computes_and_does_not_train(clone):
    model = network()
    other = clone(model)
    np.testing.assert_array_equal(other(x), model(x))
    with pytest.raises(ValueError, match=SHARED):
        train(other)
    history = train(model)
    assert history[-1].train_loss < history[0].train_loss
    np.testing.assert_array_equal(other(x), model(x))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.copy()])  # fmt: skip
def test_real_copies_train(clone):
    model = network()
    parts = clone(Sequential(*model.layers[:2])), clone(model), clone(model[0])
    before = model.theta.copy()
    for part in parts:
        part.theta[:] = 1
        check_model("fit", part)
    train(parts[1])
    np.testing.assert_array_equal(model.theta, before)


def test_a_copy_of_a_layer_without_values_can_be_drawn():
    one = Linear(3, 2)
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(copy.copy(one)))):
        np.testing.assert_array_equal(other.initialize(0).theta, Linear(3, 2, rng=0).theta)


class Own(Layer):
    def __init__(self):
        self.gain, self.inner, self.steps = Parameter(np.ones(4)), Linear(4, 4), 0
        self.blocks = [Linear(4, 4), Tanh()]

    def forward(self, x, *, train=False):
        self.steps += 1
        y = x * self.gain.value
        for layer in (self.inner, *self.blocks):
            y, _ = layer.forward(y, train=train)
        return y, lambda dy: dy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gain", Parameter(np.ones(4))),
        ("gain", np.ones(4)),
        ("gain", None),
        ("inner", Linear(4, 4, rng=0)),
        ("inner", None),
        ("blocks", []),
        ("blocks", [Linear(4, 4, rng=0)]),
        ("head", Linear(4, 4, rng=0)),
    ],
)
def test_replacing_a_part_of_a_model_is_an_error_at_once(name, value):
    layer = Own()
    layer.inner = Linear(4, 4)  # while it is built, anything goes
    model = Sequential(layer, rng=0, dtype="float64")
    before = vars(layer).copy()
    with pytest.raises(ValueError, match=rf"Own: cannot replace '{name}': .* parameter.value"):
        setattr(layer, name, value)
    assert vars(layer) == before
    setattr(layer, name, before.get(name)) if name in before else None  # changes nothing
    model(x)
    assert layer.steps == 1
    layer.gain.value = np.full(4, 2.0)
    assert model.theta.max() == 2


def test_the_layers_of_a_sequential_cannot_be_replaced():
    model = network()
    with pytest.raises(ValueError, match="Sequential: cannot replace 'layers'"):
        model.layers = (Linear(4, 3, rng=0),)
    with pytest.raises(ValueError, match="Residual: cannot replace 'inner'"):
        Residual(Linear(4, 4), rng=0).inner = model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda blocks: blocks.__setitem__(0, Linear(4, 4, rng=1, dtype="float64")), "'0.blocks.0.weight' is not at its place in theta"),
        (lambda blocks: blocks.append(Linear(4, 4, rng=1, dtype="float64")), "'0.blocks.2.weight' is not at its place"),
        (lambda blocks: blocks.clear(), "theta has other parameters than the layers"),
        (lambda blocks: blocks.append(Linear(4, 4)), "has no value yet"),
    ],
)  # fmt: skip
def test_a_list_of_layers_that_was_changed_in_place_is_found(change, message):
    layer = Own()
    model = Sequential(layer, rng=0, dtype="float64")
    check_model("fit", model)
    change(layer.blocks)
    with pytest.raises(ValueError, match=message):
        SGD(model, 0.1)


def test_a_layer_may_still_not_occur_twice():
    layer = Linear(3, 3)
    with pytest.raises(ValueError, match="a layer occurs twice"):
        Sequential(layer, Residual(layer), rng=0)
