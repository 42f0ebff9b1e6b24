"""The layer contract for layers that were written in another style."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from minidl.parameter import Parameter
from minidl.typing import Array, Backward


class Cached:
    """The layer contract for an object that keeps the state of its pass in itself.

    Such an object has ``y = layer.forward(x)`` and ``dx = layer.backward(dy)``, plain arrays
    for parameters, and other arrays into which ``backward`` writes their gradients. Each pass
    runs on a shallow copy, so that two may be in flight.

    Parameters
    ----------
    layer : object
    **gradients : str
        For the attribute of each parameter, the attribute of its gradient.

    Examples
    --------
    >>> layer = Cached(Affine(12, 5), W="dW", b="db")
    >>> print(check_layer(layer, x))
    """

    def __init__(self, layer: Any, **gradients: str) -> None:
        for method in ("forward", "backward"):
            if not callable(getattr(layer, method, None)):
                raise TypeError(
                    f"Cached: expected an object with y = forward(x) and dx = backward(dy), "
                    f"got {layer!r}, which has no {method}"
                )
        self.layer, self._gradients = layer, gradients
        for name in gradients:
            if not hasattr(layer, name):
                raise ValueError(f"Cached: {type(layer).__name__} has no attribute {name!r}")
            setattr(self, name, Parameter(getattr(layer, name)))

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        """Run one pass of a copy of the layer, with the present values of the parameters."""
        layer = copy.copy(self.layer)
        for name in self._gradients:
            setattr(layer, name, getattr(self, name).value)
        options = {"train": train} if accepts(layer.forward, x, train=train) else {}

        def backward(dy: Array) -> Any:
            dx = layer.backward(dy)
            for name, gradient in self._gradients.items():
                getattr(self, name).grad = getattr(layer, gradient)
            return dx

        return layer.forward(x, **options), backward

    def __repr__(self) -> str:
        return f"Cached({type(self.layer).__name__})"


def accepts(function: Callable[..., Any], *args: Any, **options: Any) -> bool:
    """Return whether a call with these arguments fits the signature of the function."""
    try:
        inspect.signature(function).bind(*args, **options)
    except TypeError:
        return False
    return True
