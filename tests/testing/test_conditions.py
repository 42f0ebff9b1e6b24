"""Details of the gradient checks: tolerances, rounding, side conditions of maps, random networks."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import random_networks as networks

from minidl import BatchNorm, Layer, Linear, Parameter, Residual, Sequential, Tanh
from minidl.testing.__main__ import main
from minidl.testing.checks import check_function, check_layer, check_loss, check_simplex_map
from minidl.testing.conditions import Broken, expect_same
from minidl.testing.differences import random_direction
from minidl.testing.layers import LayerSubject

X = np.random.default_rng(0).standard_normal((6, 5))


# Tolerances and rounding


@pytest.mark.parametrize("line", ["pass", "self.bias.grad += dy.sum(0)"])
def test_a_gradient_that_is_not_written_or_added(line):
    class Shift(Layer):
        def __init__(self):
            self.bias = Parameter(np.ones(5))

        def forward(self, x, *, train=False):
            def backward(dy):
                exec(line, {"self": self, "dy": dy})
                return dy

            return x + self.bias.value, backward

    report = check_layer(Sequential(Shift(), rng=0), X)
    assert "written, not added: Sequential.0.bias[0] added to ones, or not written" in str(report)


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-6), ("float32", 1e-4)])
def test_the_relative_tolerance_is_that_of_the_documentation(dtype, rtol):
    def passes(factor):
        return bool(
            check_function(lambda x: 3 * x, lambda x, dy: 3 * factor * dy, np.ones(1, dtype))
        )

    assert passes(1 + 0.7 * rtol)
    assert not passes(1 + 1.5 * rtol)


def test_large_inputs_whose_difference_is_small():
    """The step itself is rounded: ``x + h`` has a spacing of 1e-8 here."""
    x = 1e8 + X
    report = check_function(lambda x: x - 1e8, lambda x, dy: dy, x)
    assert report
    assert report["x"].verdict == "ok"
    assert not check_function(lambda x: x - 1e4, lambda x, dy: 1.1 * dy, 1e4 + X)


def test_a_gradient_that_cancels_beside_large_ones():
    """``c`` changes nothing; in float32 its gradient is the rounding of a sum of large numbers."""

    def f(x, c):
        return 1e3 * (x + c - (x + c).mean(dtype=x.dtype))

    def vjp(x, c, dy):
        dx = 1e3 * (dy - dy.mean(dtype=dy.dtype))
        return dx, np.array([dx.cumsum()[-1]], dx.dtype)  # not pairwise

    tensors = {"x": np.linspace(-1, 1, 301, dtype=np.float32), "c": np.ones(1, np.float32)}
    report = check_function(f, vjp, tensors)
    assert abs(report["c"].analytic) > 1e-5
    assert report["c"].verdict == "ok (rounding)"
    assert report["x"].verdict == "ok"


def test_differences_within_the_rounding_are_allowed_to_conditions():
    want = {"x": np.ones(3)}
    at = SimpleNamespace(
        gradients=want,
        subject=SimpleNamespace(label=str),
        settings=SimpleNamespace(atol=1e-9, rtol=1e-6),
    )
    rounded = [{"x": want["x"] + 1e-3}, {"x": want["x"] - 1e-4}]
    expect_same(at, {"x": want["x"] + 3e-3}, want, "why", rounded)
    with pytest.raises(Broken, match=r"x\[0\] why: 1.005, expected 1"):
        expect_same(at, {"x": want["x"] + 5e-3}, want, "why", rounded)
    expect_same(at, {"x": want["x"] + 9e-7}, want, "why")
    with pytest.raises(Broken, match=r"x\[0\] why"):
        expect_same(at, {"x": want["x"] + 3e-6}, want, "why")


def test_a_direction_is_a_unit_vector_without_small_entries():
    x = np.zeros((20, 30))
    x[3, 4] = -np.inf
    u = random_direction(np.random.default_rng(0), x)
    assert np.linalg.norm(u) == pytest.approx(1)
    assert u[3, 4] == 0
    size = np.abs(u[u != 0])
    assert size.size == 599
    assert size.max() <= 3 * size.min()
    assert 0.4 < (u > 0).mean() < 0.6


def test_the_worst_entry_is_one_that_is_not_finite():
    wrong = np.array([1e3, 1.0, np.nan])
    report = check_function(lambda x: 2 * x, lambda x, dy: 2 * dy * wrong, np.ones(3))
    assert report["x"].worst.index == (2,)


# Side conditions of values and cotangents


def test_a_gradient_that_is_not_linear_in_the_cotangent():
    largest = []

    def clipped(x, dy):
        largest.append(np.abs(dy).max())
        return 3 * np.clip(dy, -1.5 * largest[0], 1.5 * largest[0])

    report = check_function(lambda x: 3 * x, clipped, X)
    assert report["x"].verdict == "ok"
    assert [c.name for c in report.conditions if c.problem] == ["twice the cotangent"]


def test_a_loss_whose_value_is_rounded():
    def rounded(z, y):
        value = np.square(z - y).sum()
        return float(np.float16(value) if z.dtype == np.float32 else value), 2 * (z - y)

    report = check_loss(rounded, X.astype(np.float32), np.zeros_like(X, np.float32))
    assert report["logits"].verdict == "ok"
    assert [c.name for c in report.conditions if c.problem] == ["same value in float64"]


# Side conditions of simplex maps


class OfTheFirst:
    """A sigmoid of the first of two logits: on the simplex, but not invariant to a shift."""

    def __call__(self, z, axis=-1):
        p = 1 / (1 + np.exp(-z[:, 0]))
        return np.stack([p, 1 - p], axis=1)

    def vjp(self, p, dp, axis=-1):
        slope = p[:, 0] * p[:, 1] * (dp[:, 0] - dp[:, 1])
        return np.stack([slope, 0 * slope], axis=1)


def test_a_map_that_a_shift_changes():
    report = check_simplex_map(OfTheFirst(), X[:, :2])
    assert report["z"].verdict == "ok"
    assert [c.name for c in report.conditions if c.problem] == ["shift-invariant"]


class LessTheMean(OfTheFirst):
    """Its first logits are taken less their mean over the rows: a shift of all rows changes nothing."""

    def __call__(self, z, axis=-1):
        return super().__call__(z - z.mean(axis=0))

    def vjp(self, p, dp, axis=-1):
        dz = super().vjp(p, dp)
        return dz - dz.mean(axis=0)


def test_each_row_of_logits_may_be_shifted_alone():
    report = check_simplex_map(LessTheMean(), X[:, :2])
    assert report["z"].verdict == "ok"
    assert [c.name for c in report.conditions if c.problem] == ["shift-invariant"]


def test_what_a_map_does_not_offer_is_skipped():
    report = check_simplex_map(OfTheFirst(), X[:, :2])
    verdicts = {c.name: c.verdict for c in report.conditions}
    assert [n for n, v in verdicts.items() if v == "- (not offered)"] == ["jvp", "jacobian"]


# Reports, errors, the command


def test_numbers_in_a_report_are_aligned_to_the_right():
    def vjp(x, long_name, dy):
        return dy, np.full(1, np.nan)

    tensors = {"x": np.ones((2, 3)), "long_name": np.ones(1)}
    table = str(check_function(lambda x, long_name: x * long_name, vjp, tensors)).splitlines()[2:5]
    for column in ("analytic", "numeric", "relative error"):
        end = table[0].index(column) + len(column)
        for row in table:
            assert row[end - 1] != " "
            assert row[end] == " "
    for column in ("shape", "verdict"):
        start = table[0].index(column)
        assert {row[start - 1] for row in table} == {" "}
        assert " " not in {row[start] for row in table}


@pytest.mark.parametrize("x", [np.ones(3, int), {"x": [1.0, 2.0]}])
def test_a_wrong_input_of_a_function_names_the_check(x):
    with pytest.raises(TypeError, match=r"^check_function: expected x to be an array of float32"):
        check_function(lambda x: x, lambda x, dy: dy, x)


def test_every_option_of_the_command_is_explained(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["minidl.testing", "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match="0"):
        main()
    options = re.split(r"\n  (?=-)", capsys.readouterr().out)[1:]
    assert len(options) >= 9
    for option in options:
        assert re.match(r"(-h, )?--[a-z-]+( \S+)?\s{2,}\w", option), option


def test_options_of_the_command_reach_the_check(monkeypatch, capsys):
    seen = {}

    def note(layer, x, *, train, **options):
        seen.update(options, shape=x[0].shape, train=train)
        return check_layer(layer, x, train=train, **options)

    monkeypatch.setattr("minidl.testing.checks.check_layer", note)
    numbers = {"eps": 1e-4, "rtol": 1e-5, "atol": 1e-8, "cotangent": 0.5, "numpy-seed": 3}
    given = [str(x) for name, value in numbers.items() for x in (f"--{name}", value)]
    command = ["minidl.testing", "minidl:Tanh", "--input", "2x3"]
    monkeypatch.setattr(sys, "argv", [*command, *given, "--skip", "shape", "--skip", "dtype"])
    with pytest.raises(SystemExit, match="False"):
        main()
    assert ": passed" in capsys.readouterr().out
    assert {name: seen[name.replace("-", "_")] for name in numbers} == numbers
    assert (seen["shape"], seen["train"], seen["skip"]) == ((2, 3), True, ["shape", "dtype"])
    for name in numbers:
        monkeypatch.setattr(sys, "argv", [*command, f"--{name}", "x"])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert f"--{name}: " in capsys.readouterr().err


# Layers made of layers, and random networks


def test_the_innermost_layers_are_those_without_layers():
    first, second, act, norm = Linear(5, 4, rng=0), Linear(4, 4, rng=0), Tanh(), BatchNorm(4)
    network = Sequential(first, Residual(Sequential(second, act)), norm, rng=0, dtype="float64")
    subject = LayerSubject(network, X)
    assert [id(m) for m in subject.innermost()] == [id(m) for m in (first, second, act, norm)]
    assert check_layer(network, X)


def test_random_networks_are_at_most_as_deep_as_asked():
    lengths = [
        len(networks.random_network(np.random.default_rng(s), 3, depth=2)) for s in range(40)
    ]
    assert set(lengths) == {1, 2}


def test_values_of_random_networks_on_kinks():
    """Multiples of a half: sums of products with whole numbers are exact, so ties are ties."""
    for seed in range(20):
        network = networks.random_network(np.random.default_rng(seed), 4, kinks=True)
        assert (2 * network.theta == np.round(2 * network.theta)).all()
        assert np.abs(network.theta).max(initial=0) <= 1


def test_seeds_of_random_networks_cover_every_kind(monkeypatch):
    kinds = set()

    def note(network, x, *, train, rng):
        kinds.add((network.dtype, bool((x == np.round(x)).all()), train))

    monkeypatch.setattr(networks, "check_layer", note)
    for seed in range(60):
        networks.check_random_network(seed)
    assert len(kinds) == 8
