"""One form for all that can be checked: a function of named tensors with its backward pass.

A subject runs ``y, backward = forward(...)``, as a layer does. Pairs of functions, losses and
simplex maps are given this form. The caller's arrays are never modified: every pass gets copies.
"""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np

from minidl.checks import (
    Array,
    Backward,
    ContractError,
    returned_floats,
    shaped_targets,
    short_text,
    type_text,
)
from minidl.parameter import Parameter

Tensors = Mapping[str, Array]
Tap = Callable[[Any, Array], tuple[Array, Callable[[Array], Array]]]
"""``tap(layer, x)`` returns the input to use, and a function that is applied to the cotangent."""
Layout = Callable[[Array], Array]
NONE: Mapping[str, Any] = MappingProxyType({})


def strided(x: Array) -> Array:
    """Return every other entry of each axis of a larger array; the entries between are NaN."""
    larger = np.full([2 * n for n in x.shape], np.nan, x.dtype)
    view = np.asarray(larger[(slice(None, None, 2),) * x.ndim])
    view[...] = x
    return view


def reversed_strides(x: Array) -> Array:
    """Return a copy with negative strides along every axis."""
    backwards = (slice(None, None, -1),) * x.ndim
    return np.asarray(np.array(x[backwards], order="C")[backwards])


LAYOUTS: dict[str, Layout] = {
    "C": lambda x: np.array(x, order="C"),
    "Fortran": lambda x: np.array(x, order="F"),
    "strided": strided,
    "reversed": reversed_strides,
    "empty": lambda x: x[:0],  # a batch of no examples
}


# Names


def signature_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the arguments of a function that have a name; none if it does not tell them."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    return {n: p for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def needed_arguments(function: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that have no default."""
    return [name for name, p in signature_of(function).items() if p.default is p.empty]


def function_name(f: Any) -> str:
    """Return the name of a function, with that of its object for a method."""
    owner = getattr(f, "__self__", None)
    name = getattr(f, "__name__", type(f).__name__).replace("<lambda>", "f")
    bound = owner is not None and not isinstance(owner, ModuleType)
    return f"{type(owner).__name__}.{name}" if bound else name


def title(value: Any) -> str:
    """Return the name or ``repr`` of an object; without one, its type and arguments it keeps."""
    if hasattr(value, "__name__"):
        return function_name(value)
    if " at 0x" not in repr(value):
        return short_text(value)
    kind, shown, in_place = type(value).__name__, [], True
    for name, parameter in signature_of(type(value)).items():
        given = getattr(value, name, None)
        told = isinstance(given, (int, float, str)) and given != parameter.default
        if told:
            shown.append(repr(given) if in_place else f"{name}={given!r}")
        in_place = in_place and told
    text = f"{kind}({', '.join(shown)})"
    return text if shown and len(text) <= 70 else kind


def _word(path: str) -> str:
    """Return the name of a tensor in a heading: the input of a layer is ``x`` there."""
    return re.sub(r"^input\b", "x", path)


# Arrays in lists and dictionaries


def is_tensor(x: Any) -> bool:
    """Return whether a value is an array of floats."""
    return isinstance(x, np.ndarray) and x.dtype.name in ("float16", "float32", "float64")


def items_of(holder: Any) -> dict[Any, Any] | None:
    """Return what a dictionary, list or tuple holds, None for anything else."""
    if isinstance(holder, Mapping):
        return dict(holder)
    return dict(enumerate(holder)) if isinstance(holder, (list, tuple)) else None


def each_leaf(change: Callable[[str, Any], Any], path: str, value: Any) -> Any:
    """Return a value with ``change(path, leaf)`` in place of all that it holds, or of itself."""
    inner = items_of(value)
    if inner is None:
        return change(path, value)
    made = {key: each_leaf(change, f"{path}.{key}", child) for key, child in inner.items()}
    return made if isinstance(value, Mapping) else type(value)(made.values())


def leaves(path: str, value: Any) -> dict[str, Any]:
    """Return all that a value holds, or itself, by path."""
    found: dict[str, Any] = {}
    each_leaf(found.setdefault, path, value)
    return found


def gradients_of(expected: str, nodes: Mapping[str, Any], got: Any) -> Iterator[tuple[str, Any]]:
    """Yield the gradient of each tensor in these values, by path.

    ``got`` is that of the only value with tensors, or holds one for each of these values, or for
    each value: a tuple, list, stacked array, or dictionary by name or ``dx``. Within lists and
    dictionaries the same. ContractError if gradients are missing.
    """
    wanted = [path for path, v in nodes.items() if any(map(is_tensor, leaves(path, v).values()))]
    items = {path: got for path in wanted if len(wanted) == 1}
    if isinstance(got, Mapping):
        for path in wanted:
            last = path.rpartition(".")[2]
            items.update((path, got[key]) for key in (f"d{last}", last, path) if key in got)
    elif isinstance(got, (tuple, list)) or (len(wanted) > 1 and np.ndim(got)):
        for paths in (list(nodes), wanted):
            if len(paths) == len(got):
                items |= dict(zip(paths, got, strict=True))
    if not items.keys() >= set(wanted):
        had = type_text(list(got) if isinstance(got, Mapping) else got)
        want = f"{len(wanted)} gradients, one for each of {', '.join(wanted)}"
        raise ContractError(f"{expected} {want}, got {had}")
    for path in wanted:
        inner = items_of(nodes[path])
        if inner is None:
            yield path, items[path]
        else:
            below = {f"{path}.{key}": child for key, child in inner.items()}
            yield from gradients_of(expected, below, items[path])


