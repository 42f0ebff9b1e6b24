"""Data, published figures and the grid of Fashion-MNIST in 2021-22."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from homework.data import load_data
from minidl.data.letters import load_letters
from minidl.dataset import Dataset, Split
from minidl.grid.points import Grid, Point

CHECKSUM = "4a1c3cbe9e9a0660dc03acf48040e57b7cc92eb49e11ff9c2bbba846179ce1fe"
"""``Dataset.checksum()`` of Fashion-MNIST in the course's split."""

PUBLISHED: Mapping[tuple[str, ...], str] = {
    ("perceptron",): "validation between 0.72 and 0.82",
    ("logistic", "zeros", "0.001"): "test about 0.84",
    ("mlp", "200"): "test 0.86 to 0.87, validation above 0.87",
    ("logistic", "pytorch", "0.001"): "test 0.8388",
    ("ffn", "0.001", "200", "0.3", "relu", "sgd", "1"): "test 0.8795",
    ("ffn", "0.01", "200", "0.3", "relu", "sgd", "2"): "test 0.8753",
    ("ffn", "0.01", "200", "0.3", "relu", "sgd", "3"): "test 0.8608",
}
"""Figures of reports by the settings that they belong to; all are of 20 epochs, batch size 1."""


def load_fashion(source: str, *, full: bool, sizes: Mapping[str, int]) -> Dataset:
    """Load a data set; the training images of IDX files are split as the course's script does.

    That is ``train_test_split(train_size=50_000, random_state=42)``: of a permutation by
    ``RandomState(42)`` the first sixth is for validation. Without ``full`` it is a sample.
    """
    if source == "letters" and not full:
        return load_letters(**sizes, progress=True)
    dataset = load_data(source, full=True)
    if Path(source).is_dir():
        x, y = (
            np.concatenate([getattr(dataset.splits[part], name) for part in ("train", "valid")])
            for name in ("x", "y")
        )
        order, n = np.random.RandomState(42).permutation(len(y)), len(y) // 6
        scale = dataset.train.scale
        dataset = replace(
            dataset,
            train=Split(x[order[n:]], y[order[n:]], scale),
            valid=Split(x[order[:n]], y[order[:n]], scale),
        )
    return dataset if full else dataset.sample(**sizes)


def published(dataset: Dataset, epochs: int, *settings: object) -> str | None:
    """Return the published figure for these settings, None if there is none for this run."""
    key = tuple(f"{s:g}" if isinstance(s, float) else str(s) for s in settings)
    if epochs != 20 or key not in PUBLISHED or dataset.checksum() != CHECKSUM:
        return None
    return PUBLISHED[key]


class OneChange(Grid):
    """The points that differ from the first value of each axis on one axis at most.

    ``everything`` takes all points of the first number of layers. Networks with other numbers of
    layers have the learning rate ``deep`` and the first values of the other axes.
    """

    def __init__(self, everything: bool, deep: float, **axes: Sequence[Any]) -> None:
        super().__init__(**axes)
        self.everything, self.deep = everything, deep

    def __iter__(self) -> Iterator[Point]:
        first = {name: values[0] for name, values in self.axes.items()}
        for point in super().__iter__():
            changes = sum(point[name] != first[name] for name in first)
            if point["layers"] == first["layers"] and (self.everything or changes <= 1):
                yield point
        for layers in self.axes["layers"][1:]:
            yield {**first, "learning_rate": self.deep, "layers": layers}

    def __len__(self) -> int:
        return sum(1 for _ in self)
