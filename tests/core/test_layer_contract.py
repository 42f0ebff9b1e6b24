"""Errors in users' layers, losses and models, named at the first step or before it."""

import numpy as np
import pytest

import minidl
from minidl import Dropout, Layer, LayerNorm, Linear, Parameter, ReLU, Residual, Sequential, Tanh
from minidl.evaluation import checked_loss
from minidl.layer import check_model, checked, write_gradients


class Own(Layer):
    """A layer whose results are what a test says."""

    def __init__(self, y=lambda x: x, dx=lambda dy: dy):
        self.y, self.dx = y, dx

    def forward(self, x, *, train=False):
        return self.y(x), self.dx


class OnlyY(Layer):
    def forward(self, x, *, train=False):
        return x


class NoBackward(Layer):
    def forward(self, x, *, train=False):
        return x, x


class Duck:
    """No base class: only what the contract asks for."""

    def forward(self, x, *, train=False):
        return 2 * x, lambda dy: 2 * dy


class Declares(Layer):
    skips_input_grad = True

    def __init__(self):
        self.gain = Parameter(np.ones(4))

    def forward(self, x, *, train=False):
        return x * self.gain.value, lambda dy: dy


x = np.random.default_rng(0).normal(size=(8, 4))


def step(model):
    with checked(model) as forward:
        y, backward = forward(x, train=True)
        write_gradients(model, backward, np.ones_like(y))
    return y


FAULTS = {
    "only y": (OnlyY(), TypeError, r"expected forward\(x, train=...\) to return y, backward, got an array of shape \(8, 4\), float64"),
    "y twice": (NoBackward(), TypeError, r"to return y, backward, got a tuple \(an array of shape \(8, 4\), float64, an array"),
    "a list": (Own(y=lambda x: x.tolist()), TypeError, r"expected forward's output to be an array of float64, got list"),
    "another dtype": (Own(y=lambda x: x.astype("f")), TypeError, r"output to be an array of float64, got an array of shape \(8, 4\), float32"),
    "integers": (Own(y=lambda x: (x > 0).astype(int)), TypeError, r"output to be an array of float64, got an array of shape \(8, 4\), int64"),
    "a sum over rows": (Own(y=lambda x: x.sum(0, keepdims=True)), ValueError, r"output to have 8 rows, as its input, got an array of shape \(1, 4\)"),
    "a number": (Own(y=lambda x: np.array(x.sum())), ValueError, r"output to have 8 rows"),
    "no dx": (Own(dx=lambda dy: None), TypeError, r"expected backward\(dy\) to return dx, an array of float64, got None"),
    "dx of one row": (Own(dx=lambda dy: dy.sum(0)), ValueError, r"to return dx, an array of shape \(8, 4\), got an array of shape \(4,\)"),
    "dx of another dtype": (Own(dx=lambda dy: dy.astype("f")), TypeError, r"to return dx, an array of float64, got an array of shape \(8, 4\), float32"),
}  # fmt: skip

