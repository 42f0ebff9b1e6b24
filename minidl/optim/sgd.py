"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from minidl.layer import Layer
from minidl.optim.base import Optimizer
from minidl.typing import Array
from minidl.validation import check_float

if TYPE_CHECKING:
    from minidl.schedules import Schedule


class SGD(Optimizer):
    r"""Stochastic gradient descent, as ``torch.optim.SGD``.

    With ``g = grad + weight_decay * w``: ``b = momentum * b + (1 - dampening) * g`` (the first
    step sets ``b = g``), then ``w -= lr * b``; with Nesterov ``w -= lr * (g + momentum * b)``.

    Parameters
    ----------
    model : Layer
    lr : float or Schedule
    momentum, dampening : float
    nesterov : bool
        Requires momentum and no dampening.
    weight_decay : float
        L2 penalty, added to the gradient.
    decay_biases : bool
        Whether ``weight_decay`` acts on all parameters, or on those with two axes and more; see
        ``Optimizer``.
    clip_norm : float, optional
        The largest norm of the gradient, before the L2 penalty; see ``Optimizer``.
    """

    def __init__(
        self,
        model: Layer,
        lr: float | Schedule = 1e-3,
        *,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decay_biases: bool = True,
        clip_norm: float | None = None,
    ) -> None:
        self.momentum = check_float("SGD", "momentum", momentum, low=0)
        self.dampening = check_float("SGD", "dampening", dampening)
        self.nesterov = bool(nesterov)
        if nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                "SGD: nesterov needs momentum > 0 and dampening = 0, got "
                f"momentum={momentum!r}, dampening={dampening!r}"
            )
        if self.momentum:
            self.moments = ("momentum_buffer",)
        super().__init__(model, lr, weight_decay, clip_norm, decay_biases)

    def _prepare(self, lr: float) -> None:
        self._lr = lr
        self._share = 1.0 if self.steps == 1 else 1 - self.dampening

    def _update(self, theta: Array, grad: Array, *rest: Array) -> None:
        *buffer, step, scratch = rest
        if self.weight_decay:
            grad = self._decay(theta, grad, step)
        if buffer:
            (b,) = buffer
            b *= self.momentum
            if self._share == 1:
                b += grad
            else:
                np.multiply(grad, self._share, out=scratch)
                b += scratch
            if self.nesterov:
                np.multiply(b, self.momentum, out=scratch)
                scratch += grad
                grad = scratch
            else:
                grad = b
        np.multiply(grad, self._lr, out=step)
        theta -= step
