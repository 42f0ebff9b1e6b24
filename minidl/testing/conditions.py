"""The side conditions: what a right gradient can still get wrong, each under its own name.

A condition is a function that raises ``Broken`` with what it saw. Two gradients that must be
equal are compared within the tolerance of their dtype, entry by entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from minidl.testing.adapters import accepts
from minidl.testing.gradients import Point, Settings
from minidl.testing.layouts import Layout, fortran, reversed_strides
from minidl.testing.report import FAILED, Condition
from minidl.testing.subjects import LayerSubject, MapSubject, Run, Subject, twin
from minidl.typing import Array


class Broken(Exception):  # noqa: N818 - never leaves this module
    """A side condition does not hold."""

    def __init__(
        self, problem: str, tensor: str | None = None, index: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(problem)
        self.tensor, self.index = tensor, index


class NothingToCheck(Exception):  # noqa: N818 - never leaves this module
    """The condition is about something that is not there; says what."""


S = TypeVar("S", bound=Subject)


class Case(Generic[S]):
    """A subject at the caller's point: one pass, its cotangent, and the gradients that it gave.

    ``wrong`` names the tensors whose gradients are known to be wrong there.
    """

    def __init__(self, subject: S, dy: Array, settings: Settings, wrong: set[str]) -> None:
        self.subject, self.dy, self.settings, self.wrong = subject, dy, settings, wrong
        self.gradients = self.run().pull(dy)
        self._largest = max(float(np.abs(g).max(initial=0)) for g in self.gradients.values())

    def run(self) -> Run:
        return self.subject.run(self.subject.tensors)

    def same(
        self,
        got: dict[str, Array],
        want: dict[str, Array],
        why: str,
        rounded: Sequence[dict[str, Array]] = (),
    ) -> None:
        """Raise unless two sets of gradients agree, naming the entry that differs most.

        ``rounded`` are the gradients again, moved by rounding.
        """
        for name, expected in want.items():
            slack = 4 * np.max([np.abs(r[name] - expected) for r in rounded] or 0, axis=0)
            self.equal(self.subject.label(name), got[name], expected, why, name, slack)

    def equal(
        self, label: str, got: Array, want: Array, why: str, tensor: str, slack: Array | float = 0
    ) -> None:
        if got.shape != want.shape:
            raise Broken(f"{label}: {why}: shape {got.shape}, expected {want.shape}", tensor)
        got, want = got.astype(np.float64), want.astype(np.float64)
        finite = np.isfinite(want)
        # A gradient that is zero by cancellation carries the rounding of the others.
        size = max(float(np.abs(want[finite]).max(initial=0)), 0.01 * self._largest)
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        with np.errstate(invalid="ignore"):
            error = np.where(same, 0, np.abs(got - want))
        # Written so that a NaN fails.
        if not (error <= self.settings.atol + self.settings.rtol * size + slack).all():
            worst = np.unravel_index(np.argmax(error), error.shape)
            index = tuple(int(i) for i in worst)
            place = f"{label}{list(index)}" if index else label
            raise Broken(
                f"{place} {why}: {got[worst]:.4g}, expected {want[worst]:.4g}", tensor, index
            )


def shape(case: Case[Subject]) -> None:
    """Every gradient has the shape of its tensor; the run itself raises where one has not."""
    for name, gradient in case.gradients.items():
        want = case.subject.tensors[name].shape
        if gradient.shape != want:
            raise Broken(f"{case.subject.label(name)}: {gradient.shape}, expected {want}", name)


def dtype(case: Case[Subject]) -> None:
    """The output has the input's dtype, in both precisions, and each gradient its tensor's."""
    first = next(iter(case.subject.tensors.values())).dtype
    y = case.run().y
    if y.dtype != first and y.ndim:
        raise Broken(f"{case.subject.name}: output {y.dtype} for an input of {first}", "output")
    for name, gradient in case.gradients.items():
        want = case.subject.tensors[name].dtype
        if gradient.dtype != want:
            label = case.subject.label(name)
            raise Broken(f"{label}: gradient {gradient.dtype} for a tensor of {want}", name)


def finite(case: Case[Subject]) -> None:
    """Output and gradients are finite."""
    for name, value in {"output": case.run().y, **case.gradients}.items():
        bad = np.argwhere(~np.isfinite(value))
        if len(bad):
            index = tuple(map(int, bad[0]))
            raise Broken(f"{case.subject.label(name)}{list(index)} is {value[index]}", name, index)


def zero_cotangent(case: Case[Subject]) -> None:
    """A cotangent of zeros gives zeros."""
    zeros = {name: np.zeros_like(g) for name, g in case.gradients.items()}
    case.same(case.run().pull(np.zeros_like(case.dy)), zeros, "for a cotangent of zeros")


def twice_cotangent(case: Case[Subject]) -> None:
    """Twice the cotangent gives twice the gradient."""
    twice = {name: 2 * g for name, g in case.gradients.items()}
    case.same(case.run().pull(2 * case.dy), twice, "for twice the cotangent")


def repeatable(case: Case[Subject]) -> None:
    """The same pass gives the same output, calling backward again the same gradients."""
    first, again = case.run(), case.run()
    hint = "from the same state (a layer keeps its numpy.random.Generator in an attribute)"
    case.equal(f"{case.subject.name}: output", again.y, first.y, hint, "output")
    again.pull(case.dy)
    case.same(again.pull(case.dy), case.gradients, "when backward is called again")


def written(case: Case[LayerSubject]) -> None:
    """Backward writes the parameters' gradients, whatever was there before."""
    if not case.subject.parameters:
        raise NothingToCheck("no parameters")
    run = case.run()
    for p in case.subject.parameters.values():
        p.grad[...] = 1
    case.same(run.pull(case.dy), case.gradients, "added to what was there, not written")


