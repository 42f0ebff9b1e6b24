r"""SGD on one example at a time, a block of examples with three matrix products.

Step s changes the first layer's weight by ``-lr x_s^T g_s``, where ``g_s`` is the gradient of the
loss with respect to that layer's output. So within a block the output at step t follows from the
weights ``W_0`` at the start of the block::

    z_t = x_t W_t = x_t W_0 + sum_{s<t} (x_t . x_s) (-lr g_s)

``Z = X W_0`` and the Gram matrix ``X X^T`` are two products for the whole block; each example then
costs one short product; ``W_0 + X^T G``, where row s of G is ``-lr g_s``, is the third product.
The updates are those of the plain loop, one after the other; only the order of additions differs.
The bias is the weight of a last feature that is always 1.

Weight decay multiplies W by ``a = 1 - lr weight_decay`` at each step. The matrix that is stored is
V, with ``W = c V``: the scalar c takes the powers of a, and the rows of G are divided by c. So
weight decay costs no pass over the weights, and has an effect even where a rounds to 1 in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minidl.checks import Array
from minidl.dataset import check_labels
from minidl.layers import Linear
from minidl.losses import Perceptron
from minidl.online.runs import OnlineRun
from minidl.online.tails import KERNELS, make_tails
from minidl.optim import flush_weights
from minidl.training import Objective

ALIGNED = 16  # entries to whose multiple rows are filled up: a line of the cache in float32


def max_block_size(run: OnlineRun, block_size: int) -> int:
    """Return ``block_size``, or less where weight decay would shrink c by more than 1000."""
    factor = run.decay_factor
    if factor >= 1:
        return block_size
    if factor <= 0:
        return 1
    return max(1, min(block_size, int(math.log(1e-3) / math.log(factor))))


def soft_threshold(weights: Array, by: Array | float) -> None:
    """Move weights towards 0 but not past it, in place: the proximal step of an L1 penalty."""
    weights -= np.clip(weights, -by, by)


def make_steps(
    runs: Sequence[OnlineRun], objective: Objective, size: int
) -> PerceptronSteps | BlockSteps:
    """Return the fastest implementation for these runs and blocks of at most ``size`` examples."""
    first, loss, y = runs[0], objective.loss, objective.train.y
    if type(loss) in KERNELS and y.ndim == 1:  # the kernels index with the labels
        for last in (run.layers[-1] for run in runs):
            if isinstance(last, Linear):
                logits = np.broadcast_to(0.0, (len(y), last.out_features))
                check_labels(type(loss).__name__, logits, y)
    alone = len(runs) == len(first.layers) == 1
    if alone and type(loss) is Perceptron and first.weight_decay == first.l1 == 0:
        return PerceptronSteps(runs, objective, size)
    return BlockSteps(runs, objective, size)


class PerceptronSteps:
    """One perceptron: ``x W`` with a matrix in cache costs less than the products of a block."""

    def __init__(self, runs: Sequence[OnlineRun], objective: Objective, size: int) -> None:
        (run,) = self.runs = runs
        self.split, self.factors = objective.train, objective.factors
        self.lr = np.array(run.lr, run.model.dtype)
        used, classes = run.first_weights.shape
        # Columns of zeros, so that all rows begin at the same offset in a cache line.
        self.w = np.zeros((classes, -(-used // ALIGNED) * ALIGNED), run.model.dtype)
        self.used, self.first_weights = self.w[:, :used], run.first_weights
        self.rows, self.before = list(self.w), np.empty_like(self.used)
        self.x = np.zeros((size, self.w.shape[1]), self.w.dtype)
        self.x[:, :used] = 1  # the bias is the last column that is used
        self.pixels = self.x[:, : run.first.in_features]
        self.read()

    def read(self) -> None:
        self.used[:] = self.first_weights.T

    def write_back(self) -> None:
        self.first_weights[:] = self.used.T

    def step(self, index: Array) -> list[float]:
        n, labels = len(index), self.split.y[index]
        x = self.x[:n]
        self.split.rows(index, out=self.pixels[:n])
        z = np.empty((n, len(self.w)), self.w.dtype)
        w, rows, add, subtract = self.w, self.rows, np.add, np.subtract
        self.before[:] = self.used
        changes = x if self.lr == 1 else x * self.lr
        if self.factors is not None:
            changes = changes * self.factors[index, None].astype(x.dtype)
        for label, xt, change, zt in zip(labels.tolist(), x, changes, z, strict=True):
            w.dot(xt, zt)
            predicted = zt.argmax()
            if predicted != label:
                add(rows[label], change, rows[label])
                subtract(rows[predicted], change, rows[predicted])
        losses = z.max(axis=1) - z[range(n), labels]
        loss = float(losses.sum() if self.factors is None else losses @ self.factors[index])
        if not math.isfinite(loss):
            self.first_weights[:] = self.before.T
        return [loss]


class BlockSteps:
    """Runs over the same examples, their first layers side by side as the columns of V.

    While blocks are taken, the first layers of the models are out of date until ``write_back``.
    """

    def __init__(self, runs: Sequence[OnlineRun], objective: Objective, size: int) -> None:
        self.runs, self.objective = runs, objective
        dtype, first = runs[0].model.dtype, runs[0].first
        widths = [run.first.out_features for run in runs]
        ends = np.cumsum(widths).tolist()
        self.columns = [slice(end - w, end) for end, w in zip(ends, widths, strict=True)]
        self.v = np.empty((len(runs[0].first_weights), ends[-1]), dtype)
        self.change = np.empty_like(self.v)
        # For each column of V: a, c, and the L1 threshold of one example.
        self.a = np.repeat([run.decay_factor for run in runs], widths)
        self.l1 = np.repeat([run.lr * run.l1 for run in runs], widths)
        self.c, self.powers = np.ones_like(self.a), self.a ** np.arange(size)[:, None]
        self.x, self.gram = np.ones((size, len(self.v)), dtype), np.empty((size, size), dtype)
        self.pixels = self.x[:, : first.in_features]
        # Row t of g holds x_t V until step t, then -lr times the gradient. With 1 on the Gram
        # matrix's diagonal, z_t is one product: row t of that times the first t + 1 rows of g.
        self.z, self.g = np.empty((2, size, ends[-1]), dtype)
        self.rows = [
            (self.gram[t, : t + 1], self.g[: t + 1], self.z[t], self.g[t]) for t in range(size)
        ]
        self.factors = None if objective.factors is None else np.ones(size, dtype)
        self.targets: list[Array] = []
        self.tails = make_tails(self)
        self.read()

    def read(self) -> None:
        """Take the models' first layers, which may have changed since ``write_back``."""
        for run, columns in zip(self.runs, self.columns, strict=True):
            self.v[:, columns] = run.first_weights
            flush_weights(run.tail_theta)
        self.c[:] = 1
        flush_weights(self.v)

    def write_back(self) -> None:
        """Bring the models' first layers up to date."""
        weights = self.v * self.c.astype(self.v.dtype)
        for run, columns in zip(self.runs, self.columns, strict=True):
            run.first_weights[:] = weights[:, columns]

    def step(self, index: Array) -> list[float]:
        """Take one step for each of these examples; return the sum of the losses of each run.

        If a sum is not finite, the weights of that run's model are restored to those before the
        block. That run must not continue; the other runs are not affected.
        """
        if self.c.min() < 0.5:
            self.write_back()
            self.read()
        n, before = len(index), [run.tail_theta.copy() for run in self.runs]
        losses = self._gradients(index)
        for run, columns, tail, loss in zip(self.runs, self.columns, before, losses, strict=True):
            if not math.isfinite(loss):
                run.first_weights[:] = (self.v * self.c)[:, columns]
                run.tail_theta[:] = tail
        np.dot(self.x[:n].T, self.g[:n], out=self.change)
        np.add(self.v, self.change, out=self.v)
        self.c *= self.a**n
        if self.l1.any():
            soft_threshold(self.v, (n * self.l1 / self.c).astype(self.v.dtype))
            for run in self.runs:
                soft_threshold(run.tail_theta, n * run.lr * run.l1)
        return losses

    def _gradients(self, index: Array) -> list[float]:
        """Take the steps of all layers but the first, whose gradients are stored in G."""
        n, objective, multiply = len(index), self.objective, np.multiply
        x = self.x[:n]
        self.targets[:] = objective.train.targets(index)
        objective.train.rows(index, out=self.pixels[:n])
        np.dot(x, self.v, out=self.g[:n])
        np.matmul(x, x.T, out=self.gram[:n, :n])
        np.fill_diagonal(self.gram, 1)
        if self.factors is not None and objective.factors is not None:
            self.factors[:n] = objective.factors[index]
        # With weight decay: outputs times c a^t, gradients over c a^(t+1).
        if decays := bool((self.a != 1).any()):
            powers = self.c * self.powers[:n]
            scales = list(powers.astype(self.v.dtype))
            inverses = list((1 / (self.a * powers)).astype(self.v.dtype))
        y, steps = self.targets[0], [tail.step for tail in self.tails]
        for t, (label, (k, past, z, g)) in enumerate(zip(y.tolist(), self.rows, strict=False)):
            k.dot(past, z)
            if decays:
                multiply(z, scales[t], z)
            for step in steps:
                step(t, label)
            if decays:
                multiply(g, inverses[t], g)
        sums = [np.atleast_1d(tail.losses(y).sum(axis=0)) for tail in self.tails]
        return [float(loss) for losses in sums for loss in losses]
