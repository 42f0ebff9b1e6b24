"""The shape of targets, and checks of those that the losses take; errors name the loss."""

from __future__ import annotations

import numpy as np

from minidl.simplex_map import Entries
from minidl.typing import Array
from minidl.validation import as_array


def shaped_targets(loss: object, outputs: Array, y: Array) -> Array:
    """Return targets in the shape in which a loss and metrics see them beside the outputs.

    Targets (n,) become a column (n, 1) if there is one output, so that they have the shape of the
    outputs, unless they are class labels. The loss says whether they are (``class_labels``): if it
    says that they are not, they become a column beside several outputs too, as for ``Quantile``.
    """
    labels = getattr(loss, "class_labels", None)
    column = outputs.shape[1:] == (1,) if labels is None else not labels
    return y[:, None] if column and y.ndim == 1 else y


def one_value(rows: Array) -> Array:
    """Return predictions (n, K), or (n,) where K is 1."""
    return rows[:, 0] if rows.shape[1:] == (1,) else rows


def check_labels(owner: str, logits: Array, y: Array) -> Array:
    """Check ``y``: integers in ``0..K-1``, (n,), or distributions, (n, K).

    Returns labels as int64, so that no arithmetic overflows; distributions in the logits' dtype.
    """
    y = as_array(owner, "y", y)
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"{owner}: expected logits of shape (n, K), K > 0, got {logits.shape}")
    n, k = logits.shape
    if y.shape == (n, k):
        return _check_distributions(owner, y).astype(logits.dtype, copy=False)
    if y.shape != (n,):
        raise ValueError(f"{owner}: expected y of shape ({n},) or ({n}, {k}), got {y.shape}")
    if y.dtype.kind not in "iu":
        raise TypeError(
            f"{owner}: expected integer labels, got dtype {y.dtype}; Dataset.from_labels numbers "
            "labels of any kind, and SquaredError is for numbers"
        )
    labels = y.astype(np.int64, copy=False)
    # One pass checks both bounds: as unsigned integers, negative labels are the largest.
    unsigned = labels.view(np.uint64)
    if n and unsigned.max() >= k:
        i = int(unsigned.argmax())
        raise ValueError(
            f"{owner}: expected labels in 0..{k - 1}, got y[{i}] = {y[i]}; "
            "Dataset.from_labels numbers labels from 0"
        )
    return labels


def _check_distributions(owner: str, y: Array) -> Array:
    if y.dtype.kind not in "iuf":
        raise TypeError(f"{owner}: expected distributions of numbers, got dtype {y.dtype}")
    sums = y.sum(axis=1, dtype=np.float64)
    # Allow for rounded probabilities; the comparison is False for NaN.
    slack = np.sqrt(np.finfo(y.dtype).eps) if y.dtype.kind == "f" else 0
    wrong = ~((np.abs(sums - 1) <= slack) & (y >= 0).all(axis=1))
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(
            f"{owner}: expected distributions, not negative and of sum 1, got y[{i}] "
            f"with sum {sums[i]:g} and least entry {y[i].min():g}"
        )
    return y


def entries(y: Array) -> Entries:
    """Return the nonzero entries of checked labels of either kind."""
    if y.ndim == 1:
        return np.arange(len(y)), y, 1.0
    rows, columns = np.nonzero(y)
    return rows, columns, y[rows, columns]


_HINT = "BinaryCrossEntropy takes 0 and 1"


def check_signs(owner: str, logits: Array, y: Array) -> Array:
    """Check labels -1 and +1, (n,) or (n, 1); return them as a column in the logits' dtype."""
    y = as_array(owner, "y", y)
    if logits.ndim != 2 or logits.shape[1] != 1:
        raise ValueError(f"{owner}: expected logits of shape (n, 1), got {logits.shape}")
    if y.shape not in ((len(logits),), logits.shape):
        raise ValueError(f"{owner}: expected y of shape ({len(logits)},), got {y.shape}")
    if y.dtype.kind not in "if":
        raise TypeError(f"{owner}: expected labels -1 and +1, got dtype {y.dtype}; {_HINT}")
    wrong = np.flatnonzero(np.abs(y) != 1)
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"{owner}: expected labels -1 and +1, got y[{i}] = {y.ravel()[i]}; {_HINT}"
        )
    return y.reshape(-1, 1).astype(logits.dtype)


def check_zeros_and_ones(owner: str, logits: Array, y: Array) -> Array:
    """Check labels that are there or not, (n, K), or (n,) where K = 1: numbers in [0, 1].

    Returns them in the logits' shape and dtype.
    """
    y = as_array(owner, "y", y)
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"{owner}: expected logits of shape (n, K), K > 0, got {logits.shape}")
    if y.dtype.kind not in "biuf":
        raise TypeError(f"{owner}: expected y of zeros and ones, got dtype {y.dtype}")
    if y.shape == (len(logits),) and logits.shape[1] == 1:
        y = y[:, None]
    if y.shape != logits.shape:
        hint = "; CrossEntropy takes one class of several" if y.ndim == 1 else ""
        raise ValueError(
            f"{owner}: expected y of the logits' shape {logits.shape}, got {y.shape}{hint}"
        )
    inside = (y >= 0) & (y <= 1)
    if not inside.all():
        i, k = np.argwhere(~inside)[0]
        hint = "; BinaryLogistic takes -1 and +1" if y[i, k] == -1 else ""
        raise ValueError(f"{owner}: expected y in [0, 1], got y[{i}, {k}] = {y[i, k]}{hint}")
    return y.astype(logits.dtype, copy=False)


def check_numbers(owner: str, logits: Array, y: Array) -> Array:
    """Check targets of a regression: numbers of the outputs' shape, or (n,) for one; True is 1.

    Returns them in the outputs' shape and dtype.
    """
    y = as_array(owner, "y", y)
    if y.dtype.kind not in "biuf":
        raise TypeError(f"{owner}: expected y of integers or floats, got dtype {y.dtype}")
    if y.ndim == 1 and logits.shape[1:] == (1,):
        y = y[:, None]
    if y.shape != logits.shape:
        raise ValueError(f"{owner}: expected y of the outputs' shape {logits.shape}, got {y.shape}")
    return y.astype(logits.dtype, copy=False)
