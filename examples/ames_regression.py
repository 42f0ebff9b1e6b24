"""Predict Ames house prices, one example at a time (Question 2 of 2021-22).

linear: SGD beside the closed forms (least squares of minimum norm, and ridge), with the distance
between SGD's weights and the ridge solution, in all and by singular direction. mlp: a network with
one hidden layer. Errors are root mean square errors of the logarithm of the price, as in the
course's script.
"""

import argparse
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from homework import answers
from homework.figures import Trace
from homework.flags import add_number
from homework.models import linear, mlp
from homework.ridge import ridge
from homework.runs import single_run

from minidl import (
    Dataset,
    Layer,
    Linear,
    Progress,
    SquaredError,
    compounding,
    evaluate,
    fit_online,
    load_dataset,
)
from minidl.callbacks import Run
from minidl.checks import Array
from minidl.files import as_path, to_json, write_text
from minidl.view.cli import Parser, run_main
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

LAMBDA = 1e-4
"""The course's ridge penalty."""
# For the answers: an error that has settled, or risen by this share; a distance that is left.
SETTLED, RISE, NEAR = 0.002, 0.02, 0.01


def generated_houses(seed: int = 0, n: int = 1465) -> Dataset:
    """Return generated houses of the same form: 37 numbers, 311 indicators, singular.

    Each indicator belongs to a group, of which one is 1; some values never occur in the training
    part. The indicators of a group sum to 1, so the columns are linearly dependent.
    """
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(2 * n, 6))
    numbers = np.tanh(latent @ rng.normal(size=(6, 37))) + 0.5 * rng.standard_t(4, (2 * n, 37))
    columns, sizes = [numbers], rng.multinomial(311 - 2 * 60, np.ones(60) / 60) + 2
    for size in sizes:
        scores = latent @ rng.normal(size=(6, size)) - 1.2 * np.arange(size)
        choice = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
        columns.append(np.eye(size)[choice])
    x = np.concatenate(columns, axis=1)
    x[:, :37] = (x[:, :37] - x[:n, :37].mean(axis=0)) / x[:n, :37].std(axis=0)
    weights = rng.normal(size=x.shape[1]) * np.where(np.arange(x.shape[1]) < 37, 0.05, 0.06)
    price = 12 + x @ weights
    y = price + 0.1 * rng.standard_t(4, 2 * n)
    return Dataset((x[:n], y[:n]), None, (x[n:], y[n:]), name="generated houses", generated=True)


def rmse(model: Layer, dataset: Dataset, part: str) -> float:
    """Return the root mean square error; the loss is half the mean square."""
    return math.sqrt(2 * evaluate(model, dataset.splits[part], SquaredError())["loss"])


