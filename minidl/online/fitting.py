"""SGD on one example at a time, as fast as on batches: ``fit_online`` and ``fit_side_by_side``.

How: ``minidl.online.blocks``. What it is equal to: the plain loop, here as ``block=1``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from minidl.data.dataset import Dataset
from minidl.history import History
from minidl.layer import Layer, write_gradients
from minidl.losses import Loss
from minidl.online.blocks import Steps, longest, make_steps, shrink
from minidl.online.tails import OnlineRun
from minidl.optim import SGD
from minidl.threads import one_blas_thread
from minidl.training import (
    Callback,
    NonFiniteLossError,
    Recorder,
    Run,
    diagnose,
    epoch_rng,
)
from minidl.typing import Array, Rng
from minidl.validation import check_int

__all__ = ["OnlineRun", "compounding", "fit_online", "fit_side_by_side"]

Order = Rng | Iterator[Array]
"""What orders the examples: as in ``fit``, or the orders themselves, one for each epoch."""


def compounding(n: int, rng: np.random.RandomState | np.random.Generator) -> Iterator[Array]:
    """The course's order of n examples: in each epoch, a permutation of the epoch before.

    With ``numpy.random.RandomState(42)`` these are the very orders of its scripts.
    """
    order = np.arange(n)
    while True:
        order = order[rng.permutation(n)]
        yield order


def fit_online(
    model: Layer,
    dataset: Dataset,
    loss: Loss,
    *,
    lr: float,
    l2: float = 0.0,
    l1: float = 0.0,
    epochs: int,
    block: int = 64,
    rng: Order,
    callbacks: Sequence[Callback] = (),
    restore_best: bool = False,
    evaluate_train: bool = True,
    history: History | None = None,
) -> History:
    r"""Train a model by SGD with batch size 1.

    Every step is ``w -= lr (grad + l2 w)`` on all parameters, as with
    ``fit(..., SGD(model, lr, weight_decay=l2), batch_size=1)``, and with the same ``rng`` it
    takes the same steps, up to the rounding of sums; but in blocks, at a tenth of the time.

    Parameters
    ----------
    model : Layer
        A ``Linear``, or a ``Sequential`` that begins with one. What follows may be any layers,
        dropout included, whose masks are those of the plain loop. None, or ReLU and Linear in
        turn, go fastest, under ``CrossEntropy`` and ``Perceptron``.
    dataset : Dataset
    loss : Loss
    lr, l2 : float
    l1 : float
        After each block of n examples, every parameter moves by ``n lr l1`` towards 0 and stops
        there: proximal gradient descent with one proximal step a block.
    epochs : int
    block : int
        Examples in a block. 1 is the plain loop: forward, loss, backward, step.
    rng : int, Generator, or iterator of arrays
        As in ``fit``, or the orders themselves, one for each epoch (see ``compounding``).
    callbacks : sequence of Callback
        ``on_batch`` is called after each block.
    restore_best, evaluate_train, history
        As in ``fit``.

    Returns
    -------
    History
        As that of ``fit``. If training does not come to its end, the model has the weights of
        the last epoch that did (the best ones with ``restore_best``).

    Raises
    ------
    NonFiniteLossError
        When a loss is NaN or infinite, with the epoch, the example's place in it and the first
        layer whose output is not finite.
    """
    run = OnlineRun(model, lr, l2, l1, History() if history is None else history)
    how = (epochs, block, rng, restore_best, evaluate_train, callbacks)
    with one_blas_thread():
        _train([run], dataset, loss, *how)
    if run.error is not None:
        raise NonFiniteLossError(run.error)
    return run.history


def fit_side_by_side(
    runs: Sequence[OnlineRun],
    dataset: Dataset,
    loss: Loss,
    *,
    epochs: int,
    block: int = 64,
    rng: Order,
    restore_best: bool = False,
    evaluate_train: bool = True,
) -> list[History]:
    """Train several models on the same examples in one pass.

    Each gets what ``fit_online`` would give it alone. Six linear models with softmax
    cross-entropy take about 2.5 times as long as one.

    Parameters
    ----------
    runs : sequence of OnlineRun
        Their first layers have the same number of inputs, all or none of them a bias.
    dataset, loss, epochs, block, rng, restore_best, evaluate_train
        As in ``fit_online``.

    Returns
    -------
    list of History
        Those of the runs. A run whose loss is not finite ends there: its ``error`` says why,
        and the others go on. The seconds of an epoch are those of all runs together.
    """
    if not runs:
        raise ValueError("fit_side_by_side: expected at least one run")
    shapes = {(r.first.in_features, r.first.bias is not None, r.model.dtype) for r in runs}
    if len(shapes) > 1:
        raise ValueError(
            "fit_side_by_side: expected first layers alike in inputs, bias and dtype, got "
            + ", ".join(f"{run.first!r} in {run.model.dtype}" for run in runs)
        )
    if len({id(run.model) for run in runs}) < len(runs):
        raise ValueError("fit_side_by_side: expected a model of its own for each run")
    if len({len(run.history) for run in runs}) > 1:
        raise ValueError("fit_side_by_side: expected histories of the same length")
    with one_blas_thread():
        _train(runs, dataset, loss, epochs, block, rng, restore_best, evaluate_train)
    return [run.history for run in runs]


class _Trainee:
    """A run with what ``fit`` has: an optimizer for plain steps, and the recorder."""

    def __init__(
        self, online: OnlineRun, dataset: Dataset, loss: Loss, epochs: int, block: int, train: bool
    ) -> None:
        self.online, self.model, self.split, self.loss = online, online.model, dataset.train, loss
        optimizer = SGD(online.model, online.lr, weight_decay=online.l2)
        blocks = -(-len(dataset.train) // block)
        self.run = Run(online.model, optimizer, online.history, epochs, blocks)
        self._record = Recorder(self.run, dataset, loss, train)
        self.weights, self.total = online.model.theta.copy(), 0.0

    def record(self, train_loss: float | None) -> None:
        """After an epoch."""
        self._record(train_loss)
        self.weights, self.total = self.model.theta.copy(), 0.0

    def plain_step(self, row: Array, where: tuple[int, int]) -> None:
        """One example; ``row`` is its number, alone in an array."""
        x, y = self.split.rows(row, self.model.dtype), self.split.y[row]
        logits, backward = self.model.forward(x, train=True)
        value, dlogits = self.loss(logits, y)
        if not math.isfinite(value):
            raise NonFiniteLossError(diagnose(self.model, x, value, *where))
        write_gradients(self.model, backward, dlogits)
        self.run.optimizer.step()
        if self.online.l1:
            shrink(self.model.theta, self.online.lr * self.online.l1)
        self.total += value

    def plain_steps(self, rows: Array, epoch: int, start: int) -> None:
        """Several examples; where the loss is not finite, the run ends with that error."""
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                for i in range(len(rows)):
                    self.plain_step(rows[i : i + 1], (epoch, start + i))
        except NonFiniteLossError as error:
            self.online.error = str(error)

    def explain(self, rows: Array, epoch: int, start: int) -> None:
        """End a run whose loss was not finite in this block, with the plain loop's reason."""
        self.plain_steps(rows, epoch, start)
        if self.online.error is None:
            end = start + len(rows)
            self.online.error = f"epoch {epoch}, steps {start} to {end}: the loss is not finite"


