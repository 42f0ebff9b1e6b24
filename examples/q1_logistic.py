"""Train logistic regression on one example at a time: one run, or a grid of twelve (Question 1.2).

One run also draws the l2 norm of the weights over the epochs; with --l1 it is compared with a
run without, for the share of weights that are exactly 0. With --features-table it compares raw
pixels, pooled pixels and several numbers of principal components.
"""

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from homework.comparison import read_published
from homework.figures import TestAccuracy
from homework.flags import add_axis, add_number
from homework.grids import add_grid_flags, run_points, shared
from homework.online import load, make_parser, report, scores
from homework.published import is_course_file, tabulate_published
from homework.runs import single_run

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
    compounding,
    evaluate,
    fit_online,
    fit_side_by_side,
)
from minidl.callbacks import Run
from minidl.data.features import Feature
from minidl.files import as_path, to_json, write_text
from minidl.grid.points import Grid, exit_status, keeping
from minidl.init import zeros
from minidl.saving.runs import Checkpoint
from minidl.view.cli import run_main
from minidl.view.plots import Panel, contact_sheet, line_plot
from minidl.view.tables import Table

OUT = Path("runs/q1_logistic")
COMPONENTS = 90  # as in a published report, where they hold 0.9315 of the variance


def make_features(name: str, components: int) -> Feature | None:
    """Return the map from pixels to features that ``--features`` names, None for raw pixels."""
    return {"raw": None, "pca": PCA(components), "pool": AveragePool(2)}[name]


def logistic_regression(dataset: Dataset, dtype: str) -> Linear:
    """Return a linear classifier with all weights zero; the loss makes it a logistic regression."""
    return Linear(
        dataset.features, dataset.classes, weight_init=zeros, bias_init=zeros, rng=0, dtype=dtype
    )


# One run, with and without an L1 penalty.


class Weights(Callback):
    """Records the l2 norm of all weights and the share that is exactly 0, after each epoch."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.zeros: list[float] = []

    def on_start(self, run: Run) -> None:
        if not run.history.records:
            self.on_epoch(run)

    def on_epoch(self, run: Run) -> None:
        self.norms.append(float(np.linalg.norm(run.model.theta)))
        self.zeros.append(float(np.mean(run.model.theta == 0)))

    def state_dict(self) -> dict[str, Any]:
        """Return the records so far."""
        return {"norms": self.norms, "zeros": self.zeros}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what ``state_dict`` returned."""
        self.norms, self.zeros = list(state["norms"]), list(state["zeros"])


def run_one(dataset: Dataset, args: argparse.Namespace) -> None:
    """Train with the settings of the flags, also without --l1 if there is one, and report."""
    features = args.features or "raw"
    pixels = make_features(features, args.components)
    data = dataset if pixels is None else pixels.fit_transform(dataset, args.dtype)
    loss = CrossEntropy()
    weights: dict[float, Weights] = {}
    penalties = list(dict.fromkeys((0.0, args.l1)))
    files = ["checkpoint.npz" if l1 == args.l1 else "checkpoint-without.npz" for l1 in penalties]
    with single_run(args, dataset, names=files) as resumable:
        for l1, options in zip(penalties, resumable, strict=True):
            model = logistic_regression(data, args.dtype)
            history, weights[l1] = History(), Weights()
            test = TestAccuracy(data, loss)
            fit_online(
                model,
                data,
                loss,
                lr=args.lr,
                weight_decay=args.l2,
                l1=l1,
                epochs=args.epochs,
                rng=compounding(len(data.train), np.random.RandomState(args.seed)),
                history=history,
                callbacks=[Progress(), weights[l1], test],
                **options,
            )
        history.restore_best(model)
        settings = {"features": features, "lr": args.lr, "l2": args.l2, "l1": l1}
        name = "logistic regression"
        report(name, model, data, history, test.values, args, settings=settings, pixels=pixels)
        if isinstance(pixels, PCA):
            share = pixels.ratios.sum()
            print(f"{len(pixels.ratios)} components hold {share:.4f} of the variance")
        draw_penalties(weights, data, args.out)


