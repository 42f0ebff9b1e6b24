"""Train one network with four losses and compare their predictions (Question 3).

Linear, activation, Dropout, Linear, trained with cross-entropy, the sparsemax loss, the entmax-1.5
loss and the smoothed relumax loss.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from homework import answers, sparse
from homework.backends import fit_with, plot_parity, print_parity
from homework.figures import Trace
from homework.flags import add_axis
from homework.models import feed_forward
from homework.networks import ACTIVATIONS, OPTIMIZERS, Settings, Trained, make_parser, run_grid
from homework.report import histories

from minidl import Dataset, History, outputs
from minidl.grid.points import Grid, Result, exit_status
from minidl.view.cli import run_main
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

ERRORS = 2.0  # standard errors of a difference that is more than chance
COLUMNS = ("epoch", "valid", "test", "support", "certain", "covered", "calibration error")


def train(
    loss: str, width: int, learning_rate: float, dropout: float, l2: float, *, settings: Settings
) -> Trained:
    """Train the network of one point of the grid; it is tested at its best epoch."""
    dataset, test = settings.dataset, settings.dataset.splits["test"]
    start: dict[str, Any] = {"dropout": dropout, "rng": settings.rng(), "dtype": settings.dtype}
    model = feed_forward(dataset, [width], ACTIVATIONS[settings.activation], **start)
    map, criterion = sparse.map_and_loss(loss)
    optimizer = OPTIMIZERS[settings.optimizer](model, learning_rate, weight_decay=l2)
    supports = Trace(partial(sparse.support_size, map=map, split=dataset.splits["valid"]))
    training: dict[str, Any] = {"epochs": settings.epochs, "batch_size": settings.batch_size}
    training |= {"rng": settings.rng(), "callbacks": [supports], "restore_best": True}
    fit = fit_with(settings.backend)  # minidl.fit, or the same computed by PyTorch
    history = fit(model, dataset, criterion, optimizer, **training)
    logits = outputs(model, test)
    p = map(logits)
    support, batch = map.support(p), slice(settings.batch_size)
    figures = {
        "valid": history.best.valid_accuracy,
        "epoch": history.best.epoch,
        "test": float((logits.argmax(axis=1) == test.y).mean()),
        "support": float(support.sum(axis=1).mean()),
        "certain": float((support.sum(axis=1) == 1).mean()),
        "covered": float((p[np.arange(len(test)), test.y] > 0).mean()),
        "calibration error": sparse.calibration_error(p, test.y),
        "microseconds": sparse.fastest_microseconds(criterion, logits[batch], test.y[batch]),
        "epoch_seconds": float(np.median(history.column("seconds")[1:])),
        "supports": supports.columns["size"],
        "candidates": sparse.candidates(support, p),
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
    smoothed = [sparse.relumax_loss(b, eps) for b in args.b for eps in args.eps]
    grid = Grid(
        loss=[*sparse.REGULARIZED, *smoothed],
        width=args.widths,
        learning_rate=args.learning_rates,
        dropout=args.dropouts,
        l2=args.l2s,
    )
    dataset, results = run_grid(grid, train, args)
    named = {name_of(result, results): result for result in results}
    tabulate(dataset, named, args.out)
    finished = {name: r for name, r in named.items() if not r.error}
    if finished:
        report(dataset, finished, args.out)
    return exit_status(results)


def name_of(result: Result, results: Sequence[Result]) -> str:
    """Return the loss, and the other values that differ between the results."""
    point = result.point
    varying = [k for k in point if k != "loss" and len({r.point[k] for r in results}) > 1]
    return " ".join([point["loss"], *[f"{k}={point[k]}" for k in varying]])


def tabulate(dataset: Dataset, results: dict[str, Result], out: Path) -> None:
    """Print and write the table."""
    title = f"{dataset.title}: the best epoch of each loss, on the test part"
    table = Table(["loss", *COLUMNS, "loss, us a batch", "s an epoch"], title)
    for name, r in results.items():
        if r.error:
            table.add(name, r.error, *[None] * len(COLUMNS), None)
            continue
        times = f"{r.values['microseconds']:.0f}", f"{r.values['epoch_seconds']:.2f}"
        table.add(name, *[r.values[key] for key in COLUMNS], *times)
    table.show()
    table.write(out / "table")
    print(
        "support: classes of probability > 0, mean; certain: share of examples with one such "
        "class;\ncovered: share whose label is in the support"
    )


def report(dataset: Dataset, results: dict[str, Result], out: Path) -> None:
    """Draw the curves of all losses and a contact sheet for each sparse one; write the answers."""
    title, files = dataset.title, {name: name.replace(" ", "-") for name in results}
    curves = {name: History.from_dict(r.values["history"]) for name, r in results.items()}
    epochs = {name: history.column("epoch") for name, history in curves.items()}
    supports = {name: (epochs[name], r.values["supports"]) for name, r in results.items()}
    accuracies = {k: (epochs[k], history.column("valid_accuracy")) for k, history in curves.items()}
    sizes = Panel(supports, "epoch", "mean support size (classes)")
    valid = Panel(accuracies, "epoch", "validation accuracy (share of examples)")
    line_plot(out / "training", sizes, valid, title=title)
    sheets, both = 0, []
    for name, r in results.items():
        heading, file = f"{title}: {name}", out / f"candidates-{files[name]}.png"
        sheets += sparse.draw_candidates(dataset, r, heading, file)
        if "beside" in r.values:
            both.append(histories(r))
            plot_parity(out / f"parity-{files[name]}.png", *both[-1], heading)
    test = {name: float(r.values["test"]) for name, r in results.items()}
    n = len(dataset.splits["test"])
    sentences = [answers.choice("Test accuracy", test, n, errors=ERRORS)]
    sentences += [
        f"{name}: {r.values['support']:.2f} classes of {dataset.classes} on average, and in "
        f"{r.values['covered']:.1%} of the examples the right one is among them."
        for name, r in results.items()
    ]
    answers.write(out, {"training": sentences})
    if both:
        print_parity(both)
    print(f"wrote the table, the curves, {sheets} contact sheets and the models to {out}{os.sep}")


if __name__ == "__main__":
    run_main(main)
