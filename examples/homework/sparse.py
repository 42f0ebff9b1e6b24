"""Question 3 as an experiment: the same network with cross-entropy and with sparse losses."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from homework.backend import plot_parity, report_parity
from homework.feedforward import fit_feedforward
from minidl.data import Dataset
from minidl.data.images import as_images, class_name
from minidl.grid.axes import Point
from minidl.grid.runner import Result
from minidl.losses import FenchelYoung, Loss, SmoothedNLL
from minidl.plots import Panel, captioned_sheet, line_plot
from minidl.simplex import RegularizedMap, SimplexMap, entmax15, relumax, softmax, sparsemax
from minidl.tables import Table
from minidl.training import Callback, Run, outputs
from minidl.typing import Array
from minidl.validation import did_you_mean

REGULARIZED: dict[str, RegularizedMap] = {
    "softmax": softmax,
    "sparsemax": sparsemax,
    "entmax15": entmax15,
}
SHOWN = 16
"""Examples of a kind on the contact sheet."""


def relumax_loss(b: float, eps: float) -> str:
    """The name of a smoothed relumax loss, as ``map_and_loss`` reads it."""
    return f"relumax b={b:g} eps={eps:g}"


def map_and_loss(name: str) -> tuple[SimplexMap, Loss]:
    """A map and its loss by name: softmax, sparsemax, entmax15, or ``relumax b=10 eps=0.1``."""
    word, *settings = name.split()
    if word in REGULARIZED and not settings:
        return REGULARIZED[word], FenchelYoung(REGULARIZED[word])
    values = dict(setting.split("=") for setting in settings)
    if word != "relumax" or set(values) != {"b", "eps"}:
        hint = did_you_mean(name, [*REGULARIZED, "relumax b=10 eps=0.1"])
        raise ValueError(f"no loss {name!r}{hint}")
    map = relumax(float(values["b"]))
    return map, SmoothedNLL(map, float(values["eps"]))


def calibration_error(p: Array, y: Array, bins: int = 15) -> float:
    """The expected calibration error (Naeini et al. 2015): how far confidence is from accuracy.

    The mean over examples of ``|accuracy - confidence|`` in the example's bin, where confidence is
    the largest probability and the bins cut [0, 1] into equal parts.
    """
    confidence, right = p.max(axis=1).astype(np.float64), p.argmax(axis=1) == y
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, right - confidence, bins)
    return float(np.abs(gaps).sum() / len(y))


class _Supports(Callback):
    """The mean size of the support on the validation part: before training, and each epoch."""

    def __init__(self, map: SimplexMap, dataset: Dataset) -> None:
        self.map, self.split = map, dataset.valid or dataset.train
        self.sizes: list[float] = []

    def _measure(self, run: Run) -> None:
        p = self.map(outputs(run.model, self.split))
        self.sizes.append(float(self.map.support(p).sum(axis=1).mean()))

    def on_start(self, run: Run) -> None:
        self._measure(run)

    def on_epoch(self, run: Run) -> None:
        self._measure(run)


def train_with_loss(point: Point, *, dataset: Dataset, **options: Any) -> dict[str, Any]:
    """Train one network with ``point["loss"]``; figures of the test part are at its best epoch."""
    map, loss = map_and_loss(point["loss"])
    supports = _Supports(map, dataset)
    model, history, beside = fit_feedforward(
        point, loss, dataset=dataset, callbacks=[supports], restore_best=True, **options
    )
    test = dataset.test or dataset.train
    logits = outputs(model, test)
    p, rows = map(logits), np.arange(len(test))
    batch = slice(options["batch_size"])
    return {
        "best_valid_accuracy": history.best.valid_accuracy,
        "best_epoch": history.best.epoch,
        "test_accuracy": float((logits.argmax(axis=1) == test.y).mean()),
        "support": float(map.support(p).sum(axis=1).mean()),
        "certain": float((map.support(p).sum(axis=1) == 1).mean()),
        "covered": float((p[rows, test.y] > 0).mean()),
        "calibration_error": calibration_error(p, test.y),
        "loss_microseconds": 1e6 * _fastest(loss, logits[batch], test.y[batch]),
        "epoch_seconds": float(np.median(history.column("seconds")[1:])),
        "supports": supports.sizes[: len(history)],
        "history": history.to_dicts(),
        "candidates": _candidates(map.support(p), p),
        **beside,
    }


def _fastest(loss: Loss, logits: Array, y: Array) -> float:
    """Seconds for the value and gradient of one batch: the fastest of 200."""
    seconds = []
    for _ in range(200):
        since = time.perf_counter()
        loss(logits, y)
        seconds.append(time.perf_counter() - since)
    return min(seconds)


def _candidates(support: Array, p: Array) -> dict[str, list[tuple[int, dict[int, float]]]]:
    """The rows with the largest supports, and those with two classes nearest to even."""
    size, largest = support.sum(axis=1), p.max(axis=1)
    order = np.lexsort((largest, -size))
    pairs = order[size[order] == 2]
    kinds = {"the largest supports": order, "two candidates, nearest to even": pairs}

    def classes(row: int) -> dict[int, float]:
        ranked = np.argsort(-p[row], kind="stable")[: size[row]]
        return {int(k): float(p[row, k]) for k in ranked}

    return {
        kind: [(int(row), classes(row)) for row in rows[:SHOWN]] for kind, rows in kinds.items()
    }


def report_losses(dataset: Dataset, results: list[Result], out: Path) -> None:
    """Print and write the table, the curves, and a contact sheet for each sparse loss."""
    title = dataset.title
    keys = {
        "valid": "best_valid_accuracy",
        "test": "test_accuracy",
        "support": "support",
        "certain": "certain",
        "covered": "covered",
        "calibration error": "calibration_error",
    }
    columns = ["loss", "epoch", *keys, "loss, us a batch", "s an epoch"]
    table = Table(columns, f"{title}: the best epoch of each loss, on the test part")
    curves: dict[str, tuple[list[float], list[float]]] = {}
    supports: dict[str, tuple[list[float], list[float]]] = {}
    varying = [k for k in results[0].point if len({r.point[k] for r in results}) > 1]
    names = [_name(r.point, varying) for r in results]
    for name, r in zip(names, results, strict=True):
        values = r.values
        if r.error:
            table.add(name, r.error, *[None] * (len(columns) - 2))
            continue
        times = f"{values['loss_microseconds']:.0f}", f"{values['epoch_seconds']:.2f}"
        table.add(name, values["best_epoch"], *[values[key] for key in keys.values()], *times)
        accuracies = [epoch["valid_accuracy"] for epoch in values["history"]]
        curves[name] = (list(range(len(accuracies))), accuracies)
        supports[name] = (list(range(len(accuracies))), values["supports"])
    table.show()
    table.write(out / "table")
    print(
        "support: classes of probability > 0, mean; certain: share of examples with one such "
        "class;\ncovered: share whose label is in the support"
    )
    if not curves:
        return
    line_plot(
        out / "training.png",
        Panel(supports, "epoch", "mean support size (classes)"),
        Panel(curves, "epoch", "validation accuracy (share of examples)"),
        title=title,
    )
    sheets = sum(
        _sheet(dataset, r, f"{title}: {name}", out / f"candidates-{name.replace(' ', '-')}.png")
        for name, r in zip(names, results, strict=True)
        if not r.error
    )
    compared = [
        (name, r.values) for name, r in zip(names, results, strict=True) if "beside" in r.values
    ]
    for name, values in compared:
        plot_parity(out / f"parity-{name.replace(' ', '-')}.png", values, f"{title}: {name}")
    if compared:
        report_parity([values for _, values in compared])
    print(f"wrote the table, the curves, {sheets} contact sheets and the models to {out}{os.sep}")


def _name(point: Point, varying: list[str]) -> str:
    """The loss, and what else tells the point from others."""
    return " ".join([point["loss"], *[f"{k}={point[k]}" for k in varying if k != "loss"]])


def _sheet(dataset: Dataset, result: Result, title: str, path: Path) -> bool:
    """Draw the images that a sparse map hesitates on; whether there is something to draw."""
    test = dataset.test or dataset.train
    groups = {}
    for kind, examples in result.values["candidates"].items():
        images = as_images(dataset, test, np.array([row for row, _ in examples], int))
        if images is None or result.point["loss"] == "softmax":
            return False
        captions = []
        for row, classes in examples:
            ranked = [f"{class_name(dataset, int(k))} {p:.2f}" for k, p in classes.items()]
            more = f"and {len(ranked) - 3} more; " if len(ranked) > 3 else ""
            first = " ".join(ranked[:3]).replace(" 0.", " .")
            captions.append(f"{first}\n{more}is {class_name(dataset, int(test.y[row]))}")
        if captions:
            groups[kind] = images, captions
    if groups:
        captioned_sheet(path, groups, title=title)
    return bool(groups)
