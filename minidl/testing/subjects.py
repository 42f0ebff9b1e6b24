"""One form for all that can be checked: a function of named tensors with its backward pass.

The caller's arrays are never modified: every pass gets copies, in the caller's memory layout."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl.checks import Array, is_layer
from minidl.layer import Layer
from minidl.losses import shaped_targets
from minidl.parameter import Parameter, declared_buffers, named_parameters, walk
from minidl.testing.cached import AdaptedLoss, Cached, suggestion
from minidl.testing.calling import (
    accepts,
    call,
    describe,
    float_array,
    float_output,
    gradient_like,
    gradients_of,
    in_order,
    joined,
    named,
    short,
)
from minidl.testing.report import ContractError

Layout = Callable[[Array], Array]


def fortran(x: Array) -> Array:
    """Return a copy in Fortran order: the first axis varies fastest."""
    return np.array(x, order="F")


def strided(x: Array) -> Array:
    """Return every other entry of each axis of a larger array; the entries between are NaN."""
    larger = np.full([2 * n for n in x.shape], np.nan, x.dtype)
    view = larger[(slice(None, None, 2),) * x.ndim]
    view[...] = x
    return view


def reversed_strides(x: Array) -> Array:
    """Return a copy with negative strides along every axis."""
    backwards = (slice(None, None, -1),) * x.ndim
    return np.array(x[backwards], order="C")[backwards]


LAYOUTS: dict[str, Layout] = {
    "C": lambda x: np.array(x, order="C"),
    "Fortran": fortran,
    "strided": strided,
    "reversed": reversed_strides,
    "empty": lambda x: x[:0],  # a batch of no examples
}


def copy_with_strides(x: Array) -> Array:
    """Return a copy with the strides of ``x``, so that the caller's memory layout is checked."""
    if x.size == 0 or x.flags.c_contiguous:
        return x.copy()
    ends = [s * (n - 1) for s, n in zip(x.strides, x.shape, strict=True)]
    low, high = sum(min(e, 0) for e in ends), sum(max(e, 0) for e in ends)
    buffer = np.zeros(high - low + x.itemsize, np.uint8)
    copy: Array = np.ndarray(x.shape, x.dtype, buffer.data, -low, x.strides)
    copy[...] = x
    return copy


class State:
    """The state of layers, and of the global random generators, when it was taken.

    These are values, gradients, attributes, arrays among those, and the states of random
    generators. A layer that has no generator yet gets one. Before every pass the generators and
    the ``buffers`` that a layer declares are put back; everything is, by ``restore``.

    Parameters
    ----------
    layers : list
    parameters : mapping of Parameter
    rng : Generator
        Gives generators to layers.
    numpy_seed : int, optional
        Before every pass, seeds the global generators of NumPy and Python.
    """

    def __init__(
        self,
        layers: list[Any],
        parameters: Mapping[str, Parameter],
        rng: np.random.Generator,
        numpy_seed: int | None = None,
    ) -> None:
        self.parameters = parameters
        self.arrays = {key: (p.value, p.grad) for key, p in parameters.items()}
        self._globals = random.getstate(), np.random.get_state()  # noqa: NPY002
        self._numpy_seed = numpy_seed
        self._attributes = _attributes(layers)
        values = [v for m in layers for v in vars(m).values() if isinstance(v, np.ndarray)]
        values += [array for pair in self.arrays.values() for array in pair]
        self._contents = [(array, array.copy()) for array in values]
        for layer in layers:
            if getattr(layer, "rng", layer) is None:
                layer.rng = rng.spawn(1)[0]
        self._at_first = _attributes(layers)
        self._buffers = [
            (layer, name, getattr(layer, name), getattr(layer, name).copy())
            for layer in layers
            for name in declared_buffers(layer) or ()
            if isinstance(getattr(layer, name, None), np.ndarray)
        ]
        attributes = [v for m in layers for v in vars(m).values()]
        bits = [v.bit_generator for v in attributes if isinstance(v, np.random.Generator)]
        self._generators = [(b, b.state) for b in bits]

    def before_pass(self) -> None:
        """Put back the random generators and the buffers."""
        for bits, state in self._generators:
            bits.state = state
        for layer, name, array, content in self._buffers:
            array[...] = content
            setattr(layer, name, array)
        if self._numpy_seed is not None:
            random.seed(self._numpy_seed)
            np.random.seed(self._numpy_seed)  # noqa: NPY002

    def as_new(self) -> None:
        """Put back the attributes of the layers, as before the first pass."""
        _put_back(self._at_first)
        self._put_back_arrays()

    def restore(self) -> None:
        """Put back everything."""
        self.before_pass()
        for key, p in self.parameters.items():
            p.bind(*self.arrays[key])
        self._put_back_arrays()
        _put_back(self._attributes)
        random.setstate(self._globals[0])
        np.random.set_state(self._globals[1])  # noqa: NPY002

    def _put_back_arrays(self) -> None:
        for array, content in self._contents:
            if array.flags.writeable:
                array[...] = content