def _train(
    runs: Sequence[OnlineRun],
    dataset: Dataset,
    loss: Loss,
    epochs: int,
    block: int,
    rng: Order,
    restore_best: bool,
    evaluate_train: bool,
    callbacks: Sequence[Callback] = (),
) -> None:
    epochs = check_int("fit_online", "epochs", epochs, low=0)
    block = min(longest(runs, check_int("fit_online", "block", block)), len(dataset.train))
    everyone = [_Trainee(run, dataset, loss, epochs, block, evaluate_train) for run in runs]
    going, leader = everyone, everyone[0].run
    on_batch = [c for c in callbacks if type(c).on_batch is not Callback.on_batch]
    for callback in callbacks:
        callback.on_start(leader)
    try:
        if not leader.history.records:
            for trainee in everyone:
                trainee.record(None)
        for epoch in range(len(leader.history), epochs + 1):
            order = _order(rng, epoch, len(dataset.train))
            for _ in _blocks(going, order, epoch, block):
                for callback in on_batch:
                    callback.on_batch(leader)
            going = [trainee for trainee in going if trainee.online.error is None]
            for trainee in going:
                trainee.record(trainee.total / len(order))
            stops = [callback.on_epoch(leader) for callback in callbacks if going]
            if any(stops) or not going:
                break
    finally:
        for trainee in everyone:
            best = trainee.online.history.best_theta if restore_best else None
            trainee.model.theta[:] = trainee.weights if best is None else best
        for callback in callbacks:
            callback.on_end(leader)


def _blocks(going: Sequence[_Trainee], order: Array, epoch: int, block: int) -> Iterator[None]:
    """One epoch, a block at a time."""
    together: Steps | None = None
    for start in range(0, len(order), block):
        rows = order[start : start + block]
        going = [trainee for trainee in going if trainee.online.error is None]
        if not going:
            return
        if block == 1:
            for trainee in going:
                trainee.plain_steps(rows, epoch, start)
        else:
            if together is None:
                together = make_steps([t.online for t in going], going[0].split, going[0].loss)
            for trainee, total in zip(going, together.step(rows), strict=True):
                trainee.total += total
                if not math.isfinite(total):
                    trainee.explain(rows, epoch, start)
            if any(trainee.online.error for trainee in going):
                together.write_back()
                together = None
        yield
    if together is not None:
        together.write_back()


def _order(rng: Order, epoch: int, n: int) -> Array:
    """The rows of one epoch."""
    if not isinstance(rng, Iterator):
        return epoch_rng(rng, epoch).permutation(n)
    order = next(rng, None)
    if order is None or np.shape(order) != (n,):
        raise ValueError(
            f"fit_online: expected an order of {n} rows for epoch {epoch}, "
            f"got {'none' if order is None else f'shape {np.shape(order)}'}"
        )
    return order
