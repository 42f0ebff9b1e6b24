"""The homework's feed-forward experiments: one network, a grid of them, and their report."""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from homework.backend import (
    add_backend_flags,
    check_backend,
    fit_with,
    generator,
    plot_parity,
    report_parity,
)
from homework.command import base_parser, load_data, note_generated
from minidl import checkpoint
from minidl.activations import ReLU, Tanh
from minidl.cli import Parser, int_argument
from minidl.data import Dataset
from minidl.grid.axes import Grid, Point
from minidl.grid.runner import Result, run
from minidl.history import History
from minidl.layer import Layer, Sequential
from minidl.layers import Dropout, Linear
from minidl.losses import CrossEntropy, Loss
from minidl.optim import SGD, Adam
from minidl.plots import Panel, line_plot
from minidl.tables import Table
from minidl.training import evaluate
from minidl.typing import Rng
from minidl.validation import check_int, did_you_mean

ACTIVATIONS: Mapping[str, type[Layer]] = {"relu": ReLU, "tanh": Tanh}
OPTIMIZERS: Mapping[str, type[SGD] | type[Adam]] = {"adam": Adam, "sgd": SGD}

QUICK_EPOCHS, FULL_EPOCHS = 15, 30


def feedforward(
    features: int,
    classes: int,
    *,
    width: int,
    layers: int = 1,
    activation: str = "relu",
    dropout: float = 0.0,
    rng: Rng,
    dtype: str = "float32",
) -> Sequential:
    """``layers`` times Linear, activation, Dropout, then a Linear to the logits.

    Starts from PyTorch's default initial values.
    """
    if activation not in ACTIVATIONS:
        hint = did_you_mean(activation, ACTIVATIONS)
        raise ValueError(f"feedforward: no activation {activation!r}{hint}")
    hidden: list[Layer] = []
    for i in range(check_int("feedforward", "layers", layers)):
        hidden += [
            Linear(width if i else features, width),
            ACTIVATIONS[activation](),
            Dropout(dropout),
        ]
    return Sequential(*hidden, Linear(width, classes), rng=rng, dtype=dtype)


def fit_feedforward(
    point: Point,
    loss: Loss,
    *,
    dataset: Dataset,
    epochs: int,
    batch_size: int,
    optimizer: str,
    activation: str,
    seed: int | str,
    dtype: str,
    backend: str = "numpy",
    models: Path | None = None,
    **how: Any,
) -> tuple[Sequential, History, dict[str, Any]]:
    """Train the network of one point, and keep it in ``models``; ``how`` goes to ``fit``.

    With the backend ``"both"`` model and history are minidl's, and the last of the three has
    PyTorch's history under ``"beside"``; otherwise it is empty.
    """

    def trained(backend: str) -> tuple[Sequential, History]:
        model = feedforward(
            dataset.features,
            dataset.classes,
            width=point["width"],
            layers=point.get("layers", 1),
            activation=activation,
            dropout=point["dropout"],
            rng=generator(seed),
            dtype=dtype,
        )
        method = OPTIMIZERS[optimizer](model, point["learning_rate"], weight_decay=point["l2"])
        sizes = {"epochs": epochs, "batch_size": batch_size}
        run = fit_with(backend)
        return model, run(model, dataset, loss, method, rng=generator(seed), **sizes, **how)

    model, history = trained("numpy" if backend == "both" else backend)
    if models is not None:
        checkpoint.save(models / f"{Grid.identifier(point)}.npz", model, history=history)
    beside = {"beside": trained("torch")[1].to_dicts()} if backend == "both" else {}
    return model, history, beside


def train_feedforward(point: Point, *, dataset: Dataset, **options: Any) -> dict[str, Any]:
    """Train one network as the course's script does; the figures that its report asks for.

    The test accuracy is that of the last epoch's weights.
    """
    loss = CrossEntropy()
    model, history, beside = fit_feedforward(point, loss, dataset=dataset, **options)
    return {
        "best_valid_accuracy": history.best.valid_accuracy,
        "best_epoch": history.best.epoch,
        "final_train_accuracy": history[-1].train_accuracy,
        "test_accuracy": evaluate(model, dataset.test, loss)[1] if dataset.test else None,
        "history": history.to_dicts(),
        **beside,
    }


def cost(point: Point) -> float:
    """How long a network takes to train, relative to others (a line through measured steps)."""
    width = int(point["width"])
    return 20_000 + 800 * width + (int(point.get("layers", 1)) - 1) * (width**2 + 5_000)


def make_parser(description: str, out: str) -> Parser:
    """The command line that all feed-forward experiments share."""
    epochs = f"default {QUICK_EPOCHS}, with --full {FULL_EPOCHS}"
    parser = base_parser(description, out, epochs=epochs)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="relu")
    parser.add_argument("--batch-size", type=int_argument("batch size"), default=64)
    add_backend_flags(parser)
    return parser


