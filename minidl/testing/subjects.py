"""One form for all that can be checked: a function of named tensors with its backward pass.

The caller's arrays are never modified: every pass gets copies, in the caller's memory layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl.layer import Layer
from minidl.parameter import Parameter, is_layer, named_parameters, walk
from minidl.testing.adapters import Cached, accepts
from minidl.testing.layouts import copy_with_strides
from minidl.testing.report import ContractError
from minidl.typing import Array, Backward

Tensors = Mapping[str, Array]
Pull = Callable[..., Sequence[Any]]
"""``pull(dy)`` returns the gradients of the inputs in order."""
Tap = Callable[[Any, Array], tuple[Array, Callable[[Array], Array]]]
"""``tap(layer, x)`` returns the input to use, and a function that is applied to the cotangent."""


@dataclass(frozen=True)
class Pass:
    """One forward pass: a copy of the output, and the gradients for a cotangent.

    ``pull`` returns checked copies of all gradients by name, ``raw_pull`` is the subject's own.
    ``given`` are the arrays that the subject received, after ``pull`` the cotangent too.
    """

    y: Array
    pull: Callable[[Array], dict[str, Array]]
    raw_pull: Pull
    given: dict[str, Array]


@dataclass
class Subject:
    """A function of named tensors with its backward pass.

    ``forward`` takes copies of the tensors, and returns the output and a ``Pull``. ``tensors``
    are the inputs, then the ``parameters``. ``expected`` are the phrases for the output and for
    the gradient of the tensor ``{}`` in errors.

    A layer itself is run, not a deep copy: a copy of an object that holds closures would share
    their variables. So its passes, unlike others, must be made within ``preserved``.
    """

    source: Any
    name: str
    title: str
    tensors: dict[str, Array]
    forward: Callable[[dict[str, Array]], tuple[Any, Pull]]
    expected: tuple[str, str]
    parameters: dict[str, Parameter] = field(default_factory=dict)
    layers: list[Any] = field(default_factory=list)
    train: bool = True
    axis: int = -1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._generators: list[tuple[Any, Any]] = []

    def run(self, tensors: Tensors) -> Pass:
        """Run one pass at these values; their dtypes decide the precision."""
        given = {name: copy_with_strides(value) for name, value in tensors.items()}
        for key, p in self.parameters.items():
            if p.value.dtype != given[key].dtype:
                self._convert(key, given[key].dtype)
            p.value[...], p.grad[...] = given[key], 0
        self._reset_generators()
        output, gradient = (f"{self.name}: expected {phrase}" for phrase in self.expected)
        y, raw_pull = self.forward(given)
        y = checked_output(y, output)
        given.update((key, p.value) for key, p in self.parameters.items())

        def pull(dy: Array) -> dict[str, Array]:
            given["cotangent"] = dy = copy_with_strides(dy)
            gradients = [*raw_pull(dy), *(p.grad for p in self.parameters.values())]
            return {
                name: checked_gradient(tensors[name], d, gradient.format(name))
                for name, d in zip(self.tensors, gradients, strict=True)
            }

        return Pass(y.copy(), pull, raw_pull, given)

    def _convert(self, key: str, dtype: np.dtype[Any]) -> None:
        """Give a parameter arrays of another dtype, or its own arrays again."""
        value, grad = (a if a.dtype == dtype else a.astype(dtype) for a in self._arrays[key])
        self.parameters[key].bind(value, grad)
        for layer in self.layers:
            if isinstance(layer, Layer):
                layer.forget_vectors()

    def _reset_generators(self) -> None:
        for bits, state in self._generators:
            bits.state = state

    def label(self, tensor: str) -> str:
        """Return the name of a tensor in messages, as ``Linear.weight``."""
        return f"{self.name}.{tensor}"

    @contextmanager
    def preserved(self, rng: np.random.Generator) -> Iterator[None]:
        """Restore, after this context, all that a pass may change in the layers.

        These are values, gradients, attributes, arrays among those, and the states of random
        generators. A layer that has no generator yet gets one for this context.
        """
        self._arrays = {key: (p.value, p.grad) for key, p in self.parameters.items()}
        arrays = [v for m in self.layers for v in vars(m).values() if isinstance(v, np.ndarray)]
        arrays += [array for pair in self._arrays.values() for array in pair]
        contents = [array.copy() for array in arrays]
        with _attributes_restored(self.layers):
            for layer in self.layers:
                if getattr(layer, "rng", layer) is None:
                    layer.rng = rng.spawn(1)[0]
            values = [v for m in self.layers for v in vars(m).values()]
            bits = [v.bit_generator for v in values if isinstance(v, np.random.Generator)]
            self._generators = [(b, b.state) for b in bits]
            try:
                yield
            finally:
                self._reset_generators()
                for key, p in self.parameters.items():
                    p.bind(*self._arrays[key])
                for array, content in zip(arrays, contents, strict=True):
                    if array.flags.writeable:
                        array[...] = content

    @contextmanager
    def tapped(self, tap: Tap) -> Iterator[None]:
        """Pass the inputs and cotangents of the innermost layers through ``tap``."""
        wrapped = {id(m) for c in self.layers if isinstance(c, Cached) for m in [*walk(c)][1:]}
        innermost = [
            m
            for m in self.layers[1:]
            if id(m) not in wrapped and (isinstance(m, Cached) or len([*walk(m)]) == 1)
        ]

        def redirected(layer: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
            def through_tap(x: Array, **options: Any) -> tuple[Array, Backward]:
                x, tap_cotangent = tap(layer, x)
                y, backward = forward(x, **options)
                return y, lambda dy, **skip: backward(tap_cotangent(dy), **skip)

            return through_tap

        with _attributes_restored(innermost):
            for layer in innermost:
                layer.forward = redirected(layer, layer.forward)
            yield

    def inner_layers(self, tensors: Tensors, dy: Array) -> list[tuple[Subject, Array]]:
        """Return the innermost layers, each at its input in this pass, with its cotangent."""
        calls: list[tuple[Any, Array, Array]] = []

        def tap(layer: Any, x: Array) -> tuple[Array, Callable[[Array], Array]]:
            def tap_cotangent(dy: Array) -> Array:
                calls.append((layer, copy_with_strides(x), copy_with_strides(dy)))
                return dy

            return x, tap_cotangent

        with self.tapped(tap):
            self.run(tensors).pull(dy)
        self._reset_generators()
        return [(layer_subject(m, x, self.train), d) for m, x, d in calls]


def layer_subject(layer: Any, x: Array, train: bool) -> Subject:
    """Return a layer as a subject, at ``x`` and the values of its parameters."""
    name = type(layer).__name__
    how = "write: def forward(self, x, *, train=False): ...; return y, backward"
    if isinstance(layer, type):
        raise TypeError(f"expected a layer, got the class {layer.__name__}: make one of it first")
    if not is_layer(layer) or not hasattr(layer, "__dict__"):
        raise TypeError(
            f"{name}: expected an object with forward(x, train=...) -> y, backward, "
            f"got {describe(layer)}; {how}"
        )
    if not accepts(layer.forward, None, train=True):
        raise TypeError(f"{name}: expected forward to take x and train=; {how}")
    parameters: dict[str, Parameter] = {}
    for key, p in named_parameters(layer):
        if all(p is not q for q in parameters.values()):
            parameters[key] = p
    layers = list(walk(layer))
    attributes = [(key, v) for m in layers for key, v in vars(m).items()]
    arrays = [k for k, v in attributes if isinstance(v, np.ndarray) and v.dtype.kind == "f"]
    note = (
        f"{', '.join(arrays)}: plain arrays, not checked as parameters; make them "
        "minidl.Parameter, or wrap the layer in minidl.testing.Cached"
    )
    notes = (note,) if arrays and not parameters else ()

    def forward(given: dict[str, Array]) -> tuple[Any, Pull]:
        result = layer.forward(given["input"], train=train)
        if not (isinstance(result, tuple) and len(result) == 2 and callable(result[1])):
            raise ContractError(
                f"{name}: expected forward(x, train=...) to return the output and a "
                f"function, got {describe(result)}; write: return y, backward"
            )
        y, backward = result
        return y, lambda dy, **options: (backward(dy, **options),)

    title = f"{short(layer)}, x {x.shape} {x.dtype}, train={train}"
    tensors = {"input": x, **{key: p.value.copy() for key, p in parameters.items()}}
    expected = "forward's output", "backward(dy) to return dx"
    return Subject(
        layer, name, title, tensors, forward, expected, parameters, layers, train, notes=notes
    )


@contextmanager
def _attributes_restored(layers: list[Any]) -> Iterator[None]:
    before = [(vars(m), dict(vars(m))) for m in layers]
    try:
        yield
    finally:
        for now, then in before:
            now.clear()
            now.update(then)


def float_array(owner: str, name: str, x: Any) -> Array:
    """Return ``x`` if it is an array of floats; raise TypeError otherwise."""
    if not isinstance(x, np.ndarray) or x.dtype.name not in ("float16", "float32", "float64"):
        raise TypeError(
            f"{owner}: expected {name} to be an array of float32 or float64, got {describe(x)}; "
            f"write: np.asarray({name}, np.float64)"
        )
    return x


def checked_output(y: Any, expected: str) -> Array:
    """Return ``y`` as an array if it holds floats; raise ContractError otherwise."""
    if not isinstance(y, (np.ndarray, np.floating)) or y.dtype.kind != "f":
        raise ContractError(f"{expected} to be an array of floats, got {describe(y)}")
    return np.asarray(y)


def checked_gradient(x: Array, dx: Any, expected: str) -> Array:
    """Return a copy of ``dx`` if it has the shape of ``x``; raise ContractError otherwise."""
    if not isinstance(dx, (np.ndarray, np.floating)) or dx.dtype.kind != "f":
        raise ContractError(f"{expected}, an array of shape {x.shape}, got {describe(dx)}")
    if dx.shape != x.shape:
        hint = "; is a transpose missing?" if dx.shape == x.shape[::-1] else ""
        raise ContractError(f"{expected} of the shape {x.shape}, got {dx.shape}{hint}")
    return np.array(dx)


def describe(value: Any) -> str:
    """Return the type of ``value``, and the shape and dtype of an array, for an error."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}, {value.dtype}"
    if isinstance(value, tuple):
        return f"a tuple ({', '.join(map(describe, value))})"
    return "None" if value is None else f"{type(value).__name__} {short(value)}"


def short(value: Any) -> str:
    """Return the name or ``repr`` of an object, or the name of its type if that is long."""
    text = getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= 70 and "\n" not in text else type(value).__name__
