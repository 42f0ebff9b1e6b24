r"""SGD on one example at a time, a block of examples from three matrix products.

A step changes the first layer's weight by ``-lr x_t^T g_t``, where ``g_t`` is the gradient of the
loss with respect to that layer's output. So within a block the output at step t needs none of
the weights in between::

    z_t = x_t W_t = x_t W_0 + sum_{s<t} (x_t . x_s) (-lr g_s)

``Z = X W_0`` and the Gram matrix ``X X^T`` are two products for the whole block; with them each
example costs one short product; ``W_0 + X^T G``, where row s of G is ``-lr g_s``, is the third.
The updates are those of the plain loop, one after the other: only sums are added up in another
order. The bias is the weight of a last feature that is always 1.

An L2 penalty multiplies W by ``a = 1 - lr l2`` at each step. What is kept is V with ``W = c V``:
the number c takes the powers of a, and G is kept in units of c. So the smallest penalty counts,
even where ``1 - lr l2`` rounds to 1 in float32, and costs no pass over the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from minidl.data.dataset import Split
from minidl.losses import Loss, Perceptron
from minidl.online.tails import OnlineRun, make_tails
from minidl.optim import flush_weights
from minidl.typing import Array


def longest(runs: Sequence[OnlineRun], block: int) -> int:
    """As many examples as a block may have: fewer where c would shrink by more than 1000."""
    least = min(run.keep for run in runs)
    if least >= 1:
        return block
    return max(1, min(block, int(math.log(1e-3) / math.log(least)))) if least > 0 else 1


def shrink(weights: Array, by: Array | float) -> None:
    """Move weights towards 0, and no further: the proximal step of an L1 penalty, in place."""
    weights -= np.clip(weights, -by, by)


def weights_of(run: OnlineRun) -> Array:
    """A first layer's weight, and under it the bias: in ``theta`` one follows the other."""
    return run.first.theta.reshape(-1, run.first.out_features)


class Steps(Protocol):
    """Takes one example after another for some runs."""

    def step(self, index: Array) -> list[float]:
        """Take these examples one after another; the sum of their losses for each run.

        Where a sum is not finite, the run's model has its weights from before the block again;
        the run must not go on, but does the others no harm.
        """

    def write_back(self) -> None:
        """Bring the models' first layers up to date."""


def make_steps(runs: Sequence[OnlineRun], split: Split, loss: Loss) -> Steps:
    """The fastest way for these runs."""
    first = runs[0]
    alone = len(runs) == len(first.layers) == 1
    if alone and type(loss) is Perceptron and first.l2 == first.l1 == 0:
        return Mistakes(first, split)
    return SideBySide(runs, split, loss)


class Mistakes:
    """One perceptron. A mistake changes two rows of W, so there is nothing to put off.

    ``W x`` with a matrix that stays in cache costs less than its share of a block's products.
    """

    def __init__(self, run: OnlineRun, split: Split) -> None:
        self.run, self.split, self.rate = run, split, np.array(run.lr, run.model.dtype)
        self.w = np.ascontiguousarray(weights_of(run).T)
        self.rows, self.before = list(self.w), np.empty_like(self.w)

    def step(self, index: Array) -> list[float]:
        labels = self.split.y[index]
        x = np.ones((len(index), self.w.shape[1]), self.w.dtype)
        self.split.rows(index, out=x[:, : self.run.first.in_features])
        z = np.empty((len(index), len(self.w)), self.w.dtype)
        w, rows, add, subtract = self.w, self.rows, np.add, np.subtract
        self.before[:] = w
        with np.errstate(over="ignore", invalid="ignore"):
            moves = x if self.rate == 1 else x * self.rate
            for label, xt, move, zt in zip(labels.tolist(), x, moves, z, strict=True):
                w.dot(xt, zt)
                predicted = zt.argmax()
                if predicted != label:
                    add(rows[label], move, rows[label])
                    subtract(rows[predicted], move, rows[predicted])
            loss = float((z.max(axis=1) - z[range(len(z)), labels]).sum())
        if not math.isfinite(loss):
            weights_of(self.run)[:] = self.before.T
        return [loss]

    def write_back(self) -> None:
        weights_of(self.run)[:] = self.w.T


