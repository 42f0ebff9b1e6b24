"""The base class of the optimizers.

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
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.contract import check_model
from minidl.layer import Layer
from minidl.settings import describe
from minidl.special import quietly
from minidl.typing import Array
from minidl.validation import check_array, check_float, check_int, did_you_mean

if TYPE_CHECKING:
    from typing_extensions import Self

    from minidl.schedules import Schedule

BLOCK = 131_072
"""Entries in a block: so many that calls cost little, so few that a block stays in cache."""

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


def _norm(vector: Array) -> float:
    """Return the Euclidean norm, without overflow of its square."""
    blocks = [vector[start : start + BLOCK] for start in range(0, vector.size, BLOCK)]
    square = sum(float(np.dot(block, block)) for block in blocks)
    largest = float(np.abs(vector).max()) if square == math.inf else math.inf
    if largest == math.inf:
        return math.sqrt(square)
    return largest * float(np.linalg.norm(vector.astype(np.float64) / largest))


def _few_axes(model: Layer) -> list[tuple[int, int]]:
    """Return where in ``theta`` the parameters with fewer than two axes are."""
    found: list[tuple[int, int]] = []
    end = 0
    for _, parameter in model.named_parameters():
        start, end = end, end + parameter.size
        if len(parameter.shape) < 2:
            if found and found[-1][1] == start:  # neighbours are one piece
                start = found.pop()[0]
            found.append((start, end))
    return found


class Optimizer(ABC):
    """Base class: updates ``model.theta`` from ``model.grad``.

    Attributes
    ----------
    lr : float or Schedule
        May be changed at any time.
    weight_decay : float
    decay_biases : bool
        Whether weight decay acts on all parameters, as in PyTorch unless there are parameter
        groups, or spares those of fewer than two axes: biases, gains and offsets of normalisation.
    clip_norm : float, optional
        Before each step, a gradient whose norm (over all parameters together) is larger is scaled
        down to it, in place: ``grad *= min(1, clip_norm / (||grad|| + 1e-6))``, as
        ``torch.nn.utils.clip_grad_norm_``. Unlike there, a norm that is not finite raises a
        FloatingPointError, and nothing is changed. Weight decay is added after it.
    steps : int
        The number of steps taken so far.
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
        self.lr = lr if callable(lr) else check_float(owner, "lr", lr, low=0)
        self._given_lr = self.lr
        self.weight_decay = check_float(owner, "weight_decay", weight_decay, low=0)
        if clip_norm is not None:
            clip_norm = check_float(owner, "clip_norm", clip_norm, low=0, open_low=True)
        self.clip_norm = clip_norm
        self.decay_biases = bool(decay_biases)
        self.steps = 0
        self._state = [np.zeros_like(model.theta) for _ in self.moments]
        self._blocks: list[tuple[tuple[Array, ...], list[slice]]] = []
        self._spared: list[slice] = []  # what decay_biases=False spares in the present block
        self._theta: Array | None = None

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0.

        Raises
        ------
        ValueError
            If it is not a finite number of at least 0; names the schedule and the step.
        """
        given = self.lr(step) if callable(self.lr) else self.lr
        try:
            lr = float(given)
        except (TypeError, ValueError):
            lr = math.nan
        if not 0 <= lr < math.inf:
            raise ValueError(
                f"{type(self).__name__}: expected a finite learning rate >= 0 from {self.lr!r} "
                f"for step {step}, got {given!r}"
            )
        return lr

    @quietly
    def step(self) -> None:
        """Update the parameters once, from the gradient that the last backward pass wrote.

        Raises
        ------
        ValueError
            If the schedule gives a bad learning rate; nothing is changed.
        FloatingPointError
            With ``clip_norm``, if the gradient's norm is not finite; nothing is changed.
        """
        lr = self.lr_at(self.steps)
        if self.clip_norm is not None:
            self._clip(self.clip_norm)
        self.steps += 1
        self._prepare(lr)
        for block, spared in self._views():
            self._spared = spared
            self._update(*block)
        if self.steps % FLUSH_EVERY == 0:
            self.flush()

    def _clip(self, clip_norm: float) -> None:
        """Scale the gradient down if its norm is above ``clip_norm``."""
        grad = self.model.grad
        norm = _norm(grad)
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"{self!r}: the gradient of step {self.steps} has a norm that is not finite, {norm}"
            )
        factor = clip_norm / (norm + 1e-6)
        if factor < 1:
            grad *= factor

    @abstractmethod
    def _prepare(self, lr: float) -> None:
        """Compute the constants of this step."""

    @abstractmethod
    def _update(self, theta: Array, grad: Array, *moments_and_scratch: Array) -> None:
        """Update one block in place; two scratch arrays of its size come last."""

    def _decay(self, theta: Array, grad: Array, out: Array) -> Array:
        """Return the gradient of the loss with its L2 penalty, in ``out``."""
        np.multiply(theta, self.weight_decay, out=out)
        out += grad
        if not self.decay_biases:
            for part in self._spared:
                out[part] = grad[part]
        return out

    def _views(self) -> list[tuple[tuple[Array, ...], list[slice]]]:
        """Return the blocks: views of parameters, gradient and moments, and two scratch arrays.

        Beside each are the places in it of parameters with fewer than two axes.
        """
        theta, grad = self.model.theta, self.model.grad
        if theta is not self._theta:  # the first step, or the model has new vectors
            if theta.size != sum(b[0].size for b, _ in self._blocks) and self._blocks:
                raise ValueError(f"{self!r}: the model has other parameters than at the start")
            vectors = [theta, grad, *self._state]
            scratch = [np.empty(min(BLOCK, theta.size), theta.dtype) for _ in range(2)]
            spared, self._blocks = _few_axes(self.model), []
            for start in range(0, theta.size, BLOCK):
                views = [v[start : start + BLOCK] for v in vectors]
                size = views[0].size
                inside = [(max(a - start, 0), min(b - start, size)) for a, b in spared]
                parts = [slice(a, b) for a, b in inside if a < b]
                self._blocks.append(((*views, *[s[:size] for s in scratch]), parts))
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

    def settings(self) -> dict[str, Any]:
        """Return the class and the arguments with which the optimizer was made, as JSON takes them.

        Arguments of a subclass count if they are kept as attributes of the same names. ``lr`` is
        the one that was given, also where it was changed later.
        """
        names = [name for name in inspect.signature(type(self)).parameters if name != "model"]
        arguments = {name: getattr(self, name, None) for name in names}
        lr = describe(self._given_lr)
        if callable(self._given_lr):
            lr = {"schedule": type(self._given_lr).__qualname__, "arguments": lr}
        return {"class": type(self).__name__, **describe({**arguments, "lr": None}), "lr": lr}

    def state_dict(self) -> dict[str, Any]:
        """Return the step count and a copy of each moment: all that a resumed run needs."""
        return {
            "steps": self.steps,
            **dict(zip(self.moments, map(np.copy, self._state), strict=True)),
        }

    @quietly
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
        clip = "" if self.clip_norm is None else f", clip_norm={self.clip_norm:g}"
        spared = "" if self.decay_biases else ", decay_biases=False"
        decay = f"weight_decay={self.weight_decay:g}{spared}"
        return f"{type(self).__name__}(lr={self.lr!r}, {decay}{clip})"