def unchanged(case: Case[Subject]) -> None:
    """Neither the tensors nor the cotangent are modified."""
    before = np.random.get_state(legacy=False)  # noqa: NPY002 - a look, not a use
    run = case.run()
    run.pull(case.dy)
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    wanted = {"output": run.y, "cotangent": case.dy, **case.subject.tensors}
    for name, given in run.given.items():
        want = wanted.get(name)
        if want is not None and not np.array_equal(given, want, equal_nan=True):
            differs = ~np.isclose(given, want, rtol=0, atol=0, equal_nan=True)
            index = tuple(map(int, np.argwhere(differs)[0]))
            label = case.subject.label(name)
            raise Broken(f"{label}{list(index)} was modified in place", name, index)
    if not _equal_states(before, after):
        raise Broken("numpy.random's global state was used; keep a Generator", "output")


def in_flight(case: Case[Subject]) -> None:
    """A second pass on another input changes nothing for the first."""
    first = case.run()
    y = first.y.copy()
    tensors = case.subject.tensors
    name = next(iter(tensors))
    case.subject.run({**tensors, name: np.asarray(0.5 * tensors[name], tensors[name].dtype)})
    case.equal(f"{case.subject.name}: output", first.y, y, "after a second pass", "output")
    case.same(first.pull(case.dy), case.gradients, "after a second pass on another input")


def after_a_step(case: Case[LayerSubject]) -> None:
    """At other values of the parameters the gradients are right as well: nothing is stale."""
    if not case.subject.parameters:
        raise NothingToCheck("no parameters")
    rng, tensors = case.settings.rng, dict(case.subject.tensors)
    for name in list(tensors)[1:]:
        v = tensors[name]
        tensors[name] = np.asarray(
            v + 0.01 * (1 + np.abs(v)) * rng.standard_normal(v.shape), v.dtype
        )
    point = Point(case.subject, tensors, case.dy, case.settings)
    for name in (name for name in tensors if name not in case.wrong):
        check = point.check(name)
        if check.verdict == FAILED and check.worst:
            raise Broken(f"{check.worst}", name, check.worst.index)


def input_grad(case: Case[LayerSubject]) -> None:
    """Where ``backward(dy, input_grad=False)`` is accepted: the same gradients, and None."""
    backward = case.run().backward
    if not accepts(backward, case.dy, input_grad=False):
        raise NothingToCheck("not offered")
    got = backward(case.dy, input_grad=False)
    if got is not None:
        raise Broken(f"backward(dy, input_grad=False) returned {type(got).__name__}, not None")
    grads = {key: p.grad for key, p in case.subject.parameters.items()}
    want = {key: g for key, g in case.gradients.items() if key in grads}
    case.same(grads, want, "with input_grad=False")


