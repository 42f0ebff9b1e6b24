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


FUNCTIONS = {
    "square": (lambda x: x * x, lambda x, dy: 2 * x * dy, lambda x, dy: x * dy),
    "sine": (np.sin, lambda x, dy: np.cos(x) * dy, lambda x, dy: -np.cos(x) * dy),
    "relu": (lambda x: np.maximum(x, 0), lambda x, dy: (x > 0) * dy, lambda x, dy: 0.5 * dy),
    "saturated": (
        lambda x: sigmoid(x - 20),
        lambda x, dy: sigmoid(x - 20) * sigmoid(20 - x) * dy,
        lambda x, dy: 2 * sigmoid(x - 20) * sigmoid(20 - x) * dy,
    ),
    "norm": (lambda x: x / norm(x), rms_vjp, lambda x, dy: dy / norm(x)),
    "softmax": (softmax, softmax_vjp, lambda x, dy: softmax(x) * dy),
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
}
SHAPES = {"affine": [(6, 5), (5, 3), (3,)], "product": [(6, 5), (6, 5)]}


def verdict(name, right, dtype, exponent, where):
    f, *vjps = FUNCTIONS[name]
    rng, scale = np.random.default_rng(0), dtype(2.0**exponent)
    arrays = [np.asarray(rng.standard_normal(s), dtype) for s in SHAPES.get(name, [(6, 5)])]
    vjp, outer = vjps[not right], scale if where == "output" else dtype(1)
    for k in {"input": [0], "parameters": range(1, len(arrays)), "output": []}[where]:
        arrays[k] = arrays[k] * scale
    return check_function(
        lambda *a: outer * f(*a), lambda *a: vjp(*a[:-1], outer * a[-1]), tuple(arrays)
    ).verdict


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("where", ["input", "output", "parameters"])
def test_verdicts_at_all_scales(where, dtype):
    """Saturated functions have the gradient 0, sines of 2^60 none: neither is tried there."""
    unsure, count = [], 0
    for name in FUNCTIONS:
        if where == "parameters" and name not in SHAPES:
            continue
        top = 2 if where == "input" and name in ("sine", "saturated", "softmax") else 60
        for exponent in (-60, -40, -20, -7, 0, 7, 20, 40, 60):
            if exponent > top:
                continue
            right, wrong = (verdict(name, r, dtype, exponent, where) for r in (True, False))
            assert right != "FAILED", (name, exponent)
            assert wrong != "passed", (name, exponent)
            count += 1
            unsure += [(name, exponent)] if right != "passed" else []
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
