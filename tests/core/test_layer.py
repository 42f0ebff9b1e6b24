"""The layer contract: flat vectors, views, copies, state, own layers, errors."""

import copy
import pickle

import numeric
import numpy as np
import pytest

import minidl
from minidl import Dropout, LayerNorm, Linear, Parameter, ReLU, Residual, Sequential, Tanh
from minidl.layer import Layer, write_gradients


def network(dtype="float64"):
    inner = Sequential(Linear(5, 5), ReLU())
    return Sequential(Linear(3, 5), LayerNorm(5), Residual(inner, Dropout(0.5)), Linear(5, 2), rng=0, dtype=dtype)  # fmt: skip


def test_every_parameter_is_a_view_of_one_contiguous_vector():
    model = network()
    assert model.theta.flags.c_contiguous
    assert model.grad.flags.c_contiguous
    names = [name for name, _ in model.named_parameters()]
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias", "2.inner.0.0.weight", "2.inner.0.0.bias", "3.weight", "3.bias"]  # fmt: skip
    model.theta[:] = np.arange(model.theta.size)
    model.grad[:] = -model.theta
    flat = np.concatenate([p.value.ravel() for _, p in model.named_parameters()])
    np.testing.assert_array_equal(flat, model.theta)
    for _, p in model.named_parameters():
        assert np.shares_memory(p.value, model.theta)
        assert np.shares_memory(p.grad, model.grad)
        np.testing.assert_array_equal(p.grad, -p.value)
    inner = model[2].inner  # the theta of an inner model is a part of the same vector
    assert np.shares_memory(inner.theta, model.theta)
    assert inner.theta.size == 30


def test_assigning_to_a_parameter_writes_into_the_vector():
    model = network()
    model[0].weight.value = np.ones((3, 5))
    model[0].weight.value *= 2
    model[0].bias.grad = np.full(5, 7.0)
    np.testing.assert_array_equal(model.theta[:15], 2)
    np.testing.assert_array_equal(model.grad[15:20], 7)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.copy()])  # fmt: skip
def test_copies_are_independent_models(clone):
    model = network()
    other = clone(model)
    np.testing.assert_array_equal(other.theta, model.theta)
    other.theta[:] = 0
    assert all((p.value == 0).all() for _, p in other.named_parameters())
    assert model.theta.any()


def test_copy_changes_dtype():
    model = network("float64")
    small = model.copy("float32")
    assert small.theta.dtype == small[0].weight.value.dtype == np.float32
    np.testing.assert_allclose(small.theta, model.theta, rtol=1e-6)


def test_same_seed_same_bits_and_dropout_leaves_the_weights_alone():
    assert (network().theta == network().theta).all()
    with_, without = (
        Sequential(Linear(4, 4), *drop, Linear(4, 2), rng=3) for drop in ([Dropout(0.5)], [])
    )
    np.testing.assert_array_equal(with_.theta, without.theta)
    first, second = (layer.rng for layer in Sequential(Dropout(), Dropout(), rng=3))
    assert first.random() != second.random()


def test_initialize_keeps_values_that_are_set():
    own = Linear(3, 2, rng=1, dtype="float64")
    before = own.weight.value.copy()
    model = Sequential(own, Linear(2, 2), rng=2)
    assert model.dtype == np.float64
    np.testing.assert_array_equal(model[0].weight.value, before)


def test_two_forward_passes_in_flight():
    model = network()
    rng = np.random.default_rng(0)
    x1, x2, dy = rng.normal(size=(4, 3)), rng.normal(size=(6, 3)), rng.normal(size=(4, 2))
    _, alone = model.forward(x1)
    dx, grad = alone(dy), model.grad.copy()
    _, first = model.forward(x1)
    _, second = model.forward(x2)
    second(rng.normal(size=(6, 2)))
    np.testing.assert_array_equal(first(dy), dx)
    np.testing.assert_array_equal(model.grad, grad)  # written, not added


