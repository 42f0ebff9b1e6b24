"""The entry points: check a layer, a loss, a simplex map or a pair of functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minidl.checks import Array, as_generator, check_choice, is_layer
from minidl.testing import conditions as side
from minidl.testing.cached import AdaptedLoss
from minidl.testing.conditions import Check, check_condition, unchecked_arrays
from minidl.testing.differences import Point, as_float64, taylor_slope
from minidl.testing.gradients import check_tensor
from minidl.testing.layers import LayerSubject
from minidl.testing.options import FLOAT32, FLOAT64, Options, Precision, Settings
from minidl.testing.report import FAILED, KINKS, OK, Condition, GradientReport, places, raised
from minidl.testing.subjects import Subject, function_subject, loss_subject, map_subject

Inputs = Array | Sequence[Any] | Mapping[str, Any]
Fixed = Mapping[str, Any]

NOT_REPEATABLE = "nothing else was checked; keep a Generator in an attribute, or give numpy_seed=0"
KINKS_MEET = "several kinks meet here, but not nearby; check at x + 1e-3 * normal numbers too"
SLOPE = "Taylor slope: it falls as for a wrong gradient, but each tensor passes; try other inputs"


def check_layer(
    layer: Any,
    x: Inputs = (),
    *,
    fixed: Fixed | None = None,
    train: bool = True,
    **options: Any,
) -> GradientReport:
    """Check the backward pass of a layer, whoever wrote it.

    The gradients of the input and of each parameter are compared with central differences in
    float64, along random directions and with a random cotangent; then the side conditions are
    checked. Kinks are told from errors, and randomness is held fixed.

    Parameters
    ----------
    layer : object
        With ``forward(x, train=...) -> y, backward``; for other styles there is ``Cached``.
        It is restored after the check.
    x : array of float32 or float64, or tuple, list or dict of arrays
        A batch. With several inputs ``backward`` returns a gradient for each, or all stacked in
        one array; with several outputs it takes a tuple. A list is one argument,
        ``forward([q, k, v])``, unless ``forward`` needs as many. Entries that are no arrays of
        floats are passed as they are.
    fixed : dict, optional
        Further inputs of ``forward`` that have no gradient, by name: indices, masks, settings.
    train : bool
        Passed to ``forward``.
    **options
        See ``Options``.

    Raises
    ------
    TypeError
        If ``x`` is not an array of floats, or the layer does not keep the contract:
        ``ContractError`` if a pass returns something of the wrong type or shape.

    Examples
    --------
    >>> print(check_layer(minidl.Linear(3, 2, rng=0), np.ones((4, 3), np.float32)))
    """
    subject = LayerSubject(layer, x, train=train, fixed=fixed)
    return _check("check_layer", subject, side.LAYER, options)


def check_loss(loss: Any, logits: Array, y: Any, **options: Any) -> GradientReport:
    """Check the gradient that ``value, dlogits = loss(logits, y)`` returns.

    For losses of another style there is ``AdaptedLoss``, which gets the targets unchanged. Others
    get them in the shape in which ``fit`` passes them.
    """
    subject = loss_subject(loss, logits, y, as_fit=not isinstance(loss, AdaptedLoss))
    return _check("check_loss", subject, side.LOSS, options)


def check_simplex_map(map: Any, z: Array, *, axis: int = -1, **options: Any) -> GradientReport:
    """Check ``map.vjp(p, dp, axis)`` against ``p = map(z, axis)``, and that p is on the simplex.

    If the map has ``jvp(p, dz, axis)`` or ``jacobian(z)``, they must agree with the vjp. Logits
    ``z`` of ``-inf`` are not moved.
    """
    return _check("check_simplex_map", map_subject(map, z, axis), side.MAP, options)


def check_function(
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    x: Inputs,
    *,
    fixed: Fixed | None = None,
    **options: Any,
) -> GradientReport:
    """Check a pair of functions: ``y = f(x)`` and ``dx = vjp(x, dy)``.

    With several inputs, a tuple or a dict of arrays ``x``, they are ``y = f(x, w)`` and
    ``dx, dw = vjp(x, w, dy)``; with several outputs, ``dy`` is a tuple. ``fixed`` are further
    arguments of both that have no gradient, by name.
    """
    subject = function_subject("check_function", f, vjp, x, fixed, cache=False)
    return _check("check_function", subject, side.FUNCTION, options)


def check_pair(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    x: Inputs,
    *,
    fixed: Fixed | None = None,
    **options: Any,
) -> GradientReport:
    """Check a pair with a cache: ``y, cache = forward(x)`` and ``dx = backward(dy, cache)``.

    With several inputs, in the order of ``forward``'s arguments or by name, ``backward`` returns a
    gradient for each, as a tuple in this order or as a dict (``"x"`` or ``"dx"``). With several
    outputs, ``y1, y2, cache = forward(x)`` and ``backward(dy1, dy2, cache)``. ``fixed`` are
    further arguments of ``forward`` without a gradient, by name.

    Examples
    --------
    >>> print(check_pair(conv_forward, conv_backward, (x, w, b), fixed={"conv_param": settings}))
    """
    subject = function_subject("check_pair", forward, backward, x, fixed, cache=True)
    return _check("check_pair", subject, side.FUNCTION, options)


def assert_gradients(subject: Any, *args: Any, **options: Any) -> GradientReport:
    """Check a layer, loss, map or function in a test; on failure, raise with the whole table.

    The arguments are those of ``check_layer(layer, x)``, ``check_loss(loss, logits, y)``,
    ``check_simplex_map(map, z)`` or ``check_function(f, vjp, x)``. A failure is a
    ``GradientError``, an ``AssertionError`` whose text is the report.
    """
    __tracebackhide__ = True  # pytest shows the line of the test
    check: Callable[..., GradientReport] = check_loss
    if callable(getattr(subject, "vjp", None)):
        check = check_simplex_map
    elif callable(subject) and args and callable(args[0]):
        check = check_function
    elif is_layer(subject) or not callable(subject):
        check = check_layer
    report = check(subject, *args, **options)
    report.raise_if_failed()
    return report


def _check(
    owner: str, subject: Subject, conditions: Mapping[str, Check], keywords: Mapping[str, Any]
) -> GradientReport:
    """Check a subject; an exception in its code is a report of one line, unless asked for."""
    options = Options.of(owner, keywords)
    conditions = {**conditions, **side.SWEEP} if options.sweep else conditions
    for name in options.skip:
        check_choice(owner, "skip", name, [*conditions])
    if not subject.tensors:
        raise TypeError(f"{owner}: nothing to check, neither inputs nor parameters")
    if options.name:
        subject.name = subject.title = options.name
    subject.numpy_seed = options.numpy_seed
    heading = ", ".join(filter(None, [subject.title, subject.details]))
    rng = as_generator(options.rng).spawn(1)[0]  # x may be drawn from the same seed
    try:
        with subject.preserved(rng):
            return _report(heading, subject, conditions, options, rng)
    except Exception as error:
        if options.traceback or not places(error):
            raise
        problem = f"raised {raised(error)}; traceback=True shows the way there"
        return GradientReport(heading, (), (Condition("runs", problem),), math.nan)


def _report(
    heading: str,
    subject: Subject,
    conditions: Mapping[str, Check],
    options: Options,
    rng: np.random.Generator,
) -> GradientReport:
    """Check the gradients of a subject, then the conditions."""
    tensors, precision, why = _precision(subject, options)
    dtype = next(iter(tensors.values())).dtype
    settings = Settings(options, rng, precision, dtype)
    notes = list(subject.notes)
    if why:
        numbers = f"step {settings.eps:g}, relative tolerance {settings.rtol:g}"
        notes.append(f"both sides in float32 ({why}): {numbers}")
    if dtype != np.float64:
        name, n = max(((k, v.size) for k, v in tensors.items()), key=lambda pair: pair[1])
        # Entries have 0.5 to 1.5 parts in a direction, and the tolerance is that of a sum of n.
        error = 100 * settings.rtol * max(n, 1) ** 0.5 / 0.5
        shows = f"{dtype} shows an error of {error:.2g} % in one of {n:,} entries of {name}"
        notes.append(f"{shows}; check in float64 too")
    point = Point(subject, tensors, settings)
    first = check_condition(point, "repeatable", side.ALWAYS["repeatable"])
    if first.problem and first.tensor == "output":
        broken = replace(first, problem=f"{first.problem}; {NOT_REPEATABLE}")
        return GradientReport(heading, (), (broken,), math.nan, notes=tuple(notes))
    checked = tuple(check_tensor(point, name) for name in tensors)
    point.failed = {t.name for t in checked if t.verdict == FAILED}
    outcomes = [
        check_condition(point, name, side.left_out if name in options.skip else check)
        for name, check in conditions.items()
    ]
    notes += [f"{t.name}: {KINKS_MEET}" for t in checked if t.verdict == KINKS]
    slope, remainder = taylor_slope(point)
    # Next to a kink the slope is 1 at steps that reach it.
    doubtful = slope < 1.5 and remainder > settings.clear
    doubts = (SLOPE,) if doubtful and all(t.verdict == OK for t in checked) else ()
    unchecked = tuple(dict.fromkeys(unchecked_arrays(point)))
    return GradientReport(heading, checked, (*outcomes,), slope, doubts, tuple(notes), unchecked)


def _precision(subject: Subject, options: Options) -> tuple[Mapping[str, Array], Precision, str]:
    """Return the tensors, the precision of the numeric side, and the reason if it is float32."""
    narrow = {name: v.astype(np.float32) for name, v in subject.tensors.items()}
    why = "as asked" if options.precision == "float32" else ""
    if options.precision is None:
        try:
            if subject.run(as_float64(subject.tensors)).y.dtype == np.float32:
                why = "float32 output for a float64 input"
        except Exception as error:
            why = f"{type(error).__name__} for a float64 input"
            try:
                subject.run(narrow)
            except Exception:
                raise error from None
    return (narrow, FLOAT32, why) if why else (subject.tensors, FLOAT64, "")
