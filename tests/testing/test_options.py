"""float32-only code, global randomness, sweep, skipped conditions, kinks of functions, the search."""

import random
import re

import numpy as np
import pytest
import strangers

from minidl import Dropout, Layer, Linear, Parameter, ReLU, Sequential
from minidl.testing.cached import Cached
from minidl.testing.checks import check_function, check_layer, check_loss, check_pair

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 5))


class Wrong(Linear):
    """``fault(gradient)`` changes the gradient of the weights in place."""

    def forward(self, x, *, train=False):
        y, backward = super().forward(x, train=train)

        def wrong(dy, input_grad=True):
            dx = backward(dy, input_grad=input_grad)
            self.fault(self.weight.grad)
            return dx

        return y, wrong


def wrong_linear(fault, *sizes):
    layer = Wrong(*sizes, rng=0, dtype="float64")
    layer.fault = fault
    return layer


# The search for wrong entries


def test_all_entries_wrong_by_one_factor_is_said():
    def fault(gradient):
        gradient *= 0.125

    report = check_layer(wrong_linear(fault, 5, 3), X)
    assert report["weight"].worst.wrong == 15
    assert "(the worst of 15 wrong among 15); all 15 are 0.125 times the numeric value" in str(
        report
    )


def test_the_search_stops_when_enough_is_known():
    def fault(gradient):
        gradient *= 2

    report = check_layer(wrong_linear(fault, 40, 50), RNG.standard_normal((3, 40)))
    worst = report["weight"].worst
    assert worst.wrong <= 100 + 2
    assert worst.searched < worst.size
    assert f"wrong among {worst.searched} searched of 2000" in str(report)


def test_the_largest_of_several_wrong_entries_is_named():
    def fault(gradient):
        gradient[3, 4] += 0.1
        gradient[30, 20] += 1
        gradient[7, 40] += 5

    report = check_layer(wrong_linear(fault, 40, 50), RNG.standard_normal((3, 40)))
    assert report["weight"].worst.index == (7, 40)
    assert report["weight"].worst.wrong == 3


def test_without_time_the_report_says_that_no_entry_was_found():
    def fault(gradient):
        gradient[3, 4] += 1

    report = check_layer(wrong_linear(fault, 40, 50), X[:, [0] * 40], locate_seconds=0)
    assert not report
    assert report["weight"].worst is None
    assert "no entry was found whose error alone exceeds the tolerance" in str(report)


@pytest.mark.parametrize("seed", range(10))
def test_a_small_error_in_all_entries_is_no_kink(seed):
    def vjp(x, dy):
        return (1 + 1e-4) * dy * np.cos(x)

    x = np.random.default_rng(seed).standard_normal((20, 20))
    assert check_function(np.sin, vjp, x, rng=seed)["x"].verdict == "FAILED"


# float32


def gelu32(x):
    x = np.asarray(x, np.float32)
    return (
        np.float32(0.5)
        * x
        * (1 + np.tanh(np.float32(0.7978846) * (x + np.float32(0.044715) * x**3)))
    )


def gelu32_vjp(x, dy, fault=1.0):
    x = np.asarray(x, np.float32)
    t = np.tanh(np.float32(0.7978846) * (x + np.float32(0.044715) * x**3))
    inner = np.float32(0.7978846) * (1 + np.float32(3 * 0.044715) * x**2)
    dx = np.asarray(dy * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * inner), np.float32)
    dx[2, 3] *= fault
    return dx


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_code_that_knows_float32_alone_is_detected(dtype):
    x = X.astype(dtype)
    report = check_function(gelu32, gelu32_vjp, x)
    report.raise_if_failed()
    note = "both sides in float32 (float32 output for a float64 input): step 0.02, relative tolerance 0.002"
    assert note in str(report)
    wrong = check_function(gelu32, lambda x, dy: gelu32_vjp(x, dy, 1.1), x)
    assert wrong["x"].worst.index == (2, 3)


def test_code_that_refuses_float64():
    def square(x):
        if x.dtype != np.float32:
            raise ValueError("Buffer dtype mismatch")
        return x * x

    report = check_function(square, lambda x, dy: 2 * x * dy, X.astype(np.float32))
    report.raise_if_failed()
    assert "ValueError for a float64 input" in str(report)
    assert check_function(square, lambda x, dy: 2 * x * dy, X)
    failed = check_function(square, lambda x, dy: 2 * x * dy, X, precision="float64")
    assert "ValueError: Buffer dtype mismatch (test_options.py, line" in failed.failures[0]


def test_float32_as_asked():
    layers = Linear(5, 8), ReLU(), Linear(8, 3)
    report = check_layer(Sequential(*layers, rng=0), X.astype(np.float32), precision="float32")
    report.raise_if_failed()
    assert "(as asked)" in str(report)
    assert np.isnan(report.slope)


