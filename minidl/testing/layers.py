"""Layers as subjects: their parameters, their state and the layers inside them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minidl.checks import Array, is_layer, returned_pass, type_text
from minidl.layer import Layer
from minidl.parameter import Parameter, declared_buffers, named_parameters, walk
from minidl.testing.cached import Cached
from minidl.testing.subjects import (
    Arguments,
    Pull,
    Subject,
    Tap,
    Tensors,
    accepts,
    copy_with_strides,
    described,
    joined,
    title,
)

CONTRACT = "write: def forward(self, x, *, train=False): ...; return y, backward"
ADAPTERS = 'or adapt it: Cached(layer, W="dW"), AdaptedLoss(loss.value, loss.gradient)'


class Snapshot:
    """The attributes of objects, and the contents of arrays among them."""

    def __init__(self, objects: Sequence[Any]) -> None:
        self._attributes = [(vars(o), dict(vars(o))) for o in objects]
        arrays = [v for _, then in self._attributes for v in then.values()]
        self._contents = [(a, a.copy()) for a in arrays if isinstance(a, np.ndarray)]

    def put_back(self) -> None:
        """Give the objects these attributes, and the arrays these contents, again."""
        for now, then in self._attributes:
            now.clear()
            now.update(then)
        for array, content in self._contents:
            if array.flags.writeable:
                array[...] = content

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Put everything back after this context."""
        try:
            yield
        finally:
            self.put_back()


