"""What happened in a training run, epoch by epoch."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from minidl.files import write_text
from minidl.typing import Array


@dataclass(frozen=True)
class Epoch:
    """One record. Epoch 0 is the state before training.

    ``train_loss`` is the mean over the epoch's batches as training went (dropout active, weights
    moving); everything else is evaluated after the epoch, in evaluation mode. None stands for
    what was not measured: accuracies of a regression, validation without a validation part.
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None
    valid_loss: float | None
    valid_accuracy: float | None
    seconds: float
    """Of this epoch, evaluation included."""
    lr: float
    """The learning rate of the epoch's last step."""

    @property
    def score(self) -> float:
        """What the best epoch has most of: validation accuracy, else minus validation loss."""
        if self.valid_accuracy is not None:
            return self.valid_accuracy
        return -math.inf if self.valid_loss is None else -self.valid_loss


class History:
    """The records of a run, and the best weights while it lives in memory.

    Parameters
    ----------
    ties : {"first", "last"}
        Which of equally good epochs is the best one. The course's scripts of Question 1 take
        the last.

    Attributes
    ----------
    records : list of Epoch
    best_theta : array or None
        A copy of the parameters after the best epoch.
    """

    def __init__(self, *, ties: Literal["first", "last"] = "first") -> None:
        if ties not in ("first", "last"):
            raise ValueError(f"History: expected ties 'first' or 'last', got {ties!r}")
        self.ties = ties
        self.records: list[Epoch] = []
        self.best_theta: Array | None = None

    def append(self, record: Epoch, theta: Array) -> None:
        """Add a record; keep ``theta`` if it is the best so far."""
        self.records.append(record)
        if self.best is record and record.score > -math.inf:
            self.best_theta = theta.copy()

    @property
    def best(self) -> Epoch:
        """The record with the highest validation accuracy (lowest loss in a regression)."""
        if not self.records:
            raise ValueError("History: no epoch is recorded yet")
        records = self.records if self.ties == "first" else self.records[::-1]
        return max(records, key=lambda record: record.score)

    def column(self, name: str) -> list[Any]:
        """One quantity over the epochs, as ``history.column("valid_accuracy")``."""
        return [getattr(record, name) for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Epoch]:
        return iter(self.records)

    def __getitem__(self, epoch: int) -> Epoch:
        return self.records[epoch]

    def to_dicts(self) -> list[dict[str, Any]]:
        """The records as dictionaries, as JSON takes them."""
        return [dataclasses.asdict(record) for record in self.records]

    @classmethod
    def from_dicts(cls, records: list[dict[str, Any]]) -> History:
        """The inverse of ``to_dicts``; the best weights are not in there."""
        history = cls()
        history.records = [Epoch(**record) for record in records]
        return history

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the records as a JSON list."""
        write_text(path, json.dumps(self.to_dicts(), indent=1) + "\n")

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> History:
        """Read what ``to_json`` wrote."""
        return cls.from_dicts(json.loads(Path(path).read_text(encoding="utf-8")))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the records as CSV with a header; what was not measured is left empty."""
        text = io.StringIO()
        writer = csv.DictWriter(
            text, [f.name for f in dataclasses.fields(Epoch)], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(self.to_dicts())
        write_text(path, text.getvalue())

    def plot(self, path: str | os.PathLike[str], *, title: str = "") -> None:
        """Draw loss and accuracy over the epochs (needs matplotlib)."""
        from minidl.plots import Panel, line_plot

        if not self.records:
            raise ValueError("History: no epoch is recorded yet")
        epochs = self.column("epoch")
        panels = []
        for quantity, unit in (("loss", "nats"), ("accuracy", "share of examples")):
            curves = {
                label: (epochs, self.column(f"{part}_{quantity}"))
                for part, label in (("train", "training"), ("valid", "validation"))
                if None not in self.column(f"{part}_{quantity}")
            }
            if curves:
                label = f"{quantity} ({unit})" if self.column("train_accuracy")[0] else quantity
                panels.append(Panel(curves, "epoch", label))
        line_plot(path, *panels, title=title)

    def __repr__(self) -> str:
        return f"History({len(self)} records)" if self.records else "History(empty)"
