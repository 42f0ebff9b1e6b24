"""The side conditions: errors that a right gradient can still have, each under its own name.

A condition is a function that raises ``Broken`` with what it found. Gradients that must be
equal are compared entry by entry, within the tolerance of their dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minidl.checks import Array, did_you_mean
from minidl.parameter import Parameter, declared_buffers
from minidl.testing.cached import Cached
from minidl.testing.calling import float_arrays
from minidl.testing.gradients import Linearization, cotangent, perturb
from minidl.testing.report import FAILED, Condition
from minidl.testing.subjects import (
    Layout,
    Subject,
    Tensors,
    copy_with_strides,
    fortran,
    reversed_strides,
)


def unchecked_arrays(at: Linearization) -> tuple[str, ...]:
    """Return the names of plain arrays in the layers whose values change the output.

    Each is changed, and put back. Buffers that a layer declares do not count.
    """
    known = [array for p in at.subject.parameters.values() for array in (p.value, p.grad)]
    known += [array for pair in at.subject.state.arrays.values() for array in pair]
    seen: set[int] = set()
    names: list[str] = []
    for layer in at.subject.layers:
        owner = layer.layer if isinstance(layer, Cached) else layer
        buffers = getattr(layer, "not_learned", None) or declared_buffers(owner) or ()
        for path, array in float_arrays(owner):
            shared = any(np.may_share_memory(array, other) for other in known)
            if shared or id(array) in seen or not array.flags.writeable:
                continue
            seen.add(id(array))
            if path not in buffers and changes_output(at, array):
                names.append(path)
    return tuple(dict.fromkeys(names))


def changes_output(at: Linearization, array: Any) -> bool:
    """Return whether the output is another one with other values in the array."""
    content = array.copy()
    array[...] = 1.1 * content + 0.1
    try:
        y = at.run().y
    except Exception:
        return False
    finally:
        array[...] = content
    return y.shape != at.output.shape or not np.allclose(y, at.output, equal_nan=True)


Check = Callable[[Linearization], None]


class Broken(Exception):  # noqa: N818 - never leaves this module
    """A side condition does not hold: the problem, the tensor and the index."""


class NothingToCheck(Exception):  # noqa: N818 - never leaves this module
    """The object of the condition does not exist; the text says which."""


def check_skipped(owner: str, skip: Sequence[str], checks: Mapping[str, Check]) -> None:
    """Raise ValueError for a name in ``skip`` that no condition has."""
    for name in skip:
        if name not in checks:
            raise ValueError(f"{owner}: no condition {name!r} to skip{did_you_mean(name, checks)}")


def check_conditions(
    at: Linearization, checks: Mapping[str, Check], skip: Sequence[str] = ()
) -> tuple[Condition, ...]:
    """Check each condition at a point; an exception in one is its failure."""
    outcomes = []
    for name, check in checks.items():
        if name in skip:
            outcomes.append(Condition(name, skipped="left out"))
            continue
        try:
            check(at)
            outcomes.append(Condition(name))
        except Broken as broken:
            outcomes.append(Condition(name, *broken.args))
        except NothingToCheck as nothing:
            outcomes.append(Condition(name, skipped=str(nothing)))
        except Exception as error:
            text = " ".join(str(error).split())
            outcomes.append(Condition(name, f"raised {type(error).__name__}: {text}"))
    return tuple(outcomes)


def expect_same(
    at: Linearization, got: Tensors, want: Tensors, why: str, rounded: Sequence[Tensors] = ()
) -> None:
    """Raise unless arrays agree by name, with the entry that differs most.

    ``rounded`` are some of them after rounding errors, which are allowed then.
    """
    # A gradient that is zero by cancellation carries the rounding of the others.
    floor = 0.01 * max(float(np.abs(g).max(initial=0)) for g in at.gradients.values())
    for name, b in want.items():
        a, label = got[name], at.subject.label(name)
        if a.shape != b.shape:
            raise Broken(f"{label}: {why}: shape {a.shape}, expected {b.shape}", name)
        a, b = a.astype(np.float64), b.astype(np.float64)
        with np.errstate(invalid="ignore"):
            error = np.where(_same(a, b), 0, np.abs(a - b))
        size = max(float(np.abs(b[np.isfinite(b)]).max(initial=0)), floor)
        slack = 4 * np.max([np.abs(r[name] - b) for r in rounded] or 0, axis=0)
        # Written so that a NaN fails.
        if not (error <= at.settings.atol + at.settings.rtol * size + slack).all():
            index = tuple(int(i) for i in np.unravel_index(np.argmax(error), error.shape))
            place = f"{label}{list(index)}" if index else label
            problem = f"{place} {why}: {a[index]:.4g}, expected {b[index]:.4g}"
            raise Broken(problem, name, index)


def expect_all(at: Linearization, good: Array, name: str, values: Array, why: str) -> None:
    """Raise for the first entry that is not good; ``{}`` in ``why`` is its value."""
    if not good.all():
        index = tuple(map(int, np.argwhere(~good)[0]))
        place = f"{at.subject.label(name)}{list(index)}"
        raise Broken(f"{place} {why.format(values[index])}", name, index)


def _same(a: Array, b: Array) -> Array:
    return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)))


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
    for name, v in {"output": at.output, **at.gradients}.items():
        expect_all(at, np.isfinite(v), name, v, "is {}")


def repeatable(at: Linearization) -> None:
    """The same pass gives the same output, and a second call of backward the same gradients."""
    again = at.run()
    hint = "from the same state (a layer keeps its numpy.random.Generator in an attribute)"
    expect_same(at, {"output": again.y}, {"output": at.output}, hint)
    again.pull(at.dy)
    expect_same(at, again.pull(at.dy), at.gradients, "when backward is called again")


def not_modified(at: Linearization) -> None:
    """Tensors, cotangent and NumPy's global random state are not modified."""
    before = np.random.get_state()  # noqa: NPY002 - only read
    run = at.run()
    run.pull(at.dy)
    after = np.random.get_state()  # noqa: NPY002 - only read
    wanted = {"output": run.y, "cotangent": at.dy, **at.tensors}
    for name, given in run.given.items():
        expect_all(at, _same(given, wanted[name]), name, given, "was modified in place")
    if at.subject.numpy_seed is None and not all(map(np.array_equal, before, after)):
        raise Broken("numpy.random's global state was used; keep a Generator", "output")


