"""Optimizers with PyTorch's semantics, SGD, Adam, AdamW, and learning-rate schedules."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.checks import Array, Configured, check_float, check_int, quietly
from minidl.layer import Layer, check_model
from minidl.parameter import check_state

if TYPE_CHECKING:
    from typing_extensions import Self


Schedule = Callable[[int], float]
"""The learning rate as a function of the number of steps taken so far."""

BLOCK = 131_072
"""Entries in a block: so many that calls cost little, so few that a block stays in cache."""

FLUSH_EVERY = 50
"""Steps between two flushes of nearly denormal numbers."""

_THRESHOLDS = {  # by dtype: for parameters, first moments, second moments
    np.dtype(np.float32): (1e-15, 1e-25, 1e-35),
    np.dtype(np.float64): (1e-150, 1e-200, 1e-290),
}


def _blocks(vector: Array) -> Iterator[Array]:
    """Yield a vector in pieces that stay in cache."""
    return (vector[start : start + BLOCK] for start in range(0, vector.size, BLOCK))


def flush_weights(theta: Array) -> None:
    """Set nearly denormal parameters to zero, in place."""
    _flush(theta, _THRESHOLDS[theta.dtype][0])


def _flush(vector: Array, threshold: float) -> None:
    """Set entries below a magnitude to zero, in place."""
    for block in _blocks(vector):
        block[np.abs(block) < threshold] = 0


def _norm(vector: Array) -> float:
    """Return the Euclidean norm, without overflow of its square."""
    square = sum(float(np.dot(block, block)) for block in _blocks(vector))
    if square != math.inf or (largest := float(np.abs(vector).max())) == math.inf:
        return math.sqrt(square)
    return largest * float(np.linalg.norm(vector.astype(np.float64) / largest))


def check_optimizer(owner: str, optimizer: Any, model: Layer) -> None:
    """Raise TypeError for what is no optimizer, ValueError for that of another model."""
    if isinstance(optimizer, type) or not hasattr(optimizer, "model"):
        raise TypeError(f"{owner}: expected an optimizer as Adam(model), got {optimizer!r:.80}")
    if optimizer.model is not model:
        raise ValueError(f"{owner}: the optimizer was made for another model")


class Optimizer(Configured, ABC):
    """Base class: updates ``model.theta`` from ``model.grad``.

    ``lr``, a number or a schedule, may be changed at any time; ``steps`` is the number of steps
    taken so far. ``weight_decay`` is the factor of the L2 penalty, which is added to the gradient;
    without ``decay_biases`` it spares parameters of fewer than two axes: biases, gains and offsets
    of normalisation. With ``clip_norm``, before each step, and before weight decay,
    ``grad *= min(1, clip_norm / (||grad|| + 1e-6))`` with the norm over all parameters together, as
    ``torch.nn.utils.clip_grad_norm_``.
    """

    moments: tuple[str, ...] = ()
    """The names of the vectors that the optimizer keeps, first moment first."""

    def __init__(
        self,
        model: Layer,
        lr: float | Schedule,
        weight_decay: float,
        clip_norm: float | None = None,
        decay_biases: bool = True,
    ) -> None:
        owner = type(self).__name__
        check_model(owner, model)
        self.model = model
        scheduled = callable(lr) and not isinstance(lr, type)
        self.lr = lr if scheduled else check_float(owner, "lr", lr, low=0)
        self._given_lr = self.lr
        self.weight_decay = check_float(owner, "weight_decay", weight_decay, low=0)
        if clip_norm is not None:
            clip_norm = check_float(owner, "clip_norm", clip_norm, low=0, open_low=True)
        self.clip_norm = clip_norm
        self.decay_biases = bool(decay_biases)
        self.steps = 0
        self._state = [np.zeros_like(model.theta) for _ in self.moments]
        self._blocks: list[tuple[tuple[Array, ...], Array]] = []
        self._theta: Array | None = None

    def config(self) -> dict[str, Any]:
        """Return the arguments by name; ``lr`` as it was given, also where it was changed later."""
        found = super().config()
        return {**found, "lr": self._given_lr} if "lr" in found else found

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0; ValueError if it is not finite."""
        lr = self.lr(step) if callable(self.lr) else self.lr
        return check_float(type(self).__name__, f"lr of step {step}", lr, low=0)

    @quietly
    def step(self) -> None:
        """Update the parameters once, from the gradient that the last backward pass wrote.

        Nothing is changed where the schedule gives a bad rate, a ValueError, or where with
        ``clip_norm`` the gradient's norm is not finite, a FloatingPointError.
        """
        lr = self.lr_at(self.steps)
        if self.clip_norm is not None:
            grad = self.model.grad
            norm = _norm(grad)
            if not math.isfinite(norm):
                step = f"the gradient of step {self.steps}"
                raise FloatingPointError(f"{self!r}: {step} has a norm that is not finite, {norm}")
            factor = self.clip_norm / (norm + 1e-6)
            if factor < 1:
                grad *= factor
        self.steps += 1
        self._prepare(lr)
        for block, decays in self._views():
            self._decays = decays
            self._update(*block)
        if self.steps % FLUSH_EVERY == 0:
            self.flush()

    @abstractmethod
    def _prepare(self, lr: float) -> None:
        """Compute the constants of this step."""

    @abstractmethod
    def _update(self, theta: Array, grad: Array, *moments_and_scratch: Array) -> None:
        """Update one block in place; two scratch arrays of its size come last."""

    def _decay(self, theta: Array, grad: Array, out: Array) -> Array:
        """Return the gradient of the loss with its L2 penalty, in ``out``."""
        np.multiply(theta, self.weight_decay, out=out)
        if not self.decay_biases:
            out *= self._decays
        out += grad
        return out

    def _views(self) -> list[tuple[tuple[Array, ...], Array]]:
        """Return the arguments of ``_update`` for each block, and where in it weights decay."""
        theta = self.model.theta
        if theta is not self._theta:  # the first step, or the model has new vectors
            if any(theta.size != vector.size for vector in self._state):
                raise ValueError(f"{self!r}: the model has other parameters than at the start")
            shapes = [p.shape for _, p in self.model.named_parameters()]
            sizes = [math.prod(shape) for shape in shapes]
            decays = np.repeat([self.decay_biases or len(shape) > 1 for shape in shapes], sizes)
            vectors = [theta, self.model.grad, *self._state]
            scratch = [np.empty(min(BLOCK, theta.size), theta.dtype) for _ in range(2)]
            self._blocks, self._theta = [], theta
            for start in range(0, theta.size, BLOCK):
                views = [v[start : start + BLOCK] for v in vectors]
                views += [s[: len(views[0])] for s in scratch]
                self._blocks.append((tuple(views), decays[start : start + BLOCK]))
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
        lr = {} if callable(self.lr) else {"lr": self.lr}
        moments = dict(zip(self.moments, map(np.copy, self._state), strict=True))
        return {"steps": self.steps, **lr, **moments}

    @quietly
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the state to that of an optimizer of the same type and model size, or change nothing.

        ValueError if a name is missing or unknown, a shape differs, or a value is not a number.
        """
        owner, arrays = type(self).__name__, dict(state)
        steps, lr = arrays.pop("steps", None), arrays.pop("lr", self.lr)
        own = dict(zip(self.moments, self._state, strict=True))
        new = check_state(owner, own, arrays, "state")
        steps = check_int(owner, "steps", steps, low=0)
        if not callable(self.lr):
            self.lr = check_float(owner, "lr", None if lr is True else lr, low=0)
        self.steps = steps
        for name, vector in own.items():
            vector[:] = new[name]

    def torch_moments(self) -> dict[str, Array]:
        """Return the moments with PyTorch's names and scaling."""
        return dict(zip(self.moments, self._state, strict=True))

    def copy(self, model: Layer) -> Self:
        """Return a copy for a copy of the model, in any dtype: settings, step count, moments."""
        other = copy.copy(self)
        other.model = model
        other._state = [moment.astype(model.dtype) for moment in self._state]
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_blocks": [], "_theta": None}  # copies of views are not views


