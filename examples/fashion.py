"""Fashion-MNIST, one example at a time: four models (Questions 3 and 4 of 2021-22).

perceptron, logistic, mlp: written by hand in the course. logistic also starts from PyTorch's
initial values with three learning rates (4.1). ffn: networks with dropout (4.2 and 4.3). The tested
model is that of the last epoch.
"""

from argparse import Namespace
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from homework import answers
from homework.fashion import Curves, OneChange, draw, load_fashion, tabulate
from homework.figures import TestAccuracy
from homework.flags import QUICK, add_axis, add_number, base_parser
from homework.models import linear, mlp
from homework.networks import ACTIVATIONS, OPTIMIZERS, Settings
from homework.online import THRESHOLDS
from homework.runs import run_points, shared, single_run

import minidl
from minidl.files import to_json, write_text
from minidl.grid.points import Grid, Point, Result, exit_status
from minidl.view.cli import run_main
from minidl.view.tables import Table

QUICK_FFN = {"train": 3_900, "valid": 1_300, "test": 1_300}
EPOCHS, QUICK_FFN_EPOCHS = 20, 10
ERRORS = 2.0  # standard errors of a difference that is more than chance


def run_plain(dataset: minidl.Dataset, args: Namespace) -> None:
    """Train one model of Question 3; print validation and test accuracy of each epoch."""
    random = np.random.RandomState(args.seed)  # draws the weights, then the order of each epoch
    loss: minidl.Loss = minidl.CrossEntropy()
    model: minidl.Layer = linear(dataset, args.dtype)
    lr = 1e-3
    if args.model == "perceptron":
        loss, lr = minidl.Perceptron(), 1.0
    if args.model == "mlp":
        model = mlp(dataset, args.width, random, args.dtype)
    history, test = minidl.History(), TestAccuracy(dataset, loss)
    options: dict[str, Any] = {"lr": lr, "epochs": args.epochs, "history": history}
    options |= {"rng": minidl.compounding(len(dataset.train), random)}
    with single_run(args, dataset) as (resumable,):
        callbacks = [minidl.Progress(), test]
        minidl.fit_online(model, dataset, loss, callbacks=callbacks, **options, **resumable)
        table = Table(["epoch", "training loss", "train", "valid", "test"], dataset.title)
        for record, accuracy in zip(history, test.values, strict=False):
            cells = record.train_loss, record.train_accuracy, record.valid_accuracy, accuracy
            table.add(record.epoch, *cells, marked=record is history.best)
        table.show()
        table.write(args.out / "table")
        print("* the best epoch on the validation part; the tested model is that of the last epoch")
        print(f"{args.model}: test accuracy, last epoch {test.values[-1]:.4f}")
        scores = {"valid": history[-1].valid_accuracy, "test": test.values[-1]}
        content = to_json({**scores, "data": dataset.name}, indent=1)
        write_text(args.out / "scores.json", content + "\n")
        minidl.Checkpoint(args.out / "last.npz").save(model=model, history=history)
        draw(args, f"{args.model}, {dataset.title}", {"": Curves(history, test.values)})
        answers.write(args.out, {"curves": answers.of_run(history, **THRESHOLDS)})


def train(
    learning_rate: float,
    width: int = 0,
    dropout: float = 0.0,
    activation: str = "relu",
    optimizer: str = "sgd",
    layers: int = 0,
    *,
    settings: Settings,
) -> dict[str, Any]:
    """Train one model of Question 4; without hidden layers it is a logistic regression."""
    settings, loss = replace(settings, activation=activation), minidl.CrossEntropy()
    model, test = settings.network([width] * layers, dropout), TestAccuracy(settings.dataset, loss)
    options: dict[str, Any] = {"callbacks": [test]}
    if optimizer == "sgd" and settings.batch_size == 1:
        options |= {"lr": learning_rate, "epochs": settings.epochs, "rng": settings.rng()}
        history = minidl.fit_online(model, settings.dataset, loss, **options)
    else:
        history = settings.fit(model, loss, learning_rate, 0.0, optimizer=optimizer, **options)
    return {"history": history.to_dict(), "test": test.values}


def cost(point: Point) -> float:
    """Return the relative duration of a training, from measured steps."""
    slow = 6 if point.get("optimizer") == "adam" else 1
    return slow * (2 + 3 * float(point.get("layers", 0)))


def run_grid(grid: Grid, dataset: minidl.Dataset, args: Namespace, batch_size: int) -> list[Result]:
    """Train every point of the grid, with the weights and the order that PyTorch would draw."""
    words = {"seed": f"torch:{args.seed}", "dtype": args.dtype, "backend": "numpy"}
    words |= {"optimizer": "of the point", "activation": "of the point"}
    with shared(dataset, args) as mapped:
        settings = Settings(mapped, args.epochs, batch_size, **words)
        return run_points(grid, partial(train, settings=settings), args, dataset=dataset, cost=cost)


def run_logistic(dataset: minidl.Dataset, args: Namespace) -> int:
    """Train the plain logistic regression, and those from PyTorch's initial values (4.1)."""
    run_plain(dataset, args)
    args.out = args.out / "pytorch"
    print("from PyTorch's initial values (4.1):")
    results = run_grid(Grid(learning_rate=args.learning_rates), dataset, args, 1)
    tabulate(dataset, results, args.out)
    finished = [r for r in results if not r.error]
    curves = {f"lr {r.point['learning_rate']:g}": Curves.of(r) for r in finished}
    if curves:
        draw(args, f"logistic regression from PyTorch's initial values, {dataset.title}", curves)
        valid = {name: one.valid for name, one in curves.items()}
        n = len(dataset.splits["valid"])
        sentence = answers.choice("Learning rates", valid, n, errors=ERRORS)
        answers.write(args.out, {"curves": [sentence]})
    return exit_status(results)


def run_networks(dataset: minidl.Dataset, args: Namespace) -> int:
    """Train the networks of the grid; draw the best one, and compare on each axis (4.2, 4.3)."""
    names = "learning_rate", "width", "dropout", "activation", "optimizer"
    axes = {name: getattr(args, f"{name}s") for name in names}
    grid = OneChange(args.all, args.deep_learning_rate, **axes, layers=args.layers)
    print(f"{len(grid)} networks: " + ("all settings" if args.all else "one change at a time"))
    results = run_grid(grid, dataset, args, args.batch_size)
    best = tabulate(dataset, results, args.out)
    if best is None:
        return exit_status(results)
    name = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in best.point.items())
    draw(args, f"the best network, {dataset.title}\n{name}", {"": Curves.of(best)})
    first, n, found = results[0].point, len(dataset.splits["valid"]), []
    finished = [r for r in results if not r.error]
    for axis in first:
        same = results[-1].point if axis == "layers" else first  # deeper ones have another rate
        others = [k for k in first if k != axis]
        alike = [r for r in finished if all(r.point[k] == same[k] for k in others)]
        if len(alike) > 1:
            valid = {str(r.point[axis]): Curves.of(r).valid for r in alike}
            words = axis.replace("_", " ").capitalize()
            found.append(answers.choice(words, valid, n, errors=ERRORS))
    answers.write(args.out, {"curves": found})
    return exit_status(results)


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
