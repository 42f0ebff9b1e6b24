"""Fashion-MNIST, one example at a time: four models (Questions 3 and 4 of 2021-22).

perceptron, logistic, mlp: written by hand in the course. logistic also starts from PyTorch's
initial values with three learning rates (4.1). ffn: networks with dropout (4.2 and 4.3). The tested
model is that of the last epoch.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from homework import answers
from homework.fashion import OneChange, load_fashion, published
from homework.figures import TestAccuracy
from homework.flags import add_axis, add_number, base_parser
from homework.grids import run_points, shared
from homework.networks import ACTIVATIONS, OPTIMIZERS
from homework.online import linear, mlp
from homework.runs import single_run

from minidl import (
    CrossEntropy,
    Dataset,
    Dropout,
    History,
    Layer,
    Linear,
    Perceptron,
    Progress,
    Sequential,
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
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

QUICK = {"train": 10_400, "valid": 2_600, "test": 2_600}
QUICK_FFN = {"train": 3_900, "valid": 1_300, "test": 1_300}
EPOCHS, QUICK_FFN_EPOCHS = 20, 10
# For the answers: accuracies that have settled, differ or fit; standard errors that are chance.
SETTLED, GAP, RISE, FITS, ERRORS = 0.01, 0.03, 0.02, 0.9, 2.0


# The plain models of Question 3, with the course's initial values and order.


def run_plain(dataset: Dataset, args: argparse.Namespace) -> None:
    """Train one model of Question 3; print validation and test accuracy of each epoch."""
    random = np.random.RandomState(args.seed)  # draws the weights, then the order of each epoch
    settings: tuple[object, ...] = (args.model,)
    loss: Loss = CrossEntropy()
    model: Layer
    if args.model == "perceptron":
        model, loss, lr = linear(dataset, args.dtype), Perceptron(), 1.0
    elif args.model == "logistic":
        model, lr = linear(dataset, args.dtype), 1e-3
        settings = (args.model, "zeros", lr)
    else:
        model, lr = mlp(dataset, args.width, random, args.dtype), 1e-3
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
        print(f"{args.model}: test accuracy {test.values[-1]:.4f}")
        figure = published(dataset, args.epochs, *settings)
        if figure is not None:
            print(f"published: {figure}")
        figures = {
            "valid": history[-1].valid_accuracy,
            "test": test.values[-1],
            "data": dataset.name,
        }
        write_text(args.out / "scores.json", to_json(figures, indent=1) + "\n")
        Checkpoint(args.out / "last.npz").save(model=model, history=history)
        draw(args, f"{args.model}, {dataset.title}", {"": (history, test.values)})
        valid = history.column("valid_accuracy")
        sentences = [
            answers.convergence("Validation accuracy", valid, last=5, small=SETTLED),
            answers.overfitting(history, gap=GAP, rise=RISE, fits=FITS),
        ]
        answers.write(args.out, {"curves": sentences})


# Question 4.1: logistic regression from PyTorch's initial values.


def train_logistic(
    learning_rate: float, *, dataset: Dataset, epochs: int, seed: int, dtype: str
) -> dict[str, Any]:
    """Train one logistic regression whose weights and order PyTorch would draw."""
    model = Linear(dataset.features, dataset.classes, rng=TorchRandom(seed), dtype=dtype)
    loss = CrossEntropy()
    test = TestAccuracy(dataset, loss)
    history = fit_online(
        model,
        dataset,
        loss,
        lr=learning_rate,
        epochs=epochs,
        rng=TorchRandom(seed),
        callbacks=[test],
    )
    return {"history": history.to_dict(), "test": test.values}


def run_logistic(dataset: Dataset, args: argparse.Namespace) -> int:
    """Train the plain logistic regression, and those from PyTorch's initial values."""
    run_plain(dataset, args)
    args.out = args.out / "pytorch"
    print("from PyTorch's initial values (4.1):")
    results = run_grid(Grid(learning_rate=args.learning_rates), train_logistic, dataset, args)
    tabulate(dataset, results, args, start="pytorch")
    curves = {f"lr {r.point['learning_rate']:g}": curves_of(r) for r in results if not r.error}
    title = f"logistic regression from PyTorch's initial values, {dataset.title}"
    draw(args, title, curves)
    if curves:
        rates = {k: float(history[-1].valid_accuracy) for k, (history, _) in curves.items()}
        n = len(dataset.splits["valid"])
        sentences = [answers.choice("Learning rates", rates, n, errors=ERRORS)]
        answers.write(args.out, {"curves": sentences})
    return exit_status(results)