def test_float32_only_layers_with_state_and_losses():
    class Affine32(strangers.Affine):
        def forward(self, x):
            return super().forward(x.astype(np.float32)).astype(np.float32)

    def mse(x, y):
        error = np.asarray(x - y, np.float32)
        return np.mean(error**2), 2 * error / np.float32(error.size)

    check_layer(Cached(Affine32(1), W="dW", b="db"), X).raise_if_failed()
    assert not check_layer(Cached(Affine32(1.2), W="dW", b="db"), X)
    report = check_loss(mse, X, X[::-1].copy())
    report.raise_if_failed()
    assert "both sides in float32" in str(report)


# Global randomness


def noisy_pair(draw):
    def forward(x):
        mask = draw(x.shape) > 0.5
        return x * mask, mask

    return forward, lambda dy, mask: dy * mask


def python_random(shape):
    return np.array([random.random() for _ in range(int(np.prod(shape)))]).reshape(shape)


@pytest.mark.parametrize("draw", [np.random.random, python_random], ids=["numpy", "random"])
def test_global_randomness(draw):
    pair = noisy_pair(draw)
    report = check_pair(*pair, X)
    assert not report
    assert report.tensors == ()
    assert [c.name for c in report.conditions] == ["repeatable"]
    assert "nothing else was checked" in str(report)
    assert "numpy_seed=0" in str(report)
    states = random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002
    check_pair(*pair, X, numpy_seed=0).raise_if_failed()
    assert random.getstate() == states[0]
    np.testing.assert_equal(np.random.get_state(legacy=False), states[1])  # noqa: NPY002


def test_numpy_seed_is_a_whole_number():
    with pytest.raises(ValueError, match="numpy_seed"):
        check_layer(ReLU(), X, numpy_seed=-1)


# Side conditions: skipped, and an exception is a failure


class RefusesFortran(Layer):
    def forward(self, x, *, train=False):
        if not x.flags.c_contiguous:
            raise ValueError("not contiguous")
        return 2 * x, lambda dy: 2 * dy


def test_an_exception_in_a_condition_is_its_failure():
    report = check_layer(RefusesFortran(), X)
    (failure,) = report.failures
    assert re.fullmatch(
        r"any layout: raised ValueError: not contiguous \(test_options.py, line \d+, in forward\)",
        failure,
    )
    assert str(report).splitlines()[-1] == failure
    check_layer(RefusesFortran(), X, skip=("any layout",)).raise_if_failed()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"skip": ("any layuot",)}, ValueError, "expected skip 'shape' or .* got 'any layuot'"),
        ({"skip": "shape"}, ValueError, "expected skip 'shape' or .* got 's'"),
        ({"tolerance": 1}, TypeError, "check_layer: unknown option 'tolerance'"),
        ({"precision": "float16"}, ValueError, "expected precision 'float64' or 'float32'"),
        ({"locate_seconds": -1}, ValueError, "locate_seconds"),
    ],
)  # fmt: skip
def test_options_are_checked(options, error, says):
    with pytest.raises(error, match=says):
        check_layer(ReLU(), X, **options)


@pytest.mark.parametrize(
    ("dtype", "option"),
    [
        *((None, o) for o in ({"rng": 0}, {"atol": 0}, {"cotangent": 1}, {"locate_seconds": 5})),
        *((None, o) for o in ({"eps": 1e-5}, {"rtol": 1e-6}, {"precision": "float64"})),
        ("float32", {"rtol": 1e-4}),
        ("float32", {"precision": "float32", "eps": 0.02, "rtol": 2e-3}),
    ],
)
def test_the_defaults_of_options_are_those_of_the_documentation(dtype, option):
    def fault(gradient):
        gradient *= 1 + 1e-3

    def report(**options):
        return str(check_layer(wrong_linear(fault, 5, 3).copy(dtype), X.astype(dtype), **options))

    asked = {key: value for key, value in option.items() if key == "precision"}
    assert report(**asked) == report(**option)


def test_an_attribute_with_another_forward_is_no_inner_layer():
    class Outer(Layer):
        def __init__(self):
            self.inner = strangers.Affine(1, out=5)

        def forward(self, x, *, train=False):
            y = np.maximum(self.inner.forward(x), 0)
            return y, lambda dy: self.inner.backward(dy * (y > 0))

    x = X.copy()
    x[2] = 0  # kinks, so that inner layers are asked
    report = check_layer(Outer(), x)
    assert report.failures[:1] == () or "passes in flight" in report.failures[0]
    assert "unpack" not in str(report)


# The sweep


