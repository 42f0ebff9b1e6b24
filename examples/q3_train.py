"""Train one network with cross-entropy, sparsemax, entmax-1.5 and relumax losses (Question 3)."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from homework import answers, sparse
from homework.figures import Trace
from homework.flags import add_axis
from homework.networks import Settings, Trained, add_axes, make_parser, run_grid, show_parity
from homework.report import histories

import minidl
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
    model, (map, criterion) = settings.network([width], dropout), sparse.map_and_loss(loss)
    supports = Trace(partial(sparse.support_size, map=map, split=dataset.splits["valid"]))
    options: dict[str, Any] = {"callbacks": [supports], "restore_best": True}
    history = settings.fit(model, criterion, learning_rate, l2, **options)
    logits = minidl.outputs(model, test)
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
    }
    return model, history, figures


def main() -> int:
    parser = make_parser(__doc__, out="runs/q3_train")
    add_axis(parser, "--b", [5.0], low=0, open_low=True)
    add_axis(parser, "--eps", [0.1], name="eps", low=0)
    add_axes(parser, [256], [1e-3], [0.3], [0.0])
    args = parser.parse_args()
    smoothed = [sparse.relumax_loss(b, eps) for b in args.b for eps in args.eps]
    axes = {"width": args.widths, "learning_rate": args.learning_rates, "dropout": args.dropouts}
    grid = Grid(loss=[*sparse.REGULARIZED, *smoothed], **axes, l2=args.l2s)
    dataset, results = run_grid(grid, train, args)
    named = {name_of(result, results): result for result in results}
    table = Table(["loss", *COLUMNS, "loss, us a batch", "s an epoch"])
    table.title = f"{dataset.title}: the best epoch of each loss, on the test part"
    for name, r in named.items():
        if r.error:
            table.add(name, r.error, *[None] * len(COLUMNS), None)
        else:
            times = f"{r.values['microseconds']:.0f}", f"{r.values['epoch_seconds']:.2f}"
            table.add(name, *[r.values[key] for key in COLUMNS], *times)
    table.show()
    table.write(args.out / "table")
    certain = "share of examples with one such class"
    print(f"support: classes of probability > 0, mean; certain: {certain};")
    print("covered: share whose label is in the support")
    finished = {name: r for name, r in named.items() if not r.error}
    if finished:
        report(dataset, finished, args.out)
    return exit_status(results)


def name_of(result: Result, results: Sequence[Result]) -> str:
    """Return the loss, and the other values that differ between the results."""
    point = result.point
    varying = [k for k in point if k != "loss" and len({r.point[k] for r in results}) > 1]
    return " ".join([point["loss"], *[f"{k}={point[k]}" for k in varying]])


def report(dataset: minidl.Dataset, results: dict[str, Result], out: Path) -> None:
    """Draw the curves of all losses and write the answers."""
    supports, accuracies = {}, {}
    for name, r in results.items():
        history = minidl.History.from_dict(r.values["history"])
        supports[name] = history.column("epoch"), r.values["supports"]
        accuracies[name] = history.column("epoch"), history.column("valid_accuracy")
        if "beside" in r.values:
            file = out / f"parity-{name.replace(' ', '-')}.png"
            show_parity(file, [histories(r)], f"{dataset.title}: {name}")
    sizes = Panel(supports, "epoch", "mean support size (classes)")
    valid = Panel(accuracies, "epoch", "validation accuracy (share of examples)")
    line_plot(out / "training", sizes, valid, title=dataset.title)
    test, n = {k: float(r.values["test"]) for k, r in results.items()}, len(dataset.splits["test"])
    sentences = [answers.choice("Test accuracy", test, n, errors=ERRORS)]
    for name, r in results.items():
        size, share = f"{r.values['support']:.2f}", f"{r.values['covered']:.1%}"
        words = f"{size} classes of {dataset.classes} on average, and in {share} of the examples"
        sentences.append(f"{name}: {words} the right one is among them.")
    answers.write(out, {"training": sentences})
    print(f"wrote the table, the curves and the models to {out}/")


if __name__ == "__main__":
    run_main(main)