def any_layout(at: Linearization) -> None:
    """Fortran order and negative strides of input and cotangent give the same gradients.

    Another layout is another order of summation, which decides at a kink or a near tie: the
    condition is broken only if it is at all of a few points nearby, and by more than rounding.
    """
    name = next(iter(at.tensors))

    def broken(layout: Layout, point: Linearization, rounded: Sequence[Tensors]) -> Broken | None:
        run = at.subject.run({**point.tensors, name: layout(point.tensors[name])})
        got, why = run.pull(layout(at.dy)), "in another memory layout"
        try:
            expect_same(at, got, point.gradients, why, rounded)
        except Broken as error:
            return error
        return None

    for layout in (fortran, reversed_strides):
        error = broken(layout, at, ())
        nearby = (at.nearby(distance) for distance in (0, 1e-4, 1e-3, 1e-2))
        if error and all(broken(layout, point, point.rounded) for point in nearby):
            raise error


def zero_cotangent(at: Linearization) -> None:
    """A cotangent of zeros gives zeros."""
    zeros = {name: np.zeros_like(g) for name, g in at.gradients.items()}
    expect_same(at, at.run().pull(np.zeros_like(at.dy)), zeros, "for a cotangent of zeros")


def twice_cotangent(at: Linearization) -> None:
    """Twice the cotangent gives twice the gradient."""
    twice = {name: 2 * g for name, g in at.gradients.items()}
    expect_same(at, at.run().pull(2 * at.dy), twice, "for twice the cotangent")


def written(at: Linearization) -> None:
    """Backward overwrites the gradients of the parameters."""
    run = at.run()
    for p in _parameters(at).values():
        p.grad[...] = 1
    expect_same(at, run.pull(at.dy), at.gradients, "added to what was there, not written")


def in_flight(at: Linearization) -> None:
    """A second pass on another input changes nothing for the first."""
    first, name = at.run(), next(iter(at.tensors))
    y, x = first.y.copy(), at.tensors[name]
    at.subject.run({**at.tensors, name: np.asarray(0.5 * x, x.dtype)})
    why = "after a second pass on another input"
    expect_same(at, {"output": first.y}, {"output": y}, why)
    expect_same(at, first.pull(at.dy), at.gradients, why)


def after_a_step(at: Linearization) -> None:
    """The gradients are right at other values of the parameters too: nothing is stale."""
    moved = {k: perturb(at.settings.rng, at.tensors[k], 0.01) for k in _parameters(at)}
    point = Linearization(at.subject, {**at.tensors, **moved}, at.dy, at.settings)
    for name in point.tensors:
        check = None if name in at.failed else point.check(name, directions=1)
        if check and check.verdict == FAILED:
            raise Broken(check.failure, name, check.worst.index if check.worst else None)


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
    expect_same(at, got, {key: at.gradients[key] for key in got}, "with input_grad=False")


def both_precisions(at: Linearization) -> None:
    """The value in the tensors' own dtype is that in float64."""
    want = at.subject.run(at.wide).y
    expect_same(at, {"value": at.run().y}, {"value": want}, "against float64")


