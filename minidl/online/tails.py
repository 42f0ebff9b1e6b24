"""What follows the first layer when examples come one at a time: layers, loss, and their updates.

A tail reads row t of ``z``, the first layer's outputs for a block of examples, and writes row t
of ``g``: ``-lr`` times the loss's gradient with respect to them. On the way it updates the
parameters of its own layers. ``AnyTail`` does that for any layers and any loss, through their
own ``forward`` and ``backward``. On one example that costs ten times what the arithmetic does,
so the homework's models are spelled out as NumPy calls on buffers that stay: ``ReluTail`` (no,
one or more hidden layers) and ``SoftmaxTails`` (several linear models). The numbers are the same.

Spelling out avoids what is slow on arrays this short: a number to multiply by is an array of no
dimensions, views are made once, a maximum is found by ``argmax``, a sum is a product with ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np

from minidl.activations import ReLU
from minidl.history import History
from minidl.layer import Layer, Sequential
from minidl.layers import Linear
from minidl.losses import CrossEntropy, Loss, Perceptron
from minidl.typing import Array
from minidl.validation import check_float


@dataclass
class OnlineRun:
    """A model, its update rule, and what happened.

    Parameters
    ----------
    model : Layer
        A ``Linear``, or a ``Sequential`` that begins with one.
    lr, l2 : float
        Each step is ``w -= lr (grad + l2 w)``, on all parameters.
    l1 : float
        After each block of n examples every parameter moves by ``n lr l1`` towards 0, and stays
        there if it gets there (a proximal step).
    history : History
    error : str or None
        Why the run ended early: its loss was not finite.
    """

    model: Layer
    lr: float
    l2: float = 0.0
    l1: float = 0.0
    history: History = field(default_factory=History)
    error: str | None = None

    def __post_init__(self) -> None:
        self.lr = check_float("fit_online", "lr", self.lr, low=0, open_low=True)
        self.l2 = check_float("fit_online", "l2", self.l2, low=0)
        self.l1 = check_float("fit_online", "l1", self.l1, low=0)
        layer = self.layers[0] if self.layers else self.model
        own = isinstance(layer, Linear) and type(layer).forward is not Linear.forward
        if own or not isinstance(layer, Linear):
            raise ValueError(
                f"fit_online: expected a model whose first layer is Linear, got {layer!r}"
                f"{', whose forward pass is its own' if own else ''}"
            )

    @property
    def layers(self) -> Sequence[Layer]:
        if isinstance(self.model, Sequential) and type(self.model).forward is Sequential.forward:
            return self.model.layers
        return (self.model,)

    @property
    def first(self) -> Linear:
        """The layer whose updates a block puts off to its end."""
        return cast(Linear, self.layers[0])

    @property
    def tail(self) -> Array:
        """The parameters of all other layers: the rest of ``model.theta``."""
        return self.model.theta[self.first.theta.size :]

    @property
    def keep(self) -> float:
        """What a step of the L2 penalty leaves of a weight."""
        return 1 - self.lr * self.l2


class Tail(Protocol):
    """What follows the first layer, of one run or of several."""

    def step(self, t: int, label: float) -> None:
        """Read ``z[t]``, write ``g[t]``, update the layers after the first."""

    def losses(self, y: Array) -> list[float]:
        """The sum of the losses of the block's first examples, for each run."""


def make_tails(
    runs: Sequence[OnlineRun], loss: Loss, columns: Sequence[slice], z: Array, g: Array
) -> list[Tail]:
    """The fastest tails that fit; each run has its ``columns`` of ``z`` and ``g``."""
    widths = {c.stop - c.start for c in columns}
    linear = all(len(run.layers) == 1 for run in runs)
    if type(loss) is CrossEntropy and linear and len(widths) == 1 < len(runs):
        return [SoftmaxTails(runs, z, g)]
    return [
        (ReluTail if _spelled_out(run.layers[1:], loss) else AnyTail)(run, loss, z[:, c], g[:, c])
        for run, c in zip(runs, columns, strict=True)
    ]


