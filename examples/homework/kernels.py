"""The kernels of networks of infinite width, and regression with a kernel on all examples at once.

``docs/infinite_width.md`` derives them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from minidl import Split
from minidl.checks import Array

BLOCK = 256
"""Rows of a block of the matrix."""
JITTERS = (0, 1e-12, 1e-10, 1e-8, 1e-6)
"""Jitters, as shares of the mean diagonal: the first for which Cholesky succeeds is added."""
KERNELS = ("NNGP", "NTK")
Kernel = Callable[[Array, Array], Array]


def kernels(
    x: Array, z: Array, layers: int = 1, sw2: float = 2.0, sb2: float | Sequence[float] = 0.0
) -> tuple[Array, Array]:
    """Return NNGP and NTK of all rows of x with all rows of z: (n, d), (m, d) to (n, m) each.

    Both are ``x.z / d`` at the input. Each of the hidden layers makes of them, with
    ``S = sw2 NNGP + sb2 = r cos t``, ``r = sqrt(S(x, x) S(z, z))`` and ``T = sw2 NTK + sb2``,

    ``NNGP = r (sin t + (pi - t) cos t) / (2 pi)``, ``NTK = NNGP + T (pi - t) / (2 pi)``

    ``sb2`` is one number, or one for each layer.
    """
    nngp = ntk = x @ z.T / x.shape[1]
    xx, zz = (np.mean(a * a, axis=1) for a in (x, z))
    for bias in np.broadcast_to(sb2, layers):
        s, t, xx, zz = (sw2 * k + bias for k in (nngp, ntk, xx, zz))
        r = np.sqrt(np.outer(xx, zz))
        cosine = np.divide(s, r, out=np.zeros_like(s), where=r > 0)
        # Of equal rows, rounding would leave an angle of up to 1e-7.
        cosine = np.where(1 - cosine < 1e-13, 1.0, np.maximum(cosine, -1))
        on = (np.pi - np.arccos(cosine)) / (2 * np.pi)  # the share of units that are on for both
        nngp = r * (np.sqrt(1 - cosine**2) / (2 * np.pi) + on * cosine)
        ntk = nngp + t * on
        xx, zz = xx / 2, zz / 2
    return nngp, ntk


class Solution(NamedTuple):
    """Kernel regression on n examples: f(z) = k(z, x) alpha.

    ``fitted`` is K alpha, ``alone`` the output at each example of regression on all others.
    """

    alpha: Array
    fitted: Array
    alone: Array
    jitter: float


def solve(kernel: Kernel, x: Array, y: Array) -> Solution:
    """Solve (K + jitter I) alpha = y by Cholesky; y is (n, outputs).

    Leave-one-out without refits: ``alone_i = y_i - alpha_i / P_ii``, ``P = (K + jitter I)^-1``.
    """
    blocks = [slice(a, min(a + BLOCK, len(x))) for a in range(0, len(x), BLOCK)]
    matrix = np.empty((len(x), len(x)))  # right of the diagonal K, left the inverse factor
    for b in blocks:
        matrix[b, b.start :] = kernel(x[b], x[b.start :])
    diagonal = [matrix[b, b].copy() for b in blocks]
    for jitter in np.mean(matrix.diagonal()) * np.array(JITTERS):
        for b, block in zip(blocks, diagonal, strict=True):
            matrix[b, b] = block + jitter * np.eye(len(block))
            matrix[b.stop :, b] = matrix[b, b.stop :].T
        try:
            alpha, precision = invert(matrix, blocks, y)
        except np.linalg.LinAlgError:
            continue
        fitted = np.zeros(y.shape)
        for b, block in zip(blocks, diagonal, strict=True):
            fitted[b] += block @ alpha[b] + matrix[b, b.stop :] @ alpha[b.stop :]
            fitted[b.stop :] += matrix[b, b.stop :].T @ alpha[b]
        return Solution(alpha, fitted, y - alpha / precision[:, None], float(jitter))
    raise ValueError(f"the kernel is not positive definite, even with {jitter:.1e} on its diagonal")


def invert(matrix: Array, blocks: Sequence[slice], y: Array) -> tuple[Array, Array]:
    """Put L^-1 in place of the lower triangle of matrix = L L'; return P y and the diagonal of P.

    For each block: its columns of L from those before, then its rows of L^-1. P = L'^-1 L^-1.
    """
    alpha, precision = np.zeros(y.shape), np.zeros(len(y))
    for b in blocks:
        a, size = b.start, b.stop - b.start
        column = matrix[a:, b] - matrix[a:, :a] @ matrix[b, :a].T
        inverse = np.tril(np.linalg.inv(np.linalg.cholesky(column[:size])))
        matrix[b.stop :, b] = column[size:] @ inverse.T
        row = [matrix[b, j.start : a] @ matrix[j.start : a, j] for j in blocks if j.start < a]
        matrix[b, : b.stop] = -inverse @ np.concatenate([*row, -np.eye(size)], axis=1)
        alpha[: b.stop] += matrix[b, : b.stop].T @ (matrix[b, : b.stop] @ y[: b.stop])
        precision[: b.stop] += np.sum(matrix[b, : b.stop] ** 2, axis=0)
    return alpha, precision


def pixels(split: Split) -> Array:
    """Return all rows in float64."""
    return split.rows(slice(None), np.float64)


def merge(x: Array, y: Array, classes: int) -> tuple[Array, Array, Array]:
    """Return the distinct rows, which one each example is, and how often each has each label."""
    rows, group = np.unique(x, axis=0, return_inverse=True)
    counts = np.zeros((len(rows), classes))
    np.add.at(counts, (group.reshape(-1), y), 1)
    return rows, group.reshape(-1), counts


class Exact:
    """Gradient descent from outputs 0 on a network of infinite width, after any number of steps.

    With the NTK K = V diag(w) V', each step multiplies the error along an eigenvector by
    ``1 - rate w / n``. So ``f_t(z) = k(z, x) V ((1 - (1 - rate w / n)^t) / w) V'y``. The rate makes
    the first factor 0, which is half of the largest stable one.
    """

    def __init__(self, x: Array, y: Array, layers: int, sw2: float, sb2: float):
        self.x, self.options = x, (layers, sw2, sb2)
        self.w, self.v = np.linalg.eigh(kernels(x, x, *self.options)[1])
        self.rate, self.y = len(x) / float(self.w[-1]), self.v.T @ y

    def left(self, steps: int) -> Array:
        """Return the share of the error that is left along each eigenvector: (n, 1)."""
        share: Array = (1 - self.rate * self.w / len(self.x)) ** steps
        return share[:, None]

    def loss(self, steps: int) -> float:
        """Return half the mean squared error at the training examples."""
        return float(np.sum((self.left(steps) * self.y) ** 2) / (2 * len(self.x)))

    def outputs(self, z: Array, steps: int) -> Array:
        """Return the outputs at new examples."""
        alpha = self.v @ ((1 - self.left(steps)) / self.w[:, None] * self.y)
        found: Array = kernels(z, self.x, *self.options)[1] @ alpha
        return found
