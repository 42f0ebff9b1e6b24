"""The side conditions: errors that a right gradient can still have, each under its own name.

A condition is a function that raises ``Broken`` with what it found. Gradients that must be
equal are compared entry by entry, within the tolerance of their dtype.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np

from minidl.checks import Array
from minidl.parameter import Parameter, declared_buffers
from minidl.testing.cached import Cached, float_arrays
from minidl.testing.differences import Point, as_float64, largest
from minidl.testing.gradients import check_tensor
from minidl.testing.layers import LayerSubject
from minidl.testing.report import Condition, raised
from minidl.testing.subjects import LAYOUTS, Pass, Tensors

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


def expect_all(at: Point, good: Array, name: str, why: str, *arrays: Array) -> None:
    """Raise for the first entry that is not good; ``{}`` in ``why`` are its values."""
    if not good.all():
        index = tuple(map(int, np.argwhere(~good)[0]))
        place = f"{at.subject.label(name)}{list(index) if index else ''}"
        raise Broken(f"{place} {why.format(*(a[index] for a in arrays))}", name, index)


def expect_same(
    at: Point, got: Tensors, want: Tensors, why: str, rounded: Sequence[Tensors] = ()
) -> None:
    """Raise unless arrays agree by name, relative to their largest entry.

    ``rounded`` are some of them after rounding errors, which are allowed then.
    """
    for name, b in as_float64(want).items():
        a = got[name].astype(np.float64)
        if a.shape != b.shape:
            raise Broken(f"{at.subject.label(name)}: {why}: {a.shape}, expected {b.shape}", name)
        size = max(largest(b), largest(at.gradients.get(name, b)))  # b may be a sum that cancels
        slack = 4 * np.max([np.abs(r[name] - b) for r in rounded] or 0, axis=0)
        with np.errstate(invalid="ignore"):
            near = np.abs(a - b) <= at.settings.atol + at.settings.rtol * size + slack
        expect_all(at, near | _same(a, b), name, why + ": {:.4g}, expected {:.4g}", a, b)


def expect_right(at: Point, other: Point, directions: int = 2) -> None:
    """Raise unless the gradients that are right at one point are so at the other."""
    for name in other.tensors:
        check = None if name in at.failed else check_tensor(other, name, directions)
        if check and check.failure:
            raise Broken(check.failure, name, check.worst.index if check.worst else None)


def _same(a: Array, b: Array) -> Array:
    return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)))


def _inputs(at: Point) -> list[str]:
    """Return the names of the inputs that can be scaled or cut."""
    return [name for name in at.subject.inputs if at.tensors[name].ndim]


def _parameters(at: Point) -> dict[str, Parameter]:
    if not at.subject.parameters:
        raise NothingToCheck("no parameters")
    return dict(at.subject.parameters)


def left_out(at: Point) -> None:
    """Stand for a condition that the caller left out."""
    raise NothingToCheck("left out")


def dtype(at: Point) -> None:
    """The output has the dtype of the input, and each gradient that of its tensor."""
    run, name = at.run(), at.subject.name
    if run.y.dtype != at.dtype and run.y.ndim:
        raise Broken(f"{name}: output {run.y.dtype} for an input of {at.dtype}", "output")
    for key, g in run.pull(at.dy).items():
        if g.dtype != (want := at.tensors[key].dtype):
            raise Broken(f"{name}.{key}: gradient {g.dtype} for a tensor of {want}", key)


def finite(at: Point) -> None:
    """Output and gradients are finite."""
    for name, v in {"output": at.output, **at.gradients}.items():
        expect_all(at, np.isfinite(v), name, "is {}", v)


def undisturbed(at: Point, disturb: Callable[[Point, Pass], object], why: str) -> None:
    """Do something between forward and backward: output and gradients must stay the same."""
    run = at.run()
    disturb(at, run)
    wanted = {"output": at.output, **at.gradients}
    expect_same(at, {"output": run.y, **run.pull(at.dy)}, wanted, why)


def fill_gradients(at: Point, run: Pass) -> None:
    """Write ones into the gradients of the parameters."""
    for p in _parameters(at).values():
        p.grad[...] = 1


def run_on_half(at: Point, run: Pass) -> None:
    """Run another pass on half the input."""
    name, x = next(iter(at.tensors.items()))
    at.subject.run({**at.tensors, name: np.asarray(0.5 * x, x.dtype)})


def not_modified(at: Point) -> None:
    """Tensors, output, cotangent and NumPy's global random state are not modified."""
    before = np.random.get_state()  # noqa: NPY002 - only read
    run = at.run()
    run.pull(at.dy)
    after = np.random.get_state()  # noqa: NPY002 - only read
    wanted = {"output": run.y, "cotangent": at.dy, **at.tensors}
    for name, given in run.given.items():
        expect_all(at, _same(given, wanted[name]), name, "was modified in place")
    if at.subject.numpy_seed is None and not all(map(np.array_equal, before, after)):
        raise Broken("numpy.random's global state was used; keep a Generator", "output")


