"""A data set: frozen, checked once, kept small, converted a batch at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minidl.files import atomic
from minidl.typing import Array
from minidl.validation import check_float, check_int

CHUNK = 4096
"""Rows converted at a time where all of them are read in order."""


@dataclass(frozen=True)
class Split:
    """The examples of one part: ``x`` (n, features), uint8 or float, and ``y`` (n,).

    Pixels stay as they are on disk; ``rows`` multiplies by ``scale`` as it converts them.
    ``file``, if set, is the ``.npy`` that ``x`` is a map of (of its first rows): such a split
    travels to another process as that name, so that all share one copy.
    """

    x: Array
    y: Array
    scale: float
    file: Path | None = None

    @classmethod
    def mapped(cls, file: Path, y: Array, scale: float) -> Split:
        """The split whose ``x`` are the first ``len(y)`` rows of a ``.npy`` file, mapped."""
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
        """``x[index] * scale``, converted; into ``out``, in its dtype, where that is given."""
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
        """Every example once, in an order drawn from ``rng``; the last batch may be smaller."""
        order = rng.permutation(len(self))
        for start in range(0, len(self), batch_size):
            index = order[start : start + batch_size]
            yield self.rows(index, dtype), self.y[index]

    def chunks(self, dtype: DTypeLike = np.float32) -> Iterator[Array]:
        """All rows in order, in large pieces."""
        for start in range(0, len(self), CHUNK):
            yield self.rows(slice(start, start + CHUNK), dtype)


class Dataset:
    """A training part, and a validation and a test part where there are any.

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
        What ``x`` is multiplied by as it is read: by default 1/256 for uint8, else 1.
    generated : bool
        Whether a program drew the examples: shown wherever a number is printed.
    transposed : bool
        Whether images are stored column by column, as EMNIST's are; only pictures care.

    Raises
    ------
    ValueError, TypeError
        With the split and the entry that is wrong: an empty split, other features than in the
        training part, a label outside ``0..K-1``, a pixel that is not finite.
    """

    train: Split
    valid: Split | None
    test: Split | None

    def __init__(
        self,
        train: Split | tuple[Array, Array],
        valid: Split | tuple[Array, Array] | None = None,
        test: Split | tuple[Array, Array] | None = None,
        *,
        name: str = "data",
        classes: int | None = None,
        scale: float | None = None,
        generated: bool = False,
        transposed: bool = False,
    ) -> None:
        parts = {"train": train, "valid": valid, "test": test}
        splits = {k: _as_split(f"{name}: {k}", v, scale) for k, v in parts.items() if v is not None}
        labels = splits["train"].y
        if classes is None:
            classes = int(labels.max()) + 1 if labels.dtype.kind == "i" else 0
        set_ = object.__setattr__
        set_(self, "name", name)
        set_(self, "classes", check_int(name, "classes", classes, low=0))
        set_(self, "features", splits["train"].x.shape[1])
        set_(self, "generated", generated)
        set_(self, "transposed", transposed)
        for key in parts:
            split = splits.get(key)
            set_(self, key, split)
            if split is not None:
                self._check(f"{name}: {key}", split)

    name: str
    classes: int
    features: int
    generated: bool
    transposed: bool

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Dataset is frozen: {name} cannot be set")

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
    def title(self) -> str:
        """The name, with a warning where the examples are generated."""
        return f"{self.name}{' (generated, not EMNIST)' if self.generated else ''}"

    @property
    def splits(self) -> dict[str, Split]:
        """The parts that there are, by name."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return {k: v for k, v in parts.items() if v is not None}

    def checksum(self) -> str:
        """SHA-256 over shapes, dtypes and contents of all parts, as hexadecimal digits."""
        import hashlib  # slow to import

        digest = hashlib.sha256()
        for key, split in self.splits.items():
            digest.update(f"{key} {split.x.shape} {split.x.dtype} {split.scale!r}".encode())
            for start in range(0, len(split), CHUNK):
                digest.update(split.x[start : start + CHUNK].tobytes())
            digest.update(split.y.tobytes())
        return digest.hexdigest()

    def mapped(self, folder: str | os.PathLike[str]) -> Dataset:
        """The same data set with its ``x`` in ``.npy`` files in ``folder``, mapped into memory."""
        parts: dict[str, Split] = {}
        for key, split in self.splits.items():
            file = Path(folder) / f"{key}.npy"
            with atomic(file) as temporary:
                np.save(temporary, split.x)
            parts[key] = Split.mapped(file.resolve(), split.y, split.scale)
        return self._with(parts)

    def sample(self, **sizes: int) -> Dataset:
        """At most ``sizes[part]`` examples of each part, evenly spaced (a part may be sorted)."""
        parts: dict[str, Split] = {}
        for key, split in self.splits.items():
            n = min(check_int(self.name, key, sizes.get(key, len(split))), len(split))
            rows = np.arange(n) * len(split) // n
            parts[key] = Split(split.x[rows], split.y[rows], split.scale)
        return self._with(parts)

    def map(self, apply: Callable[[Array], Array], dtype: DTypeLike | None = None) -> Dataset:
        """The data set of ``apply(x)`` for the scaled rows ``x`` of each part, chunk by chunk.

        Rows come as ``dtype``: by default as they are, float32 for pixels.
        """
        parts: dict[str, Split] = {}
        for key, split in self.splits.items():
            kind = dtype or (np.float32 if split.x.dtype == np.uint8 else split.x.dtype)
            x = np.concatenate([apply(chunk) for chunk in split.chunks(kind)])
            parts[key] = Split(x, split.y, 1.0)
        return self._with({**parts, "features": x.shape[1]})

    def _with(self, parts: Mapping[str, Any]) -> Dataset:
        """The same data set with other splits."""
        return _rebuild({**self.__dict__, **parts})

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.__dict__,)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{k} {len(s):,}" for k, s in self.splits.items())
        kind = f"{self.classes} classes" if self.classes else "regression"
        return f"Dataset({self.name}: {sizes}; {self.features} features, {kind})"


def _rebuild(state: dict[str, Any]) -> Dataset:
    """Unpickle without checking all pixels again."""
    dataset = Dataset.__new__(Dataset)
    for name, value in state.items():
        object.__setattr__(dataset, name, value)
    return dataset


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
