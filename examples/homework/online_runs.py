"""The homework's first question: models trained on one example at a time, as its scripts do.

The course's semantics: pixels divided by 256; a constant feature last, here the first layer's
bias; ``numpy.random.RandomState(seed)`` for initial weights and then for a permutation before
each epoch, which shuffles the order of the epoch before; penalties on all weights; the best
checkpoint is the last one with the highest validation accuracy.
"""

from __future__ import annotations

import argparse
import json
import os
import string
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from homework.command import add_number, base_parser, load_data, note_generated
from homework.published import compare, is_course_file
from minidl import checkpoint, init
from minidl.activations import ReLU
from minidl.cli import Parser
from minidl.data import Dataset
from minidl.data.features import PCA, AveragePool, Feature
from minidl.files import write_text
from minidl.grid.axes import Grid, Point
from minidl.grid.runner import run
from minidl.history import History
from minidl.layer import Layer, Sequential
from minidl.layers import Linear
from minidl.losses import CrossEntropy, Loss
from minidl.online import OnlineRun, compounding, fit_online, fit_side_by_side
from minidl.plots import Panel, line_plot, weight_sheet
from minidl.tables import Table
from minidl.training import Callback, Progress, Run, evaluate

EPOCHS = 20
FEATURES = ("raw", "pca", "pool")


def make_parser(description: str, out: str, *, dtype: str) -> Parser:
    """The command line that the scripts of this question share."""
    parser = base_parser(description, out, epochs=f"default {EPOCHS}")
    add_number(parser, "--seed", 42, "of weights and order", low=0)
    parser.set_defaults(dtype=dtype, epochs=EPOCHS)
    return parser


def load(args: argparse.Namespace) -> Dataset:
    """The data set that the command line names; says what it is."""
    dataset = load_data(args.data, full=args.full)
    print(f"{dataset}; {args.epochs} epochs, one example at a time", flush=True)
    note_generated(dataset)
    return dataset


def linear_model(dataset: Dataset, dtype: str) -> Linear:
    """A linear classifier that starts at zero."""
    shape = dataset.features, dataset.classes
    return Linear(*shape, weight_init=init.zeros, bias_init=init.zeros, rng=0, dtype=dtype)


def mlp(dataset: Dataset, width: int, random: np.random.RandomState, dtype: str) -> Sequential:
    """One hidden layer of ReLUs; weights from N(0.1, 0.1^2), drawn as (out, in); zero biases."""
    first, last = Linear(dataset.features, width), Linear(width, dataset.classes)
    model = Sequential(first, ReLU(), last, rng=0, dtype=dtype)
    for layer in (first, last):
        layer.weight.value = random.normal(0.1, 0.1, layer.weight.shape[::-1]).T
        layer.bias.value = np.zeros(layer.out_features)  # type: ignore[union-attr]
    return model


def feature(name: str) -> Feature | None:
    """What ``--features`` names; PCA keeps 90 components, as a published report does."""
    return {"raw": None, "pca": PCA(90), "pool": AveragePool(2)}[name]


class Weights(Callback):
    """After each epoch, the l2 norm of all weights and the share of them that is exactly 0."""

    def on_start(self, run: Run) -> None:
        self.norms: list[float] = []
        self.zeros: list[float] = []
        self.on_epoch(run)

    def on_epoch(self, run: Run) -> None:
        self.norms.append(float(np.linalg.norm(run.model.theta)))
        self.zeros.append(float(np.mean(run.model.theta == 0)))


def train(
    model: Layer,
    dataset: Dataset,
    loss: Loss,
    args: argparse.Namespace,
    *,
    random: np.random.RandomState | None = None,
    watch: Callback | None = None,
    lr: float,
    l2: float = 0.0,
    l1: float = 0.0,
) -> tuple[History, dict[str, Any]]:
    """Train as the course does and leave the model at its best; the figures of its scores.json.

    After Ctrl-C the figures are those of the epochs that ended.
    """
    order = compounding(len(dataset.train), random or np.random.RandomState(args.seed))
    since = time.perf_counter()
    history = History(ties="last")
    try:
        fit_online(
            model,
            dataset,
            loss,
            lr=lr,
            l2=l2,
            l1=l1,
            epochs=args.epochs,
            rng=order,
            restore_best=True,
            history=history,
            callbacks=[Progress(), *([watch] if watch else [])],
        )
    except KeyboardInterrupt:
        if not history.records:
            raise
        ended = f"{len(history) - 1} of {args.epochs} epochs ended and are kept"
        print(f"\ninterrupted: {ended}; the same command trains anew", flush=True)
    return history, scores(model, dataset, loss, history, time.perf_counter() - since)


