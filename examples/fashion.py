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
from homework import fashion as course
from homework.figures import TestAccuracy
from homework.flags import QUICK, add_axis, add_number, base_parser
from homework.models import linear, mlp
from homework.networks import ACTIVATIONS, OPTIMIZERS, Settings
from homework.runs import run_points, shared, single_run

import minidl
from minidl.grid.points import Grid, exit_status
from minidl.view.cli import run_main

QUICK_FFN = {"train": 3_900, "valid": 1_300, "test": 1_300}
EPOCHS, QUICK_FFN_EPOCHS = 20, 10


def run_plain(dataset: minidl.Dataset, args: Namespace) -> None:
    """Train one model of Question 3."""
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
    options["rng"] = minidl.compounding(len(dataset.train), random)
    with single_run(args, dataset) as (resumable,):
        callbacks = [minidl.Progress(), test]
        minidl.fit_online(model, dataset, loss, callbacks=callbacks, **options, **resumable)
        minidl.Checkpoint(args.out / "last.npz").save(model=model, history=history)
        course.report(dataset, history, test.values, args)


def train(learning_rate: float, *, settings: Settings, **point: Any) -> dict[str, Any]:
    """Train one model of Question 4; without hidden layers it is a logistic regression."""
    changed = {name: point[name] for name in ("activation", "optimizer") if name in point}
    settings, loss = replace(settings, **changed), minidl.CrossEntropy()
    widths, dropout = [point.get("width", 0)] * point.get("layers", 0), point.get("dropout", 0.0)
    model, test = settings.network(widths, dropout), TestAccuracy(settings.dataset, loss)
    options: dict[str, Any] = {"callbacks": [test]}
    if settings.optimizer == "sgd" and settings.batch_size == 1:
        options |= {"lr": learning_rate, "epochs": settings.epochs, "rng": settings.rng()}
        history = minidl.fit_online(model, settings.dataset, loss, **options)
    else:
        history = settings.fit(model, loss, learning_rate, 0.0, **options)
    figures = {"loss": history[-1].train_loss, "valid": history[-1].valid_accuracy}
    return {**figures, "history": history.to_dict(), "test": test.values}


def run_grid(grid: Grid, dataset: minidl.Dataset, args: Namespace) -> int:
    """Train and report every point, with PyTorch's weights and order."""
    words: dict[str, Any] = {"optimizer": "sgd", "activation": "relu", "backend": "numpy"}
    words |= {"dtype": args.dtype, "seed": f"torch:{args.seed}", "batch_size": args.batch_size}
    with shared(dataset, args) as mapped:
        settings = Settings(mapped, args.epochs, **words)
        results = run_points(grid, partial(train, settings=settings), args, dataset=dataset)
    course.report_grid(dataset, results, args)
    return exit_status(results)


def main() -> int:
    epochs = f"default {EPOCHS}; ffn without --full {QUICK_FFN_EPOCHS}"
    parser = base_parser(__doc__, "runs/fashion", epochs=epochs)
    parser.add_argument("model", choices=("perceptron", "logistic", "mlp", "ffn"))
    add_number(parser, "--width", 200, "hidden units of mlp")
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
    dataset = course.load_fashion(args.data, full=args.full, sizes=QUICK_FFN if quick else QUICK)
    print(f"{dataset}; {args.epochs} epochs", flush=True)
    axes = {"learning_rate": args.learning_rates}
    if args.model != "ffn":
        run_plain(dataset, args)
        if args.model != "logistic":
            return 0
        args.out, args.batch_size = args.out / "pytorch", 1
        print("from PyTorch's initial values (4.1):")
        return run_grid(Grid(**axes), dataset, args)
    for name in ("width", "dropout", "activation", "optimizer"):
        axes[name] = getattr(args, f"{name}s")
    grid = course.OneChange(args.all, args.deep_learning_rate, **axes, layers=args.layers)
    print(f"{len(grid)} networks: " + ("all settings" if args.all else "one change at a time"))
    return run_grid(grid, dataset, args)


if __name__ == "__main__":
    run_main(main)