def draw_penalties(weights: Mapping[float, Weights], dataset: Dataset, out: Path) -> None:
    """Draw the norm of the weights over the epochs, and their zeros if there is an L1 penalty."""
    epochs = {l1: range(len(w.norms)) for l1, w in weights.items()}
    norms = {f"L1 {l1:g}": (epochs[l1], w.norms) for l1, w in weights.items()}
    panels = [Panel(norms, "epoch", "l2 norm of the weights")]
    if len(weights) > 1:
        shares = {f"L1 {l1:g}": (epochs[l1], w.zeros) for l1, w in weights.items()}
        panels.append(Panel(shares, "epoch", "share of weights that are exactly 0"))
    line_plot(out / "norm", *panels, title=f"logistic regression, {dataset.title}")
    for l1, w in weights.items():
        print(f"L1 {l1:g}: norm {w.norms[-1]:.4f}, exactly zero {w.zeros[-1]:.4f}")


# A grid over features, learning rates and L2 penalties.

AXES = ("features", "learning_rate", "l2")


def train(
    features: str,
    *,
    dataset: Dataset,
    learning_rates: Sequence[float],
    l2s: Sequence[float],
    epochs: int,
    seed: int,
    dtype: str,
    components: int,
    models: Path,
) -> dict[str, Any]:
    """Train all learning rates and penalties on one set of features, side by side."""
    start = time.perf_counter()
    pixels, loss = make_features(features, components), CrossEntropy()
    data = dataset if pixels is None else pixels.fit_transform(dataset, dtype)
    runs = [
        OnlineRun(logistic_regression(data, dtype), lr, l2, history=History())
        for lr in learning_rates
        for l2 in l2s
    ]
    order = compounding(len(data.train), np.random.RandomState(seed))
    fit_side_by_side(runs, data, loss, epochs=epochs, rng=order)
    share = (time.perf_counter() - start) / len(runs)
    part = data.splits["test"]
    rows = []
    for one in runs:
        point = {"features": features, "learning_rate": one.lr, "l2": one.weight_decay}
        last = evaluate(one.model, part, loss)["accuracy"]
        one.history.restore_best(one.model)
        test = [evaluate(one.model, part, loss)["accuracy"]] * len(one.history)
        test[-1] = last
        figures = scores(data, one.history, test, share_of_seconds=share)
        norm = float(np.linalg.norm(one.model.theta))
        rows.append({**point, **figures, "norm": norm, "error": one.error})
    explained = float(pixels.ratios.sum()) if isinstance(pixels, PCA) else None
    values = {"runs": rows, "explained": explained}
    with keeping(values):
        for one, row in zip(runs, rows, strict=True):
            name = Grid.identifier({axis: row[axis] for axis in AXES})
            Checkpoint(models / f"{name}.npz").save(model=one.model, history=one.history)
    return values


