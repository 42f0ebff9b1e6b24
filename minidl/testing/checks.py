"""The entry points: check a layer, a loss, a simplex map or a pair of functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minidl.parameter import is_layer
from minidl.rng import as_generator
from minidl.testing import conditions
from minidl.testing.conditions import Check, check_conditions
from minidl.testing.gradients import TOLERANCES, Linearization, Settings, cotangent
from minidl.testing.report import ContractError, GradientReport
from minidl.testing.subjects import (
    Pull,
    Subject,
    checked_gradient,
    describe,
    float_array,
    layer_subject,
    short,
)
from minidl.typing import Array, Rng
from minidl.validation import check_float


def check_layer(
    layer: Any,
    x: Array,
    *,
    train: bool = True,
    rng: Rng = 0,
    eps: float = 1e-5,
    rtol: float | None = None,
    atol: float | None = None,
) -> GradientReport:
    """Check the backward pass of a layer, whoever wrote it.

    The gradients with respect to the input and to each parameter are compared with central
    differences in float64, along random directions and with a random cotangent; then the side
    conditions are checked. Kinks are told from errors, and randomness is held fixed: a
    stochastic layer draws the same mask in every pass.

    Parameters
    ----------
    layer : object
        With ``forward(x, train=...) -> y, backward``. Parameters (``minidl.Parameter``) are
        found as ``Sequential`` finds them: among its attributes and those of its inner layers.
        Its values, gradients, attributes and random state are restored after the check.
    x : array of float32 or float64
        A batch, in any memory layout; not modified. The analytic side has its dtype.
    train : bool
        Passed to ``forward``.
    rng : int or Generator
        Draws the directions and the cotangent.
    eps : float
        The step of the central differences; a hundredth of it is tried if the sides disagree.
    rtol, atol : float, optional
        By default 1e-6 and 1e-9 in float64, 1e-4 and 1e-7 in float32.

    Returns
    -------
    GradientReport
        True if everything passed.

    Raises
    ------
    TypeError
        If the layer does not keep the contract or ``x`` is not an array of floats.
    ContractError
        If ``forward`` or ``backward`` returns something of the wrong type or shape.

    Examples
    --------
    >>> print(check_layer(minidl.Linear(3, 2, rng=0), np.ones((4, 3), np.float32)))
    """
    subject = layer_subject(layer, float_array("check_layer", "x", x), train)
    checks = conditions.ALWAYS | conditions.LINEAR | conditions.LAYER
    return _check(subject, checks, rng, eps, rtol, atol)


def check_loss(
    loss: Any,
    logits: Array,
    y: Array,
    *,
    rng: Rng = 0,
    eps: float = 1e-5,
    rtol: float | None = None,
    atol: float | None = None,
) -> GradientReport:
    """Check the gradient that ``value, dlogits = loss(logits, y)`` returns.

    Parameters
    ----------
    loss : callable
    logits : array of float32 or float64
    y : array
        Labels or targets, passed to the loss unchanged.
    rng, eps, rtol, atol
        As in ``check_layer``.
    """
    float_array("check_loss", "logits", logits)
    if not callable(loss):
        raise TypeError(
            f"check_loss: expected a function value, dlogits = loss(logits, y), got {loss!r}"
        )
    name = getattr(loss, "__name__", type(loss).__name__)
    expected = "the loss to return dlogits"

    def forward(given: dict[str, Array]) -> tuple[Any, Pull]:
        z = given["logits"]
        result = loss(z, np.array(y))
        if not (isinstance(result, tuple) and len(result) == 2 and np.ndim(result[0]) == 0):
            raise ContractError(
                f"{name}: expected loss(logits, y) to return a number and its gradient, "
                f"got {describe(result)}; write: return value, dlogits"
            )
        dlogits = checked_gradient(z, result[1], f"{name}: expected {expected}")
        return np.asarray(result[0], np.float64), lambda dy: (dlogits * float(dy),)

    title = f"{short(loss)}, logits {logits.shape} {logits.dtype}"
    subject = Subject(loss, name, title, {"logits": logits}, forward, ("a number", expected))
    return _check(subject, conditions.ALWAYS | conditions.LOSS, rng, eps, rtol, atol)


def check_simplex_map(
    map: Any,
    z: Array,
    *,
    axis: int = -1,
    rng: Rng = 0,
    eps: float = 1e-5,
    rtol: float | None = None,
    atol: float | None = None,
) -> GradientReport:
    """Check ``map.vjp(p, dp, axis)`` against ``p = map(z, axis)``, and that p is on the simplex.

    If the map has ``jvp(p, dz, axis)`` or ``jacobian(z)``, they must agree with the vjp.

    Parameters
    ----------
    map : object
        A simplex map as in ``minidl.simplex``.
    z : array of float32 or float64
        Logits; entries of ``-inf`` are not moved.
    axis : int
    rng, eps, rtol, atol
        As in ``check_layer``.
    """
    float_array("check_simplex_map", "z", z)
    if not callable(map) or not callable(getattr(map, "vjp", None)):
        raise TypeError(
            f"check_simplex_map: expected map(z, axis=-1) with map.vjp(p, dp, axis=-1), got {map!r}"
        )

    def forward(given: dict[str, Array]) -> tuple[Any, Pull]:
        given["output"] = p = map(given["z"], axis=axis)
        return p, lambda dp: (map.vjp(p, dp, axis=axis),)

    title = f"{short(map)}, z {z.shape} {z.dtype}, axis={axis}"
    expected = "map(z)", "vjp(p, dp) to return dz"
    subject = Subject(map, short(map), title, {"z": z}, forward, expected, axis=axis)
    checks = conditions.ALWAYS | conditions.LINEAR | conditions.MAP
    return _check(subject, checks, rng, eps, rtol, atol)


def check_function(
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    x: Array | tuple[Array, ...] | Mapping[str, Array],
    *,
    rng: Rng = 0,
    eps: float = 1e-5,
    rtol: float | None = None,
    atol: float | None = None,
) -> GradientReport:
    """Check a pair of functions: ``y = f(x)`` and ``dx = vjp(x, dy)``.

    Parameters
    ----------
    f, vjp : callable
        With several inputs, ``y = f(x, w)`` and ``dx, dw = vjp(x, w, dy)``.
    x : array, or tuple or dict of arrays
        The inputs, in the order of ``f``; the report names them by ``f``'s argument names, or
        by the keys of the dict.
    rng, eps, rtol, atol
        As in ``check_layer``.
    """
    if isinstance(x, Mapping):
        tensors = dict(x)
    else:
        arrays = x if isinstance(x, tuple) else (x,)
        tensors = dict(zip(_argument_names(f, len(arrays)), arrays, strict=True))
    for key, value in tensors.items():
        float_array("check_function", key, value)
    for what, function in (("f", f), ("vjp", vjp)):
        if not callable(function):
            raise TypeError(
                f"check_function: expected {what} to be a function, got {function!r}; "
                "write: check_function(f, vjp, x) with y = f(x), dx = vjp(x, dy)"
            )
    name = getattr(f, "__name__", type(f).__name__).strip("<>")

    def forward(given: dict[str, Array]) -> tuple[Any, Pull]:
        inputs = list(given.values())

        def pull(dy: Array) -> tuple[Any, ...]:
            got = vjp(*inputs, dy)
            got = tuple(got) if isinstance(got, (tuple, list)) else (got,)
            if len(got) != len(tensors):
                raise ContractError(
                    f"{name}: expected vjp to return {len(tensors)} gradients, one for each "
                    f"of {', '.join(tensors)}, got {len(got)}"
                )
            return got

        return f(*inputs), pull

    title = ", ".join([name, *(f"{k} {v.shape} {v.dtype}" for k, v in tensors.items())])
    subject = Subject(f, name, title, tensors, forward, ("f's output", "vjp to return d{}"))
    return _check(subject, conditions.ALWAYS | conditions.LINEAR, rng, eps, rtol, atol)


def assert_gradients(subject: Any, *args: Any, **options: Any) -> GradientReport:
    """Check a layer, loss, map or function in a test; on failure, raise with the whole table.

    ``assert_gradients(layer, x)``, ``assert_gradients(loss, logits, y)``,
    ``assert_gradients(map, z)`` or ``assert_gradients(f, vjp, x)``, with the options of
    ``check_layer``, ``check_loss``, ``check_simplex_map`` or ``check_function``.

    Raises
    ------
    GradientError
        An ``AssertionError`` whose text is the report.
    """
    check: Callable[..., GradientReport]
    if callable(getattr(subject, "vjp", None)):
        check = check_simplex_map
    elif callable(subject) and args and callable(args[0]):
        check = check_function
    elif is_layer(subject) or not callable(subject):
        check = check_layer
    else:
        check = check_loss
    report = check(subject, *args, **options)
    report.raise_if_failed()
    return report


def _check(
    subject: Subject,
    checks: Mapping[str, Check],
    rng: Rng,
    eps: float,
    rtol: float | None,
    atol: float | None,
) -> GradientReport:
    # A stream of its own: x may have been drawn from the same seed.
    generator = as_generator(rng).spawn(1)[0]
    first = next(iter(subject.tensors.values()))
    default_rtol, default_atol = TOLERANCES[first.dtype]
    settings = Settings(
        generator,
        check_float("eps", "eps", eps, low=0, open_low=True),
        default_rtol if rtol is None else check_float("rtol", "rtol", rtol, low=0),
        default_atol if atol is None else check_float("atol", "atol", atol, low=0),
    )
    with subject.preserved(generator):
        dy = cotangent(generator, subject.run(subject.tensors).y)
        point = Linearization(subject, subject.tensors, dy, settings)
        tensors = tuple(point.check(name) for name in subject.tensors)
        outcomes = check_conditions(point, checks)
        slope = point.taylor_slope()
    return GradientReport(subject.title, tensors, outcomes, slope, subject.notes)


def _argument_names(f: Callable[..., Any], count: int) -> list[str]:
    """Return the names of the first arguments, or x0, x1, ... if the function has no names."""
    try:
        names = list(inspect.signature(f).parameters)[:count]
    except (TypeError, ValueError):
        names = []
    if len(names) == count and not any(n.startswith("_") for n in names):
        return names
    return ["x"] if count == 1 else [f"x{i}" for i in range(count)]
