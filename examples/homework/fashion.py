"""Data, grid, table and pictures of Fashion-MNIST in 2021-22."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from homework import answers
from homework.figures import over_epochs
from homework.flags import load_data, note_generated
from homework.online import THRESHOLDS
from minidl import Dataset, History, Split
from minidl.files import to_json, write_text
from minidl.grid.points import Grid, Point, Result
from minidl.view.plots import line_plot
from minidl.view.tables import Table

Curves = tuple[History, Sequence[float]]  # and the test accuracies of its epochs
ERRORS = 2.0  # standard errors of a difference that is more than chance


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


def tabulate(dataset: Dataset, results: Sequence[Result], out: Path) -> Result | None:
    """Print and write the table of the runs; return the one with the best validation accuracy."""
    finished = [r for r in results if not r.error]
    best = max(finished, key=lambda r: float(r.values["valid"]), default=None)
    table = Table([*results[0].point, "training loss", "valid", "test", "seconds"], dataset.title)
    for r in results:
        cells: list[object] = [r.error, None, None]
        if not r.error:
            cells = [r.values["loss"], r.values["valid"], r.values["test"][-1]]
        setting = [f"{v:g}" if isinstance(v, (int, float)) else v for v in r.point.values()]
        table.add(*setting, *cells, f"{r.seconds:.1f}", marked=r is best)
    table.show()
    table.write(out / "table-of-runs")
    print("* the highest validation accuracy of the last epoch, which is the one that is tested")
    return best


def compare(results: Sequence[Result], n: int) -> list[str]:
    """Return which value of each axis is best, on n validation examples."""
    first, sentences = results[0].point, []
    for axis in first:
        same = results[-1].point if axis == "layers" else first  # deeper ones have another rate
        others = [(k, same[k]) for k in first if k != axis]
        alike = [r for r in results if not r.error and all(r.point[k] == v for k, v in others)]
        if len(alike) > 1:
            valid = {str(r.point[axis]): float(r.values["valid"]) for r in alike}
            what = axis.replace("_", " ").capitalize()
            sentences.append(answers.choice(what, valid, n, errors=ERRORS))
    return sentences


def report_grid(dataset: Dataset, results: Sequence[Result], args: argparse.Namespace) -> None:
    """Print, write and draw the runs of Question 4: of logistic regression all, else the best."""
    best, n = tabulate(dataset, results, args.out), len(dataset.splits["valid"])
    if best is None:
        return
    name = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in best.point.items())
    title, drawn = f"the best network, {dataset.title}\n{name}", {"": best}
    sentences = compare(results, n)
    if args.model == "logistic":
        title = f"logistic regression from PyTorch's initial values, {dataset.title}"
        drawn = {f"lr {r.point['learning_rate']:g}": r for r in results if not r.error}
        valid = {name: float(r.values["valid"]) for name, r in drawn.items()}
        sentences = [answers.choice("Learning rates", valid, n, errors=ERRORS)]
    values = {name: r.values for name, r in drawn.items()}
    curves = {k: (History.from_dict(v["history"]), v["test"]) for k, v in values.items()}
    draw(args, title, curves)
    answers.write(args.out, {"curves": sentences})


def report(
    dataset: Dataset, history: History, test: Sequence[float], args: argparse.Namespace
) -> None:
    """Print, write and draw the figures of each epoch of a model of Question 3."""
    table = Table(["epoch", "training loss", "train", "valid", "test"], dataset.title)
    for record, accuracy in zip(history, test, strict=True):
        cells = record.train_loss, record.train_accuracy, record.valid_accuracy, accuracy
        table.add(record.epoch, *cells, marked=record is history.best)
    table.show()
    table.write(args.out / "table")
    print("* the best epoch on the validation part; the tested model is that of the last epoch")
    print(f"{args.model}: test accuracy, last epoch {test[-1]:.4f}")
    scores = {"valid": history[-1].valid_accuracy, "test": test[-1], "data": dataset.name}
    write_text(args.out / "scores.json", to_json(scores, indent=1) + "\n")
    draw(args, f"{args.model}, {dataset.title}", {"": (history, test)})
    answers.write(args.out, {"curves": answers.of_run(history, **THRESHOLDS)})


def running_means(history: History) -> list[float]:
    """Return for each epoch the mean loss of all batches so far, as the course's script draws it.

    The script never empties its list of losses, so its curve falls more slowly than the loss.
    """
    losses = history.column("train_loss")[1:]
    return list((np.cumsum(losses) / np.arange(1, len(losses) + 1)).tolist())


def draw(args: argparse.Namespace, title: str, curves: Mapping[str, Curves]) -> None:
    """Draw the training loss, computed in two ways, and the accuracies over the epochs."""
    losses, accuracies = dict[str, Any](), dict[str, Any]()
    for name, (history, test) in curves.items():
        label = f"{name}, " if name else ""
        losses[f"{label}this epoch"] = history.column("train_loss")
        losses[f"{label}all batches so far"] = [None, *running_means(history)]
        accuracies[f"{label}validation"] = history.column("valid_accuracy")
        accuracies[f"{label}test"] = test
    several, unit = len(curves) > 1, "logits" if args.model == "perceptron" else "nats"
    best = None if several else history.best.epoch
    options: dict[str, Any] = {"pairs": several, "first": 1, "dashed": list(losses)[1::2]}
    left = over_epochs(losses, f"mean training loss ({unit})", **options)
    options |= {"mark": best, "dashed": list(accuracies)[1::2]}
    right = over_epochs(accuracies, "accuracy (share of examples)", **options)
    line_plot(args.out / "curves.png", left, right, title=title)
    print(f"wrote curves.png and tables to {args.out}/")
