"""The report of a gradient check: a table, and a sentence that names the worst entry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.checks import Array

if TYPE_CHECKING:
    pass


OK, KINK, ROUNDING, FAILED = "ok", "ok (kink)", "ok (rounding)", "FAILED"
KINKS = "ok (several kinks)"


UNCHECKED = (
    "plain arrays, not checked as parameters, on which the output depends; make them "
    "minidl.Parameter, or name them in minidl.testing.cached.Cached"
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
        return to_json(self)

    def to_gradescope(
        self, points: float | Mapping[str, float] = 1.0, conditions: float = 0.0
    ) -> dict[str, Any]:
        """Return the dictionary for Gradescope's ``results.json``: points for each tensor.

        See ``minidl.testing.report.to_gradescope``.
        """
        return to_gradescope(self, points, conditions)

    def _repr_html_(self) -> str:
        return to_html(self)

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


RED = "#b00020"
CELL = 9
"""The side of an entry in a picture, in pixels."""


def to_json(report: GradientReport) -> dict[str, Any]:
    """Return the report as numbers, strings, lists and dictionaries; no NaN or infinity."""
    return {
        "subject": report.subject,
        "passed": bool(report),
        "tensors": [_tensor(t) for t in report.tensors],
        "conditions": [
            {
                "name": c.name,
                "passed": c.problem is None,
                "problem": c.problem,
                "skipped": c.skipped,
            }
            for c in report.conditions
        ],
        "taylor_slope": _number(report.slope),
        "notes": list(report.notes),
        "unchecked": list(report.unchecked),
        "failures": list(report.failures),
    }


def to_gradescope(
    report: GradientReport, points: float | Mapping[str, float] = 1.0, conditions: float = 0.0
) -> dict[str, Any]:
    """Return the dictionary that Gradescope reads from ``results.json``.

    Parameters
    ----------
    report : GradientReport
    points : float or mapping
        For each tensor whose gradient is right; a mapping gives them by the tensor's name, and
        tensors that it does not name have none.
    conditions : float
        For the side conditions together, in equal parts. Those that were left out or did not
        apply do not count.
    """
    tests = []
    for t in report.tensors:
        most = points.get(t.name, 0.0) if isinstance(points, Mapping) else points
        text = t.failure or f"the gradient of {t.name} is right"
        tests.append(_graded(f"gradient of {t.name}", not t.failure, most, text))
    counted = [c for c in report.conditions if not c.skipped]
    for c in counted:
        tests.append(_graded(c.name, not c.problem, conditions / len(counted), c.problem or "ok"))
    return {"tests": tests, "output": str(report)}


def to_html(report: GradientReport) -> str:
    """Return the report as tables, with the wrong entries and pictures of their Jacobians."""
    color, verdict = "inherit" if report else RED, escape(report.verdict)
    rows = [_row(("tensor", "shape", "analytic", "numeric", "relative error", "verdict"), "th")]
    for t in report.tensors:
        sides = f"{t.analytic:.8g}", f"{t.numeric:.8g}", f"{t.error:.1e}"
        cells = t.name, str(t.shape), *sides, t.verdict
        rows.append(_row(cells, "td", RED if t.failure else ""))
        if t.failure:
            rows.append(f'<tr><td colspan="6" style="color:{RED}">{escape(t.failure)}</td></tr>')
    lines = [_row((c.name, c.verdict), "td", RED if c.problem else "") for c in report.conditions]
    return "".join(
        [
            f'<p style="color:{color}"><b>{escape(report.subject)}: {verdict}</b></p>',
            f"<table>{''.join(rows)}</table>" if report.tensors else "",
            *(picture(t) for t in report.tensors),
            f"<table>{''.join(lines)}</table>",
            *(f"<p>{escape(note)}</p>" for note in report.all_notes),
        ]
    )


def picture(tensor: TensorCheck) -> str:
    """Return the analytic, the numeric and the wrong part of a small Jacobian, side by side."""
    if tensor.jacobians is None:
        return ""
    analytic, numeric = tensor.jacobians
    scale = max(float(np.nanmax(np.abs(tensor.jacobians), initial=0)), 1e-300)
    wrong = analytic - numeric
    parts = ("analytic", analytic), ("numeric", numeric), ("difference", wrong)
    pictures = "".join(
        f'<td style="vertical-align:top">{title}<br/>{_squares(j / scale)}</td>'
        for title, j in parts
    )
    caption = f"Jacobian of {escape(tensor.name)}: a row for each output, a column for each entry"
    return f"<p>{caption}</p><table><tr>{pictures}</tr></table>"


def _squares(matrix: Array) -> str:
    """Return an SVG with a square for each entry from -1 (blue) to 1 (red)."""
    squares = []
    for (i, j), value in np.ndenumerate(matrix):
        shade = 255 if not math.isfinite(value) else round(255 * (1 - min(abs(value), 1)))
        color = f"rgb(255,{shade},{shade})" if value > 0 else f"rgb({shade},{shade},255)"
        color = color if math.isfinite(value) else "black"
        squares.append(
            f'<rect x="{CELL * j}" y="{CELL * i}" width="{CELL}" height="{CELL}" fill="{color}"/>'
        )
    height, width = (CELL * n for n in matrix.shape)
    return f'<svg width="{width}" height="{height}">{"".join(squares)}</svg>'


def _row(cells: tuple[str, ...], tag: str, color: str = "") -> str:
    style = f' style="color:{color}"' if color else ""
    return f"<tr{style}>{''.join(f'<{tag}>{escape(c)}</{tag}>' for c in cells)}</tr>"


def _graded(name: str, passed: bool, most: float, output: str) -> dict[str, Any]:
    score = round(most, 6) if passed else 0.0
    status = "passed" if passed else "failed"
    return {
        "name": name, "score": score, "max_score": round(most, 6), "status": status,
        "output": output,
    }  # fmt: skip


def _tensor(t: TensorCheck) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": t.name, "shape": list(t.shape), "analytic": _number(t.analytic),
        "numeric": _number(t.numeric), "relative_error": _number(t.error), "verdict": t.verdict,
        "failure": t.failure, "worst": None,
    }  # fmt: skip
    if t.worst:
        w = t.worst
        found["worst"] = {
            "index": list(w.index), "analytic": _number(w.analytic), "numeric": _number(w.numeric),
            "wrong": w.wrong, "searched": w.searched, "size": w.size,
        }  # fmt: skip
    return found


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
