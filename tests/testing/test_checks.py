"""The report of a check, the restored state, kinks, other styles of code, and errors."""

import copy
import re
from types import SimpleNamespace

import numpy as np
import pytest

import minidl
from minidl import Dropout, Layer, Linear, Parameter, ReLU, Sequential, Tanh
from minidl.checks import ContractError
from minidl.testing.cached import Cached
from minidl.testing.checks import (
    assert_gradients,
    check_function,
    check_layer,
    check_loss,
    check_pair,
    check_simplex_map,
)
from minidl.testing.report import GradientError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 5))


class Elementwise(Layer):
    """A layer from a function and its derivative."""

    def __init__(self, f, derivative):
        self.f, self.derivative = f, derivative

    def forward(self, x, *, train=False):
        return self.f(x), lambda dy: dy * self.derivative(x)


class OneWrongEntry(Linear):
    def forward(self, x, *, train=False):
        y, backward = super().forward(x, train=train)

        def wrong(dy, input_grad=True):
            dx = backward(dy, input_grad=input_grad)
            self.weight.grad[3, 1] *= 1.05
            return dx

        return y, wrong


# The report


def test_a_report_that_passed():
    report = check_layer(Linear(5, 3, rng=0, dtype="float64"), X)
    assert report
    assert report.failures == ()
    report.raise_if_failed()
    lines = str(report).splitlines()
    assert lines[0] == "Linear(5, 3), x (6, 5) float64, train=True: passed"
    assert [line.split()[0] for line in lines[3:6]] == ["input", "weight", "bias"]
    assert all(t.error < 1e-6 for t in report.tensors)
    assert {"shape", "dtype", "finite", "zero cotangent", "twice the cotangent"} <= {
        c.name for c in report.conditions
    }


def test_a_report_that_failed_names_the_worst_entry():
    report = check_layer(OneWrongEntry(5, 3, rng=0, dtype="float64"), X)
    assert not report
    assert [t.verdict for t in report.tensors] == ["ok", "FAILED", "ok"]
    (failure,) = report.failures
    assert re.match(
        r"OneWrongEntry\.weight\[3, 1\]: analytic [-\d.]+, numeric [-\d.]+, "
        r"relative error 4\.8e-02 \(the worst of 1 wrong among 15\)",
        failure,
    )
    with pytest.raises(GradientError) as raised:
        report.raise_if_failed()
    assert str(raised.value).strip() == str(report)
    assert report["weight"].worst.index == (3, 1)
    with pytest.raises(KeyError):
        report["nothing"]


def test_the_slope_tells_right_from_wrong():
    right, wrong = np.cos, lambda x: 1.03 * np.cos(x)
    assert check_layer(Elementwise(np.sin, right), X).slope == pytest.approx(2, abs=0.02)
    assert check_layer(Elementwise(np.sin, wrong), X).slope == pytest.approx(1, abs=0.02)
    assert check_layer(Elementwise(lambda x: 2 * x, lambda x: 2 + 0 * x), X).slope == np.inf


def test_a_large_tensor_is_searched():
    class Wrong(Linear):
        def forward(self, x, *, train=False):
            y, backward = super().forward(x, train=train)

            def wrong(dy, input_grad=True):
                dx = backward(dy, input_grad=input_grad)
                self.weight.grad[250, 17] += 1
                return dx

            return y, wrong

    report = check_layer(Wrong(400, 51, rng=0, dtype="float64"), RNG.standard_normal((1, 400)))
    worst = report["weight"].worst
    assert worst.index == (250, 17)
    assert worst.searched == worst.size == 20400
    assert "(the worst of 1 wrong among 20400)" in str(report)


def test_the_network_of_the_exercise():
    layers = Linear(784, 256), ReLU(), Linear(256, 26)
    assert check_layer(Sequential(*layers, rng=0, dtype="float64"), RNG.random((64, 784)))


# State that is restored