# Questions 4.2 and 4.3: networks with dropout.


def train_network(
    learning_rate: float,
    width: int,
    dropout: float,
    activation: str,
    optimizer: str,
    layers: int,
    *,
    dataset: Dataset,
    epochs: int,
    seed: int,
    dtype: str,
    batch_size: int,
) -> dict[str, Any]:
    """Train the network of one point of the grid."""
    hidden: list[Layer] = []
    for i in range(layers):
        size = width if i else dataset.features
        hidden += [Linear(size, width), ACTIVATIONS[activation](), Dropout(dropout)]
    output = Linear(width, dataset.classes)
    model = Sequential(*hidden, output, rng=TorchRandom(seed), dtype=dtype)
    loss = CrossEntropy()
    test = TestAccuracy(dataset, loss)
    options: dict[str, Any] = {"epochs": epochs, "rng": TorchRandom(seed), "callbacks": [test]}
    if optimizer == "sgd" and batch_size == 1:
        history = fit_online(model, dataset, loss, lr=learning_rate, **options)
    else:
        update = OPTIMIZERS[optimizer](model, learning_rate)
        history = fit(model, dataset, loss, update, batch_size=batch_size, **options)
    return {"history": history.to_dict(), "test": test.values}


def run_networks(dataset: Dataset, args: argparse.Namespace) -> int:
    """Train the networks of the grid; print their table and draw the curves of two of them."""
    grid = OneChange(
        args.all,
        args.deep_learning_rate,
        learning_rate=args.learning_rates,
        width=args.widths,
        dropout=args.dropouts,
        activation=args.activations,
        optimizer=args.optimizers,
        layers=args.layers,
    )
    print(f"{len(grid)} networks: " + ("all settings" if args.all else "one change at a time"))
    train = partial(train_network, batch_size=args.batch_size)
    results = run_grid(grid, train, dataset, args, cost=cost)
    best = tabulate(dataset, results, args)
    if best is not None:
        name = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in best.point.items())
        draw(args, f"the best network, {dataset.title}\n{name}", {"": curves_of(best)})
        answers.write(args.out, {"curves": compared(dataset, results)})
    return exit_status(results)


def compared(dataset: Dataset, results: Sequence[Result]) -> list[str]:
    """Return for each axis which value is best, the others as in the first network."""
    first, n = results[0].point, len(dataset.splits["valid"])
    found = []
    for axis in first:
        others = [k for k in first if k != axis and not (axis == "layers" and k == "learning_rate")]
        accuracies = {
            str(r.point[axis]): float(curves_of(r)[0][-1].valid_accuracy)
            for r in results
            if r.error is None and all(r.point[k] == first[k] for k in others)
        }
        if len(accuracies) > 1:
            name = axis.replace("_", " ")
            found.append(answers.choice(name.capitalize(), accuracies, n, errors=ERRORS))
    return found


def cost(point: Point) -> float:
    """Return the relative duration of a training, from measured steps."""
    return (6 if point["optimizer"] == "adam" else 1) * (2 + 3 * int(point["layers"]))


# Tables and pictures.

Curves = tuple[History, Sequence[float]]
"""A history, and the test accuracies of its epochs."""