class Swept(Layer):
    """y = 2 x, with a fault that ``when(x)`` shows."""

    def __init__(self, when):
        self.when = when

    def forward(self, x, *, train=False):
        return 2 * x, lambda dy: np.where(self.when(x), 1, 2) * dy


@pytest.mark.parametrize(
    ("when", "broken"),
    [
        (lambda x: x > 5, ["4 times the input", "16 times the input"]),
        (lambda x: len(x) == 1, ["one row"]),
        (lambda x: x > 1e9, []),
    ],
)
def test_faults_at_other_inputs(when, broken):
    assert check_layer(Swept(when), X)
    found = check_layer(Swept(when), X, sweep=True)
    assert [c.name for c in found.conditions if c.problem] == broken


class StaleMask:
    """Keeps the mask of its first pass."""

    def __init__(self):
        self.mask = None

    def forward(self, x):
        self.mask = x > 0 if self.mask is None else self.mask
        return x * self.mask

    def backward(self, dy):
        return dy * self.mask


class StaleAttribute(Layer):
    def forward(self, x, *, train=False):
        self.scale = getattr(self, "scale", np.abs(x).max())
        scale = self.scale
        return x * scale, lambda dy: dy * scale


@pytest.mark.parametrize("layer", [lambda: Cached(StaleMask()), StaleAttribute])
def test_a_stale_cache_is_found(layer):
    report = check_layer(layer(), X, sweep=True)
    assert "used twice" in [c.name for c in report.conditions if c.problem]


def test_right_code_passes_the_sweep():
    model = Sequential(Linear(5, 8), ReLU(), Dropout(0.3), Linear(8, 3), rng=0, dtype="float64")
    check_layer(model, X, sweep=True).raise_if_failed()
    check_layer(Cached(strangers.Affine(1), W="dW", b="db"), X, sweep=True).raise_if_failed()
    arrays = X, X[:5, :3], X[0, :3]
    check_pair(*strangers.affine_pair(1), arrays, sweep=True, skip=("no rows",)).raise_if_failed()
    check_loss(strangers.pair_loss(1), X, X[::-1], sweep=True, skip=("no rows",)).raise_if_failed()


@pytest.mark.parametrize(
    ("f", "vjp", "arrays"),
    [
        (np.multiply, lambda x, y, dy: (dy * y, dy * x), (X, X + 1)),
        (lambda x, w: x @ w, lambda x, w, dy: (dy @ w.T, x.T @ dy), (X[:5], X[1:])),
        (lambda x, g: x * g, lambda x, g, dy: (dy * g, (dy * x).sum(axis=0)), (X[:5], X[0])),
    ],
    ids=["two batches", "a square weight", "a weight of as many entries"],
)
def test_rows_of_a_batch_are_told_from_weights(f, vjp, arrays):
    check_function(f, vjp, arrays, sweep=True).raise_if_failed()


def test_an_empty_batch_that_raises_is_a_failure():
    def f(x):
        return x - x.max(axis=0)

    def vjp(x, dy):
        dx = dy.copy()
        dx[x.argmax(axis=0), np.arange(x.shape[1])] -= dy.sum(axis=0)
        return dx

    report = check_function(f, vjp, X, sweep=True)
    assert [c.name for c in report.conditions if c.problem] == ["no rows"]


# Arrays that were not checked, flags without effect, buffers


def test_a_forgotten_parameter_is_named_in_the_first_line():
    report = check_layer(Cached(strangers.Affine(1), W="dW"), X)
    assert report
    assert report.unchecked == ("b",)
    assert str(report).splitlines()[0].endswith(": passed, but not checked: b")


def test_a_parameter_in_an_inner_object_is_named():
    report = check_layer(Cached(strangers.Cell(1), U="dU"), (X, X[:, :3]))
    assert report.unchecked == ("inner.W", "inner.b")


def test_train_false_without_a_flag_is_said():
    report = check_layer(Cached(strangers.Affine(1), W="dW", b="db"), X, train=False)
    assert "note: train=False had no effect: Affine has no training flag" in str(report)


@pytest.mark.parametrize(
    "flag",
    [
        lambda self, train_flg=True: train_flg,
        lambda self, eval=False: not eval,  # noqa: A006
    ],
)
def test_flags_with_usual_names_are_found(flag):
    class Flagged:
        def forward(self, x, **options):
            raise NotImplementedError

        def backward(self, dy):
            return self.factor * dy

    name = flag.__code__.co_varnames[1]
    scope = {"flag": flag}
    exec(
        f"def forward(self, x, {name}={flag.__defaults__[0]}):\n    self.factor = 2 if flag(self, {name}) else 3\n    return self.factor * x",
        scope,
    )
    Flagged.forward = scope["forward"]
    for train, factor in ((True, 2), (False, 3)):
        layer = Cached(Flagged())
        report = check_layer(layer, X, train=train)
        report.raise_if_failed()
        assert report.notes == ()
        assert (layer.forward(X, train=train)[0] == factor * X).all()


