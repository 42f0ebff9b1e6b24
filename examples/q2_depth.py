"""Compare the depths of a network with 32 units a layer: one to nine hidden layers (Question 2.3).

The other settings are those of the best network with 32 units in a published report on the width
experiment; flags change them, or --from takes them from a finished run of q2_width.py. --init,
--norm and --residual train networks with these remedies beside the plain ones. --why records the
gradients and the dead units of SGD and Adam, without and with remedies.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from homework import answers
from homework.backends import fit_with
from homework.depth import (
    by_kind,
    draw_depths,
    draw_flatness,
    draw_reasons,
    signals,
    take_setting,
)
from homework.figures import TestAccuracy, both_epochs
from homework.flags import add_axis
from homework.networks import ACTIVATIONS, OPTIMIZERS, Settings, Trained, make_parser, run_grid
from homework.report import best_of_each, plot_by_axis, show_best, tabulate

from minidl import (
    BatchNorm,
    CrossEntropy,
    Dropout,
    Layer,
    LayerNorm,
    Linear,
    Residual,
    Sequential,
)
from minidl.files import as_path
from minidl.grid.points import Grid, Result, exit_status
from minidl.init import he, zeros
from minidl.view.cli import run_main

OUT = Path("runs/q2_depth")
PLAIN = "plain"
WHY = ["sgd 0.01", "adam 0.001"]
"""Optimizers and learning rates of --why."""
WHY_EPOCHS = 10
SMALL = 0.01
"""For the answers: accuracies that are equal."""


def train(
    layers: int,
    width: int,
    dropout: float,
    l2: float,
    learning_rate: float = 0.0,
    optimizer: str = "",
    network: str = PLAIN,
    *,
    why: bool = False,
    settings: Settings,
) -> Trained:
    """Train the network of one point of the grid; ``layers`` counts the hidden ones.

    ``optimizer`` is empty, or as ``"sgd 0.01"`` an optimizer with its learning rate. ``network``
    names the remedies for depth.
    """
    dataset, remedies = settings.dataset, network.split("+")
    start: dict[str, Any] = {"weight_init": he, "bias_init": zeros} if "he" in remedies else {}
    norms = {"layer": LayerNorm, "batch": BatchNorm}
    hidden: list[Layer] = []
    for i in range(layers):
        block: list[Layer] = [Linear(width if i else dataset.features, width, **start)]
        block += [norm(width) for name, norm in norms.items() if name in remedies]
        block += [ACTIVATIONS[settings.activation](), Dropout(dropout)]
        hidden += [Residual(*block)] if i and "residual" in remedies else block
    output = Linear(width, dataset.classes)
    model = Sequential(*hidden, output, rng=settings.rng(), dtype=settings.dtype)
    loss = CrossEntropy()
    test = TestAccuracy(dataset, loss)
    name, rate = settings.optimizer, learning_rate
    if optimizer:
        name, rate = optimizer.split()[0], float(optimizer.split()[1])
    update = OPTIMIZERS[name](model, rate, weight_decay=l2)
    reasons = [signals(dataset, loss)] * why
    fit = fit_with(settings.backend)  # minidl.fit, or the same computed by PyTorch
    history = fit(
        model,
        dataset,
        loss,
        update,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        rng=settings.rng(),
        callbacks=[test, *reasons],
    )
    figures = both_epochs(history, test.values)
    for trace in reasons:
        figures |= trace.columns
    return model, history, figures


def sentences(results: Sequence[Result]) -> list[str]:
    """Return for each kind of network which depth is best, and what fails in the deeper ones."""
    found = []
    for words, of_kind in by_kind(results).items():
        runs = best_of_each("layers", of_kind)
        x = [r.point["layers"] for r in runs]
        train, valid = (
            [float(r.values[key]) for r in runs] for key in ("last_train", "best_valid")
        )
        name = f"{words}: " if words else ""
        found.append(name + answers.depth(x, train, valid, small=SMALL))
    return found


def main() -> int:
    parser = make_parser(__doc__, out=str(OUT))
    add_axis(parser, "--layers", [1, 3, 5, 7, 9])
    add_axis(parser, "--widths", [32])
    add_axis(parser, "--learning-rates", [1e-3], low=0, open_low=True)
    add_axis(parser, "--dropouts", [0.0], low=0, high=1)
    add_axis(parser, "--l2s", [1e-4], low=0)
    add = parser.add_argument
    add("--init", choices=("pytorch", "he"), default="pytorch", help="remedy: initial values")
    add("--norm", choices=("none", "layer", "batch"), default="none", help="remedy: normalisation")
    add("--residual", action="store_true", help="remedy: skip connections")
    add("--why", action="store_true", help="gradients and dead units, for SGD and Adam")
    add("--from", dest="source", type=as_path, metavar="FOLDER", help="a finished run of q2_width")
    args = parser.parse_args()
    if args.source:
        take_setting(args)
    words = [args.init] * (args.init != "pytorch") + [args.norm] * (args.norm != "none")
    remedies = "+".join(words + ["residual"] * args.residual) or PLAIN
    if args.why:
        if args.backend != "numpy":
            raise ValueError("--why takes no --parity")
        remedies = "he+layer+residual" if remedies == PLAIN else remedies
        args.epochs = args.epochs or (None if args.full else WHY_EPOCHS)

    axes: dict[str, list[Any]] = {"layers": args.layers, "width": args.widths}
    if not args.why:
        axes["learning_rate"] = args.learning_rates
    axes |= {"dropout": args.dropouts, "l2": args.l2s}
    if args.why:
        axes["optimizer"] = WHY
    if remedies != PLAIN:
        axes["network"] = [PLAIN, remedies]
    if args.out == OUT and (args.why or remedies != PLAIN):
        args.out = Path(f"{OUT}-why" if args.why else f"{OUT}-{remedies}")
    dataset, results = run_grid(Grid(**axes), partial(train, why=args.why), args)

    tabulate(dataset, results, args, axis="layers")
    show_best(dataset, results, args.out)
    found: dict[str, list[str]] = {"accuracy-by-layers": sentences(results)}
    if remedies != PLAIN:
        draw_depths(dataset, results, args.out)
    else:
        label = "depth (hidden layers)"
        plot_by_axis(dataset, results, axis="layers", xlabel=label, out=args.out)
        if args.activation == "relu":
            draw_flatness(dataset, args.layers, args.widths[0], args.out)
    if args.why:
        found |= draw_reasons(dataset, results, args.out)
    answers.write(args.out, found)
    print(f"wrote the table, the pictures and the models to {args.out}{os.sep}")
    return exit_status(results)


if __name__ == "__main__":
    run_main(main)
