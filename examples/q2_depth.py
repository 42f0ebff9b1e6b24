"""Compare the depths of a network with 32 units a layer: one to nine hidden layers (Question 2.3).

The other settings are those of the best network with 32 units in a published report on the width
experiment; flags change them, or --from takes them from a finished run of q2_width.py. --init,
--norm and --residual train networks with these remedies beside the plain ones. --why records the
gradients and the dead units of SGD and Adam, without and with remedies.
"""

from functools import partial
from pathlib import Path
from typing import Any

from homework import answers
from homework.depth import by_kind, draw_flatness, draw_reasons, signals, take_setting
from homework.figures import TestAccuracy, both_epochs
from homework.flags import add_axis
from homework.networks import ACTIVATIONS, Settings, Trained, add_axes, make_parser, run_grid
from homework.report import by_axis, plot_by_axis, show_best, tabulate

import minidl
from minidl.files import as_path
from minidl.grid.points import Grid, exit_status
from minidl.init import he, zeros
from minidl.view.cli import run_main

OUT = Path("runs/q2_depth")
PLAIN = "plain"
WHY, WHY_EPOCHS = ["sgd 0.01", "adam 0.001"], 10  # optimizers with their learning rates
SMALL = 0.01  # for the answers: accuracies that are equal


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
    """Train a network of hidden layers with remedies; an optimizer brings its learning rate."""
    dataset, remedies = settings.dataset, network.split("+")
    start: dict[str, Any] = {"weight_init": he, "bias_init": zeros} if "he" in remedies else {}
    norms = {"layer": minidl.LayerNorm, "batch": minidl.BatchNorm}
    hidden: list[minidl.Layer] = []
    for i in range(layers):
        block: list[minidl.Layer] = [
            minidl.Linear(width if i else dataset.features, width, **start)
        ]
        block += [norm(width) for name, norm in norms.items() if name in remedies]
        block += [ACTIVATIONS[settings.activation](), minidl.Dropout(dropout)]
        hidden += [minidl.Residual(*block)] if i and "residual" in remedies else block
    output = minidl.Linear(width, dataset.classes or 1)
    model = minidl.Sequential(*hidden, output, rng=settings.rng(), dtype=settings.dtype)
    loss = minidl.CrossEntropy()
    test, reasons = TestAccuracy(dataset, loss), [signals(dataset, loss)] * why
    name, _, rate = optimizer.partition(" ")
    lr, callbacks = float(rate or learning_rate), [test, *reasons]
    history = settings.fit(model, loss, lr, l2, optimizer=name, callbacks=callbacks)
    figures = both_epochs(history, test.values)
    for trace in reasons:
        figures |= trace.columns
    return model, history, figures


def main() -> int:
    parser = make_parser(__doc__, out=str(OUT))
    add_axis(parser, "--layers", [1, 3, 5, 7, 9])
    add_axes(parser, [32], [1e-3], [0.0], [1e-4])
    add = parser.add_argument
    add("--init", choices=("pytorch", "he"), default="pytorch", help="remedy: initial values")
    add("--norm", choices=("none", "layer", "batch"), default="none", help="remedy: normalisation")
    add("--residual", action="store_true", help="remedy: skip connections")
    add("--why", action="store_true", help="gradients and dead units, for SGD and Adam")
    add("--from", dest="source", type=as_path, metavar="FOLDER", help="a finished run of q2_width")
    args = parser.parse_args()
    if args.source:
        take_setting(args)
    words = [word for word in (args.init, args.norm) if word not in ("pytorch", "none")]
    remedies = "+".join(words + ["residual"] * args.residual) or PLAIN
    axes: dict[str, list[Any]] = {"layers": args.layers, "width": args.widths}
    others = {"dropout": args.dropouts, "l2": args.l2s}
    if args.why:
        if args.backend != "numpy":
            raise ValueError("--why takes no --parity")
        remedies = "he+layer+residual" if remedies == PLAIN else remedies
        args.epochs = args.epochs or (None if args.full else WHY_EPOCHS)
        axes |= others | {"optimizer": WHY}
    else:
        axes |= {"learning_rate": args.learning_rates} | others
    if remedies != PLAIN:
        axes["network"] = [PLAIN, remedies]
    if args.out == OUT and "network" in axes:
        args.out = Path(f"{OUT}-why" if args.why else f"{OUT}-{remedies}")
    dataset, results = run_grid(Grid(**axes), partial(train, why=args.why), args)

    tabulate(dataset, results, args)
    show_best(dataset, results, args.out)
    kinds, sentences = {kind: by_axis(of) for kind, of in by_kind(results).items()}, []
    for kind, of in kinds.items():
        answer = answers.depth(of.x, of.train, of.valid, small=SMALL)
        sentences.append(f"{kind}: {answer}" if kind else answer)
    found = {"accuracy-by-layers": sentences}
    plot_by_axis(dataset, kinds, args.out)
    if remedies == PLAIN and args.activation == "relu":
        draw_flatness(dataset, args.layers, args.widths[0], args.out)
    if args.why:
        found |= draw_reasons(dataset, results, args.out)
    answers.write(args.out, found)
    print(f"wrote the table, the pictures and the models to {args.out}/")
    return exit_status(results)


if __name__ == "__main__":
    run_main(main)
