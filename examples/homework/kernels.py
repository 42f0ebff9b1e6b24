"""The kernels of networks of infinite width, regression with them, and networks of finite width.

``docs/infinite_width.md`` derives them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import minidl
from minidl.checks import Array, Backward

BLOCK = 256  # rows whose kernel is computed at once
JITTERS = (0, 1e-12, 1e-10, 1e-8, 1e-6)  # shares of the mean diagonal
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
    """Solve (K + jitter I) alpha = y for the first jitter with which it is positive definite.

    Leave-one-out without refits: ``alone_i = y_i - alpha_i / P_ii``, ``P = (K + jitter I)^-1``.
    """
    matrix = np.concatenate([kernel(rows, x) for rows in blocks(x)])
    diagonal = matrix.diagonal().copy()
    for jitter in np.mean(diagonal) * np.array(JITTERS):
        np.fill_diagonal(matrix, diagonal + jitter)
        with contextlib.suppress(np.linalg.LinAlgError):
            np.linalg.cholesky(matrix)
            inverse = np.linalg.inv(matrix)
            alpha = inverse @ y
            alone = y - alpha / inverse.diagonal()[:, None]
            np.fill_diagonal(matrix, diagonal)
            return Solution(alpha, matrix @ alpha, alone, float(jitter))
    raise ValueError(f"the kernel is not positive definite, even with {jitter:.1e} on its diagonal")


def blocks(x: Array) -> list[Array]:
    """Return the rows in parts, since the steps of a kernel take several times its memory."""
    return np.array_split(x, -(-len(x) // BLOCK))


def pixels(split: minidl.Split) -> Array:
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
        return np.asarray((1 - self.rate * self.w / len(self.x)) ** steps)[:, None]

    def loss(self, steps: int) -> float:
        """Return half the mean squared error at the training examples."""
        return float(np.sum((self.left(steps) * self.y) ** 2) / (2 * len(self.x)))

    def outputs(self, z: Array, steps: int) -> Array:
        """Return the outputs at new examples."""
        alpha = self.v @ ((1 - self.left(steps)) / self.w[:, None] * self.y)
        return np.asarray(kernels(z, self.x, *self.options)[1] @ alpha)


class Scaled(minidl.Layer):
    """A linear layer of standard normal parameters, so that one learning rate suits every width.

    forward: ``y = sw / sqrt(in) x W + sb b``

    backward: ``dW = sw / sqrt(in) x' dy``, ``db = sb sum_n dy``, ``dx = sw / sqrt(in) dy W'``
    """

    skips_input_grad = True

    def __init__(self, n_in: int, n_out: int, sw2: float, sb2: float, rng: np.random.Generator):
        self.in_features, self.scale, self.sb = n_in, np.sqrt(sw2 / n_in), np.sqrt(sb2)
        self.weight = minidl.Parameter(rng.normal(size=(n_in, n_out)))
        self.bias = minidl.Parameter(rng.normal(size=n_out) if sb2 else np.zeros(n_out))

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        y = x @ (self.scale * self.weight.value) + self.sb * self.bias.value

        def backward(dy: Array, input_grad: bool = True) -> Array | None:
            self.weight.grad = self.scale * (x.T @ dy)
            self.bias.grad = self.sb * dy.sum(axis=0)
            return self.scale * (dy @ self.weight.value.T) if input_grad else None

        return y, backward


def network(
    d: int, width: int, k: int, layers: int, sw2: float, sb2: float, seed: Sequence[int]
) -> minidl.Sequential:
    """Return a network whose kernels go to those of ``kernels``."""
    rng = np.random.default_rng(seed)
    hidden: list[minidl.Layer] = []
    for i in range(layers):
        hidden += [Scaled(width if i else d, width, sw2, sb2, rng), minidl.ReLU()]
    return minidl.Sequential(*hidden, Scaled(width, k, 1.0, 0.0, rng))


def sampled_kernels(model: minidl.Sequential, x: Array) -> tuple[Array, Array]:
    """Return h h' / width of the last hidden layer, and the products of the outputs' gradients."""
    h, gradients = minidl.Sequential(*model.layers[:-1])(x), []
    for row in x:
        _, backward = model.forward(row[None], train=True)
        backward(np.ones((1, 1)))
        gradients.append(model.grad.copy())
    g = np.array(gradients)
    return h @ h.T / h.shape[1], g @ g.T


def train(
    model: minidl.Sequential, x: Array, y: Array, z: Array, rate: float, steps: Sequence[int]
) -> tuple[list[Array], list[float]]:
    """Return the outputs at z after each of ``steps``, and the loss before every step.

    The initial outputs are subtracted at z, and added to y, which is the same for the training.
    """
    before = minidl.outputs(model, z)
    data = minidl.Dataset((x, y + minidl.outputs(model, x)))
    optimizer, history, found = minidl.SGD(model, rate), minidl.History(), []
    options: dict[str, Any] = {"batch_size": len(x), "rng": 0, "parts": (), "history": history}
    for until in steps:  # with a history, fit goes on after the last step in it
        minidl.fit(model, data, minidl.SquaredError(), optimizer, epochs=until, **options)
        found.append(minidl.outputs(model, z) - before)
    return found, history.column("train_loss")[1:]