def any_layout(case: Case[Subject]) -> None:
    """Fortran order and negative strides of input and cotangent give the same gradients.

    Another layout is another order of summation, which at a kink or a near tie decides: the
    condition is broken only if it is at every one of a few points nearby, and by more than
    rounding does.
    """
    name, x = next(iter(case.subject.tensors.items()))
    for layout in (fortran, reversed_strides):
        run = case.subject.run({**case.subject.tensors, name: layout(x)})
        try:
            case.same(run.pull(layout(case.dy)), case.gradients, "in another memory layout")
        except Broken as broken:
            if all(_differs(case, name, layout, distance) for distance in (0, 1e-4, 1e-3, 1e-2)):
                raise broken from None


def _differs(case: Case[Subject], name: str, layout: Layout, distance: float) -> bool:
    here = Point(case.subject, case.subject.tensors, case.dy, case.settings)
    point = here.beside(distance)
    run = case.subject.run({**point.native, name: layout(point.native[name])})
    try:
        case.same(run.pull(layout(case.dy)), point.gradients, "", point.rounded)
    except Broken:
        return True
    return False


def both_precisions(case: Case[Subject]) -> None:
    """The value in the tensors' own dtype is that in float64."""
    wide = {k: v.astype(np.float64) for k, v in case.subject.tensors.items()}
    want = case.subject.run(wide).y
    case.equal(f"{case.subject.name}: value", case.run().y, want, "against float64", "output")


def on_simplex(case: Case[MapSubject]) -> None:
    """The map's output is never negative and sums to one."""
    p = case.run().y
    if (p < 0).any():
        index = tuple(map(int, np.argwhere(p < 0)[0]))
        raise Broken(f"p{list(index)} = {p[index]:.4g} < 0", "output", index)
    sums = p.sum(axis=case.subject.axis, dtype=np.float64)
    case.equal("sum of p", sums, np.ones_like(sums), "along the axis", "output")


def shift_invariant(case: Case[MapSubject]) -> None:
    """A constant added to the logits changes nothing, so each gradient sums to zero."""
    sums = case.gradients["z"].sum(axis=case.subject.axis, dtype=np.float64)
    case.equal("sum of z's gradient", sums, np.zeros_like(sums), "along the axis", "z")


def jvp_agrees(case: Case[MapSubject]) -> None:
    """``<dp, jvp(p, dz)> = <vjp(p, dp), dz>`` for a random ``dz``, where there is a jvp."""
    jvp = getattr(case.subject.map, "jvp", None)
    if jvp is None:
        raise NothingToCheck("not offered")
    dz = np.asarray(case.settings.rng.standard_normal(case.dy.shape), case.dy.dtype)
    forward = np.vdot(case.dy, jvp(case.run().y, dz, axis=case.subject.axis))
    backward = np.vdot(case.gradients["z"], dz)
    case.equal("<dp, jvp(p, dz)>", forward, backward, "against <vjp(p, dp), dz>", "z")


def jacobian_agrees(case: Case[MapSubject]) -> None:
    """The rows of ``jacobian(z)`` contracted with the cotangent are the vjp."""
    subject = case.subject
    jacobian = getattr(subject.map, "jacobian", None)
    if jacobian is None:
        raise NothingToCheck("not offered")
    dp, z = (np.moveaxis(a, subject.axis, -1) for a in (case.dy, subject.tensors["z"]))
    dz = np.einsum("...i,...ij->...j", dp, jacobian(twin(z)))
    want = np.moveaxis(case.gradients["z"], subject.axis, -1)
    case.equal(f"{subject.name}: jacobian(z)", dz, want, "against the vjp", "z")


def _equal_states(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a["state"]["pos"] == b["state"]["pos"] and bool(
        np.array_equal(a["state"]["key"], b["state"]["key"])
    )


Check = Callable[[Case[Any]], None]

ALWAYS: dict[str, Check] = {
    "shape": shape,
    "dtype": dtype,
    "finite": finite,
    "repeatable": repeatable,
    "not modified": unchanged,
    "any layout": any_layout,
}
LINEAR: dict[str, Check] = {
    "zero cotangent": zero_cotangent,
    "twice the cotangent": twice_cotangent,
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


def hold(case: Case[Any], checks: dict[str, Check]) -> tuple[Condition, ...]:
    """Try each condition."""
    outcomes = []
    for name, check in checks.items():
        try:
            check(case)
            outcomes.append(Condition(name))
        except Broken as broken:
            outcomes.append(Condition(name, str(broken), broken.tensor, broken.index))
        except NothingToCheck as nothing:
            outcomes.append(Condition(name, skipped=str(nothing)))
    return tuple(outcomes)