def test_train_and_eval_as_methods():
    class Switched:
        factor = 2

        def train(self):
            self.factor = 2

        def eval(self):
            self.factor = 3

        def forward(self, x):
            return self.factor * x

        def backward(self, dy):
            return self.factor * dy

    layer = Cached(Switched())
    assert (layer.forward(X, train=False)[0] == 3 * X).all()
    assert (layer.forward(X, train=True)[0] == 2 * X).all()


def test_declared_buffers_are_put_back_before_every_pass():
    class Centre(Layer):
        buffers = ("mean",)

        def __init__(self):
            self.mean, self.weight = np.zeros(5), Parameter(np.ones(5))

        def forward(self, x, *, train=False):
            if train:  # it uses the average that it has just moved, as a constant
                self.mean = 0.9 * self.mean + 0.1
            h = x - self.mean

            def backward(dy):
                self.weight.grad = (dy * h).sum(axis=0)
                return dy * self.weight.value

            return h * self.weight.value, backward

    layer = Centre()
    report = check_layer(layer, X)
    report.raise_if_failed()
    assert report.unchecked == ()
    assert not layer.mean.any()


# Inputs that have no gradient


class Lookup:
    """y = W[ids] * x; its attribute ``method`` means something else."""

    method = "sum"

    def __init__(self):
        self.W = np.arange(1.0, 13).reshape(4, 3)

    def forward(self, ids, x):
        self.ids, self.x = ids, x
        return self.W[ids] * x

    def backward(self, dy):
        self.dW = np.zeros((4, 3))
        np.add.at(self.dW, self.ids, dy * self.x)
        return None, dy * self.W[self.ids]


def test_fixed_inputs_of_a_layer():
    ids = np.array([0, 3, 3, 1, 0, 2])
    layer = Cached(Lookup(), W="dW")
    report = check_layer(layer, X[:, :3], fixed={"ids": ids}, sweep=True)
    report.raise_if_failed()
    assert [t.name for t in report.tensors] == ["x", "W"]
    by_name = check_layer(layer, {"x": X[:, :3]}, fixed={"ids": ids})
    by_name.raise_if_failed()
    alone = check_layer(layer, fixed={"ids": ids, "x": X[:, :3]})
    alone.raise_if_failed()
    assert [t.name for t in alone.tensors] == ["W"]


class Pooled(Layer):
    method = "max"

    def forward(self, x, *, train=False):
        return 2 * x, lambda dy: 2 * dy


def test_an_attribute_of_the_same_name_as_one_of_the_adapter():
    check_layer(Pooled(), X).raise_if_failed()


# Kinks of plain functions


@pytest.mark.parametrize("seed", range(5))
def test_a_row_of_zeros_in_a_function_with_hidden_units(seed):
    rng = np.random.default_rng(seed)
    x, w1, w2 = (rng.standard_normal(s) for s in ((6, 5), (5, 8), (8, 2)))
    x[0] = 0
    report = check_function(*strangers.hidden_pair(1), (x, w1, w2), rng=seed)
    report.raise_if_failed()
    assert "x: several kinks meet here" in str(report) or report["x"].verdict == "ok (kink)"
    wrong = check_function(*strangers.hidden_pair(1.01), (x, w1, w2), rng=seed)
    assert wrong["w1"].worst.index == (2, 0)


def test_a_slope_of_five_where_kinks_meet():
    def f(x, w1, w2):
        return np.maximum(x @ w1, 0) @ w2

    def vjp(x, w1, w2, dy):
        a = x @ w1
        da = (dy @ w2.T) * np.where(a == 0, 50, a > 0)
        return da @ w1.T, x.T @ da, np.maximum(a, 0).T @ dy

    x, w1, w2 = X.copy(), RNG.standard_normal((5, 8)), RNG.standard_normal((8, 2))
    x[0] = 0
    report = check_function(f, vjp, (x, w1, w2))
    assert report["x"].worst.index[0] == 0
    assert "right at points nearby: if kinks meet here, move x a little" in str(report)


def test_what_a_sweep_checks_and_what_is_left_out():
    report = check_layer(Linear(5, 3, rng=0), X.astype("f"), sweep=True, skip=("finite",))
    verdicts = {c.name: c.verdict for c in report.conditions}
    assert {verdicts[name] for name in ("one row", "no rows", "16 times the input")} == {"ok"}
    assert verdicts["finite"] == "- (left out)"
