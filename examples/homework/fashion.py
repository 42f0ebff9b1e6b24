"""Data, grid, table and pictures of Fashion-MNIST in 2021-22."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from homework.flags import load_data, note_generated
from minidl import Dataset, History, Split
from minidl.grid.points import Grid, Point, Result
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table


def load_fashion(source: str, *, full: bool, sizes: Mapping[str, int]) -> Dataset:
    """Load a data set; the training images of IDX files are split as the course's script does.

    That is ``train_test_split(train_size=50_000, random_state=42)``: of a permutation by
    ``RandomState(42)`` the first sixth is for validation. Without ``full`` it is a sample.
    """
    folder = Path(source).is_dir()
    dataset = load_data(source, full=full or folder, sizes=sizes)
    note_generated(dataset, name="Fashion-MNIST", path="a folder of IDX files or the course's .npz")
    if not folder:
        return dataset
    parts = dataset.train, dataset.splits["valid"]
    x, y = (np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y"))
    order, n = np.random.RandomState(42).permutation(len(y)), len(y) // 6
    train, valid = (Split(x[i], y[i], dataset.train.scale) for i in (order[n:], order[:n]))
    dataset = replace(dataset, train=train, valid=valid)
    return dataset if full else dataset.sample(**sizes)


class OneChange(Grid):
    """The points that differ from the first value of each axis on one axis at most.

    ``everything`` takes all points of the first number of layers. Networks with other numbers of
    layers have the learning rate ``deep`` and the first values of the other axes.
    """

    def __init__(self, everything: bool, deep: float, **axes: Sequence[Any]) -> None:
        super().__init__(**axes)
        self.everything, self.deep = everything, deep

    def __iter__(self) -> Iterator[Point]:
        first = {name: values[0] for name, values in self.axes.items()}
        for point in super().__iter__():
            changes = sum(point[name] != first[name] for name in first)
            if point["layers"] == first["layers"] and (self.everything or changes <= 1):
                yield point
        for layers in self.axes["layers"][1:]:
            yield {**first, "learning_rate": self.deep, "layers": layers}

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Curves(NamedTuple):
    """A history, and the test accuracies of its epochs."""

    history: History
    test: Sequence[float]

    @classmethod
    def of(cls, result: Result) -> Curves:
        """Return the curves of a finished run."""
        return cls(History.from_dict(result.values["history"]), result.values["test"])

    @property
    def valid(self) -> float:
        """The validation accuracy of the last epoch."""
        return float(self.history[-1].valid_accuracy)


def tabulate(dataset: Dataset, results: Sequence[Result], out: Path) -> Result | None:
    """Print and write the table of the runs; return the one with the best validation accuracy."""
    curves = {r.id: Curves.of(r) for r in results if r.error is None}
    best = max(curves, key=lambda name: curves[name].valid, default=None)
    columns = [*results[0].point, "training loss", "valid", "test", "seconds"]
    table = Table(columns, dataset.title)
    for r in results:
        cells: list[object] = [r.error, None, None]
        if one := curves.get(r.id):
            cells = [one.history[-1].train_loss, one.valid, one.test[-1]]
        setting = [f"{v:g}" if isinstance(v, (int, float)) else v for v in r.point.values()]
        table.add(*setting, *cells, f"{r.seconds:.1f}", marked=r.id == best)
    table.show()
    table.write(out / "table-of-runs")
    print("* the highest validation accuracy of the last epoch, which is the one that is tested")
    return next((r for r in results if r.id == best), None)


def running_means(history: History) -> list[float]:
    """Return for each epoch the mean loss of all batches so far, as the course's script draws it.

    The script never empties its list of losses, so its curve falls more slowly than the loss.
    """
    losses = history.column("train_loss")[1:]
    means: list[float] = (np.cumsum(losses) / np.arange(1, len(losses) + 1)).tolist()
    return means


def draw(args: argparse.Namespace, title: str, curves: Mapping[str, Curves]) -> None:
    """Draw the training loss, computed in two ways, and the accuracies over the epochs."""
    losses: dict[str, Any] = {}
    accuracies: dict[str, Any] = {}
    for name, (history, test) in curves.items():
        label, epochs = f"{name}, " if name else "", history.column("epoch")[1:]
        losses[f"{label}this epoch"] = epochs, history.column("train_loss")[1:]
        losses[f"{label}all batches so far"] = epochs, running_means(history)
        accuracies[f"{label}validation"] = epochs, history.column("valid_accuracy")[1:]
        accuracies[f"{label}test"] = epochs, test[1 : len(epochs) + 1]
    unit = "logits" if args.model == "perceptron" else "nats"
    dashed = [list(lines)[1::2] for lines in (losses, accuracies)]
    pairs, best = len(curves) > 1, None if len(curves) > 1 else history.best.epoch
    words = f"mean training loss ({unit})", "accuracy (share of examples)"
    left = Panel(losses, "epoch", words[0], dashed=dashed[0], pairs=pairs)
    right = Panel(accuracies, "epoch", words[1], dashed=dashed[1], pairs=pairs, mark=best)
    line_plot(args.out / "curves.png", left, right, title=title)
    print(f"wrote curves.png and tables to {args.out}/")