def joined(expected: str, output: Any) -> tuple[Array, Callable[[Array], Any]]:
    """Return one array for several outputs, and the function that takes its cotangent apart."""
    if not isinstance(output, (tuple, list)):
        return returned_floats(expected, output), lambda dy: dy
    parts = [returned_floats(expected, y) for y in output]
    ends = np.cumsum([y.size for y in parts])[:-1]

    def apart(dy: Array) -> tuple[Array, ...]:
        pieces = zip(np.split(dy, ends), parts, strict=True)
        return tuple(piece.reshape(y.shape).astype(y.dtype) for piece, y in pieces)

    return np.concatenate([y.ravel() for y in parts]), apart


# Subjects


@dataclass(frozen=True)
class Pass:
    """One forward pass: a copy of the output, and the gradients for a cotangent by name.

    ``pull`` returns checked copies of them. ``given`` are the arrays that were passed both ways.
    """

    y: Array
    pull: Callable[[Array], dict[str, Array]]
    raw_pull: Callable[..., dict[str, Any]]
    given: dict[str, Array]


def seed_generators(seed: int) -> None:
    """Seed the global generators of NumPy and of Python, from which strangers' code may draw."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


@contextmanager
def generators_restored() -> Iterator[None]:
    """Put the states of these generators back afterwards."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


class Subject:
    """A function of named tensors, first inputs and then parameters, with its backward pass.

    ``source`` is what the caller gave to ``owner``; ``name`` stands in messages, ``title`` and
    ``details`` in the heading of the report. ``tensors`` are the arrays of floats in the inputs,
    by path: ``x``, ``inputs.0``, ``params.W``. ``fixed`` are further arguments, which have no
    gradient; ``arguments`` have the names of all in their order, and the inputs.
    """

    parameters: Mapping[str, Parameter] = NONE
    axis = -1  # of a simplex map
    batch = True  # whether the rows of the inputs are examples
    numpy_seed: int | None = None  # for NumPy's and Python's global generators, before every pass

    def __init__(
        self,
        owner: str,
        source: Any,
        passes: Mapping[str, Any],
        call: Callable[..., Any],
        x: Any,
        fixed: Mapping[str, Any] | None = None,
        function: Callable[..., Any] | None = None,
        only: str = "",
    ) -> None:
        """``call`` takes the arguments of ``function``; ``only`` names an input that is alone."""
        for word, f in passes.items():
            if not callable(f):
                raise TypeError(f"{owner}: expected {word} to be a function, got {type_text(f)}")
        self.source, self.passes, self._call = source, tuple(passes), call
        self.fixed, known = dict(fixed or {}), signature_of(function or call)
        inputs = self._named_inputs(x, known, needed_arguments(function or call), only)
        self.tensors, self.notes, others = dict[str, Array](), tuple[str, ...](), list[str]()
        for name, value in inputs.items():
            found = leaves(name, value)
            tensors = {path: leaf for path, leaf in found.items() if is_tensor(leaf)}
            if not tensors:
                word, got = _word(name), type_text(value)
                raise TypeError(
                    f"{owner}: expected {word} to be an array of float32 or float64, got {got}; "
                    f"write: np.asarray({word}, np.float64), or pass fixed={{'{name}': ...}}"
                )
            self.tensors |= tensors
            others += [path for path in found if path not in tensors]
        if others:
            self.notes = (f"{', '.join(others)}: no arrays of floats, left alone",)
        self.inputs = list(self.tensors)
        given = {**inputs, **self.fixed}
        by_name = {name for name, p in known.items() if p.kind is not p.POSITIONAL_ONLY}
        self._by_name = given.keys() <= by_name
        order = [name for name in known if name in given] if self._by_name else given
        self.arguments = {name: inputs.get(name) for name in order}
        self.name, self.title = function_name(source), title(source)
        shapes = (f"{_word(path)} {v.shape} {v.dtype}" for path, v in self.tensors.items())
        self.details = ", ".join(shapes)

    def _named_inputs(
        self, x: Any, known: Collection[str], needed: Collection[str], only: str
    ) -> dict[str, Any]:
        if isinstance(x, Mapping):
            return dict(x)
        # A list is one argument, unless the function needs as many as it has entries.
        several = len([name for name in needed if name not in self.fixed])
        spread = isinstance(x, tuple) or (isinstance(x, list) and 1 < len(x) <= several)
        values = tuple(x) if spread else (x,)
        names = [name for name in known if name not in self.fixed] or ["x"]
        names += [f"x{i}" for i in range(len(names), len(values))]
        if only and len(values) == 1 and not self.fixed:
            names = [only]
        return dict(zip(names, values, strict=False))

    def forward(self, given: dict[str, Array], **options: Any) -> tuple[Any, Backward]:
        """Run one pass on these copies of the tensors."""
        arguments = {name: each_leaf(given.get, name, v) for name, v in self.arguments.items()}
        arguments |= self.fixed
        values, named = ((), arguments) if self._by_name else (arguments.values(), {})
        result: tuple[Any, Backward] = self._call(*values, **named, **options)
        return result

    def run(self, tensors: Tensors, layouts: Mapping[str, Layout] = NONE) -> Pass:
        """Run one pass on copies in these ``layouts``, which may have one of the ``cotangent``."""
        given = {name: layouts.get(name, np.copy)(value) for name, value in tensors.items()}
        if self.numpy_seed is not None:
            seed_generators(self.numpy_seed)
        forward, back = (f"{self.name}: expected {name}" for name in self.passes)
        output, backward = self.forward(given)
        y, apart = joined(f"{forward}'s output to be", output)
        given["output"] = y

        def raw_pull(dy: Array, **options: Any) -> dict[str, Any]:
            got = backward(apart(dy), **options)
            found = dict(gradients_of(f"{back} to return", self.arguments, got))
            return {**found, **{key: p.grad for key, p in self.parameters.items()}}

        def pull(dy: Array) -> dict[str, Array]:
            given["cotangent"] = dy = layouts.get("cotangent", np.copy)(dy)
            found = raw_pull(dy)
            return {
                k: returned_floats(f"{back} to return d{_word(k)},", found[k], shape=x.shape)
                for k, x in tensors.items()
            }

        return Pass(y.copy(), pull, raw_pull, given)

    @contextmanager
    def preserved(self, rng: np.random.Generator) -> Iterator[None]:
        """Restore all that a pass may change; ``rng`` is for layers without a generator."""
        with generators_restored():
            yield

    def tapped(self, tap: Tap) -> AbstractContextManager[None]:
        """Pass the inputs and cotangents of the innermost layers, if any, through ``tap``."""
        return nullcontext()

    def label(self, tensor: str) -> str:
        """Return the name of a tensor in messages, as ``Linear.weight``."""
        return f"{self.name}.{tensor}"


