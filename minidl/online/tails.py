"""The layers and the loss after the first layer, with their updates.

Calls of ``forward`` and ``backward`` (``_any_tail``) take ten times as long as the arithmetic on
one example. So the common models have kernels, which compute the same numbers: hidden ReLU layers
(``_relu_tail``), and several linear models side by side (``stacked_softmax``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from minidl.activations import ReLU
from minidl.checks import Array
from minidl.layer import checked
from minidl.layers import Linear
from minidl.losses import CrossEntropy, Loss, Perceptron
from minidl.online.runs import OnlineRun

if TYPE_CHECKING:
    from minidl.online.blocks import BlockSteps


@dataclass(frozen=True)
class Tail:
    """The computation after the first layer, for one run or several.

    ``step(t, label)`` reads ``z[t]``, writes ``g[t]`` and updates the layers after the first.
    ``losses(labels)`` returns those of the block's first examples, (n,) or (n, runs).
    """

    step: Callable[[int, float], None]
    losses: Callable[[Array], Array]


def weighted(tail: Tail, g: Array, factors: Array | None) -> Tail:
    """Multiply row t of ``g`` and the loss of example t by ``factors[t]``, if there are any."""
    if factors is None:
        return tail
    rows, scales, multiply = list(g), list(factors[:, None]), np.multiply

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

    return Tail(step, lambda y: _losses(z, y, np.log(-lr * sums[: len(y)])))


def perceptron(z: Array, g: Array, lr: float) -> Tail:
    """The perceptron's loss: ``g = -lr (onehot(predicted) - onehot(label))``."""
    zs, gs = list(z), list(g)

    def step(t: int, label: float) -> None:
        predicted, row = zs[t].argmax(), gs[t]
        row.fill(0)
        if predicted != label:
            row[predicted] = -lr
            row[label] = lr

    return Tail(step, lambda y: _losses(z, y))


def _losses(z: Array, y: Array, more: Array | float = 0.0) -> Array:
    """Return ``more + max(z) - z[label]`` of each of the first rows."""
    rows = z[: len(y)]
    return np.asarray(more + rows.max(axis=1) - rows[range(len(y)), y])


def stacked_softmax(z: Array, g: Array, lr: list[float]) -> Tail:
    """Softmax cross-entropy of several runs whose logits stand side by side in each row."""
    n, r = len(z), len(lr)
    z, g = z.reshape(n, r, -1), g.reshape(n, r, -1)
    maximum, subtract, exp = np.maximum.reduce, np.subtract, np.exp
    divide, multiply, add = np.divide, np.multiply, np.add
    lrs, ones = np.array(lr, z.dtype), np.ones(g.shape[2], z.dtype)
    rates, scale = -lrs, np.empty((r, 1), z.dtype)
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
        n = len(y)
        return np.asarray(np.log(totals[:n]) + largest[:n, :, 0] - z[range(n), :, y])

    return Tail(step, losses)


KERNELS: dict[type[Loss], Callable[[Array, Array, float], Tail]] = {
    CrossEntropy: softmax,
    Perceptron: perceptron,
}


def make_tails(block: BlockSteps) -> list[Tail]:
    """Return the fastest tails for the runs of a block, each on its columns of ``z`` and ``g``.

    Kernels take class labels alone.
    """
    runs, columns, loss = block.runs, block.columns, block.objective.loss
    labels = block.objective.train.y.ndim == 1
    widths = {c.stop - c.start for c in columns}
    linear = labels and all(len(run.layers) == 1 for run in runs)
    if type(loss) is CrossEntropy and linear and len(widths) == 1 < len(runs):
        tail = stacked_softmax(block.z, block.g, [run.lr for run in runs])
        return [weighted(tail, block.g, block.factors)]
    tails = []
    for run, c in zip(runs, columns, strict=True):
        types = [type(layer) for layer in run.layers[1:]]  # a subclass may compute anything
        known = labels and type(loss) in KERNELS and types == [ReLU, Linear] * (len(types) // 2)
        tails.append((_relu_tail if known else _any_tail)(block, run, c))
    return tails


def _any_tail(block: BlockSteps, run: OnlineRun, columns: slice) -> Tail:
    """Any layers and any loss, by their own forward and backward passes."""
    z, g = block.z[:, columns], block.g[:, columns]
    layers, theta = run.layers[1:], run.tail_theta
    grad = run.model.grad[run.first.theta.size :]
    values = [0.0] * len(z)
    unchecked = [run.model]

    def step(t: int, label: float) -> None:
        if unchecked:  # the layers, in the first step
            with checked(unchecked.pop()):
                step(t, label)
            return
        x, tape = z[t : t + 1], []
        for layer in layers:
            x, backward = layer.forward(x, train=True)
            tape.append(backward)
        values[t], dy = block.objective(x, *(part[t : t + 1] for part in block.targets))
        for backward in reversed(tape):
            dy = backward(dy)
        np.multiply(dy[0], -run.lr, out=g[t])
        np.multiply(theta, run.decay_factor, out=theta)
        np.multiply(grad, run.lr, out=grad)
        np.subtract(theta, grad, out=theta)

    return Tail(step, lambda y: np.array(values[: len(y)], np.float64))


def _relu_tail(block: BlockSteps, run: OnlineRun, columns: slice) -> Tail:
    """(ReLU, Linear) any number of times, then a loss that has a kernel."""
    z, g = block.z[:, columns], block.g[:, columns]
    theta, change = run.tail_theta, np.empty_like(run.tail_theta)
    passes, start = [], 0
    for layer in run.layers[2::2]:
        layer = cast(Linear, layer)
        shape = layer.in_features + (layer.bias is not None), layer.out_features
        part = slice(start, start + shape[0] * shape[1])
        w, dw = theta[part].reshape(shape), change[part].reshape(shape)
        out, dout = np.empty((2, len(z), shape[1]), z.dtype)
        passes.append(relu_linear(z, g, w, dw, out, dout))
        z, g, start = out, dout, part.stop
    last = weighted(KERNELS[type(block.objective.loss)](z, g, run.lr), g, block.factors)
    if not passes:
        return last
    forwards, backwards = [one for one, _ in passes], [one for _, one in reversed(passes)]
    loss_step, add, multiply = last.step, np.add, np.multiply
    has_weight_decay, factor = run.weight_decay > 0, np.array(run.decay_factor, z.dtype)

    def step(t: int, label: float) -> None:
        for forward in forwards:
            forward(t)
        loss_step(t, label)
        for backward in backwards:
            backward(t)
        if has_weight_decay:
            multiply(theta, factor, theta)
        add(theta, change, theta)

    return Tail(step, last.losses)
