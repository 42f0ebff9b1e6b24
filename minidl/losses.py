"""Losses: ``value, dlogits = loss(logits, y)``.

The value and its gradient come from one call, so that the two can never belong to different
functions. The value is a Python float, summed in float64; the gradient has the dtype of the
logits and is with respect to the logits. Mean over the batch by default.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from minidl.arrays import Array


class Loss(Protocol):
    """What a loss looks like."""

    def __call__(self, logits: Array, y: Array) -> tuple[float, Array]: ...


def check_labels(owner: str, logits: Array, y: Array) -> Array:
    """``y`` as an array of integers in ``0..K-1``, one for each row of ``logits``."""
    y = np.asarray(y)
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"{owner}: expected logits of shape (n, K), K > 0, got {logits.shape}")
    n, k = logits.shape
    if y.shape != (n,):
        raise ValueError(f"{owner}: expected y of shape ({n},), got {y.shape}")
    if y.dtype.kind not in "iu":
        raise TypeError(f"{owner}: expected integer labels, got dtype {y.dtype}")
    # One pass finds both ends: as unsigned numbers, negative labels are the largest.
    unsigned = y.view(f"u{y.itemsize}")
    if n and unsigned.max() >= k:
        i = int(unsigned.argmax())
        raise ValueError(f"{owner}: expected labels in 0..{k - 1}, got y[{i}] = {y[i]}")
    return y


class _Reduced:
    """A loss that is averaged or summed over the batch."""

    def __init__(self, reduction: Literal["mean", "sum"] = "mean") -> None:
        if reduction not in ("mean", "sum"):
            raise ValueError(
                f"{type(self).__name__}: expected reduction 'mean' or 'sum', got {reduction!r}"
            )
        self.reduction = reduction

    def _share(self, n: int) -> float:
        """What one example counts for."""
        return 1 / max(n, 1) if self.reduction == "mean" else 1.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self.reduction == 'mean' else repr('sum')})"


class CrossEntropy(_Reduced):
    r"""Softmax cross-entropy on logits.

    value: ``mean_n (log sum_k exp z_nk - z_ny)``; gradient: ``(softmax(z) - onehot(y)) / n``

    Computed from logits shifted by their row's maximum: never negative, and exact under a
    common offset. A logit of ``-inf`` has probability 0 and gradient 0; where it is the
    label's, the value is ``inf``. A row of only ``-inf``, or with ``+inf`` or NaN, gives NaN.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Over the batch.

    Examples
    --------
    >>> value, dlogits = CrossEntropy()(logits, y)    # logits (n, K), y (n,) integers in 0..K-1
    """

    def __call__(self, logits: Array, y: Array) -> tuple[float, Array]:
        y = check_labels("CrossEntropy", logits, y)
        rows = np.arange(len(y))
        share = self._share(len(y))
        shifted = logits - logits.max(axis=1, keepdims=True)
        p = np.exp(shifted)
        total = p.sum(axis=1, keepdims=True)
        losses = np.log(total[:, 0]) - shifted[rows, y]
        p *= share / total
        p[rows, y] -= share
        return float(losses.sum(dtype=np.float64)) * share, p


class SquaredError(_Reduced):
    r"""Half the squared distance, for regression.

    value: ``mean_n 1/2 ||z_n - y_n||^2``; gradient: ``(z - y) / n``

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Over the batch; the outputs of one example are always summed.

    Notes
    -----
    ``y`` has the shape of ``z``, ``(n, d)``; ``(n,)`` will do where ``d`` is 1.
    ``torch.nn.MSELoss`` averages over the outputs too and has no half: ``2/d`` times this.
    """

    def __call__(self, logits: Array, y: Array) -> tuple[float, Array]:
        if y.ndim == 1 and logits.shape[1:] == (1,):
            y = y[:, None]
        if y.shape != logits.shape:
            raise ValueError(
                f"SquaredError: expected y of the outputs' shape {logits.shape}, got {y.shape}"
            )
        share = self._share(len(y))
        error = logits - y.astype(logits.dtype, copy=False)
        value = 0.5 * float(np.square(error).sum(dtype=np.float64)) * share
        return value, error * share


class Perceptron(_Reduced):
    r"""The multi-class perceptron's loss (Rosenblatt 1958; Collobert and Bengio 2004).

    value: ``mean_n (max_k z_nk - z_ny)``; gradient: ``(e_predicted - e_y) / n``, which is 0
    where the prediction is right

    The prediction is the first of the largest logits, so a tie that the label does not win is
    a mistake: its value is 0, its gradient is not. SGD on one example at a time with learning
    rate 1 is the perceptron algorithm: add ``x`` to the label's weights, subtract it from those
    of the prediction.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Over the batch.
    """

    def __call__(self, logits: Array, y: Array) -> tuple[float, Array]:
        if np.ndim(y) != 1:
            raise ValueError(f"Perceptron: expected y of shape (n,), got {np.shape(y)}")
        y = check_labels("Perceptron", logits, y)
        rows, predicted = np.arange(len(y)), logits.argmax(axis=1)
        share = self._share(len(y))
        value = (logits[rows, predicted] - logits[rows, y]).sum(dtype=np.float64)
        dlogits = np.zeros_like(logits)
        dlogits[rows, predicted] = share
        dlogits[rows, y] -= share
        return float(value) * share, dlogits


class BinaryLogistic(_Reduced):
    r"""Logistic loss of one logit, for labels -1 and +1.

    value: ``mean_n log(1 + exp(-m_n))`` with the margin ``m = y z``

    derivative: ``-y sigmoid(-m) / n``; second derivative: ``sigmoid(m) sigmoid(-m) / n``, never
    negative, so the loss is convex

    Computed from ``exp(-|m|)``, which cannot overflow. Softmax cross-entropy of the two logits
    ``(0, z)`` is the same function.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Over the batch.

    Examples
    --------
    >>> value, dlogits = BinaryLogistic()(logits, y)    # logits (n, 1), y (n,) of -1 and +1
    """

    def __call__(self, logits: Array, y: Array) -> tuple[float, Array]:
        sign = self._signs(logits, y)
        margin = sign * logits
        share = self._share(len(logits))
        e = np.exp(-np.abs(margin))
        value = (np.log1p(e) + np.maximum(-margin, 0)).sum(dtype=np.float64)
        sigmoid = np.where(margin <= 0, 1, e) / (1 + e)
        return float(value) * share, -share * sign * sigmoid

    def second_derivative(self, logits: Array, y: Array) -> Array:
        """With respect to each logit; the same for both labels."""
        e = np.exp(-np.abs(self._signs(logits, y) * logits))
        curvature: Array = self._share(len(logits)) * e / np.square(1 + e)
        return curvature

    @staticmethod
    def _signs(logits: Array, y: Array) -> Array:
        """The labels as a column of -1 and +1 in the logits' dtype."""
        y = np.asarray(y)
        if logits.ndim != 2 or logits.shape[1] != 1:
            raise ValueError(f"BinaryLogistic: expected logits of shape (n, 1), got {logits.shape}")
        if y.shape not in ((len(logits),), logits.shape):
            raise ValueError(f"BinaryLogistic: expected y of shape ({len(logits)},), got {y.shape}")
        if y.dtype.kind not in "if":
            raise TypeError(f"BinaryLogistic: expected labels -1 and +1, got dtype {y.dtype}")
        wrong = np.flatnonzero(np.abs(y) != 1)
        if len(wrong):
            i = int(wrong[0])
            raise ValueError(
                f"BinaryLogistic: expected labels -1 and +1, got y[{i}] = {y.ravel()[i]}"
            )
        return y.reshape(-1, 1).astype(logits.dtype)
