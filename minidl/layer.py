"""The layer contract, and the model that chains layers.

A layer's forward pass returns its output and the function that pulls a cotangent back::

    y, backward = layer.forward(x, train=True)
    dx = backward(dy)

``backward`` is a closure that keeps what it needs of this forward pass, so several forward
passes may be open at once. ``backward`` writes (does not add) the gradients of the layer's
parameters. All parameters of a model are views into one vector ``model.theta``, and their gradients
into ``model.grad``. A parameter belongs to one model, ``parameter.root``.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from minidl import parameter
from minidl.checks import (
    Array,
    Backward,
    Configured,
    Rng,
    as_array,
    as_dtype,
    as_generator,
    is_layer,
    quietly,
    returned_floats,
    returned_pass,
    short_text,
    takes,
    type_text,
)
from minidl.parameter import Parameter, holds, infer, named_parameters, walk

if TYPE_CHECKING:
    from typing_extensions import Self


def _vector(name: str, doc: str) -> Any:
    """Return a property of a model: a vector that is made on first use and never replaced."""

    def get(model: Layer) -> Any:
        if name not in model.__dict__:
            model.initialize()
        return model.__dict__[name]

    def put(model: Layer, value: Array) -> None:
        if value is not get(model):  # as it is after `model.grad *= 2`
            why = f"cannot replace {name!r}; write model.{name}[:] = ..."
            raise ValueError(f"{type(model).__name__}: {why}")

    return property(get, put, doc=doc)


class Layer(Configured, ABC):
    """A function of a batch, with its backward pass.

    To write a layer, derive from this class, keep parameters (``Parameter``) and inner layers
    as attributes, and define ``forward``. A layer that draws random numbers has an attribute
    ``rng``, None until the model sets it to a ``numpy.random.Generator``.
    """

    buffers: ClassVar[tuple[str, ...] | None] = None
    """The names of the arrays that the layer keeps but does not learn, such as running means.

    ``forward`` may replace them in training. They are saved, copied and restored with the
    parameters, and those of floats have the parameters' dtype. An array that is neither a parameter
    nor declared is an error when a model is built: ``buffers = ()`` says that none is to be saved.
    """

    skips_input_grad: ClassVar[bool] = False
    """Whether ``backward(dy, input_grad=False)`` writes the parameters' gradients and returns None.

    A subclass with its own ``forward`` does not inherit it."""

    gives_probabilities: ClassVar[bool] = False
    """Whether the outputs are probabilities. A subclass with its own ``forward`` does not inherit
    it."""

    input_scale: float | None = None
    """The factor of uint8 rows in the training; None for a model that ``fit`` did not train."""

    theta: Array = _vector("theta", "All parameters in one vector; each one is a view into it.")
    grad: Array = _vector("grad", "All gradients in one vector, in the order of ``theta``.")

    def __init_subclass__(cls) -> None:
        if "forward" in vars(cls):
            cls.forward = quietly(cls.forward)  # type: ignore[method-assign]
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

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments by name; see ``Configured``."""
        found = super().config()
        for name, value in found.items():
            if isinstance(value, Parameter):
                found[name] = value.value if value.is_set else ...
        return found

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield every parameter with its name, in the order of ``theta``."""
        return named_parameters(self)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the parameters, also if it is only asked for; of the buffers; or float32."""
        if "theta" in self.__dict__:
            return self.theta.dtype
        parameters = [p for _, p in self.named_parameters()]
        kinds = [k for p in parameters if (k := p.value.dtype if p.is_set else p.asked)]
        kinds = kinds or [b.dtype for _, b in parameter.named_buffers(self) if b.dtype.kind == "f"]
        return np.result_type(*kinds) if kinds else np.dtype(np.float32)

    @quietly
    def initialize(self, rng: Rng | None = None, dtype: DTypeLike | None = None) -> Self:
        """Draw the missing values from ``rng`` and gather all parameters in the two flat vectors.

        Each layer that draws in training (dropout) gets a stream of its own by ``Generator.spawn``.
        The dtype is by default that of the values that are set or were given one, else float32.
        ValueError if a value is missing and there is no ``rng``, a parameter occurs twice, or
        belongs to another model that is in use.
        """
        parameter.check_owners(self)
        self.draw(rng, dtype)
        kind = self.dtype if dtype is None else np.dtype(dtype)
        parameter.gather(self, kind)
        floats = ((n, b) for n, b in parameter.named_buffers(self) if b.dtype.kind == "f")
        parameter.set_buffers(self, {n: b.astype(kind, copy=False) for n, b in floats})
        return self

    def draw(self, rng: Rng | None = None, dtype: DTypeLike | None = None) -> None:
        """Draw the missing values, without gathering; ``initialize`` has the parameters."""
        kind = as_dtype(type(self).__name__, self.dtype if dtype is None else dtype)
        if rng is not None:
            generator = as_generator(rng)
            for _, p in self.named_parameters():
                p.initialize(generator, kind)
            for layer in walk(self):
                if getattr(layer, "rng", self) is None:
                    layer.rng = generator.spawn(1)[0]

    def forget_vectors(self) -> None:
        """Drop ``theta`` and ``grad``; they are gathered again from the parameters on first use."""
        for name in ("theta", "grad"):
            self.__dict__.pop(name, None)

    def copy(self, dtype: DTypeLike | None = None) -> Self:
        """Return an independent copy, in another dtype if one is given."""
        return copy.deepcopy(self).initialize(dtype=dtype)

    def __getstate__(self) -> dict[str, Any]:
        # Copies of views are not views, so a copy makes its flat vectors on first use.
        return {k: v for k, v in vars(self).items() if k not in ("theta", "grad", "_training")}

    def __setattr__(self, name: str, value: object) -> None:
        owner, old = type(self).__name__, vars(self).get(name)
        if "theta" in vars(self) and value is not old and (holds(value) or holds(old)):
            hint = "assign to parameter.value, or build a new model"
            raise ValueError(f"{owner}: cannot replace {name!r}: {hint}")
        object.__setattr__(self, name, value)

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of every parameter's value and every buffer by its name, as in PyTorch.

        The weight of a ``Linear`` is transposed there; see ``minidl.saving.safetensors``.
        """
        places = parameter.places(self)
        return {path: np.array(parameter.array_at(owner, at)) for path, owner, at in places}

    @quietly
    def load_state_dict(self, state_dict: Mapping[str, Array]) -> None:
        """Set all parameters and buffers to the values of a state, or none on an error.

        ValueError if a name is missing or unknown, a shape differs, or a value is not a number;
        TypeError for a tensor of PyTorch, see ``minidl.saving.safetensors.load_torch_state``.
        """
        owner = type(self).__name__
        for name, value in state_dict.items():
            if type(value).__module__.partition(".")[0] == "torch":
                hint = "use minidl.safetensors.load_torch_state(model, state)"
                raise TypeError(f"{owner}: {name!r} is a tensor of PyTorch; {hint}")
        found = list(parameter.places(self))
        own = {path: parameter.array_at(part, name) for path, part, name in found}
        new = parameter.check_state(owner, own, state_dict)
        for path, part, name in found:
            setattr(part, name, new[path])


def check_input(layer: Layer, x: Array, features: int, like: Array) -> Array:
    """Return a batch as an array; raise an error that names the layer if it does not fit."""
    x = as_array(layer, "x", x)
    if x.ndim != 2 or x.shape[1] != features:
        raise ValueError(f"{layer!r}: expected x of shape (n, {features}), got {x.shape}")
    if x.dtype != like.dtype:
        raise TypeError(f"{layer!r}: expected x of dtype {like.dtype}, got {x.dtype}")
    return x


def _input(layer: Layer, x: Array) -> Array:
    """Return a batch as an array; a tuple or a dict of several, for one's own layer, as it is."""
    if type(x) is np.ndarray and x.dtype.isnative:  # as in training, where it is all that is done
        return x
    return x if isinstance(x, (tuple, dict)) else as_array(type(layer).__name__, "x", x)