def test_input_grad_false_gives_the_same_parameter_gradients():
    rng = np.random.default_rng(0)
    for model in (network(), Sequential(ReLU(), Dropout(0.0), network())):
        x, dy = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
        _, backward = model.forward(x)
        assert backward(dy).shape == x.shape
        grad = model.grad.copy()
        model.grad[:] = np.nan
        assert backward(dy, input_grad=False) is None
        np.testing.assert_array_equal(model.grad, grad)
    _, backward = Sequential(ReLU()).forward(x)
    assert backward(x, input_grad=False) is None


class Scale(Layer):
    """A user's layer: ``y = gain x``, with the plain ``backward(dy)``."""

    def __init__(self, features):
        self.gain = Parameter(np.linspace(0.5, 2, features))

    def forward(self, x, *, train=False):
        gain = self.gain

        def backward(dy):
            gain.grad = (dy * x).sum(axis=0)
            return dy * gain.value

        return x * gain.value, backward


class Doubled(Linear):
    """A subclass with its own ``forward``, whose ``backward`` does not take ``input_grad``."""

    def forward(self, x, *, train=False):
        y, pull_back = super().forward(x, train=train)
        return 2 * y, lambda dy: pull_back(2 * dy)


OWN = {
    "the only layer": lambda: Scale(3),
    "the only layer of a Sequential": lambda: Sequential(Scale(3)),
    "first": lambda: Sequential(Scale(3), Tanh(), Linear(3, 3)),
    "first with parameters": lambda: Sequential(Tanh(), Scale(3), Linear(3, 3)),
    "last": lambda: Sequential(Linear(3, 3), Tanh(), Scale(3)),
    "first in an inner Sequential": lambda: Sequential(Sequential(Scale(3), Tanh()), Linear(3, 3)),
    "in a first Residual": lambda: Sequential(Residual(Scale(3), Tanh()), Linear(3, 3)),
    "in a later Residual": lambda: Sequential(Linear(3, 3), Residual(Scale(3))),
    "a subclass of Linear, alone": lambda: Doubled(3, 3),
    "a subclass of Linear, first": lambda: Sequential(Doubled(3, 3), Tanh(), Linear(3, 3)),
    "a subclass of Linear, in a Residual": lambda: Residual(Doubled(3, 3)),
}


@pytest.mark.parametrize("make", OWN.values(), ids=OWN)
def test_a_layer_with_a_plain_backward_trains_in_any_position(make):
    model = make().initialize(rng=0, dtype="float64")
    rng = np.random.default_rng(1)
    x, target = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    loss = minidl.SquaredError()
    y, backward = model.forward(x, train=True)
    model.grad[:] = np.nan
    write_gradients(model, backward, loss(y, target)[1])
    expected = numeric.gradient(lambda: loss(model(x), target)[0], model.theta)
    assert numeric.agree(model.grad, expected)

    data = minidl.Dataset((x, np.arange(20) % 3))
    before = model.theta.copy()
    history = minidl.fit(
        model, data, minidl.CrossEntropy(), minidl.SGD(model, 0.1), epochs=5, rng=0
    )
    assert history[-1].train_loss < history[0].train_loss
    assert (model.theta != before).all()


def test_skipping_the_input_gradient_is_declared_and_not_inherited():
    class Named(Linear):
        """No forward of its own, so everything is that of Linear."""

    class Careful(Doubled):
        skips_input_grad = True

        def forward(self, x, *, train=False):
            y, pull_back = Linear.forward(self, x, train=train)
            return y, pull_back

    class Mixin:
        def forward(self, x, *, train=False):
            return x, lambda dy: dy

    class Mixed(Mixin, Linear):
        """The forward of another class, in front of Linear's."""

    classes = (Layer, Scale, Linear, Named, Doubled, Careful, Mixed)
    declared = [cls.skips_input_grad for cls in classes]
    assert declared == [False, False, True, True, False, True, False]


def test_a_layer_may_offer_input_grad_without_declaring_it():
    class Scale(Layer):
        def __init__(self):
            self.gain = Parameter(np.full(3, 2.0))

        def forward(self, x, *, train=False):
            gain = self.gain

            def backward(dy, input_grad=True):
                gain.grad = (dy * x).sum(axis=0)
                return dy * gain.value if input_grad else None

            return x * gain.value, backward

    model = Sequential(Scale(), Linear(3, 1), rng=0)
    assert [n for n, _ in model.named_parameters()] == ["0.gain", "1.weight", "1.bias"]
    assert model.dtype == np.float64
    y, backward = model.forward(np.ones((2, 3)))
    backward(np.ones((2, 1)), input_grad=False)
    np.testing.assert_allclose(model.grad[:3], 2 * model[1].weight.value[:, 0])


