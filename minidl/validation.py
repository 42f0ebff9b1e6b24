"""Checks of arguments; the messages name the owner, what was expected and what was given."""

from __future__ import annotations

import importlib
import math
import operator
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np

from minidl.typing import Array


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown ``word``: the closest known one, or all of them.

    The hint continues a message: ``", did you mean 'relu'?"`` or ``", expected one of ..."``.
    """
    import difflib

    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f", did you mean {close[0]!r}?"
    return f", expected one of {', '.join(names)}" if names else ""


def check_int(owner: str, name: str, value: object, *, low: int = 1) -> int:
    """Return ``value`` as an int; ValueError unless it is a whole number of at least ``low``."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = low - 1
    if number < low or isinstance(value, bool):
        raise ValueError(f"{owner}: expected {name} to be a whole number >= {low}, got {value!r}")
    return number


def check_float(
    owner: str,
    name: str,
    value: object,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return ``value`` as a float; ValueError unless it is finite and in ``[low, high]``.

    With ``open_low`` or ``open_high`` the bound itself is not allowed.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    above = number > low if open_low else number >= low
    below = number < high if open_high else number <= high
    if not (math.isfinite(number) and above and below):
        bounds = [f"{'>' if open_low else '>='} {low:g}"] if low > -math.inf else []
        bounds += [f"{'<' if open_high else '<='} {high:g}"] if high < math.inf else []
        want = " ".join(["a finite number", " and ".join(bounds)]).strip()
        raise ValueError(f"{owner}: expected {name} to be {want}, got {value!r}")
    return number


def check_array(
    owner: str, name: str, value: object, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Return a copy of ``value`` in ``dtype``; ValueError if it has another shape or no numbers."""
    array = np.asarray(value)
    if array.shape != shape:
        raise ValueError(f"{owner}: expected {name} of shape {shape}, got {array.shape}")
    if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(f"{owner}: expected {name} to be real numbers, got dtype {array.dtype}")
    return array.astype(dtype)


def check_weight(owner: str, weight: object, n: int) -> Array:
    """Return weights of ``n`` examples as float64; ValueError unless finite and not negative."""
    array = np.asarray(weight)
    if array.shape != (n,):
        raise ValueError(f"{owner}: expected weight of shape ({n},), got {array.shape}")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{owner}: expected weight of numbers, got dtype {array.dtype}")
    array = array.astype(np.float64)
    wrong = np.flatnonzero(~((array >= 0) & (array < math.inf)))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"{owner}: expected finite weights that are not negative, got weight[{i}] = {array[i]}"
        )
    return array


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency; if it is missing, the error names the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{package} is needed for this: pip install 'minidl[{extra}]' ({error})"
        ) from error
