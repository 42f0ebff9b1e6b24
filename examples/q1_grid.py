"""Train twelve logistic regressions: three learning rates, two penalties, two features (1.2c).

Those on the same features go side by side, as extra columns of the weights.
"""

import argparse
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from homework import answers
from homework.figures import HEADINGS, WORDS
from homework.flags import add_axis, add_number
from homework.models import COMPONENTS, linear, make_feature
from homework.online import load, make_parser, scores
from homework.published import tabulate_published
from homework.runs import run_points, shared

from minidl import PCA, CrossEntropy, Dataset, History, OnlineRun, compounding, evaluate
from minidl import fit_side_by_side as fit
from minidl.files import to_json, write_text
from minidl.grid.points import Grid, exit_status, keeping
from minidl.saving.runs import Checkpoint
from minidl.view.cli import run_main
from minidl.view.tables import Table

AXES = ("features", "learning_rate", "l2")
ERRORS = 2.0  # standard errors of a difference that is more than chance


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
    feature, loss = make_feature(features, components), CrossEntropy()
    data = dataset if feature is None else feature.fit_transform(dataset, dtype)
    runs = [
        OnlineRun(linear(data, dtype), lr, l2, history=History())
        for lr in learning_rates
        for l2 in l2s
    ]
    order = compounding(len(data.train), np.random.RandomState(seed))
    fit(runs, data, loss, epochs=epochs, rng=order)
    share = (time.perf_counter() - start) / len(runs)
    part, rows = data.splits["test"], []
    for one in runs:
        point = {"features": features, "learning_rate": one.lr, "l2": one.weight_decay}
        last = evaluate(one.model, part, loss)["accuracy"]
        one.history.restore_best(one.model)
        test = [evaluate(one.model, part, loss)["accuracy"]] * len(one.history)
        test[-1] = last
        figures = scores(data, one.history, test, share_of_seconds=share)
        norm = float(np.linalg.norm(one.model.theta))
        rows.append({**point, **figures, "norm": norm, "error": one.error})
    explained = float(feature.ratios.sum()) if isinstance(feature, PCA) else None
    values = {"runs": rows, "explained": explained}
    with keeping(values):
        for one, row in zip(runs, rows, strict=True):
            name = Grid.identifier({axis: row[axis] for axis in AXES})
            Checkpoint(models / f"{name}.npz").save(model=one.model, history=one.history)
    return values


def main() -> int:
    parser = make_parser(__doc__, "runs/q1_grid", dtype="float64")
    parser.add_argument("--features", choices=("pca", "pool"), default="pca", help="beside raw")
    add_number(parser, "--components", COMPONENTS, "principal components of --features pca")
    add_axis(parser, "--learning-rates", [1e-3, 1e-4, 1e-5], low=0, open_low=True)
    add_axis(parser, "--l2s", [1e-5, 1e-4], low=0)
    args = parser.parse_args()
    dataset = load(args)
    names = ("learning_rates", "l2s", "epochs", "seed", "dtype", "components")
    options = {name: getattr(args, name) for name in names}
    with shared(dataset, args) as mapped:
        task = partial(train, dataset=mapped, models=(args.out / "models").absolute(), **options)
        results = run_points(Grid(features=["raw", args.features]), task, args, dataset=dataset)
    for result in results:
        if not result.complete:
            print(f"{result.id}: {result.error or result.unsaved}")
    rows = [row for r in results if r.error is None for row in r.values["runs"]]
    if rows:
        report(rows, dataset, args)
    for explained in (r.values["explained"] for r in results if r.error is None):
        if explained is not None:
            print(f"PCA: {args.components} components hold {explained:.4f} of the variance")
    print(f"wrote the table and the models to {args.out}{os.sep}")
    return exit_status(results)


def report(rows: Sequence[dict[str, Any]], dataset: Dataset, args: argparse.Namespace) -> None:
    """Print and write the table of all runs, the best one's figures, and the answers."""
    best, out = max(rows, key=lambda row: float(row["best_valid"])), args.out
    columns = [*AXES, *HEADINGS, "norm", "share of seconds"]
    table = Table(columns, f"logistic regression, {dataset.title}")
    for row in rows:
        cells = [row[key] for key in WORDS]
        setting = (row["features"], f"{row['learning_rate']:g}", f"{row['l2']:g}")
        last = f"{row['norm']:.2f}", f"{row['share_of_seconds']:.1f}"
        table.add(*setting, row["error"] or cells[0], *cells[1:], *last, marked=row is best)
    table.show()
    table.write(out / "table")
    print("* the best validation accuracy; runs on the same features share their seconds evenly")
    write_text(out / "scores.json", to_json(best, indent=1) + "\n")
    known = {"epochs": args.epochs, "l1": 0.0}
    runs = [({**row, "lr": row["learning_rate"], **known}, row) for row in rows]
    tabulate_published("logistic regression", runs, dataset, out)
    words = {"features": "Features", "learning_rate": "Learning rates", "l2": "L2 penalties"}
    sentences = []
    for axis, name in words.items():
        of_each: dict[str, float] = {}
        for row in rows:
            value = row[axis] if isinstance(row[axis], str) else f"{row[axis]:g}"
            of_each[value] = max(of_each.get(value, 0.0), float(row["best_valid"]))
        sentences.append(answers.choice(name, of_each, len(dataset.splits["valid"]), errors=ERRORS))
    answers.write(out, {"table": sentences})


if __name__ == "__main__":
    run_main(main)
