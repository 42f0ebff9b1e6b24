"""Runs that go on where they were stopped, with the same bits.

A run is at rest before training and after each epoch. There its state is kept in memory, so that
an epoch that does not end leaves nothing behind, and, with ``checkpoint=``, in a file
(``minidl.run_file``).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidl.callbacks import Run
from minidl.data.dataset import Dataset
from minidl.files import as_path
from minidl.optim import Optimizer
from minidl.settings import describe
from minidl.state import random_streams, set_stream
from minidl.typing import Stateful
from minidl.validation import check_int


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
        from minidl import run_file  # what needs a file need not be loaded for training

        run_file.write(
            path,
            self.runs,
            self.parts,
            order=self._order,
            settings=self.settings,
            ended=self.ended,
        )

    def _load(self, path: Path) -> None:
        from minidl import run_file

        self.ended = run_file.read(
            path,
            self.runs,
            self.parts,
            order=lambda state: _set_order(self.rng, state),
            trial=lambda state: _set_order(copy.deepcopy(self.rng), state),
            settings=self.settings,
        )
        self._saved = self._epoch


def run_settings(dataset: Dataset, loss: Any, **others: Any) -> dict[str, Any]:
    """Return what the result of a run depends on beside its model, as JSON takes it."""
    if hasattr(loss, "__qualname__"):  # a function
        described = describe(loss)
    else:
        described = {"class": type(loss).__name__, **describe(vars(loss))}
    return {"data": dataset.checksum(), "loss": described, **describe(others)}


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


def _describe_order(owner: str, rng: Any) -> Any:
    """Return what orders the examples, as JSON takes it, without the state of a generator."""
    if isinstance(rng, np.random.SeedSequence):
        return describe([rng.entropy, rng.spawn_key])
    if isinstance(rng, np.random.Generator):
        return str(rng)
    if isinstance(rng, Stateful):
        return type(rng).__qualname__
    if isinstance(rng, Iterator):
        raise TypeError(
            f"{owner}: expected rng with a state that checkpoint= can save (a seed, a Generator, "
            f"minidl.compounding, or an iterator with state and load_state), got {rng!r}"
        )
    return describe(rng)


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
