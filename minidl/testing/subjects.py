"""One form for all that can be checked: a function of named tensors with its backward pass.

A subject runs ``y, backward = forward(...)``, as a layer does. Pairs of functions, losses and
simplex maps are given this form. The caller's arrays are never modified: every pass gets copies.
"""

from __future__ import annotations

import copy
import inspect
import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
    returned_gradient,
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


# Memory layouts: copies of the same values, which a backward pass must treat the same


def fortran(x: Array) -> Array:
    """Return a copy in Fortran order: the first axis varies fastest."""
    return np.array(x, order="F")


def strided(x: Array) -> Array:
    """Return every other entry of each axis of a larger array; the entries between are NaN."""
    larger = np.full([2 * n for n in x.shape], np.nan, x.dtype)
    view: Array = np.asarray(larger[(slice(None, None, 2),) * x.ndim])
    view[...] = x
    return view


def reversed_strides(x: Array) -> Array:
    """Return a copy with negative strides along every axis."""
    backwards = (slice(None, None, -1),) * x.ndim
    return np.asarray(np.array(x[backwards], order="C")[backwards])


LAYOUTS: dict[str, Layout] = {
    "C": lambda x: np.array(x, order="C"),
    "Fortran": fortran,
    "strided": strided,
    "reversed": reversed_strides,
    "empty": lambda x: x[:0],  # a batch of no examples
}


# Calls of anyone's functions


def function_name(f: Any) -> str:
    """Return the name of a function, with that of its object for a method."""
    owner = getattr(f, "__self__", None)
    name = getattr(f, "__name__", type(f).__name__).replace("<lambda>", "f")
    bound = owner is not None and not isinstance(owner, ModuleType)
    return f"{type(owner).__name__}.{name}" if bound else name


def title(value: Any) -> str:
    """Return the name or ``repr`` of an object; for one without, its type and plain arguments.

    An argument is known where an attribute has its name.
    """
    if hasattr(value, "__name__"):
        return function_name(value)
    if " at 0x" not in repr(value):
        return short_text(value)
    kind, shown, in_place = type(value), [], True
    for name in argument_names(kind):
        given = getattr(value, name, None)
        if isinstance(given, (bool, int, float, str)) and given != default_of(kind, name):
            shown.append(repr(given) if in_place else f"{name}={given!r}")
        else:
            in_place = False
    text = f"{kind.__name__}({', '.join(shown)})"
    return text if shown and len(text) <= 70 else kind.__name__


def default_of(function: Callable[..., Any], name: str) -> Any:
    """Return the default of an argument."""
    return inspect.signature(function).parameters[name].default


def argument_names(function: Callable[..., Any], *, by_name: bool = True) -> list[str]:
    """Return the names of the arguments; with ``by_name``, of those that can be given by name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    given = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return [p.name for p in given if not (by_name and p.kind is p.POSITIONAL_ONLY)]


def needed_arguments(function: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that have no default."""
    names = argument_names(function, by_name=False)
    return [name for name in names if default_of(function, name) is inspect.Parameter.empty]


def is_tensor(x: Any) -> bool:
    """Return whether a value is an array of floats."""
    return isinstance(x, np.ndarray) and x.dtype.name in ("float16", "float32", "float64")