Attributes = list[tuple[dict[str, Any], dict[str, Any]]]


def _attributes(layers: list[Any]) -> Attributes:
    return [(vars(m), dict(vars(m))) for m in layers]


def _put_back(attributes: Attributes) -> None:
    for now, then in attributes:
        now.clear()
        now.update(then)


@contextmanager
def attributes_restored(layers: list[Any]) -> Iterator[None]:
    """Put the attributes of the layers back after this context."""
    before = _attributes(layers)
    try:
        yield
    finally:
        _put_back(before)


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


Fixed = Mapping[str, Any]


def layer_subject(layer: Any, x: Any, train: bool, fixed: Fixed | None = None) -> Subject:
    """Return a layer as a subject, at its inputs and the values of its parameters."""
    fixed = dict(fixed or {})
    forward_method = checked_layer(layer)
    signature = layer.method if isinstance(layer, Cached) else forward_method
    inputs = named(signature, x, fixed)
    if len(inputs) == 1 and not fixed and not isinstance(x, Mapping):
        inputs = {"input": next(iter(inputs.values()))}
    for key, value in inputs.items():
        float_array("check_layer", "x" if key == "input" else key, value)
    name = type(layer.layer if isinstance(layer, Cached) else layer).__name__
    if not accepts(forward_method, *inputs, *fixed, train=True):
        raise TypeError(
            f"{name}: expected forward to take {', '.join(['x', *list(inputs)[1:], *fixed])} and "
            f"train=; write: {CONTRACT}{suggestion(layer)}"
        )
    parameters: dict[str, Parameter] = {}
    for key, p in named_parameters(layer):
        if all(p is not q for q in parameters.values()):
            parameters[key] = p
    layers = list(walk(layer))
    order = in_order(signature, {key: key for key in [*inputs, *fixed]})
    notes = () if train else tuple(n for m in layers if isinstance(m, Cached) for n in m.notes)

    def forward(given: dict[str, Array]) -> tuple[Any, Pull]:
        values = [given[key] for key in inputs]
        if isinstance(x, Mapping) or fixed:
            arguments = dict(zip(inputs, values, strict=True)) | fixed
            result = forward_method(*in_order(signature, arguments), train=train)
        else:
            result = forward_method(*values, train=train)
        if not returns_backward(result):
            raise ContractError(
                f"{name}: expected forward(x, train=...) to return the output and a "
                f"function, got {describe(result)}; write: return y, backward"
            )
        y, backward = result
        y, apart = joined(y, f"{name}: expected forward's output")

        def pull(dy: Array, **options: Any) -> list[Any]:
            got = backward(apart(dy), **options)
            if len(inputs) == 1 and not fixed and not isinstance(got, (tuple, list, Mapping)):
                return [got]
            expected = f"{name}: expected backward(dy) to return"
            return gradients_of(got, list(inputs), order, expected)

        return y, pull

    def rows(k: int) -> Subject:
        less = first_rows(inputs, k, fixed)
        at = less if isinstance(x, Mapping) else tuple(less[key] for key in inputs)
        return layer_subject(layer, at, train, first_rows(fixed, k, inputs))

    shapes = described({"x" if key == "input" else key: v for key, v in inputs.items()})
    details = f"{shapes}, train={train}" if shapes else f"train={train}"
    tensors = {**inputs, **{key: p.value.copy() for key, p in parameters.items()}}
    if not tensors:
        raise TypeError(f"{name}: nothing to check, neither inputs nor parameters")
    gradient = "backward(dy) to return d{}" if len(inputs) != 1 else "backward(dy) to return dx"
    return Subject(
        layer, name, short(layer), details, tensors, forward, ("forward's output", gradient),
        parameters, layers, train, notes=notes, rows=rows,
    )  # fmt: skip


