"""Calls of anyone's functions: names of arguments, several outputs, gradients by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from minidl.checks import Array
from minidl.testing.report import ContractError

DEPTH = 4
"""Objects within objects are searched so deep."""


def look_up(found: Any, path: str) -> Any:
    """Return what a path leads to: attributes, items of dictionaries, lists and tuples.

    Raises
    ------
    LookupError
        With the part of the path that does not exist.
    """
    for part in path.split("."):
        try:
            if isinstance(found, Mapping):
                found = found[part]
            elif isinstance(found, (list, tuple)):
                found = found[int(part)]
            else:
                found = getattr(found, part)
        except (AttributeError, LookupError, ValueError):
            raise LookupError(part) from None
    return found


def put(owner: Any, path: str, value: Any) -> None:
    """Put a value where a path leads."""
    parent, _, last = path.rpartition(".")
    holder = look_up(owner, parent) if parent else owner
    if isinstance(holder, MutableMapping):
        holder[last] = value
    elif isinstance(holder, list):
        holder[int(last)] = value
    elif isinstance(holder, tuple):
        items = list(holder)
        items[int(last)] = value
        put(owner, parent, tuple(items))
    else:
        setattr(holder, last, value)


def items(owner: Any, path: str) -> dict[str, Any]:
    """Return the items of the dictionary or list at a path, by their paths."""
    found = look_up(owner, path)
    if isinstance(found, Mapping):
        return {f"{path}.{key}": value for key, value in found.items()}
    return {f"{path}.{i}": value for i, value in enumerate(found)}


def float_arrays(owner: Any) -> Iterator[tuple[str, Array]]:
    """Yield the arrays of floats in an object and in what it holds, each once, with their paths.

    Functions, classes and modules are not entered.
    """
    seen: set[int] = set()

    def members(owner: Any, prefix: str, depth: int) -> Iterator[tuple[str, Array]]:
        if id(owner) in seen or depth == 0:
            return
        seen.add(id(owner))
        if isinstance(owner, Mapping):
            found = list(owner.items())
        elif isinstance(owner, (list, tuple)):
            found = list(enumerate(owner))
        else:
            found = list(getattr(owner, "__dict__", {}).items())
        for name, value in found:
            if isinstance(value, np.ndarray):
                if value.dtype.kind == "f" and value.size and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{prefix}{name}", value
            elif not isinstance(value, (type, FunctionType, MethodType, ModuleType)):
                yield from members(value, f"{prefix}{name}.", depth - 1)

    return members(owner, "", DEPTH)


TRAINING = ("train", "training", "is_train", "is_training", "train_flg", "train_mode")
EVALUATION = ("eval", "evaluate", "inference", "is_eval", "is_test", "test_mode")
"""Names of flags that are found without being told."""


@dataclass(frozen=True)
class Flag:
    """The training flag of an object: its name, its sense, and its kind. No name: none."""

    name: str = ""
    opposite: bool = False
    kind: str = ""

    def set(self, layer: Any, train: bool) -> dict[str, bool]:
        """Set the flag of a copy, or return it as an argument for ``forward``."""
        value = train != self.opposite
        if self.kind == "argument":
            return {self.name: value}
        if self.kind == "attribute":
            put(layer, self.name, value)
        elif self.kind == "methods":
            (layer.train if train else layer.eval)()
        return {}


def find_flag(layer: Any, forward: Callable[..., Any], told: str | None) -> Flag:
    """Return the flag that the user named, or one with a usual name; ValueError if it is absent."""
    if told is not None:
        names = [(told.removeprefix("not "), told.startswith("not "))]
    else:
        names = [*((n, False) for n in TRAINING), *((n, True) for n in EVALUATION)]
    for name, opposite in names:
        if name in argument_names(forward):
            return Flag(name, opposite, "argument")
    for name, opposite in names:
        try:
            found = look_up(layer, name)
        except LookupError:
            continue
        if told or isinstance(found, bool):
            return Flag(name, opposite, "attribute")
    if told is not None:
        raise ValueError(f"Cached: {type(layer).__name__} has no flag {told!r}")
    if all(callable(getattr(layer, method, None)) for method in ("train", "eval")):
        return Flag("train() and eval()", False, "methods")
    return Flag()


def accepts(function: Callable[..., Any], *args: Any, **options: Any) -> bool:
    """Return whether a call with these arguments fits the signature of the function."""
    try:
        inspect.signature(function).bind(*args, **options)
    except TypeError:
        return False
    except ValueError:  # a built-in function without a signature
        return not options
    return True


def argument_names(function: Callable[..., Any], *, by_name: bool = True) -> list[str]:
    """Return the names of the arguments; with ``by_name``, of those that can be given by name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    given = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return [p.name for p in given if not (by_name and p.kind is p.POSITIONAL_ONLY)]


