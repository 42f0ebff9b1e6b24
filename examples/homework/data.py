"""Choice of the data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from minidl import Dataset, load_dataset, load_letters

QUICK = {"train": 10_400, "valid": 2_600, "test": 2_600}
"""Sizes of a run without --full: 80 networks in about a minute on two cores."""


def load_data(
    source: str,
    *,
    full: bool,
    sizes: Mapping[str, int] = QUICK,
    generated: tuple[str, Callable[..., Dataset]] = ("letters", load_letters),
) -> Dataset:
    """Load a data set with classes and all three parts; a quick run takes a sample of it.

    The source may be the name of ``generated``, whose function draws examples.
    """
    name, draw = generated
    if source == name:
        return draw(**({} if full else sizes), progress=True)
    dataset = load_dataset(source, progress=True)
    if not dataset.classes or dataset.valid is None or dataset.test is None:
        raise ValueError(
            f"{source}: expected classes and training, validation and test parts, got {dataset}"
        )
    return dataset if full else dataset.sample(**sizes)


def about(dataset: Dataset) -> dict[str, Any]:
    """Return the name of a data set, its sizes and checksum, and whether it was generated."""
    return {
        "name": dataset.title,
        "generated": bool(dataset.generated),
        "examples": {part: len(split) for part, split in dataset.splits.items()},
        "features": dataset.features,
        "classes": dataset.classes,
        "sha256": dataset.checksum(),
    }


def note_generated(
    dataset: Dataset,
    flags: str = "--full --data PATH",
    *,
    name: str = "EMNIST",
    path: str = "the course's emnist-letters.npz or a folder with NIST's IDX files",
) -> None:
    """Print that generated images are not real data, and how to use real data."""
    if dataset.generated:
        print(
            f"These are generated {dataset.name}, not {name}; the real thing: {flags}, "
            f"where PATH is {path}.",
            flush=True,
        )
