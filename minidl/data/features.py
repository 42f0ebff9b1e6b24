"""Features: transformations of a data set that are fitted on its training part alone.

By default pixels become float32, which represents ``k / 256`` exactly, and floats keep their dtype.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from minidl.checks import (
    Array,
    Configured,
    as_floats,
    check_float,
    check_int,
    is_layer,
    quietly,
    type_text,
)
from minidl.dataset import CHUNK, Dataset, Split, as_rows
from minidl.evaluation import known_loss, outputs, predict, probabilities
from minidl.layer import Layer
from minidl.losses import Loss

if TYPE_CHECKING:
    from typing_extensions import Self


class Feature(Configured, ABC):
    """A transformation of rows, which may learn from the training part.

    To write one, define ``apply`` and, if there is something to learn, ``learn``.
    """

    @quietly
    def fit(self, dataset: Dataset) -> Self:
        """Learn from ``dataset.train`` alone."""
        self.learn(_dataset(self, dataset).train)
        return self

    def learn(self, train: Split) -> None:
        """Set what ``apply`` uses; by default there is nothing to learn."""
        return

    @abstractmethod
    def apply(self, x: Array) -> Array:
        """Return the new features of scaled rows ``(n, features)``, in the dtype of ``x``."""

    @quietly
    def transform(self, dataset: Dataset, dtype: DTypeLike | None = None) -> Dataset:
        """Apply to all parts of ``dataset``, in ``dtype``."""
        return _dataset(self, dataset).map(self.apply, dtype)

    def fit_transform(self, dataset: Dataset, dtype: DTypeLike | None = None) -> Dataset:
        """``fit``, then ``transform``."""
        return self.fit(dataset).transform(dataset, dtype)

    def _rows(self, x: Array, *learned: str) -> list[Array]:
        """Return rows (n, features) and, in their dtype, what was learned, or raise an error."""
        if learned and not hasattr(self, learned[0]):
            raise ValueError(f"{self!r}: not fitted yet; call fit(dataset) first")
        values = [getattr(self, name) for name in learned]
        x, width = as_floats(self, "x", x), values[0].shape[-1] if values else "features"
        if x.ndim != 2 or (values and x.shape[1] != width):
            raise ValueError(f"{self!r}: expected x of shape (n, {width}), got {x.shape}")
        return [x, *(value.astype(x.dtype, copy=False) for value in values)]


def _dataset(owner: object, dataset: object) -> Dataset:
    if not isinstance(dataset, Dataset):
        got = type_text(dataset)
        raise TypeError(f"{type(owner).__name__}: expected dataset to be a Dataset, got {got}")
    return dataset


def _mean(split: Split, weight: Array, f: Callable[[Array], Array] = lambda x: x) -> Array:
    """Return the weighted mean of ``f(x)`` in float64; exact where a feature is constant."""
    parts = np.split(weight, range(CHUNK, len(weight), CHUNK))
    chunks = zip(parts, split.chunks(np.float64), strict=True)
    mean = sum(w @ f(x) for w, x in chunks) / weight.sum()
    first = f(split.rows(slice(0, 1), np.float64))[0]
    return np.asarray(np.where(np.ptp(split.x, axis=0) == 0, first, mean))


class Standardize(Feature):
    r"""Subtract the mean of each feature and divide by its standard deviation.

    ``y = (x - mean) / std`` with ``std^2 = sum_n w_n (x_n - mean)^2 / sum_n w_n``, where ``w_n``
    are the weights of the examples, by default 1.

    A feature that is constant up to rounding is divided by 1, as in scikit-learn's
    ``StandardScaler``: its variance is at most ``n eps var + (n eps mean)^2``, a bound of the
    rounding errors of ``n`` additions (Chan, Golub and LeVeque 1983), with float64's ``eps``.

    Attributes
    ----------
    mean, std : array, shape (features,), float64
    """

    def learn(self, train: Split) -> None:
        weight = np.ones(len(train)) if train.weight is None else train.weight / train.weight.max()
        self.mean = _mean(train, weight)
        variance = _mean(train, weight, lambda x: np.square(x - self.mean))
        rounding = len(train) * np.finfo(np.float64).eps
        constant = variance <= rounding * variance + np.square(rounding * self.mean)
        self.std = np.where(constant, 1.0, np.sqrt(variance))

    def apply(self, x: Array) -> Array:
        x, mean, std = self._rows(x, "mean", "std")
        return np.asarray((x - mean) / std)


class AveragePool(Feature):
    """Replace each square of ``size`` by ``size`` pixels by its mean: 28x28 becomes 14x14.

    Parameters
    ----------
    size : int
    shape : (int, int), optional
        Height and width of the image, both multiples of ``size``. By default it is a square.
    """

    def __init__(self, size: int = 2, shape: tuple[int, int] | None = None) -> None:
        self.size = check_int("AveragePool", "size", size)
        self.shape: tuple[int, ...] | None = None
        if shape is not None:
            if np.asarray(shape, object).shape != (2,):
                want = "expected shape to be (height, width)"
                raise ValueError(f"AveragePool: {want}, got {shape!r}")
            self.shape = tuple(check_int("AveragePool", "sides in shape", side) for side in shape)

    def apply(self, x: Array) -> Array:
        (x,), size = self._rows(x), self.size
        height, width = self.shape or [math.isqrt(x.shape[1])] * 2
        if height * width != x.shape[1] or height % size or width % size:
            kind = f"{height}x{width}" if self.shape else "square"
            want = f"expected {kind} images with sides that are multiples of {size}"
            raise ValueError(f"{self!r}: {want}, got {x.shape[1]} features")
        squares = x.reshape(len(x), height // size, size, width // size, size)
        return np.asarray(squares.mean(axis=(2, 4)).reshape(len(x), -1))


class PCA(Feature):
    """Principal components: the directions in which the training part varies most.

    ``apply(x) = (x - mean) components^T``. The components are eigenvectors of the covariance
    matrix, of which the entry of largest magnitude is positive, computed by ``numpy.linalg.eigh``
    in float64.

    Parameters
    ----------
    n_components : int or float, optional
        How many to keep; a float in (0, 1] keeps as many as hold this share of the variance. By
        default all are kept.

    Attributes
    ----------
    mean : array, shape (features,)
    components : array, shape (k, features)
        Orthonormal rows, in order of decreasing variance.
    variances, ratios : array, shape (k,)
        The variance along each, with divisor n - 1, and its share in the total variance.
    """

    def __init__(self, n_components: int | float | None = None) -> None:
        self.n_components = n_components
        if isinstance(n_components, float):
            check_float("PCA", "a share n_components", n_components, low=0, high=1, open_low=True)
        elif n_components is not None:
            check_int("PCA", "n_components", n_components)

    def learn(self, train: Split) -> None:
        features = train.x.shape[1]
        k = features if self.n_components is None else self.n_components
        if k > features:
            raise ValueError(f"{self!r}: expected n_components to be at most {features} features")
        self.mean = _mean(train, np.ones(len(train)))
        centred = (x - self.mean for x in train.chunks(np.float64))
        covariance = sum(x.T @ x for x in centred) / max(len(train) - 1, 1)
        variances, vectors = np.linalg.eigh(covariance)
        # eigh gives them in ascending order, and rounding may leave the smallest just below 0.
        variances, vectors = np.maximum(variances[::-1], 0), vectors[:, ::-1].T
        ratios = variances / (variances.sum() or 1)
        if isinstance(k, float):
            k = min(int(np.searchsorted(np.cumsum(ratios), k * (1 - 1e-12))) + 1, features)
        largest = vectors[np.arange(features), np.abs(vectors).argmax(axis=1)]
        self.components = np.ascontiguousarray((vectors * np.sign(largest)[:, None])[:k])
        self.variances, self.ratios = variances[:k], ratios[:k]

    def apply(self, x: Array) -> Array:
        x, mean, components = self._rows(x, "mean", "components")
        return np.asarray((x - mean) @ components.T)

    def reconstruct(self, z: Array) -> Array:
        """Return the rows whose components are ``z``: the inverse of ``apply`` if all are kept."""
        z = as_floats(self, "z", z)
        return np.asarray(z @ self.components.astype(z.dtype) + self.mean.astype(z.dtype))


class Predictor:
    """A model with the steps before and after it: features, scale of pixels, names of classes.

    New rows go through the scale of pixels, each feature in turn, and the model.

    Parameters
    ----------
    model : Layer
    features : sequence of Feature
        Fitted, in the order in which they were applied, such as ``[standardize, pca]``.
    loss : Loss, optional
        That of the training, which knows what ``predict`` and ``probabilities`` return. Without
        one, several outputs are those of classes; TypeError if the data set has none.
    dataset : Dataset, optional
        The data set before the features; its pixel scale and class names are kept.

    Attributes
    ----------
    input_scale : float or None
        The factor of uint8 rows.
    class_names : array or None

    Examples
    --------
    >>> standardize = Standardize().fit(data)
    >>> predictor = Predictor(model, [standardize], loss=loss, dataset=data)
    >>> minidl.save("model.npz", predictor)
    >>> minidl.load("model.npz").predict(x)  # in another process
    """

    def __init__(
        self,
        model: Layer,
        features: Sequence[Feature] = (),
        *,
        loss: Loss | None = None,
        dataset: Dataset | None = None,
    ) -> None:
        if not is_layer(model):
            raise TypeError(f"Predictor: expected a model, got {type_text(model)}")
        listed = isinstance(features, Sequence)
        if not listed or not all(isinstance(feature, Feature) for feature in features):
            want = "a list of fitted features, as [standardize]"
            raise TypeError(f"Predictor: expected {want}, got {features!r:.80}")
        self.model, self.features, self.loss = model, tuple(features), loss
        self.input_scale: float | None = getattr(model, "input_scale", None)
        self.class_names: Array | None = None
        if dataset is not None:
            if _dataset(self, dataset).classes == 0 and loss is None:
                want = "expected the loss of the training, as loss=SquaredError()"
                raise TypeError(f"Predictor: the data set has no classes; {want}")
            self.input_scale, self.class_names = dataset.train.scale, dataset.class_names

    @quietly
    def _rows(self, x: Array) -> Split:
        """Return the rows that the model takes."""
        rows = as_rows("Predictor", x, self.input_scale)
        for feature in self.features:
            kind = np.float32 if rows.x.dtype == np.uint8 else rows.x.dtype
            rows = Split(feature.apply(rows.rows(slice(None), kind)), rows.y, 1.0)
        return rows

    def outputs(self, x: Array) -> Array:
        """Return the outputs of the model for rows as they come."""
        return outputs(self.model, self._rows(x))

    def probabilities(self, x: Array) -> Array:
        """Return the probabilities of the classes for rows as they come."""
        return probabilities(self.model, self._rows(x), self.loss)

    def predict(self, x: Array) -> Array:
        """Return what the loss predicts for rows as they come, ``loss.predict(outputs)``.

        A class (n,) by its number, or by its name if there are names, which may be those of -1 and
        +1, or of 0 and 1 of one label; 0 and 1 (n, K) of ``BinaryCrossEntropy``; numbers or
        quantiles (n, K). One column is (n,). TypeError if the loss does not say what it predicts,
        as a plain function, and without a loss for one output.
        """
        z = self.outputs(x)
        predicted = predict(known_loss("Predictor", self.loss, z), z)
        if self.class_names is None or predicted.ndim != 1 or predicted.dtype.kind not in "iu":
            return predicted
        return np.asarray(self.class_names)[np.maximum(predicted, 0)]  # the sign -1: the first

    def __repr__(self) -> str:
        steps = "".join(f"{feature!r}, " for feature in self.features)
        return f"Predictor({steps}{self.model!r})"


def predictor_of(model: Any) -> Any:
    """Return the predictor of an estimator, if it is fitted, and anything else as it is."""
    return model.predictor_ if hasattr(type(model), "predictor_") else model
