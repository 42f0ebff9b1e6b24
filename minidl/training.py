"""Mini-batch training: ``fit``, ``evaluate``, callbacks."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.data.dataset import Dataset, Split
from minidl.history import Epoch, History
from minidl.layer import Layer, Sequential, write_gradients
from minidl.losses import Loss
from minidl.optim import Optimizer
from minidl.rng import as_generator
from minidl.typing import Array, Rng
from minidl.validation import check_float, check_int, did_you_mean, require


class NonFiniteLossError(FloatingPointError):
    """A loss is NaN or infinite.

    The message names the epoch, the step and the first layer whose output is not finite.
    """


@dataclass
class Run:
    """The state of a training run, as callbacks see it."""

    model: Layer
    optimizer: Optimizer
    history: History
    epochs: int
    batches: int
    """The number of batches in one epoch."""


class Callback:
    """Methods that ``fit`` calls during training; a subclass overrides those that it needs."""

    def on_start(self, run: Run) -> None:
        """Called before the first epoch."""

    def on_batch(self, run: Run) -> None:
        """Called after each step."""

    def on_epoch(self, run: Run) -> bool | None:
        """Called after each epoch, when ``run.history`` has its record. True ends the training."""

    def on_end(self, run: Run) -> None:
        """Called when training ends, in whatever way."""


class EarlyStopping(Callback):
    """Stop when ``monitor`` has not improved by more than ``min_delta`` for ``patience`` epochs.

    Accuracies improve when they rise, losses when they fall.
    """

    def __init__(
        self, patience: int = 5, *, monitor: str = "valid_accuracy", min_delta: float = 0.0
    ) -> None:
        known = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
        if monitor not in known:
            raise ValueError(f"EarlyStopping: no monitor {monitor!r}{did_you_mean(monitor, known)}")
        self.patience = check_int("EarlyStopping", "patience", patience)
        self.min_delta = check_float("EarlyStopping", "min_delta", min_delta, low=0)
        self.monitor = monitor

    def on_epoch(self, run: Run) -> bool:
        values = run.history.column(self.monitor)
        if None in values:
            raise ValueError(f"EarlyStopping: this run does not measure {self.monitor}")
        sign = -1 if self.monitor.endswith("loss") else 1
        best, when = -math.inf, 0
        for epoch, value in enumerate(values):
            if sign * value > best + self.min_delta:
                best, when = sign * value, epoch
        return len(values) - 1 - when >= self.patience


class Progress(Callback):
    """A progress bar over all steps, with the remaining time (needs tqdm)."""

    def on_start(self, run: Run) -> None:
        done = max(len(run.history) - 1, 0) * run.batches
        total = run.epochs * run.batches
        self.bar: Any = require("tqdm", "examples").tqdm(total=total, initial=done, unit="step")

    def on_batch(self, run: Run) -> None:
        self.bar.update()

    def on_epoch(self, run: Run) -> None:
        last = run.history[-1]
        shown = {"loss": last.train_loss, "valid": last.valid_accuracy}
        self.bar.set_postfix({k: f"{v:.4f}" for k, v in shown.items() if v is not None})

    def on_end(self, run: Run) -> None:
        self.bar.close()


class WriteHistory(Callback):
    """Write the history to a JSON file after each epoch, so that an interrupted run keeps it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path

    def on_epoch(self, run: Run) -> None:
        run.history.to_json(self.path)


def outputs(model: Layer, split: Split) -> Array:
    """Return the outputs of ``model`` for all rows of ``split``, in evaluation mode."""
    return np.concatenate([model(x) for x in split.chunks(model.dtype)])


def evaluate(model: Layer, split: Split, loss: Loss) -> tuple[float, float | None]:
    """Return the loss and the accuracy over all rows of ``split``, in evaluation mode.

    Returns
    -------
    loss : float
    accuracy : float or None
        The share of rows whose largest output is that of the label; None for a regression.
    """
    logits = outputs(model, split)
    value, _ = loss(logits, split.y)
    if split.y.dtype.kind == "f":
        return value, None
    return value, float(np.mean(logits.argmax(axis=1) == split.y))


