"""An independent numerical derivative: five-point differences in float64, entry by entry."""

from collections.abc import Callable

import numpy as np


def gradient(f: Callable[[], float], x: np.ndarray, eps: float = 2e-5) -> np.ndarray:
    """The derivative of ``f()`` with respect to every entry of ``x``, changed in place.

    The error is of order ``eps**4``, which LayerNorm needs: its curvature is high where a variance
    is small. If the one-sided differences disagree, there is a kink between the points or a very
    high curvature, and that entry is measured again with a hundredth of the step.
    """
    result, centre = np.empty_like(x), f()
    for i in np.ndindex(x.shape):
        before = x[i]
        for step in (eps, eps / 100):
            values = []
            for k in (-2, -1, 1, 2):
                x[i] = before + k * step
                values.append(f())
            x[i] = before
            result[i] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
            inner, outer = values[1] - 2 * centre + values[2], values[0] - 2 * centre + values[3]
            if abs(inner) < 1e-3 * step and abs(outer) < 2e-3 * step:
                break
    return result


def agree(analytic: np.ndarray, numeric: np.ndarray, rtol: float = 1e-6) -> bool:
    """Return whether two gradients are equal, relative to the larger of their largest entries."""
    if analytic.shape != numeric.shape:
        return False
    scale = max(np.abs(analytic).max(initial=0), np.abs(numeric).max(initial=0), 1e-3)
    return bool(np.abs(analytic - numeric).max(initial=0) < rtol * scale)


def flat(state, model=None):
    """Return the values of a state in one vector; of a model with buffers, its parameters alone."""
    names = state if model is None else dict(model.named_parameters())
    return np.concatenate([np.ravel(state[name]) for name in names])
