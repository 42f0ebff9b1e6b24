"""The report of a gradient check: a table, and a sentence that names the worst entry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minidl.testing import rendering
from minidl.typing import Array

OK, KINK, ROUNDING, FAILED = "ok", "ok (kink)", "ok (rounding)", "FAILED"
KINKS = "ok (several kinks)"


UNCHECKED = (
    "plain arrays, not checked as parameters, on which the output depends; make them "
    "minidl.Parameter, or name them in minidl.testing.Cached"
)


class GradientError(AssertionError):
    """A gradient check failed; the text is the whole report."""


class ContractError(TypeError, ValueError):
    """A result has the wrong type or shape, so that there is nothing to compare."""


def relative_error(analytic: float, numeric: float) -> float:
    """Return ``|a - n| / max(|a|, |n|)``, and 0 where both are 0."""
    scale = max(abs(analytic), abs(numeric))
    return abs(analytic - numeric) / scale if scale else 0.0


@dataclass(frozen=True)
class Entry:
    """A wrong entry of a tensor: the worst of ``wrong`` ones among ``searched``.

    ``nearby`` says that the gradient is right at points nearby; ``ratio`` is analytic / numeric
    if it is the same at all wrong entries.
    """

    tensor: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    wrong: int
    searched: int
    size: int
    nearby: bool = False
    ratio: float | None = None

    def __str__(self) -> str:
        where = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        of = f"{self.size}"
        if self.searched < self.size:
            of = f"{self.searched} searched of {self.size}"
        more = ""
        if self.ratio is not None:
            more = f"; all {self.wrong} are {self.ratio:.4g} times the numeric value"
        if self.nearby:
            more += "; right at points nearby: if kinks meet here, move x a little"
        return (
            f"{self.tensor}{where}: analytic {self.analytic:.4g}, numeric {self.numeric:.4g}, "
            f"relative error {relative_error(self.analytic, self.numeric):.1e} "
            f"(the worst of {self.wrong} wrong among {of}){more}"
        )


@dataclass(frozen=True)
class TensorCheck:
    """Both derivatives of one tensor along a random direction: of several, the worst.

    ``jacobians`` are the analytic and the numeric one, of a small tensor that is wrong.
    """

    name: str
    shape: tuple[int, ...]
    analytic: float
    numeric: float
    verdict: str
    worst: Entry | None = None
    jacobians: tuple[Array, Array] | None = field(default=None, repr=False, compare=False)

    @property
    def error(self) -> float:
        """The relative error."""
        return relative_error(self.analytic, self.numeric)

    @property
    def failure(self) -> str:
        """The sentence that says what is wrong, empty if nothing is."""
        if self.verdict != FAILED:
            return ""
        return str(
            self.worst
            or f"{self.name}: the derivative along a direction is wrong; no entry was found whose "
            "error alone exceeds the tolerance (or not within locate_seconds)"
        )


@dataclass(frozen=True)
class Condition:
    """The outcome of a side condition: ``problem`` says what is wrong, None if nothing is.

    ``skipped`` says why there was nothing to check.
    """

    name: str
    problem: str | None = None
    tensor: str | None = None
    index: tuple[int, ...] | None = None
    skipped: str | None = None

    @property
    def verdict(self) -> str:
        """The word in the table."""
        if self.skipped:
            return f"- ({self.skipped})"
        return f"{FAILED}: {self.problem}" if self.problem else OK


@dataclass(frozen=True)
class GradientReport:
    """The outcome of a gradient check: true if everything passed, a table when printed.

    Attributes
    ----------
    subject : str
        The object that was checked.
    tensors : tuple of TensorCheck
        One for the input and one for each parameter.
    conditions : tuple of Condition
        One for each side condition.
    slope : float
        The rate at which the remainder of the first-order Taylor expansion falls with the
        step, all tensors moving at once: 2 if the gradient is right, 1 if it is wrong, infinity
        if no remainder is above rounding (a linear function). It needs no tolerance, but does
        not enter the verdict: a kink within the step changes it.
    notes : tuple of str
        What the check could not see, or did differently.
    unchecked : tuple of str
        Arrays that look like parameters, since the output depends on them, and were not checked.
    """

    subject: str
    tensors: tuple[TensorCheck, ...]
    conditions: tuple[Condition, ...]
    slope: float
    notes: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """A sentence for each failure, those of the tensors first."""
        conditions = (f"{c.name}: {c.problem}" for c in self.conditions if c.problem)
        return (*(t.failure for t in self.tensors if t.failure), *conditions)

    def __getitem__(self, name: str) -> TensorCheck:
        """Return the line of the tensor ``name``."""
        return {tensor.name: tensor for tensor in self.tensors}[name]

    def raise_if_failed(self) -> None:
        """Raise ``GradientError`` with the printed report if anything failed."""
        __tracebackhide__ = True  # pytest shows the line of the test
        if not self:
            raise GradientError(f"\n{self}")

    def __str__(self) -> str:
        tensors = [("tensor", "shape", "analytic", "numeric", "relative error", "verdict")]
        for t in self.tensors:
            sides = f"{t.analytic:.8g}", f"{t.numeric:.8g}", f"{t.error:.1e}"
            tensors.append((t.name, str(t.shape), *sides, t.verdict))
        conditions = [(c.name, c.verdict) for c in self.conditions]
        if not math.isnan(self.slope):
            means = "nothing left: linear" if math.isinf(self.slope) else "2 when right"
            conditions.append(("Taylor slope", f"{self.slope:.2f} ({means})"))
        notes = [f"note: {note}" for note in self.all_notes]
        worst = [t.failure for t in self.tensors if t.failure]
        return "\n".join(
            [
                *(f"{self.subject}: {self.verdict}", ""),
                *((*aligned(tensors, right=(2, 3, 4)), "") if self.tensors else ()),
                *(*aligned(conditions), *notes),
                *(["", *worst] if worst else []),
            ]
        )

    @property
    def all_notes(self) -> tuple[str, ...]:
        """The notes, with one about the arrays that were not checked."""
        if not self.unchecked:
            return self.notes
        return (*self.notes, f"{', '.join(self.unchecked)}: {UNCHECKED}")

    def to_json(self) -> dict[str, Any]:
        """Return the report as a dictionary for ``json.dump``."""
        return rendering.to_json(self)

    def to_gradescope(
        self, points: float | Mapping[str, float] = 1.0, conditions: float = 0.0
    ) -> dict[str, Any]:
        """Return the dictionary for Gradescope's ``results.json``: points for each tensor.

        See ``minidl.testing.rendering.to_gradescope``.
        """
        return rendering.to_gradescope(self, points, conditions)

    def _repr_html_(self) -> str:
        return rendering.to_html(self)

    @property
    def verdict(self) -> str:
        """The word in the first line, with the arrays that were not checked."""
        word = "passed" if self else FAILED
        return f"{word}, but not checked: {', '.join(self.unchecked)}" if self.unchecked else word


def aligned(rows: Sequence[tuple[str, ...]], right: tuple[int, ...] = ()) -> list[str]:
    """Return rows as lines with columns of equal width, left-aligned except those in ``right``."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if k in right else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
