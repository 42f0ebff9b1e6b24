"""The layers and the loss after the first layer, with their updates.

``_any_tail`` calls the ``forward`` and ``backward`` of any layers and any loss. On one example
that takes ten times as long as the arithmetic itself. So the common models have kernels of their
own, which compute the same numbers: no, one or more hidden ReLU layers (``_relu_tail``), and
several linear models side by side (``kernels.stacked_softmax``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from minidl.activations import ReLU
from minidl.contract import checked
from minidl.layer import Layer
from minidl.layers import Linear
from minidl.losses import CrossEntropy, Loss, Perceptron
from minidl.online import kernels
from minidl.online.kernels import Tail
from minidl.online.runs import OnlineRun
from minidl.typing import Array

KERNELS: dict[type[Loss], Callable[[Array, Array, float], Tail]] = {
    CrossEntropy: kernels.softmax,
    Perceptron: kernels.perceptron,
}


def make_tails(
    runs: Sequence[OnlineRun],
    loss: Loss,
    labels: bool,
    columns: Sequence[slice],
    z: Array,
    g: Array,
    factors: Array | None,
) -> list[Tail]:
    """Return the fastest tails for these runs, each on its ``columns`` of ``z`` and ``g``.

    ``labels`` says whether the targets are classes; the kernels take no others. ``factors`` are
    those of the examples' losses.
    """
    widths = {c.stop - c.start for c in columns}
    linear = labels and all(len(run.layers) == 1 for run in runs)
    if type(loss) is CrossEntropy and linear and len(widths) == 1 < len(runs):
        tail = kernels.stacked_softmax(z, g, [run.lr for run in runs])
        return [tail if factors is None else kernels.weighted(tail, g, factors)]
    return [
        (_relu_tail if labels and _has_kernels(run.layers[1:], loss) else _any_tail)(
            run, loss, z[:, c], g[:, c], factors
        )
        for run, c in zip(runs, columns, strict=True)
    ]


def _has_kernels(layers: Sequence[Layer], loss: Loss) -> bool:
    """Return whether ``layers`` are (ReLU, Linear) any number of times, and the loss has a kernel.

    A subclass does not count: it may compute something else.
    """
    types = [type(layer) for layer in layers]
    return types == [ReLU, Linear] * (len(types) // 2) and type(loss) in KERNELS


def _any_tail(run: OnlineRun, loss: Loss, z: Array, g: Array, factors: Array | None) -> Tail:
    """Any layers and any loss, by their own forward and backward passes."""
    layers, theta, grad = run.layers[1:], run.tail_theta, run.tail_grad
    values = [0.0] * len(z)
    is_checked = False

    def step(t: int, label: float) -> None:
        nonlocal is_checked
        if not is_checked:  # the layers and the loss, in the first step
            is_checked = True
            with checked(run.model):
                step(t, label)
            return
        x, tape = z[t : t + 1], []
        for layer in layers:
            x, backward = layer.forward(x, train=True)
            tape.append(backward)
        values[t], dy = loss(x, np.array([label]))
        if factors is not None:
            values[t], dy = values[t] * float(factors[t]), dy * factors[t]
        for backward in reversed(tape):
            dy = backward(dy)
        np.multiply(dy[0], -run.lr, out=g[t])
        np.multiply(theta, run.decay_factor, out=theta)
        np.multiply(grad, run.lr, out=grad)
        np.subtract(theta, grad, out=theta)

    return Tail(step, lambda y: np.array(values[: len(y)], np.float64))


def _relu_tail(run: OnlineRun, loss: Loss, z: Array, g: Array, factors: Array | None) -> Tail:
    """(ReLU, Linear) any number of times, then a loss that has a kernel."""
    theta, change = run.tail_theta, np.empty_like(run.tail_theta)
    forwards: list[Callable[[int], None]] = []
    backwards: list[Callable[[int], None]] = []
    start = 0
    for layer in run.layers[2::2]:
        layer = cast(Linear, layer)
        shape = layer.in_features + (layer.bias is not None), layer.out_features
        part = slice(start, start + shape[0] * shape[1])
        w, dw = theta[part].reshape(shape), change[part].reshape(shape)
        out, dout = (np.empty((len(z), shape[1]), z.dtype) for _ in range(2))
        forward, backward = kernels.relu_linear(z, g, w, dw, out, dout)
        forwards.append(forward)
        backwards.insert(0, backward)
        z, g, start = out, dout, part.stop
    last = KERNELS[type(loss)](z, g, run.lr)
    if factors is not None:
        last = kernels.weighted(last, g, factors)
    if not forwards:
        return last
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
