"""Conditions at other inputs: larger ones, one row, no rows, and the same object twice."""

from __future__ import annotations

import numpy as np

from minidl.testing.conditions import Broken, Check, NothingToCheck, expect_same
from minidl.testing.gradients import Linearization, cotangent
from minidl.testing.report import FAILED
from minidl.testing.subjects import Subject, Tensors


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
