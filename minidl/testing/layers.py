"""Layers as subjects: their parameters, their state and the layers inside them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from minidl.checks import Array, Backward, is_layer, returned_pass, takes, type_text
from minidl.layer import Layer
from minidl.parameter import Parameter, declared_buffers, named_parameters, walk
from minidl.testing.cached import Cached
from minidl.testing.subjects import Subject, Tap, Tensors

WRITE = (
    "write: def forward(self, x, *, train=False): ...; return y, backward; "
    'or adapt it: Cached(layer, W="dW"), AdaptedLoss(loss.value, loss.gradient)'
)


@contextmanager
def kept(objects: list[Any]) -> Iterator[Callable[[], None]]:
    """Put back the attributes of objects, and the contents of arrays among them; on call too."""
    attributes = [(vars(o), dict(vars(o))) for o in objects]
    arrays = [v for _, then in attributes for v in then.values() if isinstance(v, np.ndarray)]
    contents = [(a, a.copy()) for a in arrays]

    def put_back() -> None:
        for now, then in attributes:
            now.clear()
            now.update(then)
        for array, content in contents:
            if array.flags.writeable:
                array[...] = content

    try:
        yield put_back
    finally:
        put_back()


class LayerSubject(Subject):
    """A layer at its inputs and the values of its parameters.

    The layer itself is run, within ``preserved``: a copy of closures would share their variables.
    ``layers`` are it and those inside it, ``arrays`` the parameters' own values and gradients.
    """

    def __init__(
        self, layer: Any, x: Any = (), *, train: bool = True, fixed: Mapping[str, Any] | None = None
    ) -> None:
        if not is_layer(layer) or not hasattr(layer, "__dict__"):
            want = "an object with forward(x, train=...) -> y, backward"
            got = f"{type_text(layer)}; {WRITE}"
            raise TypeError(f"{type(layer).__name__}: expected {want}, got {got}")
        forward, adapted = layer.forward, isinstance(layer, Cached)
        passes = {"forward": forward, "backward(dy)": forward}
        function = layer.method if adapted else forward
        super().__init__("check_layer", layer, passes, forward, x, fixed, function, "input")
        self.train, self.layers = train, list(walk(layer))
        self.name = type(layer.layer if adapted else layer).__name__
        if not takes(forward, *self.arguments, train=True):
            given = ", ".join(self.arguments).replace("input", "x") or "no x"
            raise TypeError(f"{self.name}: expected forward to take {given} and train=; {WRITE}")
        once: dict[int, tuple[str, Parameter]] = {}  # a parameter may stand at several places
        for key, p in named_parameters(layer):
            once.setdefault(id(p), (key, p))
        self.parameters = dict(once.values())
        self.tensors |= {key: p.value.copy() for key, p in self.parameters.items()}
        self.details = f"{self.details}, train={train}".removeprefix(", ")
        adapters = [m for m in self.layers if isinstance(m, Cached)]
        self.notes = (*self.notes, *(note for m in adapters for note in m.notes(train)))

    def forward(self, given: dict[str, Array], **options: Any) -> tuple[Any, Backward]:
        for key, p in self.parameters.items():
            p.bind(given[key], np.zeros_like(given[key]))
        self._before_pass()
        result = super().forward(given, train=self.train)
        return returned_pass(self.name, "forward(x, train=...)", result)

    def _before_pass(self) -> None:
        """Put back the random generators, and the buffers that a layer declares."""
        for owner, name, value in self._before:
            setattr(owner, name, copy.copy(value))

    @contextmanager
    def preserved(self, rng: np.random.Generator) -> Iterator[None]:
        """Restore the attributes, the parameters, the arrays and the random states too."""
        self.arrays = {key: (p.value, p.grad) for key, p in self.parameters.items()}
        with super().preserved(rng), kept(self.layers):
            for layer in self.layers:
                if getattr(layer, "rng", layer) is None:
                    layer.rng = rng.spawn(1)[0]
                if isinstance(layer, Layer):  # each pass has arrays of its own
                    layer.forget_vectors()
            self._before = list(self._random_states_and_buffers())
            try:
                with kept(self.layers) as self._make_new:
                    yield
            finally:
                self._before_pass()
                for key, p in self.parameters.items():
                    p.bind(*self.arrays[key])

    def _random_states_and_buffers(self) -> Iterator[tuple[Any, str, Any]]:
        """Yield the objects that hold them, the names of the attributes, and their values."""
        for layer in self.layers:
            for value in vars(layer).values():
                if isinstance(value, np.random.Generator):
                    yield value.bit_generator, "state", value.bit_generator.state
            for name in declared_buffers(layer) or ():
                if isinstance(array := getattr(layer, name, None), np.ndarray):
                    yield layer, name, array.copy()

    @contextmanager
    def one_object(self) -> Iterator[None]:
        """Run all passes of this context on the same objects, from new ones on."""
        self._make_new()
        for layer in self.layers:
            if isinstance(layer, Cached):
                layer.keep_object()
        try:
            yield
        finally:
            self._make_new()

    @contextmanager
    def tapped(self, tap: Tap) -> Iterator[None]:
        """Pass the inputs and cotangents of the innermost layers through ``tap``."""

        def redirected(layer: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
            def through_tap(x: Any, *args: Any, **options: Any) -> Any:
                tap_cotangent = None
                if isinstance(x, np.ndarray) and x.dtype.kind == "f":
                    x, tap_cotangent = tap(layer, x)
                result = forward(x, *args, **options)
                ours = isinstance(result, tuple) and len(result) == 2 and callable(result[1])
                if tap_cotangent is None or not ours:
                    return result
                y, backward = result
                return y, lambda dy, **skip: backward(tap_cotangent(dy), **skip)

            return through_tap

        innermost = self.innermost()
        with kept(innermost):
            for layer in innermost:
                layer.forward = redirected(layer, layer.forward)
            yield

    def innermost(self) -> list[Any]:
        """Return the layers in this one that hold no layers themselves."""
        wrapped = {id(m) for c in self.layers if isinstance(c, Cached) for m in [*walk(c)][1:]}
        inner = [m for m in self.layers[1:] if id(m) not in wrapped]
        return [m for m in inner if isinstance(m, Cached) or len([*walk(m)]) == 1]

    def inner_calls(self, tensors: Tensors, dy: Array) -> list[tuple[Any, Array, Array]]:
        """Return the innermost layers, each with its input and cotangent, if all were called."""
        calls: list[tuple[Any, Array, Array]] = []

        def tap(layer: Any, x: Array) -> tuple[Array, Callable[[Array], Array]]:
            def tap_cotangent(dy: Array) -> Array:
                calls.append((layer, np.copy(x), np.copy(dy)))
                return dy

            return x, tap_cotangent

        with self.tapped(tap):
            self.run(tensors).pull(dy)
        self._before_pass()
        called = {id(layer) for layer, _, _ in calls}
        return calls if all(id(m) in called for m in self.innermost()) else []
