"""Verdicts do not depend on scale: inputs, outputs and parameters times powers of two."""

import numpy as np
import pytest

from minidl import Linear
from minidl.testing.checks import check_function, check_layer


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def norm(x):
    return np.sqrt((x * x).mean(axis=1, keepdims=True))


def rms_vjp(x, dy):
    r = norm(x)
    return (dy - x / r * (dy * x / r).mean(axis=1, keepdims=True)) / r


def softmax_vjp(x, dy):
    p = softmax(x)
    return p * (dy - (dy * p).sum(axis=1, keepdims=True))


def elementwise(f, slope):
    """Return a function, its vjp, and one that is wrong: a tenth too large."""

    def vjp(x, dy):
        return np.asarray(slope(x) * dy, x.dtype)

    return f, vjp, lambda x, dy: x.dtype.type(1.1) * vjp(x, dy)


def centred(x):
    return x - x.mean(axis=1, keepdims=True)


def logsumexp(x):
    top = x.max(axis=1, keepdims=True)
    return top + np.log(np.exp(x - top).sum(axis=1, keepdims=True))


def sech2(x):
    e = np.exp(-2 * np.abs(x))
    return 4 * e / (1 + e) ** 2


FUNCTIONS = {
    "square": (lambda x: x * x, lambda x, dy: 2 * x * dy, lambda x, dy: x * dy),
    "cube": elementwise(lambda x: x**3, lambda x: 3 * x * x),
    "linear": elementwise(lambda x: 3 * x, lambda x: 3 + 0 * x),
    "sine": (np.sin, lambda x, dy: np.cos(x) * dy, lambda x, dy: -np.cos(x) * dy),
    "cosine": elementwise(np.cos, lambda x: -np.sin(x)),
    "tanh": elementwise(np.tanh, sech2),
    "sigmoid": elementwise(sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "saturated": elementwise(lambda x: sigmoid(x - 20), lambda x: sigmoid(x - 20) * sigmoid(20 - x)),
    "softplus": elementwise(lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), sigmoid),
    "silu": elementwise(lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * sigmoid(-x))),
    "arctan": elementwise(np.arctan, lambda x: 1 / (1 + x * x)),
    "softsign": elementwise(lambda x: x / (1 + np.abs(x)), lambda x: (1 + np.abs(x)) ** -2),
    "bell": elementwise(lambda x: 1 / (1 + x * x), lambda x: -2 * x / (1 + x * x) ** 2),
    "log": elementwise(lambda x: np.log1p(x * x), lambda x: 2 * x / (1 + x * x)),
    "root": elementwise(lambda x: np.sqrt(1 + x * x), lambda x: x / np.sqrt(1 + x * x)),
    "relu": (lambda x: np.maximum(x, 0), lambda x, dy: (x > 0) * dy, lambda x, dy: 0.5 * dy),
    "leaky": elementwise(lambda x: np.where(x > 0, x, x / 8), lambda x: np.where(x > 0, 1, 0.125)),
    "abs": (np.abs, lambda x, dy: np.sign(x) * dy, lambda x, dy: dy),
    "huber": elementwise(lambda x: np.where(np.abs(x) < 1, x * x / 2, np.abs(x) - 0.5), lambda x: np.clip(x, -1, 1)),
    "norm": (lambda x: x / norm(x), rms_vjp, lambda x, dy: dy / norm(x)),
    "rms": (norm, lambda x, dy: dy * x / norm(x) / 5, lambda x, dy: dy * x / norm(x)),
    "centred": (centred, lambda x, dy: centred(dy), lambda x, dy: dy),
    "softmax": (softmax, softmax_vjp, lambda x, dy: softmax(x) * dy),
    "logsumexp": (logsumexp, lambda x, dy: dy * softmax(x), lambda x, dy: dy + 0 * x),
    "cumulative": (lambda x: x.cumsum(axis=1), lambda x, dy: dy[:, ::-1].cumsum(axis=1)[:, ::-1], lambda x, dy: dy.cumsum(axis=1)),
    "maximum": (lambda x: x.max(axis=1), lambda x, dy: dy[:, None] * (x == x.max(axis=1, keepdims=True)), lambda x, dy: dy[:, None] * (x == x.min(axis=1, keepdims=True))),
    "gram": (lambda x: x @ x.T, lambda x, dy: (dy + dy.T) @ x, lambda x, dy: 2 * dy @ x),
    "affine": (
        lambda x, w, b: x @ w + b,
        lambda x, w, b, dy: (dy @ w.T, x.T @ dy, dy.sum(axis=0)),
        lambda x, w, b, dy: (dy @ w.T, 0 * w, dy.sum(axis=0)),
    ),
    "product": (
        lambda x, w: x * w,
        lambda x, w, dy: (w * dy, x * dy),
        lambda x, w, dy: (w * dy, -x * dy),
    ),
    "quotient": (
        lambda x, w: x / w,
        lambda x, w, dy: (dy / w, -dy * x / w / w),
        lambda x, w, dy: (dy / w, dy * x / w / w),
    ),
}  # fmt: skip
SHAPES = {"affine": [(6, 5), (5, 3), (3,)], "product": [(6, 5), (6, 5)], "quotient": [(6, 5), (6, 5)]}  # fmt: skip
FEW, ALL = (-60, -20, 0, 20, 60), tuple(range(-60, 61, 10))
OSCILLATING = "sine", "cosine"