def children(path: str, value: Any) -> dict[str, Any] | None:
    """Return what a list, tuple or dictionary holds, by its name in a report, else None."""
    if isinstance(value, Mapping):
        return {f"{path}.{key}": child for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return {f"{path}[{k}]": child for k, child in enumerate(value)}
    return None


def each_leaf(change: Callable[[str, Any], Any], path: str, value: Any) -> Any:
    """Return a value with ``change(path, leaf)`` in place of all that it holds, or of itself."""
    inner = children(path, value)
    if inner is None:
        return change(path, value)
    made = [each_leaf(change, below, child) for below, child in inner.items()]
    return dict(zip(value, made, strict=True)) if isinstance(value, Mapping) else type(value)(made)


class Arguments:
    """The arguments of a function: tensors, lists and dictionaries of tensors, and fixed values.

    ``tensors`` are the arrays of floats among the inputs, by name: ``x``, ``inputs[0]``,
    ``params.W``; ``fixed`` the arguments that have no gradient. ``notes`` tell what dictionaries
    and lists hold besides: settings, passed as they are.
    """

    def __init__(
        self,
        owner: str,
        function: Callable[..., Any],
        x: Any,
        fixed: Mapping[str, Any] | None,
        only: str = "",
    ) -> None:
        """Take the inputs apart; ``only`` is the name of an input that is the only argument."""
        self.fixed = dict(fixed or {})
        inputs = dict(x) if isinstance(x, Mapping) else self._named(function, x)
        if only and len(inputs) == 1 and not self.fixed and not isinstance(x, Mapping):
            inputs = {only: next(iter(inputs.values()))}
        self._inputs, found = inputs, dict[str, Any]()
        for name, value in inputs.items():
            each_leaf(found.setdefault, name, value)
        self.tensors: dict[str, Array] = {path: v for path, v in found.items() if is_tensor(v)}
        for name, value in inputs.items():
            alone = children(name, value) is None and not isinstance(x, Mapping)
            if not is_tensor(value) and (alone or not self.tensors):
                word = "x" if name == only else name
                fix = f", or pass fixed={{'{word}': ...}}" if isinstance(value, np.ndarray) else ""
                raise TypeError(
                    f"{owner}: expected {word} to be an array of float32 or float64, got "
                    f"{type_text(value)}; write: np.asarray({word}, np.float64){fix}"
                )
        others = [path for path in found if path not in self.tensors]
        left = f"{', '.join(others)}: no arrays of floats, left alone"
        self.notes = (left,) if others else ()
        known, given = argument_names(function), (*inputs, *self.fixed)
        self._by_name = set(given) <= set(known)
        self.names = sorted(given, key=known.index) if self._by_name else list(given)

    def _named(self, function: Callable[..., Any], x: Any) -> dict[str, Any]:
        """Return the inputs by the names of the arguments that are not fixed.

        A list is one argument, unless the function needs as many as it has entries.
        """
        needed = [name for name in needed_arguments(function) if name not in self.fixed]
        spread = isinstance(x, tuple) or (isinstance(x, list) and 1 < len(x) <= len(needed))
        values = tuple(x) if spread else (x,)
        names = [n for n in argument_names(function, by_name=False) if n not in self.fixed]
        if len(names) < len(values):
            names = ["x"] if len(values) == 1 else [f"x{i}" for i in range(len(values))]
        return dict(zip(names, values, strict=False))

    def values(self, given: Tensors, fixed: Mapping[str, Any]) -> list[Any]:
        """Return the arguments in order, with these tensors."""
        made = {name: each_leaf(given.get, name, value) for name, value in self._inputs.items()}
        return [{**made, **fixed}[name] for name in self.names]

    def call(self, function: Callable[..., Any], values: Sequence[Any], **options: Any) -> Any:
        """Call a function with arguments in this order: by name if it has all of the names."""
        if self._by_name:
            return function(**dict(zip(self.names, values, strict=True)), **options)
        return function(*values, **options)

    def gradients(self, expected: str, got: Any) -> dict[str, Any]:
        """Return the gradients of the tensors by name, from what a backward pass returned.

        That is one array, a tuple, list or dictionary, or one array of all of them stacked. A
        sequence may have an item for each argument, of which some have no gradient. The keys of
        a dictionary are the names, or ``dx``. Lists and dictionaries of tensors have gradients
        of the same form. ContractError with ``expected``, if gradients are missing or too many.
        """
        found: dict[str, Any] = {}
        arguments = {name: {**self.fixed, **self._inputs}[name] for name in self.names}
        self._collect(expected, arguments, got, found)
        return found

    def _collect(
        self, expected: str, nodes: Mapping[str, Any], got: Any, found: dict[str, Any]
    ) -> None:
        """Put the gradients of the tensors in these arguments, or in these entries, by name."""
        wanted = [
            n
            for n in nodes
            if any(p == n or p.startswith((f"{n}.", f"{n}[")) for p in self.tensors)
        ]
        inner = {name: children(name, nodes[name]) for name in wanted}
        listed = isinstance(got, (tuple, list))
        items: dict[str, Any] = {}
        if isinstance(got, Mapping):
            keys = {name: _key(got, name) for name in wanted}
            items = {name: got[key] for name, key in keys.items() if key is not None}
        elif listed or (len(wanted) > 1 and np.ndim(got)):
            names = wanted if len(got) == len(wanted) else list(nodes) if listed else []
            if len(got) == len(names):
                items = {n: item for n, item in zip(names, got, strict=True) if n in wanted}
        if len(wanted) == 1 and not items and (inner[wanted[0]] or not listed):
            items = {wanted[0]: got}  # the gradient itself
        if len(items) < len(wanted):
            raise ContractError(
                f"{expected} {len(wanted)} gradients, one for each of {', '.join(wanted)}, got "
                f"{', '.join(map(str, got)) if isinstance(got, Mapping) else type_text(got)}"
            )
        for name, item in items.items():
            if inner[name] is None:
                found[name] = item
            else:
                self._collect(expected, inner[name] or {}, item, found)


def _key(got: Mapping[Any, Any], name: str) -> Any:
    """Return the key of a gradient: the last part of the name, or ``d`` and this."""
    last = name.rpartition(".")[2]
    return next((key for key in (name, last, f"d{last}") if key in got), None)


def joined(expected: str, output: Any) -> tuple[Array, Callable[[Array], Any]]:
    """Return one array for several outputs, and the function that takes its cotangent apart."""
    if not isinstance(output, (tuple, list)):
        return returned_floats(expected, output), lambda dy: dy
    parts = [returned_floats(expected, y) for y in output]
    ends = np.cumsum([y.size for y in parts])[:-1]

    def apart(dy: Array) -> Any:
        pieces = zip(np.split(dy, ends), parts, strict=True)
        return type(output)([piece.reshape(y.shape).astype(y.dtype) for piece, y in pieces])

    return np.concatenate([y.ravel() for y in parts]), apart


# Subjects


@dataclass(frozen=True)
class Pass:
    """One forward pass: a copy of the output, and the gradients for a cotangent.

    ``pull`` returns checked copies of all gradients by name, ``raw_pull`` the subject's own.
    ``given`` are the arrays that it received and returned, after ``pull`` the cotangent too.
    """

    y: Array
    pull: Callable[[Array], dict[str, Array]]
    raw_pull: Callable[..., dict[str, Any]]
    given: dict[str, Array]


class Subject:
    """A function of named tensors, first inputs and then parameters, with its backward pass.

    ``source`` is what the caller gave; ``name`` stands in messages, ``title`` and ``details`` in
    the heading of the report. ``fixed`` are further arguments, which have no gradient.
    """

    parameters: Mapping[str, Parameter] = NONE
    axis = -1  # of a simplex map
    batch = True  # whether the rows of the inputs are examples
    numpy_seed: int | None = None  # for NumPy's and Python's global generators, before every pass

    def __init__(
        self,
        source: Any,
        arguments: Arguments,
        passes: tuple[str, str],
        call: Callable[..., Any],
    ) -> None:
        """``call(*values)`` returns the output and ``backward``; ``passes`` are their names."""
        self.source, self.arguments, self.passes, self._call = source, arguments, passes, call
        self.tensors, self.inputs = dict(arguments.tensors), list(arguments.tensors)
        self.fixed, self.notes = arguments.fixed, arguments.notes
        self.name, self.title = function_name(source), title(source)
        shapes = {re.sub(r"^input\b", "x", key): v for key, v in self.tensors.items()}
        self.details = ", ".join(f"{key} {v.shape} {v.dtype}" for key, v in shapes.items())

    def forward(self, given: dict[str, Array]) -> tuple[Any, Backward]:
        """Run one pass on these copies of the tensors."""
        result: tuple[Any, Backward] = self._call(*self.arguments.values(given, self.fixed))
        return result

    def run(self, tensors: Tensors, layouts: Mapping[str, Layout] = NONE) -> Pass:
        """Run one pass at these values; their dtypes decide the precision.

        The tensors, and the ``cotangent``, are copied by their ``layouts``, if these are given.
        """
        given = {name: layouts.get(name, np.copy)(value) for name, value in tensors.items()}
        if self.numpy_seed is not None:
            random.seed(self.numpy_seed)
            np.random.seed(self.numpy_seed)  # noqa: NPY002
        forward, back = (f"{self.name}: expected {name}" for name in self.passes)
        output, backward = self.forward(given)
        y, apart = joined(f"{forward}'s output to be", output)
        given["output"] = y

        def raw_pull(dy: Array, **options: Any) -> dict[str, Any]:
            got = backward(apart(dy), **options)
            found = self.arguments.gradients(f"{back} to return", got)
            return {**found, **{key: p.grad for key, p in self.parameters.items()}}

        def pull(dy: Array) -> dict[str, Array]:
            given["cotangent"] = dy = layouts.get("cotangent", np.copy)(dy)
            found = raw_pull(dy)
            words = {name: "x" if name == "input" else name for name in tensors}
            return {
                name: returned_gradient(f"{back} to return d{words[name]}", x, found[name])
                for name, x in tensors.items()
            }

        return Pass(y.copy(), pull, raw_pull, given)

    @contextmanager
    def preserved(self, rng: np.random.Generator) -> Iterator[None]:
        """Restore, after this context, all that a pass may change; passes are made within it.

        ``rng`` gives generators to layers that have none yet.
        """
        states = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002

    def tapped(self, tap: Tap) -> AbstractContextManager[None]:
        """Pass the inputs and cotangents of the innermost layers, if any, through ``tap``."""
        return nullcontext()

    def label(self, tensor: str) -> str:
        """Return the name of a tensor in messages, as ``Linear.weight``."""
        return f"{self.name}.{tensor}"

    def first_rows(self, k: int, names: Collection[str]) -> Subject:
        """Return the same subject at the first k rows of these tensors and fixed arguments."""
        less = copy.copy(self)
        less.tensors = {n: v[:k] if n in names else v for n, v in self.tensors.items()}
        less.fixed = {n: v[:k] if n in names else v for n, v in self.fixed.items()}
        return less


def function_subject(
    owner: str, f: Any, backward: Any, x: Any, fixed: Mapping[str, Any] | None, *, cache: bool
) -> Subject:
    """Return a pair of functions as a subject.

    They are ``y = f(x)`` and ``dx = backward(x, dy)``, or with ``cache`` ``y, cache = f(x)`` and
    ``dx = backward(dy, cache)``.
    """
    what = ("forward", "backward") if cache else ("f", "vjp")
    for word, function in zip(what, (f, backward), strict=True):
        if not callable(function):
            raise TypeError(f"{owner}: expected {word} to be a function, got {function!r}")
    arguments = Arguments(owner, f, x, fixed)
    if not arguments.tensors:
        raise TypeError(f"{owner}: expected at least one input that is an array of floats")

    def call(*values: Any) -> tuple[Any, Backward]:
        result = arguments.call(f, values)
        if not cache:
            return result, lambda dy: backward(*values, dy)
        if not isinstance(result, tuple) or len(result) < 2:
            raise ContractError(
                f"{function_name(f)}: expected forward to return the output and a cache, got "
                f"{type_text(result)}; write: return y, cache"
            )
        *outputs, kept = result
        if len(outputs) == 1:
            return outputs[0], lambda dy: backward(dy, kept)
        return tuple(outputs), lambda dys: backward(*dys, kept)

    return Subject(f, arguments, what, call)


def loss_subject(loss: Any, logits: Any, y: Any, *, as_fit: bool) -> Subject:
    """Return ``value, dlogits = loss(logits, y)`` as a subject; the targets are held still.

    ``as_fit`` gives them the shape in which ``fit`` passes them.
    """
    if not callable(loss):
        raise TypeError(
            f"check_loss: expected a function value, dlogits = loss(logits, y), got "
            f"{type_text(loss)}; write: AdaptedLoss(loss.value, loss.gradient)"
        )

    def call(logits: Array, y: Array) -> tuple[Any, Backward]:
        targets = np.array(y)
        result = loss(logits, shaped_targets(loss, logits, targets) if as_fit else targets)
        pair = isinstance(result, tuple) and len(result) == 2
        if not pair or np.size(result[0]) != 1:
            hint = "a value for each example: AdaptedLoss(..., reduce=np.sum)"
            raise ContractError(
                f"{function_name(loss)}: expected loss(logits, y) to return a number and its "
                f"gradient, got {type_text(result)}; "
                f"{hint if pair else 'write: return value, dlogits'}"
            )
        value = np.asarray(result[0]).reshape(())
        expected = f"{function_name(loss)}: expected the loss to return dlogits"
        dlogits = returned_gradient(expected, logits, result[1])
        whole = value.dtype.kind in "iub"
        return value.astype(np.float64) if whole else value, lambda dy: dlogits * float(dy)

    arguments = Arguments("check_loss", call, (logits,), {"y": np.asarray(y)})
    return Subject(loss, arguments, ("loss", "the loss"), call)


def map_subject(map: Any, z: Any, axis: int) -> Subject:
    """Return a simplex map and its ``vjp`` as a subject."""
    if not callable(map) or not callable(getattr(map, "vjp", None)):
        raise TypeError(
            f"check_simplex_map: expected map(z, axis=-1) with map.vjp(p, dp, axis=-1), got {map!r}"
        )

    def call(z: Array) -> tuple[Any, Backward]:
        p = map(z, axis=axis)
        return p, lambda dp: map.vjp(p, dp, axis=axis)

    arguments = Arguments("check_simplex_map", call, (z,), None)
    subject = Subject(map, arguments, ("map", "vjp(p, dp)"), call)
    subject.name = subject.title
    subject.axis, subject.batch = axis, axis not in (0, -z.ndim)
    subject.details += f", axis={axis}"
    return subject
