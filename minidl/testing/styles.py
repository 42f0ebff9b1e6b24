"""Subjects from layers, losses, simplex maps and functions: one maker for each calling style."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minidl.losses.targets import shaped_targets
from minidl.parameter import Parameter, is_layer, named_parameters, walk
from minidl.testing.adapters import AdaptedLoss, Cached
from minidl.testing.calling import (
    accepts,
    call,
    describe,
    float_array,
    gradient_like,
    gradients_of,
    in_order,
    joined,
    named,
    short,
)
from minidl.testing.report import ContractError
from minidl.testing.subjects import Pull, Subject, returns_backward
from minidl.testing.suggestions import suggestion
from minidl.typing import Array

Fixed = Mapping[str, Any]


def layer_subject(layer: Any, x: Any, train: bool, fixed: Fixed | None = None) -> Subject:
    """Return a layer as a subject, at its inputs and the values of its parameters."""
    fixed = dict(fixed or {})
    forward_method = checked_layer(layer)
    signature = layer.method if isinstance(layer, Cached) else forward_method
    inputs = named(signature, x, fixed)
    if len(inputs) == 1 and not fixed and not isinstance(x, Mapping):
        inputs = {"input": next(iter(inputs.values()))}
    for key, value in inputs.items():
        float_array("check_layer", "x" if key == "input" else key, value)
    name = type(layer.layer if isinstance(layer, Cached) else layer).__name__
    if not accepts(forward_method, *inputs, *fixed, train=True):
        raise TypeError(
            f"{name}: expected forward to take {', '.join(['x', *list(inputs)[1:], *fixed])} and "
            f"train=; write: {CONTRACT}{suggestion(layer)}"
        )
    parameters: dict[str, Parameter] = {}
    for key, p in named_parameters(layer):
        if all(p is not q for q in parameters.values()):
            parameters[key] = p
    layers = list(walk(layer))
    order = in_order(signature, {key: key for key in [*inputs, *fixed]})
    notes = () if train else tuple(n for m in layers if isinstance(m, Cached) for n in m.notes)

    def forward(given: dict[str, Array]) -> tuple[Any, Pull]:
        values = [given[key] for key in inputs]
        if isinstance(x, Mapping) or fixed:
            arguments = dict(zip(inputs, values, strict=True)) | fixed
            result = forward_method(*in_order(signature, arguments), train=train)
        else:
            result = forward_method(*values, train=train)
        if not returns_backward(result):
            raise ContractError(
                f"{name}: expected forward(x, train=...) to return the output and a "
                f"function, got {describe(result)}; write: return y, backward"
            )
        y, backward = result
        y, apart = joined(y, f"{name}: expected forward's output")

        def pull(dy: Array, **options: Any) -> list[Any]:
            got = backward(apart(dy), **options)
            if len(inputs) == 1 and not fixed and not isinstance(got, (tuple, list, Mapping)):
                return [got]
            expected = f"{name}: expected backward(dy) to return"
            return gradients_of(got, list(inputs), order, expected)

        return y, pull

    def rows(k: int) -> Subject:
        less = first_rows(inputs, k, fixed)
        at = less if isinstance(x, Mapping) else tuple(less[key] for key in inputs)
        return layer_subject(layer, at, train, first_rows(fixed, k, inputs))

    shapes = described({"x" if key == "input" else key: v for key, v in inputs.items()})
    details = f"{shapes}, train={train}" if shapes else f"train={train}"
    tensors = {**inputs, **{key: p.value.copy() for key, p in parameters.items()}}
    if not tensors:
        raise TypeError(f"{name}: nothing to check, neither inputs nor parameters")
    gradient = "backward(dy) to return d{}" if len(inputs) != 1 else "backward(dy) to return dx"
    return Subject(
        layer, name, short(layer), details, tensors, forward, ("forward's output", gradient),
        parameters, layers, train, notes=notes, rows=rows,
    )  # fmt: skip


CONTRACT = "def forward(self, x, *, train=False): ...; return y, backward"


def checked_layer(layer: Any) -> Callable[..., Any]:
    """Return the ``forward`` of a layer; TypeError if it has none."""
    if isinstance(layer, type):
        raise TypeError(f"expected a layer, got the class {layer.__name__}: make one of it first")
    if not is_layer(layer) or not hasattr(layer, "__dict__"):
        raise TypeError(
            f"{type(layer).__name__}: expected an object with forward(x, train=...) -> y, "
            f"backward, got {describe(layer)}; write: {CONTRACT}{suggestion(layer)}"
        )
    forward: Callable[..., Any] = layer.forward
    return forward


def loss_subject(loss: Any, logits: Any, y: Any) -> Subject:
    """Return ``value, dlogits = loss(logits, y)`` as a subject; the targets are held still."""
    float_array("check_loss", "logits", logits)
    if not callable(loss):
        raise TypeError(
            f"check_loss: expected a function value, dlogits = loss(logits, y), got "
            f"{describe(loss)}; write: AdaptedLoss(loss.value, loss.gradient)"
        )
    name = getattr(loss, "__name__", type(loss).__name__)
    expected = "the loss to return dlogits"

    def forward(given: dict[str, Array]) -> tuple[Any, Pull]:
        z = given["logits"]
        targets = np.array(y)
        if not isinstance(loss, AdaptedLoss):  # as fit passes them
            targets = shaped_targets(loss, z, targets)
        result = loss(z, targets)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise ContractError(
                f"{name}: expected loss(logits, y) to return a number and its gradient, got "
                f"{describe(result)}; write: return value, dlogits"
            )
        if np.size(result[0]) != 1:
            raise ContractError(
                f"{name}: expected loss(logits, y) to return a number and its gradient, got "
                f"{describe(result)}; a value for each example: AdaptedLoss(..., reduce=np.sum)"
            )
        dlogits = gradient_like(z, result[1], f"{name}: expected {expected}")
        value = np.asarray(result[0]).reshape(())
        if value.dtype.kind in "iub":
            value = value.astype(np.float64)
        return value, lambda dy: (dlogits * float(dy),)

    def rows(k: int) -> Subject:
        return loss_subject(loss, logits[:k], np.asarray(y)[:k])

    phrases = "a number", expected
    details, tensors = described({"logits": logits}), {"logits": logits}
    return Subject(loss, name, short(loss), details, tensors, forward, phrases, rows=rows)


def map_subject(map: Any, z: Any, axis: int) -> Subject:
    """Return a simplex map and its ``vjp`` as a subject."""
    float_array("check_simplex_map", "z", z)
    if not callable(map) or not callable(getattr(map, "vjp", None)):
        raise TypeError(
            f"check_simplex_map: expected map(z, axis=-1) with map.vjp(p, dp, axis=-1), got {map!r}"
        )

    def forward(given: dict[str, Array]) -> tuple[Any, Pull]:
        given["output"] = p = map(given["z"], axis=axis)
        return p, lambda dp: (map.vjp(p, dp, axis=axis),)

    def rows(k: int) -> Subject:
        return map_subject(map, z[:k], axis)

    name, details = short(map), f"{described({'z': z})}, axis={axis}"
    expected = "map(z)", "vjp(p, dp) to return dz"
    along_rows = axis in (0, -z.ndim)
    return Subject(
        map, name, name, details, {"z": z}, forward, expected, axis=axis,
        rows=None if along_rows else rows,
    )  # fmt: skip


def function_subject(
    owner: str, f: Any, backward: Any, x: Any, fixed: Fixed | None, *, cache: bool
) -> Subject:
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
    fixed = dict(fixed or {})
    tensors = named(f, x, fixed)
    for key, value in tensors.items():
        float_array(owner, key, value)
    if not tensors:
        raise TypeError(f"{owner}: expected at least one input that is an array of floats")
    name = getattr(f, "__name__", type(f).__name__).replace("<lambda>", "f")
    order = list(in_order(f, {key: key for key in [*tensors, *fixed]}))

    def forward(given: dict[str, Array]) -> tuple[Any, Pull]:
        values = {key: given[key] for key in tensors} | fixed
        result = call(f, values)
        if not cache:
            y, apart = joined(result, f"{name}: expected f's output")

            def pull(dy: Array) -> list[Any]:
                got = backward(*in_order(f, values), apart(dy))
                expected = f"{name}: expected vjp to return"
                return gradients_of(got, list(tensors), order, expected)

            return y, pull
        if not isinstance(result, tuple) or len(result) < 2:
            raise ContractError(
                f"{name}: expected forward to return the output and a cache, got "
                f"{describe(result)}; write: return y, cache"
            )
        flat = len(result) > 2  # y1, y2, cache
        y, apart = joined(result[:-1] if flat else result[0], f"{name}: expected forward's output")

        def pull_cache(dy: Array) -> list[Any]:
            cotangents = apart(dy) if flat else (apart(dy),)
            expected = f"{name}: expected backward to return"
            got = backward(*cotangents, result[-1])
            return gradients_of(got, list(tensors), order, expected)

        return y, pull_cache

    def rows(k: int) -> Subject:
        first = next(iter(tensors))
        less, held = first_rows(tensors, k, fixed), first_rows(fixed, k, tensors)
        alone = {**tensors, first: less[first]}
        for at in ((alone, fixed), (alone, held), (less, held)):
            try:
                call(f, {**at[0], **at[1]})
            except Exception:  # noqa: S112 - a weight was cut, or an input was not
                continue
            break
        return function_subject(owner, f, backward, at[0], at[1], cache=cache)

    details = described(tensors)
    expected = f"{what[0]}'s output", f"{what[1]} to return d{{}}"
    return Subject(f, name, name, details, tensors, forward, expected, rows=rows)


def described(tensors: Mapping[str, Array]) -> str:
    """Return the names, shapes and dtypes of tensors."""
    return ", ".join(f"{key} {v.shape} {v.dtype}" for key, v in tensors.items())


def first_rows(values: Mapping[str, Any], k: int, others: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values, with k rows of all arrays that have as many as the first array has."""
    arrays = [v for v in [*values.values(), *others.values()] if isinstance(v, np.ndarray)]
    floats = [v for v in arrays if v.dtype.kind == "f" and v.ndim]
    n = len((floats or arrays)[0]) if floats or arrays else -1
    return {
        key: v[:k] if isinstance(v, np.ndarray) and v.ndim and len(v) == n else v
        for key, v in values.items()
    }