def scores(
    model: Layer, dataset: Dataset, loss: Loss, history: History, seconds: float
) -> dict[str, Any]:
    """The course's keys, and what data they belong to."""
    test = evaluate(model, dataset.test, loss)[1] if dataset.test else None
    return {
        "best_valid": history.best.valid_accuracy,
        "selected_epoch": history.best.epoch,
        "test": test,
        "time": seconds,
        "data": dataset.name,
        "generated": dataset.generated,
    }


def report(
    what: str,
    model: Layer,
    dataset: Dataset,
    history: History,
    figures: Mapping[str, Any],
    args: argparse.Namespace,
    *,
    unit: str = "nats",
    pixels: Feature | None = None,
) -> None:
    """Print the figures; write them, the curves, the best weights and their picture."""
    out: Path = args.out
    write_text(out / "scores.json", json.dumps(figures, indent=1) + "\n")
    history.to_csv(out / "history.csv")
    checkpoint.save(out / "best.npz", model, history=history)
    title = f"{what}, {dataset.title}"
    print(f"{title}: best epoch {figures['selected_epoch']} of {history[-1].epoch}")
    print(f"  validation accuracy {figures['best_valid']:.4f}")
    print(f"  test accuracy       {figures['test']:.4f}   ({figures['time']:.1f} s)")
    compare(what, figures, args.data)
    epochs = history.column("epoch")
    panels = [
        Panel(
            {
                label: (epochs, history.column(f"{part}_{quantity}"))
                for part, label in (("train", "training"), ("valid", "validation"))
            },
            "epoch",
            ylabel,
        )
        for quantity, ylabel in (
            ("loss", f"loss ({unit})"),
            ("accuracy", "accuracy (share of examples)"),
        )
    ]
    line_plot(out / "curves.png", *panels, title=title)
    draw_weights(out / "weights.png", model, dataset, args.data, title, pixels)
    print(f"wrote scores.json, history.csv, best.npz and pictures to {out}{os.sep}")


def draw_weights(
    path: Path,
    model: Layer,
    dataset: Dataset,
    source: str,
    title: str,
    pixels: Feature | None = None,
) -> None:
    """The first layer's weights as images, one for each class or hidden unit.

    Weights of principal components are drawn as the pixels' weights that they amount to.
    Features that are no square image are not drawn.
    """
    first = model.layers[0] if isinstance(model, Sequential) else model
    weights = first.weight.value.T  # type: ignore[attr-defined]
    if isinstance(pixels, PCA):
        weights = weights @ pixels.components
    side = round(weights.shape[1] ** 0.5)
    if side * side != weights.shape[1]:
        return
    images = weights.reshape(-1, side, side)
    if dataset.transposed or is_course_file(source):
        images = images.transpose(0, 2, 1)
    n = len(images)
    letters = n == len(string.ascii_uppercase) and first is model
    labels = list(string.ascii_uppercase) if letters else [str(i) for i in range(n)]
    what = "one image a class" if first is model else "one image a hidden unit"
    weight_sheet(path, images, labels, title=f"{title}: {what}")


