"""The records of a training run, one for each epoch."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import numbers
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from minidl.files import write_text
from minidl.typing import Array


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch. Epoch 0 is the state before training.

    ``train_loss`` is the mean over the batches during the epoch, with dropout active and changing
    parameters; all other figures are evaluated after the epoch, in evaluation mode. None means
    not measured: accuracies of a regression, validation figures without a validation part.
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None
    valid_loss: float | None
    valid_accuracy: float | None
    seconds: float
    """The time for this epoch, evaluation included."""
    lr: float
    """The learning rate of the epoch's last step."""

    @property
    def score(self) -> float:
        """Return the score that selects the best epoch.

        It is the validation accuracy, or minus the validation loss where no accuracy was measured.
        """
        if self.valid_accuracy is not None:
            return self.valid_accuracy
        return -math.inf if self.valid_loss is None else -self.valid_loss


_MAY_BE_NONE = ("train_accuracy", "valid_loss", "valid_accuracy")


class History:
    """The records of a run, and a copy of the best parameters.

    Parameters
    ----------
    ties : {"first", "last"}
        Which of several epochs with the highest score is the best one.

    Attributes
    ----------
    records : list of Epoch
    best_theta : array or None
        A copy of the parameters after the best epoch. Checkpoints keep it; ``to_dict`` and
        ``to_json`` leave it out.
    """

    def __init__(self, *, ties: Literal["first", "last"] = "first") -> None:
        if ties not in ("first", "last"):
            raise ValueError(f"History: expected ties 'first' or 'last', got {ties!r}")
        self.ties = ties
        self.records: list[Epoch] = []
        self.best_theta: Array | None = None

    def append(self, record: Epoch, theta: Array) -> None:
        """Add a record; copy ``theta`` if the record is the best so far."""
        self.records.append(record)
        if self.best is record and record.score > -math.inf:
            self.best_theta = theta.copy()

    @property
    def best(self) -> Epoch:
        """The record with the highest validation accuracy (the lowest loss in a regression)."""
        if not self.records:
            raise ValueError("History: no epoch is recorded yet")
        records = self.records if self.ties == "first" else self.records[::-1]
        return max(records, key=lambda record: record.score)

    def column(self, name: str) -> list[Any]:
        """Return one figure for all epochs, as ``history.column("valid_accuracy")``."""
        return [getattr(record, name) for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Epoch]:
        return iter(self.records)

    def __getitem__(self, epoch: int) -> Epoch:
        return self.records[epoch]

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"ties": ..., "records": [...]}``, as JSON takes it."""
        return {"ties": self.ties, "records": [dataclasses.asdict(r) for r in self.records]}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> History:
        """Build a history from what ``to_dict`` returned; ValueError for anything else."""
        try:
            history = cls(ties=state["ties"])
            history.records = [Epoch(**record) for record in state["records"]]
        except (TypeError, LookupError) as error:
            raise ValueError(f"History: cannot be read ({error!r})") from error
        for record in history.records:
            for name, figure in dataclasses.asdict(record).items():
                unmeasured = figure is None and name in _MAY_BE_NONE
                if not (isinstance(figure, numbers.Real) or unmeasured):
                    raise ValueError(f"History: expected {name} to be a number, got {figure!r}")
        return history

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write ``to_dict()`` as JSON."""
        write_text(path, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> History:
        """Read a file that ``to_json`` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the records as CSV with a header; a figure that was not measured is left empty."""
        text = io.StringIO()
        names = [field.name for field in dataclasses.fields(Epoch)]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(record) for record in self.records)
        write_text(path, text.getvalue())

    def plot(
        self, path: str | os.PathLike[str], *, title: str = "", loss_unit: str | None = None
    ) -> None:
        """Draw loss and accuracy over the epochs, with the best epoch marked (needs matplotlib).

        Parameters
        ----------
        path : path
            The suffix names the format, as ``.png``.
        title : str
        loss_unit : str, optional
            Shown on the axis of the loss. By default nats for a classification, none for a
            regression.
        """
        from minidl.plots import Panel, line_plot

        if not self.records:
            raise ValueError("History: no epoch is recorded yet")
        if loss_unit is None and self.records[0].train_accuracy is not None:
            loss_unit = "nats"
        labels = {
            "loss": f"loss ({loss_unit})" if loss_unit else "loss",
            "accuracy": "accuracy (share of examples)",
        }
        epochs, panels = self.column("epoch"), []
        mark = self.best.epoch if self.best.score > -math.inf else None
        for figure, label in labels.items():
            curves = {
                name: (epochs, self.column(f"{part}_{figure}"))
                for part, name in (("train", "training"), ("valid", "validation"))
                if None not in self.column(f"{part}_{figure}")
            }
            if curves:
                panels.append(Panel(curves, "epoch", label, mark=mark))
        line_plot(path, *panels, title=title)

    def __repr__(self) -> str:
        return f"History({len(self)} records)" if self.records else "History(empty)"
