"""Checks and conversions of the arrays that users pass as features, targets and weights."""

from __future__ import annotations

import numpy as np

from minidl.typing import Array
from minidl.validation import as_array, as_numbers, check_finite, check_weight


def as_features(owner: str, x: object) -> Array:
    """Return ``x`` as rows (n, features) of uint8, float32 or float64.

    These dtypes are kept. Other numbers of at most 16 bits and booleans become float32, longer
    ones float64. Images (n, height, width, ...) are flattened.

    Raises
    ------
    TypeError
        If ``x`` is a masked array, a sparse matrix, or does not hold real numbers.
    ValueError
        If ``x`` has fewer than two axes, or no features.
    """
    array = as_numbers(owner, "x", x)
    if array.ndim < 2:
        raise ValueError(f"{owner}: expected x of shape (n, features), got {array.shape}")
    features = int(np.prod(array.shape[1:]))
    if features == 0:
        raise ValueError(f"{owner}: expected at least one feature, got x {array.shape}")
    if array.dtype not in (np.uint8, np.float32, np.float64):
        array = array.astype(np.float32 if array.dtype.itemsize <= 2 else np.float64)
    return array.reshape(len(array), features)


def as_targets(owner: str, y: object) -> Array:
    """Return ``y`` (n,) or (n, d): integers and booleans as int64, floats as they are.

    A column (n, 1) becomes (n,).

    Raises
    ------
    TypeError
        If ``y`` is a masked array, a sparse matrix, or does not hold numbers: labels of other
        kinds are mapped by ``Dataset.from_labels``.
    ValueError
        If ``y`` has another number of axes, or a value that is not finite.
    """
    array = as_array(owner, "y", y)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{owner}: expected y of integers or floats, got dtype {array.dtype}; "
            "Dataset.from_labels takes labels of any kind"
        )
    if array.ndim not in (1, 2):
        raise ValueError(f"{owner}: expected y of shape (n,) or (n, d), got {array.shape}")
    if array.dtype.kind != "f":
        if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise ValueError(f"{owner}: expected integers below 2^63, got y up to {array.max()}")
        return array.astype(np.int64, copy=False)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32 if array.dtype.itemsize <= 2 else np.float64)
    check_finite(owner, "targets", "y", array)
    return array


def as_weights(owner: str, weight: object, n: int) -> Array:
    """Return the weights of ``n`` examples as float64; refuse negative ones, and only zeros."""
    weights = check_weight(owner, weight, n)
    if not weights.any():
        raise ValueError(f"{owner}: expected a weight above 0, got only zeros")
    return weights


def map_labels(owner: str, y: object, class_names: Array) -> Array:
    """Return the position of each label in the sorted ``class_names``; refuse unknown labels."""
    labels = as_labels(owner, y)
    try:
        positions = np.minimum(np.searchsorted(class_names, labels), len(class_names) - 1)
        unknown = np.flatnonzero(class_names[positions] != labels)
    except TypeError:
        unknown = np.arange(1)
    if len(unknown):
        i = int(unknown[0])
        known = ", ".join(map(str, class_names[:8])) + (", ..." if len(class_names) > 8 else "")
        raise ValueError(
            f"{owner}: expected the labels of the training part, {known}; got y[{i}] = {labels[i]}"
        )
    return positions


def as_labels(owner: str, y: object) -> Array:
    """Return labels (n,) of integers, strings or booleans as an array; refuse other kinds."""
    array = as_array(owner, "y", y)
    if array.dtype == object and all(isinstance(label, str) for label in array.ravel()):
        array = array.astype(str)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "biuU":
        raise TypeError(
            f"{owner}: expected labels (n,) of integers, strings or booleans, "
            f"got an array {array.shape} of dtype {array.dtype}"
        )
    return array
