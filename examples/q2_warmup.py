"""Train one feed-forward network, with the flags and defaults of the course (Question 2.1).

Evaluated before training and after each epoch; the test accuracy is that of the last epoch.
With --seed-like torch:42 it starts from the weights and sees the batches of the course's script.
"""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from homework import answers
from homework.flags import load_data, note_generated
from homework.networks import ACTIVATIONS, OPTIMIZERS, Settings, add_parity_flags, show_parity
from homework.online import THRESHOLDS
from homework.runs import single_run

import minidl
from minidl.checks import one_blas_thread, require
from minidl.files import as_path, to_json, write_text
from minidl.view.cli import Parser, float_argument, int_argument, run_main
from minidl.view.plots import Panel, line_plot

DATA = "emnist-letters.npz"


def train(settings: Settings, args: Namespace, **options: Any) -> tuple[minidl.History, float]:
    """Train the network that the flags describe; return its history and test accuracy."""
    model = settings.network([args.hidden_size] * args.layers, args.dropout)
    loss = minidl.CrossEntropy()
    history = settings.fit(model, loss, args.learning_rate, args.l2_decay, **options)
    test = minidl.evaluate(model, settings.dataset.splits["test"], loss)
    return history, test["accuracy"]


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
    source = f"default {DATA}, or without it generated letters"
    add("-data_path", "--data", dest="data", metavar="PATH", default=DATA, help=source)
    add("-model", default="ffn", help="the first word of the pictures' names")
    add("--full", action="store_true", help="all of the generated letters")
    add("--out", type=as_path, default=Path("runs/q2_warmup"), help="folder of the results")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add_parity_flags(parser)
    args = parser.parse_args()
    if args.backend == "both":
        require("torch", "parity")
    generated = args.data == DATA and not Path(DATA).exists()
    args.data = "letters" if generated else args.data
    dataset = load_data(args.data, full=args.full or not generated)
    print(dataset)
    note_generated(dataset, "--data PATH")
    names = ("epochs", "batch_size", "optimizer", "activation", "seed", "dtype")
    shared = {name: getattr(args, name) for name in names}
    settings = Settings(dataset, **shared, backend="numpy")
    flags = (
        f"batch-{args.batch_size}-lr-{args.learning_rate}-epochs-{args.epochs}-"
        f"hidden-{args.hidden_size}-dropout-{args.dropout}-l2-{args.l2_decay}-"
        f"layers-{args.layers}-act-{args.activation}-opt-{args.optimizer}"
    )
    file, record = f"{args.model}-checkpoint-{flags}.npz", f"{args.model}-run-{flags}.json"
    with single_run(args, dataset, names=[file], record=record) as (resumable,), one_blas_thread():
        callbacks = [minidl.Progress()]
        history, test = train(settings, args, callbacks=callbacks, **resumable)
        report(dataset, history, test, flags, args)
        if args.backend == "both":
            beside = train(replace(settings, backend="torch"), args)[0]
            picture = args.out / f"{args.model}-parity-{flags}.png"
            show_parity(picture, [(history, beside)], dataset.title)
    print(f"wrote the history and the pictures to {args.out}/")


def report(
    dataset: minidl.Dataset, history: minidl.History, test: float, flags: str, args: Namespace
) -> None:
    """Print and write the figures, the history, the curves and the answers."""
    last, best, epochs = history[-1], history.best, history.column("epoch")
    history.to_json(args.out / f"{args.model}-history-{flags}.json")
    figures = {"final_train": last.train_accuracy, "best_valid": best.valid_accuracy}
    figures |= {"best_epoch": best.epoch, "final_test": test}
    file = args.out / f"{args.model}-scores-{flags}.json"
    write_text(file, to_json(figures, indent=1) + "\n")
    print(f"{dataset.title}, initial training loss {history[0].train_loss:.6f}")
    print(f"Final Training Accuracy   {last.train_accuracy:.4f}")
    print(f"Best Validation Accuracy  {best.valid_accuracy:.4f}")
    print(f"Final Test Accuracy       {test:.4f}")
    drawn = {"training-loss": "loss (nats)", "validation-accuracy": "accuracy (share of examples)"}
    for name, label in drawn.items():
        parts, metric = {"training": "train", "validation": "valid"}, label.partition(" ")[0]
        curves = {k: (epochs, history.column(f"{part}_{metric}")) for k, part in parts.items()}
        for suffix in ("pdf", "png"):
            picture = args.out / f"{args.model}-{name}-{flags}.{suffix}"
            line_plot(picture, Panel(curves, "epoch", label, dataset.title))
    sentences = answers.of_run(history, **THRESHOLDS)
    answers.write(args.out, {f"{args.model}-validation-accuracy-{flags}": sentences})


if __name__ == "__main__":
    run_main(main)