def state(model):
    rngs = [m.rng.bit_generator.state for m in model.layers if hasattr(m, "rng")]
    return copy.deepcopy((model.state_dict(), model.grad.copy(), rngs, X.copy()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("right", [True, False])
def test_the_state_of_the_caller_is_restored(right, dtype):
    last = Linear(4, 4) if right else OneWrongEntry(4, 4)
    model = Sequential(Linear(5, 4), Dropout(0.5), Tanh(), last, rng=3, dtype=dtype)
    model.grad[:] = 7
    theta, before = model.theta, state(model)
    everywhere = np.random.get_state(legacy=False)  # noqa: NPY002
    x = X.astype(dtype)
    assert bool(check_layer(model, x)) == right
    np.testing.assert_equal(state(model), before)
    np.testing.assert_equal(np.random.get_state(legacy=False), everywhere)  # noqa: NPY002
    assert (x == X.astype(dtype)).all()
    assert model.theta is theta
    assert np.shares_memory(model[0].weight.value, theta)


def test_buffers_are_restored():
    class Counting(Layer):
        def __init__(self):
            self.mean, self.calls = np.zeros(5), 0

        def forward(self, x, *, train=False):
            self.mean += 0.1 * x.mean(axis=0)
            self.calls += 1
            return 2 * x, lambda dy: 2 * dy

    layer = Counting()
    check_layer(layer, X).raise_if_failed()
    assert layer.calls == 0
    assert not layer.mean.any()


def test_everything_is_restored_after_an_exception():
    class Fails(Linear):
        def forward(self, x, *, train=False):
            y, backward = super().forward(x, train=train)
            if x.any():
                raise RuntimeError("no numbers here")
            return y, backward

    layer = Fails(5, 2, rng=0)
    before = layer.weight.value
    report = check_layer(layer, X.astype(np.float32))
    (failure,) = report.failures
    assert re.fullmatch(
        r"runs: raised RuntimeError: no numbers here \(test_checks.py, line \d+, in forward\); "
        "traceback=True shows the way there",
        failure,
    )
    assert str(report).splitlines()[0].endswith("train=True: FAILED")
    with pytest.raises(RuntimeError, match="no numbers"):
        check_layer(layer, X.astype(np.float32), traceback=True)
    assert layer.weight.value is before
    assert before.dtype == np.float32


def fails(*args, **options):
    return {}["nothing"]


class FailingMap:
    def __call__(self, z, axis=-1):
        return minidl.softmax(z, axis)

    vjp = fails


@pytest.mark.parametrize(
    "check",
    [
        lambda **o: check_layer(Elementwise(np.sin, fails), X, **o),
        lambda **o: check_layer(Sequential(Elementwise(fails, np.cos), Tanh()), X, **o),
        lambda **o: check_loss(fails, X, X, **o),
        lambda **o: check_simplex_map(FailingMap(), X, **o),
        lambda **o: check_function(np.sin, fails, X, **o),
        lambda **o: check_pair(lambda x: (x, x), fails, X, **o),
    ],
    ids=["backward", "inner layer", "loss", "vjp of a map", "vjp", "backward of a pair"],
)
def test_an_exception_in_the_code_is_one_line_with_its_place(check, capsys):
    report = check()
    (failure,) = report.failures
    line = r"runs: raised KeyError: 'nothing' \(test_checks.py, line \d+, in fails\); .*"
    assert re.fullmatch(line, failure)
    assert str(report).splitlines()[-1] == failure
    assert (report.score(3), bool(report), report.tensors) == (0, False, ())
    with pytest.raises(GradientError, match="KeyError: 'nothing'"):
        report["x"]
    with pytest.raises(KeyError, match="nothing"):
        check(traceback=True)


def test_a_read_only_input_is_accepted():
    x = X.copy()
    x.flags.writeable = False
    assert check_layer(Tanh(), x)


def test_a_stochastic_layer_without_a_generator_gets_one_for_the_check():
    layer = Dropout(0.5)
    assert check_layer(layer, X)
    assert layer.rng is None


def test_the_cotangent_is_not_the_input_of_the_same_seed():
    seen = []

    class Seen(Layer):
        def forward(self, x, *, train=False):
            return x, lambda dy: seen.append(dy.copy()) or dy

    x = np.random.default_rng(0).standard_normal((3, 4))
    assert check_layer(Seen(), x, rng=0)
    assert seen
    assert not any((dy == x).all() for dy in seen)


# The side condition input_grad=False


class Scale(Layer):
    """y = 2 x; ``backward`` is given by each test."""

    def __init__(self, backward):
        self.backward = backward

    def forward(self, x, *, train=False):
        return 2 * x, self.backward


class Declares(Scale):
    skips_input_grad = True

    def forward(self, x, *, train=False):
        return super().forward(x, train=train)


def condition(layer):
    (found,) = (c for c in check_layer(layer, X).conditions if c.name == "input_grad=False")
    return found


def keeps(dy, input_grad=True):
    return 2 * dy if input_grad else None


@pytest.mark.parametrize(
    ("layer", "verdict"),
    [
        (Declares(keeps), "ok"),
        (Scale(keeps), "ok"),
        (Scale(lambda dy: 2 * dy), "- (not offered)"),
        (Declares(lambda dy: 2 * dy), "FAILED: declared by skips_input_grad, but "),
        (Sequential(Declares(lambda dy: 2 * dy)), "ok"),  # it has no parameters: never asked
        (Declares(lambda dy, input_grad=True: 2 * dy), "FAILED: backward(dy, input_grad=False) returned ndarray, not None"),
        (Scale(lambda dy, input_grad=True: 2 * dy), "FAILED: backward(dy, input_grad=False) returned ndarray, not None"),
    ],
)  # fmt: skip
def test_a_declared_or_accepted_input_grad_is_checked(layer, verdict):
    assert condition(layer).verdict.startswith(verdict)


def test_a_wrong_declaration_of_an_inner_layer_is_found():
    layer = Linear(5, 3, rng=0, dtype="float64")
    forward = layer.forward

    def without_the_argument(x, *, train=False):
        y, backward = forward(x, train=train)
        return y, lambda dy: backward(dy)

    layer.forward = without_the_argument
    found = condition(Sequential(layer))
    assert found.tensor == "input"
    assert re.match("FAILED: declared by skips_input_grad, but .* 'input_grad'", found.verdict)


# Kinks


@pytest.mark.parametrize(
    ("slope", "passes"), [(0, True), (0.3, True), (1, True), (1.2, False), (-0.1, False)]
)
def test_at_a_kink_the_value_must_lie_between(slope, passes):
    layer = Elementwise(lambda x: np.maximum(x, 0), lambda x: np.where(x == 0, slope, x > 0))
    x = X.copy()
    x[2, 3] = 0
    report = check_layer(layer, x)
    assert bool(report) == passes
    if passes:
        assert report["input"].verdict == "ok (kink)"
    else:
        assert report["input"].worst.index == (2, 3)


def test_a_kink_does_not_hide_the_error_of_another_entry():
    layer = Elementwise(lambda x: np.maximum(x, 0), lambda x: np.where(x > 0, -1.0, 0.5 * (x == 0)))
    x = np.array([[0.0, 0.5, 0.0, 0.0, -1.0]])
    for seed in range(30):
        assert not check_layer(layer, x, rng=seed), seed


def test_many_kinks_at_once():
    model = Sequential(
        Linear(5, 8), ReLU(), Linear(8, 8), ReLU(), Linear(8, 3), rng=0, dtype="float64"
    )
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            p.value = 0
    x = X.copy()
    x[:3] = 0
    for seed in range(4):
        report = check_layer(model, x, rng=seed)
        report.raise_if_failed()
        assert report["input"].verdict == "ok (kink)"


def test_an_error_of_a_smooth_function_is_no_kink():
    # Wrong at one point only: nearby both sides agree, but the derivative does not jump there.
    layer = Elementwise(np.sin, lambda x: np.where(x == 0, 1.01, np.cos(x)))
    x = X.copy()
    x[0, 0] = 0
    assert check_layer(layer, x)["input"].worst.index == (0, 0)


def test_rounding_is_distinguished_from_an_error():
    # 1 - y^2 cancels where tanh saturates: in float32 its relative error is 1e-3 there.
    x = np.full((1, 3), 5.5, np.float32)
    model = Sequential(Linear(3, 1, rng=0), Tanh())
    model[0].weight.value, model[0].bias.value = 0.3, 0.0
    report = check_layer(model, x)
    report.raise_if_failed()
    wrong = Elementwise(np.tanh, lambda x: 1.01 * (1 - np.tanh(x) ** 2))
    assert not check_layer(wrong, np.full((1, 3), 0.5, np.float32))


@pytest.mark.parametrize(("scale", "factor"), [(1e6, 1.01), (1e8, 2), (1e8, 10)])
def test_rounding_does_not_hide_an_error_that_a_larger_step_shows(scale, factor):
    class Shift(Layer):
        def forward(self, x, *, train=False):
            return x - 1, lambda dy: factor * dy

    assert not check_layer(Shift(), scale * X)


def test_an_entry_that_is_not_finite_is_the_only_wrong_one():
    def derivative(x):
        slopes = np.cos(x)
        slopes[2, 3] = np.nan
        return slopes

    check = check_layer(Elementwise(np.sin, derivative), X)["input"]
    assert (check.worst.index, "the worst of 1 wrong among 30" in str(check.worst)) == (
        (2, 3),
        True,
    )


# Code in other styles


def affine(x, w, b):
    return x @ w + b


class Affine:
    """State kept between forward and backward, arrays for parameters."""

    def __init__(self, fault=1.0):
        self.W, self.b, self.fault = RNG.standard_normal((5, 3)), np.zeros(3), fault

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dy):
        self.dW, self.db = self.x.T @ dy, self.fault * dy.sum(axis=0)
        return dy @ self.W.T


def closure(fault=1.0):
    weight = Parameter(np.arange(1.0, 6))

    def forward(x, train=False):
        def backward(dy):
            weight.grad = (dy * x).sum(axis=0)
            return fault * dy * weight.value

        return x * weight.value, backward

    return SimpleNamespace(forward=forward, weight=weight)


def test_bare_functions():
    arrays = X, RNG.standard_normal((5, 3)), np.zeros(3)
    right = check_function(affine, lambda x, w, b, dy: (dy @ w.T, x.T @ dy, dy.sum(0)), arrays)
    assert right
    assert [t.name for t in right.tensors] == ["x", "w", "b"]
    wrong = check_function(affine, lambda x, w, b, dy: (dy @ w.T, x.T @ dy, dy.mean(0)), arrays)
    assert [t.name for t in wrong.tensors if t.verdict == "FAILED"] == ["b"]
    named = check_function(np.multiply, lambda a, b, dy: (dy * b, dy * a), {"p": X, "q": X + 1})
    assert [t.name for t in named.tensors] == ["p", "q"]


def test_a_class_with_cached_state():
    assert check_layer(Cached(Affine(), W="dW", b="db"), X)
    wrong = check_layer(Cached(Affine(fault=0.5), W="dW", b="db"), X)
    assert [t.name for t in wrong.tensors if t.verdict == "FAILED"] == ["b"]
    assert wrong["b"].worst.analytic == pytest.approx(0.5 * wrong["b"].worst.numeric)


def test_closures():
    assert check_layer(closure(), X)
    wrong = check_layer(closure(fault=-1.0), X)
    assert [t.name for t in wrong.tensors if t.verdict == "FAILED"] == ["input"]


def test_closures_inside_a_chain_in_float32():
    layer = closure()
    layer.weight = None
    model = Sequential(Linear(5, 5), closure(), ReLU(), rng=0, dtype="float32")
    assert check_layer(model, X.astype(np.float32))


def test_arrays_that_are_no_parameters_are_mentioned():
    class Plain(Layer):
        def __init__(self):
            self.scale = np.ones(5)

        def forward(self, x, *, train=False):
            return x * self.scale, lambda dy: dy * self.scale

    assert "note: scale: plain arrays, not checked" in str(check_layer(Plain(), X))


def test_assert_gradients_takes_layers_losses_maps_and_functions():
    assert_gradients(Tanh(), X)
    assert_gradients(minidl.CrossEntropy(), X, np.arange(6) % 5)
    assert_gradients(minidl.softmax, X)
    assert_gradients(np.sin, lambda x, dy: dy * np.cos(x), X)
    with pytest.raises(GradientError, match=r"sin\.\w+\[\d, \d\]: analytic"):
        assert_gradients(np.sin, lambda x, dy: dy * np.sin(x), X)


# Errors say what was expected, what came, and how to write it right


class Returns(Layer):
    def __init__(self, result):
        self.result = result

    def forward(self, x, *, train=False):
        return self.result(x)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (object(), r"object: expected an object with forward\(x, train=...\) -> y, backward, got"),
        (Linear, "expected an object with forward.* got the class Linear"),
        (
            SimpleNamespace(forward=lambda x: x),
            r"expected forward to take x and train=; write: def forward\(self, x, \*, train=False\)",
        ),
        (Returns(lambda x: x), r"return y, backward"),
        (Returns(lambda x: x), r"got an array of shape \(6, 5\), float64"),
        (Returns(lambda x: None), "got None"),
        (Returns(lambda x: (x, x)), r"got a tuple \(an array"),
        (
            Returns(lambda x: (x > 0, lambda dy: dy)),
            "expected forward's output to be an array of floats",
        ),
        (
            Returns(lambda x: (x, lambda dy: None)),
            r"return dx, an array of shape \(6, 5\), got None",
        ),
        (
            Returns(lambda x: (x, lambda dy: dy.T)),
            r"return dx, an array of shape \(6, 5\), got an array of shape \(5, 6\), float64; is a transpose missing\?",
        ),
        (
            Returns(lambda x: (x, lambda dy: dy[:, 0])),
            r"of shape \(6, 5\), got an array of shape \(6,\)",
        ),
    ],
)
def test_what_breaks_the_contract(layer, message):
    with pytest.raises(TypeError, match=message):
        check_layer(layer, X)


