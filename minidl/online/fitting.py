"""SGD on one example at a time, as fast as on batches: ``fit_online`` and ``fit_side_by_side``.

``minidl.online.blocks`` says how. With ``block_size=1`` the functions run the plain loop here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from minidl.callbacks import Callback
from minidl.checks import Array, check_int, one_blas_thread
from minidl.dataset import Dataset
from minidl.evaluation import as_metrics
from minidl.history import History, Mode
from minidl.layer import Layer
from minidl.losses import Loss, Metric
from minidl.online.blocks import make_steps, max_block_size, soft_threshold
from minidl.online.runs import OnlineRun, Order, epoch_order
from minidl.optim import SGD
from minidl.training import CheckpointFile, NonFiniteLossError, Objective, Training, names_earlier


@names_earlier
def fit_online(
    model: Layer,
    dataset: Dataset,
    loss: Loss,
    *,
    lr: float,
    weight_decay: float = 0.0,
    l1: float = 0.0,
    epochs: int,
    block_size: int = 64,
    rng: Order,
    metrics: Mapping[str, Metric] | None = None,
    monitor: str | None = None,
    mode: Mode | None = None,
    callbacks: Sequence[Callback] | None = None,
    restore_best: bool = False,
    parts: Sequence[str] = ("train", "valid"),
    history: History | None = None,
    checkpoint: CheckpointFile | None = None,
    mean_weight: float | None = None,
) -> History:
    r"""Train a model by SGD with batch size 1.

    Every step is ``w -= lr (grad + weight_decay w)`` on all parameters, biases too, where the
    gradient of an example is multiplied by its weight divided by the mean weight, as with
    ``fit(..., SGD(model, lr, weight_decay=weight_decay), batch_size=1)``. With the same ``rng``
    the steps are the same up to the rounding of sums, in about a tenth of the time.

    Parameters
    ----------
    model : Layer
        A ``Linear``, or a ``Sequential``, nested or not, that begins with one. Any layers may
        follow; the fastest are ReLU and Linear in turn, with ``CrossEntropy`` or ``Perceptron``.
    dataset : Dataset
    loss : Loss
    lr, weight_decay : float
    l1 : float
        L1 penalty by one proximal step a block: after n examples every parameter moves towards 0
        by ``n lr l1``, but not past it.
    epochs : int
    block_size : int
        1 is the plain loop: forward, loss, backward, step. A block has at most
        ``log(1000) / -log(1 - lr weight_decay)`` examples, so that weights shrink by 1000 at most.
    rng : int, Generator, or iterator of arrays
        As in ``fit``, or an iterator with the order of each epoch (see ``compounding``). One of
        your own can be resumed if it has ``state_dict`` and ``load_state_dict``.
    metrics, monitor, mode, restore_best, parts, history, checkpoint, mean_weight
        As in ``fit``, and so are the result and the errors.
    callbacks : sequence of Callback, optional
        ``on_batch`` is called after each block; ``on_gradient`` is not called.
    """
    run = OnlineRun(model, lr, weight_decay, l1, History() if history is None else history)
    _train(
        [run], Objective("fit_online", loss, dataset, mean_weight), epochs, block_size, rng=rng,
        monitor=monitor, mode=mode, metrics=as_metrics("fit_online", metrics),
        callbacks=callbacks or (), restore_best=restore_best, parts=parts, checkpoint=checkpoint,
    )  # fmt: skip
    run.history.check_best("fit_online")
    return run.history


@names_earlier
def fit_side_by_side(
    runs: Sequence[OnlineRun],
    dataset: Dataset,
    loss: Loss,
    *,
    epochs: int,
    block_size: int = 64,
    rng: Order,
    restore_best: bool = False,
    parts: Sequence[str] = ("train", "valid"),
    checkpoint: CheckpointFile | None = None,
) -> list[History]:
    """Train several models on the same examples in one pass.

    Each model gets the updates that ``fit_online`` would give it alone. Six linear models with
    softmax cross-entropy take about 2.5 times as long as one.

    Parameters
    ----------
    runs : sequence of OnlineRun
        Their first layers have the same number of inputs, and all or none of them have a bias.
    dataset, loss, epochs, block_size, rng, restore_best, parts, checkpoint
        As in ``fit_online``; one file for all runs.

    Returns
    -------
    list of History
        A run whose loss or parameters are not finite, or whose monitored metric never is, has the
        reason in its ``error``; the others continue. Seconds are those of all runs together.
    """
    owner, listed = "fit_side_by_side", isinstance(runs, (list, tuple))
    if not listed or not runs or not all(isinstance(run, OnlineRun) for run in runs):
        want = "at least one run in a list, as [OnlineRun(model, lr)]"
        raise TypeError(f"{owner}: expected {want}, got {runs!r:.80}")
    if len({(len(run.first_weights), run.first.bias is None, run.model.dtype) for run in runs}) > 1:
        got = ", ".join(f"{run.first!r} in {run.model.dtype}" for run in runs)
        raise ValueError(f"{owner}: expected first layers alike in inputs, bias, dtype, got {got}")
    if len({id(run.model) for run in runs}) < len(runs):
        raise ValueError(f"{owner}: expected a model of its own for each run")
    if len({len(run.history) for run in runs}) > 1:
        raise ValueError(f"{owner}: expected histories of the same length")
    _train(
        runs, Objective("fit_online", loss, dataset), epochs, block_size, rng=rng,
        restore_best=restore_best, parts=parts, checkpoint=checkpoint, survivors=True,
    )  # fmt: skip
    for run in runs:
        try:
            run.history.check_best(owner)
        except ValueError as error:
            run.error = run.error or str(error)
    return [run.history for run in runs]


def _plain_steps(run: OnlineRun, training: Training, index: Array, epoch: int, start: int) -> None:
    """Take one step for each example; a loss that is not finite ends the run."""
    split = training.objective.train
    for i in range(len(index)):
        row = index[i : i + 1]
        x, y = split.rows(row, run.model.dtype), split.targets(row)
        try:
            run.total += training.write_gradients(run.model, epoch, start + i, x, *y)
        except NonFiniteLossError as error:
            run.error = str(error)
            return
        run.optimizer.step()
        if run.l1:
            soft_threshold(run.model.theta, run.lr * run.l1)


def _train_group(
    group: Sequence[OnlineRun], size: int, training: Training, order: Array, epoch: int
) -> None:
    """Train runs with blocks of the same length, which are computed together, for one epoch."""
    steps, on_batch = None, training.called("on_batch")
    for start in range(0, len(order), size):
        index, active = order[start : start + size], [run for run in group if run.error is None]
        if not active:
            return
        if size == 1:
            for run in active:
                _plain_steps(run, training, index, epoch, start)
        else:
            if steps is None or len(steps.runs) != len(active):
                steps = make_steps(active, training.objective, size)
            for run, total in zip(active, steps.step(index), strict=True):
                run.total += total
                if not math.isfinite(total):  # the plain loop says where, if it finds it too
                    _plain_steps(run, training, index, epoch, start)
                    where = f"epoch {epoch}, steps {start} to {start + len(index)}"
                    run.error = run.error or f"{where}: the loss is not finite"
            if on_batch or start + size >= len(order) or any(run.error for run in active):
                steps.write_back()
        shown = [run.first_weights.copy() for run in active if steps and on_batch]
        for callback in on_batch:
            callback.on_batch(training.runs[0])
        changed = ((run.first_weights != w).any() for run, w in zip(active, shown, strict=False))
        if steps and any(changed):
            steps.read()


def _train(
    runs: Sequence[OnlineRun], objective: Objective, epochs: int, block_size: int, **options: Any
) -> None:
    """Train the runs together; the callbacks see the first one."""
    epochs = check_int("fit_online", "epochs", epochs, low=0)
    block_size = check_int("fit_online", "block_size", block_size)
    groups: dict[int, list[OnlineRun]] = {}
    for run in runs:
        size = min(max_block_size(run, block_size), objective.examples)
        run.optimizer = SGD(run.model, run.lr, weight_decay=run.weight_decay)
        run.epochs, run.batches = epochs, -(-objective.examples // size)
        groups.setdefault(size, []).append(run)
    settings = {"block_size": block_size, "l1": [run.l1 for run in runs]}
    settings["mean_weight"] = objective.mean_weight
    training = Training("fit_online", runs, objective, settings=settings, **options)

    def train_epoch(epoch: int) -> list[float]:
        order = epoch_order(training.rng, epoch, objective.train)
        for run in runs:
            run.total = 0.0
        for size, group in groups.items():
            _train_group(group, size, training, order, epoch)
        return [run.total / objective.size for run in runs]

    with one_blas_thread():
        training.run_epochs(train_epoch)
