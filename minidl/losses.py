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
