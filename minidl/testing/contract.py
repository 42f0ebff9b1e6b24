"""What a forward and a backward pass must return; an error says what came instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.checks import Array, type_text


class ContractError(TypeError, ValueError):
    """A result has the wrong type or shape, so that there is nothing to compare."""


def returned_pass(owner: str, method: str, result: Any) -> tuple[Any, Callable[..., Any]]:
    """Return the output and the backward pass that a forward pass returned."""
    if not (isinstance(result, tuple) and len(result) == 2 and callable(result[1])):
        raise ContractError(
            f"{owner}: expected {method} to return y, backward, got {type_text(result)}; "
            "write: return y, backward"
        )
    return result


def is_floats(value: Any) -> bool:
    """Return whether a value is an array or a number of NumPy's floats."""
    return isinstance(value, (np.ndarray, np.floating)) and value.dtype.kind == "f"


def returned_floats(expected: str, y: Any) -> Array:
    """Return an output as an array, if it holds floats; ``expected`` begins the error."""
    if not is_floats(y) and not isinstance(y, float):
        raise ContractError(f"{expected} an array of floats, got {type_text(y)}")
    return np.asarray(y)


def returned_gradient(expected: str, x: Array, dx: Any) -> Array:
    """Return a copy of a gradient, if it has the shape of its tensor."""
    number = isinstance(dx, float) and x.ndim == 0
    if not (is_floats(dx) or number) or np.shape(dx) != x.shape:
        turned = is_floats(dx) and dx.shape == x.shape[::-1]
        hint = "; is a transpose missing?" if turned else ""
        raise ContractError(f"{expected}, an array of shape {x.shape}, got {type_text(dx)}{hint}")
    return np.array(dx)
