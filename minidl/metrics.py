"""Figures that describe success: ``metric(outputs, y)``, or ``metric(outputs, y, weight)``.

Each takes the outputs of a model (n, K), the targets ``y`` and, where wanted, weights (n,) of the
examples, finite and not negative. A metric is NaN of no examples, where all weights are 0, and
where an output of an example of weight above 0 is NaN.
Each loss says which metrics describe it (``loss.metrics``) and what it predicts (``loss.predict``);
both use ``predicted_classes``, ``predicted_signs`` and ``predicted_labels``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minidl.checks import Array, as_floats, as_numbers, check_weight, quietly

Metric = Callable[..., float]
"""``metric(outputs, y)`` or ``metric(outputs, y, weight)``: a figure, larger is better or not."""


def predicted_classes(outputs: Array) -> Array:
    """Return the number of the largest output of each row, (n,); the first one of equals."""
    return np.asarray(outputs.argmax(axis=1))


def predicted_signs(outputs: Array) -> Array:
    """Return -1 or +1 for each output, in the shape of the outputs; -1 for an output of 0."""
    return np.where(outputs > 0, 1, -1)


def predicted_labels(outputs: Array) -> Array:
    """Return 1 where a logit is above 0 (its probability above 1/2), else 0; int64."""
    return np.asarray(outputs > 0, np.int64)


@quietly
def accuracy(outputs: Array, y: Array, weight: Array | None = None) -> float:
    """Return the share of examples whose largest output is that of the label.

    Of tied outputs the first counts as the largest.

    Parameters
    ----------
    outputs : array, shape (n, K)
    y : array
        Labels (n,), or distributions (n, K), of which the largest entry is the label.
    weight : array, shape (n,), optional
    """
    outputs, y = _arrays("accuracy", outputs, y)
    if y.shape not in ((len(outputs),), outputs.shape):
        raise ValueError(
            f"accuracy: expected y of shape ({len(outputs)},) or {outputs.shape}, got {y.shape}"
        )
    labels = y if y.ndim == 1 else y.argmax(axis=1)
    right = np.asarray(predicted_classes(outputs) == labels, np.float64)
    return _mean("accuracy", outputs, right, weight)


@quietly
def sign_accuracy(outputs: Array, y: Array, weight: Array | None = None) -> float:
    """Return the share of examples whose one output has the sign of the label, -1 or +1.

    An output of 0 counts as -1.
    """
    outputs, y = _arrays("sign_accuracy", outputs, y)
    if outputs.shape[1] != 1:
        raise ValueError(f"sign_accuracy: expected outputs of shape (n, 1), got {outputs.shape}")
    y = _of_shape("sign_accuracy", outputs, y)
    right = predicted_signs(outputs) == np.where(y > 0, 1, -1)
    return _mean("sign_accuracy", outputs, right[:, 0].astype(np.float64), weight)


@quietly
def exact_match(outputs: Array, y: Array, weight: Array | None = None) -> float:
    """Return the share of examples of which all labels are predicted right.

    A label is predicted where its logit is above 0, its probability above 1/2; it is there where
    ``y`` is above 1/2.

    Parameters
    ----------
    outputs : array, shape (n, K)
        Logits.
    y : array, shape (n, K), or (n,) where K = 1
        Zeros and ones, or probabilities.
    weight : array, shape (n,), optional
    """
    outputs, right = _right_labels("exact_match", outputs, y)
    return _mean("exact_match", outputs, right.min(axis=1, initial=1), weight)


@quietly
def mean_accuracy(outputs: Array, y: Array, weight: Array | None = None) -> float:
    """Return the share of labels that are predicted right; arguments as of ``exact_match``."""
    outputs, right = _right_labels("mean_accuracy", outputs, y)
    return _mean("mean_accuracy", outputs, np.asarray(right.mean(axis=1)), weight)


@quietly
def r2(outputs: Array, y: Array, weight: Array | None = None) -> float:
    """Return the coefficient of determination R^2, the mean over the outputs.

    ``1 - sum_n w_n (y_n - z_n)^2 / sum_n w_n (y_n - ybar)^2`` with the weighted mean ``ybar``. It
    is 1 for exact predictions, 0 for predicting the mean, and negative for worse. Where a target
    is the same for all examples, it is 1 if the predictions are exact, else 0. It is NaN for fewer
    than two examples. All this is as in ``sklearn.metrics.r2_score``.

    Parameters
    ----------
    outputs : array, shape (n, d)
    y : array, shape (n, d), or (n,) where d = 1
    weight : array, shape (n,), optional
    """
    outputs, y = _arrays("r2", outputs, y)
    y = _of_shape("r2", outputs, y).astype(np.float64)
    outputs = outputs.astype(np.float64)
    n = len(y)
    weight = np.ones(n) if weight is None else check_weight("r2", weight, n)
    used = weight > 0
    if used.sum() < 2:
        return math.nan
    weight, y, outputs = weight[used] / weight.max(), y[used], outputs[used]
    mean = weight @ y / weight.sum()
    residual, total = weight @ np.square(y - outputs), weight @ np.square(y - mean)
    constant = (y == y[0]).all(axis=0)
    scores = np.where(constant, residual == 0, 1 - residual / np.where(constant, 1, total))
    return math.nan if np.isnan(outputs).any() else float(scores.mean())


def _arrays(owner: str, outputs: Array, y: Array) -> tuple[Array, Array]:
    outputs, y = as_numbers(owner, "outputs", outputs), as_numbers(owner, "y", y)
    if outputs.dtype.kind == "f":
        outputs = as_floats(owner, "outputs", outputs)
    if outputs.ndim != 2:
        raise ValueError(f"{owner}: expected outputs of shape (n, K), got {outputs.shape}")
    return outputs, y


def _of_shape(owner: str, outputs: Array, y: Array) -> Array:
    """Return ``y`` in the shape of the outputs."""
    if y.shape != outputs.shape and (y.shape != (len(outputs),) or outputs.shape[1] != 1):
        raise ValueError(f"{owner}: expected y of shape {outputs.shape}, got {y.shape}")
    return y.reshape(outputs.shape)


def _right_labels(owner: str, outputs: Array, y: Array) -> tuple[Array, Array]:
    """Return the checked outputs, and for each whether its label is predicted right."""
    outputs, y = _arrays(owner, outputs, y)
    right = predicted_labels(outputs) == (_of_shape(owner, outputs, y) > 0.5)
    return outputs, np.asarray(right, np.float64)


def _mean(owner: str, outputs: Array, values: Array, weight: Array | None) -> float:
    """Return the weighted mean of a value for each example, NaN where its outputs have a NaN."""
    n = len(values)
    weight = np.ones(n) if weight is None else check_weight(owner, weight, n)
    largest = weight.max(initial=0)
    if largest == 0:
        return math.nan
    if np.isnan(outputs[weight > 0]).any():
        return math.nan
    weight = weight / largest  # the sum does not overflow
    return float(weight @ values / weight.sum())
