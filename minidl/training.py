"""Mini-batch training: ``fit``, and the loop over epochs that all training functions share."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import numpy as np

from minidl.callbacks import Callback, Run
from minidl.checks import (
    Array,
    Rng,
    Stateful,
    as_generator,
    check_float,
    check_int,
    did_you_mean,
    no_longer,
    quiet,
    quietly,
)
from minidl.dataset import Dataset, Split
from minidl.evaluation import evaluate, measure, metrics_of, r2
from minidl.history import Epoch, History, Mode
from minidl.layer import (
    Layer,
    Sequential,
    check_model,
    checked,
    name_probabilities,
    write_gradients,
)
from minidl.losses import Loss, Metric, check_weighted_mean, checked_loss, shaped_targets
from minidl.optim import Optimizer
from minidl.parameter import infer, named_buffers, set_stream, with_streams


class NonFiniteLossError(FloatingPointError):
    """A loss is NaN or infinite, or after an epoch a parameter is.

    The message names the epoch, the step and the first layer whose output is not finite; or the
    epoch and the first parameter.
    """


class CheckpointFile(Protocol):
    """The part of a ``minidl.Checkpoint`` that training needs; it knows no file."""

    every: int
    resume: bool

    def exists(self) -> bool:
        """Return whether there is a state to go on from."""

    def save(self, *, settings: Mapping[str, Any] | None = None, **parts: Stateful) -> None:
        """Keep the states of objects by name."""

    def load(self, *, settings: Mapping[str, Any] | None = None, **parts: Stateful) -> None:
        """Set the states of objects to those that were kept, or change nothing."""


EARLIER = {
    "evaluate_train": 'parts=("train", "valid"), without "train" for evaluate_train=False',
    "every": "checkpoint=minidl.Checkpoint(path, every=...)",
    "resume": "checkpoint=minidl.Checkpoint(path, resume=...)",
}
"""The arguments of earlier versions, and how they are spelled now."""


@no_longer(**EARLIER)
def fit(
    model: Layer,
    dataset: Dataset,
    loss: Loss,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int = 64,
    rng: Rng,
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
    """Train a model.

    Parameters
    ----------
    model : Layer
    dataset : Dataset
        Its targets are whatever the loss takes. Weights of examples have their full effect at
        every batch size (see ``Objective``); examples of weight 0 are left out.
    loss : Loss
    optimizer : Optimizer
        Made for this model.
    epochs : int
        The number of passes over the training examples.
    batch_size : int
        The number of examples in a batch. The last batch of an epoch may be smaller.
    rng : int, SeedSequence or Generator
        Orders the examples. With a seed, the order in an epoch depends only on the seed and the
        number of the epoch, so that a run can be resumed.
    metrics : mapping, optional
        Figures of your own by name: ``metric(outputs, y)`` returns a number. They are measured
        after each epoch and kept in the history as ``"train_NAME"`` and ``"valid_NAME"``. ``y`` has
        the shape of the outputs, (n, 1) for one output, except for class labels, which are (n,);
        so has that of a loss of your own.
    monitor : str, optional
        The figure that the best epoch, ``restore_best`` and early stopping follow. By default
        ``"valid_accuracy"``, or ``"valid_loss"`` where no accuracy is measured, or
        ``"train_loss"`` without a validation part.
    mode : {"min", "max"}, optional
        Whether the lowest or the highest figure is the best. By default the lowest where a word
        of the name ends in ``loss``, ``error``, ``mae``, ``mse`` or the like, the highest for
        others.
    callbacks : sequence of Callback, optional
    restore_best : bool
        Whether to leave the model with the parameters and buffers of the best epoch instead of the
        last ones, however training ends: after all epochs, by early stopping, a loss that is not
        finite, or Ctrl-C. The best one is a trained epoch, the first of equals, whose monitored
        figure and outputs are finite (see ``History``); without any, those before training.
    parts : sequence of {"train", "valid", "test"}
        The parts of the data that are measured after each epoch, where the data set has them. With
        ``()`` nothing is measured but the training loss of the epochs.
    history : History, optional
        Filled during training, so that an interrupted run leaves its records. If it already has
        records, training resumes after the last epoch in it.
    checkpoint : Checkpoint, optional
        The file that is written after each epoch, or from which training goes on:
        ``minidl.Checkpoint(path, every=1, resume=False)``. A resumed run ends with the same bits as
        one that was not stopped. Records in ``history`` are replaced by those of the file.
    mean_weight : float, optional
        The weight with which an example counts once; by default the mean weight of the training
        part. For a part of a longer stream of examples it is that of the stream.

    Warns
    -----
    UserWarning
        If the model ends with a layer that gives probabilities, as ``Softmax``, and the loss
        expects logits.

    Notes
    -----
    An epoch that does not end (Ctrl-C, a loss or a parameter that is not finite, another error)
    leaves nothing behind: the model, its random streams, the optimizer and ``rng`` are set back to
    its start, so that another call with the same ``history`` goes on from there.

    Returns
    -------
    History
        One record for each epoch; the first record is from before training.

    Raises
    ------
    NonFiniteLossError
        When the loss of a batch is NaN or infinite; names the epoch, the step and the first layer
        whose output is not finite. When a parameter or a buffer is NaN or infinite after the last
        step of an epoch; names the epoch and the parameter.
    TypeError, ValueError
        For wrong arguments; for targets that the loss does not take; for a layer or loss that
        does not keep its contract. Names the part of the data, the layer or the loss.
        For a metric that returns no number, and for a monitored figure that is finite in no epoch.
        For a file to resume from that is damaged or of a run with other settings; names the first.
    """
    check_model("fit", model)
    if isinstance(optimizer, type) or not hasattr(optimizer, "model"):
        raise TypeError(f"fit: expected an optimizer as Adam(model), got {optimizer!r:.80}")
    if optimizer.model is not model:
        raise ValueError("fit: the optimizer was made for another model")
    epochs = check_int("fit", "epochs", epochs, low=0)
    batch_size = check_int("fit", "batch_size", batch_size)
    check_dataset("fit", dataset)
    batches = -(-len(dataset.train.counted) // batch_size)
    run = Run(model, optimizer, History() if history is None else history, epochs, batches)
    training = Training(
        "fit", [run], dataset, loss, rng=rng, metrics=metrics, monitor=monitor, mode=mode,
        callbacks=callbacks, restore_best=restore_best, parts=parts, checkpoint=checkpoint,
        batch_size=batch_size, mean_weight=mean_weight,
    )  # fmt: skip
    objective = Objective(loss, dataset.train, batch_size, mean_weight)
    on_gradient, on_batch = training.called("on_gradient"), training.called("on_batch")
    first = True

    def train_epoch(epoch: int) -> list[float]:
        nonlocal first
        total = 0.0
        batches = training.train.batches(batch_size, epoch_rng(rng, epoch), model.dtype)
        for step, (x, *y) in enumerate(batches):
            if first:
                value, first = first_step(model, objective, x, *y), False
            else:
                logits, backward = model.forward(x, train=True)
                value, dlogits = objective(logits, *y)
                if math.isfinite(value):
                    write_gradients(model, backward, dlogits)
            if not math.isfinite(value):
                raise NonFiniteLossError(diagnose(model, x, value, epoch, step))
            for callback in on_gradient:
                callback.on_gradient(run)
            optimizer.step()
            total += objective.share(len(x)) * value
            for callback in on_batch:
                callback.on_batch(run)
        return [total / objective.batches]

    training.run_epochs(train_epoch)
    run.history.check_best("fit")
    return run.history


class Training:
    """Runs that train together: the loop over their epochs, and their state between two of them.

    An epoch that does not end leaves nothing behind: the state before it is kept in memory, and
    with a checkpoint also in a file.

    Parameters
    ----------
    owner : str
        The training function, named in errors.
    runs : sequence of Run
        The callbacks see the first one.
    dataset : Dataset
    loss : Loss
    rng : seed, Generator or iterator
        Orders the examples.
    metrics, monitor, mode, callbacks, restore_best, parts, checkpoint
        As in ``fit``.
    survivors : bool
        Whether a run that cannot go on ends alone, with the reason in its ``error``.
    **settings
        What the result depends on beside all this: a run is resumed only with the same.

    Attributes
    ----------
    train : Split
        The training part with its targets in the shape in which the loss sees them.
    """

    def __init__(
        self,
        owner: str,
        runs: Sequence[Run],
        dataset: Dataset,
        loss: Loss,
        *,
        rng: Any,
        metrics: Mapping[str, Metric] | None = None,
        monitor: str | None = None,
        mode: Mode | None = None,
        callbacks: Sequence[Callback] | None = None,
        restore_best: bool = False,
        parts: Sequence[str] = ("train", "valid"),
        checkpoint: CheckpointFile | None = None,
        survivors: bool = False,
        **settings: Any,
    ) -> None:
        for run in runs:
            check_model(owner, run.model)
        self.callbacks = check_arguments(owner, loss, callbacks, checkpoint)
        for run in runs:
            name_probabilities(owner, run.model, loss)
        self.owner, self.runs, self.dataset, self.loss = owner, runs, dataset, loss
        self.train, self.restore_best = dataset.train, restore_best
        self.metrics, self.parts = dict(metrics or {}), check_parts(owner, parts, dataset)
        self.order, self.checkpoint, self.ended = _Order(rng), checkpoint, False
        self.survivors, self._since = survivors, time.perf_counter()
        self._recorded: list[int] = []
        self.measures = bool(parts)
        self._kept: dict[str, dict[str, Any]] = {}
        self._saved = 0  # the epoch of the state in the file
        for run in runs:
            _go_on_from_the_last_weights(run)
            self._follow(run, monitor, mode)
        if checkpoint is not None:
            self.settings = {
                "function": owner, "dtype": runs[0].model.dtype.name, "data": dataset,
                "loss": loss, "rng": self.order.description(owner), "parts": self.parts, **settings,
            }  # fmt: skip
            if checkpoint.resume and checkpoint.exists():
                checkpoint.load(settings=self.settings, **self._states())
                self._saved = self.epoch

    @property
    def epoch(self) -> int:
        """The last epoch that has ended; 0 before training."""
        return max(1, *(len(run.history) for run in self.runs)) - 1

    def called(self, name: str) -> list[Callback]:
        """Return the callbacks that define a method of their own with this name."""
        own = getattr(Callback, name)
        return [callback for callback in self.callbacks if getattr(type(callback), name) is not own]

    def run_epochs(self, train_epoch: Callable[[int], Sequence[float]]) -> None:
        """Train for the epochs that the histories lack.

        ``train_epoch(epoch)`` trains the runs without an ``error`` for one epoch and returns the
        training loss of each run. With ``survivors``, a run that cannot go on gets an ``error``
        and the others continue.
        """
        first = self.runs[0]
        with ExitStack() as stack:
            stack.enter_context(quiet())
            for run in self.runs:
                stack.enter_context(marked(run.model, self.dataset))
            self._since = time.perf_counter()
            known = [not_finite(run.model) for run in self.runs]
            for callback in self.callbacks:
                callback.on_start(first)
            try:
                if not first.history.records:
                    for run in self.runs:
                        self._record(run, None)
                self._keep()
                self.train = as_seen(first.model, self.dataset.train, self.loss)
                for epoch in range(self.epoch + 1, 0 if self.ended else first.epochs + 1):
                    losses = train_epoch(epoch)
                    for i, run in enumerate(self.runs):
                        if run.error is None:
                            self._check_finite(run, known[i], epoch)
                        if run.error is not None:
                            self._rewind_run(i)
                    for run, train_loss in zip(self.runs, losses, strict=True):
                        if run.error is None:
                            self._record(run, train_loss)
                    going = any(run.error is None for run in self.runs)
                    stops = [callback.on_epoch(first) for callback in self.callbacks if going]
                    self.ended = any(stops) or not going
                    self._keep()
                    if self.ended:
                        break
            except BaseException:
                self._rewind()
                raise
            finally:
                if self.restore_best:
                    self._restore_best()
                for callback in self.callbacks:
                    callback.on_end(first)

    def _check_finite(self, run: Run, known: Collection[str], epoch: int) -> None:
        """End a run whose parameters are not finite after an epoch."""
        try:
            check_finite(run.model, known, epoch)
        except NonFiniteLossError as error:
            if not self.survivors:
                raise
            run.error = str(error)

    def _states(self) -> dict[str, Stateful]:
        """Return all objects whose state decides the rest of the runs, by name.

        The random streams of a model belong to it.
        """
        found: dict[str, Stateful] = {}
        for i, run in enumerate(self.runs):
            number = f" {i + 1}" if i else ""
            found[f"history{number}"] = run.history
            found[f"model{number}"] = run.model
            if isinstance(run.optimizer, Optimizer):  # an object of another kind keeps its state
                found[f"optimizer{number}"] = run.optimizer
        seen: Counter[str] = Counter()
        for callback in self.callbacks:
            kind = type(callback).__name__
            seen[kind] += 1
            found[f"{kind} {seen[kind]}"] = callback
        return {**found, "order": self.order, "training": self}

    def state_dict(self) -> dict[str, Any]:
        """Return whether training has ended, and why runs could not go on."""
        return {"ended": self.ended, "errors": [run.error for run in self.runs]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what ``state_dict`` returned."""
        for run, error in zip(self.runs, state["errors"], strict=True):
            run.error = None if error is None else str(error)
        self.ended = bool(state["ended"])

    def _keep(self) -> None:
        """Keep the state before training or after an epoch, and write the file where it is due."""
        states = self._states()
        self._recorded = [len(run.history) for run in self.runs]
        self._kept = {
            name: copy.deepcopy(part.state_dict())
            if isinstance(part, Callback)
            else part.state_dict()
            for name, part in with_streams(states).items()
            if not isinstance(part, (History, Training))
        }
        file, epoch = self.checkpoint, self.epoch
        if file is None or epoch <= self._saved:
            return
        if self.ended or epoch % file.every == 0 or epoch == self.runs[0].epochs:
            file.save(settings=self.settings, **states)
            self._saved = epoch

    def _rewind(self) -> None:
        """Set the runs back to the start of an epoch that did not end."""
        undone = [self._rewind_run(i) for i in range(len(self.runs)) if self._kept]
        if undone and all(undone):
            for name, part in self._states().items():
                if isinstance(part, (Callback, _Order)) and self._kept[name]:
                    part.load_state_dict(self._kept[name])

    def _rewind_run(self, i: int) -> bool:
        """Set one run back, unless the epoch has its record; return whether."""
        if len(self.runs[i].history) != self._recorded[i]:
            return False
        number, states = f" {i + 1}" if i else "", with_streams(self._states())
        for name in (f"model{number}", f"model{number} streams", f"optimizer{number}"):
            if name in states:
                states[name].load_state_dict(self._kept[name])
        return True

    def _restore_best(self) -> None:
        """Set each model to its best state; its history keeps the last one."""
        for run in self.runs:
            if run.history.best_state is not None:
                run.history.last_state = run.model.state_dict()
                run.history.restore_best(run.model)

    def _follow(self, run: Run, monitor: str | None, mode: Mode | None) -> None:
        """Let the history follow a metric; ValueError if it is not measured, or cannot be."""
        measured = {"loss": None, **metrics_of(self.loss), **self.metrics}
        known = ["train_loss"]
        for part in self.parts:
            known += [f"{part}_{name}" for name in measured if (part, name) != ("train", "loss")]
        asked = monitor or run.history.asked
        if asked is not None and asked not in known:
            raise ValueError(
                f"{self.owner}: no metric {asked!r} to monitor{did_you_mean(asked, known)}"
            )
        run.history.follow(run.model, monitor, mode)
        part, _, metric = (asked or "").partition("_")
        split = self.dataset.splits.get(part)
        if split is not None and measured.get(metric) is r2 and len(split.counted) < 2:
            raise ValueError(
                f"{self.dataset.name}: {part}: expected at least two examples of weight above 0 to "
                f"monitor {asked}, which is R^2, got {len(split.counted)}"
            )

    def _record(self, run: Run, train_loss: float | None) -> None:
        """Measure the parts and append a record; ``train_loss`` is None before training."""
        found = {"train_loss": math.nan}
        finite = True
        # The best state must have finite outputs, so with restore_best some are computed.
        for part in self.parts or ("train",) * self.restore_best:
            try:
                metrics, are = measure(
                    run.model, self.dataset.splits[part], self.loss, self.metrics
                )
            except (TypeError, ValueError) as error:
                raise type(error)(f"{self.dataset.name}: {part}: {error}") from error
            finite &= are
            if part in self.parts:
                found |= {f"{part}_{name}": value for name, value in metrics.items()}
        if train_loss is None and "train" not in self.parts and self.measures:
            value = evaluate(run.model, self.dataset.train, self.loss)["loss"]
            found["train_loss"] = value
        if train_loss is not None:
            found["train_loss"] = train_loss
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        lr = run.optimizer.lr_at(max(run.optimizer.steps - 1, 0))
        run.history.append(Epoch(len(run.history), seconds, lr, found, finite), run.model)


