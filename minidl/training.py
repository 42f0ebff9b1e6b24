"""Mini-batch training: ``fit``, and the loop over epochs that all training functions share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Protocol

import numpy as np

from minidl.callbacks import Callback, Run
from minidl.checks import (
    Array,
    F,
    Rng,
    Stateful,
    as_generator,
    check_float,
    check_int,
    did_you_mean,
    quietly,
    shaped_targets,
)
from minidl.dataset import Dataset
from minidl.evaluation import as_loss, as_metrics, check_loss, measure, metrics_of
from minidl.history import Epoch, History, Mode
from minidl.layer import Layer, check_model, checked, in_order, name_probabilities, write_gradients
from minidl.losses import Loss, Metric
from minidl.optim import Optimizer, check_optimizer
from minidl.parameter import States, Streams, infer, not_finite


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


EARLIER = {  # arguments of earlier versions, and how they are spelled now
    "evaluate_train": 'parts=("train", "valid"), without "train" for evaluate_train=False',
    "every": "checkpoint=minidl.Checkpoint(path, every=...)",
    "resume": "checkpoint=minidl.Checkpoint(path, resume=...)",
}


def names_earlier(function: F) -> F:
    """Decorate a training function: an argument in ``EARLIER`` is an error with its spelling."""

    @wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        for name in EARLIER.keys() & options.keys():
            raise TypeError(f"{function.__name__}: {name}= is now {EARLIER[name]}")
        return function(*args, **options)

    return run  # type: ignore[return-value]


@names_earlier
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

    An epoch that does not end (Ctrl-C, an error) leaves nothing behind: the model, its random
    streams, the optimizer and ``rng`` are set back, and another call with the same ``history`` goes
    on from its start. Probabilities as outputs, before a loss of logits, are a UserWarning.

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
    batch_size : int
    rng : int, SeedSequence or Generator
        Orders the examples. With a seed, the order depends only on it and the epoch's number.
    metrics : mapping, optional
        Metrics of your own by name, recorded as ``"train_NAME"`` and ``"valid_NAME"``:
        ``metric(outputs, y)`` returns a number. ``y`` has the shape of the outputs, (n, 1) for one
        output, except for class labels, which are (n,); so has that of a loss of your own.
    monitor : str, optional
        The metric that the best epoch, ``restore_best`` and early stopping follow: by default the
        first that is measured of ``"valid_accuracy"``, ``"valid_loss"`` and ``"train_loss"``.
    mode : {"min", "max"}, optional
        Whether its lowest or highest value is the best, by default by its name, see ``History``.
    callbacks : sequence of Callback, optional
    restore_best : bool
        Whether the model has the parameters and buffers of the best epoch however training ends.
    parts : sequence of {"train", "valid", "test"}
        What is measured after each epoch, where the data set has it; ``()`` measures nothing but
        the training loss.
    history : History, optional
        Filled during training. If it already has records, training resumes after the last epoch.
    checkpoint : Checkpoint, optional
        The file that is written after each epoch, or from which training goes on, with the same
        bits as a run that was not stopped; its records replace those in ``history``.
    mean_weight : float, optional
        The weight with which an example counts once; by default the mean of the training part.

    Returns
    -------
    History
        One record for each epoch; the first record is from before training.

    Raises
    ------
    NonFiniteLossError
        When the loss of a batch is NaN or infinite; names the epoch, the step and the first layer
        whose output is not finite. When a parameter or a buffer is, after an epoch; names both.
    TypeError, ValueError
        For wrong arguments, targets that the loss does not take, a part that does not keep its
        contract, a monitored metric that is finite in no epoch, a checkpoint that is damaged or of
        a run with other settings.
    """
    epochs = check_int("fit", "epochs", epochs, low=0)
    batch_size = check_int("fit", "batch_size", batch_size)
    objective = Objective("fit", loss, dataset, mean_weight)
    batches = -(-objective.examples // batch_size)
    run = Run(model, optimizer, History() if history is None else history, epochs, batches)
    training = Training(
        "fit", [run], objective, rng, {"batch_size": batch_size, "mean_weight": mean_weight},
        metrics=as_metrics("fit", metrics), monitor=monitor, mode=mode, callbacks=callbacks or (),
        restore_best=restore_best, parts=parts, checkpoint=checkpoint,
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
            total += value if objective.is_sum else len(x) * value
            for callback in on_batch:
                callback.on_batch(run)
        return [total / objective.size]

    training.run_epochs(train_epoch)
    run.history.check_best("fit")
    return run.history


@dataclass(eq=False)
class Training:
    """Runs that train together: the loop over their epochs, and their state between two of them.

    Callbacks see the first run. With ``survivors``, a run that cannot go on ends alone, with the
    reason in its ``error``. A run is resumed only with the same ``settings``.
    """

    owner: str
    runs: Sequence[Run]
    objective: Objective
    rng: Any
    settings: Mapping[str, Any]
    callbacks: Sequence[Callback] = ()
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    monitor: str | None = None
    mode: Mode | None = None
    restore_best: bool = False
    parts: Sequence[str] = ("train", "valid")
    checkpoint: CheckpointFile | None = None
    survivors: bool = False

    def __post_init__(self) -> None:
        self._check_options()
        for run in self.runs:
            check_model(self.owner, run.model)
            check_optimizer(self.owner, run.optimizer, run.model)
            self._follow(run)
        # All objects whose state decides the rest, by their names in a checkpoint.
        self._parts: dict[str, Any] = {}
        for i, run in enumerate(self.runs, 1):
            for name in ("model", "optimizer", "history"):
                self._parts[f"{name} {i}" if i > 1 else name] = getattr(run, name)
        self._models = [name for name, part in self._parts.items() if isinstance(part, Layer)]
        generator = isinstance(self.rng, np.random.Generator)
        order = Streams({"stream": self.rng}) if generator else self.rng
        if isinstance(order, Stateful):
            self._parts["order"] = order
        for callback in self.callbacks:
            kind = type(callback).__name__
            count = 1 + sum(name.startswith(f"{kind} ") for name in self._parts)
            self._parts[f"{kind} {count}"] = callback
        self._parts["training"] = self
        self._ended, self._saved, self._recorded = False, 0, -1
        self._unchecked = {id(run.model) for run in self.runs}
        if self.checkpoint is not None:
            self._open(self.checkpoint)
        # What an epoch that does not end sets back.
        going_back = {k: p for k, p in self._parts.items() if isinstance(p, Stateful)}
        going_back = {k: p for k, p in going_back.items() if not isinstance(p, (History, Training))}
        self._states, self._kept = States(going_back), dict[str, Any]()

    def _check_options(self) -> None:
        """Check the order, the parts, the checkpoint and the callbacks."""
        owner, checkpoint, callbacks = self.owner, self.checkpoint, self.callbacks
        if not isinstance(self.rng, Iterator):
            as_generator(self.rng)
        known = list({"train": 0, "valid": 0, **self.objective.dataset.splits})
        if not isinstance(self.parts, (list, tuple)) or not {*self.parts} <= {*known}:
            raise ValueError(f"{owner}: expected parts among {known}, got {self.parts!r:.80}")
        self.measured = [part for part in self.objective.dataset.splits if part in self.parts]
        if checkpoint is not None and not hasattr(checkpoint, "resume"):
            want = "checkpoint=minidl.Checkpoint(path)"
            raise TypeError(f"{owner}: expected {want}, got {checkpoint!r:.80}")
        listed = isinstance(callbacks, (list, tuple))
        if not listed or not all(isinstance(callback, Callback) for callback in callbacks):
            raise TypeError(f"{owner}: expected callbacks=[EarlyStopping()], got {callbacks!r:.80}")

    def _open(self, file: CheckpointFile) -> None:
        """Describe what the result depends on, and go on from the file where that is asked for."""
        order = {"rng": self.rng} if isinstance(self.rng, Iterator) else {}
        for name, part in {**order, **self._parts}.items():
            if not isinstance(part, Stateful):
                want = f"{name} with a state that checkpoint= can save"
                raise TypeError(f"{self.owner}: expected {want}, by state_dict, got {part!r:.80}")
        made = {k: p for k, p in self._parts.items() if isinstance(p, (Layer, Optimizer))}
        self.settings = file.describe({
            "function": self.owner, "dtype": self.runs[0].model.dtype.name, "rng": self.rng,
            "data": self.objective.dataset, "loss": self.objective.loss, "parts": self.measured,
            "metrics": self.metrics, "callbacks": [c for c in self.callbacks if not c.only_watches],
            **self.settings, **made,
        })  # fmt: skip
        if file.resume and file.exists():
            file.load(settings=self.settings, **self._parts)
            self._saved = self.epoch

    @property
    def epoch(self) -> int:
        """The last epoch that has ended; 0 before training."""
        return max(1, *(len(run.history) for run in self.runs)) - 1

    def called(self, name: str) -> list[Callback]:
        """Return the callbacks that define a method of their own with this name."""
        own = getattr(Callback, name)
        return [one for one in self.callbacks if getattr(type(one), name) is not own]

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

    @quietly
    def run_epochs(self, train_epoch: Callable[[int], Sequence[float]]) -> None:
        """Train for the epochs that the histories lack.

        ``train_epoch(epoch)`` trains the runs without an ``error`` and returns the training loss of
        each run. A run that cannot go on gets an ``error``.
        """
        first, self._since = self.runs[0], time.perf_counter()
        with ExitStack() as stack:
            for run in self.runs:
                name_probabilities(self.owner, run.model, self.objective.loss)
                stack.enter_context(marked(run.model, self.objective.dataset))
            before = [not_finite(run.model) for run in self.runs]
            for callback in self.callbacks:
                callback.on_start(first)
            try:
                if not first.history.records:
                    self._record([None] * len(self.runs))
                self._keep()
                self.objective.look(first.model)
                while not self._ended and self.epoch < first.epochs:
                    losses = train_epoch(self.epoch + 1)
                    for i, run in enumerate(self.runs):
                        found = [name for name in not_finite(run.model) if name not in before[i]]
                        if found and run.error is None:
                            why = f"but {found[0]} is not, after the last step"
                            run.error = f"epoch {self.epoch + 1}: every loss is finite, {why}"
                        if run.error is not None and not self.survivors:
                            raise NonFiniteLossError(run.error)
                        if run.error is not None:
                            run.model.load_state_dict(self._kept[self._models[i]])
                    self._record(losses)
                    going = any(run.error is None for run in self.runs)
                    stops = [callback.on_epoch(first) for callback in self.callbacks if going]
                    self._ended = any(stops) or not going
                    self._keep()
            except BaseException:
                if self.epoch == self._recorded:  # the epoch has not ended
                    self._states.set(self._kept)
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
        return {"ended": self._ended, "errors": [run.error for run in self.runs]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what ``state_dict`` returned."""
        for run, error in zip(self.runs, state["errors"], strict=True):
            run.error = None if error is None else str(error)
        self._ended = bool(state["ended"])
        if self.epoch > (asked := self.runs[0].epochs):
            raise ValueError(f"holds {self.epoch} epochs, and epochs={asked} asks for fewer")

    def _keep(self) -> None:
        """Keep the state before training or after an epoch, and write the file where it is due."""
        self._recorded = epoch = self.epoch
        self._kept = self._states.state_dict()
        file, is_last = self.checkpoint, self._ended or epoch == self.runs[0].epochs
        if file is not None and epoch > self._saved and (is_last or epoch % file.every == 0):
            file.save(settings=self.settings, **self._parts)

    def _follow(self, run: Run) -> None:
        """Let the history follow a metric, and go on from its last weights, not from the best."""
        names = ["loss", *metrics_of(self.objective.loss), *self.metrics]
        known = ["train_loss", *(f"{part}_{name}" for part in self.measured for name in names)]
        model, history = run.model, run.history
        asked = self.monitor or history.asked
        if asked is not None and asked not in known:
            why = f"no metric {asked!r:.80} to monitor{did_you_mean(str(asked), known)}"
            raise ValueError(f"{self.owner}: {why}")
        history.follow(model, self.monitor, self.mode)
        last, best = history.last_state, history.best_state
        learned = model.named_parameters()
        if last and best and all(np.array_equal(best[name], p.value) for name, p in learned):
            model.load_state_dict(last)  # the model has not changed since
        history.last_state = None

    def _record(self, losses: Sequence[float | None]) -> None:
        """Append a record to each history; the training losses are None before training."""
        going = [i for i, run in enumerate(self.runs) if run.error is None]
        measured = [self._measure(self.runs[i].model, losses[i]) for i in going]
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        for i, found in zip(going, measured, strict=True):
            optimizer, history = self.runs[i].optimizer, self.runs[i].history
            lr = optimizer.lr_at(max(optimizer.steps - 1, 0))
            record = Epoch(len(history), seconds, lr, *found)
            history.append(record, self._states.parts[self._models[i]])

    def _measure(self, model: Layer, train_loss: float | None) -> tuple[dict[str, float], bool]:
        """Return the metrics of the parts, and whether all outputs and losses are finite."""
        data, parts, finite = self.objective.dataset, self.measured, True
        # The training loss before training; and the best state must have finite outputs.
        if self.parts if train_loss is None else self.restore_best and not parts:
            parts = ["train", *(part for part in parts if part != "train")]
        found = {"train_loss": math.nan}
        for part in parts:
            shown = part in self.parts
            try:
                own = self.metrics if shown else None
                metrics, are = measure(model, data.splits[part], self.objective.loss, own)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{data.name}: {part}: {error}") from error
            finite &= are
            found |= {f"{part}_{k}": v for k, v in metrics.items() if shown or k == "loss"}
        return found if train_loss is None else {**found, "train_loss": train_loss}, finite


class Objective:
    """A loss as the steps of training use it: each example counts by its weight in any batch.

    A loss divides by the sum of the weights of its batch. A step multiplies its value and its
    gradient by ``(mean weight of the batch) / (mean weight of the training part)``: for ``n``
    examples and the mean weight ``m`` of the part the value is ``sum_i w_i l_i / (n m)``. A loss
    with ``reduction="sum"`` is used as it is. ``train`` is the training part, ``examples`` the
    number of its rows with a weight, ``factors`` are ``w / m``, None if all are 1. The loss of an
    epoch is the sum over its examples divided by ``size``.
    """

    @quietly
    def __init__(
        self, owner: str, loss: Loss, dataset: Dataset, mean_weight: float | None = None
    ) -> None:
        if not isinstance(dataset, Dataset):
            got = type(dataset).__name__
            raise TypeError(f"{owner}: expected a Dataset, as Dataset((x, y)), got a {got}")
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
        self.train = replace(self.train, y=shaped_targets(self.loss, z, self.train.y))
        check_loss(self.loss, z, *self.train.targets(index))

    def __call__(self, logits: Array, y: Array, *weight: Array) -> tuple[float, Array]:
        """Return the value of a batch and its gradient with respect to the logits."""
        value, dlogits = self.loss(logits, y, *weight)
        if self.is_sum or self.factors is None:
            return value, dlogits
        factor = float(np.mean((weight[0] if weight else 1) / self.mean_weight))
        return factor * value, dlogits * dlogits.dtype.type(factor)


@contextmanager
def marked(model: Layer, dataset: Dataset) -> Iterator[None]:
    """Mark a model as being trained, and keep the scale of its pixels for new rows."""
    mark = object()
    if vars(model).setdefault("_training", mark) is not mark:  # another thread, or a callback
        raise RuntimeError(f"fit: the model is being trained already: {model!r:.80}")
    try:
        model.input_scale = dataset.train.scale
        yield
    finally:
        del vars(model)["_training"]


def epoch_rng(rng: Rng, epoch: int) -> np.random.Generator:
    """Return the generator for the order of the examples in one epoch."""
    if isinstance(rng, np.random.SeedSequence):
        seed, key = rng.entropy, rng.spawn_key
    elif isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        seed, key = int(rng), ()
    else:
        return as_generator(rng)
    # The spawn key makes this stream independent of those of layers with the same seed.
    seeds = np.random.SeedSequence(seed, spawn_key=(*key, 2**16, epoch))
    return np.random.Generator(np.random.PCG64(seeds))  # default_rng, in half the time


def diagnose(model: Layer, x: Array, value: float, epoch: int, step: int) -> str:
    """Describe a loss that is not finite; name the first layer whose output is not finite."""
    where = f"epoch {epoch}, step {step}: the loss is {value}"
    for i, layer in enumerate(in_order(model)):
        x = infer(layer, x)
        if not np.isfinite(x).all():
            return f"{where}; the first output that is not finite is that of layer {i}, {layer!r}"
    return f"{where}, though every layer's output is finite"