class LayerSubject(Subject):
    """A layer at its inputs and the values of its parameters.

    The layer itself is run, not a deep copy: a copy of an object that holds closures would share
    their variables. So its passes must be made within ``preserved``.

    Attributes
    ----------
    layers : list
        The layer and those inside it.
    arrays : dict
        The parameters' own values and gradients, within ``preserved``.
    """

    def __init__(
        self, layer: Any, x: Any = (), *, train: bool = True, fixed: Mapping[str, Any] | None = None
    ) -> None:
        self.source, self.train = layer, train
        adapted = isinstance(layer, Cached)
        self.name = type(layer.layer if adapted else layer).__name__
        forward = checked_layer(layer)
        signature = layer.method if adapted else forward
        self._arguments = Arguments("check_layer", signature, x, fixed, only="input")
        inputs, self.fixed = self._arguments.tensors, self._arguments.fixed
        names = self._arguments.names
        if not names and accepts(forward, None) and not accepts(forward):
            raise TypeError(
                f"check_layer: expected x, a batch of inputs of {title(layer)}; write: "
                "check_layer(layer, np.random.default_rng(0).standard_normal((8, features)))"
            )
        if not accepts(forward, *names, train=True):
            takes = ", ".join(["x" if n == "input" else n for n in names])
            raise TypeError(
                f"{self.name}: expected forward to take {takes} and train=; {CONTRACT}; {ADAPTERS}"
            )
        self.inputs = list(inputs)
        self._forward = forward
        self.parameters: dict[str, Parameter] = {}
        for key, p in named_parameters(layer):
            if all(p is not q for q in self.parameters.values()):
                self.parameters[key] = p
        self.tensors = {**inputs, **{key: p.value.copy() for key, p in self.parameters.items()}}
        if not self.tensors:
            raise TypeError(f"{self.name}: nothing to check, neither inputs nor parameters")
        self.layers = list(walk(layer))
        shapes = described({re.sub(r"^input\b", "x", key): v for key, v in inputs.items()})
        self.title = title(layer)
        self.details = f"{shapes}, train={train}".removeprefix(", ")
        self.expected = (
            "forward's output",
            f"backward(dy) to return {'dx' if len(inputs) == 1 else 'd{}'}",
        )
        adapters = [m for m in self.layers if isinstance(m, Cached)]
        self.notes = (*self._arguments.notes, *(note for m in adapters for note in m.notes(train)))

    def forward(self, given: dict[str, Array]) -> tuple[Any, Pull]:
        self._put_parameters(given)
        self._before_pass()
        values = self._arguments.values(given, self.fixed)
        result = self._arguments.call(self._forward, values, train=self.train)
        output, backward = returned_pass(self.name, "forward(x, train=...)", result)
        y, apart = joined(f"{self.name}: expected forward's output to be", output)
        given.update((key, p.value) for key, p in self.parameters.items())

        def pull(dy: Array, **options: Any) -> list[Any]:
            expected = f"{self.name}: expected backward(dy) to return"
            got = backward(apart(dy), **options)
            gradients = self._arguments.gradients(expected, got)
            return [*gradients, *(p.grad for p in self.parameters.values())]

        return y, pull

    def _put_parameters(self, values: Tensors) -> None:
        """Give the parameters these values and gradients of 0, in the dtype of the values."""
        for key, p in self.parameters.items():
            dtype = values[key].dtype
            if p.value.dtype != dtype:
                own = self.arrays[key]
                p.bind(*(a if a.dtype == dtype else a.astype(dtype) for a in own))
                for layer in self.layers:
                    if isinstance(layer, Layer):
                        layer.forget_vectors()
            p.value[...], p.grad[...] = values[key], 0

    def _before_pass(self) -> None:
        """Put back the random generators, and the buffers that a layer declares."""
        for bits, state in self._generators:
            bits.state = state
        for layer, name, content in self._buffers:
            setattr(layer, name, content.copy())

    @contextmanager
    def preserved(self, rng: np.random.Generator) -> Iterator[None]:
        """Restore the attributes, the parameters, the arrays and the random states too."""
        self.arrays = {key: (p.value, p.grad) for key, p in self.parameters.items()}
        contents = [(a, a.copy()) for pair in self.arrays.values() for a in pair]
        with super().preserved(rng), Snapshot(self.layers).restored():
            for layer in self.layers:
                if getattr(layer, "rng", layer) is None:
                    layer.rng = rng.spawn(1)[0]
            self._as_new = Snapshot(self.layers)
            attributes = [v for layer in self.layers for v in vars(layer).values()]
            bits = [v.bit_generator for v in attributes if isinstance(v, np.random.Generator)]
            self._generators = [(b, b.state) for b in bits]
            self._buffers = [
                (layer, name, getattr(layer, name).copy())
                for layer in self.layers
                for name in declared_buffers(layer) or ()
                if isinstance(getattr(layer, name, None), np.ndarray)
            ]
            try:
                yield
            finally:
                self._before_pass()
                for key, p in self.parameters.items():
                    p.bind(*self.arrays[key])
                for array, content in contents:
                    array[...] = content

    @contextmanager
    def one_object(self) -> Iterator[None]:
        """Run all passes of this context on the same objects, from new ones on."""
        self._as_new.put_back()
        with self._as_new.restored():
            for layer in self.layers:
                if isinstance(layer, Cached):
                    layer.keep_object()
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
                if not (isinstance(result, tuple) and len(result) == 2 and callable(result[1])):
                    return result
                y, backward = result
                return y, lambda dy, **skip: backward(tap_cotangent(dy), **skip)

            return through_tap

        innermost = self.innermost()
        with Snapshot(innermost).restored():
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
        self._before_pass()
        return calls


def checked_layer(layer: Any) -> Callable[..., Any]:
    """Return the ``forward`` of a layer; TypeError if it has none."""
    if isinstance(layer, type):
        raise TypeError(f"expected a layer, got the class {layer.__name__}: make one of it first")
    if not is_layer(layer) or not hasattr(layer, "__dict__"):
        raise TypeError(
            f"{type(layer).__name__}: expected an object with forward(x, train=...) -> y, "
            f"backward, got {type_text(layer)}; {CONTRACT}; {ADAPTERS}"
        )
    forward: Callable[..., Any] = layer.forward
    return forward