def run_grid(
    grid: Grid,
    train: Callable[..., dict[str, Any]],
    dataset: Dataset,
    args: argparse.Namespace,
    *,
    cost: Callable[[Point], float] = lambda point: 1.0,
) -> list[Result]:
    """Train every point of the grid; finished runs are kept in the folder ``--out``."""
    options = {"epochs": args.epochs, "seed": args.seed, "dtype": args.dtype}
    with shared(dataset, args) as mapped:
        task = partial(train, dataset=mapped, **options)
        return run_points(grid, task, args, dataset=dataset, cost=cost)


def curves_of(result: Result) -> Curves:
    """Return the history of a finished run and its test accuracies."""
    return History.from_dict(result.values["history"]), result.values["test"]


def tabulate(
    dataset: Dataset, results: Sequence[Result], args: argparse.Namespace, **before: str
) -> Result | None:
    """Print and write the table of the runs; return the one with the best validation accuracy.

    ``before`` holds settings that all runs share, for the published figures.
    """

    def valid(result: Result) -> float:
        return float(curves_of(result)[0][-1].valid_accuracy or 0)

    finished = [r for r in results if r.error is None]
    best = max(finished, key=valid, default=None)
    notes = [
        published(dataset, args.epochs, args.model, *before.values(), *r.point.values())
        for r in results
    ]
    columns = [*results[0].point, "training loss", "valid", "test", "seconds"]
    table = Table([*columns, "published"] if any(notes) else columns, dataset.title)
    for r, note in zip(results, notes, strict=True):
        setting = [f"{v:g}" if isinstance(v, (int, float)) else v for v in r.point.values()]
        if r.error is None:
            history, test = curves_of(r)
            cells: list[object] = [history[-1].train_loss, valid(r), test[-1]]
        else:
            cells = [r.error, None, None]
        cells = [*setting, *cells, f"{r.seconds:.1f}"]
        table.add(*cells, *([note] if any(notes) else []), marked=r is best)
    table.show()
    table.write(args.out / "table-of-runs")
    print("* the highest validation accuracy of the last epoch, which is the one that is tested")
    return best


def running_means(history: History) -> list[float]:
    """Return for each epoch the mean loss of all batches so far, as the course's script draws it.

    The script never empties its list of losses, so its curve falls more slowly than the loss.
    """
    losses = history.column("train_loss")[1:]
    means: list[float] = (np.cumsum(losses) / np.arange(1, len(losses) + 1)).tolist()
    return means


def draw(args: argparse.Namespace, title: str, curves: dict[str, Curves]) -> None:
    """Draw the training loss, computed in two ways, and the accuracies over the epochs."""
    losses: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
    accuracies: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
    dashed: list[str] = []
    best = None
    for name, (history, test) in curves.items():
        label = f"{name}, " if name else ""
        epochs = history.column("epoch")
        losses[f"{label}this epoch"] = epochs[1:], history.column("train_loss")[1:]
        losses[f"{label}all batches so far"] = epochs[1:], running_means(history)
        accuracies[f"{label}validation"] = epochs[1:], history.column("valid_accuracy")[1:]
        accuracies[f"{label}test"] = epochs[1:], test[1 : len(epochs)]
        dashed += [f"{label}all batches so far", f"{label}test"]
        best = history.best.epoch if len(curves) == 1 else None
    unit = "logits" if args.model == "perceptron" else "nats"
    panels = [
        Panel(
            losses, "epoch", f"mean training loss ({unit})", dashed=dashed, pairs=len(curves) > 1
        ),
        Panel(
            accuracies,
            "epoch",
            "accuracy (share of examples)",
            dashed=dashed,
            pairs=len(curves) > 1,
            mark=best,
        ),
    ]
    line_plot(args.out / "curves.png", *panels, title=title)
    print(f"wrote curves.png and tables to {args.out}{os.sep}")


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
    if dataset.generated:
        print(
            "These are generated letters, not Fashion-MNIST; the real thing: --full --data PATH, "
            "where PATH is a folder with its four IDX files or the course's .npz.",
            flush=True,
        )
    if args.model == "ffn":
        return run_networks(dataset, args)
    if args.model == "logistic":
        return run_logistic(dataset, args)
    run_plain(dataset, args)
    return 0


if __name__ == "__main__":
    run_main(main)