def fit(
    model: Layer,
    dataset: Dataset,
    loss: Loss,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int = 64,
    rng: Rng,
    callbacks: Sequence[Callback] = (),
    restore_best: bool = False,
    evaluate_train: bool = True,
    history: History | None = None,
) -> History:
    """Train a model.

    Parameters
    ----------
    model : Layer
    dataset : Dataset
    loss : Loss
    optimizer : Optimizer
        Made for this model.
    epochs : int
        The number of passes over the training examples.
    batch_size : int
        The number of examples in a batch. The last batch of an epoch may be smaller.
    rng : int or Generator
        Orders the examples. With a seed, the order in an epoch depends only on the seed and the
        number of the epoch, so that a run can be resumed.
    callbacks : sequence of Callback
    restore_best : bool
        Whether to leave the model with its best parameters instead of the last ones, however
        training ends: after all epochs, by early stopping, a loss that is not finite, or Ctrl-C.
    evaluate_train : bool
        Whether to measure the training accuracy after each epoch.
    history : History, optional
        Filled during training, so that an interrupted run leaves its records. If it already has
        records, training resumes after the last epoch in it.

    Returns
    -------
    History
        One record for each epoch; the first record is from before training.

    Raises
    ------
    NonFiniteLossError
        When the loss of a batch is NaN or infinite; names the epoch, the step and the first layer
        whose output is not finite.
    """
    if optimizer.model is not model:
        raise ValueError("fit: the optimizer was made for another model")
    epochs = check_int("fit", "epochs", epochs, low=0)
    batch_size = check_int("fit", "batch_size", batch_size)
    history = History() if history is None else history
    train, batches = dataset.train, -(-len(dataset.train) // batch_size)
    run = Run(model, optimizer, history, epochs, batches)
    on_batch = [c for c in callbacks if type(c).on_batch is not Callback.on_batch]
    record = Recorder(run, dataset, loss, evaluate_train)
    for callback in callbacks:
        callback.on_start(run)
    try:
        if not history.records:
            record(None)
        for epoch in range(len(history), epochs + 1):
            total = 0.0
            order = epoch_rng(rng, epoch)
            for step, (x, y) in enumerate(train.batches(batch_size, order, model.dtype)):
                logits, backward = model.forward(x, train=True)
                value, dlogits = loss(logits, y)
                if not math.isfinite(value):
                    raise NonFiniteLossError(diagnose(model, x, value, epoch, step))
                write_gradients(model, backward, dlogits)
                optimizer.step()
                total += value
                for callback in on_batch:
                    callback.on_batch(run)
            record(total / batches)
            stops = [callback.on_epoch(run) for callback in callbacks]
            if any(stops):
                break
    finally:
        if restore_best and history.best_theta is not None:
            model.theta[:] = history.best_theta
        for callback in callbacks:
            callback.on_end(run)
    return history


class Recorder:
    """Evaluate the model after each epoch and append the record to the history."""

    def __init__(self, run: Run, dataset: Dataset, loss: Loss, evaluate_train: bool) -> None:
        self.run, self.dataset, self.loss = run, dataset, loss
        self.evaluate_train = evaluate_train
        self.since = time.perf_counter()

    def __call__(self, train_loss: float | None) -> None:
        run, valid = self.run, self.dataset.valid
        lr = run.optimizer.lr_at(max(run.optimizer.steps - 1, 0))
        train_accuracy = valid_loss = valid_accuracy = None
        if self.evaluate_train or train_loss is None:
            before, train_accuracy = evaluate(run.model, self.dataset.train, self.loss)
            train_loss = before if train_loss is None else train_loss
        if valid is not None:
            valid_loss, valid_accuracy = evaluate(run.model, valid, self.loss)
        now = time.perf_counter()
        seconds, self.since = now - self.since, now
        epoch = len(run.history)
        run.history.append(
            Epoch(epoch, train_loss, train_accuracy, valid_loss, valid_accuracy, seconds, lr),
            run.model.theta,
        )


def epoch_rng(rng: Rng, epoch: int) -> np.random.Generator:
    """Return the generator for the order of the examples in one epoch."""
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        # The spawn key makes this stream independent of those of layers with the same seed.
        return np.random.default_rng(np.random.SeedSequence(int(rng), spawn_key=(2**16, epoch)))
    return as_generator(rng)


def diagnose(model: Layer, x: Array, value: float, epoch: int, step: int) -> str:
    """Describe a loss that is not finite; name the first layer whose output is not finite."""
    where = f"epoch {epoch}, step {step}: the loss is {value}"
    if not np.isfinite(x).all():
        return f"{where}; the batch itself is not finite"
    for i, layer in enumerate(model.layers if isinstance(model, Sequential) else [model]):
        x = layer(x)
        if not np.isfinite(x).all():
            return f"{where}; the first output that is not finite is that of layer {i}, {layer!r}"
    return f"{where}, though every layer's output is finite"
