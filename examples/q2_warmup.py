"""Question 2.1: one feed-forward network, with the flags and defaults of the course's script.

Evaluated before training and after each epoch; the test accuracy is that of the last epoch.
With --seed-like torch:42 it starts from the weights and sees the batches of the course's script.
"""

from argparse import Namespace
from pathlib import Path

from homework.backend import (
    add_backend_flags,
    check_backend,
    plot_parity,
    report_parity,
)
from homework.command import load_data, note_generated
from homework.feedforward import ACTIVATIONS, OPTIMIZERS, train_feedforward

from minidl.cli import Interrupted, Parser, float_argument, int_argument, run_main
from minidl.history import History
from minidl.plots import Panel, line_plot
from minidl.threads import one_blas_thread
from minidl.training import Progress, WriteHistory

DATA = "emnist-letters.npz"


def main() -> None:
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("-epochs", type=int_argument("epochs"), default=30)
    add("-batch_size", type=int_argument("batch_size"), default=64)
    add("-hidden_size", type=int_argument("hidden_size"), default=32)
    add("-layers", type=int_argument("layers"), default=1, help="hidden layers")
    add("-learning_rate", type=float_argument("learning_rate", low=0), default=0.001)
    add("-l2_decay", type=float_argument("l2_decay", low=0), default=0.0)
    add("-dropout", type=float_argument("dropout", low=0, high=1), default=0.0)
    add("-activation", choices=ACTIVATIONS, default="relu")
    add("-optimizer", choices=OPTIMIZERS, default="sgd")
    add("-data_path", default=DATA, help=f"default {DATA}, or without it generated letters")
    add("-model", default="ffn", help="the first word of the pictures' names")
    add("--full", action="store_true", help="all of the generated letters")
    add("--out", type=Path, default=Path("runs/q2_warmup"), help="folder of the results")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add_backend_flags(parser)
    args = parser.parse_args()
    check_backend(args.backend)

    generated = args.data_path == DATA and not Path(DATA).exists()
    dataset = load_data("letters" if generated else args.data_path, full=args.full or not generated)
    print(dataset)
    note_generated(dataset, "-data_path PATH")
    point = {
        "width": args.hidden_size,
        "layers": args.layers,
        "learning_rate": args.learning_rate,
        "dropout": args.dropout,
        "l2": args.l2_decay,
    }
    options = {k: getattr(args, k) for k in ("epochs", "batch_size", "optimizer", "activation")}
    options |= {k: getattr(args, k) for k in ("seed", "dtype", "backend")}
    kept = args.out / f"{args.model}-history-{configuration(args)}.json"
    watching = [Progress(), WriteHistory(kept)]
    try:
        with one_blas_thread():
            values = train_feedforward(point, dataset=dataset, callbacks=watching, **options)
    except KeyboardInterrupt as error:
        where = f"the epochs that ended are in {kept}" if kept.exists() else "no epoch had ended"
        raise Interrupted(f"interrupted: {where}; the same command trains anew") from error

    history = History.from_dicts(values["history"])
    title = dataset.title
    print(f"{title}, initial training loss {history[0].train_loss:.6f}")
    print(f"Final Training Accuracy   {values['final_train_accuracy']:.4f}")
    print(f"Best Validation Accuracy  {values['best_valid_accuracy']:.4f}")
    print(f"Final Test Accuracy       {values['test_accuracy']:.4f}")
    epochs = history.column("epoch")
    losses = {
        "training": (epochs, history.column("train_loss")),
        "validation": (epochs, history.column("valid_loss")),
    }
    accuracies = {"validation": (epochs, history.column("valid_accuracy"))}
    history.to_json(kept)
    for name, curves, label in (
        ("training-loss", losses, "loss (nats)"),
        ("validation-accuracy", accuracies, "validation accuracy (share of examples)"),
    ):
        file = args.out / f"{args.model}-{name}-{configuration(args)}.pdf"
        line_plot(file, Panel(curves, "epoch", label, title))
    if args.backend == "both":
        plot_parity(args.out / f"{args.model}-parity-{configuration(args)}.png", values, title)
        report_parity([values])
    print(f"wrote the history and the pictures to {args.out}/")


def configuration(args: Namespace) -> str:
    """The settings, as the names of the course's pictures tell them."""
    return (
        f"batch-{args.batch_size}-lr-{args.learning_rate}-epochs-{args.epochs}-"
        f"hidden-{args.hidden_size}-dropout-{args.dropout}-l2-{args.l2_decay}-"
        f"layers-{args.layers}-act-{args.activation}-opt-{args.optimizer}"
    )


if __name__ == "__main__":
    run_main(main)