class SideBySide:
    """Runs over the same examples, their first layers' weights side by side in one matrix V.

    While blocks are taken, the models' own first layers are out of date: ``write_back``.
    """

    def __init__(self, runs: Sequence[OnlineRun], split: Split, loss: Loss) -> None:
        self.runs, self.split, self.loss = runs, split, loss
        self.dtype, self.bias = runs[0].model.dtype, runs[0].first.bias is not None
        widths = [run.first.out_features for run in runs]
        ends = np.cumsum(widths).tolist()
        self.columns = [slice(end - w, end) for end, w in zip(ends, widths, strict=True)]
        self.v = np.hstack([weights_of(run) for run in runs])
        self.decays, self.sparse = (any(getattr(r, k) for r in runs) for k in ("l2", "l1"))
        # For each column: a, c, and how far an example's L1 penalty goes.
        self.a, self.l1 = (
            np.repeat(values, widths)
            for values in ([r.keep for r in runs], [r.lr * r.l1 for r in runs])
        )
        self.c = np.ones_like(self.a)
        self._blocks: dict[int, _Block] = {}

    def step(self, index: Array) -> list[float]:
        n = len(index)
        if n not in self._blocks:
            self._blocks[n] = _Block(n, self)
        tails = [run.tail.copy() for run in self.runs]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            losses = self._blocks[n].gradients(index)
            for r, loss in enumerate(losses):
                if not math.isfinite(loss):
                    weights_of(self.runs[r])[:] = (self.v * self.c)[:, self.columns[r]]
                    self.runs[r].tail[:] = tails[r]
            self._blocks[n].update()
            self.c *= self.a**n
            if self.sparse:
                shrink(self.v, (n * self.l1 / self.c).astype(self.dtype))
                for run in self.runs:
                    shrink(run.tail, n * run.lr * run.l1)
            if self.c.min() < 0.5:
                self._fold()
        return losses

    def _fold(self) -> None:
        """Let V be W."""
        self.v *= self.c.astype(self.dtype)
        self.c[:] = 1
        flush_weights(self.v)

    def write_back(self) -> None:
        self._fold()
        for run, columns in zip(self.runs, self.columns, strict=True):
            weights_of(run)[:] = self.v[:, columns]
            flush_weights(run.tail)


class _Block:
    """Buffers for n examples; views on their rows, made once."""

    def __init__(self, n: int, owner: SideBySide) -> None:
        self.owner = owner
        features, width = owner.v.shape
        self.x = np.ones((n, features), owner.dtype)
        self.pixels = self.x[:, : features - owner.bias]
        self.gram = np.empty((n, n), owner.dtype)
        self.diagonal = self.gram.reshape(-1)[:: n + 1]
        # Row t of g holds x_t V until step t, then -lr times the gradient. With 1 on the Gram
        # matrix's diagonal, z_t is one product: row t of that times the first t + 1 rows of g.
        self.z, self.g = (np.empty((n, width), owner.dtype) for _ in range(2))
        self.rows = [
            (self.gram[t, : t + 1], self.g[: t + 1], self.z[t], self.g[t]) for t in range(n)
        ]
        self.change = np.empty_like(owner.v)
        self.tails = make_tails(owner.runs, owner.loss, owner.columns, self.z, self.g)
        self.powers = owner.a ** np.arange(n)[:, None]

    def gradients(self, index: Array) -> list[float]:
        """One step an example; V, which must wait for ``update``, comes in by its products."""
        owner, x = self.owner, self.x
        y = owner.split.y[index]
        owner.split.rows(index, out=self.pixels)
        np.dot(x, owner.v, out=self.g)
        np.dot(x, x.T, out=self.gram)
        self.diagonal[:] = 1
        if owner.decays:
            self._decaying_steps(y.tolist())
        else:
            self._steps(y.tolist())
        return [loss for tail in self.tails for loss in tail.losses(y)]

    def update(self) -> None:
        """``V += X^T G``."""
        np.dot(self.x.T, self.g, out=self.change)
        np.add(self.owner.v, self.change, out=self.owner.v)

    def _steps(self, labels: list[float]) -> None:
        steps = [tail.step for tail in self.tails]
        for t, (label, (k, past, z, _)) in enumerate(zip(labels, self.rows, strict=True)):
            k.dot(past, z)
            for step in steps:
                step(t, label)

    def _decaying_steps(self, labels: list[float]) -> None:
        """The same, with outputs in units of ``c a^t`` and gradients in those of ``c a^(t+1)``."""
        multiply, steps = np.multiply, [tail.step for tail in self.tails]
        c, a = self.owner.c, self.owner.a
        up = (c * self.powers).astype(self.z.dtype)
        down = (1 / (c * a * self.powers)).astype(self.z.dtype)
        rows = zip(labels, self.rows, list(up), list(down), strict=True)
        for t, (label, (k, past, z, g), unit, inverse) in enumerate(rows):
            k.dot(past, z)
            multiply(z, unit, z)
            for step in steps:
                step(t, label)
            multiply(g, inverse, g)
