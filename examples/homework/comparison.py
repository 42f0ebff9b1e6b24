"""Comparison with published accuracies, read from CSV files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

AXES = {"hidden_size": "width"}
"""Axes of our grids by their column in the files, where the names differ."""
FEATURES = {"downsampled": "pool"}
"""Our names of features by those of the files, where they differ."""

Key = tuple[float | str, ...]


@dataclass(frozen=True)
class Comparison:
    """Published validation accuracies by some axes of a grid."""

    file: str
    axes: tuple[str, ...]
    valid: Mapping[Key, float]

    def key(self, point: Mapping[str, Any]) -> Key:
        """Return the values of a point on the axes of the file."""
        return tuple(_value(point[name]) for name in self.axes)

    def of(self, points: Sequence[Mapping[str, Any]], ours: Sequence[float]) -> list[float | None]:
        """Return the published accuracy beside each point, None where there is none.

        Where the file lacks axes on which the points differ, it is beside the best of the points
        that agree on the axes of the file; ``ours`` are the accuracies of the points.
        """
        best: dict[Key, int] = {}
        for i, point in enumerate(points):
            key = self.key(point)
            if key not in best or ours[i] > ours[best[key]]:
                best[key] = i
        return [
            self.valid.get(self.key(point)) if best[self.key(point)] == i else None
            for i, point in enumerate(points)
        ]

    def summary(self, points: Sequence[Mapping[str, Any]], ours: Sequence[float]) -> str:
        """Return what is compared, and the mean absolute difference."""
        gaps = [
            abs(theirs - mine)
            for theirs, mine in zip(self.of(points, ours), ours, strict=True)
            if theirs is not None
        ]
        mean = f"{np.mean(gaps):.4f}" if gaps else "no run in common"
        lacking = [name for name in points[0] if name not in self.axes]
        open_axes = [name for name in lacking if len({str(p[name]) for p in points}) > 1]
        words = f"{self.file} is matched by {', '.join(self.axes)}"
        if lacking:
            words += f"; it does not give {', '.join(lacking)}"
        if open_axes:
            words += f", so the best of our runs over {', '.join(open_axes)} is compared"
        return (
            f"{words}\n"
            f"mean absolute difference from the published accuracies: {mean} ({len(gaps)} runs)"
        )


def read_published(
    path: Path, *, required: Sequence[str], optional: Sequence[str] = ()
) -> Comparison:
    """Read the CSV file of a report; the columns are named as in the file."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        found = list(reader.fieldnames or ())
        missing = [k for k in (*required, "best_valid_acc") if k not in found]
        if missing:
            present = ", ".join(found) or "nothing"
            raise ValueError(f"{path}: missing columns {', '.join(missing)}; found {present}")
        columns = [*required, *(name for name in optional if name in found)]
        valid = {}
        for row in reader:
            try:
                key = tuple(_value(row[name]) for name in columns)
                valid[key] = float(row["best_valid_acc"])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    return Comparison(path.name, tuple(AXES.get(name, name) for name in columns), valid)


def _value(value: object) -> float | str:
    """Return a number as a float, and other text in our spelling."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return FEATURES.get(str(value), str(value))
