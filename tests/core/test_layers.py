"""Layers and activations: gradients by finite differences, both passes compared with PyTorch."""

import entmax
import numeric
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import (
    ELU,
    GELU,
    BatchNorm,
    Dropout,
    Entmax15,
    Flatten,
    Identity,
    LayerNorm,
    LeakyReLU,
    Linear,
    Quadratic,
    ReLU,
    Relumax,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Simplex,
    Softmax,
    Softplus,
    Sparsemax,
    Tanh,
    relumax,
)

# name: (our layer on k features, PyTorch's counterpart or None)
LAYERS = {
    "Linear": (lambda k: Linear(k, k), lambda k: torch.nn.Linear(k, k)),
    "Linear without bias": (lambda k: Linear(k, k, bias=False), lambda k: torch.nn.Linear(k, k, bias=False)),
    "LayerNorm": (lambda k: LayerNorm(k), lambda k: torch.nn.LayerNorm(k)),
    "BatchNorm": (lambda k: BatchNorm(k), None),  # compared with PyTorch in test_layers_batchnorm.py
    "Flatten": (lambda k: Flatten(), lambda k: torch.nn.Flatten()),
    "Identity": (lambda k: Identity(), lambda k: torch.nn.Identity()),
    "LeakyReLU": (lambda k: LeakyReLU(0.2), lambda k: torch.nn.LeakyReLU(0.2)),
    "ELU": (lambda k: ELU(0.7), lambda k: torch.nn.ELU(0.7)),
    "Softplus": (lambda k: Softplus(), lambda k: torch.nn.Softplus(threshold=50)),
    "SiLU": (lambda k: SiLU(), lambda k: torch.nn.SiLU()),
    "GELU": (lambda k: GELU(), lambda k: torch.nn.GELU()),
    "GELU, tanh": (lambda k: GELU("tanh"), lambda k: torch.nn.GELU("tanh")),
    "Dropout": (lambda k: Dropout(0.4), None),
    "Residual": (lambda k: Residual(Linear(k, k), Tanh()), None),
    "ReLU": (lambda k: ReLU(), lambda k: torch.nn.ReLU()),
    "Tanh": (lambda k: Tanh(), lambda k: torch.nn.Tanh()),
    "Sigmoid": (lambda k: Sigmoid(), lambda k: torch.nn.Sigmoid()),
    "Quadratic": (lambda k: Quadratic(), None),
    "Softmax": (lambda k: Softmax(), lambda k: torch.nn.Softmax(-1)),
    "Sparsemax": (lambda k: Sparsemax(), lambda k: entmax.Sparsemax(-1)),
    "Entmax15": (lambda k: Entmax15(), lambda k: entmax.Entmax15(-1)),
    "Relumax": (lambda k: Relumax(2), None),
    "Simplex": (lambda k: Simplex(relumax(3), axis=1), None),
}  # fmt: skip

PLACES = {
    "alone": lambda layer, k: [layer],
    "first in a chain": lambda layer, k: [layer, Linear(k, 2)],
    "second in a chain": lambda layer, k: [Linear(k, k), layer],
}


def model_with(name, place, k, seed, dtype="float64"):
    model = Sequential(*PLACES[place](LAYERS[name][0](k), k), rng=seed, dtype=dtype)
    # LayerNorm starts at ones and zeros, which hide a missing factor.
    model.theta[:] += 0.3 * np.random.default_rng(seed).normal(size=model.theta.size)
    return model


def held_masks(model):
    """A forward pass that draws the same masks each time."""
    rngs = [layer.rng for layer in model if isinstance(layer, Dropout)]
    states = [rng.bit_generator.state for rng in rngs]

    def forward(x):
        for rng, state in zip(rngs, states, strict=True):
            rng.bit_generator.state = state
        return model.forward(x, train=True)

    return forward


SHAPES = [(0, 3), (1, 1), (1, 4), (2, 3), (3, 1), (3, 4), (4, 2), (5, 6)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_by_central_differences(name, place):
    for seed, (n, k) in enumerate(SHAPES):
        if name == "BatchNorm" and n < 3:
            continue  # one example has no variance; of two, h is a step function at 0
        model = model_with(name, place, k, seed)
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, k))
        forward = held_masks(model)
        y, backward = forward(x)
        dy = rng.normal(size=y.shape)

        def value():
            return float((forward(x)[0] * dy).sum())

        dx = backward(dy)
        grad = model.grad.copy()
        assert numeric.agree(dx, numeric.gradient(value, x))
        assert numeric.agree(grad, numeric.gradient(value, model.theta))


@pytest.mark.parametrize("name", LAYERS)
def test_the_check_above_detects_faults(name):
    model = model_with(name, "alone", 4, 0)
    x = np.random.default_rng(0).normal(size=(3, 4))
    forward = held_masks(model)
    y, backward = forward(x)
    dy = np.random.default_rng(1).normal(size=y.shape)
    numeric_dx = numeric.gradient(lambda: float((forward(x)[0] * dy).sum()), x)
    dx = backward(dy)
    assert numeric.agree(dx, numeric_dx)
    for fault in (-dx, 1.01 * dx, dx[::-1], backward(np.ones_like(dy))):
        assert not numeric.agree(fault, numeric_dx)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept_and_nothing_is_changed(name, dtype):
    model = model_with(name, "second in a chain", 4, 0, dtype)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(dtype)
    x_before, theta_before = x.copy(), model.theta.copy()
    y, backward = model.forward(x, train=True)
    dy = np.ones_like(y)
    dx = backward(dy)
    assert y.dtype == dx.dtype == model.grad.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(backward(dy), dx)  # twice gives the same
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(dy, 1)
    np.testing.assert_array_equal(model.theta, theta_before)
    assert (model(x) == model.forward(x)[0]).all()


