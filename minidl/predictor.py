"""A trained model with the steps before and after it, for new rows as they come."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.data.dataset import Dataset
from minidl.data.features import Feature
from minidl.data.split import Split, TrainedOn, as_rows
from minidl.evaluation import known_loss, outputs, probabilities
from minidl.layer import Layer
from minidl.losses import Loss
from minidl.losses.base import predict
from minidl.special import quietly
from minidl.typing import Array


class Predictor:
    """A model, the features that it was trained on, and the names of its classes.

    New rows go through the steps of the training data: the scale of pixels, each feature in turn,
    the model. ``minidl.save`` writes all of it to one file.

    Parameters
    ----------
    model : Layer
        A trained model.
    features : sequence of Feature
        Fitted, in the order in which they were applied, such as ``[standardize, pca]``.
    loss : Loss, optional
        The loss of the training, which knows what ``predict`` and ``probabilities`` return. Without
        one, several outputs are those of classes (``CrossEntropy``).
    dataset : Dataset, optional
        The data set before the features; its pixel scale and class names are kept.

    Attributes
    ----------
    trained_on : (bool, float)
        Whether the training rows were uint8 pixels, and their factor.
    class_names : array or None

    Examples
    --------
    >>> standardize = Standardize().fit(data)
    >>> fit(model, standardize.transform(data), loss, optimizer, epochs=20, rng=0)
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
        for feature in features:
            if not isinstance(feature, Feature):
                raise TypeError(f"Predictor: expected fitted features, got {feature!r:.80}")
        self.model, self.features, self.loss = model, tuple(features), loss
        self.trained_on: TrainedOn | None = getattr(model, "trained_on", None)
        self.class_names: Array | None = None
        self._of_classes = dataset is None or dataset.classes > 0
        if dataset is not None:
            self.trained_on = dataset.train.x.dtype == np.uint8, dataset.train.scale
            self.class_names = dataset.class_names

    @quietly
    def rows(self, x: Array) -> Array:
        """Return rows (n, features) of the features that the model takes."""
        rows = as_rows("Predictor", x, self.trained_on)
        z = rows.rows(slice(None), np.float32 if rows.x.dtype == np.uint8 else rows.x.dtype)
        for feature in self.features:
            z = feature.apply(z)
        return z

    def _scaled(self, x: Array) -> Split:
        """Return ``rows(x)`` as a split, so that they are not scaled again."""
        z = self.rows(x)
        return Split(z, np.empty((len(z), 0)), 1.0)

    def outputs(self, x: Array) -> Array:
        """Return the outputs of the model for rows as they come."""
        return outputs(self.model, self._scaled(x))

    def probabilities(self, x: Array) -> Array:
        """Return the probabilities of the classes for rows as they come."""
        return probabilities(self.model, self._scaled(x), self.loss)

    def predict(self, x: Array) -> Array:
        """Return what the loss predicts for rows as they come, ``loss.predict(outputs)``.

        ======================================  ================================================
        loss                                    prediction
        ======================================  ================================================
        of classes, as ``CrossEntropy``         class (n,): its name, or its number without names
        ``BinaryLogistic``                      -1 or +1, (n,), or the first or second of two names
        ``BinaryCrossEntropy``                  0 and 1, (n, K); for one label (n,), or its name
        of numbers, as ``SquaredError``         numbers (n, K), or (n,) for one
        ``Quantile``                            quantiles (n, K), or (n,) for one
        ======================================  ================================================

        Raises
        ------
        TypeError
            If the loss does not say what it predicts, as a plain function; without a loss for one
            output, or where the data set has no classes.
        """
        z = self.outputs(x)
        if self.loss is None and not self._of_classes:
            raise TypeError(
                "Predictor: the data set has no classes; expected the loss of the training, as "
                "loss=SquaredError()"
            )
        predicted = predict(known_loss("Predictor", self.loss, z), z)
        if self.class_names is None or predicted.ndim != 1 or predicted.dtype.kind not in "iu":
            return predicted
        return np.asarray(self.class_names)[np.maximum(predicted, 0)]  # the sign -1: the first

    def __repr__(self) -> str:
        steps = "".join(f"{feature!r}, " for feature in self.features)
        return f"Predictor({steps}{self.model!r})"


def predictor_of(model: Any) -> Any:
    """Return the predictor of an estimator, and anything else as it is.

    An estimator that is not fitted raises its own error.
    """
    if inspect.getattr_static(model, "predictor_", None) is None:
        return model
    return model.predictor_
