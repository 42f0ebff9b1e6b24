"""Data sets: checked once, kept as they are on disk, converted to floats batch by batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minidl.files import write_rows
from minidl.typing import Array
from minidl.validation import check_float, check_int

CHUNK = 4096
"""Rows that are converted at a time when all rows are read in order."""


@dataclass(frozen=True, eq=False)
class Split:
    """The examples of one part of a data set.

    Parameters
    ----------
    x : array, shape (n, features), uint8 or float
        As on disk; ``rows`` converts a batch to floats and multiplies it by ``scale``.
    y : array, shape (n,)
    scale : float
    file : Path, optional
        The ``.npy`` file whose first rows ``x`` maps into memory. A split with a file is pickled
        as the file's name, so that several processes share one copy of the pixels.
    """

    x: Array
    y: Array
    scale: float
    file: Path | None = None

    @classmethod
    def mapped(cls, file: Path, y: Array, scale: float) -> Split:
        """Return the split whose ``x`` maps the first ``len(y)`` rows of a ``.npy`` file."""
        return cls(np.load(file, mmap_mode="r")[: len(y)], y, scale, file)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.file is not None:
            return Split.mapped, (self.file, self.y, self.scale)
        return Split, (self.x, self.y, self.scale)

    def __len__(self) -> int:
        return len(self.y)

    def rows(
        self, index: Array | slice, dtype: DTypeLike = np.float32, out: Array | None = None
    ) -> Array:
        """Return ``x[index] * scale`` as ``dtype``, or in ``out`` and its dtype."""
        if out is None:
            out = np.array(self.x[index], dtype=dtype)
        else:
            out[...] = self.x[index]
        if self.scale != 1:
            out *= self.scale
        return out

    def batches(
        self, batch_size: int, rng: np.random.Generator, dtype: DTypeLike = np.float32
    ) -> Iterator[tuple[Array, Array]]:
        """Yield every example once, in random order; the last batch may be smaller."""
        order = rng.permutation(len(self))
        for start in range(0, len(self), batch_size):
            index = order[start : start + batch_size]
            yield self.rows(index, dtype), self.y[index]

    def chunks(self, dtype: DTypeLike = np.float32) -> Iterator[Array]:
        """Yield all rows in order, ``CHUNK`` at a time."""
        for start in range(0, len(self), CHUNK):
            yield self.rows(slice(start, start + CHUNK), dtype)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Dataset:
    """A training part and, optionally, a validation and a test part.

    Parameters
    ----------
    train, valid, test : (x, y) or Split
        ``x`` is ``(n, features)``, or images ``(n, height, width, ...)``, which are flattened;
        uint8, float32 or float64. ``y`` is ``(n,)``: integers ``0..K-1`` are classes, floats
        are the targets of a regression.
    name : str
    classes : int, optional
        ``K``; by default one more than the largest training label, 0 for a regression.
    scale : float, optional
        A factor for ``x``, applied when rows are read; by default 1/256 for uint8, else 1.
    generated : bool or str
        Whether a program drew the examples. As text it says what they are not, for example
        ``"not EMNIST"``. It is part of the title of every result.
    transposed : bool
        Whether images are stored column by column, as in EMNIST. Only pictures depend on it.

    Raises
    ------
    ValueError, TypeError
        If a part is empty, has another number of features than the training part, a label
        outside ``0..K-1``, or a value that is not finite. Names the part and the entry.
    """

    train: Split
    valid: Split | None
    test: Split | None
    name: str
    classes: int
    generated: bool | str
    transposed: bool

    def __init__(
        self,
        train: Split | tuple[Array, Array],
        valid: Split | tuple[Array, Array] | None = None,
        test: Split | tuple[Array, Array] | None = None,
        *,
        name: str = "data",
        classes: int | None = None,
        scale: float | None = None,
        generated: bool | str = False,
        transposed: bool = False,
    ) -> None:
        parts = {"train": train, "valid": valid, "test": test}
        splits = {
            key: None if part is None else _as_split(f"{name}: {key}", part, scale)
            for key, part in parts.items()
        }
        vars(self).update(splits)  # assignment is refused, since a data set is frozen
        if classes is None:
            labels = self.train.y
            classes = int(labels.max()) + 1 if labels.dtype.kind == "i" else 0
        classes = check_int(name, "classes", classes, low=0)
        vars(self).update(name=name, classes=classes, generated=generated, transposed=transposed)
        for key, split in self.splits.items():
            self._check(f"{name}: {key}", split)

    def _check(self, owner: str, split: Split) -> None:
        if split.x.shape[1] != self.features:
            raise ValueError(
                f"{owner}: expected {self.features} features as in train, got {split.x.shape[1]}"
            )
        if (split.y.dtype.kind == "i") != (self.classes > 0):
            want = "integer labels" if self.classes else "float targets"
            raise TypeError(f"{owner}: expected {want} as in train, got {split.y.dtype}")
        if self.classes:
            wrong = np.flatnonzero((split.y < 0) | (split.y >= self.classes))
            if len(wrong):
                i = int(wrong[0])
                raise ValueError(
                    f"{owner}: expected labels in 0..{self.classes - 1}, got y[{i}] = {split.y[i]}"
                )
        elif not np.isfinite(split.y).all():
            raise ValueError(f"{owner}: expected finite targets, got NaN or infinity")
        if split.x.dtype.kind == "f":
            for start in range(0, len(split), CHUNK):
                bad = np.argwhere(~np.isfinite(split.x[start : start + CHUNK]))
                if len(bad):
                    i, j = int(bad[0, 0]) + start, int(bad[0, 1])
                    raise ValueError(
                        f"{owner}: expected finite features, got x[{i}, {j}] = {split.x[i, j]}"
                    )

    @property
    def features(self) -> int:
        """The number of features of an example."""
        return int(self.train.x.shape[1])

    @property
    def title(self) -> str:
        """The name, with a warning if the examples are generated."""
        if not self.generated:
            return self.name
        words = f", {self.generated}" if isinstance(self.generated, str) else ""
        return f"{self.name} (generated{words})"

    @property
    def splits(self) -> dict[str, Split]:
        """The parts that are present, by name, in the order train, valid, test."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return {key: split for key, split in parts.items() if split is not None}

    def checksum(self) -> str:
        """Return the SHA-256 of the shapes, dtypes and contents of all parts, in hexadecimal."""
        import hashlib  # slow to import

        digest = hashlib.sha256()
        for key, split in self.splits.items():
            digest.update(f"{key} {split.x.shape} {split.x.dtype} {split.scale!r}".encode())
            for start in range(0, len(split), CHUNK):
                digest.update(split.x[start : start + CHUNK].tobytes())
            digest.update(split.y.tobytes())
        return digest.hexdigest()

    def mapped(self, folder: str | os.PathLike[str]) -> Dataset:
        """Return the data set with each ``x`` written to ``folder`` and mapped into memory."""
        parts: dict[str, Any] = {}
        for key, split in self.splits.items():
            file = Path(folder) / f"{key}.npy"
            blocks = (split.x[start : start + CHUNK] for start in range(0, len(split), CHUNK))
            write_rows(file, split.x.shape, blocks)
            parts[key] = Split.mapped(file.resolve(), split.y, split.scale)
        return replace(self, **parts)

    def sample(self, **sizes: int) -> Dataset:
        """Return at most ``sizes[part]`` examples of each part.

        They are evenly spaced, so that a part that is sorted by class keeps all classes.
        """
        parts: dict[str, Any] = {}
        for key, split in self.splits.items():
            n = min(check_int(self.name, key, sizes.get(key, len(split))), len(split))
            rows = np.arange(n) * len(split) // n
            parts[key] = Split(split.x[rows], split.y[rows], split.scale)
        return replace(self, **parts)

    def map(self, apply: Callable[[Array], Array], dtype: DTypeLike | None = None) -> Dataset:
        """Return the data set with ``apply(x)`` in place of the scaled rows ``x``.

        ``apply`` gets ``CHUNK`` rows at a time, in ``dtype``: by default float32 for pixels, and
        for floats the dtype that they have.
        """
        parts: dict[str, Any] = {}
        for key, split in self.splits.items():
            kind = dtype or (np.float32 if split.x.dtype == np.uint8 else split.x.dtype)
            x = np.concatenate([apply(chunk) for chunk in split.chunks(kind)])
            parts[key] = Split(x, split.y, 1.0)
        return replace(self, **parts)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{key} {len(split):,}" for key, split in self.splits.items())
        kind = f"{self.classes} classes" if self.classes else "regression"
        return f"Dataset({self.name}: {sizes}; {self.features} features, {kind})"


def _as_split(owner: str, part: Split | tuple[Array, Array], scale: float | None) -> Split:
    """Check the shapes and dtypes of one part."""
    if isinstance(part, Split):
        return part
    x, y = np.asarray(part[0]), np.asarray(part[1])
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y):
        raise ValueError(
            f"{owner}: expected x (n, features) and y (n,), got x {x.shape} and y {y.shape}"
        )
    if len(x) == 0 or x[0].size == 0:
        raise ValueError(f"{owner}: expected at least one example, got x {x.shape}")
    if x.dtype not in (np.uint8, np.float32, np.float64):
        raise TypeError(f"{owner}: expected x of dtype uint8, float32 or float64, got {x.dtype}")
    if y.dtype.kind not in "iuf":
        raise TypeError(f"{owner}: expected labels (integers) or targets (floats), got {y.dtype}")
    if scale is None:
        scale = 1 / 256 if x.dtype == np.uint8 else 1.0
    y = y.astype(np.int64 if y.dtype.kind in "iu" else np.float64)
    return Split(x.reshape(len(x), -1), y, check_float(owner, "scale", scale))