def any_layout(at: Point) -> None:
    """Other memory layouts of input and cotangent give the same gradients.

    Another layout is another order of summation, which decides at a kink or a near tie: the
    condition is broken only if it is at all of a few points nearby, and by more than rounding.
    """
    for layout in ("Fortran", "strided", "reversed"):
        layouts = dict.fromkeys((next(iter(at.tensors)), "cotangent"), LAYOUTS[layout])
        broken: list[Broken] = []
        for distance in (None, 0, 1e-4, 1e-3, 1e-2):
            point = at if distance is None else at.nearby(distance)
            rounded = () if distance is None else point.rounded_gradients
            got = at.subject.run(point.tensors, layouts).pull(at.dy)
            try:
                expect_same(at, got, point.gradients, "in another memory layout", rounded)
                break
            except Broken as error:
                broken.append(error)
        else:
            raise broken[0]


def multiple(at: Point, factor: float, why: str) -> None:
    """A multiple of the cotangent gives that of the gradient."""
    wanted = {name: factor * g for name, g in at.gradients.items()}
    expect_same(at, at.run().pull(factor * at.dy), wanted, why)


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
    wanted = {key: at.gradients[key] for key in at.subject.parameters}
    expect_same(at, found, wanted, "with input_grad=False")


def both_precisions(at: Point) -> None:
    """The value in the tensors' own dtype is that in float64."""
    expect_same(at, {"value": at.output}, {"value": at.wide_output}, "against float64")


def on_simplex(at: Point) -> None:
    """The output is never negative and sums to one."""
    p = at.output
    expect_all(at, ~(p < 0), "output", "= {:.4g} < 0", p)
    sums = p.sum(axis=at.subject.axis, dtype=np.float64)
    expect_same(at, {"output": sums}, {"output": np.ones_like(sums)}, "summed along the axis")


def shift_invariant(at: Point) -> None:
    """A constant added to the logits changes nothing, so each gradient sums to zero."""
    sums = at.gradients["z"].sum(axis=at.subject.axis)
    expect_same(at, {"z": sums}, {"z": np.zeros_like(sums)}, "gradient summed along the axis")


def _offered(at: Point, method: str) -> Callable[..., Array]:
    if not hasattr(at.subject.source, method):
        raise NothingToCheck("not offered")
    found: Callable[..., Array] = getattr(at.subject.source, method)
    return found


def jvp_agrees(at: Point) -> None:
    """``<dp, jvp(p, dz)> = <vjp(p, dp), dz>`` for a random ``dz``."""
    dz = np.asarray(at.settings.rng.standard_normal(at.dy.shape), at.dy.dtype)
    dp = _offered(at, "jvp")(at.run().y, dz, axis=at.subject.axis)
    sides = (np.asarray(np.vdot(*pair)) for pair in ((at.dy, dp), (at.gradients["z"], dz)))
    forward, backward = ({"z": side} for side in sides)
    expect_same(at, forward, backward, "<dp, jvp(p, dz)> against <vjp(p, dp), dz>")


def jacobian_agrees(at: Point) -> None:
    """The rows of ``jacobian(z)``, contracted with the cotangent, are the vjp."""
    arrays, axis = (at.dy, at.tensors["z"], at.gradients["z"]), at.subject.axis
    dp, z, want = (np.moveaxis(a, axis, -1) for a in arrays)
    dz = np.einsum("...i,...ij->...j", dp, _offered(at, "jacobian")(np.copy(z)))
    expect_same(at, {"z": dz}, {"z": want}, "by jacobian(z) against the vjp")


def larger(at: Point, factor: float) -> None:
    """The gradients are right at larger inputs."""
    moved = {name: factor * at.tensors[name] for name in _inputs(at)}
    other = Point(at.subject, {**at.tensors, **moved}, at.settings)
    if not np.isfinite(other.output).all() and np.isfinite(at.output).all():
        raise NothingToCheck("the output is not finite there")
    expect_right(at, other)


