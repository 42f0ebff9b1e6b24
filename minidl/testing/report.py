"""What a gradient check found: a table, and the sentence that names the worst entry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

OK, KINK, ROUNDING, FAILED = "ok", "ok (kink)", "ok (rounding)", "FAILED"


class GradientError(AssertionError):
    """A gradient check failed; the text is the whole report."""


class ContractError(TypeError, ValueError):
    """What came back has the wrong type or shape, so there is nothing to compare."""


def relative_error(analytic: float, numeric: float) -> float:
    """``|a - n| / max(|a|, |n|)``, and 0 where both are 0."""
    scale = max(abs(analytic), abs(numeric))
    return abs(analytic - numeric) / scale if scale else 0.0


@dataclass(frozen=True)
class Entry:
    """One wrong entry of a tensor: the worst of ``wrong`` among ``searched``."""

    tensor: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    wrong: int
    searched: int
    size: int

    def __str__(self) -> str:
        where = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        of = f"{self.size}" if self.searched == self.size else f"{self.searched} searched"
        return (
            f"{self.tensor}{where}: analytic {self.analytic:.4g}, numeric {self.numeric:.4g}, "
            f"relative error {relative_error(self.analytic, self.numeric):.1e} "
            f"(the worst of {self.wrong} wrong among {of})"
        )


@dataclass(frozen=True)
class TensorCheck:
    """The derivative along one random direction of one tensor, from both sides.

    Of several directions, the one that fits worst.
    """

    name: str
    shape: tuple[int, ...]
    analytic: float
    numeric: float
    verdict: str
    worst: Entry | None = None

    @property
    def error(self) -> float:
        """The relative error."""
        return relative_error(self.analytic, self.numeric)


@dataclass(frozen=True)
class Condition:
    """A side condition by its name, and what is wrong with it, if anything is."""

    name: str
    problem: str | None = None
    tensor: str | None = None
    index: tuple[int, ...] | None = None
    skipped: str | None = None
    """Why there was nothing to check."""

    @property
    def verdict(self) -> str:
        if self.skipped:
            return f"- ({self.skipped})"
        return f"{FAILED}: {self.problem}" if self.problem else OK


@dataclass(frozen=True)
class GradientReport:
    """The outcome of a gradient check: true when everything passed, a table when printed.

    Attributes
    ----------
    subject : str
        What was checked.
    tensors : tuple of TensorCheck
        One for the input and one for each parameter.
    conditions : tuple of Condition
        One for each side condition.
    slope : float
        How fast the remainder of the first-order Taylor expansion falls with the step, all
        tensors moving at once: 2 when the gradient is right, 1 when it is not, and infinity
        where there is no remainder above rounding, as for a linear function. A second
        opinion that needs no tolerance; it does not enter the verdict, because a kink
        within the step bends it.
    notes : tuple of str
        What the check could not see.
    """

    subject: str
    tensors: tuple[TensorCheck, ...]
    conditions: tuple[Condition, ...]
    slope: float = math.nan
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """A sentence for each failure, those of the tensors first."""
        tensors = [
            str(t.worst) if t.worst else f"{t.name}: the derivative along a direction is wrong"
            for t in self.tensors
            if t.verdict == FAILED
        ]
        return (*tensors, *(f"{c.name}: {c.problem}" for c in self.conditions if c.problem))

    def __getitem__(self, name: str) -> TensorCheck:
        """The line of one tensor, by its name."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise KeyError(name)

    def raise_if_failed(self) -> None:
        """Raise ``GradientError`` with the printed report, unless all passed."""
        if not self:
            raise GradientError(f"\n{self}")

    def __str__(self) -> str:
        head = ("tensor", "shape", "analytic", "numeric", "relative error", "verdict")
        tensors = [
            (t.name, str(t.shape), f"{t.analytic:.8g}", f"{t.numeric:.8g}", f"{t.error:.1e}",
             t.verdict)
            for t in self.tensors
        ]  # fmt: skip
        conditions = [(c.name, c.verdict) for c in self.conditions]
        if not math.isnan(self.slope):
            means = "nothing left: linear" if math.isinf(self.slope) else "2 when right"
            conditions.append(("Taylor slope", f"{self.slope:.2f} ({means})"))
        notes = [f"note: {note}" for note in self.notes]
        worst = [str(t.worst) for t in self.tensors if t.worst]
        return "\n".join(
            [
                f"{self.subject}: {'passed' if self else FAILED}",
                "",
                *aligned([head, *tensors], right=(2, 3, 4)),
                "",
                *aligned(conditions),
                *notes,
                *(["", *worst] if worst else []),
            ]
        )


def aligned(rows: Sequence[tuple[str, ...]], right: tuple[int, ...] = ()) -> list[str]:
    """Rows as lines with columns of equal width, flush left but for those in ``right``."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:>{w}}" if k in right else f"{cell:<{w}}"
            for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
