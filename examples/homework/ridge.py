"""Linear least squares and ridge regression in closed form."""

from __future__ import annotations

import numpy as np

from minidl.checks import Array, as_floats, as_numbers, check_float


def ridge(x: Array, y: Array, l2: float) -> Array:
    r"""Return the weights ``w`` with the least ``||x w - y||^2 + l2 ||w||^2``.

    With the singular value decomposition ``x = U diag(s) V^T`` the solution is

        ``w = V diag(s / (s^2 + l2)) U^T y``

    Singular values below ``max(x.shape) * eps * max(s)`` count as 0, and the weights have no
    component along their directions. So ``l2=0`` gives the solution of least squares with the
    smallest norm, for a singular problem too. ``x^T x`` is never formed, since its condition number
    is the square of that of ``x``.

    Parameters
    ----------
    x : array, shape (n, features), float32 or float64
        There is no intercept; append a column of ones for one, whose weight is penalised too.
    y : array, shape (n,) or (n, outputs)
    l2 : float >= 0
        0 is least squares.

    Returns
    -------
    array, shape (features,) or (features, outputs), of the dtype of ``x``

    Examples
    --------
    >>> w = ridge(np.column_stack([x, np.ones(len(x))]), y, l2=1e-4)
    """
    l2 = check_float("ridge", "l2", l2, low=0)
    x, y = as_floats("ridge", "x", x), as_numbers("ridge", "y", y, "numbers")
    if x.ndim != 2 or y.ndim not in (1, 2) or len(x) != len(y) or x.size == 0:
        raise ValueError(
            f"ridge: expected x (n, features) and y (n,) or (n, outputs), not empty, "
            f"got x {x.shape} and y {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("ridge: expected finite x and y, got NaN or infinity")
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    kept = s > max(x.shape) * np.finfo(x.dtype).eps * s[0]
    u, vt, s = u[:, kept], vt[kept], s[kept].astype(np.float64)
    # s / (s^2 + l2), in a form in which s^2 can neither overflow nor underflow.
    factors = (1 / (s + l2 / s)).astype(x.dtype)
    projections = u.T @ y.astype(x.dtype, copy=False)
    weights: Array = vt.T @ (projections.T * factors).T
    return weights
