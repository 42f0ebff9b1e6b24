"""The report of a gradient check: a table, and a sentence that names the worst entry."""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

OK, KINK, KINKS, ROUNDING = "ok", "ok (kink)", "ok (several kinks)", "ok (rounding)"
FAILED, UNSURE = "FAILED", "cannot tell"

HIDDEN = "rounding hides the derivative, so the check cannot tell; give inputs of size 1 or float64"
NO_ENTRY = "wrong along a direction, but no entry was found whose error alone exceeds the tolerance"
UNCHECKED = (
    "plain arrays, not checked, that change the output; name them in Cached or make them Parameter"
)
TABLE = "tensor", "shape", "analytic", "numeric", "relative error", "verdict"


class GradientError(AssertionError):
    """A gradient check failed; the text is the whole report."""


OURS = str(Path(__file__).parents[1]), str(Path(np.__file__).parent), "<frozen", "<__array"
"""Files that hold no code of others. A cell of a notebook may be ``<ipython-input-3>``."""


def places(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the lines of the code that is checked on the way to an exception."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if not frame.filename.startswith(OURS)]


def raised(error: BaseException) -> str:
    """Return an exception as one line, with its place in the code that is checked."""
    text = " ".join(str(error).split())
    if not (frames := places(error)):
        return text
    last = frames[-1]
    place = f"{Path(last.filename).name}, line {last.lineno}, in {last.name}"
    return f"{type(error).__name__}: {text} ({place})"


class _Compared:
    analytic: float
    numeric: float

    @property
    def error(self) -> float:
        """The relative error ``|a - n| / max(|a|, |n|)``, and 0 where both are 0."""
        scale = max(abs(self.analytic), abs(self.numeric))
        return abs(self.analytic - self.numeric) / scale if scale else 0.0


@dataclass(frozen=True)
class Entry(_Compared):
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
        where = str(list(self.index)) if self.index else ""
        part = f"{self.searched} searched of " if self.searched < self.size else ""
        text = (
            f"{self.tensor}{where}: analytic {self.analytic:.4g}, numeric {self.numeric:.4g}, "
            f"relative error {self.error:.1e} "
            f"(the worst of {self.wrong} wrong among {part}{self.size})"
        )
        if self.ratio is not None:
            text += f"; all {self.wrong} are {self.ratio:.4g} times the numeric value"
        return text + "; right at points nearby: if kinks meet here, move x a little" * self.nearby


@dataclass(frozen=True)
class TensorCheck(_Compared):
    """Both derivatives of one tensor along a random direction: of several, the worst."""

    name: str
    shape: tuple[int, ...]
    analytic: float
    numeric: float
    verdict: str
    worst: Entry | None = None

    @property
    def failure(self) -> str:
        """The sentence that says what is wrong, empty if nothing is."""
        return str(self.worst or f"{self.name}: {NO_ENTRY}") if self.verdict == FAILED else ""


@dataclass(frozen=True)
class Condition:
    """The outcome of a side condition: what is wrong, or why there was nothing to check."""

    name: str
    problem: str | None = None
    tensor: str | None = None
    index: tuple[int, ...] | None = None
    skipped: str | None = None

    @property
    def verdict(self) -> str:
        """The words for the outcome."""
        if self.problem:
            return f"{FAILED}: {self.problem}"
        return f"- ({self.skipped})" if self.skipped else OK


def aligned(rows: Sequence[tuple[str, ...]], right: tuple[int, ...] = ()) -> list[str]:
    """Return rows as lines with columns of equal width, left-aligned except those in ``right``."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [f"{'>' if k in right else '<'}{width}" for k, width in enumerate(widths)]
    return ["  ".join(map(format, row, sides)).rstrip() for row in rows]


@dataclass(frozen=True)
class GradientReport:
    """The outcome of a gradient check: true if everything passed, a table when printed.

    It is false if something is wrong, and also if rounding hides an answer.

    Attributes
    ----------
    subject : str
    tensors : tuple of TensorCheck
        One for each input and each parameter.
    conditions : tuple of Condition
        The side conditions.
    slope : float
        The rate at which the remainder of the first-order Taylor expansion falls with the
        step, all tensors moving at once: 2 if the gradient is right, 1 if it is wrong, infinity
        if no remainder is above rounding. A slope of 1 that no kink explains is a doubt.
    doubts, notes : tuple of str
        Why the check as a whole cannot tell; what it could not see, or did differently.
    unchecked : tuple of str
        Arrays that look like parameters, since the output depends on them, and were not checked.
    """

    subject: str
    tensors: tuple[TensorCheck, ...]
    conditions: tuple[Condition, ...]
    slope: float
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.failures and not self.unsure

    @property
    def failures(self) -> tuple[str, ...]:
        """A sentence for each failure, those of the tensors first."""
        conditions = (f"{c.name}: {c.problem}" for c in self.conditions if c.problem)
        return (*(t.failure for t in self.tensors if t.failure), *conditions)

    @property
    def unsure(self) -> tuple[str, ...]:
        """A sentence for each tensor of which the check cannot tell, and the doubts."""
        hidden = (f"{t.name}: {HIDDEN}" for t in self.tensors if t.verdict == UNSURE)
        return (*hidden, *self.doubts)

    @property
    def verdict(self) -> str:
        """``"passed"``, ``"FAILED"`` or ``"cannot tell"``."""
        return FAILED if self.failures else UNSURE if self.unsure else "passed"

    def __getitem__(self, name: str) -> TensorCheck:
        """Return the line of the tensor ``name``; ``GradientError`` if none could be checked."""
        if not self.tensors:
            self.raise_if_failed()
        return {tensor.name: tensor for tensor in self.tensors}[name]

    def raise_if_failed(self) -> None:
        """Raise ``GradientError`` with the printed report unless everything passed."""
        __tracebackhide__ = True  # pytest shows the line of the test
        if not self:
            raise GradientError(f"\n{self}")

    def __str__(self) -> str:
        names = ", ".join(self.unchecked)
        but = f", but not checked: {names}" if names else ""
        lines = [f"{self.subject}: {self.verdict}{but}", ""]
        if self.tensors:
            rows = [TABLE]
            for t in self.tensors:
                sides = f"{t.analytic:.8g}", f"{t.numeric:.8g}", f"{t.error:.1e}"
                rows.append((t.name, str(t.shape), *sides, t.verdict))
            lines += [*aligned(rows, right=(2, 3, 4)), ""]
        outcomes = [(c.name, FAILED if c.problem else c.verdict) for c in self.conditions]
        if not math.isnan(self.slope):
            means = "nothing left: linear" if math.isinf(self.slope) else "2 when right"
            outcomes.append(("Taylor slope", f"{self.slope:.2f} ({means})"))
        unchecked = [f"{names}: {UNCHECKED}"] if names else []
        lines += [*aligned(outcomes), *(f"note: {note}" for note in (*self.notes, *unchecked))]
        return "\n".join(lines if self else [*lines, "", *self.failures, *self.unsure])

    def _repr_html_(self) -> str:
        """Return the printed report, with what is wrong in red."""
        lines = escape(str(self)).split("\n")
        wrong = {escape(text) for text in (*self.failures, *self.unsure)}
        for k, line in enumerate(lines):
            if line in wrong or FAILED in line or UNSURE in line:
                lines[k] = f'<span style="color:#b00020">{line}</span>'
        return "<pre>" + "\n".join(lines) + "</pre>"

    def to_json(self) -> dict[str, Any]:
        """Return the report as a dictionary for ``json.dump``; NaN and infinity are None."""
        names = "subject", "verdict", "notes", "unchecked", "failures", "unsure"
        found: dict[str, Any] = {name: getattr(self, name) for name in names}
        found |= {"passed": bool(self), "taylor_slope": self.slope}
        found["conditions"] = [asdict(c) | {"passed": not c.problem} for c in self.conditions]
        found["tensors"] = [
            asdict(t) | {"relative_error": t.error, "failure": t.failure} for t in self.tensors
        ]
        plain: dict[str, Any] = json.loads(json.dumps(found), parse_constant=lambda _: None)
        return plain

    def score(self, points: float = 1.0) -> float:
        """Return the points that are earned; print the report if these are not all.

        Each tensor and the side conditions together have equal parts. nbgrader takes the value of
        the last line of a cell as partial credit: ``check_layer(layer, x).score(5)``.
        """
        right = [t.verdict not in (FAILED, UNSURE) for t in self.tensors]
        right.append(not any(c.problem for c in self.conditions))
        if not self:
            print(self)
        return points * sum(right) / len(right)
