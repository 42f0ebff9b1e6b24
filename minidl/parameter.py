"""Parameters, and how they are found among the attributes of any object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.typing import Array

if TYPE_CHECKING:
    from typing_extensions import Self


class Parameter:
    """A tensor that is learned, and the gradient of the loss with respect to it.

    ``value`` and ``grad`` are views into the flat vectors of the model that holds the
    parameter. Assigning to either copies into the view, so the vectors never lose it.

    Parameters
    ----------
    value : array of float32 or float64
        The initial value. ``Parameter.drawn`` makes one whose value is drawn later.
    """

    __slots__ = ("_draw", "_grad", "_value", "shape")

    _value: Array
    _grad: Array
    _draw: Callable[[np.random.Generator], Array] | None

    def __init__(self, value: Array) -> None:
        array = np.array(value)
        self.shape: tuple[int, ...] = array.shape
        self._draw = None
        self._own(array if array.dtype.kind == "f" else array.astype(np.float32))

    @classmethod
    def drawn(cls, shape: tuple[int, ...], draw: Callable[[np.random.Generator], Array]) -> Self:
        """A parameter that gets its value from ``draw(rng)`` when its model gets an ``rng``."""
        parameter = cls.__new__(cls)
        parameter.shape = shape
        parameter._draw = draw
        return parameter

    def _own(self, value: Array) -> None:
        self._value, self._grad = value, np.zeros_like(value)

    def _set(self, rng: np.random.Generator, dtype: np.dtype[Any]) -> None:
        if self._draw is not None:
            self._own(np.ascontiguousarray(self._draw(rng), dtype=dtype))
            self._draw = None

    def _bind(self, theta: Array, grad: Array) -> None:
        """Move value and gradient into slices of the model's flat vectors."""
        theta[:], grad[:] = self.value.ravel(), self.grad.ravel()
        self._value, self._grad = theta.reshape(self.shape), grad.reshape(self.shape)

    def rebind(self, value: Array, grad: Array) -> None:
        """Use these arrays, without a copy, as value and gradient."""
        self._value, self._grad = value, grad

    def __getattr__(self, name: str) -> Any:
        # Reached only while the slot is empty, so a parameter with a value pays nothing.
        if name in ("_value", "_grad"):
            raise ValueError(
                f"a parameter of shape {self.shape} has no value yet: give rng= to its layer, "
                "or to the Sequential that holds it"
            )
        raise AttributeError(name)

    @property
    def is_set(self) -> bool:
        """Whether the parameter has a value yet."""
        return self._draw is None

    @property
    def size(self) -> int:
        """The number of entries."""
        return int(np.prod(self.shape))

    @property
    def value(self) -> Array:
        return self._value

    @value.setter
    def value(self, new: Array) -> None:
        if new is not self._value:  # p.value -= d has written in place already
            self._value[...] = new

    @property
    def grad(self) -> Array:
        return self._grad

    @grad.setter
    def grad(self, new: Array) -> None:
        if new is not self._grad:
            self._grad[...] = new

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, {self.value.dtype if self.is_set else 'not set'})"


def members(layer: object) -> Iterator[tuple[str, Any]]:
    """The parameters and layers that ``layer`` holds, as attributes or in a list or tuple."""
    for name, value in vars(layer).items():
        if isinstance(value, Parameter) or is_layer(value):
            yield name, value
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                if isinstance(item, Parameter) or is_layer(item):
                    # Sequential's layers are numbered as in PyTorch: "0.weight".
                    yield (str(i) if name == "layers" else f"{name}.{i}"), item


def is_layer(value: object) -> bool:
    """Whether ``value`` is an object (not a class) with a ``forward`` method."""
    return callable(getattr(value, "forward", None)) and not isinstance(value, type)


def named_parameters(layer: object, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
    """Every parameter of ``layer`` and of the layers in it: ``("0.weight", parameter)``, ...

    Works on any object: parameters and layers are found among its attributes.
    """
    for name, member in members(layer):
        if isinstance(member, Parameter):
            yield prefix + name, member
        else:
            yield from named_parameters(member, f"{prefix}{name}.")


def walk(layer: object) -> Iterator[Any]:
    """``layer`` itself, then every layer in it, outside in."""
    yield layer
    for _, member in members(layer):
        if not isinstance(member, Parameter):
            yield from walk(member)