class Errors(Trace):
    """Records both errors before training and after each epoch; of a linear model the weights."""

    def __init__(self, dataset: Dataset) -> None:
        parts = "train", "test"
        super().__init__(lambda model: {part: rmse(model, dataset, part) for part in parts})
        self.weights: list[Array] = []

    def on_epoch(self, run: Run) -> None:
        super().on_epoch(run)
        if isinstance(run.model, Linear):
            self.weights.append(run.model.theta.copy())

    def state_dict(self) -> dict[str, Any]:
        """Return what was recorded so far."""
        return {"errors": self.columns, "weights": np.array(self.weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what ``state_dict`` returned."""
        super().load_state_dict(state["errors"])
        self.weights = list(state["weights"])


def train(dataset: Dataset, args: argparse.Namespace, resumable: Mapping[str, Any]) -> Errors:
    """Train on one example at a time, in the order of the course's script; return the errors."""
    random = np.random.RandomState(args.seed)  # draws the weights, then the order of each epoch
    model: Layer = linear(dataset, "float64")
    if args.model == "mlp":
        model = mlp(dataset, args.width, random, "float64")
    errors = Errors(dataset)
    fit_online(
        model,
        dataset,
        SquaredError(),
        lr=args.lr,
        epochs=args.epochs,
        rng=compounding(len(dataset.train), random),
        callbacks=[Progress(), errors],
        parts=("valid",),
        **resumable,
    )
    return errors


def report(name: str, errors: Errors, dataset: Dataset, args: argparse.Namespace) -> list[str]:
    """Print and write the errors, draw them over the epochs, and return the answers."""
    train, test = errors.columns["train"], errors.columns["test"]
    last, best = len(test) - 1, int(np.argmin(test))
    table = Table(["epoch", "train RMSE", "test RMSE"], f"{name}, {dataset.name}")
    for epoch, row in enumerate(zip(train, test, strict=True)):
        table.add(epoch, *row, marked=epoch == best)
    table.write(args.out / "table")
    figures = {"epochs": last, "train": train[-1], "test": test[-1]}
    figures |= {"best_test": test[best], "best_epoch": best}
    write_text(args.out / "scores.json", to_json(figures, indent=1) + "\n")
    print(f"{name}, {dataset.name}: RMSE of the log price")
    print(f"  epoch {last:<3}  train {train[-1]:.4f}  test {test[-1]:.4f}")
    print(f"  epoch {best:<3}  train {train[best]:.4f}  test {test[best]:.4f} (lowest)")
    epochs = range(1, last + 1)
    curves = {"training": (epochs, train[1:]), "test": (epochs, test[1:])}
    panel = Panel(curves, "epoch", "RMSE (log price)", mark=max(best, 1))
    title = f"{name}, {dataset.name}\nbest epoch chosen on the test part"
    line_plot(args.out / "errors.png", panel, title=title)
    settled = answers.convergence("Training error", train, last=20, small=SETTLED)
    return [settled, answers.excess(train, test, rise=RISE)]


def closed_forms(dataset: Dataset) -> dict[str, Array]:
    """Print the errors of least squares and ridge, and return their weights, the ones' last."""
    x, y = with_ones(dataset, "train")
    s = np.linalg.svd(x, compute_uv=False)
    rank = int(np.sum(s > max(x.shape) * np.finfo(x.dtype).eps * s[0]))
    print(f"closed forms: X has {x.shape[1]} columns with the column of ones, rank {rank}")
    solutions = {
        "least squares of minimum norm": ridge(x, y, 0),
        f"ridge, lambda {LAMBDA:g}": ridge(x, y, LAMBDA),
    }
    for name, w in solutions.items():
        figures = []
        for part in ("train", "test"):
            x, y = with_ones(dataset, part)
            figures.append(f"{part} {np.sqrt(np.mean(np.square(x @ w - y))):.4f}")
        print(f"  {name:<30}RMSE {', '.join(figures)}; norm of the weights {np.linalg.norm(w):.4f}")
    return solutions


def with_ones(dataset: Dataset, part: str) -> tuple[Array, Array]:
    """Return the features of a part with a last column of ones, and the targets."""
    split = dataset.splits[part]
    x = split.rows(slice(None), np.float64)
    return np.column_stack([x, np.ones(len(x))]), split.y


def distances(
    dataset: Dataset, weights: Array, target: Array, args: argparse.Namespace
) -> list[str]:
    """Print and draw the distance to the ridge solution, in all and by singular direction.

    The rows of V^T are the right singular vectors of X. SGD's updates are multiples of rows of X,
    so from w = 0 the component in the null space stays 0, and so is that of the ridge solution:
    the many solutions of least squares differ only there.
    """
    x, _ = with_ones(dataset, "train")
    _, s, vt = np.linalg.svd(x)
    s = np.append(s, np.zeros(len(vt) - len(s)))
    rank = int(np.sum(s > max(x.shape) * np.finfo(x.dtype).eps * s[0]))
    gaps = np.abs((weights - target) @ vt.T)  # one row an epoch, one column a direction
    distance = np.linalg.norm(weights - target, axis=1)
    null = float(np.abs(weights @ vt[rank:].T).max(initial=0))
    slow = int(np.sum(gaps[-1, :rank] > 0.5 * gaps[0, :rank]))
    share = float(np.square(gaps[-1, rank // 2 : rank]).sum() / np.square(gaps[-1]).sum())
    print(f"  largest component of SGD's weights in the null space, over all epochs: {null:.1e}")
    print(f"  {slow} of {rank} directions have kept more than half of their distance;")
    print(f"  the half with the smaller singular values makes {share:.4f} of the squared distance")
    epochs = range(len(weights))
    by_direction = {}
    for group in np.array_split(np.arange(rank), min(5, rank)):
        label = f"{group[0] + 1} to {group[-1] + 1}, s {s[group[0]]:.3g} to {s[group[-1]]:.3g}"
        by_direction[label] = epochs, np.linalg.norm(gaps[:, group], axis=1)
    total = {"SGD": (epochs, distance)}
    heading = f"distance of SGD's weights to the ridge solution, {dataset.name}"
    line_plot(
        args.out / "distance.png",
        Panel(total, "epoch", "distance (norm)", "all directions"),
        Panel(by_direction, "epoch", "distance (norm)", "by singular directions", ylog=True),
        title=heading,
    )
    table = Table(["direction", "singular value", "before", "at the end"], heading)
    for i in range(rank):
        table.add(i + 1, f"{s[i]:.4g}", f"{gaps[0, i]:.4g}", f"{gaps[-1, i]:.4g}")
    table.write(args.out / "directions")
    reached = answers.approach("The distance to the ridge solution", list(distance), near=NEAR)
    inside = f"{null:.1e} in the null space, where alone the solutions of least squares differ"
    slowly = f"the half of the directions with the smaller singular values has {share:.2%} of it"
    return [reached, f"SGD has at most {inside}; {slowly}."]


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("model", choices=("linear", "mlp"))
    parser.add_argument("--data", metavar="PATH", help="the course's ames.npz; else generated")
    add_number(parser, "--epochs", 150, "passes over the training part")
    add_number(parser, "--lr", 1e-3, "learning rate", low=0, open_low=True)
    add_number(parser, "--width", 150, "hidden units of mlp")
    add_number(parser, "--seed", 42, "of weights and order", low=0)
    parser.add_argument("--out", type=as_path, default=Path("runs/ames"), help="results")
    args = parser.parse_args()
    args.out = args.out / args.model

    dataset = load_dataset(args.data) if args.data else generated_houses()
    if dataset.classes or "test" not in dataset.splits:
        raise ValueError(f"{args.data}: expected a regression with a test part, got {dataset}")
    print(f"{dataset}; {args.epochs} epochs, one example at a time", flush=True)
    if dataset.generated:
        print("These are generated houses; the real thing: --data PATH of the course's ames.npz.")

    with single_run(args, dataset) as (resumable,):
        if args.model == "mlp":
            errors = train(dataset, args, resumable)
            found = {"errors": report(f"MLP with {args.width} units", errors, dataset, args)}
        else:
            solutions = closed_forms(dataset)
            errors = train(dataset, args, resumable)
            found = {"errors": report("linear regression by SGD", errors, dataset, args)}
            target = solutions[f"ridge, lambda {LAMBDA:g}"]
            found["distance"] = distances(dataset, np.stack(errors.weights), target, args)
        answers.write(args.out, found)
    print(f"wrote tables and pictures to {args.out}{os.sep}")


if __name__ == "__main__":
    run_main(main)
