"""Train one feed-forward network, with the flags and defaults of the course (Question 2.1).

Evaluated before training and after each epoch; the test accuracy is that of the last epoch.
With --seed-like torch:42 it starts from the weights and sees the batches of the course's script.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

from homework import answers
from homework.backends import add_parity_flags, fit_with, new_rng, plot_parity, print_parity
from homework.data import load_data, note_generated
from homework.models import feed_forward
from homework.networks import ACTIVATIONS, OPTIMIZERS
from homework.runs import single_run

from minidl import CrossEntropy, Dataset, History, Progress, evaluate
from minidl.checks import one_blas_thread, require
from minidl.files import as_path, to_json, write_text
from minidl.view.cli import Parser, float_argument, int_argument, run_main
from minidl.view.plots import Panel, line_plot

DATA = "emnist-letters.npz"
THRESHOLDS = {"settled": 0.01, "gap": 0.03, "rise": 0.02, "fits": 0.9}
"""Of the answers in words, see ``homework.answers``."""


def train(dataset: Dataset, args: Namespace, backend: str, **options: Any) -> tuple[History, float]:
    """Train the network that the flags describe; return its history and test accuracy."""
    model = feed_forward(
        dataset,
        [args.hidden_size] * args.layers,
        ACTIVATIONS[args.activation],
        dropout=args.dropout,
        rng=new_rng(args.seed),
        dtype=args.dtype,
    )
    loss = CrossEntropy()
    optimizer = OPTIMIZERS[args.optimizer](model, args.learning_rate, weight_decay=args.l2_decay)
    fit = fit_with(backend)  # minidl.fit, or the same computed by PyTorch
    history = fit(
        model,
        dataset,
        loss,
        optimizer,
        epochs=args.epochs,
        batch_size=args.batch_size,
        rng=new_rng(args.seed),
        **options,
    )
    return history, evaluate(model, dataset.splits["test"], loss)["accuracy"]


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

    settings = (
        f"batch-{args.batch_size}-lr-{args.learning_rate}-epochs-{args.epochs}-"
        f"hidden-{args.hidden_size}-dropout-{args.dropout}-l2-{args.l2_decay}-"
        f"layers-{args.layers}-act-{args.activation}-opt-{args.optimizer}"
    )
    names = [f"{args.model}-checkpoint-{settings}.npz"]
    record = f"{args.model}-run-{settings}.json"
    with single_run(args, dataset, names=names, record=record) as (resumable,), one_blas_thread():
        history, test = train(dataset, args, "numpy", callbacks=[Progress()], **resumable)
        beside = train(dataset, args, "torch")[0] if args.backend == "both" else None
        report(dataset, history, test, beside, settings, args)


def report(
    dataset: Dataset,
    history: History,
    test: float,
    beside: History | None,
    settings: str,
    args: Namespace,
) -> None:
    """Print the figures, and write the history and the curves; ``beside`` is PyTorch's run."""

    def path(word: str, suffix: str = "") -> Path:
        return Path(args.out / f"{args.model}-{word}-{settings}{suffix}")

    history.to_json(path("history", ".json"))
    figures = {
        "final_train": history[-1].train_accuracy,
        "best_valid": history.best.valid_accuracy,
        "best_epoch": history.best.epoch,
        "final_test": test,
    }
    write_text(path("scores", ".json"), to_json(figures, indent=1) + "\n")
    print(f"{dataset.title}, initial training loss {history[0].train_loss:.6f}")
    print(f"Final Training Accuracy   {history[-1].train_accuracy:.4f}")
    print(f"Best Validation Accuracy  {history.best.valid_accuracy:.4f}")
    print(f"Final Test Accuracy       {test:.4f}")
    labels = {"loss": "loss (nats)", "accuracy": "accuracy (share of examples)"}
    for name, metric in (("training-loss", "loss"), ("validation-accuracy", "accuracy")):
        curves = {
            words: (history.column("epoch"), history.column(f"{part}_{metric}"))
            for words, part in (("training", "train"), ("validation", "valid"))
        }
        for suffix in (".pdf", ".png"):
            panel = Panel(curves, "epoch", labels[metric], dataset.title)
            line_plot(path(name, suffix), panel)
    if beside is not None:
        plot_parity(path("parity", ".png"), history, beside, dataset.title)
        print_parity([(history, beside)])
    sentences = answers.of_run(history, **THRESHOLDS)
    answers.write(args.out, {path("validation-accuracy").name: sentences})
    print(f"wrote the history and the pictures to {args.out}/")


if __name__ == "__main__":
    run_main(main)
