"""Values within objects by their paths, such as ``cell.W`` or ``params.0``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from minidl.checks import Array

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
        k = int(last)
        put(owner, parent, (*holder[:k], value, *holder[k + 1 :]))
    else:
        setattr(holder, last, value)


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
