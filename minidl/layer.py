"""The layer contract, and the model that chains layers.

A layer's forward pass returns its output and the function that pulls a cotangent back::

    y, backward = layer.forward(x, train=True)
    dx = backward(dy)

``backward`` is a closure that keeps what it needs of this forward pass, so several forward
passes may be open at once, and the memory is freed with the closure. ``backward`` writes (does
not add) the gradients of the layer's parameters. All parameters of a model are views into one
vector ``model.theta``, and their gradients into ``model.grad``, so an optimizer or a gradient
check works on two vectors.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from minidl.parameter import Parameter, is_layer, members, named_parameters, walk
from minidl.rng import as_generator
from minidl.typing import Array, Backward, Rng
from minidl.validation import check_array, did_you_mean

if TYPE_CHECKING:
    from typing_extensions import Self


def _gather(layer: object, theta: Array, grad: Array) -> int:
    """Move the parameters of ``layer`` into the vectors; return the number of entries used."""
    end = 0
    for _, member in members(layer):
        if isinstance(member, Parameter):
            piece = slice(end, end + member.size)
            value_view = theta[piece].reshape(member.shape)
            grad_view = grad[piece].reshape(member.shape)
            value_view[...], grad_view[...] = member.value, member.grad
            member.bind(value_view, grad_view)
            end = piece.stop
        else:
            end += _gather(member, theta[end:], grad[end:])
    if isinstance(layer, Layer):
        layer._theta, layer._grad = theta[:end], grad[:end]
    return end


class Layer(ABC):
    """A function of a batch, with its backward pass.

    To write a layer, derive from this class, keep parameters (``Parameter``) and inner layers
    as attributes, and define ``forward``. A layer that draws random numbers has an attribute
    ``rng``, None until the model sets it to a ``numpy.random.Generator``.
    """

    skips_input_grad: ClassVar[bool] = False
    """Whether ``backward(dy, input_grad=False)`` is possible: it writes the parameters'
    gradients, does not compute ``dx``, and returns None. Training uses it on the first layer.
    It belongs to a ``forward``: a subclass with its own ``forward`` does not inherit it."""

    _theta: Array
    _grad: Array

    def __init_subclass__(cls) -> None:
        for base in cls.__mro__:
            if "skips_input_grad" in vars(base):
                return
            if "forward" in vars(base):
                cls.skips_input_grad = False
                return

    @abstractmethod
    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        """Return the output, and ``backward(dy) -> dx``, which also writes the gradients.

        Call ``backward`` before the parameters change, since it may read their values.
        """

    def __call__(self, x: Array) -> Array:
        """Return the output alone, in inference mode."""
        return self.forward(x, train=False)[0]

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield every parameter with its name, in the order of ``theta``."""
        return named_parameters(self)

    @property
    def theta(self) -> Array:
        """All parameters in one contiguous vector; each parameter is a view into it."""
        if "_theta" not in self.__dict__:
            self.initialize()
        return self._theta

    @property
    def grad(self) -> Array:
        """All gradients in one contiguous vector, in the order of ``theta``."""
        if "_grad" not in self.__dict__:
            self.initialize()
        return self._grad

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the parameters; float32 if there are none."""
        return self.theta.dtype

    def initialize(self, rng: Rng | None = None, dtype: DTypeLike | None = None) -> Self:
        """Draw the missing values and gather all parameters in the two flat vectors.

        Parameters
        ----------
        rng : int or Generator, optional
            The source of the missing values. Each layer that draws in training (dropout)
            gets a stream of its own by ``Generator.spawn``, which does not change the values.
        dtype : float32 or float64, optional
            By default the dtype of the values that are set already, or else float32.

        Raises
        ------
        ValueError
            If a value is missing and there is no ``rng``. If a parameter occurs twice:
            ``backward`` writes gradients, so the second one would overwrite the first.
        """
        parameters = [p for _, p in self.named_parameters()]
        if len({id(p) for p in parameters}) < len(parameters):
            raise ValueError(
                f"{self!r}: a layer occurs twice; shared parameters are not supported, since "
                "backward writes gradients and does not add them"
            )
        if dtype is None:
            kinds = [p.value.dtype for p in parameters if p.is_set]
            dtype = np.result_type(*kinds) if kinds else np.float32
        kind = np.dtype(dtype)
        if kind not in (np.float32, np.float64):
            raise ValueError(
                f"{type(self).__name__}: expected dtype float32 or float64, got {kind}"
            )
        if rng is not None:
            generator = as_generator(rng)
            for parameter in parameters:
                parameter.initialize(generator, kind)
            for layer in walk(self):
                if getattr(layer, "rng", self) is None:
                    layer.rng = generator.spawn(1)[0]
        size = sum(p.size for p in parameters)
        _gather(self, np.empty(size, kind), np.empty(size, kind))
        return self

    def forget_vectors(self) -> None:
        """Drop ``theta`` and ``grad``; they are gathered again from the parameters on first use."""
        self.__dict__.pop("_theta", None)
        self.__dict__.pop("_grad", None)

    def copy(self, dtype: DTypeLike | None = None) -> Self:
        """Return an independent copy, in another dtype if one is given."""
        return copy.deepcopy(self).initialize(dtype=dtype)

    def __getstate__(self) -> dict[str, Any]:
        # Copies of views are not views, so a copy makes its flat vectors on first use.
        return {k: v for k, v in self.__dict__.items() if k not in ("_theta", "_grad")}

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of every parameter's value by its name, such as ``"0.weight"``."""
        return {name: p.value.copy() for name, p in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy the values of ``state`` into the parameters: all of them, or none on an error.

        Raises
        ------
        ValueError
            If a name is missing or unknown, a shape differs, or a value is not a number.
        """
        owner, own = type(self).__name__, dict(self.named_parameters())
        for name in state:
            if name not in own:
                raise ValueError(f"{owner}: no parameter {name!r}{did_you_mean(name, own)}")
        parts: dict[str, Array] = {}
        for name, parameter in own.items():
            if name not in state:
                raise ValueError(f"{owner}: the state has no value for {name!r}")
            parts[name] = check_array(
                owner, name, state[name], parameter.shape, parameter.value.dtype
            )
        for name, parameter in own.items():
            parameter.value = parts[name]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def check_input(layer: Layer, x: Array, features: int, like: Array) -> None:
    """Raise an error that names the layer if a batch has the wrong shape or dtype."""
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.shape[1] != features:
        raise ValueError(f"{layer!r}: expected x of shape (n, {features}), got {np.shape(x)}")
    if x.dtype != like.dtype:
        raise TypeError(
            f"{layer!r}: expected x of dtype {like.dtype}, got {x.dtype}; convert x "
            "or build the model with dtype="
        )


def write_gradients(layer: object, backward: Backward, dy: Array) -> None:
    """Write the gradients of the parameters of ``layer``, without the input's if it can skip it.

    Parameters
    ----------
    layer : Layer
    backward : callable
        From the forward pass of ``layer``.
    dy : array
        The gradient of the loss with respect to the output of ``layer``.
    """
    if getattr(layer, "skips_input_grad", False):
        backward(dy, input_grad=False)
    else:
        backward(dy)


class Sequential(Layer):
    """Layers one after another.

    Parameters
    ----------
    *layers : Layer
        Their parameters become views into this model's ``theta``.
    rng : int or Generator, optional
        Draws the missing initial values, layer by layer.
    dtype : float32 (default) or float64, optional

    Examples
    --------
    >>> model = Sequential(Linear(784, 256), ReLU(), Linear(256, 26), rng=42)
    >>> logits, backward = model.forward(x, train=True)
    """

    skips_input_grad = True

    def __init__(
        self, *layers: Layer, rng: Rng | None = None, dtype: DTypeLike | None = None
    ) -> None:
        for i, layer in enumerate(layers):
            if not is_layer(layer):
                raise TypeError(
                    f"Sequential: expected a layer at position {i}, got {layer!r}; "
                    "a layer is an object with forward(x, train=...) -> y, backward"
                )
        self.layers = tuple(layers)
        # Without the input's gradient, the backward pass ends at the first layer with parameters.
        self._first = next(
            (i for i, layer in enumerate(layers) if any(named_parameters(layer))), len(layers)
        )
        if rng is not None or all(p.is_set for _, p in self.named_parameters()):
            self.initialize(rng, dtype)

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        """``y = f_L(... f_1(x))``; backward: ``dx = f_1'(... f_L'(dy))``."""
        tape: list[Backward] = []
        for layer in self.layers:
            x, backward = layer.forward(x, train=train)
            tape.append(backward)

        def pull_back(dy: Array, input_grad: bool = True) -> Array | None:
            if input_grad:
                for backward in reversed(tape):
                    dy = backward(dy)
                return dy
            for backward in tape[: self._first : -1]:  # from the last one down
                dy = backward(dy)
            if self._first < len(tape):
                write_gradients(self.layers[self._first], tape[self._first], dy)
            return None

        return x, pull_back

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return x

    def __getitem__(self, i: int) -> Layer:
        return self.layers[i]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def summary(self) -> str:
        """Return a table of the layers, their output shapes and their parameter counts."""
        features = next((v.in_features for v in walk(self) if hasattr(v, "in_features")), None)
        x = None if features is None else np.zeros((0, features), self.dtype)
        rows = [("", "layer", "output", "parameters")]
        for i, layer in enumerate(self.layers):
            x = None if x is None else layer(x)
            shape = "" if x is None else f"(n, {', '.join(map(str, x.shape[1:]))})"
            count = sum(p.size for _, p in named_parameters(layer))
            rows.append((str(i), repr(layer), shape, f"{count:,}"))
        w = [max(len(row[k]) for row in rows) for k in range(4)]
        lines = [f"{a:>{w[0]}}  {b:<{w[1]}}  {c:<{w[2]}}  {d:>{w[3]}}" for a, b, c, d in rows]
        lines.insert(1, "-" * len(lines[0]))
        total, size = self.theta.size, self.theta.nbytes / 1e6
        return "\n".join([*lines, f"{total:,} parameters, {self.dtype}, {size:.2f} MB"])
