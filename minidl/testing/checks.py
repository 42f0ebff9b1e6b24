"""The entry points: is this backward pass right, and if not, where is it wrong?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minidl.parameter import is_layer
from minidl.rng import as_generator
from minidl.testing import conditions
from minidl.testing.conditions import Case, Check, hold
from minidl.testing.gradients import TOLERANCES, Point, Settings, cotangent, taylor_slope
from minidl.testing.report import FAILED, GradientReport
from minidl.testing.subjects import (
    FunctionSubject,
    LayerSubject,
    LossSubject,
    MapSubject,
    Subject,
    float_array,
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
    """Check the backward pass of a layer, of ours or of anyone's.

    The gradients with respect to the input and to each parameter are compared with central
    differences in float64, along random directions and with a random cotangent; then the side
    conditions are tried. Kinks are told from errors, and randomness is held fixed: a stochastic
    layer draws the same mask in every pass.

    Parameters
    ----------
    layer : object
        With ``forward(x, train=...) -> y, backward``. Parameters (``minidl.Parameter``) are
        found as ``Sequential`` finds them: among its attributes and those of its inner layers.
        Its values, gradients, attributes and random state are as before when the check ends.
    x : array of float32 or float64
        A batch, in any memory layout; not modified. Its dtype is that of the analytic side.
    train : bool
        What ``forward`` is called with.
    rng : int or Generator
        Draws the directions and the cotangent.
    eps : float
        The step of the central differences; a hundredth of it is tried where they disagree.
    rtol, atol : float, optional
        By default 1e-6 and 1e-9 in float64, 1e-4 and 1e-7 in float32.

    Returns
    -------
    GradientReport
        True if all passed.

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
    x = float_array("check_layer", "x", x)
    generator = as_generator(rng)
    subject = LayerSubject(layer, x, train, generator)
    checks = {**conditions.ALWAYS, **conditions.LINEAR, **conditions.LAYER}
    return _check(subject, checks, generator, eps, rtol, atol)


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
    """Check that the two results of ``value, dlogits = loss(logits, y)`` belong together.

    Parameters
    ----------
    loss : callable
    logits : array of float32 or float64
    y : array
        Labels or targets, handed to the loss as they are.
    rng, eps, rtol, atol
        As in ``check_layer``.
    """
    subject = LossSubject(loss, float_array("check_loss", "logits", logits), y)
    checks = {**conditions.ALWAYS, **conditions.LOSS}
    return _check(subject, checks, as_generator(rng), eps, rtol, atol)


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

    Where the map has them, ``jvp(p, dz, axis)`` and ``jacobian(z)`` must agree with the vjp.

    Parameters
    ----------
    map : object
        A simplex map as in ``minidl.simplex``.
    z : array of float32 or float64
        Logits; those of ``-inf`` stay where they are.
    axis : int
    rng, eps, rtol, atol
        As in ``check_layer``.
    """
    subject = MapSubject(map, float_array("check_simplex_map", "z", z), axis)
    checks = {**conditions.ALWAYS, **conditions.LINEAR, **conditions.MAP}
    return _check(subject, checks, as_generator(rng), eps, rtol, atol)


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
    """Check a bare pair of functions: ``y = f(x)`` and ``dx = vjp(x, dy)``.

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
        tensors = dict(zip(_names(f, len(arrays)), arrays, strict=True))
    for name, value in tensors.items():
        float_array("check_function", name, value)
    subject = FunctionSubject(f, vjp, tensors)
    checks = {**conditions.ALWAYS, **conditions.LINEAR}
    return _check(subject, checks, as_generator(rng), eps, rtol, atol)


def assert_gradients(subject: Any, *args: Any, **options: Any) -> GradientReport:
    """Check whatever this is, and fail a test with the whole table when it is wrong.

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
    checks: dict[str, Check],
    rng: np.random.Generator,
    eps: float,
    rtol: float | None,
    atol: float | None,
) -> GradientReport:
    # A stream of its own: whoever drew x from the same seed would get the same cotangent.
    rng = rng.spawn(1)[0]
    first = next(iter(subject.tensors.values()))
    default_rtol, default_atol = TOLERANCES[first.dtype]
    settings = Settings(
        rng,
        check_float("eps", "eps", eps, low=0, open_low=True),
        default_rtol if rtol is None else check_float("rtol", "rtol", rtol, low=0),
        default_atol if atol is None else check_float("atol", "atol", atol, low=0),
    )
    with subject.held():
        dy = cotangent(rng, subject.run(subject.tensors))
        point = Point(subject, subject.tensors, dy, settings)
        tensors = tuple(point.check(name) for name in subject.tensors)
        wrong = {tensor.name for tensor in tensors if tensor.verdict == FAILED}
        outcomes = hold(Case(subject, dy, settings, wrong), checks)
        slope = taylor_slope(subject, subject.tensors, dy, rng)
    return GradientReport(subject.title, tensors, outcomes, slope, subject.notes)


def _names(f: Callable[..., Any], count: int) -> list[str]:
    """The names of ``f``'s first arguments, or x0, x1, ... where it does not say."""
    try:
        names = list(inspect.signature(f).parameters)[:count]
    except (TypeError, ValueError):
        names = []
    if len(names) == count and not any(n.startswith("_") for n in names):
        return names
    return ["x"] if count == 1 else [f"x{i}" for i in range(count)]
