"""Parts of Question 1, in which models train on one example at a time.

The course's rules: pixels are divided by 256; a constant feature comes last (here it is the
first layer's bias); ``numpy.random.RandomState(seed)`` draws the initial weights and then, before
each epoch, a permutation of the order of the epoch before; penalties apply to all weights. The
best checkpoint is the first one with the highest validation accuracy: the assignment saves one only
if the accuracy is higher.
"""

from __future__ import annotations

import argparse
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from homework import answers
from homework.figures import both_epochs
from homework.flags import base_parser, load_data, note_generated
from homework.published import is_course_file, tabulate_published
from minidl import PCA, Checkpoint, Dataset, History, Layer, Sequential
from minidl.checks import Array
from minidl.data.features import Feature
from minidl.files import to_json, write_text
from minidl.view.cli import Parser
from minidl.view.plots import described, figure, save

EPOCHS = 20
THRESHOLDS = {"settled": 0.01, "gap": 0.03, "rise": 0.02, "fits": 0.9}
"""Of the answers in words, see ``homework.answers``."""


def make_parser(doc: str, out: str, *, dtype: str) -> Parser:
    """Return a parser with the flags of all scripts of this question."""
    parser = base_parser(doc, out, epochs=f"default {EPOCHS}")
    parser.set_defaults(dtype=dtype, epochs=EPOCHS)
    return parser


def load(args: argparse.Namespace) -> Dataset:
    """Load the data set that the flags name and print a description.

    The images of the course's file stand column by column, which it does not say.
    """
    dataset = load_data(args.data, full=args.full)
    if is_course_file(args.data):
        dataset = replace(dataset, transposed=True)
    print(f"{dataset}; {args.epochs} epochs, one example at a time", flush=True)
    note_generated(dataset)
    return dataset


def scores(
    dataset: Dataset, history: History, test: Sequence[float], **seconds: float
) -> dict[str, Any]:
    """Return the figures of the course's ``scores.json``, those of the last epoch, and the data.

    ``test`` holds the test accuracies of all epochs.
    """
    data = {"data": dataset.name, "generated": dataset.generated}
    return {**both_epochs(history, test), **seconds, **data}


def report(
    name: str,
    model: Layer,
    dataset: Dataset,
    history: History,
    test: Sequence[float],
    args: argparse.Namespace,
    *,
    settings: Mapping[str, Any] | None = None,
    loss_unit: str = "nats",
    pixels: Feature | None = None,
) -> list[str]:
    """Print and write the figures, the curves, and pictures of the weights of the best epoch.

    ``test`` holds the test accuracies of all epochs. ``settings`` are compared with those of
    published runs. ``pixels`` is the map from pixels to the features that the model was trained
    on. Return what the curves say.
    """
    out: Path = args.out
    history.restore_best(model)
    figures = scores(dataset, history, test, time=sum(history.column("seconds")))
    write_text(out / "scores.json", to_json(figures, indent=1) + "\n")
    history.to_csv(out / "history.csv")
    Checkpoint(out / "best.npz").save(model=model, history=history)
    title, last = f"{name}, {dataset.title}", history[-1].epoch
    print(f"{title}: {last} epochs in {figures['time']:.1f} s")
    for word, epoch, prefix in (("best", figures["selected_epoch"], ""), ("last", last, "last_")):
        parts = f"train {figures[prefix + 'train']:.4f}  test {figures[prefix + 'test']:.4f}"
        valid = history[epoch].valid_accuracy
        print(f"  {word} epoch {epoch:<4} validation {valid:.4f}  {parts}")
    runs = [({"epochs": last, **(settings or {})}, figures)]
    tabulate_published(name, runs, dataset, out)
    history.plot(out / "curves", title=title, loss_unit=loss_unit)
    draw_weights(out / "weights.png", model, dataset, title, pixels)
    print(f"wrote scores.json, history.csv, best.npz and pictures to {out}/")
    return answers.of_run(history, **THRESHOLDS)


def draw_weights(
    path: Path, model: Layer, dataset: Dataset, title: str, pixels: Feature | None = None
) -> None:
    """Draw the first layer's weights as images, one for each class or hidden unit.

    Weights of principal components are drawn as the equivalent weights of the pixels.
    Features that are no square image are not drawn.
    """
    first = model.layers[0] if isinstance(model, Sequential) else model
    weights = first.weight.value.T  # type: ignore[attr-defined]
    if isinstance(pixels, PCA):
        weights = weights @ pixels.components
    n, side = len(weights), round(weights.shape[1] ** 0.5)
    if side * side != weights.shape[1]:
        return
    images = weights.reshape(-1, side, side)
    labels = [str(i) for i in range(n)]
    if n == len(string.ascii_uppercase) and first is model:
        labels = list(string.ascii_uppercase)
    content = "one image a class" if first is model else "one image a hidden unit"
    images = images.swapaxes(1, 2) if dataset.transposed else images
    weight_sheet(path, images, labels, title=f"{title}: {content}")


def weight_sheet(path: Path, weights: Array, labels: Sequence[str], *, title: str = "") -> None:
    """Draw weights of shape ``(n, height, width)``: 0 white, negative blue, positive red."""
    across = math.ceil(math.sqrt(1.6 * len(weights)))
    down = -(-len(weights) // across)
    picture = figure(0.9 * across + 1.2, 1.05 * down + 0.6)
    grid = picture.subplots(down, across, squeeze=False).ravel()
    limit = max(float(np.abs(weights).max()), 1e-12)
    for axes in grid:
        axes.set_axis_off()
    for axes, image, label in zip(grid, weights, labels, strict=False):
        drawn = axes.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(label, fontsize=8, pad=2)
    picture.colorbar(drawn, ax=list(grid), label="weight", shrink=0.8)
    picture.suptitle(title, fontsize=10)
    ends = f"from {weights.min():.3g} to {weights.max():.3g}"
    shown = f"{len(weights)} images of weights {ends}: below 0 blue, above red."
    save(picture, path, described(title, shown))
