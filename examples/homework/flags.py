"""Command-line flags that the scripts share, and the data set that they name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from homework.runs import cores
from minidl import Dataset, load_dataset, load_letters
from minidl.files import as_path
from minidl.view.cli import Parser, float_argument, int_argument

QUICK = {"train": 10_400, "valid": 2_600, "test": 2_600}
"""Sizes of a run without --full: 80 networks in about a minute on two cores."""


def load_data(
    source: str,
    *,
    full: bool,
    sizes: Mapping[str, int] = QUICK,
    generated: tuple[str, Callable[..., Dataset]] = ("letters", load_letters),
) -> Dataset:
    """Load, or draw if the source is the name of ``generated``, a data set or a sample of it."""
    name, draw = generated
    if source == name:
        return draw(**({} if full else sizes), progress=True)
    dataset = load_dataset(source, progress=True)
    if not dataset.classes or dataset.valid is None or dataset.test is None:
        expected = "classes and training, validation and test parts"
        raise ValueError(f"{source}: expected {expected}, got {dataset}")
    return dataset if full else dataset.sample(**sizes)


def note_generated(
    dataset: Dataset,
    flags: str = "--full --data PATH",
    *,
    name: str = "EMNIST",
    path: str = "the course's emnist-letters.npz or a folder with NIST's IDX files",
) -> None:
    """Print that generated images are not real data, and how to use real data."""
    if dataset.generated:
        real = f"the real thing: {flags}, where PATH is {path}."
        print(f"These are generated {dataset.name}, not {name}; {real}", flush=True)


def script_parser(doc: str, out: str) -> Parser:
    """Return a parser with the first line of a script's docstring, and ``--out``."""
    parser = Parser(description=doc.splitlines()[0], allow_abbrev=False)
    text = f"folder of the results (default {out})"
    parser.add_argument("--out", type=as_path, default=Path(out), help=text)
    return parser


def base_parser(doc: str, out: str, *, epochs: str, seed: bool = True) -> Parser:
    """Return a parser with the flags of every experiment; ``epochs`` describes the default."""
    parser = script_parser(doc, out)
    add = parser.add_argument
    add("--data", default="letters", metavar="PATH", help="course .npz or folder of IDX files")
    if seed:
        add_number(parser, "--seed", 42, "of weights and order", low=0)
    add("--full", action="store_true", help="all examples and epochs")
    add("--epochs", type=int_argument("epochs"), help=epochs)
    add("--jobs", type=int_argument("jobs"), default=cores(), help="default: one a core")
    add("--dtype", choices=("float32", "float64"), default="float32")
    return parser


def kernel_parser(doc: str, out: str) -> Parser:
    """Return a parser with the flags of the scripts on infinite width."""
    parser, text = script_parser(doc, out), "course .npz or folder of IDX files"
    parser.add_argument("--data", default="letters", metavar="PATH", help=text)
    add_number(parser, "--sw2", 2.0, "variance of a weight times the inputs", low=0, open_low=True)
    add_number(parser, "--sb2", 0.0, "variance of a bias", low=0)
    return parser


def add_number(parser: Parser, flag: str, default: float, help: str, **bounds: Any) -> None:
    """Add a flag that takes one number: an integer if the default is one."""
    kind = int_argument if isinstance(default, int) else float_argument
    name = flag.strip("-").replace("-", " ")
    text = f"{help} (default {default:g})"
    parser.add_argument(flag, type=kind(name, **bounds), default=default, help=text)


def add_axis(
    parser: Parser, flag: str, default: list[Any], *, name: str = "", **bounds: Any
) -> None:
    """Add a flag that takes the values of one axis; ``name`` is the name of one value."""
    kind = int_argument if isinstance(default[0], int) else float_argument
    name = name or flag.strip("-").removesuffix("s").replace("-", " ")
    parser.add_argument(flag, nargs="+", type=kind(name, **bounds), default=default, metavar="X")