def verdicts(name, dtype, exponent, where):
    """Return the verdicts on the right and on the wrong gradients, None where these are equal."""
    f, *vjps = FUNCTIONS[name]
    rng, scale = np.random.default_rng(0), dtype(2.0**exponent)
    arrays = [np.asarray(rng.standard_normal(s), dtype) for s in SHAPES.get(name, [(6, 5)])]
    outer = scale if where == "output" else dtype(1)
    for k in {"input": [0], "parameters": range(1, len(arrays)), "output": []}[where]:
        arrays[k] = arrays[k] * scale
    y = f(*arrays)
    dy = np.asarray(np.random.default_rng(1).standard_normal(y.shape), y.dtype)
    right, wrong = (np.concatenate([np.ravel(g) for g in gradients(v, arrays, dy)]) for v in vjps)
    finite = np.isfinite(right).all() and np.isfinite(outer * y).all()
    if not finite or np.allclose(right, wrong, rtol=1e-2, atol=0):
        return None
    return [
        check_function(
            lambda *a: outer * f(*a),
            lambda *a, v=v: v(*a[:-1], outer * a[-1]),
            tuple(arrays),
            locate_seconds=seconds,
        ).verdict
        for v, seconds in zip(vjps, (5, 0), strict=True)
    ]


def gradients(vjp, arrays, dy):
    found = vjp(*arrays, dy)
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("exponents", [FEW, pytest.param(ALL, marks=pytest.mark.slow)])
def test_verdicts_at_all_scales(dtype, exponents):
    """30 right and 30 wrong functions; sines of 2^20 change from one number to the next."""
    unsure, count = [], 0
    for where in ("input", "output", "parameters"):
        names = SHAPES if where == "parameters" else FUNCTIONS
        for k, name in enumerate(names):
            for exponent in exponents if exponents is ALL else exponents[k % 5 :: 5]:
                if where == "input" and name in OSCILLATING and exponent > 10:
                    continue
                found = verdicts(name, dtype, exponent, where)
                if found is None:
                    continue
                right, wrong = found
                assert right != "FAILED", (name, exponent, where)
                assert wrong != "passed", (name, exponent, where)
                count += 1
                unsure += [(name, exponent, where)] if right != "passed" else []
    assert len(unsure) <= (0.05 if dtype is np.float64 else 0.15) * count, unsure


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_where_rounding_hides_the_answer_the_check_cannot_tell(dtype):
    """At 2^60 the sine changes completely from one number to the next."""
    x = np.asarray(2.0**60 * np.random.default_rng(0).standard_normal((6, 5)), dtype)
    for sign in (1, -1):
        report = check_function(np.sin, lambda x, dy, s=sign: s * dy * np.cos(x), x)
        assert (report.verdict, bool(report)) == ("cannot tell", False)
        assert report.failures == ()
        assert "x: rounding hides the derivative, so the check cannot tell; give" in str(report)


@pytest.mark.parametrize("shape", [(7, 6), (20, 20), (40, 25)])
def test_one_entry_wrong_by_one_per_cent_in_float32(shape):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        entry = tuple(map(int, rng.integers(shape)))

        class Wrong(Linear):
            def forward(self, x, *, train=False, _entry=entry):
                y, backward = super().forward(x, train=train)

                def wrong(dy, input_grad=True):
                    dx = backward(dy, input_grad=input_grad)
                    self.weight.grad[_entry] *= 1.01
                    return dx

                return y, wrong

        x = rng.standard_normal((8, shape[0])).astype(np.float32)
        report = check_layer(Wrong(*shape, rng=seed, dtype="float32"), x, rng=seed)
        assert [t.name for t in report.tensors if t.failure] == ["weight"], seed