def write_gradients(layer: object, backward: Backward, dy: Array) -> None:
    """Write the gradients of the parameters of ``layer``, without the input's if it can skip it."""
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
        model, this one computes outputs, but cannot be trained.
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
                raise TypeError(f"Sequential: expected a layer at position {i}, got {layer!r}")
        self.layers = tuple(layers)
        parameter.check_buffers(self)
        dtype = None if dtype is None else as_dtype("Sequential", dtype)
        # Without the input's gradient, the backward pass ends at the first layer with parameters.
        self._first = next(
            (i for i, layer in enumerate(layers) if any(named_parameters(layer))), len(layers)
        )
        if parameter.shared_parameter(self) and (dtype is None or dtype == self.dtype):
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

    def summary(self) -> str:
        """Return a table of the layers, their output shapes and their parameter counts."""
        features = next((v.in_features for v in walk(self) if hasattr(v, "in_features")), None)
        x = None if features is None else np.zeros((0, features), self.dtype)
        rows = [("", "layer", "output", "parameters")]
        for i, layer in enumerate(self.layers):
            x = None if x is None else infer(layer, x)
            shape = "" if x is None else f"(n, {', '.join(map(str, x.shape[1:]))})"
            count = sum(p.size for _, p in named_parameters(layer))
            rows.append((str(i), repr(layer), shape, f"{count:,}"))
        w = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"{a:>{w[0]}}  {b:<{w[1]}}  {c:<{w[2]}}  {d:>{w[3]}}" for a, b, c, d in rows]
        total = sum(p.size for _, p in self.named_parameters())
        size = total * self.dtype.itemsize / 1e6
        last = f"{total:,} parameters, {self.dtype}, {size:.2f} MB"
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], last])


