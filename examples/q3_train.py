"""Train one network with four losses and compare their predictions (Question 3).

Linear, activation, Dropout, Linear, trained with cross-entropy, the sparsemax loss, the entmax-1.5
loss and the smoothed relumax loss.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from homework import answers
from homework.backends import fit_with, plot_parity, print_parity
from homework.flags import add_axis
from homework.networks import ACTIVATIONS, OPTIMIZERS, Settings, Trained, make_parser, run_grid
from homework.report import histories
from homework.sparse import (
    REGULARIZED,
    SupportSizes,
    calibration_error,
    candidates,
    draw_candidates,
    fastest_microseconds,
    map_and_loss,
    relumax_loss,
)

from minidl import Dataset, Dropout, History, Linear, Sequential, outputs
from minidl.grid.points import Grid, Result, exit_status
from minidl.view.cli import run_main
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

ERRORS = 2.0  # standard errors of a difference that is more than chance


def train(
    loss: str, width: int, learning_rate: float, dropout: float, l2: float, *, settings: Settings
) -> Trained:
    """Train the network of one point of the grid; it is tested at its best epoch."""
    dataset = settings.dataset
    model = Sequential(
        Linear(dataset.features, width),
        ACTIVATIONS[settings.activation](),
        Dropout(dropout),
        Linear(width, dataset.classes),
        rng=settings.rng(),
        dtype=settings.dtype,
    )
    map, criterion = map_and_loss(loss)
    optimizer = OPTIMIZERS[settings.optimizer](model, learning_rate, weight_decay=l2)
    supports = SupportSizes(map, dataset)
    fit = fit_with(settings.backend)  # minidl.fit, or the same computed by PyTorch
    history = fit(
        model,
        dataset,
        criterion,
        optimizer,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        rng=settings.rng(),
        callbacks=[supports],
        restore_best=True,
    )
    test = dataset.splits["test"]
    logits = outputs(model, test)
    p = map(logits)
    support = map.support(p)
    batch = slice(settings.batch_size)
    figures = {
        "best_valid_accuracy": history.best.valid_accuracy,
        "best_epoch": history.best.epoch,
        "test_accuracy": float((logits.argmax(axis=1) == test.y).mean()),
        "support": float(support.sum(axis=1).mean()),
        "certain": float((support.sum(axis=1) == 1).mean()),
        "covered": float((p[np.arange(len(test)), test.y] > 0).mean()),
        "calibration_error": calibration_error(p, test.y),
        "loss_microseconds": fastest_microseconds(criterion, logits[batch], test.y[batch]),
        "epoch_seconds": float(np.median(history.column("seconds")[1:])),
        "supports": supports.sizes,
        "candidates": candidates(support, p),
    }
    return model, history, figures


def main() -> int:
    parser = make_parser(__doc__, out="runs/q3_train")
    add_axis(parser, "--b", [5.0], low=0, open_low=True)
    add_axis(parser, "--eps", [0.1], name="eps", low=0)
    add_axis(parser, "--widths", [256])
    add_axis(parser, "--learning-rates", [1e-3], low=0, open_low=True)
    add_axis(parser, "--dropouts", [0.3], low=0, high=1)
    add_axis(parser, "--l2s", [0.0], low=0)
    args = parser.parse_args()

    grid = Grid(
        loss=[*REGULARIZED, *[relumax_loss(b, eps) for b in args.b for eps in args.eps]],
        width=args.widths,
        learning_rate=args.learning_rates,
        dropout=args.dropouts,
        l2=args.l2s,
    )
    dataset, results = run_grid(grid, train, args)

    names = [name_of(result, results) for result in results]
    tabulate(dataset, dict(zip(names, results, strict=True)), args.out)
    finished = {name: r for name, r in zip(names, results, strict=True) if not r.error}
    if finished:
        draw(dataset, finished, args.out)
    return exit_status(results)


def name_of(result: Result, results: Sequence[Result]) -> str:
    """Return the loss, and the other values that differ between the results."""
    point = result.point
    varying = [k for k in point if k != "loss" and len({r.point[k] for r in results}) > 1]
    return " ".join([point["loss"], *[f"{k}={point[k]}" for k in varying]])


def tabulate(dataset: Dataset, results: dict[str, Result], out: Path) -> None:
    """Print and write the table."""
    columns = {
        "epoch": "best_epoch",
        "valid": "best_valid_accuracy",
        "test": "test_accuracy",
        "support": "support",
        "certain": "certain",
        "covered": "covered",
        "calibration error": "calibration_error",
    }
    headings = ["loss", *columns, "loss, us a batch", "s an epoch"]
    table = Table(headings, f"{dataset.title}: the best epoch of each loss, on the test part")
    for name, result in results.items():
        values = result.values
        if result.error:
            table.add(name, result.error, *[None] * len(columns), None)
            continue
        times = f"{values['loss_microseconds']:.0f}", f"{values['epoch_seconds']:.2f}"
        table.add(name, *[values[key] for key in columns.values()], *times)
    table.show()
    table.write(out / "table")
    print(
        "support: classes of probability > 0, mean; certain: share of examples with one such "
        "class;\ncovered: share whose label is in the support"
    )


def draw(dataset: Dataset, results: dict[str, Result], out: Path) -> None:
    """Draw the curves of all losses, and a contact sheet for each sparse loss."""
    title = dataset.title
    accuracies, supports = {}, {}
    for name, result in results.items():
        history = History.from_dict(result.values["history"])
        epochs = history.column("epoch")
        accuracies[name] = epochs, history.column("valid_accuracy")
        supports[name] = epochs, result.values["supports"]
    line_plot(
        out / "training",
        Panel(supports, "epoch", "mean support size (classes)"),
        Panel(accuracies, "epoch", "validation accuracy (share of examples)"),
        title=title,
    )
    sheets = sum(
        draw_candidates(dataset, r, f"{title}: {name}", out / f"candidates-{_file(name)}.png")
        for name, r in results.items()
    )
    n = len(dataset.splits["test"])
    test = {name: float(r.values["test_accuracy"]) for name, r in results.items()}
    sizes = [
        f"{name}: {r.values['support']:.2f} classes of {dataset.classes} on average, and in "
        f"{r.values['covered']:.1%} of the examples the right one is among them."
        for name, r in results.items()
    ]
    best = answers.choice("Test accuracy", test, n, errors=ERRORS)
    answers.write(out, {"training": [best, *sizes]})
    both = {name: histories(r) for name, r in results.items() if "beside" in r.values}
    for name, pair in both.items():
        plot_parity(out / f"parity-{_file(name)}.png", *pair, f"{title}: {name}")
    if both:
        print_parity(list(both.values()))
    print(f"wrote the table, the curves, {sheets} contact sheets and the models to {out}{os.sep}")


def _file(name: str) -> str:
    return name.replace(" ", "-")


if __name__ == "__main__":
    run_main(main)
