"""The records of a training run, one for each epoch."""

from __future__ import annotations

import csv
import io
import math
import numbers
import os
import re
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

from minidl.checks import Array, Stateful, check_choice
from minidl.files import as_path, from_json, to_json, write_text
from minidl.layer import Layer
from minidl.parameter import check_state

Mode = Literal["min", "max"]
StrPath = str | os.PathLike[str]

_MONITORS = ("valid_accuracy", "valid_loss")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # of snake_case and CamelCase
_LOW = ("loss", "losses", "error", "errors", "mae", "mse", "msle", "mape")


@dataclass(frozen=True)
class Epoch:
    """The metrics of one epoch, as attributes too. Epoch 0 is the state before training.

    ``train_loss`` is the mean over the examples during the epoch, with dropout active and changing
    parameters (evaluated in epoch 0); all other metrics are evaluated after it, in evaluation mode.
    ``seconds`` are those of both, ``lr`` is the rate of the last step. Metrics that were not
    measured are missing. ``finite`` says whether all outputs and losses after the epoch were.
    """

    epoch: int
    seconds: float
    lr: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    finite: bool = True

    def __getattr__(self, name: str) -> float:
        metrics = self.__dict__.get("metrics", {})  # a copy has no attributes yet
        if name not in metrics:
            raise AttributeError(f"Epoch: no metric {name!r} among {list(metrics)}")
        return metrics[name]  # type: ignore[no-any-return]

    def to_dict(self) -> dict[str, float]:
        """Return all numbers by name, in one flat dictionary."""
        found = {"epoch": self.epoch, **self.metrics, "seconds": self.seconds, "lr": self.lr}
        return found if self.finite else {**found, "finite": 0}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Epoch:
        """Build a record from what ``to_dict`` returned; ValueError for anything else."""
        fixed = ("epoch", "seconds", "lr")
        metrics: dict[str, Any] = {**dict.fromkeys((*fixed, "train_loss")), "finite": 1, **state}
        for name, value in metrics.items():
            if not isinstance(value, numbers.Real) or isinstance(value, bool):
                raise ValueError(f"History: expected {name} to be a number, got {value!r}")
        own = {name: metrics.pop(name) for name in fixed}
        return cls(**own, finite=bool(metrics.pop("finite")), metrics=metrics)


