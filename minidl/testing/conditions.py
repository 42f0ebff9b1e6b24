"""The side conditions: errors that a right gradient can still have, each under its own name.

A condition is a function that raises ``Broken`` with what it found. Gradients that must be
equal are compared entry by entry, within the tolerance of their dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from minidl.checks import Array
from minidl.parameter import Parameter, declared_buffers
from minidl.testing.cached import Cached, float_arrays
from minidl.testing.differences import Point
from minidl.testing.gradients import check_tensor
from minidl.testing.layers import LayerSubject
from minidl.testing.report import FAILED, Condition, raised
from minidl.testing.subjects import Layout, Tensors, fortran, reversed_strides, strided

Check = Callable[[Point], None]


class Broken(Exception):  # noqa: N818 - never leaves this module
    """A side condition does not hold: the problem, the tensor and the index."""


class NothingToCheck(Exception):  # noqa: N818 - never leaves this module
    """The object of the condition does not exist; the text says which."""


def check_condition(at: Point, name: str, check: Check) -> Condition:
    """Check a condition at a point; an exception in it is its failure."""
    try:
        check(at)
    except Broken as broken:
        return Condition(name, *broken.args)
    except NothingToCheck as nothing:
        return Condition(name, skipped=str(nothing))
    except Exception as error:
        return Condition(name, f"raised {raised(error)}")
    return Condition(name)


def expect_same(
    at: Point, got: Tensors, want: Tensors, why: str, rounded: Sequence[Tensors] = ()
) -> None:
    """Raise unless arrays agree by name, with the entry that differs most.

    ``rounded`` are some of them after rounding errors, which are allowed then.
    """
    for name, b in want.items():
        a, label = got[name], at.subject.label(name)
        if a.shape != b.shape:
            raise Broken(f"{label}: {why}: shape {a.shape}, expected {b.shape}", name)
        a, b = a.astype(np.float64), b.astype(np.float64)
        with np.errstate(invalid="ignore"):
            error = np.where(_same(a, b), 0, np.abs(a - b))
        own = at.gradients.get(name, np.zeros(0))  # of which b may be a sum that cancels
        size = max(float(np.abs(v[np.isfinite(v)]).max(initial=0)) for v in (b, own))
        slack = 4 * np.max([np.abs(r[name] - b) for r in rounded] or 0, axis=0)
        # Written so that a NaN fails.
        if not (error <= at.settings.atol + at.settings.rtol * size + slack).all():
            index = tuple(int(i) for i in np.unravel_index(np.argmax(error), error.shape))
            place = f"{label}{list(index)}" if index else label
            problem = f"{place} {why}: {a[index]:.4g}, expected {b[index]:.4g}"
            raise Broken(problem, name, index)


def expect_all(at: Point, good: Array, name: str, values: Array, why: str) -> None:
    """Raise for the first entry that is not good; ``{}`` in ``why`` is its value."""
    if not good.all():
        index = tuple(map(int, np.argwhere(~good)[0]))
        place = f"{at.subject.label(name)}{list(index)}"
        raise Broken(f"{place} {why.format(values[index])}", name, index)


def expect_right(at: Point, other: Point, directions: int = 2) -> None:
    """Raise unless the gradients that are right at one point are so at the other."""
    for name in other.tensors:
        check = None if name in at.failed else check_tensor(other, name, directions)
        if check and check.verdict == FAILED:
            raise Broken(check.failure, name, check.worst.index if check.worst else None)


def _same(a: Array, b: Array) -> Array:
    return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)))


def shape(at: Point) -> None:
    """Every gradient has the shape of its tensor: otherwise the pass has raised ContractError."""


def dtype(at: Point) -> None:
    """The output has the dtype of the input, and each gradient that of its tensor."""
    run, name = at.run(), at.subject.name
    if run.y.dtype != at.dtype and run.y.ndim:
        raise Broken(f"{name}: output {run.y.dtype} for an input of {at.dtype}", "output")
    for key, gradient in run.pull(at.dy).items():
        want = at.tensors[key].dtype
        if gradient.dtype != want:
            raise Broken(f"{name}.{key}: gradient {gradient.dtype} for a tensor of {want}", key)


def finite(at: Point) -> None:
    """Output and gradients are finite."""
    for name, v in {"output": at.output, **at.gradients}.items():
        expect_all(at, np.isfinite(v), name, v, "is {}")


def repeatable(at: Point) -> None:
    """The same pass gives the same output, and a second call of backward the same gradients."""
    again = at.run()
    expect_same(at, {"output": again.y}, {"output": at.output}, "at the same input")
    again.pull(at.dy)
    expect_same(at, again.pull(at.dy), at.gradients, "when backward is called again")


def not_modified(at: Point) -> None:
    """Tensors, output, cotangent and NumPy's global random state are not modified."""
    before = np.random.get_state()  # noqa: NPY002 - only read
    run = at.run()
    run.pull(at.dy)
    after = np.random.get_state()  # noqa: NPY002 - only read
    wanted = {"output": run.y, "cotangent": at.dy, **at.tensors}
    for name, given in run.given.items():
        expect_all(at, _same(given, wanted[name]), name, given, "was modified in place")
    if at.subject.numpy_seed is None and not all(map(np.array_equal, before, after)):
        raise Broken("numpy.random's global state was used; keep a Generator", "output")


