"""Train one feed-forward network, with the flags and defaults of the course (Question 2.1).

Evaluated before training and after each epoch; the test accuracy is that of the last epoch.
With --seed-like torch:42 it starts from the weights and sees the batches of the course's script.
"""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from homework import answers
from homework.backends import (
    add_parity_flags,
    check_backend,
    fit_with,
    new_rng,
    plot_parity,
    print_parity,
)
from homework.data import load_data, note_generated
from homework.networks import ACTIVATIONS, OPTIMIZERS
from homework.runs import single_run

from minidl import (
    Callback,
    CrossEntropy,
    Dataset,
    Dropout,
    History,
    Layer,
    Linear,
    Progress,
    Sequential,
    evaluate,
)
from minidl.checks import one_blas_thread
from minidl.files import as_path, to_json, write_text
from minidl.view.cli import Parser, float_argument, int_argument, run_main
from minidl.view.plots import Panel, line_plot

DATA = "emnist-letters.npz"
# For the answers: accuracies that have settled, differ or fit; a loss that rises.
SETTLED, GAP, RISE, FITS = 0.01, 0.03, 0.02, 0.9


def train(
    dataset: Dataset,
    args: Namespace,
    backend: str,
    callbacks: Sequence[Callback] = (),
    options: Mapping[str, Any] | None = None,
) -> tuple[History, float | None]:
    """Train the network that the flags describe; return its history and test accuracy."""
    hidden: list[Layer] = []
    for i in range(args.layers):
        hidden += [
            Linear(args.hidden_size if i else dataset.features, args.hidden_size),
            ACTIVATIONS[args.activation](),
            Dropout(args.dropout),
        ]
    output = Linear(args.hidden_size, dataset.classes)
    model = Sequential(*hidden, output, rng=new_rng(args.seed), dtype=args.dtype)
    loss = CrossEntropy()
    optimizer = OPTIMIZERS[args.optimizer](model, args.learning_rate, weight_decay=args.l2_decay)
    fit = fit_with(backend)  # minidl.fit, or the same computed by PyTorch
    with one_blas_thread():
        history = fit(
            model,
            dataset,
            loss,
            optimizer,
            epochs=args.epochs,
            batch_size=args.batch_size,
            rng=new_rng(args.seed),
            callbacks=callbacks,
            **(options or {}),
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
    check_backend(args.backend)

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
    checkpoint, record = (f"{args.model}-{word}-{settings}" for word in ("checkpoint", "run"))
    names = [f"{checkpoint}.npz"]
    with single_run(args, dataset, names=names, record=f"{record}.json") as (resumable,):
        history, test = train(dataset, args, "numpy", [Progress()], resumable)
        beside = train(dataset, args, "torch")[0] if args.backend == "both" else None
        report(dataset, history, test, beside, settings, args)


def report(
    dataset: Dataset,
    history: History,
    test: float | None,
    beside: History | None,
    settings: str,
    args: Namespace,
) -> None:
    """Print the figures, and write the history and the curves; ``beside`` is PyTorch's run."""
    history.to_json(args.out / f"{args.model}-history-{settings}.json")
    figures = {
        "final_train": history[-1].train_accuracy,
        "best_valid": history.best.valid_accuracy,
        "best_epoch": history.best.epoch,
        "final_test": test,
    }
    scores = args.out / f"{args.model}-scores-{settings}.json"
    write_text(scores, to_json(figures, indent=1) + "\n")
    title = dataset.title
    print(f"{title}, initial training loss {history[0].train_loss:.6f}")
    print(f"Final Training Accuracy   {history[-1].train_accuracy:.4f}")
    print(f"Best Validation Accuracy  {history.best.valid_accuracy:.4f}")
    print(f"Final Test Accuracy       {test:.4f}")
    parts = {"training": "train", "validation": "valid"}
    for name, metric, label in (
        ("training-loss", "loss", "loss (nats)"),
        ("validation-accuracy", "accuracy", "accuracy (share of examples)"),
    ):
        curves = {
            words: (history.column("epoch"), history.column(f"{part}_{metric}"))
            for words, part in parts.items()
        }
        for suffix in ("pdf", "png"):
            file = args.out / f"{args.model}-{name}-{settings}.{suffix}"
            line_plot(file, Panel(curves, "epoch", label, title))
    if beside is not None:
        plot_parity(args.out / f"{args.model}-parity-{settings}.png", history, beside, title)
        print_parity([(history, beside)])
    sentences = [
        answers.convergence(
            "Validation accuracy", history.column("valid_accuracy"), last=5, small=SETTLED
        ),
        answers.overfitting(history, gap=GAP, rise=RISE, fits=FITS),
    ]
    answers.write(args.out, {f"{args.model}-validation-accuracy-{settings}": sentences})
    print(f"wrote the history and the pictures to {args.out}/")


if __name__ == "__main__":
    run_main(main)
