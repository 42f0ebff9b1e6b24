"""Networks converted to PyTorch and back, with the library's layers and with registered ones."""

import numpy as np
import pytest
import torch
from torch import nn

import minidl
from minidl import (
    SGD,
    CrossEntropy,
    Dropout,
    LayerNorm,
    Linear,
    Quadratic,
    ReLU,
    Relumax,
    Residual,
    Sequential,
    Softmax,
    Tanh,
)
from minidl.parity import convert
from minidl.parity.convert import from_torch, register, to_torch
from minidl.parity.report import compare
from minidl.saving import onnx


def network(dtype):
    layers = Linear(6, 8), LayerNorm(8), Residual(Linear(8, 8), Tanh()), Dropout(0.4), Quadratic(), Linear(8, 4, bias=False)  # fmt: skip
    return Sequential(*layers, rng=0, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_there_and_back(dtype):
    model = network(dtype)
    for layer in (Softmax(), Relumax(0.5), minidl.Sparsemax(0), minidl.Entmax15(), minidl.Sigmoid(), ReLU(), Sequential(Linear(4, 4, rng=1, dtype=dtype))):  # fmt: skip
        model = Sequential(*model, layer, rng=1)
    before = torch.get_rng_state()
    module = to_torch(model)
    assert torch.equal(torch.get_rng_state(), before)  # no stream of PyTorch's was touched
    assert list(module.state_dict()) == list(model.state_dict())
    assert {str(p.dtype) for p in module.parameters()} == {f"torch.{dtype}"}
    back = from_torch(module, rng=5)
    assert repr(back).replace("Simplex(", "") != ""
    np.testing.assert_array_equal(back.theta, model.theta)
    assert back.dtype == model.dtype
    x = np.random.default_rng(3).normal(size=(7, 6)).astype(dtype)
    theirs = module.eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(theirs, model(x), rtol=1e-5 if dtype == "float32" else 1e-13)
    np.testing.assert_array_equal(back(x), model(x))
    back.forward(x, train=True)  # its Dropout has a stream
    model.theta[:] = 0  # the others have copies
    assert np.abs(back.theta).max() > 0
    assert all(p.abs().max() > 0 for n, p in module.named_parameters() if n == "0.weight")


def test_from_a_module_of_pytorch():
    parts = {"first": nn.Linear(3, 5), "act": nn.ReLU(), "drop": nn.Dropout(0.2), "norm": nn.LayerNorm(5, eps=1e-3), "out": nn.Linear(5, 2)}  # fmt: skip
    module = nn.Sequential()
    for name, part in parts.items():
        module.add_module(name, part)
    model = from_torch(module)
    assert (
        repr(model)
        == "Sequential(Linear(3, 5), ReLU(), Dropout(0.2), LayerNorm(5, eps=0.001), Linear(5, 2))"
    )
    assert model[3].eps == 1e-3
    assert model[0].weight.value.shape == (3, 5)
    x = np.ones((2, 3), np.float32)
    expected = module.eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)  # entries near 0.15
    single = from_torch(nn.Linear(3, 5, bias=False))
    assert single.bias is None


class Own(minidl.Layer):
    def forward(self, x, *, train=False):
        return x, lambda dy: dy

    def __repr__(self):
        return "Own()"


class OwnLinear(Linear):
    """Might compute anything."""


@pytest.mark.parametrize(
    ("convert", "error", "message"),
    [
        (lambda: to_torch(Sequential(Linear(2, 2), Residual(Own()), rng=0)), TypeError, r"to_torch: no PyTorch counterpart of module 1.inner.0, Own\(\)"),
        (lambda: to_torch(OwnLinear(2, 2, rng=0)), TypeError, r"no PyTorch counterpart of OwnLinear\(2, 2\)"),
        (lambda: from_torch(nn.Sequential(nn.Linear(2, 2), nn.Conv1d(2, 2, 1))), TypeError, r"from_torch: no counterpart of module 1, Conv1d\("),
        (lambda: from_torch(nn.Sequential(nn.Sequential(nn.Mish()))), TypeError, r"no counterpart of module 0.0, Mish\("),
        (lambda: from_torch(nn.Linear(2, 2).half()), ValueError, "expected parameters of dtype float32 or float64, the same for all, got torch.float16"),
        (lambda: from_torch(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())), ValueError, "got torch.float32, torch.float64"),
        (lambda: from_torch(nn.Sequential(nn.LayerNorm((2, 3)))), ValueError, r"no counterpart of module 0, LayerNorm\(.*expected features to be a whole number"),
        (lambda: from_torch(nn.LayerNorm(3, bias=False)), ValueError, r"bias=False\), only of LayerNorm\(\(3,\)"),
        (lambda: from_torch(nn.Sequential(*[nn.Linear(2, 2)] * 2)), ValueError, "a module occurs twice"),
    ],
)  # fmt: skip
def test_conversion_errors(convert, error, message):
    with pytest.raises(error, match=message):
        convert()


