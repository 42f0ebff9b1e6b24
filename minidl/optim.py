"""Optimizers with PyTorch's semantics.

An optimizer owns the flat vectors of one model and updates them in blocks that stay in cache,
with one or two scratch blocks: no temporaries, no loop over layers.

Numbers on their way to becoming denormal are set to zero every 50 steps. A pixel that is always
dark or a ReLU unit that has died has gradient 0, its moments decay for ever, and on many
processors arithmetic on denormal numbers is slower than everything else together (an epoch of
Fashion-MNIST became 3 to 10 times as slow on one, a few per cent on another). The thresholds lie
far below anything that changes an accuracy: in float32 1e-15 for weights, 1e-25 and 1e-35 for
first and second moments; in float64 1e-150, 1e-200 and 1e-290.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minidl.layer import Layer
from minidl.typing import Array
from minidl.validation import check_float, check_int, did_you_mean

if TYPE_CHECKING:
    from typing_extensions import Self

    from minidl.schedules import Schedule

BLOCK = 32_768
"""Entries in one block: weights, gradient, moments and scratch stay in a second-level cache."""

FLUSH_EVERY = 50
_FLUSH = {  # by dtype: weights, first moments, second moments
    np.dtype(np.float32): (1e-15, 1e-25, 1e-35),
    np.dtype(np.float64): (1e-150, 1e-200, 1e-290),
}


def flush_weights(theta: Array) -> None:
    """Set the weights that are about to become denormal to zero, in place."""
    _flush(theta, _FLUSH[theta.dtype][0])


def _flush(vector: Array, tiny: float) -> None:
    for start in range(0, vector.size, BLOCK):
        block = vector[start : start + BLOCK]
        block[np.abs(block) < tiny] = 0


class Optimizer(ABC):
    """Updates ``model.theta`` from ``model.grad``.

    Attributes
    ----------
    lr : float or Schedule
        May be assigned to at any time.
    steps : int
        How many steps were taken.
    """

    moments: ClassVar[tuple[str, ...]] = ()
    """Names of the vectors that are kept beside the weights, first moment first."""

    _scratch: ClassVar[int] = 2

    def __init__(self, model: Layer, lr: float | Schedule, weight_decay: float) -> None:
        owner = type(self).__name__
        self.model = model
        self.lr = lr if callable(lr) else check_float(owner, "lr", lr, low=0)
        self.weight_decay = check_float(owner, "weight_decay", weight_decay, low=0)
        self.steps = 0
        self._state = [np.zeros_like(model.theta) for _ in self.moments]
        self._blocks: list[tuple[Array, ...]] = []
        self._theta: Array | None = None

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return float(self.lr(step) if callable(self.lr) else self.lr)

    def step(self) -> None:
        """One update from the gradient that the last backward pass wrote."""
        lr = self.lr_at(self.steps)
        self.steps += 1
        self._prepare(lr)
        for block in self._cut():
            self._update(*block)
        if self.steps % FLUSH_EVERY == 0:
            self._flush()

    @abstractmethod
    def _prepare(self, lr: float) -> None:
        """Compute what all blocks of this step share."""

    @abstractmethod
    def _update(self, theta: Array, grad: Array, *state_and_scratch: Array) -> None:
        """Update one block in place."""

    def _cut(self) -> list[tuple[Array, ...]]:
        """Views of weights, gradient and moments block by block, with scratch of their size."""
        theta, grad = self.model.theta, self.model.grad
        if theta is not self._theta:  # the first step, or the model got other vectors since
            if theta.size != sum(block[0].size for block in self._blocks) and self._blocks:
                raise ValueError(f"{self!r}: the model has other parameters than at the start")
            vectors = [theta, grad, *self._state]
            scratch = [np.empty(min(BLOCK, theta.size), theta.dtype) for _ in range(self._scratch)]
            self._blocks = []
            for start in range(0, theta.size, BLOCK):
                views = [v[start : start + BLOCK] for v in vectors]
                self._blocks.append((*views, *[s[: views[0].size] for s in scratch]))
            self._theta = theta
        return self._blocks

    def _flush(self) -> None:
        theta = self.model.theta
        for vector, tiny in zip([theta, *self._state], _FLUSH[theta.dtype], strict=False):
            _flush(vector, tiny)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, to the last bit: the step count and a copy of each moment."""
        return {
            "steps": self.steps,
            **dict(zip(self.moments, map(np.copy, self._state), strict=True)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of an optimizer of the same kind over a model of the same size."""
        owner, known = type(self).__name__, ("steps", *self.moments)
        for name in state:
            if name not in known:
                raise ValueError(f"{owner}: no state {name!r}{did_you_mean(name, known)}")
        for name in known:
            if name not in state:
                raise ValueError(f"{owner}: the state has no {name!r}")
        for name in self.moments:
            if np.shape(state[name]) != self.model.theta.shape:
                raise ValueError(
                    f"{owner}: expected {name} of shape {self.model.theta.shape}, "
                    f"got {np.shape(state[name])}"
                )
        self.steps = check_int(owner, "steps", state["steps"], low=0)
        for name, vector in zip(self.moments, self._state, strict=True):
            vector[:] = state[name]

    def torch_moments(self) -> dict[str, Array]:
        """The moments as PyTorch keeps them, under PyTorch's names."""
        return dict(zip(self.moments, self._state, strict=True))

    def copy(self, model: Layer) -> Self:
        """The same settings, step count and moments for a copy of the model, in any dtype."""
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
        Needs a momentum and no dampening.
    weight_decay : float
        L2, added to the gradient; on all parameters alike.
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
            self.moments = ("momentum_buffer",)  # type: ignore[misc]
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
        L2, added to the gradient; on all parameters alike.

    Notes
    -----
    Kept are ``m / (1 - beta1)`` and ``v / (1 - beta2)``, which saves two passes over memory; the
    constants move into the step size. ``torch_moments`` gives ``m`` and ``v`` themselves.
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

    def _prepare(self, lr: float) -> None:
        beta1, beta2 = self.betas
        # sqrt(v / (1 - beta2^t)) = root * sqrt(v / (1 - beta2))
        root = math.sqrt((1 - beta2) / (1 - beta2**self.steps))
        self._eps = self.eps / root
        self._lr = lr * (1 - beta1) / (1 - beta1**self.steps) / root

    def _update(self, theta: Array, grad: Array, *rest: Array) -> None:
        m, v, s, g = rest
        if self.weight_decay:
            grad = self._decay(theta, grad, g)
        m *= self.betas[0]
        m += grad
        np.multiply(grad, grad, out=s)
        v *= self.betas[1]
        v += s
        np.sqrt(v, out=s)
        s += self._eps
        np.divide(m, s, out=s)
        s *= self._lr
        theta -= s

    def _decay(self, theta: Array, grad: Array, out: Array) -> Array:
        """The gradient of the loss with its L2 penalty."""
        np.multiply(theta, self.weight_decay, out=out)
        out += grad
        return out


class AdamW(Adam):
    r"""Adam with decoupled weight decay (Loshchilov and Hutter 2019), as ``torch.optim.AdamW``.

    ``w *= 1 - lr * weight_decay`` before the step of Adam, whose gradient stays as it is.
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
        self._keep = 1 - lr * self.weight_decay

    def _decay(self, theta: Array, grad: Array, out: Array) -> Array:
        theta *= self._keep
        return grad
