"""Runs of a grid by the flags ``--jobs``, ``--shard`` and ``--executor``."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from homework.data import about
from minidl.dataset import Dataset
from minidl.files import temporary_folder
from minidl.grid.points import Grid, Point, Result, Shard
from minidl.grid.runner import run
from minidl.grid.workers import EXECUTORS, check_executor, connected
from minidl.view.cli import Parser


def add_grid_flags(parser: Parser) -> None:
    """Add ``--shard`` and ``--executor``."""
    parser.add_argument(
        "--shard",
        type=_shard,
        default=Shard.of_slurm(),
        metavar="I/N",
        help="train part I of N only (default: the task of a SLURM array)",
    )
    parser.add_argument(
        "--executor", type=_executor, default="processes", metavar="NAME", help=EXECUTORS
    )


def check_shard(parser: Parser, args: argparse.Namespace, grid: bool, needs: str) -> None:
    """Refuse ``--shard`` where there is no grid; the task of a SLURM array is then ignored."""
    if args.shard and not grid:
        if args.shard != Shard.of_slurm():
            parser.error(f"--shard needs {needs}")
        args.shard = None


def run_points(
    grid: Grid,
    train: Callable[..., Mapping[str, Any]],
    args: argparse.Namespace,
    *,
    dataset: Dataset | None = None,
    out: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    cost: Callable[[Point], float] = lambda point: 1.0,
) -> list[Result]:
    """Train every point of the grid, or of the shard, into the folder ``out`` (``args.out``).

    The name of the data set belongs to the settings of the folder. A shard has no table: it says
    how to get one.
    """
    out = out or args.out
    options: dict[str, Any] = {"shard": args.shard, "cost": cost, "settings": dict(settings or {})}
    if dataset:
        options["settings"]["data"] = dataset.name
        options["note"] = {"data": about(dataset)}
    with connected(args.executor, args.jobs) as executor:
        results = run(grid, train, out=out, jobs=args.jobs, executor=executor, **options)
    if args.shard:
        print(
            f"shard {args.shard}: {len(results)} of {len(grid)} runs, in {out}{os.sep}; the same "
            "command without --shard makes the table"
        )
    return results


@contextlib.contextmanager
def shared(dataset: Dataset, args: argparse.Namespace) -> Iterator[Dataset]:
    """Yield the data set mapped into memory, one copy of the pixels for all workers.

    Executors may have workers on other machines, which see the folder ``args.out`` only.
    """
    here = args.executor == "processes"
    mapped = all(split.file is not None for split in dataset.splits.values())
    if mapped or (here and args.jobs == 1):
        yield dataset
        return
    with temporary_folder(None if here else args.out) as folder:
        yield dataset.mapped(folder)


def _shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _executor(text: str) -> str:
    try:
        return check_executor(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