def run_grid(
    grid: Grid,
    args: argparse.Namespace,
    train: Callable[..., Mapping[str, Any]] = train_feedforward,
) -> tuple[Dataset, list[Result]]:
    """Load the data, say what they are, and train every network of the grid."""
    check_backend(args.backend)
    dataset = load_data(args.data, full=args.full)
    epochs = args.epochs or (FULL_EPOCHS if args.full else QUICK_EPOCHS)
    print(f"{dataset}; {len(grid)} networks, {epochs} epochs each", flush=True)
    note_generated(dataset)
    options = {
        "epochs": epochs,
        "batch_size": args.batch_size,
        "optimizer": args.optimizer,
        "activation": args.activation,
        "seed": args.seed,
        "dtype": args.dtype,
        "backend": args.backend,
    }
    settings = {"data": dataset.name, "sha256": dataset.checksum(), **options}
    with tempfile.TemporaryDirectory(prefix="minidl-") as folder:
        if args.jobs > 1 and any(split.file is None for split in dataset.splits.values()):
            dataset = dataset.mapped(folder)  # one copy of the pixels for all processes
        train_one = partial(train, dataset=dataset, models=args.out / "models", **options)
        results = run(grid, train_one, out=args.out, jobs=args.jobs, settings=settings, cost=cost)
    return dataset, results


def best_of(results: list[Result]) -> Result | None:
    """The run with the highest validation accuracy, the first of equals."""
    finished = [r for r in results if r.error is None]
    return max(finished, key=lambda r: float(r.values["best_valid_accuracy"]), default=None)


def report(
    dataset: Dataset,
    results: list[Result],
    *,
    axis: str,
    out: Path,
    published: Mapping[tuple[float, ...], float] | None = None,
) -> None:
    """Print and write the table, the best network's figures, and two pictures.

    ``axis`` is what the experiment is about: the best run of each of its values is marked.
    """
    names = list(results[0].point)
    title = dataset.title
    columns = [*names, "valid", "epoch", "train", "test", "seconds"]
    table = Table([*columns, "published"] if published else columns, f"{title}: accuracies")
    marked: list[Result] = []
    gaps: list[float] = []
    choice = len({r.point[axis] for r in results}) < len(results)
    for value in dict.fromkeys(r.point[axis] for r in results):
        group = [r for r in results if r.point[axis] == value]
        best = best_of(group)
        for r in group:
            cells = [r.error] if r.error else [r.values["best_valid_accuracy"]]
            keys = ("best_epoch", "final_train_accuracy", "test_accuracy")
            cells += [r.values.get(key) for key in keys]
            cells.append(f"{r.seconds:.1f}")
            if published:
                there = published.get(tuple(r.point.values()))
                cells.append(there)
                if there is not None and not r.error:
                    gaps.append(abs(there - r.values["best_valid_accuracy"]))
            table.add(*[f"{v:g}" for v in r.point.values()], *cells, marked=r is best and choice)
        table.end_group()
        marked += [best] if best else []
    table.show()
    if choice:
        print(f"* the best of each {axis}")
    table.write(out / "table")
    failed = sum(r.error is not None for r in results)
    if failed:
        print(f"{failed} of {len(results)} runs failed; the table says why")
    if published:
        mean = f"{np.mean(gaps):.4f}" if gaps else "no run in common"
        print(f"mean absolute difference from the published accuracies: {mean} ({len(gaps)} runs)")
    best = best_of(results)
    if best is None:
        return
    name = ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in best.point.items())
    print(f"best on {title}: {name}")
    for key in ("best_valid_accuracy", "test_accuracy", "final_train_accuracy"):
        print(f"  {key.replace('_', ' '):<22}{best.values[key]:.4f}")
    History.from_dicts(best.values["history"]).plot(
        out / "best-curves.png", title=f"{title}: {name}"
    )
    if "beside" in best.values:
        plot_parity(out / "parity.png", best.values, f"{title}: {name}")
        report_parity([r.values for r in results])
    ticks = [r.point[axis] for r in marked]
    curves = {
        "final training accuracy": (ticks, [r.values["final_train_accuracy"] for r in marked]),
        "best validation accuracy": (ticks, [r.values["best_valid_accuracy"] for r in marked]),
    }
    label = {"width": "width (hidden units)", "layers": "depth (hidden layers)"}[axis]
    panel = Panel(curves, label, "accuracy (share of examples)", f"{title}\nbest of each", ticks)
    line_plot(out / f"accuracy-by-{axis}.png", panel)
    print(f"wrote the table, the pictures and the models to {out}{os.sep}")


def read_published(path: Path) -> dict[tuple[float, ...], float]:
    """Published accuracies by (width, learning rate, dropout, L2), from a CSV of a report."""
    keys = ("hidden_size", "learning_rate", "dropout", "l2")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [k for k in (*keys, "best_valid_acc") if k not in (reader.fieldnames or ())]
        if missing:
            found = ", ".join(reader.fieldnames or ()) or "nothing"
            raise ValueError(f"{path}: missing columns {', '.join(missing)}; found {found}")
        return {
            tuple(float(row[key]) for key in keys): float(row["best_valid_acc"]) for row in reader
        }
