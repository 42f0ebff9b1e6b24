"""NumPy code for one example at a time.

A kernel is made once for a block of examples and returns functions that compute row t of its
buffers: ``z``, the outputs of the layer before, and ``g``, which receives ``-lr`` times the
gradient of the loss with respect to ``z``.

The code avoids what is slow on short arrays: a scalar factor is an array of no dimensions, views
are made once, a maximum is found by ``argmax``, a sum is a product with ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minidl.typing import Array


@dataclass(frozen=True)
class Tail:
    """The computation after the first layer, for one run or several."""

    step: Callable[[int, float], None]
    """``step(t, label)`` reads ``z[t]``, writes ``g[t]`` and updates the layers after the first."""
    losses: Callable[[Array], Array]
    """``losses(labels)`` returns the losses of the block's first examples, (n,) or (n, runs)."""


def weighted(tail: Tail, g: Array, factors: Array) -> Tail:
    """Multiply row t of ``g`` and the loss of example t by ``factors[t]``."""
    rows, multiply = list(g), np.multiply
    scales = [factors[t : t + 1] for t in range(len(g))]

    def step(t: int, label: float) -> None:
        tail.step(t, label)
        multiply(rows[t], scales[t], rows[t])

    return Tail(step, lambda y: (tail.losses(y).T * factors[: len(y)]).T)


def relu_linear(
    z: Array, g: Array, w: Array, change: Array, out: Array, dout: Array
) -> tuple[Callable[[int], None], Callable[[int], None]]:
    """A ReLU followed by a Linear: the forward and the backward pass of row t.

    The last row of ``w`` is the bias. Forward writes ``out = (max(z, 0), 1) w``. Backward reads
    ``dout`` and writes ``change = h^T dout``, where ``h = (max(z, 0), 1)``, and ``g = dout w^T``
    where ``z > 0``, else 0.
    """
    maximum, multiply, sign = np.maximum, np.multiply, np.sign
    zs, gs, outs, douts, rows = list(z), list(g), list(out), list(dout), list(dout[:, None])
    h, dh, zero = np.ones(len(w), w.dtype), np.empty(len(w), w.dtype), np.zeros((), w.dtype)
    active, dactive, column = h[: z.shape[1]], dh[: z.shape[1]], h[:, None]
    slope = np.empty_like(active)

    def forward(t: int) -> None:
        maximum(zs[t], zero, out=active)
        h.dot(w, outs[t])

    def backward(t: int) -> None:
        w.dot(douts[t], dh)
        sign(active, slope)  # 1 where z > 0, else 0
        multiply(dactive, slope, gs[t])
        column.dot(rows[t], change)

    return forward, backward


def softmax(z: Array, g: Array, lr: float) -> Tail:
    """Softmax cross-entropy: ``g = -lr (softmax(z) - onehot(label))``."""
    subtract, exp, divide = np.subtract, np.exp, np.divide
    zs, gs = list(z), list(g)
    logits = [[row[k : k + 1].reshape(()) for k in range(len(row))] for row in zs]
    sums, weights = np.empty(len(z), z.dtype), np.full(z.shape[1], -1 / lr, z.dtype)
    totals = [sums[t : t + 1].reshape(()) for t in range(len(z))]

    def step(t: int, label: float) -> None:
        row, p, total = zs[t], gs[t], totals[t]
        subtract(row, logits[t][row.argmax()], p)
        exp(p, p)
        p.dot(weights, total)  # -1/lr times the sum, so that one division normalises and scales
        divide(p, total, p)
        p[label] += lr

    def losses(y: Array) -> Array:
        return np.asarray(np.log(-lr * sums) + z.max(axis=1) - z[range(len(z)), y])

    return Tail(step, losses)


def perceptron(z: Array, g: Array, lr: float) -> Tail:
    """The perceptron's loss: ``g = -lr (onehot(predicted) - onehot(label))``."""
    zs, gs = list(z), list(g)

    def step(t: int, label: float) -> None:
        predicted, row = zs[t].argmax(), gs[t]
        row.fill(0)
        if predicted != label:
            row[predicted] = -lr
            row[label] = lr

    def losses(y: Array) -> Array:
        return np.asarray(z.max(axis=1) - z[range(len(z)), y])

    return Tail(step, losses)


def stacked_softmax(z: Array, g: Array, lr: list[float]) -> Tail:
    """Softmax cross-entropy of several runs whose logits stand side by side in each row."""
    n, r = len(z), len(lr)
    z, g = z.reshape(n, r, -1), g.reshape(n, r, -1)
    maximum, subtract, exp = np.maximum.reduce, np.subtract, np.exp
    divide, multiply, add = np.divide, np.multiply, np.add
    lrs = np.array(lr, z.dtype)
    ones, scale, rates = np.ones(g.shape[2], z.dtype), np.empty((r, 1), z.dtype), -lrs
    flat_scale = scale[:, 0]
    largest, totals = np.empty((n, r, 1), z.dtype), np.empty((n, r), z.dtype)
    columns = [list(p.T) for p in g]
    rows = list(zip(z, g, largest, totals, columns, strict=True))

    def step(t: int, label: float) -> None:
        logits, p, top, total, of_class = rows[t]
        maximum(logits, axis=1, out=top, keepdims=True)
        subtract(logits, top, p)
        exp(p, p)
        p.dot(ones, total)
        divide(rates, total, flat_scale)
        multiply(p, scale, p)
        of_label = of_class[int(label)]
        add(of_label, lrs, of_label)

    def losses(y: Array) -> Array:
        return np.asarray(np.log(totals) + largest[:, :, 0] - z[range(len(y)), :, y])

    return Tail(step, losses)