def train_group(
    point: Point,
    *,
    dataset: Dataset,
    learning_rates: Sequence[float],
    l2s: Sequence[float],
    epochs: int,
    seed: int,
    dtype: str,
    models: Path,
) -> dict[str, Any]:
    """All learning rates and penalties on one set of features, side by side."""
    since = time.perf_counter()
    chosen, loss = feature(point["features"]), CrossEntropy()
    data = dataset if chosen is None else chosen.fit_transform(dataset, dtype)
    prepared = time.perf_counter() - since
    runs = [
        OnlineRun(linear_model(data, dtype), lr, l2, history=History(ties="last"))
        for lr in learning_rates
        for l2 in l2s
    ]
    order = compounding(len(data.train), np.random.RandomState(seed))
    fit_side_by_side(runs, data, loss, epochs=epochs, rng=order, restore_best=True)
    seconds = time.perf_counter() - since
    rows = []
    for one in runs:
        setting = {**point, "learning_rate": one.lr, "l2": one.l2}
        checkpoint.save(models / f"{Grid.identifier(setting)}.npz", one.model, history=one.history)
        figures = scores(one.model, data, loss, one.history, seconds / len(runs))
        norm = float(np.linalg.norm(one.model.theta))
        rows.append({**setting, **figures, "norm": norm, "error": one.error})
    explained = float(chosen.ratios.sum()) if isinstance(chosen, PCA) else None
    return {"runs": rows, "explained": explained, "preparing": prepared, "seconds": seconds}


def run_grid(
    dataset: Dataset,
    args: argparse.Namespace,
    features: Sequence[str],
    learning_rates: Sequence[float],
    l2s: Sequence[float],
) -> None:
    """Logistic regressions over learning rates, penalties and features; their table."""
    options: dict[str, Any] = {
        "learning_rates": list(learning_rates),
        "l2s": list(l2s),
        "epochs": args.epochs,
        "seed": args.seed,
        "dtype": args.dtype,
    }
    one = partial(train_group, dataset=dataset, models=args.out / "models", **options)
    settings = {"data": dataset.name, "sha256": dataset.checksum(), **options}
    since = time.perf_counter()
    results = run(
        Grid(features=list(features)), one, out=args.out, jobs=args.jobs, settings=settings
    )
    elapsed = time.perf_counter() - since
    columns = ["features", "learning_rate", "l2", "valid", "epoch", "test", "norm", "seconds"]
    table = Table(columns, f"logistic regression, {dataset.title}")
    failed = [result for result in results if result.error is not None]
    if failed:
        raise ValueError(f"{failed[0].id}: {failed[0].error}")
    rows = [row for result in results for row in result.values["runs"]]
    best = max(rows, key=lambda row: float(row["best_valid"]))
    for row in rows:
        cells = [row["error"] or row["best_valid"], row["selected_epoch"], row["test"]]
        setting = (row["features"], f"{row['learning_rate']:g}", f"{row['l2']:g}")
        table.add(*setting, *cells, f"{row['norm']:.2f}", f"{row['time']:.1f}", marked=row is best)
    table.show()
    table.write(args.out / "table")
    print("* the best; runs on the same features go side by side, and share its seconds evenly")
    for result in results:
        if result.values["explained"] is not None:
            print(f"PCA: 90 components hold {result.values['explained']:.4f} of the variance")
    print(
        f"{len(rows)} runs in {elapsed:.1f} s with {args.jobs} processes, wrote {args.out}{os.sep}"
    )
    write_text(args.out / "scores.json", json.dumps(best, indent=1) + "\n")


def draw_penalties(watches: Mapping[float, Weights], dataset: Dataset, out: Path) -> None:
    """The norm of the weights over the epochs, and what an L1 penalty makes of their zeros."""
    epochs = {l1: range(len(watch.norms)) for l1, watch in watches.items()}
    names = {l1: f"L1 {l1:g}" for l1 in watches}
    norms = {names[l1]: (epochs[l1], watch.norms) for l1, watch in watches.items()}
    panels = [Panel(norms, "epoch", "l2 norm of the weights")]
    if len(watches) > 1:
        zeros = {names[l1]: (epochs[l1], watch.zeros) for l1, watch in watches.items()}
        panels.append(Panel(zeros, "epoch", "share of weights that are exactly 0"))
    line_plot(out / "norm.png", *panels, title=f"logistic regression, {dataset.title}")
    for l1, watch in watches.items():
        print(f"L1 {l1:g}: norm {watch.norms[-1]:.4f}, exactly zero {watch.zeros[-1]:.4f}")
