"""Runs of a grid by the flag ``--jobs``, and ``--executor`` where a script has it."""

from __future__ import annotations

import argparse
import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import minidl
from homework.data import about
from homework.runs import RUN
from homework.sessions import session
from minidl.checks import require
from minidl.dataset import Dataset
from minidl.grid.folder import RESULTS, taken
from minidl.grid.points import Grid, Point, Result
from minidl.grid.runner import run
from minidl.view.cli import Parser

PROCESSES = "processes"
EXECUTORS = "processes or dask://HOST:PORT"


def add_executor(parser: Parser) -> None:
    """Add ``--executor``."""
    parser.add_argument(
        "--executor", type=_executor, default=PROCESSES, metavar="NAME", help=EXECUTORS
    )


def run_points(
    grid: Grid,
    train: Callable[..., Mapping[str, Any]],
    args: argparse.Namespace,
    *,
    dataset: Dataset | None = None,
    out: Path | None = None,
    cost: Callable[[Point], float] = lambda point: 1.0,
) -> list[Result]:
    """Train every point of the grid into the folder ``out`` (``args.out``), and note the session.

    The name of the data set belongs to the settings of the folder. The folder of a single run is
    refused.
    """
    out = out or args.out
    if (out / RUN).exists() and any(out.glob("*checkpoint*.npz")):
        raise taken(out, f"those of a single run, see {RUN}")
    settings: dict[str, Any] = {}
    note: dict[str, Any] = {"processes": args.jobs, "threads": 1}
    executor = getattr(args, "executor", PROCESSES)
    if executor != PROCESSES:
        note["processes"] = executor
    if dataset:
        settings["data"] = dataset.name
        note["data"] = about(dataset)
    options: dict[str, Any] = {"jobs": args.jobs, "settings": settings, "cost": cost}
    with session(out, out / RESULTS, note=note), connected(executor) as pool:
        return run(grid, train, out=out, executor=pool, **options)


@contextlib.contextmanager
def connected(name: str) -> Iterator[Executor | None]:
    """Yield the executor of a Dask cluster, ``"dask://HOST:PORT"``; None for ``"processes"``.

    The cluster goes on running. OSError if no scheduler answers.
    """
    if name == PROCESSES:
        yield None
        return
    address = f"tcp://{name.removeprefix('dask://')}"
    with require("distributed", "cluster").Client(address, set_as_default=False) as client:
        yield client.get_executor()


@contextlib.contextmanager
def shared(dataset: Dataset, args: argparse.Namespace) -> Iterator[Dataset]:
    """Yield the data set mapped into memory, one copy of the pixels for all workers.

    Executors may have workers on other machines, which see the folder ``args.out`` only.
    """
    here = getattr(args, "executor", PROCESSES) == PROCESSES
    mapped = all(split.file is not None for split in dataset.splits.values())
    if mapped or (here and args.jobs == 1):
        yield dataset
        return
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=None if here else args.out) as folder:
        yield minidl.data.mapped(dataset, folder)


def _executor(text: str) -> str:
    if text != PROCESSES and not re.fullmatch(r"dask://[^/]+:\d+", text):
        raise argparse.ArgumentTypeError(f"expected the executor to be {EXECUTORS}, got {text!r}")
    return text
