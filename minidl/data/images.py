"""Examples as images, and names of classes."""

from __future__ import annotations

import math
import string

import numpy as np

from minidl.data.dataset import Dataset
from minidl.data.split import Split
from minidl.typing import Array


def as_images(
    dataset: Dataset, split: Split, rows: Array, transpose: bool | None = None
) -> Array | None:
    """Return rows of a part as uint8 images ``(n, side, side[, 3])``.

    None if the features of an example are not the pixels of a square image. ``transpose`` swaps
    the axes of images that are stored column by column; by default ``dataset.transposed``.
    """
    channels = 1 if math.isqrt(dataset.features) ** 2 == dataset.features else 3
    side = math.isqrt(dataset.features // channels)
    if side**2 * channels != dataset.features or side < 2 or not dataset.classes:
        return None
    low, high = float(split.x.min()), float(split.x.max())
    x = np.asarray(split.x[rows], np.float64)
    grey = np.round(255 * (x - low) / max(high - low, 1e-300)).astype(np.uint8)
    images = grey.reshape(-1, side, side, *([3] if channels == 3 else []))
    stored_by_column = dataset.transposed if transpose is None else transpose
    return images.swapaxes(1, 2) if stored_by_column else images


def class_name(dataset: Dataset, k: int) -> str:
    """Return the name of class ``k``; without names its letter if there are 26, else ``k``."""
    if dataset.class_names is not None:
        return str(dataset.class_names[k])
    return string.ascii_uppercase[k] if dataset.classes == 26 else str(k)
