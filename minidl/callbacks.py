"""Callbacks: what ``fit`` calls during training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minidl.checks import Configured, check_float, check_int, progress_bar
from minidl.history import History
from minidl.layer import Layer
from minidl.optim import Optimizer


@dataclass(repr=False)
class Run:
    """The state of a training run, as callbacks see it."""

    model: Layer
    optimizer: Optimizer
    history: History
    epochs: int
    batches: int  # in one epoch
    error: str | None = None  # why it cannot go on, of several that train together

    def __repr__(self) -> str:
        done = max(len(self.history) - 1, 0)
        return f"Run({done} of {self.epochs} epochs of {self.batches} batches)"


class Callback(Configured):
    """Methods that ``fit`` calls during training; a subclass overrides those that it needs.

    A callback with a state of its own defines ``state_dict`` and ``load_state_dict``. A run is
    resumed only with the same callbacks: of the same classes, with the same arguments and, without
    a state, the same attributes when training begins.
    """

    only_watches = False
    """Whether it changes no result, as a bar or a plot; a resumed run may then have others."""

    def on_start(self, run: Run) -> None:
        """Called before the first epoch."""

    def on_gradient(self, run: Run) -> None:
        """Called before each step; may change the gradient in place: ``run.model.grad *= 2``."""

    def on_batch(self, run: Run) -> None:
        """Called after each step; may change the parameters in place: ``run.model.theta *= f``."""

    def on_epoch(self, run: Run) -> bool | None:
        """Called after each epoch, when ``run.history`` has its record. True ends the training."""

    def on_end(self, run: Run) -> None:
        """Called when training ends, in whatever way."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: arrays, and values as JSON takes them, by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what ``state_dict`` returned; called before ``on_start``, unless it was empty."""


class EarlyStopping(Callback):
    """Stop when the monitored metric has not improved for ``patience`` epochs.

    The metric and its direction are those of ``fit(..., monitor=, mode=)``. Only trained epochs
    count. An improvement is a change by more than ``min_delta``.
    """

    def __init__(self, patience: int = 5, *, min_delta: float = 0.0) -> None:
        self.patience = check_int("EarlyStopping", "patience", patience)
        self.min_delta = check_float("EarlyStopping", "min_delta", min_delta, low=0)

    def on_epoch(self, run: Run) -> bool:
        best, when = -math.inf, 0
        for epoch, record in enumerate(run.history.records[1:], 1):
            score = run.history.score(record)
            if score > best + self.min_delta:
                best, when = score, epoch
        return len(run.history) - 1 - when >= self.patience


class ReduceOnPlateau(Callback):
    """Multiply the learning rate by ``factor`` when the monitored metric no longer improves.

    As ``torch.optim.lr_scheduler.ReduceLROnPlateau`` with ``threshold_mode="abs"``: after more
    than ``patience`` epochs without an improvement by more than ``min_delta``. A resumed run has
    the same rate.
    """

    def __init__(self, factor: float = 0.1, *, patience: int = 10, min_delta: float = 0.0) -> None:
        owner, inside = "ReduceOnPlateau", {"open_low": True, "open_high": True}
        self.factor = check_float(owner, "factor", factor, low=0, high=1, **inside)
        self.patience = check_int(owner, "patience", patience, low=0)
        self.min_delta = check_float(owner, "min_delta", min_delta, low=0)

    def on_start(self, run: Run) -> None:
        if callable(run.optimizer.lr):
            raise TypeError(f"{self!r}: expected an optimizer with a fixed lr, got a schedule")
        if len(run.history):
            self.on_epoch(run)

    def on_epoch(self, run: Run) -> None:
        lr, best, bad = run.history[0].lr, -math.inf, 0
        for record in run.history.records[1:]:
            score = run.history.score(record)
            bad = 0 if score > best + self.min_delta else bad + 1
            best = score if bad == 0 else best
            if bad > self.patience:
                lr, bad = lr * self.factor, 0
        run.optimizer.lr = lr


class Progress(Callback):
    """A progress bar over all steps, with the remaining time (needs tqdm)."""

    only_watches = True

    def on_start(self, run: Run) -> None:
        done = max(len(run.history) - 1, 0) * run.batches
        total = run.epochs * run.batches
        self.bar = progress_bar(total=total, initial=done, unit="step")

    def on_batch(self, run: Run) -> None:
        self.bar.update()

    def on_epoch(self, run: Run) -> None:
        last = run.history[-1].metrics
        shown = dict.fromkeys(("train_loss", run.history.monitor))
        words = {name: f"{last[name]:.4f}" for name in shown if name in last}
        self.bar.set_postfix(words, refresh=False)

    def on_end(self, run: Run) -> None:
        self.bar.close()