def on_simplex(at: Linearization) -> None:
    """The output is never negative and sums to one."""
    p = at.run().y
    expect_all(at, ~(p < 0), "output", p, "= {:.4g} < 0")
    sums = p.sum(axis=at.subject.axis, dtype=np.float64)
    expect_same(at, {"output": sums}, {"output": np.ones_like(sums)}, "summed along the axis")


def shift_invariant(at: Linearization) -> None:
    """A constant added to the logits changes nothing, so each gradient sums to zero."""
    sums = at.gradients["z"].sum(axis=at.subject.axis)
    expect_same(at, {"z": sums}, {"z": np.zeros_like(sums)}, "gradient summed along the axis")


def jvp_agrees(at: Linearization) -> None:
    """``<dp, jvp(p, dz)> = <vjp(p, dp), dz>`` for a random ``dz``."""
    jvp = _offered(at, "jvp")
    dz = np.asarray(at.settings.rng.standard_normal(at.dy.shape), at.dy.dtype)
    forward = np.asarray(np.vdot(at.dy, jvp(at.run().y, dz, axis=at.subject.axis)))
    backward = np.asarray(np.vdot(at.gradients["z"], dz))
    expect_same(at, {"z": forward}, {"z": backward}, "<dp, jvp(p, dz)> against <vjp(p, dp), dz>")


def jacobian_agrees(at: Linearization) -> None:
    """The rows of ``jacobian(z)``, contracted with the cotangent, are the vjp."""
    axis, jacobian = at.subject.axis, _offered(at, "jacobian")
    dp, z = (np.moveaxis(a, axis, -1) for a in (at.dy, at.tensors["z"]))
    dz = np.einsum("...i,...ij->...j", dp, jacobian(copy_with_strides(z)))
    want = np.moveaxis(at.gradients["z"], axis, -1)
    expect_same(at, {"z": dz}, {"z": want}, "by jacobian(z) against the vjp")


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


def larger(factor: float) -> Check:
    """Return the condition that the gradients are right at larger inputs."""

    def larger(at: Linearization) -> None:
        moved = {k: np.asarray(factor * at.tensors[k], at.tensors[k].dtype) for k in _inputs(at)}
        _expect_right(at, at.subject, {**at.tensors, **moved})

    return larger


def rows(k: int) -> Check:
    """Return the condition that the gradients are right on the first k rows."""

    def rows(at: Linearization) -> None:
        if at.subject.rows is None or not _inputs(at):
            raise NothingToCheck("not a batch of rows")
        if any(len(at.tensors[name]) < k for name in _inputs(at)[:1]):
            raise NothingToCheck("too few rows")
        subject = at.subject.rows(k)
        subject.name, subject.numpy_seed = at.subject.name, at.subject.numpy_seed
        with subject.preserved(at.settings.rng):
            dtypes = {name: value.dtype for name, value in at.tensors.items()}
            tensors = {name: v.astype(dtypes[name]) for name, v in subject.tensors.items()}
            _expect_right(at, subject, tensors)

    return rows


def used_twice(at: Linearization) -> None:
    """A pass at another input, before, changes nothing: no cache is stale."""
    subject = at.subject
    if not subject.layers:
        raise NothingToCheck("no object")
    other = {k: at.tensors[k] for k in at.tensors} | {
        k: np.asarray(-0.7 * at.tensors[k][::-1], at.tensors[k].dtype) for k in _inputs(at)
    }
    with subject.one_object():
        fresh = subject.run(other)
        gradients = fresh.pull(at.dy)
    with subject.one_object():
        at.run().pull(at.dy)
        used = subject.run(other)
        expect_same(at, {"output": used.y}, {"output": fresh.y}, "on an object that was used")
        expect_same(at, used.pull(at.dy), gradients, "on an object that was used")


def _inputs(at: Linearization) -> list[str]:
    """Return the names of the inputs that can be scaled or cut."""
    return [name for name in at.subject.inputs if at.tensors[name].ndim]


def _expect_right(at: Linearization, subject: Subject, tensors: Tensors) -> None:
    y = subject.run(tensors).y
    if not np.isfinite(y).all() and np.isfinite(at.output).all():
        raise NothingToCheck("the output is not finite there")
    point = Linearization(subject, tensors, cotangent(at.settings.rng, y), at.settings)
    for name in tensors:
        check = None if name in at.failed else point.check(name)
        if check and check.verdict == FAILED:
            raise Broken(check.failure, name, check.worst.index if check.worst else None)


SWEEP: dict[str, Check] = {
    "4 times the input": larger(4),
    "16 times the input": larger(16),
    "one row": rows(1),
    "no rows": rows(0),
    "used twice": used_twice,
}