def rows(at: Point, k: int) -> None:
    """The gradients are right on the first k rows: of all inputs as long as the first, or of it.

    An input may have as many rows by chance.
    """
    inputs = _inputs(at)
    if not (inputs and at.subject.batch and len(at.tensors[inputs[0]]) >= k):
        raise NothingToCheck("not a batch of so many rows")
    given = {**{name: at.tensors[name] for name in inputs}, **at.subject.fixed}
    n = len(given[inputs[0]])
    try:
        _right_rows(at, k, [name for name, v in given.items() if np.ndim(v) and len(v) == n])
    except Broken:
        raise
    except Exception:
        _right_rows(at, k, inputs[:1])


def _right_rows(at: Point, k: int, names: Collection[str]) -> None:
    def first(values: Tensors) -> Tensors:
        return {name: v[:k] if name in names else v for name, v in values.items()}

    subject = copy.copy(at.subject)
    subject.fixed = dict(first(at.subject.fixed))
    with subject.preserved(at.settings.rng):
        expect_right(at, Point(subject, first(at.tensors), at.settings))


def used_twice(at: Point) -> None:
    """A pass at another input, before, changes nothing: no cache is stale."""
    subject, found = at.subject, list[dict[str, Array]]()
    if not isinstance(subject, LayerSubject):
        raise NothingToCheck("no object")
    other = {**at.tensors, **{name: -0.7 * at.tensors[name][::-1] for name in _inputs(at)}}
    for used in (True, False):
        with subject.one_object():
            if used:
                at.run().pull(at.dy)
            run = subject.run(other)
            found.append({"output": run.y, **run.pull(at.dy)})
    expect_same(at, found[0], found[1], "on an object that was used")


ALWAYS: dict[str, Check] = {
    "shape": lambda at: None,  # otherwise the pass has raised ContractError
    "dtype": dtype,
    "finite": finite,
    "repeatable": lambda at: undisturbed(at, lambda at, run: run.pull(at.dy), "when run again"),
    "not modified": not_modified,
    "any layout": any_layout,
}
CLIPS = "for twice the cotangent (if it clips gradients, give cotangent=1e-3)"
FUNCTION = ALWAYS | {
    "zero cotangent": lambda at: multiple(at, 0, "for a cotangent of zeros"),
    "twice the cotangent": lambda at: multiple(at, 2, CLIPS),
}
NOT_WRITTEN = "added to ones, or not written"
LAYER = FUNCTION | {
    "written, not added": lambda at: undisturbed(at, fill_gradients, NOT_WRITTEN),
    "passes in flight": lambda at: undisturbed(at, run_on_half, "after another pass"),
    "after a step": after_a_step,
    "input_grad=False": input_grad,
}
LOSS = ALWAYS | {"same value in float64": both_precisions}
MAP = FUNCTION | {
    "on the simplex": on_simplex,
    "shift-invariant": shift_invariant,
    "jvp": jvp_agrees,
    "jacobian": jacobian_agrees,
}
SWEEP: dict[str, Check] = {
    "4 times the input": lambda at: larger(at, 4),
    "16 times the input": lambda at: larger(at, 16),
    "one row": lambda at: rows(at, 1),
    "no rows": lambda at: rows(at, 0),
    "used twice": used_twice,
}


def unchecked_arrays(at: Point) -> Iterator[str]:
    """Yield the names of plain arrays in the layers, not declared, that change the output."""
    subject = at.subject
    if not isinstance(subject, LayerSubject):
        return
    own = [(p.value, p.grad) for p in subject.parameters.values()]
    seen = [array for pair in (*own, *subject.arrays.values()) for array in pair]
    for layer in subject.layers:
        adapted = isinstance(layer, Cached)
        owner, known = (layer.layer, layer.not_learned) if adapted else (layer, ())
        buffers = known or declared_buffers(owner) or ()
        for path, array in float_arrays(owner):
            if any(np.may_share_memory(array, other) for other in seen):
                continue
            seen.append(array)
            if array.flags.writeable and path not in buffers and _changes_output(at, array):
                yield path


def _changes_output(at: Point, array: Array) -> bool:
    """Return whether the output is another one with other values in the array."""
    content = array.copy()
    array[...] = 1.1 * content + 0.1
    try:
        y = at.run().y
        return y.shape != at.output.shape or not np.allclose(y, at.output, equal_nan=True)
    except Exception:
        return False
    finally:
        array[...] = content