def test_a_wrong_shape_is_a_value_error_too():
    with pytest.raises(ValueError, match="shape"):
        check_layer(Returns(lambda x: (x, lambda dy: dy.T)), X)
    assert issubclass(ContractError, TypeError)


@pytest.mark.parametrize("x", [[[1.0, 2.0]], np.ones((2, 5), int), np.ones((2, 5), complex), None])
def test_an_input_that_is_no_array_of_floats(x):
    message = r"expected x to be an array of float32 or float64, got .*; write: np\.asarray\(x"
    with pytest.raises(TypeError, match=message):
        check_layer(Tanh(), x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_loss(3, X, X), "check_loss: expected loss to be a function, got int 3"),
        (lambda: check_loss(lambda z, y: z, X, X), "write: return value, dlogits"),
        (lambda: check_loss(lambda z, y: (1.0, z.T), X, X), r"return dlogits, an array of shape \(6, 5\)"),
        (lambda: check_simplex_map(np.sin, X), r"expected vjp\(p, dp\) to be a function, got None"),
        (lambda: check_function(np.sin, 3, X), "expected vjp to be a function, got int 3"),
        (lambda: check_function(np.sin, lambda x, dy: (dy, dy), X), r"of shape \(6, 5\), got a tuple"),
        (lambda: check_function(np.multiply, lambda x, w, dy: (dy,), (X, X)), "return 2 gradients, one for each of"),
        (lambda: check_function(np.sin, lambda x, dy: dy[0], X), r"of shape \(6, 5\), got an array of shape \(5,\)"),
        (lambda: Cached(Tanh()), "which has no backward"),
    ],
)  # fmt: skip
def test_other_contracts(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("option", [{"eps": 0}, {"rtol": -1}, {"atol": np.nan}])
def test_options_are_checked(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        check_layer(Tanh(), X, **option)


def test_an_unknown_array_of_a_cached_layer():
    with pytest.raises(ValueError, match=r"expected Affine\.V to be an array of numbers, got None"):
        Cached(Affine(), V="dV")
