"""An independent numerical derivative: central differences in float64, entry by entry."""

from collections.abc import Callable

import numpy as np


def gradient(f: Callable[[], float], x: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """The derivative of ``f()`` with respect to every entry of ``x``, changed in place."""
    result = np.empty_like(x)
    for i in np.ndindex(x.shape):
        before = x[i]
        x[i] = before + eps
        above = f()
        x[i] = before - eps
        below = f()
        x[i] = before
        result[i] = (above - below) / (2 * eps)
    return result


def agree(analytic: np.ndarray, numeric: np.ndarray, rtol: float = 1e-6) -> bool:
    """Whether two gradients are equal, relative to the larger of their largest entries."""
    scale = max(np.abs(analytic).max(initial=0), np.abs(numeric).max(initial=0), 1e-3)
    return (
        analytic.shape == numeric.shape and np.abs(analytic - numeric).max(initial=0) < rtol * scale
    )
