"""Compare features for logistic regression: raw and pooled pixels, principal components (1.2b).

Neighbouring pixels are nearly equal, so the directions in which the images vary most hold most of
what tells letters apart (PCA: Pearson 1901; Jolliffe 2002). Averages of neighbours are a coarser
picture that a shift of one pixel changes less (LeCun et al. 1998). Both have fewer weights to
learn; the table says what that costs, and the picture what is kept.
"""

import time
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from homework import answers
from homework.figures import TestAccuracy
from homework.flags import add_axis, add_number
from homework.models import COMPONENTS, linear, make_feature
from homework.online import load, make_parser, scores
from homework.runs import run_points, shared

import minidl
from minidl import Dataset
from minidl.data.__main__ import contact_sheet
from minidl.grid.points import Grid, exit_status
from minidl.view.cli import run_main
from minidl.view.tables import Table

ERRORS = 2.0  # standard errors of a difference that is more than chance


def train(
    features: str, *, dataset: Dataset, lr: float, l2: float, epochs: int, seed: int, dtype: str
) -> dict[str, Any]:
    """Train on one set of features: ``raw``, ``pool``, or ``pca 90`` for 90 components."""
    name, _, components = features.partition(" ")
    feature, loss = make_feature(name, int(components or COMPONENTS)), minidl.CrossEntropy()
    start = time.perf_counter()
    data = dataset if feature is None else feature.fit_transform(dataset, dtype)
    seconds, test = time.perf_counter() - start, TestAccuracy(data, loss)
    order = minidl.compounding(len(data.train), np.random.RandomState(seed))
    options: dict[str, Any] = {"epochs": epochs, "rng": order, "callbacks": [test]}
    history = minidl.fit_online(linear(data, dtype), data, loss, lr=lr, weight_decay=l2, **options)
    explained = float(feature.ratios.sum()) if isinstance(feature, minidl.PCA) else None
    count = {"features": data.features, "explained": explained, "fit_seconds": seconds}
    return {**scores(data, history, test.values, time=sum(history.column("seconds"))), **count}


def main() -> int:
    parser = make_parser(__doc__, "runs/q1_features", dtype="float64")
    add_number(parser, "--lr", 1e-4, "learning rate", low=0, open_low=True)
    add_number(parser, "--l2", 1e-5, "L2 penalty", low=0)
    add_axis(parser, "--component-counts", [10, 30, 90, 200], name="components")
    args = parser.parse_args()
    dataset = load(args)
    counts = [k for k in args.component_counts if k <= dataset.features]
    grid = Grid(features=["raw", "pool", *(f"pca {k}" for k in counts)])
    options = {name: getattr(args, name) for name in ("lr", "l2", "epochs", "seed", "dtype")}
    with shared(dataset, args) as mapped:
        results = run_points(grid, partial(train, dataset=mapped, **options), args, dataset=dataset)
    columns = ["features", "number", "variance", "valid", "test", "training s", "features s"]
    table = Table(columns, f"logistic regression, {dataset.title}")
    valid = {r.point["features"]: float(r.values["best_valid"]) for r in results if not r.error}
    best, n = max(valid.values(), default=None), len(dataset.splits["valid"])
    for r in results:
        cells = [None, None, r.error]
        if not r.error:
            cells = [r.values[key] for key in ("features", "explained", "best_valid", "test")]
            cells += [f"{r.values[key]:.1f}" for key in ("time", "fit_seconds")]
        table.add(r.point["features"], *cells, marked=best == r.values.get("best_valid"))
    table.show()
    table.write(args.out / "table")
    print("* the best validation accuracy; valid and test are those of the best epoch")
    if draw(dataset, counts, args):
        print("features.png shows what the features keep")
    sentences = [answers.choice("Features", valid, n, errors=ERRORS)]
    raw = valid.pop("raw", None)
    sentences += [
        answers.effect(f"{name} instead of raw pixels", raw, accuracy, n, errors=ERRORS)
        for name, accuracy in valid.items()
        if raw is not None
    ]
    answers.write(args.out, {"features": sentences})
    print(f"wrote the table and the picture to {args.out}/")
    return exit_status(results)


def draw(dataset: Dataset, counts: Sequence[int], args: Namespace) -> bool:
    """Draw originals, pooled images and reconstructions from principal components, in rows."""
    side = round(dataset.features**0.5)
    if side * side != dataset.features or side % 2:
        return False
    x, pca = dataset.splits["valid"].rows(slice(12), np.float64), minidl.PCA().fit(dataset)
    pooled = minidl.AveragePool(2).apply(x).reshape(-1, side // 2, side // 2)
    rows = {"original": x, "pooled 2x2": pooled.repeat(2, axis=1).repeat(2, axis=2)}
    for k in counts:
        some = minidl.PCA(k)
        some.mean, some.components = pca.mean, pca.components[:k]
        rows[f"{k} components, {pca.ratios[:k].sum():.3f}"] = some.reconstruct(some.apply(x))
    for label, row in rows.items():
        grey = (255 * np.clip(row / x.max(), 0, 1)).astype(np.uint8).reshape(-1, side, side)
        rows[label] = grey.swapaxes(1, 2) if dataset.transposed else grey
    contact_sheet(args.out / "features.png", rows, title=f"{dataset.title}: what features keep")
    return True


if __name__ == "__main__":
    run_main(main)
