"""Data sets: ``Dataset`` with its parts, each a ``Split``, and the conversion of users' arrays.

Arrays are converted and checked once, here; rows of pixels stay uint8 and become floats batch by
batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from minidl.checks import (
    FLOATS,
    Array,
    as_array,
    check_choice,
    check_entries,
    check_finite,
    check_float,
    check_int,
    check_weight,
)

CHUNK = 512
"""Rows that are converted at a time: so few that they stay in cache."""

PIXEL_SCALE = 1 / 256
"""The default factor of uint8 rows, exact in every dtype."""


@dataclass(frozen=True, eq=False)
class Split:
    """The examples of one part of a data set.

    ``x`` is (n, features), uint8 or float, as on disk; ``rows`` converts a batch to floats and
    multiplies it by ``scale``. ``y``, (n,) or (n, d), is whatever the loss takes, and ``weight``,
    (n,), the weight of each example in the loss and its metrics.
    """

    x: Array
    y: Array
    scale: float
    weight: Array | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def counted(self) -> Array:
        """The positions of the examples that count in training: those whose weight is not 0."""
        return np.arange(len(self)) if self.weight is None else np.flatnonzero(self.weight)

    def targets(self, index: Array | slice = slice(None)) -> tuple[Array, ...]:
        """Return what a loss takes after the outputs: ``(y,)``, or ``(y, weight)``."""
        y = self.y[index]
        return (y,) if self.weight is None else (y, self.weight[index])

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
        """Yield batches ``x, y`` or ``x, y, weight`` of the counted examples, shuffled."""
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
        size = f"{len(self):,} examples, {self.x.shape[1]} features"
        weighted = "" if self.weight is None else ", weighted"
        return f"Split({size}; x {self.x.dtype}, y {self.y.dtype} {self.y.shape}{weighted})"


Part = Split | tuple[Array, Array] | tuple[Array, Array, Array]
"""A part of a data set: a split, ``(x, y)`` or ``(x, y, weight)``."""


def as_split(owner: str, part: Part | None, scale: float | None = None) -> Split:
    """Return one part of a data set, with its arrays checked and converted."""
    if not isinstance(part, Split):
        if not isinstance(part, (tuple, list)) or len(part) not in (2, 3):
            want = "(x, y), (x, y, weight) or a Split"
            raise TypeError(f"{owner}: expected {want}, got {part!r:.80}")
        x, y = _features(owner, part[0]), _targets(owner, part[1])
        if len(x) != len(y):
            got = f"{len(x)} and {len(y)}"
            raise ValueError(f"{owner}: expected as many rows in x and y, got {got}")
        factor = PIXEL_SCALE if x.dtype == np.uint8 else 1.0
        factor = factor if scale is None else check_float(owner, "scale", scale)
        weights = (check_weight(owner, w, len(x)) for w in part[2:] if w is not None)
        part = Split(x, y, factor, *weights)
    if len(part) == 0:
        raise ValueError(f"{owner}: expected at least one example, got x {part.x.shape}")
    if part.weight is not None and not part.weight.any():
        raise ValueError(f"{owner}: expected a weight above 0, got only zeros")
    if part.scale == 0:
        raise ValueError(f"{owner}: expected scale to be other than 0, got {part.scale!r}")
    if part.scale != 1 and part.x.dtype != np.uint8:
        got = f"rows of {part.x.dtype}; multiply them by {part.scale:g} before"
        raise ValueError(f"{owner}: scale is the factor of uint8 rows, got {got}")
    return part


def as_rows(owner: str, x: object, input_scale: float | None = None) -> Split:
    """Return rows without targets, (n, features), scaled as the rows of the training were.

    ValueError for NaN, infinity, and floats that are larger than the scaled pixels of the training.
    """
    if isinstance(x, Split):
        return x
    rows = _features(owner, x)
    check_finite(owner, "features", "x", rows)
    scale = PIXEL_SCALE if input_scale is None else input_scale
    if rows.dtype != np.uint8:
        if input_scale not in (None, 1) and rows.max(initial=0) > 256 * abs(scale):
            want = f"uint8 rows or rows in 0..{255 * scale:g}, as the model was trained on pixels"
            raise ValueError(f"{owner}: expected {want}, got {rows.dtype} up to {rows.max():g}")
        scale = 1.0
    return Split(rows, np.empty((len(rows), 0)), scale)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Dataset:
    """A training part and, optionally, a validation and a test part.

    Parameters
    ----------
    train, valid, test : (x, y), (x, y, weight) or Split
        ``x`` is ``(n, features)``, or images ``(n, height, width, ...)``, which are flattened;
        uint8, float32 and float64 are kept, other real numbers become floats. ``y`` is ``(n,)``
        or ``(n, d)``, integers or floats: classes ``0..K-1``, the numbers of a regression,
        several labels (0 and 1), distributions. ``weight`` is ``(n,)``.
    name : str
    classes : int, optional
        ``K``; with it, all labels are checked to be in ``0..K-1``. By default one more than the
        largest training label, or 0 if ``y`` is not ``(n,)`` integers.
    class_names : array, optional
        The name or the original label of each class (see ``from_labels``).
    scale : float, optional
        The factor of uint8 rows when they are read, by default 1/256; floats are never scaled.
    generated : bool or str
        Whether a program drew the examples; or a note about them for the title of every result.
    transposed : bool
        Whether images are stored column by column, as in EMNIST. Only pictures depend on it.

    ValueError or TypeError, which names the part and the entry, if a part is empty, has a value
    that is not finite, or has other features, another range of pixels or kind of ``x`` or ``y``
    than the training part.
    """

    train: Split
    valid: Split | None
    test: Split | None
    name: str
    classes: int
    class_names: Array | None
    generated: bool | str
    transposed: bool

    def __init__(
        self,
        train: Part,
        valid: Part | None = None,
        test: Part | None = None,
        *,
        name: str = "data",
        classes: int | None = None,
        class_names: Array | None = None,
        scale: float | None = None,
        generated: bool | str = False,
        transposed: bool = False,
    ) -> None:
        own = vars(self)  # assignment is refused, since a data set is frozen
        for key, part in {"train": train, "valid": valid, "test": test}.items():
            given = part is not None or key == "train"
            own[key] = as_split(f"{name}: {key}", part, scale) if given else None
        y, asked = self.train.y, classes or 0
        if classes is None:
            labels = y.ndim == 1 and y.dtype.kind in "iu" and y.min() >= 0
            classes = int(y.max()) + 1 if labels else 0  # y may be unsigned
        own["classes"] = check_int(name, "classes", classes, low=0)
        if class_names is not None and np.shape(class_names) != (classes,):
            raise ValueError(f"{name}: expected {classes} class names, got {np.shape(class_names)}")
        # Of a file whose name is not UTF-8, too: no output takes half a character.
        own["name"] = str(name).encode(errors="replace").decode()
        own |= {"class_names": class_names, "generated": generated, "transposed": transposed}
        for key, split in self.splits.items():
            self._check(f"{name}: {key}", split, asked)

    @classmethod
    def from_labels(
        cls, train: Part, valid: Part | None = None, test: Part | None = None, **options: Any
    ) -> Dataset:
        """Return a data set whose labels of any kind are mapped to the classes ``0..K-1``.

        ``y`` of a part is ``(n,)``: integers, strings or booleans. The classes are the sorted
        labels of the training part, which ``class_names`` keeps. A label of another part that is
        not among them is a ValueError. The options are those of ``Dataset``.

        Examples
        --------
        >>> data = Dataset.from_labels((x, ["cat", "dog", "cat"]))
        >>> data.class_names[data.train.y]
        array(['cat', 'dog', 'cat'], dtype='<U3')
        """
        name = options.get("name", "data")
        names = np.unique(_labels(f"{name}: train", train[1]))  # type: ignore[index]
        numbers = {label: k for k, label in enumerate(names.tolist())}
        parts: dict[str, Any] = {"train": train, "valid": valid, "test": test}
        for key, part in parts.items():
            if part is not None:
                x, y, *weight = part
                labels = _labels(f"{name}: {key}", y)
                found = np.array([numbers.get(label, -1) for label in labels.tolist()], np.int64)
                want = f"the labels of the training part, {list(numbers)!r:.80}"
                check_entries(f"{name}: {key}", want, "y", labels, found >= 0)
                parts[key] = (x, found, *weight)
        return cls(**parts, classes=len(names), class_names=names, **options)

    def _check(self, owner: str, split: Split, classes: int) -> None:
        """Raise an error if a part is not as the training part."""
        train, y = self.train, split.y
        as_split(owner, split)
        check_finite(owner, "features", "x", split.x)
        if split.x.shape[1] != self.features:
            want = f"{self.features} features as in train"
            raise ValueError(f"{owner}: expected {want}, got {split.x.shape[1]}")
        if _kind(split) != _kind(train):
            raise TypeError(f"{owner}: expected {_kind(train)} as in train, got {_kind(split)}")
        if classes and y.ndim == 1 and y.dtype.kind in "iu":
            fits = (y >= 0) & (y < classes)
            check_entries(owner, f"labels in 0..{classes - 1}", "y", y, fits)
        x = split.x[:CHUNK]
        unit = x.dtype.kind == "f" and train.x.min() >= 0 and train.x.max() <= 1
        if unit and 128 <= x.max() <= 255 and x.min() >= 0 and (x == np.round(x)).all():
            got = f"whole numbers up to {split.x.max():g}, as of pixels that were not divided"
            raise ValueError(f"{owner}: expected x in 0..1 as in train, got {got}")

    @property
    def features(self) -> int:
        """The number of features of an example."""
        return int(self.train.x.shape[1])

    @property
    def title(self) -> str:
        """The name, with a warning if the examples are generated."""
        note = f", {self.generated}" if isinstance(self.generated, str) else ""
        return f"{self.name} (generated{note})" if self.generated else self.name

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
            for array in (split.x, *split.targets()):
                digest.update(np.ascontiguousarray(array).reshape(-1).data)
        return digest.hexdigest()

    def sample(self, **sizes: int) -> Dataset:
        """Return at most ``sizes[part]`` examples of each part, evenly spaced."""
        for key in sizes:
            check_choice(f"{self.name}: sample", "part", key, ("train", "valid", "test"))
        parts = {}
        for key, split in self.splits.items():
            n = min(check_int(self.name, key, sizes.get(key, len(split))), len(split))
            rows = np.arange(n) * len(split) // n
            y, *weight = split.targets(rows)
            parts[key] = Split(split.x[rows], y, split.scale, *weight)
        return self.with_parts(parts)

    def map(self, apply: Callable[[Array], Array], dtype: DTypeLike | None = None) -> Dataset:
        """Return the data set with ``apply(x)`` in place of the scaled rows, a chunk at a time.

        They have ``dtype``, by default float32 for pixels, and for floats that which they have.
        """
        parts = {}
        for key, split in self.splits.items():
            kind = dtype or (np.float32 if split.x.dtype == np.uint8 else split.x.dtype)
            x = np.concatenate([apply(chunk) for chunk in split.chunks(kind)])
            parts[key] = Split(x, split.y, 1.0, split.weight)
        return self.with_parts(parts)

    def weighted(self, class_weight: Mapping[Any, float] | Literal["balanced"]) -> Dataset:
        """Return the data set with a weight for each training example, by its class.

        Class weights are by class, or by its original label if there are ``class_names``; 1 for
        classes that are left out. ``"balanced"``: ``n / (K n_k)`` for a class with ``n_k`` of the
        ``n`` training examples, or of their weights. Weights of examples are multiplied by it.
        """
        labels, before = self._labels("class weights need"), self.train.weight
        names = np.arange(self.classes) if self.class_names is None else self.class_names
        factors = class_factors(self.name, class_weight, names.tolist(), labels, before)
        product = factors[labels] * (1.0 if before is None else before)
        weight = check_weight(f"{self.name}: class_weight", product, len(labels))
        return self.with_parts({**self.splits, "train": replace(self.train, weight=weight)})

    def smoothed(self, eps: float) -> Dataset:
        """Return the data set with distributions for training labels (label smoothing).

        A label's own class has probability ``1 - eps + eps / K``, every other class ``eps / K``
        (Szegedy et al. 2016). The other parts are not smoothed.
        """
        eps = check_float(self.name, "eps", eps, low=0, high=1)
        self._labels("label smoothing needs")
        parts = {}
        for key, split in self.splits.items():
            share = eps if key == "train" else 0.0
            each = np.eye(self.classes, dtype=np.float32) * (1 - share) + share / self.classes
            parts[key] = replace(split, y=each[split.y])
        return self.with_parts(parts)

    def _labels(self, what: str) -> Array:
        """Return the labels of the training part; TypeError if it has none."""
        if self.train.y.ndim != 1 or not self.classes:
            raise TypeError(f"{self.name}: {what} labels 0..K-1, got {self.train!r}")
        return self.train.y

    def with_parts(self, parts: Mapping[str, Split]) -> Dataset:
        """Return the data set with these parts alone, which are checked as those of a new one."""
        other = copy.copy(self)
        vars(other).update(dict.fromkeys(("train", "valid", "test")) | dict(parts))
        for key, split in other.splits.items():
            other._check(f"{self.name}: {key}", split, 0)
        return other

    def __repr__(self) -> str:
        sizes = ", ".join(f"{key} {len(split):,}" for key, split in self.splits.items())
        shape = f" {self.train.y.shape[1:]}" if self.train.y.ndim > 1 else ""
        kind = f"{self.classes} classes" if self.classes else f"y {self.train.y.dtype}{shape}"
        return f"Dataset({self.name}: {sizes}; {self.features} features, {kind})"


def check_labels(owner: str, logits: Array, y: Array) -> Array:
    """Return labels ``0..K-1``, (n,), as int64, or distributions (n, K) in the logits' dtype."""
    y = as_array(owner, "y", y)
    check_matrix(owner, logits)
    n, k = logits.shape
    if y.shape not in ((n,), (n, k)):
        raise ValueError(f"{owner}: expected y of shape ({n},) or ({n}, {k}), got {y.shape}")
    if y.dtype.kind not in ("iu" if y.ndim == 1 else "iuf"):
        want = "integer labels" if y.ndim == 1 else "distributions of numbers"
        raise TypeError(f"{owner}: expected {want}, got dtype {y.dtype}")
    if y.ndim == 2:
        sums = y.sum(axis=1, dtype=np.float64)
        # Allow for rounded probabilities; the comparison is False for NaN.
        slack = np.sqrt(np.finfo(y.dtype).eps) if y.dtype.kind == "f" else 0
        check_entries(owner, "distributions of entries >= 0", "y", y, y >= 0)
        check_entries(
            owner, "distributions of sum 1", "the sum of y", sums, np.abs(sums - 1) <= slack
        )
        return y.astype(logits.dtype, copy=False)
    labels = y.astype(np.int64, copy=False)
    # One pass checks both bounds: as unsigned integers, negative labels are the largest.
    fits = labels.view(np.uint64)
    if n and fits.max() >= k:
        hint = "; BinaryCrossEntropy takes classes of one output" if k == 1 else ""
        check_entries(owner, f"labels in 0..{k - 1}{hint}", "y", y, fits < k)
    return labels


