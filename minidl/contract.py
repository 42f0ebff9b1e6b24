"""Checks of the contracts of layers, losses and models, made once and not in each step.

``minidl.testing`` checks whether a backward pass is right; here only that what users' code returns
has the agreed form, so that an error names that code and not the next layer.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minidl.layer import Layer, Sequential, last_layer
from minidl.parameter import is_layer, named_layers
from minidl.state import check_buffers
from minidl.typing import Array, Backward
from minidl.vectors import check_vectors

Forward = Callable[..., tuple[Array, Backward]]


def check_model(owner: str, model: object) -> None:
    """Raise an error, in the name of ``owner``, unless ``model`` can be trained.

    Raises
    ------
    TypeError
        If it is no ``Layer``.
    ValueError
        If it has undeclared arrays, shares parameters with another model, or layers were changed
        after it was built.
    """
    if isinstance(model, type):
        raise TypeError(f"{owner}: expected a model, got the class {model.__name__}")
    if not isinstance(model, Layer):
        hint = "; wrap it: Sequential(layer)" if is_layer(model) else ""
        raise TypeError(f"{owner}: expected a model, got {describe(model)}{hint}")
    check_buffers(model)
    check_vectors(model)


@contextmanager
def checked(model: object) -> Iterator[Forward]:
    """Check, within this context, what the layers of a model return; yield its ``forward``.

    Checked are the model and the layers of each ``Sequential`` in it: ``forward`` returns an
    output of floats of the input's dtype, with a row for each of the input's, and a function;
    this returns an array of the input's shape and dtype. Call the backward pass within the context
    too. The arithmetic is the same as without it.

    Raises
    ------
    TypeError, ValueError
        In the pass, for the first layer that breaks the contract; the message names it.

    Examples
    --------
    >>> with checked(model) as forward:
    ...     logits, backward = forward(x, train=True)
    ...     write_gradients(model, backward, dlogits)
    """
    places: dict[int, tuple[str, Any]] = {}
    for prefix, layer in named_layers(model):
        if isinstance(layer, Sequential):
            for i, inner in enumerate(layer.layers):
                places[id(inner)] = f"layer {prefix}{i}, {_short(inner)}", inner
    places.setdefault(id(model), (_short(model), model))
    before = [(vars(layer), vars(layer).get("forward")) for _, layer in places.values()]
    for name, layer in places.values():
        # An attribute of the object hides the method of the class.
        vars(layer)["forward"] = _checked_forward(name, layer)
    try:
        yield model.forward  # type: ignore[attr-defined]
    finally:
        for attributes, forward in before:
            del attributes["forward"]
            if forward is not None:
                attributes["forward"] = forward


def _checked_forward(name: str, layer: Any) -> Forward:
    """Return the ``forward`` of a layer, with checks of what it and its ``backward`` return."""
    forward: Forward = layer.forward

    def checked_forward(x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        result: Any = forward(x, train=train)
        if not (isinstance(result, tuple) and len(result) == 2 and callable(result[1])):
            raise TypeError(
                f"{name}: expected forward(x, train=...) to return y, backward, got "
                f"{describe(result)}"
            )
        y, backward = result
        _check_floats(f"{name}: expected forward's output to be", y, x.dtype)
        if y.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"{name}: expected forward's output to have {len(x)} rows, as its input, "
                f"got {describe(y)}"
            )

        def checked_backward(dy: Array, **options: bool) -> Any:
            if options and not _accepts(backward, dy, **options):
                raise TypeError(
                    f"{name}: its class declares skips_input_grad, but backward does not take "
                    "input_grad; write: def backward(dy, input_grad=True)"
                )
            dx = backward(dy, **options)
            if options.get("input_grad", True):
                want = f"{name}: expected backward(dy) to return dx,"
                _check_floats(want, dx, x.dtype)
                if dx.shape != x.shape:
                    raise ValueError(f"{want} an array of shape {x.shape}, got {describe(dx)}")
            return dx

        return y, checked_backward

    return checked_forward


def checked_loss(loss: Any, logits: Array, *targets: Array) -> tuple[float, Array]:
    """Return ``loss(logits, *targets)``; raise an error that names the loss if its form is wrong.

    Raises
    ------
    TypeError, ValueError
        Unless it is a number, and an array of the shape and dtype of the logits.
    """
    if isinstance(loss, type):
        raise TypeError(f"expected a loss, got the class {loss.__name__}; write {loss.__name__}()")
    name = _short(loss)
    result: Any = loss(logits, *targets)
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(
            f"{name}: expected loss(logits, y) to return value, dlogits, got {describe(result)}"
        )
    value, dlogits = result
    if isinstance(value, complex) or np.ndim(value) or np.asarray(value).dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected its value to be a number, got {describe(value)}")
    _check_floats(f"{name}: expected dlogits to be", dlogits, logits.dtype)
    if dlogits.shape != logits.shape:
        raise ValueError(
            f"{name}: expected dlogits of the shape of the logits, {logits.shape}, got "
            f"{describe(dlogits)}"
        )
    return value, dlogits


def check_weighted_mean(loss: Any, value: float, logits: Array, y: Array, weight: Array) -> None:
    """Raise ValueError unless a loss, whose value is given, divides by the sum of the weights."""
    twice, _ = loss(logits, y, 2 * weight)
    if not math.isclose(twice, value, rel_tol=1e-3) and math.isfinite(value):
        raise ValueError(
            f"{_short(loss)}: expected the weighted mean, sum_i w_i l_i / sum_i w_i, which stays "
            f"the same when all weights are doubled, got {value:g} and {twice:g}; a loss that sums "
            'has the attribute reduction = "sum"'
        )


def name_probabilities(owner: str, model: object, loss: object, stacklevel: int) -> None:
    """Warn if a model ends with a layer that gives probabilities, and the loss expects logits."""
    last = last_layer(model)
    if getattr(last, "gives_probabilities", False) and getattr(loss, "expects_logits", False):
        warnings.warn(
            f"{owner}: the model ends with {last!r}, which gives probabilities, but {loss!r} "
            "expects logits; leave that layer out: minidl.probabilities(model, x, loss) gives the "
            "probabilities",
            stacklevel=stacklevel,
        )


def describe(value: object) -> str:
    """Return the type of a value, and the shape and dtype of an array, for an error."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}, {value.dtype}"
    if isinstance(value, tuple):
        return f"a tuple ({', '.join(map(describe, value))})"
    return "None" if value is None else f"{type(value).__name__} {_short(value)}"


def _check_floats(want: str, value: object, dtype: np.dtype[Any]) -> None:
    """Raise TypeError unless ``value`` is an array of ``dtype``, or of floats if that has none."""
    fits = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    if not fits or (dtype.kind == "f" and value.dtype != dtype):  # type: ignore[attr-defined]
        kind = dtype if dtype.kind == "f" else "floats"
        raise TypeError(f"{want} an array of {kind}, got {describe(value)}")


def _accepts(function: Callable[..., Any], *args: Any, **options: Any) -> bool:
    try:
        inspect.signature(function).bind(*args, **options)
    except TypeError:
        return False
    return True


def _short(value: object) -> str:
    """Return the name or ``repr`` of an object, or the name of its type if that is long."""
    text = getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= 70 and "\n" not in text else type(value).__name__
