"""One form for all that can be checked: a function of named tensors with its backward pass.

The caller's arrays are never modified: every pass gets copies, in the caller's memory layout.
"""

from __future__ import annotations

import copy
import inspect
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from minidl.checks import (
    Array,
    ContractError,
    returned_floats,
    returned_gradient,
    shaped_targets,
    short_text,
    takes,
    type_text,
)
from minidl.parameter import Parameter

Tensors = Mapping[str, Array]
Pull = Callable[..., Sequence[Any]]
"""``pull(dy)`` returns the gradients of the tensors in order."""
Tap = Callable[[Any, Array], tuple[Array, Callable[[Array], Array]]]
"""``tap(layer, x)`` returns the input to use, and a function that is applied to the cotangent."""
Layout = Callable[[Array], Array]


# Memory layouts: the same values, which a backward pass must treat the same


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


# Calls of anyone's functions


def title(value: Any) -> str:
    """Return the name or ``repr`` of an object; for one without, its type and plain arguments.

    An argument is known where an attribute has its name.
    """
    kind = type(value)
    if hasattr(value, "__name__") or " object at 0x" not in repr(value):
        text = short_text(value)
        return kind.__name__ if " at 0x" in text else text
    shown: list[str] = []
    in_place = True
    for name in argument_names(kind):
        given = getattr(value, name, None)
        if isinstance(given, (bool, int, float, str)) and given != default_of(kind, name):
            shown.append(repr(given) if in_place else f"{name}={given!r}")
        else:
            in_place = False
    text = f"{kind.__name__}({', '.join(shown)})"
    return text if shown and len(text) <= 70 else kind.__name__


def function_name(f: Any) -> str:
    """Return the name of a function, with that of its object for a method."""
    owner = getattr(f, "__self__", None)
    name = getattr(f, "__name__", type(f).__name__).replace("<lambda>", "f")
    bound = owner is not None and not isinstance(owner, ModuleType)
    return f"{type(owner).__name__}.{name}" if bound else name


def default_of(function: Callable[..., Any], name: str) -> Any:
    """Return the default of an argument."""
    return inspect.signature(function).parameters[name].default


def accepts(function: Callable[..., Any], *args: Any, **options: Any) -> bool:
    """Return whether a call with these arguments fits the signature of the function."""
    try:
        return takes(function, *args, **options)
    except ValueError:  # a built-in function without a signature
        return not options