CONTAINERS = [lambda inner: inner, Sequential, Residual, lambda inner: Residual(Sequential(inner))]


@pytest.mark.parametrize("wrap", CONTAINERS)
@pytest.mark.parametrize("make", [lambda: Dropout(0.5), lambda: BatchNorm(4)])
def test_a_forward_pass_trains_only_where_that_is_said(make, wrap):
    model = Sequential(Linear(4, 4), wrap(make()), rng=0)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    before = {name: np.copy(value) for name, value in model.state_dict().items()}
    np.testing.assert_array_equal(model.forward(x)[0], model(x))
    np.testing.assert_array_equal(model[1].forward(x)[0], model[1].forward(x, train=False)[0])
    assert all((before[name] == value).all() for name, value in model.state_dict().items())
    assert (model.forward(x, train=True)[0] != model(x)).any()


@pytest.mark.parametrize("name", LAYERS)
def test_layouts_make_no_difference(name):
    plain = np.random.default_rng(0).normal(size=(6, 4))
    wide = np.repeat(plain, 2, axis=1)
    results = []
    for batch in (plain, np.asfortranarray(plain), wide[:, ::2], plain[::-1].copy()[::-1]):
        model = model_with(name, "alone", 4, 0)
        y, backward = model.forward(batch, train=True)
        results.append((y, backward(y), model.grad.copy()))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


def close(ours, theirs):
    theirs = theirs.detach().numpy()
    scale = max(np.abs(theirs).max(), 1e-300)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-12 * scale


@pytest.mark.parametrize("name", [n for n, (_, theirs) in LAYERS.items() if theirs])
@pytest.mark.parametrize(("n", "k"), [(1, 3), (7, 5), (64, 33)])
def test_equals_pytorch(name, n, k):
    model = model_with(name, "second in a chain", k, 1)
    twin = torch.nn.Sequential(torch.nn.Linear(k, k), LAYERS[name][1](k)).double()
    pairs = [(p, q) for (_, p), q in zip(model.named_parameters(), twin.parameters(), strict=True)]
    for ours, theirs in pairs:
        theirs.data = torch.from_numpy(ours.value.T.copy())
    x = 3 * np.random.default_rng(2).normal(size=(n, k))
    x_torch = torch.from_numpy(x).requires_grad_()
    y, backward = model.forward(x, train=True)
    y_torch = twin(x_torch)
    dy = np.random.default_rng(3).normal(size=y.shape)
    dx = backward(dy)
    y_torch.backward(torch.from_numpy(dy))
    close(y, y_torch)
    close(dx, x_torch.grad)
    for ours, theirs in pairs:
        close(ours.grad.T, theirs.grad)


def test_kinks_and_saturation():
    y, backward = ReLU().forward(np.array([-1.0, 0.0, 2.0]))
    np.testing.assert_array_equal(backward(np.ones(3)), [0, 0, 1])
    x = np.array([-1e4, -800.0, 0, 800, 1e4], np.float32)
    y, backward = Sigmoid().forward(x)
    np.testing.assert_array_equal(y, [0, 0, 0.5, 1, 1])
    np.testing.assert_array_equal(backward(np.ones(5, np.float32)), [0, 0, 0.25, 0, 0])


@given(p=st.floats(0, 1), seed=st.integers(0, 1000))
def test_dropout_scales_the_entries_that_it_keeps(p, seed):
    x = np.full((50, 40), 3.0)
    y, backward = Dropout(p, rng=seed).forward(x, train=True)
    kept = y != 0
    if p < 1:
        np.testing.assert_allclose(y[kept], 3 / (1 - p))
        assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(0.25 / x.size)
    else:
        assert not kept.any()
    np.testing.assert_array_equal(backward(x), y)  # the same mask
    assert Dropout(p)(x) is x


def test_dropout_draws_the_same_masks_in_both_dtypes():
    masks = [Dropout(0.3, rng=5).forward(np.ones((9, 9), t), train=True)[0] != 0 for t in "fd"]
    np.testing.assert_array_equal(*masks)
    layer = Dropout(0.3, rng=5)
    first, second = (layer.forward(np.ones((9, 9)), train=True)[0] for _ in range(2))
    assert (first != second).any()


def test_public_layers_are_all_in_the_table():
    exported = {name: getattr(minidl, name) for name in minidl.__all__}
    public = {
        name
        for name, thing in exported.items()
        if isinstance(thing, type) and issubclass(thing, minidl.Layer)
    }
    assert public - {"Layer", "Sequential"} <= set(LAYERS)


@pytest.mark.parametrize("kind", [BatchNorm, LayerNorm])
def test_sizes_and_eps_of_a_normalisation(kind):
    for features, eps, what in ((0, 1e-5, "features"), (3, -1.0, "eps"), (3, 0.0, "eps")):
        with pytest.raises(ValueError, match=f"{kind.__name__}: expected {what} "):
            kind(features, eps=eps)
