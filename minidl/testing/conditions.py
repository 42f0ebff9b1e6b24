"""The side conditions: errors that a right gradient can still have, each under its own name.

A condition is a function that raises ``Broken`` with what it found. Gradients that must be
equal are compared entry by entry, within the tolerance of their dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from minidl.parameter import Parameter
from minidl.testing.gradients import Linearization, perturb
from minidl.testing.layouts import Layout, copy_with_strides, fortran, reversed_strides
from minidl.testing.report import FAILED, Condition
from minidl.typing import Array

Check = Callable[[Linearization], None]
Index = tuple[int, ...]


class Broken(Exception):  # noqa: N818 - never leaves this module
    """A side condition does not hold: the problem, the tensor and the index."""


class NothingToCheck(Exception):  # noqa: N818 - never leaves this module
    """The object of the condition does not exist; the text says which."""


def check_conditions(at: Linearization, checks: Mapping[str, Check]) -> tuple[Condition, ...]:
    """Check each condition at a point."""
    outcomes = []
    for name, check in checks.items():
        try:
            check(at)
            outcomes.append(Condition(name))
        except Broken as broken:
            outcomes.append(Condition(name, *broken.args))
        except NothingToCheck as nothing:
            outcomes.append(Condition(name, skipped=str(nothing)))
    return tuple(outcomes)


def expect_gradients(
    at: Linearization,
    got: Mapping[str, Array],
    want: Mapping[str, Array],
    why: str,
    rounded: Sequence[Mapping[str, Array]] = (),
) -> None:
    """Raise unless two sets of gradients agree; ``rounded`` are some after rounding errors."""
    for name, expected in want.items():
        slack = 4 * np.max([np.abs(r[name] - expected) for r in rounded] or 0, axis=0)
        expect_equal(at, at.subject.label(name), got[name], expected, why, name, slack)


def expect_equal(
    at: Linearization,
    label: str,
    got: Array,
    want: Array,
    why: str,
    tensor: str,
    slack: Array | int = 0,
) -> None:
    """Raise unless two arrays agree, naming the entry that differs most."""
    if got.shape != want.shape:
        raise Broken(f"{label}: {why}: shape {got.shape}, expected {want.shape}", tensor)
    got, want = got.astype(np.float64), want.astype(np.float64)
    # A gradient that is zero by cancellation carries the rounding of the others.
    largest = max(float(np.abs(g).max(initial=0)) for g in at.gradients.values())
    size = max(float(np.abs(want[np.isfinite(want)]).max(initial=0)), 0.01 * largest)
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0, np.abs(got - want))
    # Written so that a NaN fails.
    if not (error <= at.settings.atol + at.settings.rtol * size + slack).all():
        index = tuple(int(i) for i in np.unravel_index(np.argmax(error), error.shape))
        place = f"{label}{list(index)}" if index else label
        problem = f"{place} {why}: {got[index]:.4g}, expected {want[index]:.4g}"
        raise Broken(problem, tensor, index)


def shape(at: Linearization) -> None:
    """Every gradient has the shape of its tensor: otherwise the pass has raised ContractError."""


def dtype(at: Linearization) -> None:
    """The output has the dtype of the input, and each gradient that of its tensor."""
    first, run = next(iter(at.tensors.values())).dtype, at.run()
    if run.y.dtype != first and run.y.ndim:
        raise Broken(f"{at.subject.name}: output {run.y.dtype} for an input of {first}", "output")
    for name, gradient in run.pull(at.dy).items():
        want = at.tensors[name].dtype
        if gradient.dtype != want:
            label = at.subject.label(name)
            raise Broken(f"{label}: gradient {gradient.dtype} for a tensor of {want}", name)


def finite(at: Linearization) -> None:
    """Output and gradients are finite."""
    for name, value in {"output": at.run().y, **at.gradients}.items():
        if not np.isfinite(value).all():
            index = _first(~np.isfinite(value))
            raise Broken(f"{at.subject.label(name)}{list(index)} is {value[index]}", name, index)


def repeatable(at: Linearization) -> None:
    """The same pass gives the same output, and a second call of backward the same gradients."""
    first, again = at.run(), at.run()
    hint = "from the same state (a layer keeps its numpy.random.Generator in an attribute)"
    expect_equal(at, f"{at.subject.name}: output", again.y, first.y, hint, "output")
    again.pull(at.dy)
    expect_gradients(at, again.pull(at.dy), at.gradients, "when backward is called again")


def not_modified(at: Linearization) -> None:
    """Tensors, cotangent and NumPy's global random state are not modified."""
    before = np.random.get_state()  # noqa: NPY002 - only read
    run = at.run()
    run.pull(at.dy)
    after = np.random.get_state()  # noqa: NPY002 - only read
    before_run = {"output": run.y, "cotangent": at.dy, **at.tensors}
    for name, given in run.given.items():
        want = before_run[name]
        if not np.array_equal(given, want, equal_nan=True):
            index = _first((given != want) & ~(np.isnan(given) & np.isnan(want)))
            label = at.subject.label(name)
            raise Broken(f"{label}{list(index)} was modified in place", name, index)
    if not all(map(np.array_equal, before, after)):
        raise Broken("numpy.random's global state was used; keep a Generator", "output")


