"""BatchNorm beside torch.nn.BatchNorm1d, and the activations at their kinks and limits."""

import math

import numpy as np
import pytest
import torch

import minidl
from minidl import (
    ELU,
    GELU,
    BatchNorm,
    Flatten,
    LeakyReLU,
    Linear,
    ReLU,
    Sequential,
    SiLU,
    Softplus,
)
from minidl.activations import normal, sigmoid


def pair(momentum=0.1, eps=1e-3, dtype="float64"):
    ours = BatchNorm(4, momentum=momentum, eps=eps, dtype=dtype)
    theirs = torch.nn.BatchNorm1d(4, momentum=momentum, eps=eps, dtype=getattr(torch, dtype))
    rng = np.random.default_rng(0)
    ours.weight.value, ours.bias.value = rng.normal(size=(2, 4))
    theirs.weight.data = torch.from_numpy(ours.weight.value.copy())
    theirs.bias.data = torch.from_numpy(ours.bias.value.copy())
    return ours, theirs


def compare(ours, theirs, x, train, rtol):
    theirs.train(train)
    t = torch.from_numpy(x).requires_grad_()
    y, backward = ours.forward(x, train=train)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(x.dtype)
    expected = theirs(t)
    theirs.zero_grad()
    expected.backward(torch.from_numpy(dy))
    pairs = [
        (y, expected.detach()),
        (backward(dy), t.grad),
        (ours.weight.grad, theirs.weight.grad),
        (ours.bias.grad, theirs.bias.grad),
        (ours.running_mean, theirs.running_mean),
        (ours.running_var, theirs.running_var),
    ]
    for a, b in pairs:
        np.testing.assert_allclose(a, b.numpy(), rtol=rtol, atol=rtol)
        assert a.dtype == x.dtype
    assert ours.num_batches_tracked == theirs.num_batches_tracked


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, 0.37, None])
def test_batch_norm_is_pytorch_s_in_both_modes(momentum, dtype, rtol):
    ours, theirs = pair(momentum, dtype=dtype)
    rng = np.random.default_rng(2)
    for n in (2, 7, 64, 3):
        x = (rng.normal(size=(n, 4)) * [1, 10, 0.1, 1] + [0, 3, 0, -5]).astype(dtype)
        compare(ours, theirs, x, True, rtol)
        compare(ours, theirs, x, False, rtol)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_running_statistics_follow_the_rule_to_the_last_bit(momentum):
    ours, _ = pair(momentum)
    mean, var = np.zeros(4), np.ones(4)
    rng = np.random.default_rng(3)
    for t in range(1, 20):
        x = rng.normal(size=(8, 4))
        ours.forward(x, train=True)
        m = 1 / t if momentum is None else momentum
        batch_mean = x.mean(axis=0)
        batch_var = np.square(x - batch_mean).mean(axis=0) * (8 / 7)
        mean, var = (1 - m) * mean + m * batch_mean, (1 - m) * var + m * batch_var
        np.testing.assert_array_equal(ours.running_mean, mean)
        np.testing.assert_array_equal(ours.running_var, var)


def test_a_batch_of_one_and_an_empty_batch():
    layer = BatchNorm(3)
    with pytest.raises(ValueError, match=r"BatchNorm\(3\): expected more than one example to train, as batch_size must leave in the last batch, got x \(1, 3\)"):  # fmt: skip
        layer.forward(np.ones((1, 3), np.float32), train=True)
    before = layer.state_dict()
    y, backward = layer.forward(np.ones((0, 3), np.float32), train=True)
    assert y.shape == backward(y).shape == (0, 3)
    np.testing.assert_equal(layer.state_dict(), before)
    assert layer(np.ones((1, 3), np.float32)).shape == (1, 3)
    for wrong in ({"momentum": 1.5}, {"eps": 0}, {"momentum": math.nan}):
        with pytest.raises(ValueError, match="BatchNorm: expected"):
            BatchNorm(3, **wrong)


def test_two_passes_in_flight_keep_their_own_statistics():
    layer = BatchNorm(4, dtype="float64")
    rng = np.random.default_rng(0)
    x, other, dy = rng.normal(size=(3, 6, 4))
    _, backward = layer.forward(x, train=False)
    expected = backward(dy)
    layer.forward(10 * other + 5, train=True)
    np.testing.assert_array_equal(backward(dy), expected)


