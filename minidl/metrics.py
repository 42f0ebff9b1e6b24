"""Figures that describe success: ``metric(outputs, y)``, or ``metric(outputs, y, weight)``.

Each takes the outputs of a model (n, K), the targets ``y`` and, where wanted, weights (n,) of the
examples, finite and not negative. A figure of no examples, or where all weights are 0, is NaN.
Each loss says which figures describe it: ``loss.metrics``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minidl.checks import Array, check_weight

Metric = Callable[..., float]
"""``metric(outputs, y)`` or ``metric(outputs, y, weight)``: a figure, larger is better or not."""


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
    return _mean("accuracy", np.asarray(outputs.argmax(axis=1) == labels), weight)


def sign_accuracy(outputs: Array, y: Array, weight: Array | None = None) -> float:
    """Return the share of examples whose one output has the sign of the label, -1 or +1.

    An output of 0 counts as -1.
    """
    outputs, y = _arrays("sign_accuracy", outputs, y)
    if outputs.shape[1] != 1:
        raise ValueError(f"sign_accuracy: expected outputs of shape (n, 1), got {outputs.shape}")
    y = _of_shape("sign_accuracy", outputs, y)
    right = (outputs > 0) == (y > 0)
    return _mean("sign_accuracy", right[:, 0], weight)


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
    right = _right_labels("exact_match", outputs, y)
    return _mean("exact_match", np.asarray(right.all(axis=1)), weight)


def mean_accuracy(outputs: Array, y: Array, weight: Array | None = None) -> float:
    """Return the share of labels that are predicted right; arguments as of ``exact_match``."""
    return _mean("mean_accuracy", _right_labels("mean_accuracy", outputs, y).mean(axis=1), weight)


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
    return float(scores.mean())


def _arrays(owner: str, outputs: Array, y: Array) -> tuple[Array, Array]:
    outputs, y = np.asarray(outputs), np.asarray(y)
    if outputs.ndim != 2:
        raise ValueError(f"{owner}: expected outputs of shape (n, K), got {outputs.shape}")
    return outputs, y


def _of_shape(owner: str, outputs: Array, y: Array) -> Array:
    """Return ``y`` in the shape of the outputs."""
    if y.shape != outputs.shape and (y.shape != (len(outputs),) or outputs.shape[1] != 1):
        raise ValueError(f"{owner}: expected y of shape {outputs.shape}, got {y.shape}")
    return y.reshape(outputs.shape)


def _right_labels(owner: str, outputs: Array, y: Array) -> Array:
    outputs, y = _arrays(owner, outputs, y)
    return np.asarray((outputs > 0) == (_of_shape(owner, outputs, y) > 0.5))


def _mean(owner: str, values: Array, weight: Array | None) -> float:
    """Return the weighted mean of a value for each example."""
    n = len(values)
    weight = np.ones(n) if weight is None else check_weight(owner, weight, n)
    largest = weight.max(initial=0)
    if largest == 0:
        return math.nan
    weight = weight / largest  # the sum does not overflow
    return float(weight @ values / weight.sum())
