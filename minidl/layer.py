"""The layer contract, and the model that chains layers.

A layer's forward pass returns its output and the function that pulls a cotangent back::

    y, backward = layer.forward(x, train=True)
    dx = backward(dy)

``backward`` is a closure that keeps what it needs of this forward pass, so several forward
passes may be open at once, and the memory is freed with the closure. ``backward`` writes (does
not add) the gradients of the layer's parameters. All parameters of a model are views into one
vector ``model.theta``, and their gradients into ``model.grad``, so an optimizer or a gradient
check works on two vectors. So a parameter belongs to one model, its ``root``.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from minidl import state, summary, vectors
from minidl.parameter import Parameter, holds, infer, is_layer, named_parameters, walk
from minidl.rng import as_generator
from minidl.special import quiet_passes, quietly
from minidl.state import Snapshot
from minidl.typing import Array, Backward, Rng
from minidl.validation import as_array

if TYPE_CHECKING:
    from typing_extensions import Self


def _may_be_kept(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_may_be_kept, value))
    return value is None or isinstance(value, (bool, int, float, str)) or is_layer(value)


class Layer(ABC):
    """A function of a batch, with its backward pass.

    To write a layer, derive from this class, keep parameters (``Parameter``) and inner layers
    as attributes, and define ``forward``. A layer that draws random numbers has an attribute
    ``rng``, None until the model sets it to a ``numpy.random.Generator``. A layer that keeps
    arrays of another kind names them in ``buffers``.
    """

    buffers: ClassVar[tuple[str, ...] | None] = None
    """The names of the attributes that the layer keeps but does not learn, such as running means.

    They are arrays; ``forward`` may replace them in training. They are saved, copied and restored
    with the parameters, and those of floats have the parameters' dtype. An array that is neither
    a parameter nor declared is an error when a model is built: ``buffers = ()`` says that the
    layer has arrays, and that none is to be saved.
    """

    skips_input_grad: ClassVar[bool] = False
    """Whether ``backward(dy, input_grad=False)`` is possible: it writes the parameters'
    gradients, does not compute ``dx``, and returns None. Training uses it on the first layer.
    It belongs to a ``forward``: a subclass with its own ``forward`` does not inherit it."""

    gives_probabilities: ClassVar[bool] = False
    """Whether the outputs are probabilities, as those of ``Softmax``. It belongs to a ``forward``,
    as ``skips_input_grad`` does."""

    trained_on: tuple[bool, float] | None = None
    """Whether ``fit`` trained the model on uint8 pixels, and the factor of its rows."""

    _theta: Array
    _grad: Array
    _made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Keep the arguments, for ``minidl.save``."""
        if cls.__init__ is object.__init__ and (args or options):
            raise TypeError(f"{cls.__name__}() takes no arguments")
        made = super().__new__(cls)
        # Not what a copy or a pickle should not have: arrays, generators, functions.
        kept = {k: v for k, v in options.items() if _may_be_kept(v)}
        made.__dict__["_made_with"] = tuple(v if _may_be_kept(v) else ... for v in args), kept
        return made

    def constructor_arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with which the layer was made; ``...`` where one was not kept."""
        return self._made_with

    def __init_subclass__(cls) -> None:
        if "forward" in vars(cls):
            cls.forward = quiet_passes(cls.forward)  # type: ignore[method-assign]
        for flag in ("skips_input_grad", "gives_probabilities"):
            first = next(b for b in cls.__mro__ if flag in vars(b) or "forward" in vars(b))
            if flag not in vars(first):
                setattr(cls, flag, False)

    @abstractmethod
    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        """Return the output, and ``backward(dy) -> dx``, which also writes the gradients.

        Call ``backward`` before the parameters change, since it may read their values.
        """

    def __call__(self, x: Array) -> Array:
        """Return the output alone, in inference mode."""
        return self.forward(_input(self, x), train=False)[0]

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
        """The dtype of the parameters; of the buffers if there are none; or else float32."""
        if "_theta" in self.__dict__:
            return self._theta.dtype
        kinds = [p.value.dtype for _, p in self.named_parameters() if p.is_set]
        kinds = kinds or [b.dtype for _, b in state.named_buffers(self) if b.dtype.kind == "f"]
        return np.result_type(*kinds) if kinds else np.dtype(np.float32)

    @quietly
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
            ``backward`` writes gradients, so the second one would overwrite the first. If a
            parameter belongs to another model that is in use.
        """
        vectors.check_owners(self)
        self.draw(rng, dtype)
        kind = self.dtype if dtype is None else np.dtype(dtype)
        vectors.gather(self, kind)
        state.cast_buffers(self, kind)
        return self

    def draw(self, rng: Rng | None = None, dtype: DTypeLike | None = None) -> None:
        """Draw the missing values, without gathering; ``initialize`` has the parameters."""
        kind = self.dtype if dtype is None else np.dtype(dtype)
        if kind not in (np.float32, np.float64):
            raise ValueError(
                f"{type(self).__name__}: expected dtype float32 or float64, got {kind}"
            )
        if rng is not None:
            generator = as_generator(rng)
            for _, parameter in self.named_parameters():
                parameter.initialize(generator, kind)
            for layer in walk(self):
                if getattr(layer, "rng", self) is None:
                    layer.rng = generator.spawn(1)[0]

    def use_vectors(self, theta: Array, grad: Array) -> None:
        """Take these as ``theta`` and ``grad``; the parameters are views into them already."""
        self._theta, self._grad = theta, grad

    def forget_vectors(self) -> None:
        """Drop ``theta`` and ``grad``; they are gathered again from the parameters on first use."""
        self.__dict__.pop("_theta", None)
        self.__dict__.pop("_grad", None)

    def copy(self, dtype: DTypeLike | None = None) -> Self:
        """Return an independent copy, in another dtype if one is given."""
        return copy.deepcopy(self).initialize(dtype=dtype)

    def __getstate__(self) -> dict[str, Any]:
        # Copies of views are not views, so a copy makes its flat vectors on first use.
        return {k: v for k, v in self.__dict__.items() if k not in ("_theta", "_grad", "_training")}

    def __setattr__(self, name: str, value: object) -> None:
        if "_theta" in self.__dict__:
            old = self.__dict__.get(name)
            if value is not old and (holds(value) or holds(old)):
                raise ValueError(
                    f"{type(self).__name__}: cannot replace {name!r}: theta and grad of the model "
                    "have the old one; assign new numbers to parameter.value, or build a new model"
                )
        object.__setattr__(self, name, value)

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of every parameter's value and every buffer by its name.

        The names are those of PyTorch, such as ``"0.weight"``; the weight of a ``Linear`` is
        transposed there, see ``minidl.safetensors.torch_state``.
        """
        return state.state_dict(self)

    @quietly
    def load_state_dict(self, state_dict: Mapping[str, Array]) -> None:
        """Set all parameters and buffers to the values of a state, or none on an error.

        Parameters
        ----------
        state_dict : mapping of str to array
            In minidl's layout: for PyTorch's use ``minidl.safetensors.load_torch_state``.

        Raises
        ------
        ValueError
            If a name is missing or unknown, a shape differs, or a value is not a number.
        TypeError
            If a value is a tensor of PyTorch.
        """
        state.load_state_dict(self, state_dict)

    def snapshot(self) -> Snapshot:
        """Return a copy of all parameters and buffers, for ``restore``."""
        buffers = {name: value.copy() for name, value in state.named_buffers(self)}
        return Snapshot(self.theta.copy(), buffers)

    def restore(self, snapshot: Snapshot) -> None:
        """Set all parameters and buffers to those of a snapshot; ValueError if it does not fit."""
        checked = state.check_snapshot(type(self).__name__, self, snapshot)
        self.theta[:] = checked.theta
        state.set_buffers(self, checked.buffers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def check_input(layer: Layer, x: Array, features: int, like: Array) -> Array:
    """Return a batch as an array; raise an error that names the layer if it does not fit."""
    x = as_array(layer, "x", x)
    if x.ndim != 2 or x.shape[1] != features:
        raise ValueError(f"{layer!r}: expected x of shape (n, {features}), got {x.shape}")
    if x.dtype != like.dtype:
        raise TypeError(
            f"{layer!r}: expected x of dtype {like.dtype}, got {x.dtype}; convert x "
            "or build the model with dtype="
        )
    return x


def _input(layer: Layer, x: Array) -> Array:
    """Return a batch that a user hands to a layer as an array; the dtype is the layer's matter.

    A layer of one's own may take several arrays, in a tuple or a dict, which are left alone.
    """
    if type(x) is np.ndarray and x.dtype.isnative:  # as in training, where it is all that is done
        return x
    return x if isinstance(x, (tuple, dict)) else as_array(type(layer).__name__, "x", x)


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
        Their parameters become views into this model's ``theta``. If some belong to another
        model, this one shares them: it computes outputs, but cannot be trained.
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
        state.check_buffers(self)
        # Without the input's gradient, the backward pass ends at the first layer with parameters.
        self._first = next(
            (i for i, layer in enumerate(layers) if any(named_parameters(layer))), len(layers)
        )
        if (dtype is None or dtype == self.dtype) and vectors.shared_parameter(self):
            self.draw(rng)  # without vectors, which are those of the other model
        elif rng is not None or all(p.is_set for _, p in self.named_parameters()):
            self.initialize(rng, dtype)

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        """``y = f_L(... f_1(x))``; backward: ``dx = f_1'(... f_L'(dy))``."""
        x = _input(self, x)
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

    @quietly
    def __call__(self, x: Array) -> Array:
        x = _input(self, x)
        for layer in self.layers:
            x = infer(layer, x)
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
        return summary.text(self)

    def _repr_html_(self) -> str:
        return summary.html(self)


def last_layer(model: object) -> object:
    """Return the layer that gives the outputs of a model: the last one, at any depth."""
    return [model, *_in_order(model)][-1]


def _in_order(model: object) -> Iterator[object]:
    """Yield the layers of nested ``Sequential`` one after another."""
    if isinstance(model, Sequential) and type(model).forward is Sequential.forward:
        for layer in model.layers:
            yield from _in_order(layer)
    else:
        yield model