def any_layout(at: Point) -> None:
    """Other memory layouts of input and cotangent give the same gradients.

    Another layout is another order of summation, which decides at a kink or a near tie: the
    condition is broken only if it is at all of a few points nearby, and by more than rounding.
    """
    name = next(iter(at.tensors))

    def broken(layout: Layout, point: Point, rounded: Sequence[Tensors]) -> Broken | None:
        run = at.subject.run(point.tensors, {name: layout, "cotangent": layout})
        got, why = run.pull(at.dy), "in another memory layout"
        try:
            expect_same(at, got, point.gradients, why, rounded)
        except Broken as error:
            return error
        return None

    for layout in (fortran, strided, reversed_strides):
        error = broken(layout, at, ())
        nearby = (at.nearby(distance) for distance in (0, 1e-4, 1e-3, 1e-2))
        if error and all(broken(layout, point, point.rounded_gradients) for point in nearby):
            raise error


def multiple(at: Point, factor: float, why: str) -> None:
    """A multiple of the cotangent gives that of the gradient."""
    wanted = {name: factor * g for name, g in at.gradients.items()}
    expect_same(at, at.run().pull(factor * at.dy), wanted, why)


def written(at: Point) -> None:
    """Backward overwrites the gradients of the parameters."""
    run, parameters = at.run(), _parameters(at)
    for p in parameters.values():
        p.grad[...] = 1
    found = run.pull(at.dy)
    never = [name for name, p in parameters.items() if p.grad.size and np.all(p.grad == 1)]
    why = "never written" if never else "added to what was there, not written"
    expect_same(at, found, at.gradients, why)


def in_flight(at: Point) -> None:
    """A second pass on another input changes nothing for the first."""
    first, name = at.run(), next(iter(at.tensors))
    y, x = first.y.copy(), at.tensors[name]
    at.subject.run({**at.tensors, name: np.asarray(0.5 * x, x.dtype)})
    why = "after a second pass on another input"
    expect_same(at, {"output": first.y}, {"output": y}, why)
    expect_same(at, first.pull(at.dy), at.gradients, why)


def after_a_step(at: Point) -> None:
    """The gradients are right at other values of the parameters too: nothing is stale."""
    moved = {k: at.moved(k, 0.01) for k in _parameters(at)}
    expect_right(at, at.moved_to({**at.tensors, **moved}), directions=1)


def input_grad(at: Point) -> None:
    """``backward(dy, input_grad=False)`` gives the same gradients, and None for the input's.

    A layer with ``skips_input_grad`` must accept the argument, others may.
    """
    try:
        found = at.run().raw_pull(at.dy, input_grad=False)
    except TypeError as error:
        if getattr(at.subject.source, "skips_input_grad", False):
            raise Broken(f"declared by skips_input_grad, but {error}", "input") from None
        raise NothingToCheck("not offered") from None
    if (dx := found.pop("input", None)) is not None:
        raise Broken(f"backward(dy, input_grad=False) returned {type(dx).__name__}, not None")
    got = {key: found[key] for key in at.subject.parameters}
    expect_same(at, got, {key: at.gradients[key] for key in got}, "with input_grad=False")


def both_precisions(at: Point) -> None:
    """The value in the tensors' own dtype is that in float64."""
    want = at.subject.run(at.wide).y
    expect_same(at, {"value": at.run().y}, {"value": want}, "against float64")


def on_simplex(at: Point) -> None:
    """The output is never negative and sums to one."""
    p = at.run().y
    expect_all(at, ~(p < 0), "output", p, "= {:.4g} < 0")
    sums = p.sum(axis=at.subject.axis, dtype=np.float64)
    expect_same(at, {"output": sums}, {"output": np.ones_like(sums)}, "summed along the axis")


def shift_invariant(at: Point) -> None:
    """A constant added to the logits changes nothing, so each gradient sums to zero."""
    sums = at.gradients["z"].sum(axis=at.subject.axis)
    expect_same(at, {"z": sums}, {"z": np.zeros_like(sums)}, "gradient summed along the axis")


def jvp_agrees(at: Point) -> None:
    """``<dp, jvp(p, dz)> = <vjp(p, dp), dz>`` for a random ``dz``."""
    jvp = _offered(at, "jvp")
    dz = np.asarray(at.settings.rng.standard_normal(at.dy.shape), at.dy.dtype)
    forward = np.asarray(np.vdot(at.dy, jvp(at.run().y, dz, axis=at.subject.axis)))
    backward = np.asarray(np.vdot(at.gradients["z"], dz))
    expect_same(at, {"z": forward}, {"z": backward}, "<dp, jvp(p, dz)> against <vjp(p, dp), dz>")