def _spelled_out(layers: Sequence[Layer], loss: Loss) -> bool:
    """Whether ``layers`` are (ReLU, Linear) any number of times, and the loss has a kernel.

    The very classes: what derives from them may do something else.
    """
    kinds = [type(layer) for layer in layers]
    return kinds == [ReLU, Linear] * (len(kinds) // 2) and type(loss) in _KERNELS


class AnyTail:
    """Any layers and any loss, by their own forward and backward passes."""

    def __init__(self, run: OnlineRun, loss: Loss, z: Array, g: Array) -> None:
        self.run, self.loss, self.z, self.g = run, loss, z, g
        self.theta, self.grad = run.tail, run.model.grad[run.first.theta.size :]
        self.values = [0.0] * len(z)

    def step(self, t: int, label: float) -> None:
        x, tape = self.z[t : t + 1], []
        for layer in self.run.layers[1:]:
            x, backward = layer.forward(x, train=True)
            tape.append(backward)
        self.values[t], dy = self.loss(x, np.array([label]))
        for backward in reversed(tape):
            dy = backward(dy)
        np.multiply(dy[0], -self.run.lr, out=self.g[t])
        self.theta *= self.run.keep
        self.grad *= self.run.lr
        self.theta -= self.grad

    def losses(self, y: Array) -> list[float]:
        return [sum(self.values[: len(y)])]


class ReluTail:
    """(ReLU, Linear) any number of times, then softmax cross-entropy or the perceptron's loss."""

    def __init__(self, run: OnlineRun, loss: Loss, z: Array, g: Array) -> None:
        self.decays = run.l2 > 0
        self.theta, self.change = run.tail, np.empty_like(run.tail)
        self.keep = np.array(run.keep, z.dtype)
        self.forward: list[Callable[[int], None]] = []
        self.backward: list[Callable[[int], None]] = []
        start = 0
        for layer in run.layers[2::2]:
            layer = cast(Linear, layer)
            shape = layer.in_features + (layer.bias is not None), layer.out_features
            stop = start + shape[0] * shape[1]
            w, change = self.theta[start:stop], self.change[start:stop]
            out, dout = (np.empty((len(z), shape[1]), z.dtype) for _ in range(2))
            forward, backward = _relu_linear(
                z, g, w.reshape(shape), change.reshape(shape), out, dout
            )
            self.forward.append(forward)
            self.backward.insert(0, backward)
            z, g, start = out, dout, stop
        self.gradient, self.total = _KERNELS[type(loss)](z, g, run.lr)
        if not self.forward:
            self.step = self.gradient  # type: ignore[method-assign, assignment]

    def step(self, t: int, label: float) -> None:
        for forward in self.forward:
            forward(t)
        self.gradient(t, label)
        for backward in self.backward:
            backward(t)
        if self.decays:
            np.multiply(self.theta, self.keep, self.theta)
        np.add(self.theta, self.change, self.theta)

    def losses(self, y: Array) -> list[float]:
        return [self.total(y)]


def _relu_linear(
    z: Array, g: Array, w: Array, change: Array, out: Array, dout: Array
) -> tuple[Callable[[int], None], Callable[[int], None]]:
    """``out = (max(z, 0), 1) w`` for one row, the bias being w's last; and its backward pass.

    That one writes ``change = h^T dout`` and ``g = dout w^T`` where ``z > 0``.
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


Kernel = tuple[Callable[[int, float], None], Callable[[Array], float]]
"""``step`` and ``losses`` of one run, for a loss on rows of logits."""


def _softmax(z: Array, g: Array, lr: float) -> Kernel:
    """Cross-entropy: ``g = -lr (softmax(z) - onehot(label))`` for one row, and the losses."""
    subtract, exp, divide = np.subtract, np.exp, np.divide
    zs, gs = list(z), list(g)
    logits = [[row[k : k + 1].reshape(()) for k in range(len(row))] for row in zs]
    sums, weights = np.empty(len(z), z.dtype), np.full(z.shape[1], -1 / lr, z.dtype)
    totals = [sums[t : t + 1].reshape(()) for t in range(len(z))]

    def step(t: int, label: float) -> None:
        row, p, total = zs[t], gs[t], totals[t]
        subtract(row, logits[t][row.argmax()], p)
        exp(p, p)
        p.dot(weights, total)  # -1/lr of the sum, so that dividing by it does all
        divide(p, total, p)
        p[label] += lr

    def losses(y: Array) -> float:
        return float((np.log(-lr * sums) + z.max(axis=1) - z[range(len(y)), y]).sum())

    return step, losses


def _perceptron(z: Array, g: Array, lr: float) -> Kernel:
    """Perceptron: ``g = -lr (e_predicted - e_label)`` for one row, and the losses."""
    zs, gs = list(z), list(g)

    def step(t: int, label: float) -> None:
        predicted, row = zs[t].argmax(), gs[t]
        row.fill(0)
        if predicted != label:
            row[predicted] = -lr
            row[label] = lr

    def losses(y: Array) -> float:
        return float((z.max(axis=1) - z[range(len(y)), y]).sum())

    return step, losses


_KERNELS: dict[type, Callable[[Array, Array, float], Kernel]] = {
    CrossEntropy: _softmax,
    Perceptron: _perceptron,
}


class SoftmaxTails:
    """Softmax cross-entropy of several linear models at once."""

    def __init__(self, runs: Sequence[OnlineRun], z: Array, g: Array) -> None:
        n, r = len(z), len(runs)
        self.z, g = z.reshape(n, r, -1), g.reshape(n, r, -1)
        self.lrs = np.array([run.lr for run in runs], z.dtype)
        self.ones, self.scale = np.ones(g.shape[2], z.dtype), np.empty((r, 1), z.dtype)
        self.rates, self.flat_scale = -self.lrs, self.scale[:, 0]
        self.largest, self.totals = np.empty((n, r, 1), z.dtype), np.empty((n, r), z.dtype)
        of_class = [list(p.T) for p in g]
        self.rows = list(zip(self.z, g, self.largest, self.totals, of_class, strict=True))

    def step(self, t: int, label: float) -> None:
        z, p, largest, total, of_class = self.rows[t]
        np.maximum.reduce(z, axis=1, out=largest, keepdims=True)
        np.subtract(z, largest, p)
        np.exp(p, p)
        p.dot(self.ones, total)
        np.divide(self.rates, total, self.flat_scale)
        np.multiply(p, self.scale, p)
        of_label = of_class[int(label)]
        np.add(of_label, self.lrs, of_label)

    def losses(self, y: Array) -> list[float]:
        values = np.log(self.totals) + self.largest[:, :, 0] - self.z[range(len(y)), :, y]
        return list(map(float, values.sum(axis=0)))