def argument_names(function: Callable[..., Any], *, by_name: bool = True) -> list[str]:
    """Return the names of the arguments; with ``by_name``, of those that can be given by name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    given = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return [p.name for p in given if not (by_name and p.kind is p.POSITIONAL_ONLY)]


def expect_floats(owner: str, name: str, x: Any) -> None:
    """Raise TypeError unless ``x`` is an array of floats."""
    if not is_tensor(x):
        fixed = f", or pass fixed={{'{name}': ...}}" if isinstance(x, np.ndarray) else ""
        raise TypeError(
            f"{owner}: expected {name} to be an array of float32 or float64, got {type_text(x)}; "
            f"write: np.asarray({name}, np.float64){fixed}"
        )


def is_tensor(x: Any) -> bool:
    """Return whether a value is an array of floats."""
    return isinstance(x, np.ndarray) and x.dtype.name in ("float16", "float32", "float64")


def children(name: str, value: Any) -> dict[str, Any] | None:
    """Return what a list, tuple or dictionary holds, by its name in a report, else None."""
    if isinstance(value, Mapping):
        return {f"{name}.{key}": child for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return {f"{name}[{k}]": child for k, child in enumerate(value)}
    return None


def leaves(name: str, value: Any) -> dict[str, Any]:
    """Return all that a value holds, by name; the value itself if it holds nothing."""
    inner = children(name, value)
    if inner is None:
        return {name: value}
    return {path: leaf for n, v in inner.items() for path, leaf in leaves(n, v).items()}


class Arguments:
    """The arguments of a function: tensors, lists and dictionaries of tensors, and fixed values.

    Attributes
    ----------
    tensors : dict of array
        The arrays of floats among the inputs, by name: ``x``, ``inputs[0]``, ``params.W``.
    fixed : dict
        The arguments that have no gradient, by name.
    notes : tuple of str
        What dictionaries and lists hold besides arrays of floats: settings, passed as they are.
    """

    def __init__(
        self,
        owner: str,
        function: Callable[..., Any],
        x: Any,
        fixed: Mapping[str, Any] | None,
        only: str | None = None,
    ) -> None:
        """Take the inputs apart; ``only`` is the name of an input that is the only argument."""
        self.fixed = dict(fixed or {})
        inputs = self._named(function, x)
        for name, value in inputs.items():
            if not isinstance(x, Mapping) and children(name, value) is None:
                expect_floats(owner, name, value)
        if inputs and not any(is_tensor(v) for v in leaves("", list(inputs.values())).values()):
            expect_floats(owner, *next(iter(inputs.items())))
        if only and len(inputs) == 1 and not self.fixed and not isinstance(x, Mapping):
            inputs = {only: next(iter(inputs.values()))}
        found = {
            path: v for name, value in inputs.items() for path, v in leaves(name, value).items()
        }
        self.tensors: dict[str, Array] = {path: v for path, v in found.items() if is_tensor(v)}
        alone = [path for path in found if path not in self.tensors]
        left = f"{', '.join(alone)}: no arrays of floats, left alone"
        self.notes = (left,) if alone else ()
        self._inputs = inputs
        known, given = argument_names(function), (*inputs, *self.fixed)
        self._by_name = set(given) <= set(known)
        self.names = sorted(given, key=known.index) if self._by_name else list(given)

    def _named(self, function: Callable[..., Any], x: Any) -> dict[str, Any]:
        """Return the inputs by name: a dict as it is, others by the names that are not fixed.

        A list is one argument, unless the function needs as many as it has entries.
        """
        if isinstance(x, Mapping):
            return dict(x)
        values = tuple(x) if isinstance(x, (tuple, list)) else (x,)
        names = [n for n in argument_names(function, by_name=False) if n not in self.fixed]
        if isinstance(x, list):
            needed = [n for n in names if default_of(function, n) is inspect.Parameter.empty]
            values = (x,) if len(x) == 1 or len(needed) < len(x) else values
        names = names[: len(values)]
        if len(names) < len(values):
            names = ["x"] if len(values) == 1 else [f"x{i}" for i in range(len(values))]
        return dict(zip(names, values, strict=True))

    def values(self, given: Tensors, fixed: Mapping[str, Any]) -> list[Any]:
        """Return the arguments in order, with these tensors."""
        made = {name: _filled(name, value, given) for name, value in self._inputs.items()}
        return [{**made, **fixed}[name] for name in self.names]

    def call(self, function: Callable[..., Any], values: Sequence[Any], **options: Any) -> Any:
        """Call a function with arguments in this order: by name if it has all of the names."""
        if self._by_name:
            return function(**dict(zip(self.names, values, strict=True)), **options)
        return function(*values, **options)

    def gradients(self, expected: str, got: Any) -> list[Any]:
        """Return the gradients of the tensors, in their order, from what a backward pass returned.

        That is one array, a tuple, list or dictionary, or one array of all of them stacked. A
        sequence may have an item for each argument, of which some have no gradient. The keys of
        a dictionary are the names, or ``dx``. Lists and dictionaries of tensors have gradients
        of the same form.

        Raises
        ------
        ContractError
            With ``expected``, if gradients are missing or too many.
        """
        arguments = {name: {**self.fixed, **self._inputs}[name] for name in self.names}
        found: dict[str, Any] = {}
        self._collect(expected, arguments, got, found)
        return [found[name] for name in self.tensors]

    def _collect(
        self, expected: str, nodes: Mapping[str, Any], got: Any, found: dict[str, Any]
    ) -> None:
        """Put the gradients of the tensors in these arguments, or in these entries, by name."""
        wanted = [n for n, v in nodes.items() if any(p in self.tensors for p in leaves(n, v))]
        items: Sequence[Any]
        several = isinstance(got, (tuple, list)) or (isinstance(got, np.ndarray) and got.ndim)
        one_of_many = len(wanted) == 1 and children(wanted[0], nodes[wanted[0]]) is not None
        if isinstance(got, Mapping):
            keys = [_key(got, name) for name in wanted]
            if one_of_many and keys == [None]:
                items = [got]
            elif None in keys:
                missing = [n for n, key in zip(wanted, keys, strict=True) if key is None]
                raise ContractError(
                    f"{expected} a gradient of {', '.join(missing)}, got the keys "
                    f"{', '.join(map(str, got))}"
                )
            else:
                items = [got[key] for key in keys]
        elif len(wanted) == 1 and (
            not isinstance(got, (tuple, list)) or (one_of_many and len(got) != 1)
        ):
            items = [got]
        elif several and len(got) == len(wanted):
            items = list(got)
        elif isinstance(got, (tuple, list)) and len(got) == len(nodes):
            items = [item for item, name in zip(got, nodes, strict=True) if name in wanted]
        elif wanted:
            count = len(got) if isinstance(got, (tuple, list)) else 1
            raise ContractError(
                f"{expected} {len(wanted)} gradients, one for each of {', '.join(wanted)}, got "
                f"{count}"
            )
        else:
            items = []
        for name, item in zip(wanted, items, strict=True):
            inner = children(name, nodes[name])
            if inner is None:
                found[name] = item
            else:
                self._collect(expected, inner, item, found)


def _filled(name: str, value: Any, given: Tensors) -> Any:
    """Return a value with other tensors in their places."""
    if name in given:
        return given[name]
    inner = children(name, value)
    if inner is None:
        return value
    made = [_filled(path, child, given) for path, child in inner.items()]
    return dict(zip(value, made, strict=True)) if isinstance(value, Mapping) else type(value)(made)


def _key(got: Mapping[Any, Any], name: str) -> Any:
    """Return the key of a gradient: the last part of the name, or ``d`` and this."""
    last = name.rpartition(".")[2]
    return next((key for key in (name, last, f"d{last}") if key in got), None)


def joined(expected: str, output: Any) -> tuple[Array, Callable[[Array], Any]]:
    """Return one array for several outputs, and the function that takes its cotangent apart.

    A single output, or anything else than a sequence of arrays, is returned as it is.
    """
    if not isinstance(output, (tuple, list)):
        return output, lambda dy: dy
    parts = [returned_floats(expected, y) for y in output]
    ends = np.cumsum([y.size for y in parts])[:-1]

    def apart(dy: Array) -> Any:
        pieces = zip(np.split(dy, ends), parts, strict=True)
        shaped = [piece.reshape(y.shape).astype(y.dtype) for piece, y in pieces]
        return shaped if isinstance(output, list) else tuple(shaped)

    return np.concatenate([y.ravel() for y in parts]), apart


def described(tensors: Tensors) -> str:
    """Return the names, shapes and dtypes of tensors."""
    return ", ".join(f"{key} {v.shape} {v.dtype}" for key, v in tensors.items())


# Subjects


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


class Subject(ABC):
    """A function of named tensors with its backward pass."""

    source: Any  # what the caller gave
    name: str  # in messages about tensors
    title: str  # the object in the heading of the report
    details: str  # its inputs there
    tensors: dict[str, Array]  # the inputs, then the parameters
    inputs: list[str]  # the names of the tensors that are no parameters
    parameters: dict[str, Parameter]
    fixed: dict[str, Any]  # further arguments, which have no gradient
    expected: tuple[str, str]  # in errors: the output, and the gradient of the tensor {}
    axis: int = -1  # of a simplex map
    batch: bool = True  # whether the rows of the inputs are examples
    notes: tuple[str, ...] = ()  # what the check cannot see
    numpy_seed: int | None = None  # for NumPy's and Python's global generators, before every pass

    @abstractmethod
    def forward(self, given: dict[str, Array]) -> tuple[Any, Pull]:
        """Run one pass on these copies of the tensors; return the output and its pull."""

    def run(self, tensors: Tensors) -> Pass:
        """Run one pass at these values; their dtypes decide the precision."""
        given = {name: copy_with_strides(value) for name, value in tensors.items()}
        if self.numpy_seed is not None:
            random.seed(self.numpy_seed)
            np.random.seed(self.numpy_seed)  # noqa: NPY002
        output, gradient = (f"{self.name}: expected {phrase}" for phrase in self.expected)
        y, raw_pull = self.forward(given)
        y = returned_floats(f"{output} to be", y)

        def pull(dy: Array) -> dict[str, Array]:
            given["cotangent"] = dy = copy_with_strides(dy)
            return {
                name: returned_gradient(gradient.format(name), tensors[name], d)
                for name, d in zip(self.tensors, raw_pull(dy), strict=True)
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


# Functions as subjects: pairs of functions, losses and simplex maps

Run = Callable[[dict[str, Array], Mapping[str, Any]], tuple[Any, Pull]]
"""``run(tensors, fixed)`` returns the output and its pull."""


class FunctionSubject(Subject):
    """A function of named tensors, without state; ``axis`` is that of a simplex map."""

    def __init__(
        self,
        source: Any,
        name: str,
        tensors: Tensors,
        fixed: Mapping[str, Any],
        run: Run,
        expected: tuple[str, str],
        axis: int = -1,
    ) -> None:
        self.source, self.name, self._run = source, name, run
        self.tensors, self.fixed, self.inputs = dict(tensors), dict(fixed), list(tensors)
        self.parameters, self.expected, self.axis = {}, expected, axis
        named = hasattr(source, "__name__")
        self.title = function_name(source) if named else title(source)
        self.details = described(tensors)

    def forward(self, given: dict[str, Array]) -> tuple[Any, Pull]:
        return self._run(given, self.fixed)


def function_subject(
    owner: str, f: Any, backward: Any, x: Any, fixed: Mapping[str, Any] | None, *, cache: bool
) -> FunctionSubject:
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
    arguments = Arguments(owner, f, x, fixed)
    if not arguments.tensors:
        raise TypeError(f"{owner}: expected at least one input that is an array of floats")
    name = function_name(f)

    def run(given: dict[str, Array], fixed: Mapping[str, Any]) -> tuple[Any, Pull]:
        values = arguments.values(given, fixed)
        result = arguments.call(f, values)
        several, kept = False, None
        if cache:
            if not isinstance(result, tuple) or len(result) < 2:
                raise ContractError(
                    f"{name}: expected forward to return the output and a cache, got "
                    f"{type_text(result)}; write: return y, cache"
                )
            several = len(result) > 2  # y1, y2, cache
            result, kept = result[:-1] if several else result[0], result[-1]
        y, apart = joined(f"{name}: expected {what[0]}'s output to be", result)

        def pull(dy: Array) -> list[Any]:
            if cache:
                got = backward(*(apart(dy) if several else (apart(dy),)), kept)
            else:
                got = backward(*values, apart(dy))
            return arguments.gradients(f"{name}: expected {what[1]} to return", got)

        return y, pull

    expected = f"{what[0]}'s output", f"{what[1]} to return d{{}}"
    subject = FunctionSubject(f, name, arguments.tensors, arguments.fixed, run, expected)
    subject.notes = arguments.notes
    return subject


def loss_subject(loss: Any, logits: Any, y: Any, *, as_fit: bool) -> FunctionSubject:
    """Return ``value, dlogits = loss(logits, y)`` as a subject; the targets are held still.

    ``as_fit`` gives them the shape in which ``fit`` passes them.
    """
    expect_floats("check_loss", "logits", logits)
    if not callable(loss):
        raise TypeError(
            f"check_loss: expected a function value, dlogits = loss(logits, y), got "
            f"{type_text(loss)}; write: AdaptedLoss(loss.value, loss.gradient)"
        )
    name = function_name(loss)
    expected = "the loss to return dlogits"

    def run(given: dict[str, Array], fixed: Mapping[str, Any]) -> tuple[Any, Pull]:
        z = given["logits"]
        targets = np.array(fixed["y"])
        if as_fit:
            targets = shaped_targets(loss, z, targets)
        result = loss(z, targets)
        pair = isinstance(result, tuple) and len(result) == 2
        if not pair or np.size(result[0]) != 1:
            hint = "a value for each example: AdaptedLoss(..., reduce=np.sum)"
            raise ContractError(
                f"{name}: expected loss(logits, y) to return a number and its gradient, got "
                f"{type_text(result)}; {hint if pair else 'write: return value, dlogits'}"
            )
        dlogits = returned_gradient(f"{name}: expected {expected}", z, result[1])
        value = np.asarray(result[0]).reshape(())
        if value.dtype.kind in "iub":
            value = value.astype(np.float64)
        return value, lambda dy: (dlogits * float(dy),)

    phrases = "a number", expected
    return FunctionSubject(loss, name, {"logits": logits}, {"y": np.asarray(y)}, run, phrases)


def map_subject(map: Any, z: Any, axis: int) -> FunctionSubject:
    """Return a simplex map and its ``vjp`` as a subject."""
    expect_floats("check_simplex_map", "z", z)
    if not callable(map) or not callable(getattr(map, "vjp", None)):
        raise TypeError(
            f"check_simplex_map: expected map(z, axis=-1) with map.vjp(p, dp, axis=-1), got {map!r}"
        )

    def run(given: dict[str, Array], fixed: Mapping[str, Any]) -> tuple[Any, Pull]:
        given["output"] = p = map(given["z"], axis=axis)
        return p, lambda dp: (map.vjp(p, dp, axis=axis),)

    expected = "map(z)", "vjp(p, dp) to return dz"
    subject = FunctionSubject(map, title(map), {"z": z}, {}, run, expected, axis)
    subject.details += f", axis={axis}"
    subject.batch = axis not in (0, -z.ndim)
    return subject
