"""The examples of one part of a data set: kept as on disk, converted to floats in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minidl.data.arrays import as_features, as_targets, as_weights
from minidl.typing import Array
from minidl.validation import check_finite, check_float

CHUNK = 512
"""Rows that are converted at a time when all rows are read in order: so few that they and the
units of a small network stay in cache."""


@dataclass(frozen=True, eq=False)
class Split:
    """The examples of one part of a data set.

    Parameters
    ----------
    x : array, shape (n, features), uint8 or float
        As on disk; ``rows`` converts a batch to floats and multiplies it by ``scale``.
    y : array, shape (n,) or (n, d)
        Whatever the loss takes: classes, numbers, several labels, distributions.
    scale : float
    file : Path, optional
        The ``.npy`` file whose first rows ``x`` maps into memory. A split with a file is pickled
        as the file's name, so that several processes share one copy of the pixels.
    weight : array, shape (n,), optional
        The weight of each example in the loss and its figures.
    """

    x: Array
    y: Array
    scale: float
    file: Path | None = None
    weight: Array | None = None

    @classmethod
    def mapped(cls, file: Path, y: Array, scale: float, weight: Array | None = None) -> Split:
        """Return the split whose ``x`` maps the first ``len(y)`` rows of a ``.npy`` file."""
        return cls(np.load(file, mmap_mode="r")[: len(y)], y, scale, file, weight)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.file is not None:
            return Split.mapped, (self.file, self.y, self.scale, self.weight)
        return Split, (self.x, self.y, self.scale, None, self.weight)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def counted(self) -> Array:
        """The positions of the examples that count in training: those whose weight is not 0."""
        return np.arange(len(self)) if self.weight is None else np.flatnonzero(self.weight)

    def targets(self, index: Array | slice = slice(None)) -> tuple[Array, ...]:
        """Return what a loss takes after the outputs: ``(y,)``, or ``(y, weight)``."""
        if self.weight is None:
            return (self.y[index],)
        return self.y[index], self.weight[index]

    def rows(
        self, index: Array | slice, dtype: DTypeLike = np.float32, out: Array | None = None
    ) -> Array:
        """Return ``x[index] * scale`` as ``dtype``, or in ``out`` and its dtype."""
        x = self.x[index]
        if out is not None:  # in one pass, since it may be a part of longer rows
            return np.multiply(x, self.scale, out=out, dtype=out.dtype, casting="unsafe")
        out = np.array(x, dtype=dtype)
        if self.scale != 1:
            out *= self.scale
        return out

    def batches(
        self, batch_size: int, rng: np.random.Generator, dtype: DTypeLike = np.float32
    ) -> Iterator[tuple[Array, ...]]:
        """Yield every example once, in random order; the last batch may be smaller.

        A batch is ``x, y``, or ``x, y, weight`` if the examples have weights; those of weight 0
        are left out.
        """
        rows = self.counted
        order = rows[rng.permutation(len(rows))]
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            yield self.rows(index, dtype), *self.targets(index)

    def chunks(self, dtype: DTypeLike = np.float32) -> Iterator[Array]:
        """Yield all rows in order, ``CHUNK`` at a time."""
        for start in range(0, len(self), CHUNK):
            yield self.rows(slice(start, start + CHUNK), dtype)

    def __repr__(self) -> str:
        n, features = self.x.shape
        weights = "" if self.weight is None else ", weighted"
        x, y = f"x {self.x.dtype}", f"y {self.y.dtype} {self.y.shape}"
        return f"Split({n:,} examples, {features} features; {x}, {y}{weights})"


Part = Split | tuple[Array, Array] | tuple[Array, Array, Array]
"""A part of a data set: a split, ``(x, y)`` or ``(x, y, weight)``."""


def as_split(owner: str, part: Part, scale: float | None = None) -> Split:
    """Return one part of a data set, with its arrays checked and converted."""
    if isinstance(part, Split):
        return part
    if not isinstance(part, (tuple, list)) or len(part) not in (2, 3):
        raise TypeError(f"{owner}: expected (x, y), (x, y, weight) or a Split, got {part!r:.80}")
    x, y, *weight = part
    x, y = as_features(owner, x), as_targets(owner, y)
    if len(x) != len(y):
        raise ValueError(f"{owner}: expected as many rows in x and y, got {len(x)} and {len(y)}")
    if len(x) == 0:
        raise ValueError(f"{owner}: expected at least one example, got x {x.shape}")
    weights = as_weights(owner, weight[0], len(x)) if weight and weight[0] is not None else None
    return Split(x, y, pixel_scale(owner, x, scale), weight=weights)


TrainedOn = tuple[bool, float]
"""Whether a model was trained on uint8 pixels, and the factor of its rows."""


def as_rows(owner: str, x: object, trained_on: TrainedOn | None = None) -> Split:
    """Return rows without targets, (n, features), scaled as the rows of the training were.

    Without ``trained_on`` uint8 is multiplied by 1/256, as in a data set. Floats for a model that
    was trained on pixels are taken as scaled already.

    Raises
    ------
    ValueError
        If ``x`` has NaN or infinity; if the model was trained on pixels and ``x`` has floats that
        are larger than these.
    """
    if isinstance(x, Split):
        return x
    rows = as_features(owner, x)
    check_finite(owner, "features", "x", rows)
    pixels, scale = trained_on or (True, pixel_scale(owner, rows, None))
    if pixels and rows.dtype != np.uint8:
        if trained_on and rows.size and rows.max() > 256 * scale:
            raise ValueError(
                f"{owner}: the model was trained on uint8 pixels times {scale:g}; expected uint8 "
                f"rows or rows in 0..{255 * scale:g}, got {rows.dtype} up to {rows.max():g}"
            )
        scale = 1.0
    return Split(rows, np.empty((len(rows), 0)), scale)


def pixel_scale(owner: str, x: Array, scale: float | None) -> float:
    """Return the factor for rows: as given, or else 1/256 for uint8 and 1 for floats."""
    if scale is None:
        return 1 / 256 if x.dtype == np.uint8 else 1.0
    return check_float(owner, "scale", scale)