def run_grid(dataset: Dataset, args: argparse.Namespace) -> int:
    """Train the twelve models of the grid and print their table."""
    other = args.features if args.features not in (None, "raw") else "pca"
    grid = Grid(features=["raw", other])
    options: dict[str, Any] = {
        "learning_rates": args.learning_rates,
        "l2s": args.l2s,
        "epochs": args.epochs,
        "seed": args.seed,
        "dtype": args.dtype,
        "components": args.components,
    }
    published = None
    if args.compare:
        published = read_published(args.compare, required=["learning_rate", "l2", "features"])
    start = time.perf_counter()
    with shared(dataset, args) as mapped:
        task = partial(train, dataset=mapped, models=(args.out / "models").absolute(), **options)
        results = run_points(grid, task, args, dataset=dataset)
    elapsed = time.perf_counter() - start
    for result in results:
        if not result.complete:
            print(f"{result.id}: {result.error or result.unsaved}")
    finished = [result for result in results if result.error is None]
    if not finished:
        return exit_status(results)

    rows = [row for result in finished for row in result.values["runs"]]
    best = max(rows, key=lambda row: float(row["best_valid"]))
    figures = {
        "valid": "best_valid",
        "epoch": "selected_epoch",
        "train at best": "train",
        "test at best": "test",
        "train at last": "last_train",
        "test at last": "last_test",
    }
    points = [{name: row[name] for name in AXES} for row in rows]
    ours = [float(row["best_valid"]) for row in rows]
    theirs = published.of(points, ours) if published else []
    columns = [*AXES, *figures, "norm", "share of seconds", *(["published"] if published else [])]
    table = Table(columns, f"logistic regression, {dataset.title}")
    for i, row in enumerate(rows):
        cells = [row[key] for key in figures.values()]
        cells = [row["error"] or cells[0], *cells[1:], f"{row['norm']:.2f}"]
        setting = (row["features"], f"{row['learning_rate']:g}", f"{row['l2']:g}")
        cells = [*setting, *cells, f"{row['share_of_seconds']:.1f}"]
        table.add(*cells, *([theirs[i]] if published else []), marked=row is best)
    table.show()
    table.write(args.out / "table")
    print("* the best validation accuracy")
    print("share of seconds: runs on the same features go side by side; each has an equal share of")
    print("their seconds, which is less than the run would take alone")
    if published:
        print(published.summary(points, ours))
    for result in finished:
        if result.values["explained"] is not None:
            explained = result.values["explained"]
            print(f"PCA: {args.components} components hold {explained:.4f} of the variance")
    print(
        f"{len(rows)} runs in {elapsed:.1f} s with {args.jobs} processes, wrote {args.out}{os.sep}"
    )
    write_text(args.out / "scores.json", to_json(best, indent=1) + "\n")
    fixed = {"epochs": args.epochs, "l1": 0.0}
    settings = [{**p, "lr": p["learning_rate"], **fixed} for p in points]
    runs = list(zip(settings, rows, strict=True))
    tabulate_published("logistic regression", runs, dataset, args.out)
    return exit_status(results)


# Evidence for the features: raw pixels, pooled pixels, and principal components.


def train_features(
    features: str,
    *,
    dataset: Dataset,
    lr: float,
    l2: float,
    epochs: int,
    seed: int,
    dtype: str,
) -> dict[str, Any]:
    """Train on one set of features: ``raw``, ``pool``, or ``pca 90`` for 90 components."""
    name, _, components = features.partition(" ")
    pixels, loss = make_features(name, int(components or COMPONENTS)), CrossEntropy()
    start = time.perf_counter()
    data = dataset if pixels is None else pixels.fit_transform(dataset, dtype)
    seconds = time.perf_counter() - start
    model, test = logistic_regression(data, dtype), TestAccuracy(data, loss)
    history = fit_online(
        model,
        data,
        loss,
        lr=lr,
        weight_decay=l2,
        epochs=epochs,
        rng=compounding(len(data.train), np.random.RandomState(seed)),
        callbacks=[test],
        history=History(),
    )
    explained = float(pixels.ratios.sum()) if isinstance(pixels, PCA) else None
    count = {"features": data.features, "explained": explained, "fit_seconds": seconds}
    return {**scores(data, history, test.values, time=sum(history.column("seconds"))), **count}