class _Order:
    """The order of the examples: a seed, a generator or an iterator, as one object with a state."""

    def __init__(self, rng: Any) -> None:
        self.rng = rng

    def description(self, owner: str) -> Any:
        """Return what is compared with a file: no state of a generator."""
        rng = self.rng
        if isinstance(rng, np.random.SeedSequence):
            return [rng.entropy, rng.spawn_key]
        if isinstance(rng, np.random.Generator):
            return str(rng)
        if isinstance(rng, Stateful):
            return type(rng).__qualname__
        if isinstance(rng, Iterator):
            raise TypeError(
                f"{owner}: expected rng with a state that checkpoint= can save (a seed, a "
                "Generator, minidl.compounding, or an iterator with state_dict and "
                f"load_state_dict), got {rng!r}"
            )
        return rng

    def state_dict(self) -> dict[str, Any]:
        """Return the state; empty for seeds and unknown iterators."""
        if isinstance(self.rng, np.random.Generator):
            return {"stream": self.rng.bit_generator.state}
        return self.rng.state_dict() if isinstance(self.rng, Stateful) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what ``state_dict`` returned; ValueError if it does not fit."""
        if isinstance(self.rng, np.random.Generator):
            set_stream("rng", self.rng, state["stream"])
        elif isinstance(self.rng, Stateful):
            self.rng.load_state_dict(state)


def _go_on_from_the_last_weights(run: Run) -> None:
    """Undo the ``restore_best`` at the end of an earlier training, unless the model has changed."""
    history = run.history
    last, best, now = history.last_state, history.best_state, run.model.state_dict()
    if (
        last
        and best
        and all(np.array_equal(best[name], now[name]) for name, _ in run.model.named_parameters())
    ):
        run.model.load_state_dict(last)
    history.last_state = None


def as_seen(model: Layer, split: Split, loss: Loss) -> Split:
    """Return a part with its targets in the shape in which the loss sees them."""
    y = shaped_targets(loss, model(split.rows(slice(1), model.dtype)), split.y)
    return split if y is split.y else dataclasses.replace(split, y=y)


class Objective:
    """A loss as the steps of training use it: each example counts by its weight in any batch.

    A loss divides by the sum of the weights of its batch. A step multiplies its value and its
    gradient by ``(mean weight of the batch) / (mean weight of the training part)``. So for the
    ``n`` examples of a batch and the mean weight ``m`` of the part the value is
    ``sum_i w_i l_i / (n m)``: a weight has its full effect at every batch size, and a batch of all
    examples is the same as each example repeated. A loss with ``reduction="sum"`` is used as it is.

    Parameters
    ----------
    loss : Loss
    train : Split
        The training part; examples of weight 0 do not count.
    batch_size : int
        Of all batches but the last.
    mean_weight : float, optional
        In place of the mean weight of the part.

    Attributes
    ----------
    factors : array, shape (n,), or None
        The factor of each example of the part in a batch of its own; None if all are 1.
    batches : float
        The number of batches in an epoch, where a smaller one counts by its size. The sum of
        ``share(n)`` times the value of each batch, divided by it, is the loss of the epoch: the
        mean over its examples by their weights; the total for ``reduction="sum"``.
    """

    @quietly
    def __init__(
        self, loss: Loss, train: Split, batch_size: int, mean_weight: float | None = None
    ) -> None:
        self.loss, self.is_sum = loss, getattr(loss, "reduction", "mean") == "sum"
        weight = np.ones(len(train)) if train.weight is None else train.weight.astype(np.float64)
        if mean_weight is not None:
            mean_weight = check_float("fit", "mean_weight", mean_weight, low=0, open_low=True)
        else:
            largest = weight.max()  # so that the sum does not overflow
            mean_weight = largest * float((weight / largest)[train.counted].mean())
        self.mean_weight = mean_weight
        factors = weight if self.is_sum else weight / mean_weight
        self.factors = None if (factors == 1).all() else factors
        self._batch_size = min(batch_size, len(train))
        self.batches = 1.0 if self.is_sum else float(factors.sum()) / self._batch_size

    def __call__(self, logits: Array, y: Array, *weight: Array) -> tuple[float, Array]:
        """Return the value of a batch and its gradient with respect to the logits."""
        value, dlogits = self.loss(logits, y, *weight)
        return self.scaled(value, dlogits, *weight)

    def scaled(self, value: float, dlogits: Array, *weight: Array) -> tuple[float, Array]:
        """Return what the loss returned for a batch, times the factor of the batch."""
        if self.is_sum or self.factors is None:
            return value, dlogits
        factor = float(np.mean((weight[0] if weight else 1) / self.mean_weight))
        return factor * value, dlogits * dlogits.dtype.type(factor)

    def share(self, n: int) -> float:
        """Return the size of a batch of ``n`` as a share of ``batch_size``; 1 for a sum."""
        return 1.0 if self.is_sum else n / self._batch_size


def first_step(model: Layer, objective: Objective, x: Array, *y: Array) -> float:
    """Write the gradients of a batch, and name the layer or loss that breaks its contract.

    The numbers are those of a step without these checks, which take time.
    """
    with checked(model) as forward:
        logits, backward = forward(x, train=True)
        value, dlogits = checked_loss(objective.loss, logits, *y)
        if len(y) > 1 and not objective.is_sum:
            check_weighted_mean(objective.loss, value, logits, *y)
        value, dlogits = objective.scaled(value, dlogits, *y[1:])
        if math.isfinite(value):
            write_gradients(model, backward, dlogits)
    return value


def check_dataset(owner: str, dataset: object) -> None:
    """Raise TypeError unless ``dataset`` is a data set."""
    if not isinstance(dataset, Dataset):
        hint = "; use Dataset((x, y))" if isinstance(dataset, (tuple, list)) else ""
        raise TypeError(f"{owner}: expected a Dataset, got a {type(dataset).__name__}{hint}")


def check_parts(owner: str, parts: object, dataset: Dataset) -> tuple[str, ...]:
    """Return the parts that are measured: those named that the data set has.

    Raises
    ------
    ValueError
        If a name is not one of a part, or the test part is asked for and there is none.
    """
    known = ("train", "valid", "test")
    if not isinstance(parts, (list, tuple)) or any(part not in known for part in parts):
        raise ValueError(f'{owner}: expected parts among "train", "valid", "test", got {parts!r}')
    if "test" in parts and dataset.test is None:
        raise ValueError(f"{owner}: parts has 'test', but {dataset!r} has no test part")
    return tuple(part for part in known if part in parts and part in dataset.splits)


def check_arguments(
    owner: str, loss: object, callbacks: Sequence[Callback] | None, checkpoint: object
) -> list[Callback]:
    """Check what training is given beside model and data, and return the callbacks as a list."""
    if isinstance(loss, type) or not callable(loss):
        raise TypeError(f"{owner}: expected a loss as CrossEntropy(), got {loss!r:.80}")
    if checkpoint is not None and not hasattr(checkpoint, "resume"):
        raise TypeError(
            f"{owner}: expected checkpoint=minidl.Checkpoint(path), got {checkpoint!r:.80}"
        )
    if isinstance(callbacks, Callback):
        raise TypeError(f"{owner}: expected a list of callbacks, got {callbacks!r}")
    checked_callbacks = list(callbacks or ())
    for callback in checked_callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"{owner}: expected callbacks as EarlyStopping(), got {callback!r}")
    return checked_callbacks


@contextmanager
def marked(model: Layer, dataset: Dataset) -> Iterator[None]:
    """Mark a model as being trained, and keep the scale of its pixels for new rows.

    Raises
    ------
    RuntimeError
        If another thread trains the model, or a callback tries to.
    """
    mark = object()
    if model.__dict__.setdefault("_training", mark) is not mark:
        raise RuntimeError(f"fit: the model is being trained already: {model!r:.80}")
    try:
        model.input_scale = dataset.train.scale
        yield
    finally:
        del model.__dict__["_training"]


def epoch_rng(rng: Rng, epoch: int) -> np.random.Generator:
    """Return the generator for the order of the examples in one epoch."""
    # The spawn key makes this stream independent of those of layers with the same seed.
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        return np.random.default_rng(np.random.SeedSequence(int(rng), spawn_key=(2**16, epoch)))
    if isinstance(rng, np.random.SeedSequence):
        key = (*rng.spawn_key, 2**16, epoch)
        return np.random.default_rng(np.random.SeedSequence(rng.entropy, spawn_key=key))
    return as_generator(rng)


def not_finite(model: Layer) -> list[str]:
    """Return the names of the parameters and buffers with an entry that is not finite."""
    tensors = [(name, value) for name, value in named_buffers(model)]
    if not np.isfinite(model.theta).all():  # one pass over all parameters
        tensors = [(name, p.value) for name, p in model.named_parameters()] + tensors
    return [name for name, value in tensors if not np.isfinite(value).all()]


def check_finite(model: Layer, known: Collection[str], epoch: int) -> None:
    """Raise NonFiniteLossError if a parameter or a buffer is not finite after an epoch.

    ``known`` are the names of those that were not finite before training: masks, or extremes so
    far, that start with infinity.
    """
    for name in not_finite(model):
        if name not in known:
            raise NonFiniteLossError(
                f"epoch {epoch}: every loss is finite, but {name} is not after the last step; a "
                "gradient is not finite, or a step is too large"
            )


def diagnose(model: Layer, x: Array, value: float, epoch: int, step: int) -> str:
    """Describe a loss that is not finite; name the first layer whose output is not finite."""
    where = f"epoch {epoch}, step {step}: the loss is {value}"
    if not np.isfinite(x).all():
        return f"{where}; the batch itself is not finite"
    for i, layer in enumerate(model.layers if isinstance(model, Sequential) else [model]):
        x = infer(layer, x)
        if not np.isfinite(x).all():
            return f"{where}; the first output that is not finite is that of layer {i}, {layer!r}"
    return f"{where}, though every layer's output is finite"