CONTRACT = "def forward(self, x, *, train=False): ...; return y, backward"


def checked_layer(layer: Any) -> Callable[..., Any]:
    """Return the ``forward`` of a layer; TypeError if it has none."""
    if isinstance(layer, type):
        raise TypeError(f"expected a layer, got the class {layer.__name__}: make one of it first")
    if not is_layer(layer) or not hasattr(layer, "__dict__"):
        raise TypeError(
            f"{type(layer).__name__}: expected an object with forward(x, train=...) -> y, "
            f"backward, got {describe(layer)}; write: {CONTRACT}{suggestion(layer)}"
        )
    forward: Callable[..., Any] = layer.forward
    return forward


def loss_subject(loss: Any, logits: Any, y: Any) -> Subject:
    """Return ``value, dlogits = loss(logits, y)`` as a subject; the targets are held still."""
    float_array("check_loss", "logits", logits)
    if not callable(loss):
        raise TypeError(
            f"check_loss: expected a function value, dlogits = loss(logits, y), got "
            f"{describe(loss)}; write: AdaptedLoss(loss.value, loss.gradient)"
        )
    name = getattr(loss, "__name__", type(loss).__name__)
    expected = "the loss to return dlogits"

    def forward(given: dict[str, Array]) -> tuple[Any, Pull]:
        z = given["logits"]
        targets = np.array(y)
        if not isinstance(loss, AdaptedLoss):  # as fit passes them
            targets = shaped_targets(loss, z, targets)
        result = loss(z, targets)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise ContractError(
                f"{name}: expected loss(logits, y) to return a number and its gradient, got "
                f"{describe(result)}; write: return value, dlogits"
            )
        if np.size(result[0]) != 1:
            raise ContractError(
                f"{name}: expected loss(logits, y) to return a number and its gradient, got "
                f"{describe(result)}; a value for each example: AdaptedLoss(..., reduce=np.sum)"
            )
        dlogits = gradient_like(z, result[1], f"{name}: expected {expected}")
        value = np.asarray(result[0]).reshape(())
        if value.dtype.kind in "iub":
            value = value.astype(np.float64)
        return value, lambda dy: (dlogits * float(dy),)

    def rows(k: int) -> Subject:
        return loss_subject(loss, logits[:k], np.asarray(y)[:k])

    phrases = "a number", expected
    details, tensors = described({"logits": logits}), {"logits": logits}
    return Subject(loss, name, short(loss), details, tensors, forward, phrases, rows=rows)


def map_subject(map: Any, z: Any, axis: int) -> Subject:
    """Return a simplex map and its ``vjp`` as a subject."""
    float_array("check_simplex_map", "z", z)
    if not callable(map) or not callable(getattr(map, "vjp", None)):
        raise TypeError(
            f"check_simplex_map: expected map(z, axis=-1) with map.vjp(p, dp, axis=-1), got {map!r}"
        )

    def forward(given: dict[str, Array]) -> tuple[Any, Pull]:
        given["output"] = p = map(given["z"], axis=axis)
        return p, lambda dp: (map.vjp(p, dp, axis=axis),)

    def rows(k: int) -> Subject:
        return map_subject(map, z[:k], axis)

    name, details = short(map), f"{described({'z': z})}, axis={axis}"
    expected = "map(z)", "vjp(p, dp) to return dz"
    along_rows = axis in (0, -z.ndim)
    return Subject(
        map, name, name, details, {"z": z}, forward, expected, axis=axis,
        rows=None if along_rows else rows,
    )  # fmt: skip


