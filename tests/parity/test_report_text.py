"""Reports and printed growth of the comparison with PyTorch, on figures that are made up."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

import minidl
from minidl import SGD, CrossEntropy, LayerNorm, Linear, Sequential
from minidl.parity import __main__, convert
from minidl.parity.convert import from_torch, register, to_torch
from minidl.parity.report import ParityReport, compare, default_tolerance
from minidl.parity.standard import standard_set

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
def test_one_difference_is_named_with_its_step(step, quantity, capsys):
    relative = np.full((4, len(QUANTITIES)), 1e-15)
    relative[step - 1, quantity] = 1e-3
    found = report(relative)
    assert found.first == (step, QUANTITIES[quantity])
    assert found.verdict().startswith(f"{QUANTITIES[quantity]} passes the tolerance at step {step}")
    found.show()
    shown = capsys.readouterr().out
    assert "made up (float64, 4 steps)" in shown
    assert [name for name in QUANTITIES if name not in shown] == []
    assert shown.splitlines()[-1] == found.verdict()


def runs(steps, dtype):
    """A report for each case of the standard set; the deeper the network, the larger."""
    made = []
    for case in standard_set():
        relative = np.zeros((steps, len(QUANTITIES)))
        relative[:, 1] = 1e-15 * (case.depth or 0) * np.arange(1, steps + 1)
        made.append((case, report(relative, dtype, case.name)))
    return made


def test_the_growth_of_differences_is_printed_and_drawn(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["minidl.parity", "--plot", str(tmp_path / "growth.png")])
    made = iter(runs(1000, "float32"))
    monkeypatch.setattr("minidl.parity.standard.ParityCase.run", lambda *_: next(made)[1])
    drawn = {}
    monkeypatch.setattr(__main__, "line_plot", lambda path, panel: drawn.update(vars(panel)))
    __main__.main()
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("  SGD, depth 3")]
    marks = ["1: 3e-15", "10: 3e-14", "50: 2e-13", "100: 3e-13", "200: 6e-13", "500: 2e-12"]
    assert line.split(None, 3)[3] == ", ".join(f"step {m}" for m in [*marks, "1000: 3e-12"])
    assert drawn["ylog"]
    steps, tolerance = drawn["curves"]["tolerance"]
    assert list(steps) == list(range(1, 1001))
    assert tolerance[:51:50] == pytest.approx([1e-5, 1e-4])
    assert set(drawn["curves"]) == {
        "tolerance", *(f"{kind}, depth {depth}" for kind in ("SGD", "Adam") for depth in (1, 3, 9))
    }  # fmt: skip


def test_only_steps_that_were_taken_are_printed(capsys):
    made = runs(60, "float64")
    __main__._print_growth(made)
    assert "step 50: 5e-14\n" in capsys.readouterr().out


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
    monkeypatch.setattr(convert, "COUNTERPARTS", list(convert.COUNTERPARTS))
    register(Half, TorchHalf, to_torch=lambda layer, convert: TorchHalf(fault))
    model = Sequential(Linear(6, 4), Half(), rng=0)
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(5, 6)), rng.integers(4, size=5)) for _ in range(2)]
    found = compare(model, CrossEntropy(), SGD(model, 0.1), batches, dtype="float32")
    assert found.first == (1, "logits")
    assert found.relative[0, 0] == np.inf
    assert (found.absolute[0, 0] == np.inf) == (fault == "dtype")
    assert found.to_dict()["worst"]["logits"]["relative"] == "inf"


def test_the_eps_of_a_layer_norm_there_and_back():
    module = to_torch(Sequential(LayerNorm(5, eps=0.01), rng=0))
    assert module[0].eps == 0.01
    assert from_torch(module)[0].eps == 0.01
