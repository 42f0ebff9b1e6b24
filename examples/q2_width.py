"""Compare the widths of a network with one hidden layer: 80 networks (Question 2.2).

Five widths, four learning rates, with and without dropout and L2. Each network is Linear,
activation, Dropout, Linear, trained by mini-batches on cross-entropy.
"""

import contextlib
from pathlib import Path

from homework import answers
from homework.figures import TestAccuracy, both_epochs
from homework.networks import Settings, Trained, add_axes, make_parser, run_grid
from homework.report import by_axis, plot_by_axis, show_best, tabulate
from homework.runs import EXECUTORS, PROCESSES, executor

import minidl
from minidl.files import as_path, from_json
from minidl.grid.points import Grid, exit_status
from minidl.view.cli import run_main

WIDE = (512, 1024)
"""Widths beyond the assignment's, for the training accuracy as the width grows."""
# For the answers: an accuracy that has settled, a network that fits, a gap of overfitting.
SMALL, FITS, GAP, RISE = 0.005, 0.99, 0.03, 0.02


def train(
    width: int, learning_rate: float, dropout: float, l2: float, *, settings: Settings
) -> Trained:
    """Train the network of one point of the grid."""
    model, loss = settings.network([width], dropout), minidl.CrossEntropy()
    test = TestAccuracy(settings.dataset, loss)
    history = settings.fit(model, loss, learning_rate, l2, callbacks=[test])
    return model, history, both_epochs(history, test.values)


def infinite_width(dataset: minidl.Dataset, file: Path) -> dict[str, float]:
    """Return what infinite_width.py found on the same training examples, if it has run."""
    if not file.exists():
        return {}
    with contextlib.suppress(ValueError, LookupError, TypeError):  # others may have written it
        record = from_json(file.read_bytes())
        (ntk,) = (r for r in record["results"] if (r["layers"], r["kernel"]) == (1, "NTK"))
        if record["examples"] == minidl.Dataset(dataset.train).checksum():
            parts = {"training": "train", "test": "test"}
            return {f"infinite width: {part} accuracy": ntk[key] for part, key in parts.items()}
    print(f"{file} has no results of infinite_width.py on these training examples")
    return {}


def main() -> int:
    parser = make_parser(__doc__, out="runs/q2_width")
    add_axes(parser, [16, 32, 64, 128, 256], [1e-2, 1e-3, 1e-4, 1e-5], [0.0, 0.3], [0.0, 1e-4])
    parser.add_argument("--wide", action="store_true", help="also 512 and 1024 hidden units")
    infinite = Path("runs/infinite_width/infinite.json")
    text = f"results of infinite_width.py to draw (default {infinite}, if it exists)"
    parser.add_argument("--infinite", type=as_path, metavar="JSON", default=infinite, help=text)
    add = parser.add_argument
    add("--executor", type=executor, default=PROCESSES, metavar="NAME", help=EXECUTORS)
    args = parser.parse_args()
    widths = [*args.widths, *(w for w in WIDE if args.wide and w not in args.widths)]
    axes = {"learning_rate": args.learning_rates, "dropout": args.dropouts, "l2": args.l2s}
    dataset, results = run_grid(Grid(width=widths, **axes), train, args)

    tabulate(dataset, results, args)
    each, levels = by_axis(results), infinite_width(dataset, args.infinite)
    plot_by_axis(dataset, {"": each}, args.out, levels)
    best = show_best(dataset, results, args.out)
    if best is not None:
        test, curves = each.runs[-1].values["last_test"], best.values["history"]
        by_width = [
            answers.growth("Training accuracy", "width", each.x, each.train, small=SMALL),
            answers.growth("Validation accuracy", "width", each.x, each.valid, small=SMALL),
            answers.capacity(each.x[-1], each.train[-1], test, len(dataset.train), fits=FITS),
        ]
        history = minidl.History.from_dict(curves)
        of_best = [answers.overfitting(history, gap=GAP, rise=RISE, fits=FITS)]
        answers.write(args.out, {"accuracy-by-width": by_width, "best-curves": of_best})
    print(f"wrote the table, the pictures and the models to {args.out}/")
    return exit_status(results)


if __name__ == "__main__":
    run_main(main)
