"""Fashion-MNIST, one example at a time: four models (Questions 3 and 4 of 2021-22).

perceptron, logistic, mlp: written by hand in the course. logistic also starts from PyTorch's
initial values with three learning rates (4.1). ffn: networks with dropout (4.2 and 4.3). The tested
model is that of the last epoch.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from homework import answers
from homework.data import QUICK
from homework.fashion import Curves, OneChange, curves_of, draw, load_fashion, published, tabulate
from homework.figures import TestAccuracy
from homework.flags import add_axis, add_number, base_parser
from homework.grids import run_points, shared
from homework.models import feed_forward, linear, mlp
from homework.networks import ACTIVATIONS, OPTIMIZERS
from homework.runs import single_run

from minidl import (
    CrossEntropy,
    Dataset,
    History,
    Layer,
    Perceptron,
    Progress,
    TorchRandom,
    compounding,
    fit,
    fit_online,
)
from minidl.files import to_json, write_text
from minidl.grid.points import Grid, Point, Result, exit_status
from minidl.losses import Loss
from minidl.saving.runs import Checkpoint
from minidl.view.cli import run_main
from minidl.view.tables import Table

QUICK_FFN = {"train": 3_900, "valid": 1_300, "test": 1_300}
EPOCHS, QUICK_FFN_EPOCHS = 20, 10
THRESHOLDS = {"settled": 0.01, "gap": 0.03, "rise": 0.02, "fits": 0.9}
"""Of the answers in words, see ``homework.answers``."""
ERRORS = 2.0  # standard errors of a difference that is more than chance


def run_plain(dataset: Dataset, args: argparse.Namespace) -> None:
    """Train one model of Question 3; print validation and test accuracy of each epoch."""
    random = np.random.RandomState(args.seed)  # draws the weights, then the order of each epoch
    settings: tuple[object, ...] = (args.model,)
    loss: Loss = CrossEntropy()
    model: Layer = linear(dataset, args.dtype)
    lr = 1e-3
    if args.model == "perceptron":
        loss, lr = Perceptron(), 1.0
    elif args.model == "logistic":
        settings = (args.model, "zeros", lr)
    else:
        model = mlp(dataset, args.width, random, args.dtype)
        settings = (args.model, args.width)
    history, test = History(), TestAccuracy(dataset, loss)
    with single_run(args, dataset) as (resumable,):
        fit_online(
            model,
            dataset,
            loss,
            lr=lr,
            epochs=args.epochs,
            rng=compounding(len(dataset.train), random),
            callbacks=[Progress(), test],
            history=history,
            **resumable,
        )
        table = Table(["epoch", "training loss", "train", "valid", "test"], dataset.title)
        for record, accuracy in zip(history, test.values, strict=False):
            cells = record.train_loss, record.train_accuracy, record.valid_accuracy, accuracy
            table.add(record.epoch, *cells, marked=record is history.best)
        table.show()
        table.write(args.out / "table")
        print("* the best epoch on the validation part; the tested model is that of the last epoch")
        print(f"{args.model}: test accuracy, last epoch {test.values[-1]:.4f}")
        figure = published(dataset, args.epochs, *settings)
        if figure is not None:
            print(f"published: {figure}")
        scores: dict[str, Any] = {"valid": history[-1].valid_accuracy, "test": test.values[-1]}
        scores["data"] = dataset.name
        write_text(args.out / "scores.json", to_json(scores, indent=1) + "\n")
        Checkpoint(args.out / "last.npz").save(model=model, history=history)
        draw(args, f"{args.model}, {dataset.title}", {"": (history, test.values)})
        answers.write(args.out, {"curves": answers.of_run(history, **THRESHOLDS)})


def train(
    learning_rate: float,
    width: int = 0,
    dropout: float = 0.0,
    activation: str = "relu",
    optimizer: str = "sgd",
    layers: int = 0,
    *,
    dataset: Dataset,
    epochs: int,
    seed: int,
    dtype: str,
    batch_size: int,
) -> dict[str, Any]:
    """Train one model of Question 4, with the weights and the order that PyTorch would draw.

    Without hidden layers it is a logistic regression.
    """
    model = feed_forward(
        dataset,
        [width] * layers,
        ACTIVATIONS[activation],
        dropout=dropout,
        rng=TorchRandom(seed),
        dtype=dtype,
    )
    loss = CrossEntropy()
    test = TestAccuracy(dataset, loss)
    options: dict[str, Any] = {"epochs": epochs, "rng": TorchRandom(seed), "callbacks": [test]}
    if optimizer == "sgd" and batch_size == 1:
        history = fit_online(model, dataset, loss, lr=learning_rate, **options)
    else:
        update = OPTIMIZERS[optimizer](model, learning_rate)
        history = fit(model, dataset, loss, update, batch_size=batch_size, **options)
    return {"history": history.to_dict(), "test": test.values}


def run_grid(grid: Grid, dataset: Dataset, args: argparse.Namespace) -> list[Result]:
    """Train every point of the grid; finished runs are kept in the folder ``--out``."""

    def cost(point: Point) -> float:  # from measured steps
        slow = 6 if point.get("optimizer") == "adam" else 1
        return slow * (2 + 3 * float(point.get("layers", 0)))

    options = {"epochs": args.epochs, "seed": args.seed, "dtype": args.dtype}
    with shared(dataset, args) as mapped:
        task = partial(train, dataset=mapped, batch_size=args.batch_size, **options)
        return run_points(grid, task, args, dataset=dataset, cost=cost)


def run_logistic(dataset: Dataset, args: argparse.Namespace) -> int:
    """Train the plain logistic regression, and those from PyTorch's initial values (4.1)."""
    run_plain(dataset, args)
    args.out, args.batch_size = args.out / "pytorch", 1
    print("from PyTorch's initial values (4.1):")
    results = run_grid(Grid(learning_rate=args.learning_rates), dataset, args)
    tabulate(dataset, results, args, start="pytorch")
    curves: dict[str, Curves] = {
        f"lr {r.point['learning_rate']:g}": curves_of(r) for r in results if not r.error
    }
    if curves:
        draw(args, f"logistic regression from PyTorch's initial values, {dataset.title}", curves)
        rates = {k: float(history[-1].valid_accuracy) for k, (history, _) in curves.items()}
        n = len(dataset.splits["valid"])
        sentences = [answers.choice("Learning rates", rates, n, errors=ERRORS)]
        answers.write(args.out, {"curves": sentences})
    return exit_status(results)


