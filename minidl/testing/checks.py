"""The entry points: check a layer, a loss, a simplex map or a pair of functions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.checks import Array, is_layer
from minidl.testing import conditions
from minidl.testing.conditions import (
    SWEEP,
    Check,
    check_conditions,
    check_skipped,
    unchecked_arrays,
)
from minidl.testing.gradients import Linearization, cotangent
from minidl.testing.options import (
    FLOAT32,
    FLOAT32_TOLERANCES,
    FLOAT64,
    Options,
    Precision,
    Settings,
    check_options,
    generator_of,
    settings_of,
)
from minidl.testing.report import Condition, GradientReport
from minidl.testing.subjects import (
    Subject,
    function_subject,
    layer_subject,
    loss_subject,
    map_subject,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

Inputs = Array | tuple[Array, ...] | Mapping[str, Array]
Fixed = Mapping[str, Any]


def check_layer(
    layer: Any,
    x: Inputs = (),
    *,
    fixed: Fixed | None = None,
    train: bool = True,
    **options: Unpack[Options],
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
        Its values, gradients, attributes and random state are restored after the check. For
        other styles there is ``Cached``.
    x : array of float32 or float64, or tuple or dict of arrays
        A batch, in any memory layout; not modified. The analytic side has its dtype. With
        several inputs ``backward`` returns a gradient for each; with several outputs it takes
        a tuple.
    fixed : dict, optional
        Further inputs of ``forward`` that have no gradient, by name: indices, masks, settings.
    train : bool
        Passed to ``forward``.
    **options
        See ``Options``: ``rng``, ``eps``, ``rtol``, ``atol``, ``precision``,
        ``locate_seconds``, ``numpy_seed``, ``skip``, ``sweep``, ``name``.

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
    subject = layer_subject(layer, x, train, fixed)
    checks = conditions.ALWAYS | conditions.LINEAR | conditions.LAYER
    return _check("check_layer", subject, checks, options)


def check_loss(loss: Any, logits: Array, y: Any, **options: Unpack[Options]) -> GradientReport:
    """Check the gradient that ``value, dlogits = loss(logits, y)`` returns.

    Parameters
    ----------
    loss : callable
        For other styles there is ``AdaptedLoss``.
    logits : array of float32 or float64
    y : array
        Labels or targets, in the shape in which ``fit`` passes them: for one output (n,) becomes
        (n, 1), unless the loss has class labels. ``AdaptedLoss`` gets them unchanged.
    **options
        As in ``check_layer``.
    """
    subject = loss_subject(loss, logits, y)
    return _check("check_loss", subject, conditions.ALWAYS | conditions.LOSS, options)


def check_simplex_map(
    map: Any, z: Array, *, axis: int = -1, **options: Unpack[Options]
) -> GradientReport:
    """Check ``map.vjp(p, dp, axis)`` against ``p = map(z, axis)``, and that p is on the simplex.

    If the map has ``jvp(p, dz, axis)`` or ``jacobian(z)``, they must agree with the vjp.

    Parameters
    ----------
    map : object
        A simplex map as in ``minidl.maps``.
    z : array of float32 or float64
        Logits; entries of ``-inf`` are not moved.
    axis : int
    **options
        As in ``check_layer``.
    """
    subject = map_subject(map, z, axis)
    checks = conditions.ALWAYS | conditions.LINEAR | conditions.MAP
    return _check("check_simplex_map", subject, checks, options)


def check_function(
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    x: Inputs,
    *,
    fixed: Fixed | None = None,
    **options: Unpack[Options],
) -> GradientReport:
    """Check a pair of functions: ``y = f(x)`` and ``dx = vjp(x, dy)``.

    Parameters
    ----------
    f, vjp : callable
        With several inputs, ``y = f(x, w)`` and ``dx, dw = vjp(x, w, dy)``. With several
        outputs, ``dy`` is a tuple.
    x : array, or tuple or dict of arrays
        The inputs, in the order of ``f``; the report names them by ``f``'s argument names, or
        by the keys of the dict.
    fixed : dict, optional
        Further arguments of both that have no gradient, by name.
    **options
        As in ``check_layer``.
    """
    subject = function_subject("check_function", f, vjp, x, fixed, cache=False)
    return _check("check_function", subject, conditions.ALWAYS | conditions.LINEAR, options)


def check_pair(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    x: Inputs,
    *,
    fixed: Fixed | None = None,
    **options: Unpack[Options],
) -> GradientReport:
    """Check a pair with a cache: ``y, cache = forward(x)`` and ``dx = backward(dy, cache)``.

    Parameters
    ----------
    forward, backward : callable
        With several inputs, ``backward`` returns a gradient for each, as a tuple in the order
        of ``forward``'s arguments or as a dict (``"x"`` or ``"dx"``). With several outputs,
        ``y1, y2, cache = forward(x)`` and ``backward(dy1, dy2, cache)``.
    x : array, or tuple or dict of arrays
        The inputs, in the order of ``forward``, or by name.
    fixed : dict, optional
        Further arguments of ``forward`` that have no gradient, by name: indices, masks,
        dictionaries of settings.
    **options
        As in ``check_layer``.

    Examples
    --------
    >>> print(check_pair(conv_forward, conv_backward, (x, w, b), fixed={"conv_param": settings}))
    """
    subject = function_subject("check_pair", forward, backward, x, fixed, cache=True)
    return _check("check_pair", subject, conditions.ALWAYS | conditions.LINEAR, options)


def assert_gradients(subject: Any, *args: Any, **options: Any) -> GradientReport:
    """Check a layer, loss, map or function in a test; on failure, raise with the whole table.

    ``assert_gradients(layer, x)``, ``assert_gradients(loss, logits, y)``,
    ``assert_gradients(map, z)`` or ``assert_gradients(f, vjp, x)``, with the options of
    ``check_layer``, ``check_loss``, ``check_simplex_map`` or ``check_function``. For
    ``check_pair`` write ``check_pair(...).raise_if_failed()``.

    Raises
    ------
    GradientError
        An ``AssertionError`` whose text is the report.
    """
    __tracebackhide__ = True  # pytest shows the line of the test
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
    owner: str, subject: Subject, checks: Mapping[str, Check], options: Options
) -> GradientReport:
    check_options(owner, options)
    checks = dict(checks) | (SWEEP if options.get("sweep") else {})
    check_skipped(owner, options.get("skip", ()), checks)
    name = options.get("name")
    if name:
        subject = dataclasses.replace(subject, name=name, title=name)
    subject.numpy_seed = options.get("numpy_seed")
    generator = generator_of(options)
    with subject.preserved(generator):
        subject.tensors, precision, note = _precision(subject, options)
        dtype = next(iter(subject.tensors.values())).dtype
        settings = settings_of(options, precision, generator, dtype)
        subject.notes += note
        title = f"{subject.title}, {subject.details}".rstrip(", ")
        broken = _not_repeatable(subject, settings)
        if broken:
            return GradientReport(title, (), (broken,), math.nan, subject.notes)
        dy = cotangent(generator, subject.run(subject.tensors).y)
        point = Linearization(subject, subject.tensors, dy, settings)
        tensors = tuple(point.check(name) for name in subject.tensors)
        outcomes = check_conditions(point, checks, options.get("skip", ()))
        slope = point.taylor_slope()
        unchecked = unchecked_arrays(point)
    notes = subject.notes + point.notes
    return GradientReport(title, tensors, outcomes, slope, notes, unchecked)


def _precision(
    subject: Subject, options: Options
) -> tuple[dict[str, Array], Precision, tuple[str, ...]]:
    """Return the tensors, the precision of the numeric side, and a note about it."""
    asked = options.get("precision")
    if asked == "float64":
        return subject.tensors, FLOAT64, ()
    why, narrow = "as asked", _cast(subject.tensors, np.float32)
    if asked is None:
        try:
            y = subject.run(_cast(subject.tensors, np.float64)).y
        except Exception as error:
            try:
                subject.run(narrow)
            except Exception:
                raise error from None
            why = f"{type(error).__name__} for a float64 input"
        else:
            if y.dtype != np.float32:
                return subject.tensors, FLOAT64, ()
            why = "float32 output for a float64 input"
    eps = options.get("eps", FLOAT32.eps)
    rtol = options.get("rtol", FLOAT32_TOLERANCES[0])
    note = f"both sides in float32 ({why}): step {eps:g}, relative tolerance {rtol:g}"
    return narrow, FLOAT32, (note,)


def _cast(tensors: Mapping[str, Array], dtype: type[np.floating[Any]]) -> dict[str, Array]:
    return {k: v if v.dtype == dtype else v.astype(dtype) for k, v in tensors.items()}


def _not_repeatable(subject: Subject, settings: Settings) -> Condition | None:
    """Return the broken condition if two equal passes give different outputs."""
    first, again = (subject.run(subject.tensors).y.astype(np.float64) for _ in range(2))
    if first.shape == again.shape:
        size = float(np.abs(first[np.isfinite(first)]).max(initial=0))
        tolerance = settings.atol + settings.rtol * size
        if np.allclose(first, again, rtol=0, atol=tolerance, equal_nan=True):
            return None
        with np.errstate(invalid="ignore"):
            index = tuple(map(int, np.unravel_index(np.argmax(np.abs(first - again)), first.shape)))
        seen = f"{list(index)}: {first[index]:.4g}, then {again[index]:.4g} at the same input"
    else:
        index, seen = (), f": shape {first.shape}, then {again.shape} at the same input"
    problem = (
        f"{subject.name}.output{seen}; nothing else was checked. Keep a numpy.random.Generator in "
        "an attribute, or give numpy_seed=0 for NumPy's and Python's global generators"
    )
    return Condition("repeatable", problem, "output", index)