def test_it_trains_and_the_best_weights_come_with_their_statistics():
    rng = np.random.default_rng(0)
    x = 5 + rng.normal(size=(300, 6)) * [1, 1, 10, 100, 1, 1]
    y = (x[:, 0] - x[:, 1] > 0).astype(int)
    data = minidl.Dataset((x[:200], y[:200]), (x[200:], y[200:]))
    model = Sequential(BatchNorm(6), Linear(6, 16), BatchNorm(16), ReLU(), Linear(16, 2), rng=0, dtype="float64")  # fmt: skip
    minidl.fit(model, data, minidl.CrossEntropy(), minidl.Adam(model, 1e-2), epochs=20, batch_size=50, rng=0)  # fmt: skip
    assert np.mean(model(x[200:]).argmax(1) == y[200:]) > 0.9


# Activations


def test_kinks():
    x, dy = np.array([-2.0, 0.0, 3.0]), np.ones(3)
    y, backward = LeakyReLU(0.1).forward(x)
    np.testing.assert_array_equal(y, [-0.2, 0, 3])
    np.testing.assert_array_equal(backward(dy), [0.1, 0.1, 1])
    y, backward = ELU(0.5).forward(x)
    np.testing.assert_allclose(y, [0.5 * math.expm1(-2), 0, 3], rtol=1e-15)
    np.testing.assert_allclose(backward(dy), [0.5 * math.exp(-2), 0.5, 1], rtol=1e-15)
    for layer in (LeakyReLU(0.1), ELU(0.5)):  # as PyTorch at 0
        twin = torch.nn.LeakyReLU(0.1) if isinstance(layer, LeakyReLU) else torch.nn.ELU(0.5)
        t = torch.from_numpy(x).requires_grad_()
        twin(t).sum().backward()
        np.testing.assert_allclose(layer.forward(x)[1](dy), t.grad.numpy(), rtol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", [SiLU(), Softplus(), ELU(), GELU(), GELU("tanh"), LeakyReLU()])
def test_nothing_overflows(layer, dtype):
    x = np.array([-1e30, -1e4, -100, 0, 100, 1e4, 1e10], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        if layer.__class__ is GELU and layer.approximate == "tanh":
            x = x[1:-1]  # the cube overflows in float32 beyond, as PyTorch's
        y, backward = layer.forward(x)
        dx = backward(np.ones_like(x))
    assert y.dtype == dx.dtype == dtype
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    np.testing.assert_allclose(y[-2:], x[-2:], rtol=1e-6)
    np.testing.assert_allclose(dx[-2:], 1, rtol=1e-6)


def test_the_normal_distribution_function():
    x = np.linspace(-9, 9, 20001)
    exact = np.array([math.erfc(-v * math.sqrt(0.5)) / 2 for v in x])
    cdf, density = normal(x)
    assert np.abs(cdf - exact).max() < 4e-16
    assert (np.abs(cdf / exact - 1)[x > -5]).max() < 5e-15
    assert np.abs(2 * cdf - 1 - [math.erf(v * math.sqrt(0.5)) for v in x]).max() < 8e-16
    np.testing.assert_allclose(density, np.exp(-x * x / 2) / math.sqrt(2 * math.pi), rtol=1e-14)
    small = x.astype(np.float32)
    exact = np.array([math.erfc(-float(v) * math.sqrt(0.5)) / 2 for v in small])
    cdf, density = normal(small)
    assert cdf.dtype == density.dtype == np.float32
    assert np.abs(cdf - exact).max() < 3e-7
    assert (np.abs(cdf / exact - 1)[small > -5]).max() < 2e-6
    np.testing.assert_array_equal(normal(np.array([-np.inf, -50, 50, np.inf]))[0], [0, 0, 1, 1])
    np.testing.assert_array_equal(sigmoid(np.array([-1e5, 0, 1e5])), [0, 0.5, 1])


def test_flatten():
    x = np.arange(24.0).reshape(2, 3, 4)
    y, backward = Flatten().forward(x)
    assert y.shape == (2, 12)
    np.testing.assert_array_equal(backward(2 * y), 2 * x)
    assert Flatten()(np.zeros((0, 3, 4))).shape == (0, 12)


def test_errors_and_names():
    with pytest.raises(ValueError, match="approximate 'none' or 'tanh', got 'erf'"):
        GELU("erf")
    with pytest.raises(ValueError, match="ELU: expected alpha"):
        ELU(-1)
    layers = [GELU(), GELU("tanh"), LeakyReLU(0.2), ELU(), BatchNorm(5)]
    assert list(map(repr, layers)) == ["GELU()", "GELU(approximate='tanh')", "LeakyReLU(0.2)", "ELU(1)", "BatchNorm(5)"]  # fmt: skip
