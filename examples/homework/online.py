"""Parts of Question 1, in which models train on one example at a time.

The course's rules: pixels are divided by 256; a constant feature comes last (here it is the
first layer's bias); ``numpy.random.RandomState(seed)`` draws the initial weights and then, before
each epoch, a permutation of the order of the epoch before; penalties apply to all weights; the
best checkpoint is the last one with the highest validation accuracy.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from homework.data import load_data, note_generated
from homework.flags import add_number, base_parser
from homework.published import compare, is_course_file
from minidl import checkpoint
from minidl.cli import Parser
from minidl.data import Dataset
from minidl.data.features import PCA, Feature
from minidl.files import write_text
from minidl.history import History
from minidl.layer import Layer, Sequential
from minidl.losses import Loss
from minidl.plots import weight_sheet
from minidl.training import evaluate

EPOCHS = 20


def make_parser(description: str, out: str, *, dtype: str) -> Parser:
    """Return a parser with the flags of all scripts of this question."""
    parser = base_parser(description, out, epochs=f"default {EPOCHS}")
    add_number(parser, "--seed", 42, "of weights and order", low=0)
    parser.set_defaults(dtype=dtype, epochs=EPOCHS)
    return parser


def load(args: argparse.Namespace) -> Dataset:
    """Load the data set that the flags name and print a description."""
    dataset = load_data(args.data, full=args.full)
    print(f"{dataset}; {args.epochs} epochs, one example at a time", flush=True)
    note_generated(dataset)
    return dataset


@contextlib.contextmanager
def keep_finished_epochs(history: History, epochs: int) -> Iterator[None]:
    """Let Ctrl-C end the training in this context, so that its finished epochs are reported."""
    try:
        yield
    except KeyboardInterrupt:
        if not history.records:
            raise
        ended = f"{len(history) - 1} of {epochs} epochs ended and are kept"
        print(f"\ninterrupted: {ended}; the same command trains anew", flush=True)


def scores(
    model: Layer, dataset: Dataset, loss: Loss, history: History, seconds: float
) -> dict[str, Any]:
    """Return the figures of the course's ``scores.json``, and which data they belong to."""
    return {
        "best_valid": history.best.valid_accuracy,
        "selected_epoch": history.best.epoch,
        "test": evaluate(model, dataset.splits["test"], loss)[1],
        "time": seconds,
        "data": dataset.name,
        "generated": dataset.generated,
    }


def report(
    name: str,
    model: Layer,
    dataset: Dataset,
    loss: Loss,
    history: History,
    args: argparse.Namespace,
    *,
    loss_unit: str = "nats",
    pixels: Feature | None = None,
) -> None:
    """Print and write the scores of the best weights, the curves, and pictures of the weights.

    ``pixels`` is the map from pixels to the features that the model was trained on.
    """
    out: Path = args.out
    figures = scores(model, dataset, loss, history, sum(history.column("seconds")))
    write_text(out / "scores.json", json.dumps(figures, indent=1) + "\n")
    history.to_csv(out / "history.csv")
    checkpoint.save(out / "best.npz", model, history=history)
    title = f"{name}, {dataset.title}"
    print(f"{title}: best epoch {figures['selected_epoch']} of {history[-1].epoch}")
    print(f"  validation accuracy {figures['best_valid']:.4f}")
    print(f"  test accuracy       {figures['test']:.4f}   ({figures['time']:.1f} s)")
    compare(name, figures, args.data)
    history.plot(out / "curves.png", title=title, loss_unit=loss_unit)
    draw_weights(out / "weights.png", model, dataset, args.data, title, pixels)
    print(f"wrote scores.json, history.csv, best.npz and pictures to {out}{os.sep}")


def draw_weights(
    path: Path,
    model: Layer,
    dataset: Dataset,
    source: str,
    title: str,
    pixels: Feature | None = None,
) -> None:
    """Draw the first layer's weights as images, one for each class or hidden unit.

    Weights of principal components are drawn as the equivalent weights of the pixels.
    Features that are no square image are not drawn.
    """
    first = model.layers[0] if isinstance(model, Sequential) else model
    weights = first.weight.value.T  # type: ignore[attr-defined]
    if isinstance(pixels, PCA):
        weights = weights @ pixels.components
    side = round(weights.shape[1] ** 0.5)
    if side * side != weights.shape[1]:
        return
    images = weights.reshape(-1, side, side)
    if dataset.transposed or is_course_file(source):
        images = images.transpose(0, 2, 1)
    n = len(images)
    letters = n == len(string.ascii_uppercase) and first is model
    labels = list(string.ascii_uppercase) if letters else [str(i) for i in range(n)]
    content = "one image a class" if first is model else "one image a hidden unit"
    weight_sheet(path, images, labels, title=f"{title}: {content}")
