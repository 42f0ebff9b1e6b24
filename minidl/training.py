"""Mini-batch training: ``fit``, and the loop over epochs that all training functions share."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    shaped_targets,
)
from minidl.dataset import Dataset
from minidl.evaluation import as_loss, as_metrics, check_loss, measure, metrics_of, r2
from minidl.history import Epoch, History, Mode
from minidl.layer import (
    Layer,
    Sequential,
    check_model,
    checked,
    name_probabilities,
    write_gradients,
)
from minidl.losses import Loss, Metric
from minidl.optim import Optimizer, check_optimizer
from minidl.parameter import Streams, Values, finite_check, infer, values_of, with_streams


class NonFiniteLossError(FloatingPointError, ValueError):
    """A loss is NaN or infinite, or after an epoch a parameter is."""


class CheckpointFile(Protocol):
    """The part of a ``minidl.Checkpoint`` that training needs."""

    every: int
    resume: bool

    def exists(self) -> bool: ...
    def describe(self, settings: Mapping[str, Any] | None) -> Mapping[str, Any]: ...
    def save(self, *, settings: Mapping[str, Any] | None = None, **parts: Stateful) -> None: ...
    def load(self, *, settings: Mapping[str, Any] | None = None, **parts: Stateful) -> None: ...


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
        number of the epoch.
    metrics : mapping, optional
        Metrics of your own by name: ``metric(outputs, y)`` returns a number. The history keeps
        them as ``"train_NAME"`` and ``"valid_NAME"``. ``y`` has the shape of the outputs, (n, 1)
        for one output, except for class labels, which are (n,); so has that of a loss of your own.
    monitor : str, optional
        The metric that the best epoch, ``restore_best`` and early stopping follow. By default
        ``"valid_accuracy"``, or ``"valid_loss"`` where no accuracy is measured, or
        ``"train_loss"`` without a validation part.
    mode : {"min", "max"}, optional
        Whether the lowest or the highest metric is the best; by default by its name, see
        ``History``.
    callbacks : sequence of Callback, optional
    restore_best : bool
        Whether to leave the model with the parameters and buffers of the best epoch (see
        ``History``) instead of the last ones, however training ends: after all epochs, by early
        stopping, a loss that is not finite, or Ctrl-C.
    parts : sequence of {"train", "valid", "test"}
        The parts of the data that are measured after each epoch, where the data set has them. With
        ``()`` nothing is measured but the training loss of the epochs.
    history : History, optional
        Filled during training. If it already has records, training resumes after the last epoch.
    checkpoint : Checkpoint, optional
        The file that is written after each epoch, or from which training goes on. A resumed run
        ends with the same bits as one that was not stopped. Records in ``history`` are replaced by
        those of the file.
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
    An epoch that does not end (Ctrl-C, an error) leaves nothing behind: the model, its random
    streams, the optimizer and ``rng`` are set back, and another call with the same ``history`` goes
    on from its start.

    Returns
    -------
    History
        One record for each epoch; the first record is from before training.

    Raises
    ------
    NonFiniteLossError
        When the loss of a batch is NaN or infinite; names the epoch, the step and the first layer
        whose output is not finite. When a parameter or a buffer is, after the last step of an
        epoch; names the epoch and the parameter.
    TypeError, ValueError
        For wrong arguments; for targets that the loss does not take; for a layer or loss that
        does not keep its contract. Names the part of the data, the layer or the loss.
        For a metric that returns no number, and for a monitored metric that is finite in no epoch.
        For a file to resume from that is damaged or of a run with other settings; names the first.
    """
    epochs = check_int("fit", "epochs", epochs, low=0)
    batch_size = check_int("fit", "batch_size", batch_size)
    objective = Objective("fit", loss, dataset, mean_weight)
    batches = -(-objective.examples // batch_size)
    run = Run(model, optimizer, History() if history is None else history, epochs, batches)
    training = Training(
        "fit", [run], objective, rng=rng, metrics=metrics, monitor=monitor, mode=mode,
        callbacks=callbacks, restore_best=restore_best, parts=parts, checkpoint=checkpoint,
        batch_size=batch_size, mean_weight=mean_weight,
    )  # fmt: skip
    on_gradient, on_batch = training.called("on_gradient"), training.called("on_batch")

    def train_epoch(epoch: int) -> list[float]:
        total = 0.0
        batches = objective.train.batches(batch_size, epoch_rng(rng, epoch), model.dtype)
        for step, (x, *y) in enumerate(batches):
            value = training.write_gradients(model, epoch, step, x, *y)
            for callback in on_gradient:
                callback.on_gradient(run)
            optimizer.step()
            total += objective.count(len(x)) * value
            for callback in on_batch:
                callback.on_batch(run)
        return [total / objective.size]

    training.run_epochs(train_epoch)
    run.history.check_best("fit")
    return run.history


class Training:
    """Runs that train together: the loop over their epochs, and their state between two of them.

    The state before an epoch is kept in memory, and with a checkpoint also in a file. Callbacks see
    the first run. With ``survivors``, a run that cannot go on ends alone, with the reason in its
    ``error``. A run is resumed only with the same ``settings``, on which the result depends.
    """

    def __init__(
        self,
        owner: str,
        runs: Sequence[Run],
        objective: Objective,
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
        self.owner, self.runs, self.objective = owner, runs, objective
        dataset, loss, first = objective.dataset, objective.loss, runs[0]
        for run in runs:
            check_model(owner, run.model)
            check_optimizer(owner, run.optimizer, run.model)
            name_probabilities(owner, run.model, loss)
        check_options(owner, dataset, parts, callbacks, checkpoint)
        self.callbacks, self.metrics = list(callbacks or ()), as_metrics(owner, metrics)
        self.parts, self.measures = [p for p in dataset.splits if p in parts], bool(parts)
        self.restore_best, self.survivors = restore_best, survivors
        self.checkpoint, self.ended = checkpoint, False
        for run in runs:
            self._follow(run, monitor, mode)
            _go_on_from_the_last_weights(run)
        # All objects whose state decides the rest: those of each run, then those that they share.
        if isinstance(rng, (int, np.integer, type)):
            as_generator(rng)  # type: ignore[arg-type] # an error for a negative seed or a class
        order = Streams({"stream": rng}) if isinstance(rng, np.random.Generator) else rng
        shared = {"order": order} if isinstance(order, Stateful) else {}
        kinds = [type(callback).__name__ for callback in self.callbacks]
        names = [f"{kind} {kinds[: i + 1].count(kind)}" for i, kind in enumerate(kinds)]
        shared |= dict(zip(names, self.callbacks, strict=True))
        self._parts: list[dict[str, Stateful]] = []
        for i, run in enumerate(runs, 1):
            n = f" {i}" if i > 1 else ""
            own = {"history": run.history, "model": run.model, "optimizer": run.optimizer}
            self._parts.append({k + n: p for k, p in own.items() if isinstance(p, Stateful)})
        self._parts.append(shared)
        self._kept: list[list[tuple[Stateful, Mapping[str, Any]]]] = []
        self._saved = 0  # the epoch of the state in the file
        if checkpoint is not None:
            deciding = [c for c in self.callbacks if not c.only_watches]
            made = {k: p for k, p in self._states().items() if isinstance(p, (Layer, Optimizer))}
            self.settings = checkpoint.describe({
                "function": owner, "dtype": first.model.dtype.name, "data": dataset, "loss": loss,
                "rng": described_rng(owner, rng), "parts": tuple(self.parts),
                "metrics": self.metrics, "callbacks": deciding, **settings, **made,
            })  # fmt: skip
            if checkpoint.resume and checkpoint.exists():
                checkpoint.load(settings=self.settings, **self._states())
                self._saved = self.epoch
        self._unchecked = {id(run.model) for run in runs}
        states = [with_streams(own).values() for own in self._parts]
        self._values = {id(run.model): values_of(run.model) for run in runs}
        self._changing = [
            [self._values.get(id(p), p) for p in parts if changes_in_an_epoch(p)]
            for parts in states
        ]
        self._recorded = -1

    @property
    def epoch(self) -> int:
        """The last epoch that has ended; 0 before training."""
        return max(1, *(len(run.history) for run in self.runs)) - 1

    def called(self, name: str) -> list[Callback]:
        """Return the callbacks that define a method of their own with this name."""
        own = getattr(Callback, name)
        return [callback for callback in self.callbacks if getattr(type(callback), name) is not own]

    def write_gradients(self, model: Layer, epoch: int, step: int, x: Array, *y: Array) -> float:
        """Write the gradients of a batch and return its value; NonFiniteLossError if not finite.

        In the first step of a model its layers are checked.
        """
        if id(model) in self._unchecked:
            self._unchecked.remove(id(model))
            with checked(model):
                return self.write_gradients(model, epoch, step, x, *y)
        logits, backward = model.forward(x, train=True)
        value, dlogits = self.objective(logits, *y)
        if not math.isfinite(value):
            raise NonFiniteLossError(diagnose(model, x, value, epoch, step))
        write_gradients(model, backward, dlogits)
        return value

    def run_epochs(self, train_epoch: Callable[[int], Sequence[float]]) -> None:
        """Train for the epochs that the histories lack.

        ``train_epoch(epoch)`` trains the runs without an ``error`` and returns the training loss of
        each run. A run that cannot go on gets an ``error``.
        """
        first = self.runs[0]
        with ExitStack() as stack:
            stack.enter_context(quiet())
            for run in self.runs:
                stack.enter_context(marked(run.model, self.objective.dataset))
            self._since = time.perf_counter()
            not_finite = [finite_check(run.model) for run in self.runs]
            for callback in self.callbacks:
                callback.on_start(first)
            try:
                if not first.history.records:
                    self._record([None] * len(self.runs))
                self._keep()
                self.objective.look(first.model)
                for epoch in range(self.epoch + 1, first.epochs + 1):
                    if self.ended:
                        break
                    losses = train_epoch(epoch)
                    for i, (run, name) in enumerate(zip(self.runs, not_finite, strict=True)):
                        if run.error is None and (found := name()):
                            why = f"{found} is not, after the last step"
                            run.error = f"epoch {epoch}: every loss is finite, but {why}"
                        if run.error is not None:
                            if not self.survivors:
                                raise NonFiniteLossError(run.error)
                            self._set_back(i)
                    self._record(losses)
                    going = any(run.error is None for run in self.runs)
                    stops = [callback.on_epoch(first) for callback in self.callbacks if going]
                    self.ended = any(stops) or not going
                    self._keep()
            except BaseException:
                if len(first.history) == self._recorded:  # the epoch has not ended
                    for i in range(len(self._kept)):
                        self._set_back(i)
                raise
            finally:
                for run in self.runs:
                    if self.restore_best and run.history.best_state is not None:
                        run.history.last_state = run.model.state_dict()
                        run.history.restore_best(run.model)
                for callback in self.callbacks:
                    callback.on_end(first)

    def state_dict(self) -> dict[str, Any]:
        """Return whether training has ended, and why runs could not go on."""
        return {"ended": self.ended, "errors": [run.error for run in self.runs]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what ``state_dict`` returned."""
        for run, error in zip(self.runs, state["errors"], strict=True):
            run.error = None if error is None else str(error)
        self.ended = bool(state["ended"])
        if self.epoch > (asked := self.runs[0].epochs):
            raise ValueError(f"holds {self.epoch} epochs, and epochs={asked} asks for fewer")

    def _states(self) -> dict[str, Stateful]:
        """Return all that a checkpoint keeps, by name."""
        parts = {name: part for own in self._parts for name, part in own.items()}
        return {**parts, "training": self}

    def _keep(self) -> None:
        """Keep the state before training or after an epoch, and write the file where it is due."""
        self._recorded = len(self.runs[0].history)
        self._kept = [[(p, self._copy(p)) for p in parts] for parts in self._changing]
        file, epoch = self.checkpoint, self.epoch
        is_due = self.ended or epoch == self.runs[0].epochs
        if file is not None and epoch > self._saved and (is_due or epoch % file.every == 0):
            file.save(settings=self.settings, **self._states())
            self._saved = epoch

    def _copy(self, part: Stateful) -> Mapping[str, Any]:
        """Return a copy of a state, which those of callbacks and iterators may not be."""
        state = part.state_dict()
        return state if isinstance(part, (Values, Layer, Optimizer)) else copy.deepcopy(state)

    def _set_back(self, i: int) -> None:
        """Set run ``i``, or after the runs what they share, to the state that was kept."""
        for part, state in self._kept[i]:
            if state:
                part.load_state_dict(state)

    def _follow(self, run: Run, monitor: str | None, mode: Mode | None) -> None:
        """Let the history follow a metric; ValueError if it is not measured, or cannot be."""
        dataset = self.objective.dataset
        measured = {"loss": None, **metrics_of(self.objective.loss), **self.metrics}
        known = dict.fromkeys(["train_loss", *(f"{p}_{m}" for p in self.parts for m in measured)])
        asked = monitor or run.history.asked
        if not isinstance(asked, (str, type(None))):
            raise TypeError(f"{self.owner}: expected monitor to be a name, got {asked!r:.80}")
        if asked is not None and asked not in known:
            why = f"no metric {asked!r} to monitor{did_you_mean(asked, known)}"
            raise ValueError(f"{self.owner}: {why}")
        run.history.follow(run.model, monitor, mode)
        part, _, metric = (asked or "").partition("_")
        if measured.get(metric) is r2 and len(dataset.splits[part].counted) < 2:
            want = f"two examples of weight above 0 to monitor {asked}, which is R^2"
            raise ValueError(f"{dataset.name}: {part}: expected at least {want}")

    def _record(self, losses: Sequence[float | None]) -> None:
        """Append a record to each history; the training losses are None before training."""
        going = [(run, x) for run, x in zip(self.runs, losses, strict=True) if run.error is None]
        measured = [self._measure(run.model, train_loss) for run, train_loss in going]
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        for (run, _), found in zip(going, measured, strict=True):
            lr = run.optimizer.lr_at(max(run.optimizer.steps - 1, 0))
            record = Epoch(len(run.history), seconds, lr, *found)
            run.history.append(record, self._values[id(run.model)])

    def _measure(self, model: Layer, train_loss: float | None) -> tuple[dict[str, float], bool]:
        """Return the metrics of the parts, and whether all outputs and losses are finite."""
        before, finite, found = train_loss is None, True, {"train_loss": math.nan}
        # The training loss before training; and the best state must have finite outputs.
        beside = (before and self.measures) or (self.restore_best and not self.parts)
        for part, split in self.objective.dataset.splits.items():
            asked = part in self.parts
            if not asked and not (beside and part == "train"):
                continue
            try:
                own = self.metrics if asked else None
                metrics, are = measure(model, split, self.objective.loss, own)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{self.objective.dataset.name}: {part}: {error}") from error
            finite &= are
            shown = metrics if asked else ("loss",)
            found |= {f"{part}_{name}": metrics[name] for name in shown}
        return found if train_loss is None else {**found, "train_loss": train_loss}, finite


def changes_in_an_epoch(part: Stateful) -> bool:
    """Return whether a part may have a state to go back to; records are never taken back."""
    if isinstance(part, Streams):
        return bool(part.rngs)
    own = getattr(type(part), "state_dict", None)
    return not isinstance(part, History) and own is not Callback.state_dict


def described_rng(owner: str, rng: Any) -> Any:
    """Return what of ``rng`` is compared with a file: no state of a generator."""
    if isinstance(rng, np.random.SeedSequence):
        return [rng.entropy, rng.spawn_key]
    if not isinstance(rng, Iterator):
        return rng
    if not isinstance(rng, Stateful):
        want = "rng with a state that checkpoint= can save, by state_dict and load_state_dict"
        raise TypeError(f"{owner}: expected {want}, got {rng!r}")
    return rng if hasattr(rng, "config") else type(rng).__qualname__


def _go_on_from_the_last_weights(run: Run) -> None:
    """Undo the ``restore_best`` at the end of an earlier training, unless the model has changed."""
    last, best = run.history.last_state, run.history.best_state
    parameters = run.model.named_parameters()
    if last and best and all(np.array_equal(best[name], p.value) for name, p in parameters):
        run.model.load_state_dict(last)
    run.history.last_state = None


class Objective:
    """A loss as the steps of training use it: each example counts by its weight in any batch.

    A loss divides by the sum of the weights of its batch. A step multiplies its value and its
    gradient by ``(mean weight of the batch) / (mean weight of the training part)``. So for the
    ``n`` examples of a batch and the mean weight ``m`` of the part the value is
    ``sum_i w_i l_i / (n m)``, and a weight has its full effect at every batch size. A loss with
    ``reduction="sum"`` is used as it is.

    Attributes
    ----------
    train : Split
        The training part of the data set; after ``look`` with targets as the loss sees them.
    examples : int
        The number of its examples whose weight is not 0.
    mean_weight : float
        Of these, unless it was given.
    factors : array, shape (n,), or None
        The factor of each example of the part in a batch of its own; None if all are 1.
    size : float
        The loss of an epoch is the sum of ``count(n)`` times the value of each batch, divided by
        ``size``: the mean over its examples by their weights; the total for ``reduction="sum"``.
    """

    @quietly
    def __init__(
        self, owner: str, loss: Loss, dataset: Dataset, mean_weight: float | None = None
    ) -> None:
        if not isinstance(dataset, Dataset):
            hint = "; use Dataset((x, y))" if isinstance(dataset, (tuple, list)) else ""
            raise TypeError(f"{owner}: expected a Dataset, got a {type(dataset).__name__}{hint}")
        self.loss, self.dataset, self.train = as_loss(owner, loss), dataset, dataset.train
        self.is_sum = getattr(loss, "reduction", "mean") == "sum"
        counted, given = self.train.counted, self.train.weight
        self.examples = len(counted)
        weight = np.ones(self.examples) if given is None else given.astype(np.float64)
        if mean_weight is None:
            largest = weight.max()  # so that the sum does not overflow
            mean_weight = largest * float((weight / largest)[counted].mean())
        self.mean_weight = check_float(owner, "mean_weight", mean_weight, low=0, open_low=True)
        factors = weight if self.is_sum else weight / self.mean_weight
        self.factors = None if (factors == 1).all() else factors
        self.size = 1.0 if self.is_sum else float(factors.sum())

    def look(self, model: Layer) -> None:
        """Shape the targets for a model's outputs, and check the loss on the first examples."""
        index = self.train.counted[:8]
        z = model(self.train.rows(index, model.dtype))
        y = shaped_targets(self.loss, z, self.train.y)
        self.train = dataclasses.replace(self.train, y=y)
        check_loss(self.loss, z, *self.train.targets(index))

    def __call__(self, logits: Array, y: Array, *weight: Array) -> tuple[float, Array]:
        """Return the value of a batch and its gradient with respect to the logits."""
        value, dlogits = self.loss(logits, y, *weight)
        if self.is_sum or self.factors is None:
            return value, dlogits
        factor = float(np.mean((weight[0] if weight else 1) / self.mean_weight))
        return factor * value, dlogits * dlogits.dtype.type(factor)

    def count(self, n: int) -> int:
        """Return what a batch of ``n`` counts in the loss of an epoch; see ``size``."""
        return 1 if self.is_sum else n


def check_options(
    owner: str, dataset: Dataset, parts: object, callbacks: object, checkpoint: object
) -> None:
    """Check what training is given beside the model and its objective."""
    known = ("train", "valid", "test")
    if not isinstance(parts, (list, tuple)) or any(part not in known for part in parts):
        raise ValueError(f'{owner}: expected parts among "train", "valid", "test", got {parts!r}')
    if "test" in parts and dataset.test is None:
        raise ValueError(f"{owner}: parts has 'test', but {dataset!r} has no test part")
    if checkpoint is not None and not hasattr(checkpoint, "resume"):
        want = "checkpoint=minidl.Checkpoint(path)"
        raise TypeError(f"{owner}: expected {want}, got {checkpoint!r:.80}")
    if not isinstance(callbacks, (list, tuple, type(None))):
        raise TypeError(f"{owner}: expected a list of callbacks, got {callbacks!r:.80}")
    for callback in callbacks or ():
        if not isinstance(callback, Callback):
            raise TypeError(f"{owner}: expected callbacks as EarlyStopping(), got {callback!r}")


@contextmanager
def marked(model: Layer, dataset: Dataset) -> Iterator[None]:
    """Mark a model as being trained, and keep the scale of its pixels for new rows."""
    mark = object()
    if model.__dict__.setdefault("_training", mark) is not mark:  # another thread, or a callback
        raise RuntimeError(f"fit: the model is being trained already: {model!r:.80}")
    try:
        model.input_scale = dataset.train.scale
        yield
    finally:
        del model.__dict__["_training"]


def epoch_rng(rng: Rng, epoch: int) -> np.random.Generator:
    """Return the generator for the order of the examples in one epoch."""
    # The spawn key makes this stream independent of those of layers with the same seed.
    if isinstance(rng, np.random.SeedSequence):
        seed, key = rng.entropy, (*rng.spawn_key, 2**16, epoch)
    elif isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        seed, key = int(rng), (2**16, epoch)
    else:
        return as_generator(rng)
    seeds = np.random.SeedSequence(seed, spawn_key=key)
    return np.random.Generator(np.random.PCG64(seeds))  # default_rng, in half the time


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
