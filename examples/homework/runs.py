"""Runs that go on where they stopped, alone or as a grid, in a folder that belongs to them."""

from __future__ import annotations

import argparse
import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import minidl
from homework.flags import about
from homework.sessions import session
from minidl import Checkpoint, Dataset
from minidl.checks import require
from minidl.data.cache import MappedSplit
from minidl.grid.folder import RECORD, RESULTS, claimed, kept, taken
from minidl.grid.points import Grid, Point, Result
from minidl.saving.describe import describe
from minidl.view.cli import Interrupted, Parser

RUN = "run.json"
NO_SETTINGS = {"out", "epochs", "jobs"}
"""The flags on which the results of an epoch do not depend."""
PROCESSES = "processes"
EXECUTORS = "processes or dask://HOST:PORT"


@contextlib.contextmanager
def single_run(
    args: argparse.Namespace,
    dataset: Dataset | None = None,
    *,
    names: Sequence[str] = ("checkpoint.npz",),
    record: str = RUN,
) -> Iterator[list[dict[str, Any]]]:
    """Claim the folder ``args.out`` for a run with these flags, and note where and when it ran.

    Yield for each training, of which ``names`` are the checkpoints, the arguments of ``fit`` or
    ``fit_online`` with which the same command goes on after it was stopped. Results are written
    within this context, after the training: so they are replaced only by a run that ended, and by
    one with the same settings, those in the file ``record``. More epochs may be asked for.
    """
    given, out = vars(args), Path(args.out)
    settings = {k: describe(v, strict=False) for k, v in given.items() if k not in NO_SETTINGS}
    files = [out / name for name in names]
    note: dict[str, Any] = {"record": record, "processes": 1, "threads": 1}
    note |= {"settings": {"epochs": args.epochs}} if "epochs" in given else {}
    note |= {"data": about(dataset)} if dataset else {}
    if kept(out):
        raise taken(out, f"those of a grid, see {RECORD}")
    with (
        claimed(out / record, settings, {}, lambda: any(file.exists() for file in files)),
        session(out, *files, note=note),
    ):
        try:
            yield [{"checkpoint": Checkpoint(file, resume=True)} for file in files]
        except KeyboardInterrupt as error:
            written = [str(file) for file in files if file.exists()]
            where = f"the epochs that ended are kept in {written[-1]}" if written else ""
            text = f"stopped: {where or 'no epoch had ended'}; the same command resumes"
            raise Interrupted(text) from error


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
    executor = getattr(args, "executor", PROCESSES)
    note: dict[str, Any] = {"processes": args.jobs if executor == PROCESSES else executor}
    note |= {"threads": 1} | ({"data": about(dataset)} if dataset else {})
    settings = {"data": dataset.name} if dataset else {}
    options: dict[str, Any] = {"jobs": args.jobs, "settings": settings, "cost": cost}
    with session(out, out / RESULTS, note=note), _connected(executor) as pool:
        return minidl.grid.run(grid, train, out=out, executor=pool, **options)


def add_executor(parser: Parser) -> None:
    """Add ``--executor``."""
    add = parser.add_argument
    add("--executor", type=_executor, default=PROCESSES, metavar="NAME", help=EXECUTORS)


def _executor(text: str) -> str:
    if text != PROCESSES and not re.fullmatch(r"dask://[^/]+:\d+", text):
        raise argparse.ArgumentTypeError(f"expected the executor to be {EXECUTORS}, got {text!r}")
    return text


@contextlib.contextmanager
def _connected(name: str) -> Iterator[Executor | None]:
    """Yield the executor of a Dask cluster, which goes on running; None for processes here."""
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
    mapped = all(isinstance(split, MappedSplit) for split in dataset.splits.values())
    if mapped or (here and args.jobs == 1):
        yield dataset
        return
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=None if here else args.out) as folder:
        yield minidl.data.mapped(dataset, folder)
