"""The model and the settings of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from minidl.history import History
from minidl.layer import Layer, Sequential
from minidl.layers import Linear
from minidl.typing import Array
from minidl.validation import check_float


@dataclass
class OnlineRun:
    """A model, its update rule and its results.

    Parameters
    ----------
    model : Layer
        A ``Linear``, or a ``Sequential`` that begins with one.
    lr, weight_decay : float
        Each step is ``w -= lr (grad + weight_decay w)``, on all parameters.
    l1 : float
        L1 penalty: after each block of n examples every parameter moves towards 0 by
        ``n lr l1``, but not past it (a proximal step).
    history : History
    error : str or None
        Why the run ended early: its loss was not finite.
    """

    model: Layer
    lr: float
    weight_decay: float = 0.0
    l1: float = 0.0
    history: History = field(default_factory=History)
    error: str | None = None

    def __post_init__(self) -> None:
        self.lr = check_float("fit_online", "lr", self.lr, low=0, open_low=True)
        self.weight_decay = check_float("fit_online", "weight_decay", self.weight_decay, low=0)
        self.l1 = check_float("fit_online", "l1", self.l1, low=0)
        layer = self.layers[0] if self.layers else self.model
        custom = isinstance(layer, Linear) and type(layer).forward is not Linear.forward
        if custom or not isinstance(layer, Linear):
            raise ValueError(
                f"fit_online: expected a model whose first layer is Linear, got {layer!r}"
                f"{', whose forward pass is its own' if custom else ''}"
            )

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers of the model, or the model itself if it is no plain ``Sequential``."""
        if isinstance(self.model, Sequential) and type(self.model).forward is Sequential.forward:
            return self.model.layers
        return (self.model,)

    @property
    def first(self) -> Linear:
        """The first layer, which is updated once a block."""
        return cast(Linear, self.layers[0])

    @property
    def first_weights(self) -> Array:
        """A view of the first layer's weight with its bias as the last row."""
        return self.first.theta.reshape(-1, self.first.out_features)

    @property
    def tail_theta(self) -> Array:
        """A view of the parameters of the layers after the first."""
        return self.model.theta[self.first.theta.size :]

    @property
    def tail_grad(self) -> Array:
        """A view of the gradients of the layers after the first."""
        return self.model.grad[self.first.theta.size :]

    @property
    def decay_factor(self) -> float:
        """The factor by which weight decay multiplies each parameter at each step."""
        return 1 - self.lr * self.weight_decay