PLACES = {
    "layer 1, ": lambda layer: Sequential(Linear(4, 4), layer, Linear(4, 2), rng=0, dtype="float64"),
    "layer 1.0, ": lambda layer: Sequential(Linear(4, 4), Sequential(layer, Tanh()), Linear(4, 2), rng=0, dtype="float64"),
    "layer 1.inner.0, ": lambda layer: Sequential(Linear(4, 4), Residual(layer), Linear(4, 2), rng=0, dtype="float64"),
    "": lambda layer: layer,
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_layer_is_named(fault, place):
    layer, error, message = FAULTS[fault]
    model = PLACES[place](layer)
    before = [vars(m).copy() for m in model] if isinstance(model, Sequential) else []
    with pytest.raises(error, match=f"^{place}{type(layer).__name__}\\(.*\\): .*{message}"):
        step(model)
    assert "forward" not in vars(layer)
    assert [vars(m) for m in model] == before if before else True


def test_a_declaration_that_backward_does_not_keep_is_named():
    model = Sequential(Declares(), Linear(4, 2, rng=0, dtype="float64"))
    with pytest.raises(
        TypeError, match=r"^layer 0, Declares\(\): its class declares skips_input_grad"
    ):
        step(model)
    with pytest.raises(TypeError, match=r"^Declares\(\): its class declares skips_input_grad"):
        step(Declares())


def test_bits_and_random_streams_are_those_of_a_plain_step():
    def network():
        inner = Residual(Linear(6, 6), Duck(), LayerNorm(6))
        return Sequential(Tanh(), Linear(4, 6), Dropout(0.5), inner, Sequential(Duck(), ReLU()), Linear(6, 3), rng=0, dtype="float64")  # fmt: skip

    plain, model = network(), network()
    for _ in range(2):
        y, backward = plain.forward(x, train=True)
        write_gradients(plain, backward, np.ones_like(y))
        np.testing.assert_array_equal(step(model), y)
        np.testing.assert_array_equal(model.grad, plain.grad)
    np.testing.assert_array_equal(model(x), plain(x))
    assert not any("forward" in vars(layer) for layer in [model, *model])


def test_layers_with_a_forward_of_their_own_as_attribute_get_it_back():
    layer = Own()
    layer.forward = own = lambda x, train=False: (3 * x, lambda dy: 3 * dy)
    model = Sequential(layer)
    np.testing.assert_array_equal(step(model), 3 * x)
    assert layer.forward is own


def test_inference_of_a_layer_without_a_base_class():
    model = Sequential(Duck(), Residual(Duck()), Linear(4, 2), rng=0, dtype="float64")
    np.testing.assert_array_equal(model(x), model.forward(x)[0])
    assert "Duck" in model.summary()


class Wrong:
    def __init__(self, result):
        self.result = result

    def __call__(self, logits, y):
        return self.result

    def __repr__(self):
        return "Wrong()"


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (1.5, TypeError, r"expected loss\(logits, y\) to return value, dlogits, .*, got float 1.5"),
        ((1.5, x, x), TypeError, r".*got a tuple \(float 1.5, an array"),
        ((x[0], x), TypeError, r".* its value to be a number, got a tuple \(an array of shape \(4,\)"),
        ((None, x), TypeError, r".* its value to be a number, got a tuple \(None"),
        ((1j, x), TypeError, r".* its value to be a number, got a tuple \(complex"),
        ((1.5, None), TypeError, "expected dlogits of .* and of float64, got None"),
        ((1.5, x.astype("f")), TypeError, r"expected dlogits of .* and of float64, got .* float32"),
        ((1.5, x.sum(0)), ValueError, r"expected dlogits of the shape of the logits, \(8, 4\), and of float64, got an array of shape \(4,\)"),
    ],
)  # fmt: skip
def test_the_loss_is_named(result, error, message):
    with pytest.raises(error, match=rf"^Wrong\(\): {message}"):
        checked_loss(Wrong(result), x, np.zeros(8))


def test_a_right_loss_passes():
    y = np.arange(8) % 4
    value, dlogits = checked_loss(minidl.CrossEntropy(), x, y)
    assert value == minidl.CrossEntropy()(x, y)[0]
    assert checked_loss(Wrong((np.float32(1), x)), x, y)[0] == 1
    assert checked_loss(lambda logits, y, w: (w.sum(), dlogits), x, y, np.ones(8))[0] == 8


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Duck(), r"Adam: expected Sequential\(layer\), got Duck <"),
        (ReLU, "Adam: expected a model, got the class ReLU"),
        ([Linear(2, 2, rng=0)], r"Adam: expected a model, got list \[Linear\(2, 2\)\]$"),
        (None, "Adam: expected a model, got None"),
    ],
)
def test_an_optimizer_wants_a_model(model, message):
    with pytest.raises(TypeError, match=message):
        minidl.Adam(model)


def test_check_model_takes_a_model_that_can_be_trained():
    check_model("fit", Linear(3, 2, rng=0))
    check_model("fit", Sequential(Duck(), Linear(3, 2), rng=0))