class History:
    """The records of a run, and a copy of the best parameters.

    The best epoch is the trained one with the best monitored metric, the first of equals. A record
    whose monitored metric is not finite, or whose outputs are not, is never the best. The record
    before training stands for the best as long as no trained one can be.

    ``monitor`` is the metric that decides, by default as in ``fit``. ``mode`` says whether the
    lowest ("min") or the highest ("max") is the best: by default the lowest where a word of the
    name ends in ``loss``, ``error``, ``mae``, ``mse`` or the like.

    ``records`` is a list of ``Epoch``. ``best_state`` and ``last_state`` are the
    ``model.state_dict()`` after the best epoch; and, in no file, after the last one, from which
    training goes on where it ended with ``restore_best=True``.
    """

    def __init__(self, *, monitor: str | None = None, mode: Mode | None = None) -> None:
        if not isinstance(monitor, (str, type(None))):
            raise ValueError(f"History: expected monitor to be a name, got {monitor!r}")
        if mode is not None:
            check_choice("History", "mode", mode, ("min", "max"))
        self.asked, self._mode = monitor, mode
        self.records: list[Epoch] = []
        self.best_state: dict[str, Array] | None = None
        self.last_state: dict[str, Array] | None = None
        self._model: weakref.ref[Layer] | None = None
        self._best: Epoch | None = None  # of the records so far, once one was looked for

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}  # a weak reference cannot be copied

    @property
    def monitor(self) -> str:
        """The metric that decides which epoch is the best."""
        if self.asked is not None:
            return self.asked
        measured = self.records[0].metrics if self.records else ()
        return next((name for name in _MONITORS if name in measured), "train_loss")

    @property
    def mode(self) -> Mode:
        """Whether the lowest or the highest monitored metric is the best."""
        if self._mode is not None:
            return self._mode
        words = (word.lower() for word in _WORDS.findall(self.monitor))
        return "min" if any(word.endswith(_LOW) for word in words) else "max"

    def follow(self, model: Layer, monitor: str | None, mode: Mode | None) -> None:
        """Record a run of ``model`` from now on; set what is monitored, where it is given.

        ValueError if the records are those of another model, or were judged by another metric.
        """
        if self.records and self._model and self._model() not in (None, model):
            raise ValueError("History: its epochs are those of another model; expected a new one")
        twin = History(monitor=monitor or self.asked, mode=mode or self._mode)
        twin.records, old = self.records, f"{self.monitor} ({self.mode})"
        if self.records and old != (new := f"{twin.monitor} ({twin.mode})"):
            want = f"its epochs were judged by {old}; expected the same"
            raise ValueError(f"History: {want}, got {new}")
        self._model, self.asked, self._mode = weakref.ref(model), twin.asked, twin._mode

    def state_dict(self) -> dict[str, Any]:
        """Return ``to_dict()``, and the state of the best epoch as ``"best"`` where it is kept."""
        return self.to_dict() | ({} if self.best_state is None else {"best": self.best_state})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the records and the best state of a saved history of the same run.

        ValueError if it is no such state, or does not fit the monitored metric or the model.
        """
        saved, best, model = History.from_dict(state), state.get("best"), self._model
        if model is not None and (followed := model()) is not None:
            saved.follow(followed, self.asked, self._mode)
            if best is not None:
                best = check_state("History: the best state", followed.state_dict(), best)
        self.__dict__.update(saved.__dict__, best_state=best)

    def score(self, record: Epoch | None) -> float:
        """Return the monitored metric, negated in mode "min"; -inf if it cannot be the best."""
        value = math.nan if record is None else record.metrics.get(self.monitor, math.nan)
        if record is None or not (record.finite and math.isfinite(value)):
            return -math.inf
        return -value if self.mode == "min" else value

    def append(self, record: Epoch, model: Stateful) -> None:
        """Add a record; keep a copy of the state of ``model`` if the record is the best so far."""
        best = self._best or self._find_best()
        self.records.append(record)
        first = len(self.records) == 1
        if not first and self.score(record) > self.score(best):
            best = record
        if best is record or (first and record.finite):
            self.best_state = model.state_dict()
        self._best = best

    def _find_best(self) -> Epoch | None:
        """Return the best record of a trained epoch, None if there is none that can be the best."""
        best = max(self.records[1:], key=self.score, default=None)
        return None if self.score(best) == -math.inf else best

    def check_best(self, owner: str) -> None:
        """Raise ValueError in the name of ``owner`` if no trained epoch can be the best."""
        n = len(self.records) - 1
        if n > 0 and self._find_best() is None:
            why = f"were finite after none of the {n} epochs"
            raise ValueError(f"{owner}: {self.monitor} and the outputs {why}")

    def restore_best(self, model: Layer) -> None:
        """Set the parameters and buffers of ``model`` to those after the best epoch."""
        if self.best_state is None:
            raise ValueError("History: no parameters are kept")
        model.load_state_dict(self.best_state)

    @property
    def best(self) -> Epoch:
        """The record of the best epoch, or before training as long as no trained one can be."""
        if not self.records:
            raise ValueError("History: no epoch is recorded yet")
        return self._find_best() or self.records[0]

    def column(self, name: str) -> list[Any]:
        """Return one metric for all epochs; None stands for an epoch that did not measure it."""
        names, *rows = self._rows()
        return [row[names.index(check_choice("History", "metric", name, names))] for row in rows]

    @property
    def names(self) -> list[str]:
        """The names of the metrics of all records, training before validation."""
        names = dict.fromkeys(name for record in self.records for name in record.metrics)
        return sorted(names, key=lambda name: not name.startswith("train_"))

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Epoch]:
        return iter(self.records)

    def __getitem__(self, epoch: int) -> Epoch:
        return self.records[epoch]

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"monitor", "mode", "records"}``, as JSON takes it."""
        records = [record.to_dict() for record in self.records]
        return {"monitor": self.asked, "mode": self._mode, "records": records}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> History:
        """Build a history from what ``to_dict`` returned; ValueError for anything else."""
        try:
            history = cls(monitor=state["monitor"], mode=state["mode"])
            history.records = [Epoch.from_dict(record) for record in state["records"]]
        except (TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"History: cannot be read ({error!r})") from error
        return history

    def to_json(self, path: StrPath) -> None:
        """Write ``to_dict()`` as JSON; numbers that are not finite as ``"NaN"``, ``"Infinity"``."""
        write_text(path, to_json(self.to_dict(), indent=1) + "\n")

    @classmethod
    def from_json(cls, path: StrPath) -> History:
        """Read a file that ``to_json`` wrote."""
        return cls.from_dict(from_json(as_path(path).read_bytes()))

    def to_csv(self, path: StrPath) -> None:
        """Write the records as CSV with a header; a metric that was not measured is left empty."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self._rows())
        write_text(path, text.getvalue())

    def _rows(self) -> list[list[Any]]:
        """Return the names of all numbers, and those of each record."""
        names = ["epoch", *self.names, "seconds", "lr"]
        return [names, *([row.to_dict().get(name) for name in names] for row in self.records)]

    def plot(
        self, path: StrPath | None = None, *, title: str = "", loss_unit: str | None = None
    ) -> Any:
        """Draw the metrics over the epochs, with the best epoch marked (needs matplotlib).

        The suffix of the path names the format; without one, PNG and SVG are written. Without a
        path the picture is returned, and a notebook shows it. ``loss_unit`` is by default nats for
        a classification, none for a regression.
        """
        from minidl.view.plots import plot_history

        return plot_history(self, path, title=title, loss_unit=loss_unit)

    def __repr__(self) -> str:
        if not self.records:
            return "History(empty)"
        best, last = self.best, self.records[-1].epoch
        value = best.metrics.get(self.monitor)
        shown = "not measured" if value is None else f"{value:.4g} in epoch {best.epoch}"
        return f"History(epochs 0 to {last}; best {self.monitor} {shown})"

    def _repr_html_(self) -> str:
        """Return the records as a table for notebooks."""
        names, *rows = self._rows()
        shown = [["" if v is None else f"{v:.4g}" for v in row] for row in rows]
        lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in (names, *shown)]
        table = "".join(f"<tr>{line}</tr>" for line in lines)
        return f"<table>{table}</table><p>{escape(repr(self))}</p>"
