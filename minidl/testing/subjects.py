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
from minidl.parameter import Parameter, walk
from minidl.testing.adapters import Cached
from minidl.testing.calling import float_output, gradient_like
from minidl.testing.layouts import copy_with_strides
from minidl.testing.state import State, attributes_restored
from minidl.typing import Array

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
    the gradient of the tensor ``{}`` in errors. ``title`` and ``details`` head the report.
    ``rows(k)`` is the same subject at k rows of its inputs.

    A layer itself is run, not a deep copy: a copy of an object that holds closures would share
    their variables. So its passes, unlike others, must be made within ``preserved``.
    """

    source: Any
    name: str
    title: str
    details: str
    tensors: dict[str, Array]
    forward: Callable[[dict[str, Array]], tuple[Any, Pull]]
    expected: tuple[str, str]
    parameters: dict[str, Parameter] = field(default_factory=dict)
    layers: list[Any] = field(default_factory=list)
    train: bool = True
    axis: int = -1
    notes: tuple[str, ...] = ()
    rows: Callable[[int], Subject] | None = None
    numpy_seed: int | None = None

    def run(self, tensors: Tensors) -> Pass:
        """Run one pass at these values; their dtypes decide the precision."""
        given = {name: copy_with_strides(value) for name, value in tensors.items()}
        for key, p in self.parameters.items():
            if p.value.dtype != given[key].dtype:
                self._convert(key, given[key].dtype)
            p.value[...], p.grad[...] = given[key], 0
        self.state.before_pass()
        output, gradient = (f"{self.name}: expected {phrase}" for phrase in self.expected)
        y, raw_pull = self.forward(given)
        y = float_output(y, output)
        given.update((key, p.value) for key, p in self.parameters.items())

        def pull(dy: Array) -> dict[str, Array]:
            given["cotangent"] = dy = copy_with_strides(dy)
            gradients = [*raw_pull(dy), *(p.grad for p in self.parameters.values())]
            return {
                name: gradient_like(tensors[name], d, gradient.format(name))
                for name, d in zip(self.tensors, gradients, strict=True)
            }

        return Pass(y.copy(), pull, raw_pull, given)

    def _convert(self, key: str, dtype: np.dtype[Any]) -> None:
        """Give a parameter arrays of another dtype, or its own arrays again."""
        value, grad = (a if a.dtype == dtype else a.astype(dtype) for a in self.state.arrays[key])
        self.parameters[key].bind(value, grad)
        for layer in self.layers:
            if isinstance(layer, Layer):
                layer.forget_vectors()

    def label(self, tensor: str) -> str:
        """Return the name of a tensor in messages, as ``Linear.weight``."""
        return f"{self.name}.{tensor}"

    @property
    def inputs(self) -> list[str]:
        """The names of the tensors that are no parameters."""
        return [name for name in self.tensors if name not in self.parameters]

    @contextmanager
    def preserved(self, rng: np.random.Generator) -> Iterator[None]:
        """Restore, after this context, all that a pass may change (``State``)."""
        self.state = State(self.layers, self.parameters, rng, self.numpy_seed)
        try:
            yield
        finally:
            self.state.restore()

    @contextmanager
    def one_object(self) -> Iterator[None]:
        """Run all passes of this context on the same objects, from new ones on."""
        adapters = [layer for layer in self.layers if isinstance(layer, Cached)]
        self.state.as_new()
        with attributes_restored(self.layers):
            for adapter in adapters:
                adapter.keep_object()
            yield

    @contextmanager
    def tapped(self, tap: Tap) -> Iterator[None]:
        """Pass the inputs and cotangents of the innermost layers through ``tap``.

        An attribute with a ``forward`` of another style is no layer, and not tapped.
        """

        def redirected(layer: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
            def through_tap(x: Any, *args: Any, **options: Any) -> Any:
                if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
                    return forward(x, *args, **options)
                x, tap_cotangent = tap(layer, x)
                result = forward(x, *args, **options)
                if not returns_backward(result):
                    return result
                y, backward = result
                return y, lambda dy, **skip: backward(tap_cotangent(dy), **skip)

            return through_tap

        innermost = self.innermost()
        with attributes_restored(innermost):
            for layer in innermost:
                layer.forward = redirected(layer, layer.forward)
            yield

    def innermost(self) -> list[Any]:
        """Return the layers in this one that hold no layers themselves."""
        wrapped = {id(m) for c in self.layers if isinstance(c, Cached) for m in [*walk(c)][1:]}
        return [
            m
            for m in self.layers[1:]
            if id(m) not in wrapped and (isinstance(m, Cached) or len([*walk(m)]) == 1)
        ]

    def inner_calls(self, tensors: Tensors, dy: Array) -> list[tuple[Any, Array, Array]]:
        """Return the innermost layers, each with its input in this pass and its cotangent."""
        calls: list[tuple[Any, Array, Array]] = []

        def tap(layer: Any, x: Array) -> tuple[Array, Callable[[Array], Array]]:
            def tap_cotangent(dy: Array) -> Array:
                calls.append((layer, copy_with_strides(x), copy_with_strides(dy)))
                return dy

            return x, tap_cotangent

        with self.tapped(tap):
            self.run(tensors).pull(dy)
        self.state.before_pass()
        return calls


def returns_backward(result: Any) -> bool:
    """Return whether a forward pass returned ``y, backward``."""
    return isinstance(result, tuple) and len(result) == 2 and callable(result[1])