def named(function: Callable[..., Any], x: Any, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs by name: a dict as it is, others by the names that are not ``fixed``."""
    if isinstance(x, Mapping):
        return dict(x)
    arrays = x if isinstance(x, tuple) else (x,)
    known = argument_names(function, by_name=False)
    names = [n for n in known if n not in fixed][: len(arrays)]
    if len(names) < len(arrays) or any(n.startswith("_") for n in names):
        names = ["x"] if len(arrays) == 1 else [f"x{i}" for i in range(len(arrays))]
    return dict(zip(names, arrays, strict=True))


def in_order(function: Callable[..., Any], values: Mapping[str, Any]) -> list[Any]:
    """Return the values in the order of the function's arguments if it has all these names."""
    names = argument_names(function)
    if set(values) <= set(names[: len(values)]):
        return [values[name] for name in names[: len(values)]]
    return list(values.values())


def call(function: Callable[..., Any], values: Mapping[str, Any], **options: Any) -> Any:
    """Call a function by the names of its arguments, or else in the order of the values."""
    if set(values) <= set(argument_names(function)):
        return function(**values, **options)
    return function(*values.values(), **options)


def gradients_of(
    got: Any, names: Sequence[str], everything: Sequence[str], expected: str
) -> list[Any]:
    """Return the gradients of ``names``, in their order, from what a backward pass returned.

    That is one array, or a tuple, list or dict. A sequence may have an item for each of
    ``everything``, of which some have no gradient. The keys of a dict are the names, or ``dx``.

    Raises
    ------
    ContractError
        With ``expected``, if gradients are missing or too many.
    """
    if isinstance(got, Mapping):
        keys = {name: [name, f"d{name}", f"d_{name}", f"grad_{name}"] for name in names}
        found = {name: next((k for k in keys[name] if k in got), None) for name in names}
        missing = [name for name in names if found[name] is None]
        if missing:
            raise ContractError(
                f"{expected} a gradient of {', '.join(missing)}, got the keys "
                f"{', '.join(map(str, got))}"
            )
        return [got[found[name]] for name in names]
    items = list(got) if isinstance(got, (tuple, list)) else [got]
    if not names:
        return []
    if len(items) == len(names):
        return items
    if len(items) == len(everything):
        return [item for item, name in zip(items, everything, strict=True) if name in names]
    raise ContractError(
        f"{expected} {len(names)} gradients, one for each of {', '.join(names)}, got {len(items)}"
    )


def joined(output: Any, expected: str) -> tuple[Array, Callable[[Array], Any]]:
    """Return one array for several outputs, and the function that takes its cotangent apart.

    A single output, or anything else than a sequence of arrays, is returned as it is.
    """
    if not isinstance(output, (tuple, list)):
        return output, lambda dy: dy
    parts = [float_output(y, expected) for y in output]
    ends = np.cumsum([y.size for y in parts])[:-1]

    def apart(dy: Array) -> Any:
        pieces = np.split(dy, ends)
        shaped = (p.reshape(y.shape).astype(y.dtype) for p, y in zip(pieces, parts, strict=True))
        return type(output)(shaped) if type(output) in (tuple, list) else tuple(shaped)

    return np.concatenate([y.ravel() for y in parts]), apart


def float_output(y: Any, expected: str) -> Array:
    """Return ``y`` as an array if it holds floats; raise ContractError otherwise."""
    if isinstance(y, float):
        y = np.float64(y)
    if not isinstance(y, (np.ndarray, np.floating)) or y.dtype.kind != "f":
        raise ContractError(f"{expected} to be an array of floats, got {describe(y)}")
    return np.asarray(y)


def gradient_like(x: Array, dx: Any, expected: str) -> Array:
    """Return a copy of ``dx`` if it has the shape of ``x``; raise ContractError otherwise."""
    if isinstance(dx, float) and x.ndim == 0:
        dx = np.float64(dx)
    if not isinstance(dx, (np.ndarray, np.floating)) or dx.dtype.kind != "f":
        raise ContractError(f"{expected}, an array of shape {x.shape}, got {describe(dx)}")
    if dx.shape != x.shape:
        hint = "; is a transpose missing?" if dx.shape == x.shape[::-1] else ""
        raise ContractError(f"{expected} of the shape {x.shape}, got {dx.shape}{hint}")
    return np.array(dx)


def float_array(owner: str, name: str, x: Any) -> Array:
    """Return ``x`` if it is an array of floats; raise TypeError otherwise."""
    if not isinstance(x, np.ndarray) or x.dtype.name not in ("float16", "float32", "float64"):
        fixed = "" if not isinstance(x, np.ndarray) else f", or pass fixed={{'{name}': ...}}"
        raise TypeError(
            f"{owner}: expected {name} to be an array of float32 or float64, got {describe(x)}; "
            f"write: np.asarray({name}, np.float64){fixed}"
        )
    return x


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
    long = len(text) > 70 or "\n" in text or " at 0x" in text
    return type(value).__name__ if long else text
