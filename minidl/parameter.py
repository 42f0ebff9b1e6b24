"""Parameters, and functions that find them among the attributes of any object."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.typing import Array
from minidl.validation import as_array

if TYPE_CHECKING:
    from typing_extensions import Self


class Parameter:
    """A tensor that is learned, and the gradient of the loss with respect to it.

    In a model, ``value`` and ``grad`` are views into its flat vectors ``theta`` and ``grad``.
    Assigning to either copies the numbers into the view, which stays a part of the vector.

    Parameters
    ----------
    value : array of float32 or float64
        The initial value, copied. Use ``Parameter.drawn`` for a value that is drawn later.
    """

    __slots__ = ("_draw", "_grad", "_root", "_value", "shape")

    _value: Array
    _grad: Array
    _draw: Callable[[np.random.Generator], Array] | None
    _root: weakref.ref[Any] | None

    def __init__(self, value: Array) -> None:
        array = np.array(as_array("Parameter", "value", value))
        self.shape: tuple[int, ...] = array.shape
        self._draw = self._root = None
        value = array if array.dtype.kind == "f" else array.astype(np.float32)
        self.bind(value, np.zeros_like(value))

    @classmethod
    def drawn(cls, shape: tuple[int, ...], draw: Callable[[np.random.Generator], Array]) -> Self:
        """Return a parameter whose value ``initialize`` will draw, as ``draw(rng)``."""
        parameter = cls.__new__(cls)
        parameter.shape = shape
        parameter._draw, parameter._root = draw, None
        return parameter

    def initialize(self, rng: np.random.Generator, dtype: np.dtype[Any]) -> None:
        """Draw the value, unless there is one already."""
        if self._draw is not None:
            value = np.array(self._draw(rng), dtype=dtype, order="C")
            if value.shape != self.shape:
                raise ValueError(
                    f"a parameter: expected initial values of shape {self.shape}, got {value.shape}"
                )
            self.bind(value, np.zeros_like(value))
            self._draw = None

    def bind(self, value: Array, grad: Array) -> None:
        """Use these two arrays as storage; their contents become the value and the gradient.

        Parameters
        ----------
        value, grad : array
            Of the parameter's shape and of one dtype. They are not copied.
        """
        self._value, self._grad = value, grad

    @property
    def root(self) -> Any:
        """The model whose vectors hold the parameter; None if there is none, or no longer."""
        return None if self._root is None else self._root()

    @root.setter
    def root(self, model: Any) -> None:
        self._root = weakref.ref(model)

    def __getstate__(self) -> dict[str, Any]:
        # A copy belongs to no model yet.
        names = ("shape", "_draw", "_value", "_grad") if self.is_set else ("shape", "_draw")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._root = None
        for name, value in state.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        # Called only while a slot is empty, so this costs nothing once there is a value.
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
        """The present value. Assigning to it writes in place."""
        return self._value

    @value.setter
    def value(self, new: Array) -> None:
        if new is not self._value:  # `p.value -= d` has written in place already
            self._value[...] = new

    @property
    def grad(self) -> Array:
        """The gradient that the last backward pass wrote. Assigning to it writes in place."""
        return self._grad

    @grad.setter
    def grad(self, new: Array) -> None:
        if new is not self._grad:
            self._grad[...] = new

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, {self.value.dtype if self.is_set else 'not set'})"


def members(layer: object) -> Iterator[tuple[str, Any]]:
    """Yield the parameters and layers among the attributes of ``layer``, with their names.

    Lists and tuples are searched too; the first item of ``blocks`` is named ``"blocks.0"``.
    """
    for name, value in vars(layer).items():
        if isinstance(value, Parameter) or is_layer(value):
            yield name, value
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                if isinstance(item, Parameter) or is_layer(item):
                    # The layers of a Sequential are numbered as in PyTorch: "0.weight".
                    yield (str(i) if name == "layers" else f"{name}.{i}"), item


def is_layer(value: object) -> bool:
    """Return whether ``value`` is an object (not a class) with a ``forward`` method."""
    return callable(getattr(value, "forward", None)) and not isinstance(value, type)


def infer(layer: object, x: Array) -> Array:
    """Return the output of a layer in inference mode; it need not have ``__call__``."""
    y: Array = layer(x) if callable(layer) else layer.forward(x, train=False)[0]  # type: ignore[attr-defined]
    return y


def named_parameters(layer: object, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
    """Yield every parameter of ``layer`` and of the layers in it, as ``("0.weight", parameter)``.

    ``layer`` may be any object: parameters and layers are found among its attributes.
    """
    for name, member in members(layer):
        if isinstance(member, Parameter):
            yield prefix + name, member
        else:
            yield from named_parameters(member, f"{prefix}{name}.")


def walk(layer: object) -> Iterator[Any]:
    """Yield ``layer`` itself, then every layer in it, outer layers before inner ones."""
    return (inner for _, inner in named_layers(layer))


def named_layers(layer: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what ``walk`` yields, each layer with its prefix: ``""``, ``"0."``, ``"0.inner."``."""
    yield prefix, layer
    for name, member in members(layer):
        if not isinstance(member, Parameter):
            yield from named_layers(member, f"{prefix}{name}.")


def holds(value: object) -> bool:
    """Return whether ``value`` is a parameter, a layer, or a list or tuple with one."""
    if isinstance(value, (list, tuple)):
        return any(map(holds, value))
    return isinstance(value, Parameter) or is_layer(value)
