"""Predict Ames house prices, one example at a time (Question 2 of 2021-22).

linear: SGD beside least squares and ridge in closed form, with the distance between SGD's weights
and the ridge solution, in all and by singular direction. mlp: a network with one hidden layer.
Errors are root mean square errors of the logarithm of the price, as in the course's script.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from homework import answers
from homework.figures import Trace, over_epochs
from homework.flags import add_number, script_parser
from homework.models import linear, mlp
from homework.ridge import Directions, generated_houses
from homework.runs import single_run

import minidl
from minidl.files import to_json, write_text
from minidl.view.cli import run_main
from minidl.view.plots import line_plot
from minidl.view.tables import Table

# The course's ridge penalty. For the answers: an error that has settled, or risen by this share; a
# distance that is left.
LAMBDA, SETTLED, RISE, NEAR = 1e-4, 0.002, 0.02, 0.01


def train(dataset: minidl.Dataset, args: argparse.Namespace, resumable: dict[str, Any]) -> Trace:
    """Train in the course's order; return the errors, and a linear model's weights."""
    random = np.random.RandomState(args.seed)  # draws the weights, then the order of each epoch
    model: minidl.Layer = linear(dataset, "float64")
    if args.model == "mlp":
        model = mlp(dataset, args.width, random, "float64")
    loss = minidl.SquaredError()  # half the mean square

    def measure(model: minidl.Layer) -> dict[str, Any]:
        splits = {part: dataset.splits[part] for part in ("train", "test")}
        losses = {k: minidl.evaluate(model, split, loss)["loss"] for k, split in splits.items()}
        weights = {"weights": model.theta.copy()} if isinstance(model, minidl.Linear) else {}
        return {part: math.sqrt(2 * value) for part, value in losses.items()} | weights

    trace, order = Trace(measure), minidl.compounding(len(dataset.train), random)
    options = {"lr": args.lr, "epochs": args.epochs, "parts": ("valid",), **resumable}
    callbacks = [minidl.Progress(), trace]
    minidl.fit_online(model, dataset, loss, rng=order, callbacks=callbacks, **options)
    return trace


def report(name: str, trace: Trace, out: Path) -> list[str]:
    """Print and write the errors, draw them over the epochs, and return the answers."""
    train, test = trace.columns["train"], trace.columns["test"]
    last, best = len(test) - 1, int(np.argmin(test))
    table = Table(["epoch", "train RMSE", "test RMSE"], name)
    for epoch, row in enumerate(zip(train, test, strict=True)):
        table.add(epoch, *row, marked=epoch == best)
    table.write(out / "table")
    figures = {"epochs": last, "train": train[-1], "test": test[-1]}
    figures |= {"best_test": test[best], "best_epoch": best}
    write_text(out / "scores.json", to_json(figures, indent=1) + "\n")
    print(f"{name}: RMSE of the log price")
    print(f"  epoch {last:<3}  train {train[-1]:.4f}  test {test[-1]:.4f}")
    print(f"  epoch {best:<3}  train {train[best]:.4f}  test {test[best]:.4f} (lowest)")
    options = {"first": 1, "mark": max(best, 1)}
    panel = over_epochs({"training": train, "test": test}, "RMSE (log price)", **options)
    line_plot(out / "errors.png", panel, title=f"{name}\nbest epoch chosen on the test part")
    settled = answers.convergence("Training error", train, last=20, small=SETTLED)
    return [settled, answers.excess(train, test, rise=RISE)]


def main() -> None:
    parser = script_parser(__doc__, "runs/ames")
    parser.add_argument("model", choices=("linear", "mlp"))
    parser.add_argument("--data", metavar="PATH", help="the course's ames.npz; else generated")
    add_number(parser, "--epochs", 150, "passes over the training part")
    add_number(parser, "--lr", 1e-3, "learning rate", low=0, open_low=True)
    add_number(parser, "--width", 150, "hidden units of mlp")
    add_number(parser, "--seed", 42, "of weights and order", low=0)
    args = parser.parse_args()
    args.out = args.out / args.model
    dataset = minidl.load_dataset(args.data) if args.data else generated_houses()
    if dataset.classes or "test" not in dataset.splits:
        raise ValueError(f"{args.data}: expected a regression with a test part, got {dataset}")
    print(f"{dataset}; {args.epochs} epochs, one example at a time", flush=True)
    if dataset.generated:
        print("These are generated houses; the real thing: --data PATH of the course's ames.npz.")
    with single_run(args, dataset) as (resumable,):
        directions = Directions(dataset, LAMBDA) if args.model == "linear" else None
        trace = train(dataset, args, resumable)
        name = "linear regression by SGD" if directions else f"MLP with {args.width} units"
        found = {"errors": report(f"{name}, {dataset.name}", trace, args.out)}
        if directions:
            title = f"distance of SGD's weights to the ridge solution, {dataset.name}"
            weights = np.stack(trace.columns["weights"])
            found["distance"] = directions.distances(weights, title, args.out, near=NEAR)
        answers.write(args.out, found)
    print(f"wrote tables and pictures to {args.out}/")


if __name__ == "__main__":
    run_main(main)
