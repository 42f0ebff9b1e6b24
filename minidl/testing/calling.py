"""Calls of anyone's functions: names of arguments, several outputs, gradients by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.checks import Array, ContractError, returned_floats, short_text, takes, type_text


def title(value: Any) -> str:
    """Return the name or ``repr`` of an object, or the name of its type if that is long."""
    text = short_text(value)
    return type(value).__name__ if " at 0x" in text else text


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


def named(owner: str, function: Callable[..., Any], x: Any, fixed: Iterable[str]) -> dict[str, Any]:
    """Return the inputs by name: a dict as it is, others by the names that are not ``fixed``.

    Raises
    ------
    TypeError
        In the name of ``owner``, if one is not an array of floats.
    """
    if isinstance(x, Mapping):
        inputs = dict(x)
    else:
        arrays = x if isinstance(x, tuple) else (x,)
        names = [n for n in argument_names(function, by_name=False) if n not in fixed][
            : len(arrays)
        ]
        if len(names) < len(arrays):
            names = ["x"] if len(arrays) == 1 else [f"x{i}" for i in range(len(arrays))]
        inputs = dict(zip(names, arrays, strict=True))
    for name, value in inputs.items():
        expect_floats(owner, name, value)
    return inputs


def expect_floats(owner: str, name: str, x: Any) -> None:
    """Raise TypeError unless ``x`` is an array of floats."""
    if not isinstance(x, np.ndarray) or x.dtype.name not in ("float16", "float32", "float64"):
        fixed = f", or pass fixed={{'{name}': ...}}" if isinstance(x, np.ndarray) else ""
        raise TypeError(
            f"{owner}: expected {name} to be an array of float32 or float64, got {type_text(x)}; "
            f"write: np.asarray({name}, np.float64){fixed}"
        )


@dataclass(frozen=True)
class Arguments:
    """The way of values into a function: by name if it has all of the names, else in order."""

    order: tuple[str, ...]
    by_name: bool

    @classmethod
    def of(cls, function: Callable[..., Any], names: Iterable[str]) -> Arguments:
        """Return the names in the order of the function's arguments, if it has all of them."""
        known, given = argument_names(function), tuple(names)
        by_name = set(given) <= set(known)
        return cls(tuple(sorted(given, key=known.index)) if by_name else given, by_name)

    def call(self, function: Callable[..., Any], values: Mapping[str, Any], **options: Any) -> Any:
        """Call a function with these of the values."""
        if self.by_name:
            return function(**{name: values[name] for name in self.order}, **options)
        return function(*(values[name] for name in self.order), **options)


def gradients_of(
    expected: str, got: Any, names: Sequence[str], everything: Sequence[str]
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
        keys = [name if name in got else f"d{name}" for name in names]
        missing = [name for name, key in zip(names, keys, strict=True) if key not in got]
        if missing:
            raise ContractError(
                f"{expected} a gradient of {', '.join(missing)}, got the keys "
                f"{', '.join(map(str, got))}"
            )
        return [got[key] for key in keys]
    items = list(got) if isinstance(got, (tuple, list)) else [got]
    if len(items) == len(names) or not names:
        return items[: len(names)]
    if len(items) == len(everything):
        return [item for item, name in zip(items, everything, strict=True) if name in names]
    raise ContractError(
        f"{expected} {len(names)} gradients, one for each of {', '.join(names)}, got {len(items)}"
    )


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