def check_matrix(owner: str, logits: Array) -> None:
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"{owner}: expected logits of shape (n, K), K > 0, got {logits.shape}")


def check_shaped(
    owner: str, logits: Array, y: Array, want: str, fits: Any = None, kinds: str = "biuf"
) -> Array:
    """Return ``y`` in the logits' shape and dtype, which (n,) has if that is (n, 1)."""
    y = as_array(owner, "y", y)
    if y.dtype.kind not in kinds:
        raise TypeError(f"{owner}: expected {want}, got dtype {y.dtype}")
    if y.shape != logits.shape and (y.shape != (len(logits),) or logits.shape[1:] != (1,)):
        shape = f"the outputs' shape {logits.shape}"
        raise ValueError(f"{owner}: expected y of {shape}, got {y.shape}")
    if fits:
        check_entries(owner, want, "y", y, fits(y))
    return y.reshape(logits.shape).astype(logits.dtype, copy=False)


def class_factors(
    owner: str, class_weight: Any, names: Sequence[Any], y: Array, weight: Array | None = None
) -> Array:
    """Return the factor of each class, (K,), as ``Dataset.weighted`` says; ``y`` are 0..K-1."""
    if not isinstance(class_weight, Mapping):
        check_choice(owner, "class_weight as a mapping or", class_weight, ("balanced",))
        counts = np.bincount(y, weight, len(names))
        factors = counts.sum() / np.where(counts > 0, counts, 1)
        return np.asarray(factors / np.count_nonzero(counts))
    for key in class_weight:
        if key not in names:
            raise ValueError(f"{owner}: class_weight: no class {key!r} among {list(names)!r:.80}")
    return np.array([class_weight.get(name, 1.0) for name in names], np.float64)


