"""Reports of the comparison with PyTorch, on differences that are made up."""

import numpy as np
import pytest
import torch
from torch import nn

import minidl
from minidl import SGD, CrossEntropy, LayerNorm, Linear, Sequential
from minidl.parity import convert
from minidl.parity.convert import from_torch, register, to_torch
from minidl.parity.report import ParityReport, compare, default_tolerance

KINDS = ("logits", "loss", "dlogits", "gradient", "exp_avg", "parameter")
QUANTITIES = [*KINDS[:3], *(f"{kind} of 0.bias" for kind in KINDS[3:])]


def report(relative, dtype="float64", title="made up"):
    return ParityReport(title, dtype, QUANTITIES, 2 * relative, relative, default_tolerance(dtype))


def test_the_tolerance_in_float32_grows_from_the_first_step():
    assert {default_tolerance("float64")(step) for step in (1, 51, 1000)} == {1e-10}
    steps = [default_tolerance("float32")(step) for step in (1, 51, 101)]
    np.testing.assert_allclose(steps, [1e-5, 1e-4, 1e-3], rtol=1e-12)


@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("quantity", range(6))
def test_one_difference_is_named_with_its_step(step, quantity):
    relative = np.full((4, len(QUANTITIES)), 1e-15)
    relative[step - 1, quantity] = 1e-3
    found = report(relative)
    assert found.first == (step, QUANTITIES[quantity])
    assert found.verdict().startswith(f"{QUANTITIES[quantity]} passes the tolerance at step {step}")
    assert str(found) == f"ParityReport(made up, float64, {found.verdict()})"


class Half(minidl.Layer):
    def forward(self, x, *, train=False):
        return x / 2, lambda dy: dy / 2


class TorchHalf(nn.Module):
    """Gives nothing but zeros, or another dtype."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def forward(self, x):
        return 0 * x if self.fault == "zeros" else (x / 2).to(torch.float64)


@pytest.mark.parametrize("fault", ["zeros", "dtype"])
def test_outputs_of_another_kind_differ_without_bound(fault, monkeypatch):
    """Zeros have no largest entry to divide by; arrays of another dtype are never the same."""
    monkeypatch.setattr(convert, "COUNTERPARTS", dict(convert.COUNTERPARTS))
    register(Half, TorchHalf, to_torch=lambda layer, convert: TorchHalf(fault))
    model = Sequential(Linear(6, 4), Half(), rng=0)
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(5, 6)), rng.integers(4, size=5)) for _ in range(2)]
    found = compare(model, CrossEntropy(), SGD(model, 0.1), batches, dtype="float32")
    assert found.first == (1, "logits")
    assert found.relative[0, 0] == np.inf
    assert (found.absolute[0, 0] == np.inf) == (fault == "dtype")
    assert found.to_dict()["worst"]["logits"]["relative"] == np.inf


def test_the_eps_of_a_layer_norm_there_and_back():
    module = to_torch(Sequential(LayerNorm(5, eps=0.01), rng=0))
    assert module[0].eps == 0.01
    assert from_torch(module)[0].eps == 0.01
