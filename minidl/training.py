"""Mini-batch training: ``fit``."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    quiet,
    quietly,
)
from minidl.dataset import Dataset, Split
from minidl.evaluation import measure, metrics_of, r2
from minidl.files import as_path
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
from minidl.parameter import infer, named_buffers, random_streams, set_stream
from minidl.saving.runs import _describe_order, run_settings


class RunState:
    """The state of runs that train together, between two epochs.

    Parameters
    ----------
    owner : str
        The training function.
    runs : sequence of Run
    rng : seed, Generator or iterator
        Orders the examples.
    parts : sequence of Stateful
        The callbacks, and what else has a state.
    path : path, optional
        The file.
    every : int
        The number of epochs between two files; one is also written at the end.
    resume : bool
        Whether to start from the file, if there is one.
    settings : callable
        Returns what the settings in the file must be. Not called without a path.
    """

    def __init__(
        self,
        owner: str,
        runs: Sequence[Run],
        rng: Any,
        parts: Sequence[Stateful],
        path: str | os.PathLike[str] | None,
        every: int,
        resume: bool,
        settings: Callable[[], dict[str, Any]],
    ) -> None:
        self.runs, self.rng, self.parts = runs, rng, parts
        self.path = None if path is None else as_path(path)
        self.every = check_int(owner, "every", every)
        self.ended = False
        self._saved = 0  # the epoch of the state in the file
        self._moments: list[_Moment] = []
        self._order: dict[str, Any] = {}
        self._states: list[dict[str, Any]] = []
        if resume and path is None:
            raise ValueError(f"{owner}: resume=True needs checkpoint=PATH")
        for run in runs:
            _go_on_from_the_last_weights(run)
            if path is not None and not isinstance(run.optimizer, Optimizer):
                raise TypeError(f"{owner}: expected an Optimizer to save, got {run.optimizer!r}")
        if self.path is not None:
            order = _describe_order(owner, rng)
            dtype = runs[0].model.dtype.name
            self.settings = {"function": owner, "dtype": dtype, **settings(), "rng": order}
            if resume and self.path.exists():
                self._load(self.path)

    def epochs(self, last: int) -> Iterable[int]:
        """Return the numbers of the epochs that are to be trained."""
        return range(self._epoch + 1, 0 if self.ended else last + 1)

    def keep(self, ended: bool = False) -> None:
        """Keep the state before training or after an epoch, and write the file where it is due.

        ``ended`` says that no further epoch will be trained.
        """
        self.ended = ended
        self._moments = [_Moment(run) for run in self.runs]
        self._order = _order_state(self.rng)
        self._states = [copy.deepcopy(part.state()) for part in self.parts]
        epoch = self._epoch
        due = ended or epoch % self.every == 0 or epoch == self.runs[0].epochs
        if self.path is not None and epoch > self._saved and due:
            self._save(self.path)
            self._saved = epoch

    def rewind(self) -> None:
        """Set the runs back to the start of an epoch that did not end."""
        undone = [moment.rewind() for moment in self._moments]
        if not (undone and all(undone)):
            return
        if self._order:
            _set_order(self.rng, self._order)
        for part, state in zip(self.parts, self._states, strict=True):
            if state:
                part.load_state(state)

    def rewind_run(self, run: Run) -> None:
        """Set one run back to the start of an epoch, while the others go on."""
        for moment in self._moments:
            if moment.run is run:
                moment.rewind()

    def restore_best(self) -> None:
        """Set each model to its best weights; its history keeps the last ones."""
        for run in self.runs:
            if run.history.best_snapshot is not None:
                run.history.last_snapshot = run.model.snapshot()
                run.history.restore_best(run.model)

    @property
    def _epoch(self) -> int:
        """The last epoch that has ended; 0 before training."""
        return max(1, *(len(run.history) for run in self.runs)) - 1

    def _save(self, path: Path) -> None:
        from minidl.saving import (
            runs as run_file,  # what needs a file need not be loaded for training
        )

        run_file.write(
            path,
            self.runs,
            self.parts,
            order=self._order,
            settings=self.settings,
            ended=self.ended,
        )

    def _load(self, path: Path) -> None:
        from minidl.saving import runs as run_file

        self.ended = run_file.read(
            path,
            self.runs,
            self.parts,
            order=lambda state: _set_order(self.rng, state),
            trial=lambda state: _set_order(copy.deepcopy(self.rng), state),
            settings=self.settings,
        )
        self._saved = self._epoch


class _Moment:
    """The state of one run between two epochs, without its history."""

    def __init__(self, run: Run) -> None:
        self.run, self.records = run, len(run.history)
        self.model = run.model.snapshot()
        self.optimizer: dict[str, Any] | None = None  # an object of another kind keeps its state
        if isinstance(run.optimizer, Optimizer):
            self.optimizer, self.lr = run.optimizer.state_dict(), run.optimizer.lr
        self.streams = [rng.bit_generator.state for rng in random_streams(run.model)]

    def rewind(self) -> bool:
        """Go back to this state, unless the epoch after it has its record; return whether."""
        if len(self.run.history) != self.records:
            return False
        self.run.model.restore(self.model)
        if self.optimizer is not None:
            self.run.optimizer.load_state_dict(self.optimizer)
            self.run.optimizer.lr = self.lr
        for rng, state in zip(random_streams(self.run.model), self.streams, strict=True):
            rng.bit_generator.state = state
        return True


def _go_on_from_the_last_weights(run: Run) -> None:
    """Undo the ``restore_best`` at the end of an earlier training, unless the model has changed."""
    history = run.history
    last, best = history.last_snapshot, history.best_snapshot
    if last and best and np.array_equal(run.model.theta, best.theta):
        run.model.restore(last)
    history.last_snapshot = None


def _order_state(rng: Any) -> dict[str, Any]:
    """Return the state of what orders the examples; empty for seeds and unknown iterators."""
    if isinstance(rng, np.random.Generator):
        return {"stream": rng.bit_generator.state}
    return rng.state() if isinstance(rng, Stateful) else {}


def _set_order(rng: Any, state: Mapping[str, Any]) -> None:
    """Set a state that ``_order_state`` returned; ValueError if it does not fit."""
    if isinstance(rng, np.random.Generator):
        set_stream("rng", rng, state["stream"])
    elif isinstance(rng, Stateful):
        rng.load_state(state)


class NonFiniteLossError(FloatingPointError):
    """A loss is NaN or infinite, or after an epoch a parameter is.

    The message names the epoch, the step and the first layer whose output is not finite; or the
    epoch and the first parameter.
    """


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
    evaluate_train: bool = True,
    history: History | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 1,
    resume: bool = False,
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
    evaluate_train : bool
        Whether to measure the figures of the training part after each epoch.
    history : History, optional
        Filled during training, so that an interrupted run leaves its records. If it already has
        records, training resumes after the last epoch in it.
    checkpoint : path, optional
        Written after each epoch: all that decides the rest of the run. ``minidl.load`` and
        ``minidl.saving.runs.load`` read it too.
    every : int
        The number of epochs between two checkpoints. One is written at the end in any case.
    resume : bool
        Whether to go on from the file ``checkpoint``, with the same bits as a run that was not
        stopped; without a file the run begins. More epochs may be asked for; a run that a callback
        has ended gets no further ones. Records in ``history`` are replaced by those of the file.
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
    callbacks = check_arguments("fit", model, dataset, loss, optimizer, callbacks)
    name_probabilities("fit", model, loss, stacklevel=3)
    epochs = check_int("fit", "epochs", epochs, low=0)
    batch_size = check_int("fit", "batch_size", batch_size)
    history = History() if history is None else history
    train, batches = dataset.train, -(-len(dataset.train.counted) // batch_size)
    objective = Objective(loss, train, batch_size, mean_weight)
    run = Run(model, optimizer, history, epochs, batches)
    settings = functools.partial(
        run_settings, dataset, loss, batch_size=batch_size, evaluate_train=evaluate_train,
        mean_weight=mean_weight,
    )  # fmt: skip
    state = RunState("fit", [run], rng, callbacks, checkpoint, every, resume, settings)
    on_gradient = [c for c in callbacks if type(c).on_gradient is not Callback.on_gradient]
    on_batch = [c for c in callbacks if type(c).on_batch is not Callback.on_batch]
    with training(model, dataset), quiet():
        record = Recorder(run, dataset, loss, evaluate_train, metrics, restore_best)
        record.follow(monitor, mode)
        known = not_finite(model)
        for callback in callbacks:
            callback.on_start(run)
        try:
            if not history.records:
                record(None)
            state.keep(ended=state.ended)
            train, first = as_seen(model, train, loss), True
            for epoch in state.epochs(epochs):
                total = 0.0
                order = epoch_rng(rng, epoch)
                for step, (x, *y) in enumerate(train.batches(batch_size, order, model.dtype)):
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
                check_finite(model, known, epoch)
                record(total / objective.batches)
                stops = [callback.on_epoch(run) for callback in callbacks]
                state.keep(ended=any(stops))
                if state.ended:
                    break
            history.check_best("fit")
        except BaseException:
            state.rewind()
            raise
        finally:
            if restore_best:
                state.restore_best()
            for callback in callbacks:
                callback.on_end(run)
    return history


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


def check_arguments(
    owner: str,
    model: object,
    dataset: object,
    loss: object,
    optimizer: object,
    callbacks: Sequence[Callback] | None,
) -> list[Callback]:
    """Check what training is given, and return the callbacks as a list."""
    check_model(owner, model)
    if not isinstance(dataset, Dataset):
        hint = "; use Dataset((x, y))" if isinstance(dataset, (tuple, list)) else ""
        raise TypeError(f"{owner}: expected a Dataset, got a {type(dataset).__name__}{hint}")
    if isinstance(loss, type) or not callable(loss):
        raise TypeError(f"{owner}: expected a loss as CrossEntropy(), got {loss!r:.80}")
    if isinstance(optimizer, type) or not hasattr(optimizer, "model"):
        raise TypeError(f"{owner}: expected an optimizer as Adam(model), got {optimizer!r:.80}")
    if optimizer.model is not model:
        raise ValueError(f"{owner}: the optimizer was made for another model")
    if isinstance(callbacks, Callback):
        raise TypeError(f"{owner}: expected a list of callbacks, got {callbacks!r}")
    checked_callbacks = list(callbacks or ())
    for callback in checked_callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"{owner}: expected callbacks as EarlyStopping(), got {callback!r}")
    return checked_callbacks


@contextlib.contextmanager
def training(model: Layer, dataset: Dataset) -> Iterator[None]:
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


class Recorder:
    """Evaluate the model after each epoch and append the record to the history."""

    def __init__(
        self,
        run: Run,
        dataset: Dataset,
        loss: Loss,
        evaluate_train: bool,
        metrics: Mapping[str, Metric] | None = None,
        restore_best: bool = False,
    ) -> None:
        self.run, self.dataset, self.loss = run, dataset, loss
        self.evaluate_train, self.metrics = evaluate_train, dict(metrics or {})
        # The best weights must have finite outputs, so some are computed.
        self.check_outputs = restore_best and dataset.valid is None
        self.since = time.perf_counter()

    def follow(self, monitor: str | None, mode: Mode | None) -> None:
        """Let the history follow a figure; ValueError if it is not measured, or cannot be."""
        measured = {"loss": None, **metrics_of(self.loss), **self.metrics}
        figures = list(measured)
        known = ["train_loss"]
        if self.evaluate_train:
            known += [f"train_{name}" for name in figures[1:]]
        if self.dataset.valid is not None:
            known += [f"valid_{name}" for name in figures]
        history = self.run.history
        asked = monitor or history.asked
        if asked is not None and asked not in known:
            raise ValueError(f"fit: no figure {asked!r} to monitor{did_you_mean(asked, known)}")
        history.follow(self.run.model, monitor, mode)
        key, _, figure = (asked or "").partition("_")
        split = self.dataset.splits.get(key)
        if split is not None and measured.get(figure) is r2:
            n = len(split) if split.weight is None else np.count_nonzero(split.weight)
            if n < 2:
                raise ValueError(
                    f"{self.dataset.name}: {key}: expected at least two examples of weight above 0 "
                    f"to monitor {asked}, which is R^2, got {n}"
                )

    def __call__(self, train_loss: float | None) -> None:
        """Append a record; ``train_loss`` is None before training, where it is evaluated."""
        run = self.run
        lr = run.optimizer.lr_at(max(run.optimizer.steps - 1, 0))
        figures: dict[str, float] = {}
        finite = [True]
        if self.evaluate_train or train_loss is None:
            figures |= self._evaluate("train", finite)
        elif self.check_outputs:
            self._evaluate("train", finite)
        if train_loss is not None:
            figures = {**figures, "train_loss": train_loss}
        if self.dataset.valid is not None:
            figures |= self._evaluate("valid", finite)
        now = time.perf_counter()
        seconds, self.since = now - self.since, now
        epoch = Epoch(len(run.history), seconds, lr, figures, all(finite))
        run.history.append(epoch, run.model)

    def _evaluate(self, key: str, finite: list[bool]) -> dict[str, float]:
        """Return the figures of one part, with its name before theirs; note what is finite."""
        split = self.dataset.splits[key]
        try:
            found, all_finite = measure(self.run.model, split, self.loss, self.metrics)
            finite.append(all_finite)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self.dataset.name}: {key}: {error}") from error
        return {f"{key}_{name}": figure for name, figure in found.items()}


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
