"""Functions as subjects: pairs of functions, losses and simplex maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minidl.checks import Array, ContractError, returned_gradient, type_text
from minidl.losses import shaped_targets
from minidl.testing.cached import AdaptedLoss
from minidl.testing.calling import Arguments, expect_floats, gradients_of, joined, named, title
from minidl.testing.subjects import Pull, Subject, Tensors, described

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
        self.title, self.details = title(source).replace("<lambda>", "f"), described(tensors)

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
    fixed = fixed or {}
    tensors = named(owner, f, x, fixed)
    if not tensors:
        raise TypeError(f"{owner}: expected at least one input that is an array of floats")
    name = getattr(f, "__name__", type(f).__name__).replace("<lambda>", "f")
    arguments = Arguments.of(f, [*tensors, *fixed])

    def run(given: dict[str, Array], fixed: Mapping[str, Any]) -> tuple[Any, Pull]:
        values = {**given, **fixed}
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
                got = backward(*(values[key] for key in arguments.order), apart(dy))
            expected = f"{name}: expected {what[1]} to return"
            return gradients_of(expected, got, list(tensors), arguments.order)

        return y, pull

    expected = f"{what[0]}'s output", f"{what[1]} to return d{{}}"
    return FunctionSubject(f, name, tensors, fixed, run, expected)


def loss_subject(loss: Any, logits: Any, y: Any) -> FunctionSubject:
    """Return ``value, dlogits = loss(logits, y)`` as a subject; the targets are held still."""
    expect_floats("check_loss", "logits", logits)
    if not callable(loss):
        raise TypeError(
            f"check_loss: expected a function value, dlogits = loss(logits, y), got "
            f"{type_text(loss)}; write: AdaptedLoss(loss.value, loss.gradient)"
        )
    name = getattr(loss, "__name__", type(loss).__name__)
    expected = "the loss to return dlogits"

    def run(given: dict[str, Array], fixed: Mapping[str, Any]) -> tuple[Any, Pull]:
        z = given["logits"]
        targets = np.array(fixed["y"])
        if not isinstance(loss, AdaptedLoss):  # as fit passes them
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
