"""Adam, with L2 or decoupled weight decay."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from minidl.layer import Layer
from minidl.optim.base import Optimizer
from minidl.typing import Array
from minidl.validation import check_float

if TYPE_CHECKING:
    from minidl.schedules import Schedule


class Adam(Optimizer):
    r"""Adam (Kingma and Ba 2015), as ``torch.optim.Adam``.

    With ``g = grad + weight_decay * w``: ``m = beta1 m + (1 - beta1) g``,
    ``v = beta2 v + (1 - beta2) g^2``,
    ``w -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)``.

    Parameters
    ----------
    model : Layer
    lr : float or Schedule
    betas : (float, float)
        Each in [0, 1).
    eps : float
        Outside the square root.
    weight_decay : float
        L2 penalty, added to the gradient.
    decay_biases : bool
        Whether ``weight_decay`` acts on all parameters, or on those with two axes and more; see
        ``Optimizer``.
    clip_norm : float, optional
        The largest norm of the gradient, before the L2 penalty; see ``Optimizer``.

    Notes
    -----
    The stored moments are ``m / (1 - beta1)`` and ``v / (1 - beta2)``. This saves two passes over
    memory; the step size contains the constants. ``torch_moments`` returns ``m`` and ``v``.

    Where the stored second moment overflows, ``step`` raises a FloatingPointError: with an
    infinite moment a parameter would never change again. Gradients may stay at
    ``sqrt(max (1 - beta2))`` and reach ``sqrt(max)`` once, where ``max`` is the largest number of
    the dtype: 5.8e17 and 1.8e19 in float32 with the default betas (PyTorch: 1.8e19 and 5.8e20).

    The flush sets stored moments below 1e-25 and 1e-35 to zero (float64: 1e-200 and 1e-290). For
    ``eps`` below 1e-8 the thresholds are multiplied by ``eps / 1e-8`` and by its square, so that
    with ``eps=0`` the moments are never changed. For ``beta2`` up to 0.99999 and every ``eps`` a
    flush changes the denominator by less than half a unit in its last place, and a parameter
    through the first moment by less than ``1e-17 lr``. So the flush is exact up to rounding for
    parameters above 1e-15 and ``1e-9 lr``; parameters below 1e-15 become 0. For ``eps`` below
    1e-11 in float32, denormal second moments remain and steps may become slow.
    """

    moments = ("scaled_exp_avg", "scaled_exp_avg_sq")

    def __init__(
        self,
        model: Layer,
        lr: float | Schedule = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decay_biases: bool = True,
        clip_norm: float | None = None,
    ) -> None:
        owner = type(self).__name__
        if len(betas) != 2:
            raise ValueError(f"{owner}: expected two betas, got {betas!r}")
        self.betas = (
            check_float(owner, "betas[0]", betas[0], low=0, high=1, open_high=True),
            check_float(owner, "betas[1]", betas[1], low=0, high=1, open_high=True),
        )
        self.eps = check_float(owner, "eps", eps, low=0)
        super().__init__(model, lr, weight_decay, clip_norm, decay_biases)

    def torch_moments(self) -> dict[str, Array]:
        m, v = self._state
        return {"exp_avg": m * (1 - self.betas[0]), "exp_avg_sq": v * (1 - self.betas[1])}

    def _thresholds(self) -> tuple[float, float, float]:
        parameter, first, second = super()._thresholds()
        ratio = min(1.0, self.eps / 1e-8)
        return parameter, first * ratio, second * ratio**2

    def _prepare(self, lr: float) -> None:
        beta1, beta2 = self.betas
        # sqrt(v / (1 - beta2^t)) = root * sqrt(v / (1 - beta2))
        root = math.sqrt((1 - beta2) / (1 - beta2**self.steps))
        eps, lr = self.eps / root, lr * (1 - beta1) / (1 - beta1**self.steps) / root
        # As arrays of no dimensions: NumPy is slower with Python's numbers.
        dtype = self.model.theta.dtype
        self._betas = np.array(beta1, dtype), np.array(beta2, dtype)
        self._eps, self._lr = np.array(eps, dtype), np.array(lr, dtype)

    def _update(self, theta: Array, grad: Array, *rest: Array) -> None:
        m, v, s, g = rest
        if self.weight_decay:
            grad = self._decay(theta, grad, g)
        beta1, beta2 = self._betas
        m *= beta1
        m += grad
        try:
            with np.errstate(over="raise"):
                np.multiply(grad, grad, s)
                v *= beta2
                v += s
        except FloatingPointError:
            raise FloatingPointError(
                f"{self!r}: the second moment overflows {v.dtype} at step {self.steps}; the "
                f"largest gradient is {np.abs(grad).max():.2g}"
            ) from None
        np.sqrt(v, s)
        s += self._eps
        np.divide(m, s, s)
        s *= self._lr
        theta -= s


class AdamW(Adam):
    r"""Adam with decoupled weight decay (Loshchilov and Hutter 2019), as ``torch.optim.AdamW``.

    ``w *= 1 - lr * weight_decay``, then the step of Adam without weight decay in the gradient.
    """

    def __init__(
        self,
        model: Layer,
        lr: float | Schedule = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        decay_biases: bool = True,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(
            model, lr, betas=betas, eps=eps, weight_decay=weight_decay,
            decay_biases=decay_biases, clip_norm=clip_norm,
        )  # fmt: skip

    def _prepare(self, lr: float) -> None:
        super()._prepare(lr)
        self._decay_factor = 1 - lr * self.weight_decay

    def _decay(self, theta: Array, grad: Array, out: Array) -> Array:
        spared = () if self.decay_biases else self._spared
        for part in spared:
            out[part] = theta[part]
        theta *= self._decay_factor
        for part in spared:
            theta[part] = out[part]
        return grad
