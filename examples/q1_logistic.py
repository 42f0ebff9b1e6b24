"""Train logistic regression on one example at a time: one run, or a grid of twelve (Question 1.2).

One run also draws the l2 norm of the weights over the epochs; with --l1 it is compared with a
run without, for the share of weights that are exactly 0.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from homework.flags import add_number
from homework.online import keep_finished_epochs, load, make_parser, report, scores

from minidl import (
    PCA,
    AveragePool,
    Callback,
    CrossEntropy,
    Dataset,
    History,
    Linear,
    OnlineRun,
    Progress,
    checkpoint,
    compounding,
    fit_online,
    fit_side_by_side,
)
from minidl.cli import run_main
from minidl.data.features import Feature
from minidl.files import write_text
from minidl.grid import Grid, run
from minidl.init import zeros
from minidl.plots import Panel, line_plot
from minidl.tables import Table
from minidl.training import Run

COMPONENTS = 90  # as in a published report


def make_features(name: str) -> Feature | None:
    """Return the map from pixels to features that ``--features`` names, None for raw pixels."""
    return {"raw": None, "pca": PCA(COMPONENTS), "pool": AveragePool(2)}[name]


def logistic_regression(dataset: Dataset, dtype: str) -> Linear:
    """Return a linear classifier with all weights zero; the loss makes it a logistic regression."""
    return Linear(
        dataset.features, dataset.classes, weight_init=zeros, bias_init=zeros, rng=0, dtype=dtype
    )


# One run, with and without an L1 penalty.


class Weights(Callback):
    """Records the l2 norm of all weights and the share that is exactly 0, after each epoch."""

    def on_start(self, run: Run) -> None:
        self.norms: list[float] = []
        self.zeros: list[float] = []
        self.on_epoch(run)

    def on_epoch(self, run: Run) -> None:
        self.norms.append(float(np.linalg.norm(run.model.theta)))
        self.zeros.append(float(np.mean(run.model.theta == 0)))


def run_one(dataset: Dataset, args: argparse.Namespace) -> None:
    """Train with the settings of the flags, also without --l1 if there is one, and report."""
    pixels = make_features(args.features or "raw")
    data = dataset if pixels is None else pixels.fit_transform(dataset, args.dtype)
    loss = CrossEntropy()
    weights: dict[float, Weights] = {}
    for l1 in dict.fromkeys((0.0, args.l1)):
        model = logistic_regression(data, args.dtype)
        history, weights[l1] = History(ties="last"), Weights()
        with keep_finished_epochs(history, args.epochs):
            fit_online(
                model,
                data,
                loss,
                lr=args.lr,
                weight_decay=args.l2,
                l1=l1,
                epochs=args.epochs,
                rng=compounding(len(data.train), np.random.RandomState(args.seed)),
                restore_best=True,
                history=history,
                callbacks=[Progress(), weights[l1]],
            )
        if len(history) <= args.epochs:  # interrupted
            break
    report("logistic regression", model, data, loss, history, args, pixels=pixels)
    draw_penalties(weights, data, args.out)


def draw_penalties(weights: Mapping[float, Weights], dataset: Dataset, out: Path) -> None:
    """Draw the norm of the weights over the epochs, and their zeros if there is an L1 penalty."""
    epochs = {l1: range(len(w.norms)) for l1, w in weights.items()}
    norms = {f"L1 {l1:g}": (epochs[l1], w.norms) for l1, w in weights.items()}
    panels = [Panel(norms, "epoch", "l2 norm of the weights")]
    if len(weights) > 1:
        shares = {f"L1 {l1:g}": (epochs[l1], w.zeros) for l1, w in weights.items()}
        panels.append(Panel(shares, "epoch", "share of weights that are exactly 0"))
    line_plot(out / "norm.png", *panels, title=f"logistic regression, {dataset.title}")
    for l1, w in weights.items():
        print(f"L1 {l1:g}: norm {w.norms[-1]:.4f}, exactly zero {w.zeros[-1]:.4f}")


# A grid over features, learning rates and L2 penalties.


def train(
    features: str,
    *,
    dataset: Dataset,
    learning_rates: Sequence[float],
    l2s: Sequence[float],
    epochs: int,
    seed: int,
    dtype: str,
    models: Path,
) -> dict[str, Any]:
    """Train all learning rates and penalties on one set of features, side by side."""
    start = time.perf_counter()
    pixels, loss = make_features(features), CrossEntropy()
    data = dataset if pixels is None else pixels.fit_transform(dataset, dtype)
    runs = [
        OnlineRun(logistic_regression(data, dtype), lr, l2, history=History(ties="last"))
        for lr in learning_rates
        for l2 in l2s
    ]
    order = compounding(len(data.train), np.random.RandomState(seed))
    fit_side_by_side(runs, data, loss, epochs=epochs, rng=order, restore_best=True)
    seconds = (time.perf_counter() - start) / len(runs)
    rows = []
    for one in runs:
        point = {"features": features, "learning_rate": one.lr, "l2": one.weight_decay}
        checkpoint.save(models / f"{Grid.identifier(point)}.npz", one.model, history=one.history)
        figures = scores(one.model, data, loss, one.history, seconds)
        norm = float(np.linalg.norm(one.model.theta))
        rows.append({**point, **figures, "norm": norm, "error": one.error})
    explained = float(pixels.ratios.sum()) if isinstance(pixels, PCA) else None
    return {"runs": rows, "explained": explained}


def run_grid(dataset: Dataset, args: argparse.Namespace) -> None:
    """Train the twelve models of the grid and print their table."""
    other = args.features if args.features not in (None, "raw") else "pca"
    grid = Grid(features=["raw", other])
    options: dict[str, Any] = {
        "learning_rates": [1e-3, 1e-4, 1e-5],
        "l2s": [1e-5, 1e-4],
        "epochs": args.epochs,
        "seed": args.seed,
        "dtype": args.dtype,
    }
    settings = {"data": dataset.name, "sha256": dataset.checksum(), **options}
    start = time.perf_counter()
    train_features = partial(train, dataset=dataset, models=args.out / "models", **options)
    results = run(grid, train_features, out=args.out, jobs=args.jobs, settings=settings)
    elapsed = time.perf_counter() - start
    failed = [result for result in results if result.error is not None]
    if failed:
        raise ValueError(f"{failed[0].id}: {failed[0].error}")

    rows = [row for result in results for row in result.values["runs"]]
    best = max(rows, key=lambda row: float(row["best_valid"]))
    columns = ["features", "learning_rate", "l2", "valid", "epoch", "test", "norm", "seconds"]
    table = Table(columns, f"logistic regression, {dataset.title}")
    for row in rows:
        cells = [row["error"] or row["best_valid"], row["selected_epoch"], row["test"]]
        setting = (row["features"], f"{row['learning_rate']:g}", f"{row['l2']:g}")
        table.add(*setting, *cells, f"{row['norm']:.2f}", f"{row['time']:.1f}", marked=row is best)
    table.show()
    table.write(args.out / "table")
    print("* the best; runs on the same features go side by side and share its seconds evenly")
    for result in results:
        if result.values["explained"] is not None:
            explained = result.values["explained"]
            print(f"PCA: {COMPONENTS} components hold {explained:.4f} of the variance")
    print(
        f"{len(rows)} runs in {elapsed:.1f} s with {args.jobs} processes, wrote {args.out}{os.sep}"
    )
    write_text(args.out / "scores.json", json.dumps(best, indent=1) + "\n")


def main() -> None:
    parser = make_parser(__doc__.splitlines()[0], "runs/q1_logistic", dtype="float64")
    add_number(parser, "--lr", 1e-4, "learning rate", low=0, open_low=True)
    add_number(parser, "--l2", 1e-5, "L2 penalty", low=0)
    add_number(parser, "--l1", 0.0, "L1 penalty, by a proximal step after each block of 64", low=0)
    choices = ("raw", "pca", "pool")
    parser.add_argument("--features", choices=choices, help="default raw; with --grid raw and pca")
    parser.add_argument("--grid", action="store_true", help="3 learning rates x 2 L2 x 2 features")
    args = parser.parse_args()
    dataset = load(args)
    if args.grid:
        run_grid(dataset, args)
    else:
        run_one(dataset, args)


if __name__ == "__main__":
    run_main(main)