def test_state_dict_round_trip_and_its_errors():
    model, other = network(), network()
    other.theta[:] = 0
    state = model.state_dict()
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.theta, model.theta)
    state["0.weight"][:] = 9  # a copy
    assert not (model[0].weight.value == 9).any()
    with pytest.raises(
        ValueError, match=r"no parameter or buffer '0.wieght', did you mean '0.weight'\?"
    ):
        other.load_state_dict({"0.wieght": state["0.weight"]})
    with pytest.raises(ValueError, match=r"no value for '3.bias'"):
        other.load_state_dict({k: v for k, v in state.items() if k != "3.bias"})
    before = other.theta.copy()
    with pytest.raises(ValueError, match=r"expected 3.bias of shape \(2,\), got \(3,\)"):
        other.load_state_dict({**state, "3.bias": np.zeros(3)})
    np.testing.assert_array_equal(other.theta, before)  # all or none


def test_summary_and_repr():
    model = Sequential(Dropout(0.2), Linear(784, 16), ReLU(), Linear(16, 26), rng=0)
    assert repr(model) == "Sequential(Dropout(0.2), Linear(784, 16), ReLU(), Linear(16, 26))"
    lines = model.summary().splitlines()
    assert lines[3].split() == ["1", "Linear(784,", "16)", "(n,", "16)", "12,560"]
    assert lines[-1] == "13,002 parameters, float32, 0.05 MB"
    assert repr(Parameter(np.zeros((2, 3), np.float32))) == "Parameter(shape=(2, 3), float32)"
    assert (len(model), model[1].in_features, len(list(model))) == (4, 784, 4)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Linear(8, 3)(np.ones((1, 8), "f")), ValueError, r"\(8, 3\) has no value yet"),
        (lambda: Linear(0, 3), ValueError, r"in_features to be a whole number >= 1, got 0"),
        (lambda: Linear(8, 2.5), ValueError, r"out_features .* got 2.5"),
        (lambda: Linear(8, 3, rng="x"), TypeError, r"rng: expected a seed .* got 'x'"),
        (lambda: Linear(8, 3, rng=0, dtype="float16"), ValueError, r"float32 or float64, got .float16"),
        (lambda: Linear(8, 3, rng=0)(np.ones((2, 7), "f")), ValueError, r"Linear\(8, 3\): expected x of shape \(n, 8\), got \(2, 7\)"),
        (lambda: Linear(8, 3, rng=0)(np.ones((2, 8))), TypeError, r"Linear\(8, 3\): expected x of dtype float32, got float64"),
        (lambda: Linear(8, 3, rng=0)(np.ones(8, "f")), ValueError, r"expected x of shape \(n, 8\), got \(8,\)"),
        (lambda: Dropout(1.5), ValueError, r"Dropout: expected p .*>= 0 and <= 1, got 1.5"),
        (lambda: Dropout(0.5).forward(np.ones(3), train=True), ValueError, r"needs rng="),
        (lambda: LayerNorm(3, eps=0), ValueError, r"eps .*> 0, got 0"),
        (lambda: Sequential(3), TypeError, r"expected a layer at position 0, got 3"),
        (lambda: Sequential(ReLU), TypeError, r"expected a layer at position 0"),
        (lambda: Sequential(*[Linear(2, 2)] * 2, rng=0), ValueError, r"a layer occurs twice"),
        (lambda: Residual(Linear(2, 3), rng=0)(np.ones((1, 2), "f")), ValueError, r"expected an output of shape \(1, 2\), got \(1, 3\)"),
    ],
)  # fmt: skip
def test_errors_name_their_owner(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_init():
    rng = np.random.default_rng(0)
    shape = (400, 300)
    uniform = minidl.init.uniform_fan_in(rng, shape, 400, 300)
    assert uniform.shape == shape
    assert 0.99 * 0.05 < np.abs(uniform).max() <= 0.05
    assert np.abs(minidl.init.uniform_fan_in(rng, (300,), 400, 300)).max() <= 0.05
    assert minidl.init.he(rng, shape, 400, 300).std() == pytest.approx(np.sqrt(2 / 400), rel=0.02)
    bound = np.sqrt(6 / 700)
    assert 0.99 * bound < np.abs(minidl.init.glorot(rng, shape, 400, 300)).max() <= bound
    draws = minidl.init.normal(0.1, 0.2)(rng, shape, 400, 300)
    assert (draws.mean(), draws.std()) == (
        pytest.approx(0.1, abs=0.003),
        pytest.approx(0.2, rel=0.02),
    )
    layer = Linear(3, 2, weight_init=minidl.init.normal(5, 0), bias_init=minidl.init.zeros, rng=0)
    np.testing.assert_array_equal(layer.theta, [5] * 6 + [0] * 2)
    with pytest.raises(ValueError, match="std"):
        minidl.init.normal(0, -1)


class Wrapper(Layer):
    """A wrapper with a parameter of its own."""

    def __init__(self, inner):
        self.inner, self.gain = inner, Parameter(np.full(inner.out_features, 1.5))

    def forward(self, x, *, train=False):
        y, pull = self.inner.forward(x, train=train)

        def backward(dy):
            self.gain.grad = (dy * y).sum(axis=0)
            return pull(dy * self.gain.value)

        return y * self.gain.value, backward


class Asks(Wrapper):
    def __getattr__(self, name):
        return getattr(vars(self)["inner"], name)


@pytest.mark.parametrize("wrapped", [lambda made: made, Sequential, lambda made: Sequential(ReLU(), made)])  # fmt: skip
@pytest.mark.parametrize("by_hand", [True, False])
def test_a_wrapper_that_asks_its_inner_layer_trains_all_parameters(wrapped, by_hand):
    rng = np.random.default_rng(0)
    x, y, trained = rng.normal(size=(20, 4)), rng.integers(0, 3, 20), []
    for kind in (Wrapper, Asks):
        model = wrapped(kind(Linear(4, 3, rng=0, dtype="float64")))
        if by_hand:
            for _ in range(3):
                logits, backward = model.forward(x, train=True)
                write_gradients(model, backward, minidl.CrossEntropy()(logits, y)[1])
                model.theta -= 0.1 * model.grad
        else:
            minidl.fit(model, minidl.Dataset((x, y)), minidl.CrossEntropy(), minidl.SGD(model, 0.1), epochs=3, rng=0)  # fmt: skip
        assert model.theta.size == 4 * 3 + 3 + 3
        trained.append(model.theta)
    np.testing.assert_array_equal(*trained)
    assert (trained[0][-3:] != 1.5).all() or (trained[0][:3] != 1.5).all()


def test_an_attribute_that_is_missing_in_a_property_is_named():
    class Prop(Linear):
        size = property(lambda self: self.missing_thing)

    with pytest.raises(AttributeError, match="missing_thing"):
        _ = Prop(2, 2, rng=0).size


@pytest.mark.parametrize("name", ["theta", "grad"])
def test_the_vectors_of_a_model_are_changed_in_place_alone(name):
    model = Sequential(Linear(3, 2), rng=0)
    setattr(model, name, getattr(model, name))
    with pytest.raises(ValueError, match=rf"cannot replace '{name}'; write model.{name}\[:\]"):
        setattr(model, name, np.ones_like(model.theta))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_dtype_that_a_layer_was_given_holds_when_its_values_are_drawn_later(dtype):
    layer = Linear(3, 2, dtype=dtype)
    assert layer.dtype == copy.deepcopy(layer).initialize(0).dtype == np.dtype(dtype)
    drawn = Linear(3, 2, rng=np.random.default_rng(0), dtype=dtype)
    np.testing.assert_array_equal(layer.initialize(np.random.default_rng(0)).theta, drawn.theta)
    assert Sequential(Linear(3, 4), minidl.ReLU(), Linear(4, 2, dtype=dtype), rng=0).dtype == dtype
    assert Sequential(Linear(3, 2, dtype=dtype), rng=0, dtype="float32").dtype == np.float32
