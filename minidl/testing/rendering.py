"""Other forms of a report: HTML for notebooks, JSON, and the results file of Gradescope."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.typing import Array

if TYPE_CHECKING:
    from minidl.testing.report import GradientReport, TensorCheck

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