def run_networks(dataset: Dataset, args: argparse.Namespace) -> int:
    """Train the networks of the grid; print their table and draw the best one (4.2, 4.3)."""
    names = ("learning_rate", "width", "dropout", "activation", "optimizer")
    axes = {name: getattr(args, f"{name}s") for name in names}
    grid = OneChange(args.all, args.deep_learning_rate, **axes, layers=args.layers)
    print(f"{len(grid)} networks: " + ("all settings" if args.all else "one change at a time"))
    results = run_grid(grid, dataset, args)
    best = tabulate(dataset, results, args)
    if best is not None:
        name = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in best.point.items())
        draw(args, f"the best network, {dataset.title}\n{name}", {"": curves_of(best)})
        answers.write(args.out, {"curves": compared(dataset, results)})
    return exit_status(results)


def compared(dataset: Dataset, results: Sequence[Result]) -> list[str]:
    """Return for each axis which value is best, where the other settings are the same."""
    first, n = results[0].point, len(dataset.splits["valid"])
    found = []
    for axis in first:
        same = results[-1].point if axis == "layers" else first  # deeper ones have another rate
        accuracies = {
            str(r.point[axis]): float(curves_of(r)[0][-1].valid_accuracy)
            for r in results
            if r.error is None and all(r.point[k] == same[k] for k in first if k != axis)
        }
        if len(accuracies) > 1:
            name = axis.replace("_", " ").capitalize()
            found.append(answers.choice(name, accuracies, n, errors=ERRORS))
    return found


def main() -> int:
    epochs = f"default {EPOCHS}; ffn without --full {QUICK_FFN_EPOCHS}"
    parser = base_parser(__doc__, "runs/fashion", epochs=epochs)
    parser.add_argument("model", choices=("perceptron", "logistic", "mlp", "ffn"))
    add_number(parser, "--width", 200, "hidden units of mlp")
    # Of ffn; --learning-rates of logistic too.
    add_axis(parser, "--learning-rates", [1e-3, 1e-2, 1e-1], low=0, open_low=True)
    add_axis(parser, "--widths", [200, 100])
    add_axis(parser, "--dropouts", [0.3, 0.5], low=0, high=1)
    parser.add_argument("--activations", nargs="+", choices=ACTIVATIONS, default=["relu", "tanh"])
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=["sgd", "adam"])
    add_axis(parser, "--layers", [1, 2, 3])
    add_number(parser, "--deep-learning-rate", 1e-2, "of more layers", low=0, open_low=True)
    add_number(parser, "--batch-size", 1, "of ffn")
    parser.add_argument("--all", action="store_true", help="ffn: all 48 settings of one layer")
    args = parser.parse_args()
    args.out = args.out / args.model
    quick = args.model == "ffn" and not args.full
    args.epochs = args.epochs or (QUICK_FFN_EPOCHS if quick else EPOCHS)
    dataset = load_fashion(args.data, full=args.full, sizes=QUICK_FFN if quick else QUICK)
    print(f"{dataset}; {args.epochs} epochs", flush=True)
    if args.model == "ffn":
        return run_networks(dataset, args)
    if args.model == "logistic":
        return run_logistic(dataset, args)
    run_plain(dataset, args)
    return 0


if __name__ == "__main__":
    run_main(main)
