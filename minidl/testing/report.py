"""What a gradient check found: a table, and the sentence that names the worst entry."""

from __future__ import annotations

import math
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
        rows = [("tensor", "shape", "analytic", "numeric", "relative error", "verdict")]
        rows += [
            (t.name, str(t.shape), f"{t.analytic:.8g}", f"{t.numeric:.8g}", f"{t.error:.1e}",
             t.verdict)
            for t in self.tensors
        ]  # fmt: skip
        names = max(len(c.name) for c in self.conditions)
        widths = [max(len(row[k]) for row in rows) for k in range(6)]
        widths[0] = max(widths[0], names)
        lines = [f"{self.subject}: {'passed' if self else 'FAILED'}", ""]
        for name, shape, *numbers, verdict in rows:
            cells = [f"{cell:>{w}}" for cell, w in zip(numbers, widths[2:5], strict=True)]
            left = f"{name:<{widths[0]}}  {shape:<{widths[1]}}"
            lines.append(f"{left}  {'  '.join(cells)}  {verdict}")
        lines.append("")
        for c in self.conditions:
            lines.append(f"{c.name:<{widths[0]}}  {c.verdict}")
        if not math.isnan(self.slope):
            kind = "no remainder: linear" if math.isinf(self.slope) else "2 when right, 1 when not or at a kink"
            lines.append(f"{'Taylor slope':<{widths[0]}}  {self.slope:.2f} ({kind})")
        lines += [f"note: {note}" for note in self.notes]
        worst = [str(t.worst) for t in self.tensors if t.worst]
        return "\n".join([*lines, *([""] if worst else []), *worst])