class SGD(Optimizer):
    r"""Stochastic gradient descent, as ``torch.optim.SGD``.

    With ``g = grad + weight_decay * w``: ``b = momentum * b + (1 - dampening) * g`` (the first
    step sets ``b = g``), then ``w -= lr * b``; with Nesterov, which requires momentum and no
    dampening, ``w -= lr * (g + momentum * b)``. For the other arguments see ``Optimizer``.
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
            got = f"momentum={momentum!r}, dampening={dampening!r}"
            raise ValueError(f"SGD: nesterov needs momentum > 0 and dampening = 0, got {got}")
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


class Adam(Optimizer):
    r"""Adam (Kingma and Ba 2015), as ``torch.optim.Adam``.

    With ``g = grad + weight_decay * w``: ``m = beta1 m + (1 - beta1) g``,
    ``v = beta2 v + (1 - beta2) g^2``,
    ``w -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)``.

    ``betas`` are in [0, 1); for the other arguments see ``Optimizer``.

    Notes
    -----
    The stored moments are ``m / (1 - beta1)`` and ``v / (1 - beta2)``, which saves two passes over
    memory. Where the second one overflows, ``step`` raises a FloatingPointError: gradients may stay
    at ``sqrt(max (1 - beta2))`` and reach ``sqrt(max)`` once, where ``max`` is the largest number
    of the dtype: 5.8e17 and 1.8e19 in float32 with the default betas.

    Every 50 steps, parameters below 1e-15 and stored moments below 1e-25 and 1e-35 become zero
    (float64: 1e-150, 1e-200 and 1e-290), since denormal numbers are slow; for ``eps`` below 1e-8
    those of moments times ``eps / 1e-8`` and its square. For ``beta2`` up to 0.99999 this is exact
    up to rounding for parameters above 1e-15 and ``1e-9 lr``.
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
        if np.shape(betas) != (2,):
            raise ValueError(f"{owner}: expected two betas, got {betas!r}")
        for i, beta in enumerate(betas):
            check_float(owner, f"betas[{i}]", beta, low=0, high=1, open_high=True)
        self.betas = float(betas[0]), float(betas[1])
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
            what = f"the second moment overflows {v.dtype} at step {self.steps}"
            largest = f"the largest gradient is {np.abs(grad).max():.2g}"
            raise FloatingPointError(f"{self!r}: {what}; {largest}") from None
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
        where = True if self.decay_biases else self._decays
        np.multiply(theta, self._decay_factor, out=theta, where=where)
        return grad