# Layers of the user's own


class Scale(minidl.Layer):
    """``y = scale * x``, with a number for each feature."""

    def __init__(self, features):
        self.features = features
        self.scale = minidl.Parameter(np.ones(features))

    def forward(self, x, *, train=False):
        def backward(dy):
            self.scale.grad = (dy * x).sum(axis=0)
            return dy * self.scale.value

        return x * self.scale.value, backward


class TorchScale(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.features = features
        self.scale = nn.Parameter(torch.ones(features))

    def forward(self, x):
        return x * self.scale


class Wrapped(minidl.Layer):
    """A layer with another one inside."""

    def __init__(self, inner):
        self.inner = inner

    def forward(self, x, *, train=False):
        return self.inner.forward(x, train=train)


class TorchWrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


class TorchOwn(nn.Module):
    def forward(self, x):
        return x


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(convert, "COUNTERPARTS", dict(convert.COUNTERPARTS))
    register(Own, TorchOwn)
    register(
        Scale,
        TorchScale,
        to_torch=lambda layer, convert: TorchScale(layer.features),
        from_torch=lambda module, convert: Scale(module.features),
    )
    register(
        Wrapped,
        TorchWrapped,
        to_torch=lambda layer, convert: TorchWrapped(convert(layer.inner, "inner")),
        from_torch=lambda module, convert: Wrapped(convert(module.inner, "inner")),
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_own_layers_there_and_back(registered, dtype):
    model = Sequential(Linear(6, 8), Scale(8), Own(), Wrapped(Sequential(Linear(8, 4), Scale(4))), rng=0, dtype=dtype)  # fmt: skip
    model.theta[:] += np.random.default_rng(1).normal(size=model.theta.size) / 3
    module = to_torch(model)
    assert [type(child) for child in module] == [nn.Linear, TorchScale, TorchOwn, TorchWrapped]
    assert list(module.state_dict()) == list(model.state_dict())
    back = from_torch(module)
    assert [type(layer) for layer in back] == [Linear, Scale, Own, Wrapped]
    assert back.dtype == dtype
    np.testing.assert_array_equal(back.theta, model.theta)
    rng = np.random.default_rng(3)
    batches = [(rng.normal(size=(7, 6)), rng.integers(4, size=7)) for _ in range(5)]
    report = compare(model, CrossEntropy(), SGD(model, 0.1), batches, dtype=dtype)
    assert report, report.verdict()
    assert report.relative.max() > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_layer_with_parameters_is_known_by_its_onnx_operators(monkeypatch, dtype):
    monkeypatch.setitem(onnx.NODES, Slope.forward, lambda layer, x: x * layer.slope.value + layer.shift.value)  # fmt: skip
    model = Sequential(Linear(6, 5), Slope(5), Linear(5, 4), rng=0, dtype=dtype)
    module = to_torch(model)
    assert list(module.state_dict()) == list(model.state_dict())
    back = from_torch(module)
    assert type(back[1]) is Slope
    np.testing.assert_array_equal(back.theta, model.theta)
    rng = np.random.default_rng(3)
    batches = [(rng.normal(size=(7, 6)), rng.integers(4, size=7)) for _ in range(5)]
    report = compare(model, CrossEntropy(), SGD(model, 0.1), batches, dtype=dtype)
    assert report, report.verdict()
    backward = Slope.backward
    monkeypatch.setattr(Slope, "backward", lambda self, x, dy: backward(self, x, 1.01 * dy))
    assert not compare(model, CrossEntropy(), SGD(model, 0.1), batches, dtype=dtype)


def test_a_layer_that_may_do_something_else_in_training_is_refused(monkeypatch):
    """The operators are those of inference: a twin of them would be wrong without a word."""

    class Noise(minidl.Layer):
        rng = None

        def forward(self, x, *, train=False):
            return (x + self.rng.normal(size=x.shape) if train else x), lambda dy: dy

    class Centred(Noise):
        buffers = ("mean",)
        mean = np.zeros(1)

        def forward(self, x, *, train=False):
            return x - (x.mean() if train else self.mean), lambda dy: dy

    class Holds(minidl.Layer):
        def __init__(self):
            self.inner = Linear(5, 5)

        def forward(self, x, *, train=False):
            return self.inner.forward(x, train=train)

    for kind in (Noise, Centred, Holds):
        monkeypatch.setitem(onnx.NODES, kind.forward, lambda layer, x: x)
        with pytest.raises(
            TypeError, match=rf"no PyTorch counterpart of module 0, {kind.__name__}"
        ):
            to_torch(Sequential(kind(), rng=0))


class Slope(minidl.Layer):
    """y = slope x + shift, for each feature."""

    def __init__(self, features):
        self.slope = minidl.Parameter(np.linspace(0.5, 2, features))
        self.shift = minidl.Parameter(np.zeros(features))

    def forward(self, x, *, train=False):
        return x * self.slope.value + self.shift.value, lambda dy: self.backward(x, dy)

    def backward(self, x, dy):
        self.slope.grad[...] = (dy * x).sum(axis=0)
        self.shift.grad[...] = dy.sum(axis=0)
        return dy * self.slope.value


def test_own_layers_are_found_by_errors(registered):
    with pytest.raises(TypeError, match=r"counterpart of module 0.inner.1, OwnLinear\(2, 2\)"):
        to_torch(Sequential(Wrapped(Sequential(Own(), OwnLinear(2, 2))), rng=0))
    with pytest.raises(TypeError, match=r"counterpart of module 0.inner.1, Mish\("):
        from_torch(nn.Sequential(TorchWrapped(nn.Sequential(TorchOwn(), nn.Mish()))))


def test_a_registered_class_takes_precedence(monkeypatch):
    monkeypatch.setattr(convert, "COUNTERPARTS", dict(convert.COUNTERPARTS))
    assert type(to_torch(Sequential(ReLU()))[0]) is nn.ReLU
    register(ReLU, nn.ReLU6)
    assert type(to_torch(Sequential(ReLU()))[0]) is nn.ReLU6
    assert type(from_torch(nn.ReLU())) is ReLU


class Gained(minidl.Layer):
    """Its parameter comes after a layer; in PyTorch a module's own tensors come first."""

    def __init__(self, features):
        self.first, self.second = Linear(features, features), Linear(features, features)
        self.gain = minidl.Parameter(np.ones(features))

    def forward(self, x, *, train=False):
        a, back_first = self.first.forward(x, train=train)
        b, back_second = self.second.forward(a * self.gain.value, train=train)

        def backward(dy):
            da = back_second(dy)
            self.gain.grad = (da * a).sum(axis=0)
            return back_first(da * self.gain.value)

        return b, backward


class TorchGained(nn.Module):
    def __init__(self, features, gain="gain"):
        super().__init__()
        self.second, self.first = nn.Linear(features, features), nn.Linear(features, features)
        setattr(self, gain, nn.Parameter(torch.ones(features)))

    def forward(self, x):
        return self.second(self.first(x) * self.gain)


def test_tensors_are_matched_by_name(monkeypatch):
    monkeypatch.setattr(convert, "COUNTERPARTS", dict(convert.COUNTERPARTS))
    register(Gained, TorchGained, lambda layer, _: TorchGained(layer.gain.size), lambda module, _: Gained(module.first.in_features))  # fmt: skip
    model = Sequential(Linear(6, 4), Gained(4), rng=0, dtype="float64")
    model.theta[:] += np.random.default_rng(1).normal(size=model.theta.size) / 3
    back = from_torch(to_torch(model))
    np.testing.assert_array_equal(back.theta, model.theta)
    rng = np.random.default_rng(3)
    batches = [(rng.normal(size=(7, 6)), rng.integers(4, size=7)) for _ in range(5)]
    for optimizer in (SGD(model, 0.1, momentum=0.9), minidl.Adam(model)):
        report = compare(model, CrossEntropy(), optimizer, batches)
        assert report.relative.max() < 1e-12
    with pytest.raises(
        ValueError, match=r"no parameter or buffer '0\.gains', did you mean '0\.gain'"
    ):
        from_torch(nn.Sequential(TorchGained(3, "gains")))


def test_namesakes_are_those_of_the_library_only():
    """A class of a user's that has the name of a module may compute anything."""
    for kind in (
        type("Mish", (minidl.Layer,), {"forward": Own.forward}),
        type("Linear", (Own,), {}),
    ):
        with pytest.raises(TypeError, match="no PyTorch counterpart of"):
            to_torch(Sequential(kind()))


@pytest.mark.parametrize(("p", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_the_same_masks_at_the_ends(p, expected):
    model = Sequential(minidl.Dropout(p), rng=0)
    y = to_torch(model, same_masks=True).train()(torch.ones(2, 3))
    assert (y == expected).all()
    np.testing.assert_array_equal(y, model.forward(np.ones((2, 3), "f"), train=True)[0])
