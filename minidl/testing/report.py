"""The report of a gradient check: a table, and a sentence that names the worst entry."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

OK, KINK, ROUNDING, FAILED = "ok", "ok (kink)", "ok (rounding)", "FAILED"
KINKS, UNSURE = "ok (several kinks)", "cannot tell"

HIDDEN = (
    "rounding hides the derivative, so the check cannot tell; give other inputs (numbers of size "
    "1), arrays of float64, or outputs without a large constant"
)
NO_ENTRY = (
    "the derivative along a direction is wrong; no entry was found whose error alone exceeds the "
    "tolerance (or not within locate_seconds)"
)
UNCHECKED = (
    "plain arrays, not checked as parameters, on which the output depends; make them "
    "minidl.Parameter, or name them in minidl.testing.Cached"
)
RED = "#b00020"


class GradientError(AssertionError):
    """A gradient check failed; the text is the whole report."""


def relative_error(analytic: float, numeric: float) -> float:
    """Return ``|a - n| / max(|a|, |n|)``, and 0 where both are 0."""
    scale = max(abs(analytic), abs(numeric))
    return abs(analytic - numeric) / scale if scale else 0.0


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
        part = f"{self.searched} searched of " if self.searched < self.size else ""
        more = ""
        if self.ratio is not None:
            more = f"; all {self.wrong} are {self.ratio:.4g} times the numeric value"
        if self.nearby:
            more += "; right at points nearby: if kinks meet here, move x a little"
        return (
            f"{self.tensor}{where}: analytic {self.analytic:.4g}, numeric {self.numeric:.4g}, "
            f"relative error {relative_error(self.analytic, self.numeric):.1e} "
            f"(the worst of {self.wrong} wrong among {part}{self.size}){more}"
        )


@dataclass(frozen=True)
class TensorCheck:
    """Both derivatives of one tensor along a random direction: of several, the worst."""

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

    @property
    def failure(self) -> str:
        """The sentence that says what is wrong, empty if nothing is."""
        if self.verdict != FAILED:
            return ""
        return str(self.worst) if self.worst else f"{self.name}: {NO_ENTRY}"

    @property
    def doubt(self) -> str:
        """The sentence that says why the check cannot tell, empty if it can."""
        return f"{self.name}: {HIDDEN}" if self.verdict == UNSURE else ""


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


def aligned(rows: Sequence[tuple[str, ...]], right: tuple[int, ...] = ()) -> list[str]:
    """Return rows as lines with columns of equal width, left-aligned except those in ``right``."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        padded = [f"{c:>{w}}" if k in right else f"{c:<{w}}" for k, (c, w) in enumerate(cells)]
        lines.append("  ".join(padded).rstrip())
    return lines


@dataclass(frozen=True)
class GradientReport:
    """The outcome of a gradient check: true if everything passed, a table when printed.

    It is false if something is wrong, and also if rounding hides an answer.

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
        if no remainder is above rounding (a linear function). It needs no tolerance. A slope of 1
        that no kink explains is a doubt.
    doubts : tuple of str
        Why the check as a whole cannot tell.
    notes : tuple of str
        What the check could not see, or did differently.
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
        return (*(t.doubt for t in self.tensors if t.doubt), *self.doubts)

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

    def _lines(self) -> Iterator[tuple[str, bool]]:
        """Yield the lines of the report, and whether each says that something is wrong."""
        but = f", but not checked: {', '.join(self.unchecked)}" if self.unchecked else ""
        yield f"{self.subject}: {self.verdict}{but}", not self
        yield "", False
        table = [("tensor", "shape", "analytic", "numeric", "relative error", "verdict")]
        for t in self.tensors:
            sides = f"{t.analytic:.8g}", f"{t.numeric:.8g}", f"{t.error:.1e}"
            table.append((t.name, str(t.shape), *sides, t.verdict))
        if self.tensors:
            wrong = [False, *(bool(t.failure or t.doubt) for t in self.tensors)]
            yield from zip(aligned(table, right=(2, 3, 4)), wrong, strict=True)
            yield "", False
        conditions = [(c.name, FAILED if c.problem else c.verdict) for c in self.conditions]
        if not math.isnan(self.slope):
            means = "nothing left: linear" if math.isinf(self.slope) else "2 when right"
            conditions.append(("Taylor slope", f"{self.slope:.2f} ({means})"))
        for line, (_, verdict) in zip(aligned(conditions), conditions, strict=True):
            yield line, verdict.startswith(FAILED)
        unchecked = [f"{', '.join(self.unchecked)}: {UNCHECKED}"] if self.unchecked else []
        yield from ((f"note: {note}", False) for note in (*self.notes, *unchecked))
        if not self:
            yield "", False
            yield from ((sentence, True) for sentence in (*self.failures, *self.unsure))

    def __str__(self) -> str:
        return "\n".join(line for line, _ in self._lines())

    def _repr_html_(self) -> str:
        """Return the printed report, with what is wrong in red."""
        lines = [
            f'<span style="color:{RED}">{escape(line)}</span>' if wrong else escape(line)
            for line, wrong in self._lines()
        ]
        return "<pre>" + "\n".join(lines) + "</pre>"

    def to_json(self) -> dict[str, Any]:
        """Return the report as a dictionary for ``json.dump``; NaN and infinity are None."""
        names = "subject", "verdict", "notes", "unchecked", "failures", "unsure"
        found: dict[str, Any] = {name: getattr(self, name) for name in names}
        found["passed"], found["taylor_slope"] = bool(self), self.slope
        found["conditions"] = [asdict(c) | {"passed": not c.problem} for c in self.conditions]
        found["tensors"] = [
            asdict(t) | {"relative_error": t.error, "failure": t.failure} for t in self.tensors
        ]
        return {name: _plain(value) for name, value in found.items()}

    def score(self, points: float = 1.0) -> float:
        """Return the points that are earned; print the report if these are not all.

        Each tensor and the side conditions together have equal parts. nbgrader takes the value of
        the last line of a cell as partial credit: ``check_layer(layer, x).score(5)``.
        """
        right = [not (t.failure or t.doubt) for t in self.tensors]
        right.append(not any(c.problem for c in self.conditions))
        if not self:
            print(self)
        return points * sum(right) / len(right)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