def any_layout(at: Linearization) -> None:
    """Fortran order and negative strides of input and cotangent give the same gradients.

    Another layout is another order of summation, which at a kink or a near tie decides: the
    condition is broken only if it is so at every one of a few points nearby, and by more than
    rounding.
    """
    for layout in (fortran, reversed_strides):
        broken = _in_layout(at, at, layout, ())
        if broken:
            nearby = (at.nearby(distance) for distance in (0, 1e-4, 1e-3, 1e-2))
            if all(_in_layout(at, point, layout, point.rounded) for point in nearby):
                raise broken


def _in_layout(
    at: Linearization, point: Linearization, layout: Layout, rounded: Sequence[Mapping[str, Array]]
) -> Broken | None:
    name = next(iter(point.tensors))
    run = at.subject.run({**point.tensors, name: layout(point.tensors[name])})
    why = "in another memory layout"
    try:
        expect_gradients(at, run.pull(layout(at.dy)), point.gradients, why, rounded)
    except Broken as broken:
        return broken
    return None


def linear(factor: int, why: str) -> Check:
    """Return the condition that a multiple of the cotangent gives that multiple of the gradient."""

    def check(at: Linearization) -> None:
        want = {name: factor * g for name, g in at.gradients.items()}
        expect_gradients(at, at.run().pull(factor * at.dy), want, why)

    return check


def written(at: Linearization) -> None:
    """Backward overwrites the gradients of the parameters."""
    run = at.run()
    for p in _parameters(at).values():
        p.grad[...] = 1
    expect_gradients(at, run.pull(at.dy), at.gradients, "added to what was there, not written")


def in_flight(at: Linearization) -> None:
    """A second pass on another input changes nothing for the first."""
    first, name = at.run(), next(iter(at.tensors))
    y, x = first.y.copy(), at.tensors[name]
    at.subject.run({**at.tensors, name: np.asarray(0.5 * x, x.dtype)})
    expect_equal(at, f"{at.subject.name}: output", first.y, y, "after a second pass", "output")
    why = "after a second pass on another input"
    expect_gradients(at, first.pull(at.dy), at.gradients, why)


def after_a_step(at: Linearization) -> None:
    """The gradients are right at other values of the parameters too: nothing is stale."""
    moved = {k: perturb(at.settings.rng, at.tensors[k], 0.01) for k in _parameters(at)}
    point = Linearization(at.subject, {**at.tensors, **moved}, at.dy, at.settings)
    for name in point.tensors:
        check = None if name in at.failed else point.check(name)
        if check and check.verdict == FAILED and check.worst:
            raise Broken(f"{check.worst}", name, check.worst.index)


