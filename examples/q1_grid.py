"""Train twelve logistic regressions: three learning rates, two penalties, two features (1.2c).

Those on the same features go side by side, as extra columns of the weights.
"""

import time
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from homework import answers
from homework.figures import HEADINGS, WORDS
from homework.flags import add_axis, add_number
from homework.models import COMPONENTS, linear, make_feature
from homework.online import load, make_parser, scores
from homework.published import tabulate_published
from homework.runs import run_points, shared

import minidl
from minidl.files import to_json, write_text
from minidl.grid.points import Grid, exit_status
from minidl.view.cli import run_main
from minidl.view.tables import Table

AXES = {"features": "Features", "learning_rate": "Learning rates", "l2": "L2 penalties"}
ERRORS = 2.0  # standard errors of a difference that is more than chance


def train(features: str, *, dataset: minidl.Dataset, **flags: Any) -> dict[str, Any]:
    """Train all learning rates and penalties on one set of features, side by side."""
    start, dtype = time.perf_counter(), flags["dtype"]
    feature, loss = make_feature(features, flags["components"]), minidl.CrossEntropy()
    data = dataset if feature is None else feature.fit_transform(dataset, dtype)
    runs = [
        minidl.OnlineRun(linear(data, dtype), lr, l2, history=minidl.History())
        for lr in flags["learning_rates"]
        for l2 in flags["l2s"]
    ]
    order = minidl.compounding(len(data.train), np.random.RandomState(flags["seed"]))
    minidl.fit_side_by_side(runs, data, loss, epochs=flags["epochs"], rng=order)
    share = (time.perf_counter() - start) / len(runs)
    part, rows = data.splits["test"], []
    for one in runs:
        last = minidl.evaluate(one.model, part, loss)["accuracy"]
        one.history.restore_best(one.model)
        test = [minidl.evaluate(one.model, part, loss)["accuracy"]] * len(one.history)
        row = {"features": features, "learning_rate": one.lr, "l2": one.weight_decay}
        row |= scores(data, one.history, [*test[:-1], last], share_of_seconds=share)
        norm = float(np.linalg.norm(one.model.theta))
        rows.append({**row, "norm": norm, "error": one.error})
    explained = float(feature.ratios.sum()) if isinstance(feature, minidl.PCA) else None
    return {"runs": rows, "explained": explained}


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
        task = partial(train, dataset=mapped, **options)
        results = run_points(Grid(features=["raw", args.features]), task, args, dataset=dataset)
    rows = [row for r in results if not r.error for row in r.values["runs"]]
    if rows:
        report(rows, dataset, args)
    for r in results:
        if r.error:
            print(f"{r.id}: {r.error}")
        elif (share := r.values["explained"]) is not None:
            print(f"PCA: {args.components} components hold {share:.4f} of the variance")
    print(f"wrote the table to {args.out}/")
    return exit_status(results)


def report(rows: Sequence[dict[str, Any]], dataset: minidl.Dataset, args: Namespace) -> None:
    """Print and write the table of all runs, the best one's figures, and the answers."""
    best, out = max(rows, key=lambda row: float(row["best_valid"])), args.out
    columns = [*AXES, *HEADINGS, "norm", "share of seconds"]
    table, sentences = Table(columns, f"logistic regression, {dataset.title}"), []
    for row in rows:
        first, *others = (row[key] for key in WORDS)
        setting = (row["features"], f"{row['learning_rate']:g}", f"{row['l2']:g}")
        last = f"{row['norm']:.2f}", f"{row['share_of_seconds']:.1f}"
        table.add(*setting, row["error"] or first, *others, *last, marked=row is best)
    table.show()
    table.write(out / "table")
    print("* the best validation accuracy; runs on the same features share their seconds evenly")
    write_text(out / "scores.json", to_json(best, indent=1) + "\n")
    runs = [({**r, "lr": r["learning_rate"], "epochs": args.epochs, "l1": 0.0}, r) for r in rows]
    tabulate_published("logistic regression", runs, dataset, out)
    for axis, name in AXES.items():
        valid: dict[str, float] = {}
        for row in rows:
            value = row[axis] if axis == "features" else f"{row[axis]:g}"
            valid[value] = max(valid.get(value, 0.0), float(row["best_valid"]))
        n = len(dataset.splits["valid"])
        sentences.append(answers.choice(name, valid, n, errors=ERRORS))
    answers.write(out, {"table": sentences})


if __name__ == "__main__":
    run_main(main)