def function_subject(
    owner: str, f: Any, backward: Any, x: Any, fixed: Mapping[str, Any] | None, *, cache: bool
) -> Subject:
    """Return ``y = f(x)`` and ``dx = backward(x, dy)`` as a subject.

    With ``cache`` they are ``y, cache = f(x)`` and ``dx = backward(dy, cache)``.
    """
    passes = {"forward": f, "backward": backward} if cache else {"f": f, "vjp": backward}

    def call(*values: Any, **named: Any) -> tuple[Any, Backward]:
        result = f(*values, **named)
        if not cache:
            return result, lambda dy: backward(*values, *named.values(), dy)
        if not isinstance(result, tuple) or len(result) < 2:
            want = "forward to return the output and a cache"
            raise ContractError(f"{function_name(f)}: expected {want}, got {type_text(result)}")
        *outputs, kept = result
        if len(outputs) == 1:
            return outputs[0], lambda dy: backward(dy, kept)
        return tuple(outputs), lambda dys: backward(*dys, kept)

    return Subject(owner, f, passes, call, x, fixed, f)


def loss_subject(loss: Any, logits: Any, y: Any, *, as_fit: bool) -> Subject:
    """Return ``value, dlogits = loss(logits, y)`` as a subject; ``as_fit`` shapes the targets."""
    name = function_name(loss)

    def call(logits: Array, y: Array) -> tuple[Any, Backward]:
        targets = np.array(y)
        result = loss(logits, shaped_targets(loss, logits, targets) if as_fit else targets)
        if not (isinstance(result, tuple) and len(result) == 2 and np.size(result[0]) == 1):
            want = "loss(logits, y) to return a number and its gradient"
            hint = (
                "return value, dlogits; a value for each example: AdaptedLoss(..., reduce=np.sum)"
            )
            raise ContractError(f"{name}: expected {want}, got {type_text(result)}; write: {hint}")
        value = np.asarray(result[0]).reshape(())
        value = value if value.dtype.kind == "f" else value.astype(np.float64)
        expected = f"{name}: expected the loss to return dlogits,"
        dlogits = returned_floats(expected, result[1], shape=logits.shape)
        return value, lambda dy: dlogits * float(dy)

    passes = {"loss": loss, "the loss": loss}
    return Subject("check_loss", loss, passes, call, (logits,), {"y": np.asarray(y)})


def map_subject(map: Any, z: Any, axis: int) -> Subject:
    """Return a simplex map and its ``vjp`` as a subject."""

    def call(z: Array) -> tuple[Any, Backward]:
        p = map(z, axis=axis)
        return p, lambda dp: map.vjp(p, dp, axis=axis)

    passes = {"map": map, "vjp(p, dp)": getattr(map, "vjp", None)}
    subject = Subject("check_simplex_map", map, passes, call, (z,))
    subject.name = subject.title
    subject.axis, subject.batch = axis, axis not in (0, -z.ndim)
    subject.details += f", axis={axis}"
    return subject