def _features(owner: str, x: object) -> Array:
    """Return ``x`` as rows (n, features) of uint8, float32 or float64, which are kept."""
    array = as_array(owner, "x", x, numbers=True)
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise ValueError(f"{owner}: expected x of shape (n, features), got {array.shape}")
    return _floats(array).reshape(len(array), int(np.prod(array.shape[1:])))


def _targets(owner: str, y: object) -> Array:
    """Return ``y`` (n,) or (n, d): integers and booleans as int64, others as floats."""
    array = as_array(owner, "y", y, numbers=True)
    array = array[:, 0] if array.shape[1:] == (1,) else array
    if array.ndim not in (1, 2):
        raise ValueError(f"{owner}: expected y of shape (n,) or (n, d), got {array.shape}")
    if array.dtype.kind == "f":
        array = _floats(array)
        check_finite(owner, "targets", "y", array)
        return array
    if array.dtype == np.uint64:
        check_entries(owner, "integers below 2^63", "y", array, array < 2**63)
    return array.astype(np.int64, copy=False)


def _labels(owner: str, y: object) -> Array:
    """Return labels (n,) of integers, strings or booleans; TypeError for other kinds."""
    array = as_array(owner, "y", y)
    array = array[:, 0] if array.shape[1:] == (1,) else array
    if array.dtype == object and all(isinstance(label, str) for label in array.ravel()):
        array = array.astype(str)
    if array.ndim != 1 or array.dtype.kind not in "biuU":
        want, got = "integers, strings or booleans", f"{array.dtype} {array.shape}: {array!r:.60}"
        raise TypeError(f"{owner}: expected labels (n,) of {want}, got {got}")
    return array


def _floats(array: Array) -> Array:
    """Return uint8, float32 and float64 as they are, others of at most 16 bits as float32."""
    if array.dtype in FLOATS or array.dtype == np.uint8:
        return array
    return array.astype(np.float32 if array.dtype.itemsize <= 2 else np.float64)


def _kind(split: Split) -> str:
    """Return the kinds of arrays that the parts of a data set have in common."""
    x = "pixels" if split.x.dtype == np.uint8 else "floats"
    y = "integers" if split.y.dtype.kind in "iu" else "floats"
    return f"x of {x} and y of {y} (n, ...) {split.y.shape[1:]}"
