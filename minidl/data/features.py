"""Features: maps from a data set to a data set, fitted on its training part alone.

Each has ``fit(dataset)``, ``transform(dataset)`` and ``fit_transform(dataset)``, and ``apply(x)``
for bare rows. Pixels become float32, which holds ``k / 256`` exactly, unless ``dtype`` says
otherwise; floats stay what they are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike

from minidl.data.dataset import Dataset, Split
from minidl.typing import Array
from minidl.validation import check_float, check_int

if TYPE_CHECKING:
    from typing_extensions import Self


class Feature(ABC):
    """A map of rows that may learn from the training part."""

    def fit(self, dataset: Dataset) -> Self:
        """Learn from ``dataset.train``; no other part is looked at."""
        self._fit(dataset.train)
        return self

    def _fit(self, train: Split) -> None:
        """What ``fit`` does, for those that have something to learn."""
        return

    @abstractmethod
    def apply(self, x: Array) -> Array:
        """The features (n, f) of rows (n, features) that are scaled already, in their dtype."""

    def transform(self, dataset: Dataset, dtype: DTypeLike | None = None) -> Dataset:
        """All parts of ``dataset``, as features of ``dtype``."""
        return dataset.map(self.apply, dtype)

    def fit_transform(self, dataset: Dataset, dtype: DTypeLike | None = None) -> Dataset:
        """``fit``, then ``transform``."""
        return self.fit(dataset).transform(dataset, dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class BiasColumn(Feature):
    """Appends a constant 1 as the last feature.

    To a model whose first layer has a bias this adds nothing: the bias is that feature's weight.
    """

    def apply(self, x: Array) -> Array:
        return np.hstack([x, np.ones((len(x), 1), x.dtype)])


bias_column = BiasColumn()
"""There is nothing to set or to learn, so one is enough."""


class Standardize(Feature):
    """Subtracts each feature's mean and divides by its standard deviation.

    A feature that never changes becomes 0.

    Attributes
    ----------
    mean, std : array, shape (features,), float64
        Of the training part.
    """

    mean: Array
    std: Array

    def _fit(self, train: Split) -> None:
        self.mean = _mean(train)
        squares = sum(np.square(x - self.mean).sum(axis=0) for x in train.chunks(np.float64))
        self.std = np.sqrt(squares / len(train))

    def apply(self, x: Array) -> Array:
        mean, std = _fitted(self, x, "mean", "std")
        centred: Array = x - mean
        return np.divide(centred, std, out=np.zeros_like(centred), where=std > 0)


class AveragePool(Feature):
    """Replaces each square of pixels by its mean: 28x28 becomes 14x14.

    Parameters
    ----------
    size : int
        Pixels along a side of the square.
    shape : (int, int), optional
        Rows and columns of the image, both multiples of ``size``; by default a square.
    """

    def __init__(self, size: int = 2, shape: tuple[int, int] | None = None) -> None:
        self.size = check_int("AveragePool", "size", size)
        self.shape = shape

    def apply(self, x: Array) -> Array:
        side = math.isqrt(x.shape[1])
        height, width = self.shape or (side, side)
        size = self.size
        if height * width != x.shape[1] or height % size or width % size:
            want = f"{height}x{width}" if self.shape else "square"
            raise ValueError(
                f"{self!r}: expected {want} images with sides that are multiples of {size}, "
                f"got {x.shape[1]} features"
            )
        squares = x.reshape(len(x), height // size, size, width // size, size)
        means: Array = squares.mean(axis=(2, 4)).reshape(len(x), -1)
        return means

    def __repr__(self) -> str:
        return f"AveragePool({self.size}{f', {self.shape}' if self.shape else ''})"


class PCA(Feature):
    """Principal components: the directions in which the training part varies most.

    ``apply(x) = (x - mean) components^T``. The components are eigenvectors of the covariance
    matrix, found by ``numpy.linalg.eigh`` in float64. An eigenvector's sign means nothing: here
    its entry of largest magnitude is positive.

    Parameters
    ----------
    components : int or float, optional
        How many components to keep; or, as a float in (0, 1], the share of the variance that
        those kept shall have at least. All by default.

    Attributes
    ----------
    mean : array, shape (features,)
    components : array, shape (k, features)
        Orthonormal rows, by falling variance.
    variances : array, shape (k,)
        Along each component, with the divisor n - 1.
    ratios : array, shape (k,)
        The share of each in the variance of all features together.
    """

    mean: Array
    components: Array
    variances: Array
    ratios: Array

    def __init__(self, components: int | float | None = None) -> None:
        self.keep = components
        if isinstance(components, float):
            check_float("PCA", "components as a share", components, low=0, high=1, open_low=True)
        elif components is not None:
            check_int("PCA", "components", components)

    def _fit(self, train: Split) -> None:
        features = train.x.shape[1]
        if isinstance(self.keep, int) and self.keep > features:
            raise ValueError(
                f"{self!r}: expected components to be at most {features}, the number of features"
            )
        self.mean = _mean(train)
        covariance = np.zeros((features, features))
        for x in train.chunks(np.float64):
            x -= self.mean
            covariance += x.T @ x
        covariance /= max(len(train) - 1, 1)
        variances, vectors = np.linalg.eigh(covariance)
        # Ascending, and rounding may leave the smallest a little below 0.
        variances, vectors = np.maximum(variances[::-1], 0), vectors[:, ::-1].T
        total = variances.sum()
        ratios = variances / total if total > 0 else np.zeros(features)
        k = features if self.keep is None else self.keep
        if isinstance(k, float):
            k = min(int(np.searchsorted(np.cumsum(ratios), k * (1 - 1e-12))) + 1, features)
        largest = vectors[np.arange(features), np.abs(vectors).argmax(axis=1)]
        self.components = np.ascontiguousarray((vectors * np.sign(largest)[:, None])[:k])
        self.variances, self.ratios = variances[:k], ratios[:k]

    def apply(self, x: Array) -> Array:
        mean, components = _fitted(self, x, "mean", "components")
        scores: Array = (x - mean) @ components.T
        return scores

    def reconstruct(self, z: Array) -> Array:
        """The rows whose features are ``z``, as far as the components kept can tell."""
        rows: Array = z @ self.components.astype(z.dtype) + self.mean.astype(z.dtype)
        return rows

    def __repr__(self) -> str:
        return f"PCA({'' if self.keep is None else self.keep})"


class Pipeline(Feature):
    """Features one after another, each fitted on what the one before makes of the training part.

    Parameters
    ----------
    *features : Feature
    """

    def __init__(self, *features: Feature) -> None:
        for feature in features:
            if not isinstance(feature, Feature):
                raise TypeError(f"Pipeline: expected features, got {feature!r}")
        self.features = features

    def fit(self, dataset: Dataset) -> Self:
        train = Dataset(dataset.train, classes=dataset.classes, name=dataset.name)
        for feature in self.features[:-1]:
            train = feature.fit_transform(train, np.float64)
        for feature in self.features[-1:]:
            feature.fit(train)
        return self

    def apply(self, x: Array) -> Array:
        for feature in self.features:
            x = feature.apply(x)
        return x

    def __repr__(self) -> str:
        return f"Pipeline({', '.join(map(repr, self.features))})"


def _mean(split: Split) -> Array:
    """Of each feature, in float64."""
    total: Array = sum(x.sum(axis=0) for x in split.chunks(np.float64)) / len(split)
    return total


def _fitted(feature: Feature, x: Array, *names: str) -> list[Array]:
    """What was learned, in the dtype of ``x``; an error if nothing was, or of another width."""
    if not hasattr(feature, names[0]):
        raise ValueError(f"{feature!r}: not fitted yet; call fit(dataset) first")
    learned = [getattr(feature, name) for name in names]
    if x.ndim != 2 or x.shape[1] != learned[0].shape[-1]:
        raise ValueError(
            f"{feature!r}: expected x of shape (n, {learned[0].shape[-1]}), got {x.shape}"
        )
    return [value.astype(x.dtype, copy=False) for value in learned]