class _Checked:
    """Base of schedules: ``steps`` and ``every`` are whole, all numbers finite, none negative."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in ("steps", "every"):
                check_int(type(self).__name__, name, value)
            else:
                check_float(type(self).__name__, name, value, low=0)


@dataclass(frozen=True)
class StepDecay(_Checked):
    """A factor after every few steps: ``lr * factor ** (t // every)``, as PyTorch's StepLR."""

    lr: float
    every: int
    factor: float = 0.1

    def __call__(self, t: int) -> float:
        return self.lr * self.factor ** (t // self.every)


@dataclass(frozen=True)
class Cosine(_Checked):
    """Half a cosine period from ``lr`` to ``final`` over ``steps``, then ``final``.

    ``final + (lr - final) (1 + cos(pi t / steps)) / 2``, as PyTorch's CosineAnnealingLR.
    """

    lr: float
    steps: int
    final: float = 0.0

    def __call__(self, t: int) -> float:
        return _half_cosine(self.lr, self.final, min(t, self.steps) / self.steps)


@dataclass(frozen=True)
class WarmUp:
    """A linear rise, then ``lr``, a number or a schedule: ``lr * min(1, (t + 1) / steps)``."""

    lr: float | Schedule
    steps: int

    def __post_init__(self) -> None:
        if not callable(self.lr) or isinstance(self.lr, type):
            check_float("WarmUp", "lr", self.lr, low=0)
        check_int("WarmUp", "steps", self.steps)

    def __call__(self, t: int) -> float:
        lr = self.lr(t) if callable(self.lr) else self.lr
        return lr * min(1.0, (t + 1) / self.steps)


@dataclass(frozen=True)
class OneCycle(_Checked):
    """A rise to ``lr`` and a fall to almost 0 (Smith and Topin 2019), as PyTorch's OneCycleLR.

    From ``lr / div_factor`` to ``lr``, at step ``pct_start * steps - 1``, then to
    ``lr / (div_factor * final_div_factor)`` at step ``steps - 1``, where it stays; each part is
    half a cosine period. Momentum is not changed (PyTorch: ``cycle_momentum=False``).
    """

    lr: float
    steps: int
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_float("OneCycle", "pct_start", self.pct_start, low=0, high=1)
        for name in ("div_factor", "final_div_factor"):
            check_float("OneCycle", name, getattr(self, name), low=0, open_low=True)

    def __call__(self, t: int) -> float:
        first = self.lr / self.div_factor
        final = first / self.final_div_factor
        top, last = self.pct_start * self.steps - 1, self.steps - 1
        if t >= last:
            return self.lr if top == last else final
        if t <= top:
            return _half_cosine(first, self.lr, t / top if top else 1.0)
        return _half_cosine(self.lr, final, (t - top) / (last - top))


def _half_cosine(start: float, end: float, part: float) -> float:
    """Return the rate after a ``part`` of the way along half a cosine period."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