def last_layer(model: object) -> object:
    """Return the layer that gives the outputs of a model: the last one, at any depth."""
    return [model, *in_order(model)][-1]


def in_order(model: Any) -> Iterator[Any]:
    """Yield the layers of nested ``Sequential`` one after another."""
    if isinstance(model, Sequential) and type(model).forward is Sequential.forward:
        for layer in model.layers:
            yield from in_order(layer)
    else:
        yield model


Forward = Callable[..., tuple[Array, Backward]]


def check_model(owner: str, model: object) -> None:
    """Raise an error, in the name of ``owner``, unless ``model`` can be trained."""
    if not isinstance(model, Layer):
        want = "Sequential(layer)" if is_layer(model) else "a model"
        raise TypeError(f"{owner}: expected {want}, got {type_text(model)}")
    parameter.check_buffers(model)
    parameter.check_vectors(model)


@contextmanager
def checked(model: object) -> Iterator[Forward]:
    """Check, within this context, what the layers of a model return; yield its ``forward``.

    Checked are the model and the layers of each ``Sequential`` in it: ``forward`` returns an
    output of floats of the input's dtype, with a row for each of the input's, and a function;
    this returns an array of the input's shape and dtype. TypeError or ValueError in a pass within
    the context names the first layer that breaks the contract.
    """
    outer = type(model).__name__ if isinstance(model, Sequential) else short_text(model)
    places: dict[int, tuple[str, Any]] = {id(model): (outer, model)}
    for prefix, layer in parameter.named_layers(model):
        if isinstance(layer, Sequential):
            for i, inner in enumerate(layer.layers):
                places[id(inner)] = f"layer {prefix}{i}, {short_text(inner)}", inner
    before = [(vars(layer), vars(layer).get("forward")) for _, layer in places.values()]
    for name, layer in places.values():
        # An attribute of the object hides the method of the class.
        vars(layer)["forward"] = _checked_forward(name, layer)
    try:
        yield model.forward  # type: ignore[attr-defined]
    finally:
        for names, forward in before:
            del names["forward"]
            if forward is not None:
                names["forward"] = forward


def _checked_forward(name: str, layer: Any) -> Forward:
    """Return the ``forward`` of a layer, with checks of what it and its ``backward`` return."""
    forward: Forward = layer.forward

    def checked_forward(x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        result: Any = forward(x, train=train)
        y, backward = returned_pass(name, "forward(x, train=...)", result)
        returned_floats(f"{name}: expected forward's output to be", y, x.dtype)
        if y.shape[:1] != x.shape[:1]:
            want = f"forward's output to have {len(x)} rows, as its input"
            raise ValueError(f"{name}: expected {want}, got {type_text(y)}")

        def checked_backward(dy: Array, **options: bool) -> Any:
            try:
                dx = backward(dy, **options)
            except TypeError as error:
                if takes(backward, dy, **options):
                    raise
                want = "def backward(dy, input_grad=True)"
                what = f"{name}: its class declares skips_input_grad; expected {want}"
                raise TypeError(what) from error
            if options.get("input_grad", True):
                want = f"{name}: expected backward(dy) to return dx,"
                returned_floats(want, dx, x.dtype, x.shape)
            return dx

        return y, checked_backward

    return checked_forward


def name_probabilities(owner: str, model: object, loss: object) -> None:
    """Warn if a model ends with a layer that gives probabilities, and the loss expects logits."""
    last = last_layer(model)
    if getattr(last, "gives_probabilities", False) and getattr(loss, "expects_logits", False):
        here = str(Path(__file__).parent)
        inside = [frame.filename.startswith(here) for frame in inspect.stack(0)]
        warnings.warn(
            f"{owner}: the model ends with {last!r}, which gives probabilities, but {loss!r} "
            "expects logits; leave that layer out, and use minidl.probabilities(model, x, loss)",
            stacklevel=inside.index(False) + 1,
        )
