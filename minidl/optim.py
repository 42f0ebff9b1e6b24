"""Optimizers with PyTorch's semantics.

An optimizer updates the flat vector of all parameters of a model in blocks that stay in cache,
with two scratch blocks: no temporary arrays, no loop over layers.

Every 50 steps, numbers that are about to become denormal are set to zero (a flush). A pixel that
is always dark or a dead ReLU unit has gradient 0, so its moments decay towards 0, and arithmetic
on denormal numbers is slow: an epoch of Fashion-MNIST took 3 to 10 times as long on one processor,
a few per cent longer on another. The thresholds are too small to change an accuracy: in float32
1e-15 for parameters, 1e-25 and 1e-35 for first and second moments; in float64 1e-150, 1e-200 and
1e-290. Adam with a small ``eps`` divides by small second moments and has lower thresholds.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.contract import check_model
from minidl.layer import Layer
from minidl.typing import Array
from minidl.validation import check_array, check_float, check_int, did_you_mean

if TYPE_CHECKING:
    from typing_extensions import Self

    from minidl.schedules import Schedule

BLOCK = 32_768
"""Entries in a block: parameters, gradient, moments and scratch fit into a level 2 cache."""

FLUSH_EVERY = 50
"""Steps between two flushes of numbers that are about to become denormal."""

_THRESHOLDS = {  # by dtype: for parameters, first moments, second moments
    np.dtype(np.float32): (1e-15, 1e-25, 1e-35),
    np.dtype(np.float64): (1e-150, 1e-200, 1e-290),
}


def flush_weights(theta: Array) -> None:
    """Set parameters that are about to become denormal to zero, in place."""
    _flush(theta, _THRESHOLDS[theta.dtype][0])


def _flush(vector: Array, threshold: float) -> None:
    for start in range(0, vector.size, BLOCK):
        block = vector[start : start + BLOCK]
        block[np.abs(block) < threshold] = 0


class Optimizer(ABC):
    """Base class: updates ``model.theta`` from ``model.grad``.

    Attributes
    ----------
    lr : float or Schedule
        May be changed at any time.
    steps : int
        The number of steps taken so far.
    """

    moments: tuple[str, ...] = ()
    """The names of the vectors that the optimizer keeps, first moment first."""

    def __init__(self, model: Layer, lr: float | Schedule, weight_decay: float) -> None:
        owner = type(self).__name__
        check_model(owner, model)
        self.model = model
        self.lr = lr if callable(lr) else check_float(owner, "lr", lr, low=0)
        self.weight_decay = check_float(owner, "weight_decay", weight_decay, low=0)
        self.steps = 0
        self._state = [np.zeros_like(model.theta) for _ in self.moments]
        self._blocks: list[tuple[Array, ...]] = []
        self._theta: Array | None = None

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return float(self.lr(step) if callable(self.lr) else self.lr)

    def step(self) -> None:
        """Update the parameters once, from the gradient that the last backward pass wrote."""
        lr = self.lr_at(self.steps)
        self.steps += 1
        self._prepare(lr)
        for block in self._views():
            self._update(*block)
        if self.steps % FLUSH_EVERY == 0:
            self.flush()

    @abstractmethod
    def _prepare(self, lr: float) -> None:
        """Compute the constants of this step."""

    @abstractmethod
    def _update(self, theta: Array, grad: Array, *moments_and_scratch: Array) -> None:
        """Update one block in place; two scratch arrays of its size come last."""

    def _views(self) -> list[tuple[Array, ...]]:
        """Return the blocks: views of parameters, gradient and moments, and two scratch arrays."""
        theta, grad = self.model.theta, self.model.grad
        if theta is not self._theta:  # the first step, or the model has new vectors
            if theta.size != sum(block[0].size for block in self._blocks) and self._blocks:
                raise ValueError(f"{self!r}: the model has other parameters than at the start")
            vectors = [theta, grad, *self._state]
            scratch = [np.empty(min(BLOCK, theta.size), theta.dtype) for _ in range(2)]
            self._blocks = []
            for start in range(0, theta.size, BLOCK):
                views = [v[start : start + BLOCK] for v in vectors]
                self._blocks.append((*views, *[s[: views[0].size] for s in scratch]))
            self._theta = theta
        return self._blocks

    def flush(self) -> None:
        """Set parameters and moments that are about to become denormal to zero."""
        vectors = [self.model.theta, *self._state]
        for vector, threshold in zip(vectors, self._thresholds(), strict=False):
            _flush(vector, threshold)

    def _thresholds(self) -> tuple[float, float, float]:
        """Return the magnitudes of parameters, first and second moments below which 0 is set."""
        return _THRESHOLDS[self.model.theta.dtype]

    def state_dict(self) -> dict[str, Any]:
        """Return the step count and a copy of each moment: all that a resumed run needs."""
        return {
            "steps": self.steps,
            **dict(zip(self.moments, map(np.copy, self._state), strict=True)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the state to that of an optimizer of the same type and model size, or change nothing.

        Raises
        ------
        ValueError
            If a name is missing or unknown, a shape differs, or a value is not a number.
        """
        owner, known = type(self).__name__, ("steps", *self.moments)
        for name in state:
            if name not in known:
                raise ValueError(f"{owner}: no state {name!r}{did_you_mean(name, known)}")
        for name in known:
            if name not in state:
                raise ValueError(f"{owner}: the state has no {name!r}")
        theta = self.model.theta
        steps = check_int(owner, "steps", state["steps"], low=0)
        new = [
            check_array(owner, name, state[name], theta.shape, theta.dtype) for name in self.moments
        ]
        self.steps = steps
        for vector, values in zip(self._state, new, strict=True):
            vector[:] = values

    def torch_moments(self) -> dict[str, Array]:
        """Return the moments with PyTorch's names and scaling."""
        return dict(zip(self.moments, self._state, strict=True))

    def copy(self, model: Layer) -> Self:
        """Return a copy for a copy of the model, in any dtype: settings, step count, moments."""
        if model.theta.shape != self.model.theta.shape:
            raise ValueError(
                f"{self!r}: expected a model of {self.model.theta.size} parameters, "
                f"got {model.theta.size}"
            )
        other = copy.copy(self)
        other.model = model
        other._state = [moment.astype(model.dtype) for moment in self._state]
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_blocks": [], "_theta": None}  # copies of views are not views

    def __repr__(self) -> str:
        return f"{type(self).__name__}(lr={self.lr!r}, weight_decay={self.weight_decay:g})"


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
        L2 penalty on all parameters, added to the gradient.
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
        super().__init__(model, lr, weight_decay)

    def _prepare(self, lr: float) -> None:
        self._lr = lr
        self._share = 1.0 if self.steps == 1 else 1 - self.dampening

    def _update(self, theta: Array, grad: Array, *rest: Array) -> None:
        *buffer, step, scratch = rest
        if self.weight_decay:
            np.multiply(theta, self.weight_decay, out=step)
            step += grad
            grad = step
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
        L2 penalty on all parameters, added to the gradient.

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
    ) -> None:
        owner = type(self).__name__
        if len(betas) != 2:
            raise ValueError(f"{owner}: expected two betas, got {betas!r}")
        self.betas = (
            check_float(owner, "betas[0]", betas[0], low=0, high=1, open_high=True),
            check_float(owner, "betas[1]", betas[1], low=0, high=1, open_high=True),
        )
        self.eps = check_float(owner, "eps", eps, low=0)
        super().__init__(model, lr, weight_decay)

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

    def _decay(self, theta: Array, grad: Array, out: Array) -> Array:
        """Return the gradient of the loss with its L2 penalty."""
        np.multiply(theta, self.weight_decay, out=out)
        out += grad
        return out


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
    ) -> None:
        super().__init__(model, lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _prepare(self, lr: float) -> None:
        super()._prepare(lr)
        self._decay_factor = 1 - lr * self.weight_decay

    def _decay(self, theta: Array, grad: Array, out: Array) -> Array:
        theta *= self._decay_factor
        return grad