def input_grad(at: Linearization) -> None:
    """``backward(dy, input_grad=False)`` gives the same gradients, and None for the input's.

    A layer with ``skips_input_grad`` must accept the argument, others may.
    """
    try:
        dx, *_ = at.run().raw_pull(at.dy, input_grad=False)
    except TypeError as error:
        if getattr(at.subject.source, "skips_input_grad", False):
            raise Broken(f"declared by skips_input_grad, but {error}", "input") from None
        raise NothingToCheck("not offered") from None
    if dx is not None:
        raise Broken(f"backward(dy, input_grad=False) returned {type(dx).__name__}, not None")
    got = {key: p.grad for key, p in at.subject.parameters.items()}
    expect_gradients(at, got, {key: at.gradients[key] for key in got}, "with input_grad=False")


def both_precisions(at: Linearization) -> None:
    """The value in the tensors' own dtype is that in float64."""
    want = at.subject.run(at.wide).y
    expect_equal(at, f"{at.subject.name}: value", at.run().y, want, "against float64", "output")


def on_simplex(at: Linearization) -> None:
    """The output is never negative and sums to one."""
    p = at.run().y
    if (p < 0).any():
        index = _first(p < 0)
        raise Broken(f"p{list(index)} = {p[index]:.4g} < 0", "output", index)
    sums = p.sum(axis=at.subject.axis, dtype=np.float64)
    expect_equal(at, "sum of p", sums, np.ones_like(sums), "along the axis", "output")


def shift_invariant(at: Linearization) -> None:
    """A constant added to the logits changes nothing, so each gradient sums to zero."""
    sums = at.gradients["z"].sum(axis=at.subject.axis)
    expect_equal(at, "sum of z's gradient", sums, np.zeros_like(sums), "along the axis", "z")


def jvp_agrees(at: Linearization) -> None:
    """``<dp, jvp(p, dz)> = <vjp(p, dp), dz>`` for a random ``dz``."""
    jvp = _offered(at, "jvp")
    dz = np.asarray(at.settings.rng.standard_normal(at.dy.shape), at.dy.dtype)
    forward = np.asarray(np.vdot(at.dy, jvp(at.run().y, dz, axis=at.subject.axis)))
    backward = np.asarray(np.vdot(at.gradients["z"], dz))
    expect_equal(at, "<dp, jvp(p, dz)>", forward, backward, "against <vjp(p, dp), dz>", "z")


def jacobian_agrees(at: Linearization) -> None:
    """The rows of ``jacobian(z)``, contracted with the cotangent, are the vjp."""
    axis, jacobian = at.subject.axis, _offered(at, "jacobian")
    dp, z = (np.moveaxis(a, axis, -1) for a in (at.dy, at.tensors["z"]))
    dz = np.einsum("...i,...ij->...j", dp, jacobian(copy_with_strides(z)))
    want = np.moveaxis(at.gradients["z"], axis, -1)
    expect_equal(at, f"{at.subject.name}: jacobian(z)", dz, want, "against the vjp", "z")


def _first(mask: Array) -> Index:
    """Return the index of the first true entry."""
    return tuple(map(int, np.argwhere(mask)[0]))


def _parameters(at: Linearization) -> dict[str, Parameter]:
    if not at.subject.parameters:
        raise NothingToCheck("no parameters")
    return at.subject.parameters


def _offered(at: Linearization, method: str) -> Callable[..., Array]:
    """Return an optional method of the map."""
    found: Callable[..., Array] | None = getattr(at.subject.source, method, None)
    if found is None:
        raise NothingToCheck("not offered")
    return found


ALWAYS: dict[str, Check] = {
    "shape": shape,
    "dtype": dtype,
    "finite": finite,
    "repeatable": repeatable,
    "not modified": not_modified,
    "any layout": any_layout,
}
LINEAR: dict[str, Check] = {
    "zero cotangent": linear(0, "for a cotangent of zeros"),
    "twice the cotangent": linear(2, "for twice the cotangent"),
}
LAYER: dict[str, Check] = {
    "written, not added": written,
    "passes in flight": in_flight,
    "after a step": after_a_step,
    "input_grad=False": input_grad,
}
LOSS: dict[str, Check] = {"same value in float64": both_precisions}
MAP: dict[str, Check] = {
    "on the simplex": on_simplex,
    "shift-invariant": shift_invariant,
    "jvp": jvp_agrees,
    "jacobian": jacobian_agrees,
}
