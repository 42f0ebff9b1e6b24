"""What the experiments' command lines share: flags, and the data that they name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from minidl.cli import Parser, float_argument, int_argument
from minidl.data import Dataset, load_dataset, load_letters

QUICK = {"train": 10_400, "valid": 2_600, "test": 2_600}
"""Examples of a run without --full: 80 networks in about a minute on two cores."""


def base_parser(description: str, out: str, *, epochs: str) -> Parser:
    """The flags of every experiment; ``epochs`` says what the default is."""
    parser = Parser(description=description, allow_abbrev=False)
    add = parser.add_argument
    add("--data", default="letters", metavar="PATH", help="course .npz or folder of IDX files")
    add("--full", action="store_true", help="all examples and epochs")
    add("--epochs", type=int_argument("epochs"), help=epochs)
    add("--jobs", type=int_argument("jobs"), default=_cores(), help="default: one a core")
    add("--out", type=Path, default=Path(out), help=f"folder of the results (default {out})")
    add("--dtype", choices=("float32", "float64"), default="float32")
    return parser


def add_number(parser: Parser, flag: str, default: float, help: str, **bounds: Any) -> None:
    """A flag that takes one number: a whole one if the default is."""
    kind = int_argument if isinstance(default, int) else float_argument
    name = flag.strip("-").replace("-", " ")
    parser.add_argument(
        flag, type=kind(name, **bounds), default=default, help=f"{help} (default {default:g})"
    )


def add_axis(
    parser: Parser, flag: str, default: list[Any], *, name: str = "", **bounds: Any
) -> None:
    """A flag that takes the values of one axis of the grid; ``name`` is that of one value."""
    kind = int_argument if isinstance(default[0], int) else float_argument
    name = name or flag.strip("-").removesuffix("s").replace("-", " ")
    parser.add_argument(flag, nargs="+", type=kind(name, **bounds), default=default, metavar="X")


def load_data(source: str, *, full: bool) -> Dataset:
    """All of a data set, or as much of it as a quick run takes; with classes and all parts."""
    if source == "letters" and not full:
        return load_letters(**QUICK, progress=True)
    dataset = load_dataset(source, progress=True)
    if not dataset.classes or dataset.valid is None or dataset.test is None:
        raise ValueError(
            f"{source}: expected classes and training, validation and test parts, got {dataset}"
        )
    return dataset if full else dataset.sample(**QUICK)


def note_generated(dataset: Dataset, flags: str = "--full --data PATH") -> None:
    """Say so where the examples are not real, and how to get those that are."""
    if dataset.generated:
        print(
            f"These are generated letters, not EMNIST; the real thing: {flags}, where "
            "PATH is the course's emnist-letters.npz or a folder with NIST's IDX files.",
            flush=True,
        )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