def jacobian_agrees(at: Point) -> None:
    """The rows of ``jacobian(z)``, contracted with the cotangent, are the vjp."""
    axis, jacobian = at.subject.axis, _offered(at, "jacobian")
    dp, z = (np.moveaxis(a, axis, -1) for a in (at.dy, at.tensors["z"]))
    dz = np.einsum("...i,...ij->...j", dp, jacobian(np.copy(z)))
    want = np.moveaxis(at.gradients["z"], axis, -1)
    expect_same(at, {"z": dz}, {"z": want}, "by jacobian(z) against the vjp")


def larger(at: Point, factor: float) -> None:
    """The gradients are right at larger inputs."""
    moved = {k: np.asarray(factor * at.tensors[k], at.tensors[k].dtype) for k in _inputs(at)}
    other = Point(at.subject, {**at.tensors, **moved}, at.settings)
    if not np.isfinite(other.output).all() and np.isfinite(at.output).all():
        raise NothingToCheck("the output is not finite there")
    expect_right(at, other)


def rows(at: Point, k: int) -> None:
    """The gradients are right on the first k rows."""
    arrays = {**at.tensors, **at.subject.fixed}
    lengths = {n: len(v) for n, v in arrays.items() if isinstance(v, np.ndarray) and v.ndim}
    first = next(iter(_inputs(at)), None)
    if not at.subject.batch or first is None:
        raise NothingToCheck("not a batch of rows")
    if lengths[first] < k:
        raise NothingToCheck("too few rows")
    examples = {n for n in lengths if lengths[n] == lengths[first]} - {*at.subject.parameters}
    for names in (examples, {first}):  # a weight may have as many rows by chance
        subject = at.subject.first_rows(k, names)
        tensors = {n: v[:k] if n in names else v for n, v in at.tensors.items()}
        try:
            with subject.preserved(at.settings.rng):
                expect_right(at, Point(subject, tensors, at.settings))
            return
        except Broken:
            raise
        except Exception:
            if names == {first}:
                raise


def used_twice(at: Point) -> None:
    """A pass at another input, before, changes nothing: no cache is stale."""
    subject = at.subject
    if not isinstance(subject, LayerSubject):
        raise NothingToCheck("no object")
    negative = {k: np.asarray(-0.7 * at.tensors[k][::-1], at.tensors[k].dtype) for k in _inputs(at)}
    other = {**at.tensors, **negative}
    with subject.one_object():
        fresh = subject.run(other)
        gradients = fresh.pull(at.dy)
    with subject.one_object():
        at.run().pull(at.dy)
        used = subject.run(other)
        expect_same(at, {"output": used.y}, {"output": fresh.y}, "on an object that was used")
        expect_same(at, used.pull(at.dy), gradients, "on an object that was used")


CLIPS = "for twice the cotangent (if it clips gradients, give cotangent=1e-3)"
ALWAYS: dict[str, Check] = {
    "shape": shape,
    "dtype": dtype,
    "finite": finite,
    "repeatable": repeatable,
    "not modified": not_modified,
    "any layout": any_layout,
}
LINEAR: dict[str, Check] = {
    "zero cotangent": partial(multiple, factor=0, why="for a cotangent of zeros"),
    "twice the cotangent": partial(multiple, factor=2, why=CLIPS),
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
SWEEP: dict[str, Check] = {
    "4 times the input": partial(larger, factor=4),
    "16 times the input": partial(larger, factor=16),
    "one row": partial(rows, k=1),
    "no rows": partial(rows, k=0),
    "used twice": used_twice,
}


def _inputs(at: Point) -> list[str]:
    """Return the names of the inputs that can be scaled or cut."""
    return [name for name in at.subject.inputs if at.tensors[name].ndim]


def _parameters(at: Point) -> dict[str, Parameter]:
    if not at.subject.parameters:
        raise NothingToCheck("no parameters")
    return dict(at.subject.parameters)


def _offered(at: Point, method: str) -> Callable[..., Array]:
    """Return an optional method of the map."""
    found: Callable[..., Array] | None = getattr(at.subject.source, method, None)
    if found is None:
        raise NothingToCheck("not offered")
    return found


def unchecked_arrays(at: Point) -> Iterator[str]:
    """Yield the names of plain arrays in the layers whose values change the output.

    Each is changed, and put back. Buffers that a layer declares do not count.
    """
    subject, seen = at.subject, set[int]()
    if not isinstance(subject, LayerSubject):
        return
    pairs = [*subject.arrays.values(), *((p.value, p.grad) for p in subject.parameters.values())]
    known = [array for pair in pairs for array in pair]
    for layer in subject.layers:
        adapted = isinstance(layer, Cached)
        owner = layer.layer if adapted else layer
        buffers = (layer.not_learned if adapted else ()) or declared_buffers(owner) or ()
        for path, array in float_arrays(owner):
            shared = any(np.may_share_memory(array, other) for other in known)
            if shared or id(array) in seen or not array.flags.writeable:
                continue
            seen.add(id(array))
            if path not in buffers and _changes_output(at, array):
                yield path


def _changes_output(at: Point, array: Array) -> bool:
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