def function_subject(
    owner: str, f: Any, backward: Any, x: Any, fixed: Fixed | None, *, cache: bool
) -> Subject:
    """Return a pair of functions as a subject.

    They are ``y = f(x)`` and ``dx = backward(x, dy)``, or with ``cache`` ``y, cache = f(x)`` and
    ``dx = backward(dy, cache)``.
    """
    what = ("forward", "backward") if cache else ("f", "vjp")
    for word, function in zip(what, (f, backward), strict=True):
        if not callable(function):
            hint = "y, cache = f(x), dx = vjp(dy, cache)" if cache else "y = f(x), dx = vjp(x, dy)"
            raise TypeError(
                f"{owner}: expected {word} to be a function, got {function!r}; "
                f"write: {owner}({', '.join(what)}, x) with {hint}"
            )
    fixed = dict(fixed or {})
    tensors = named(f, x, fixed)
    for key, value in tensors.items():
        float_array(owner, key, value)
    if not tensors:
        raise TypeError(f"{owner}: expected at least one input that is an array of floats")
    name = getattr(f, "__name__", type(f).__name__).replace("<lambda>", "f")
    order = list(in_order(f, {key: key for key in [*tensors, *fixed]}))

    def forward(given: dict[str, Array]) -> tuple[Any, Pull]:
        values = {key: given[key] for key in tensors} | fixed
        result = call(f, values)
        if not cache:
            y, apart = joined(result, f"{name}: expected f's output")

            def pull(dy: Array) -> list[Any]:
                got = backward(*in_order(f, values), apart(dy))
                expected = f"{name}: expected vjp to return"
                return gradients_of(got, list(tensors), order, expected)

            return y, pull
        if not isinstance(result, tuple) or len(result) < 2:
            raise ContractError(
                f"{name}: expected forward to return the output and a cache, got "
                f"{describe(result)}; write: return y, cache"
            )
        flat = len(result) > 2  # y1, y2, cache
        y, apart = joined(result[:-1] if flat else result[0], f"{name}: expected forward's output")

        def pull_cache(dy: Array) -> list[Any]:
            cotangents = apart(dy) if flat else (apart(dy),)
            expected = f"{name}: expected backward to return"
            got = backward(*cotangents, result[-1])
            return gradients_of(got, list(tensors), order, expected)

        return y, pull_cache

    def rows(k: int) -> Subject:
        first = next(iter(tensors))
        less, held = first_rows(tensors, k, fixed), first_rows(fixed, k, tensors)
        alone = {**tensors, first: less[first]}
        for at in ((alone, fixed), (alone, held), (less, held)):
            try:
                call(f, {**at[0], **at[1]})
            except Exception:  # noqa: S112 - a weight was cut, or an input was not
                continue
            break
        return function_subject(owner, f, backward, at[0], at[1], cache=cache)

    details = described(tensors)
    expected = f"{what[0]}'s output", f"{what[1]} to return d{{}}"
    return Subject(f, name, name, details, tensors, forward, expected, rows=rows)


def described(tensors: Mapping[str, Array]) -> str:
    """Return the names, shapes and dtypes of tensors."""
    return ", ".join(f"{key} {v.shape} {v.dtype}" for key, v in tensors.items())


def first_rows(values: Mapping[str, Any], k: int, others: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values, with k rows of all arrays that have as many as the first array has."""
    arrays = [v for v in [*values.values(), *others.values()] if isinstance(v, np.ndarray)]
    floats = [v for v in arrays if v.dtype.kind == "f" and v.ndim]
    n = len((floats or arrays)[0]) if floats or arrays else -1
    return {
        key: v[:k] if isinstance(v, np.ndarray) and v.ndim and len(v) == n else v
        for key, v in values.items()
    }