def run_features(dataset: Dataset, args: argparse.Namespace) -> int:
    """Train on each set of features; print the table and draw what the features keep."""
    counts = [k for k in args.component_counts if k <= dataset.features]
    grid = Grid(features=["raw", "pool", *(f"pca {k}" for k in counts)])
    options = {name: getattr(args, name) for name in ("lr", "l2", "epochs", "seed")}
    options["dtype"] = args.dtype
    with shared(dataset, args) as mapped:
        task = partial(train_features, dataset=mapped, **options)
        results = run_points(grid, task, args, dataset=dataset)
    columns = ["features", "number", "variance", "valid", "test", "training s", "features s"]
    table = Table(columns, f"logistic regression, {dataset.title}")
    rows = [r for r in results if r.error is None]
    best = max((float(r.values["best_valid"]) for r in rows), default=None)
    for r in results:
        v = r.values
        if r.error is not None:
            table.add(r.point["features"], None, None, r.error, None, None, None)
            continue
        seconds = [f"{v[key]:.1f}" for key in ("time", "fit_seconds")]
        cells = [v["features"], v["explained"], v["best_valid"], v["test"], *seconds]
        table.add(r.point["features"], *cells, marked=v["best_valid"] == best)
    table.show()
    table.write(args.out / "table")
    print("* the best validation accuracy; valid and test are those of the best epoch")
    if draw_features(dataset, counts, args):
        print("features.png shows what the features keep")
    print(f"wrote the table and pictures to {args.out}{os.sep}")
    return exit_status(results)


def draw_features(dataset: Dataset, counts: Sequence[int], args: argparse.Namespace) -> bool:
    """Draw originals, pooled images and reconstructions from principal components, in rows."""
    part, examples = dataset.splits["valid"], np.arange(12)
    transpose = dataset.transposed or is_course_file(args.data)
    side = round(dataset.features**0.5)
    if side * side != dataset.features or side % 2:
        return False
    x = part.rows(examples[: len(part)], np.float64)
    pooled = AveragePool(2).apply(x).reshape(-1, side // 2, side // 2)
    rows = {"original": x, "pooled 2x2": pooled.repeat(2, axis=1).repeat(2, axis=2)}
    pca = PCA().fit(dataset)
    for k in counts:
        some = PCA(k)
        some.mean, some.components = pca.mean, pca.components[:k]
        share = pca.ratios[:k].sum()
        rows[f"{k} components, {share:.3f}"] = some.reconstruct(some.apply(x))
    top = float(x.max())
    images = {
        label: (255 * np.clip(row / top, 0, 1)).astype(np.uint8).reshape(-1, side, side)
        for label, row in rows.items()
    }
    if transpose:
        images = {label: row.swapaxes(1, 2) for label, row in images.items()}
    title = f"{dataset.title}: what features keep"
    contact_sheet(args.out / "features.png", images, title=title)
    return True


def main() -> int:
    parser = make_parser(__doc__.splitlines()[0], str(OUT), dtype="float64")
    add_number(parser, "--lr", 1e-4, "learning rate", low=0, open_low=True)
    add_number(parser, "--l2", 1e-5, "L2 penalty", low=0)
    add_number(parser, "--l1", 0.0, "L1 penalty, by a proximal step after each block of 64", low=0)
    choices = ("raw", "pca", "pool")
    parser.add_argument("--features", choices=choices, help="default raw; with --grid raw and pca")
    add_number(parser, "--components", COMPONENTS, "principal components of --features pca")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--grid", action="store_true", help="3 learning rates x 2 L2 x 2 features")
    modes.add_argument(
        "--features-table", action="store_true", help="compare numbers of components"
    )
    add_axis(parser, "--component-counts", [10, 30, 90, 200], name="components")
    add_axis(parser, "--learning-rates", [1e-3, 1e-4, 1e-5], low=0, open_low=True)
    add_axis(parser, "--l2s", [1e-5, 1e-4], low=0)
    parser.add_argument("--compare", type=as_path, metavar="CSV", help="published grid, for --grid")
    add_grid_flags(parser)
    args = parser.parse_args()
    if args.compare and not args.grid:
        parser.error("--compare needs --grid")
    if args.out == OUT and (args.grid or args.features_table):
        args.out = Path(f"{OUT}-grid" if args.grid else f"{OUT}-features")
    dataset = load(args)
    if args.grid:
        return run_grid(dataset, args)
    if args.features_table:
        return run_features(dataset, args)
    run_one(dataset, args)
    return 0


if __name__ == "__main__":
    run_main(main)
