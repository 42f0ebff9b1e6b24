"""The settings of runs: what their results depend on, in a form that can be kept and compared."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from minidl.files import to_json


def describe_task(train: Callable[..., Any]) -> dict[str, Any]:
    """Return the name of a training function and the arguments of a ``functools.partial``."""
    description = describe(train)
    return description if isinstance(description, dict) else {"function": description}


def describe(value: object) -> Any:
    """Return a description that JSON can hold and that changes with the value.

    Functions are described by their name and a digest of their source without comments, arrays
    and data sets by a checksum, data classes by their fields. Paths say where, not what: all are
    the same. Other objects are described by their ``repr``, or by their class where that holds
    an address.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, PurePath):
        return "(path)"
    if isinstance(value, functools.partial):
        return {**describe_task(value.func), **_all(_arguments(value))}
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {value.dtype}, sha256 {_digest(value.tobytes())}"
    if callable(checksum := getattr(value, "checksum", None)) and not isinstance(value, type):
        return f"{type(value).__name__}, sha256 {checksum()}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _all({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return _all(value)
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(describe(item)) for item in value)
    if callable(value) and hasattr(value, "__qualname__"):
        return _function(value)
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else text


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    """Return the first name whose value differs, with both values; empty if there is none."""
    for name in {**old, **new}:
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found = first_difference(before, after, f"{prefix}{name}.")
            if found:
                return found
        elif before != after and to_json(before) != to_json(after):  # NaN is equal to NaN here
            return f"{prefix}{name} was {before!r}, now it is {after!r}"
    return ""


def _arguments(task: functools.partial[Any]) -> dict[str, Any]:
    """Return the arguments of a partial by name; positional ones of a builtin by position."""
    try:
        return inspect.signature(task.func).bind_partial(*task.args, **task.keywords).arguments
    except ValueError:  # no signature
        return {**{str(i): value for i, value in enumerate(task.args)}, **task.keywords}


def _all(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): describe(value) for name, value in values.items()}


def _function(function: Any) -> str:
    import ast  # slow to import, as all three
    import textwrap

    module = function.__module__
    if module == "__main__":  # a script: the name of its file
        module = Path(getattr(sys.modules["__main__"], "__file__", None) or module).stem
    name = f"{module}.{function.__qualname__}"
    try:
        source = ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, TypeError, SyntaxError):  # built in, or typed at a prompt
        return name
    return f"{name}, source {_digest(source.encode())[:8]}"


def _digest(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()
