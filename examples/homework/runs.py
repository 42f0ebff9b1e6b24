"""Runs that go on where they stopped, alone or as a grid, in a folder that belongs to them.

The folder has one line of JSON for each session of a script in ``sessions.jsonl``. They say where
and when, and are never compared when a run resumes: another machine may go on with it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

import minidl
from minidl import Checkpoint, Dataset
from minidl.checks import require
from minidl.data.cache import MappedSplit
from minidl.files import to_json
from minidl.grid.folder import RECORD, RESULTS, claimed, kept, taken
from minidl.grid.points import Grid, Point, Result
from minidl.saving.describe import describe

RUN, SESSIONS = "run.json", "sessions.jsonl"
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

    Yield for each training, of which ``names`` are the checkpoints, the arguments of ``fit`` with
    which the same command goes on after it was stopped, or with more epochs. Results are written
    within this context: they are replaced only by a run with the same settings, which ended.
    """
    given, out = vars(args), Path(args.out)
    settings = {k: describe(v, strict=False) for k, v in given.items() if k not in NO_SETTINGS}
    files = [out / name for name in names]
    noted = {"epochs": given["epochs"]} if "epochs" in given else {}
    if kept(out):
        raise taken(out, f"those of a grid, see {RECORD}")
    with (
        claimed(out / record, settings, {}, lambda: any(file.exists() for file in files)),
        session(out, *files, record=record, settings=noted, data=about(dataset), processes=1),
    ):
        try:
            yield [{"checkpoint": Checkpoint(file, resume=True)} for file in files]
        except KeyboardInterrupt as error:
            written = [str(file) for file in files if file.exists()]
            where = f"the epochs that ended are kept in {written[-1]}" if written else ""
            text = f"stopped: {where or 'no epoch had ended'}; the same command resumes"
            raise KeyboardInterrupt(text) from error


def run_points(
    grid: Grid,
    train: Callable[..., Mapping[str, Any]],
    args: argparse.Namespace,
    *,
    dataset: Dataset | None = None,
    out: Path | None = None,
    cost: Callable[[Point], float] = lambda point: 1.0,
) -> list[Result]:
    """Train every point of the grid into ``out``, by default ``args.out``; note the session."""
    out, executor = out or args.out, getattr(args, "executor", PROCESSES)
    if (out / RUN).exists() and any(out.glob("*checkpoint*.npz")):
        raise taken(out, f"those of a single run, see {RUN}")
    processes = args.jobs if executor == PROCESSES else executor
    options: dict[str, Any] = {"settings": {"data": dataset.name} if dataset else {}, "cost": cost}
    noted = session(out, out / RESULTS, processes=processes, data=about(dataset))
    with noted, _connected(executor) as pool:
        return minidl.grid.run(grid, train, out=out, executor=pool, jobs=args.jobs, **options)


def executor(text: str) -> str:
    """Parse the name of an executor; an argparse type."""
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


@contextlib.contextmanager
def session(folder: Path, *files: Path, **note: Any) -> Iterator[None]:
    """Add a line to ``folder/sessions.jsonl`` when this context ends, also by an error or Ctrl-C.

    Not by these if ``files`` are given and none changed: what was there before still holds. Results
    do not depend on the line; there is none if it cannot be written.
    """

    def states() -> list[tuple[int, int]]:
        stats = [file.stat() for file in files if file.exists()]
        return [(s.st_size, s.st_mtime_ns) for s in stats]

    before, start, ended = states(), time.time(), False
    try:
        yield
        ended = True
    finally:
        if ended or not files or states() != before:
            _note(folder, start, ended, note)


def _note(folder: Path, start: float, ended: bool, note: Mapping[str, Any]) -> None:
    """Write the line of a session, in place of one that was cut short."""
    line = {
        "started": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(start)),
        "seconds": round(time.time() - start, 3),
        "ended": ended,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "program": (sys.modules["__main__"].__doc__ or "").strip().partition("\n")[0],
        "environment": environment(),
        **note,
    }
    with contextlib.suppress(OSError), (folder / SESSIONS).open("ab+", buffering=0) as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(f"{to_json(line)}\n".encode())  # in one piece


def about(dataset: Dataset | None) -> dict[str, Any]:
    """Return the name of a data set, its sizes and checksum, and whether it was generated."""
    if dataset is None:
        return {}
    sizes = {part: len(split) for part, split in dataset.splits.items()}
    return {
        "name": dataset.title,
        "generated": bool(dataset.generated),
        "examples": sizes,
        "features": dataset.features,
        "classes": dataset.classes,
        "sha256": dataset.checksum(),
    }


def environment() -> dict[str, str | int]:
    """Return the processor, its cores, the system, and the versions that figures depend on."""
    processor, blas = platform.processor() or platform.machine(), dict[str, Any]()
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        found = re.search(r"^model name\s*:\s*(.+)", text, re.M)
        processor = found[1] if found else processor
    with contextlib.suppress(ImportError):
        from threadpoolctl import threadpool_info

        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        blas = max(pools, key=lambda pool: "numpy" in pool["filepath"], default={})  # not SciPy's
    name = f"{blas.get('internal_api', 'not known')} {blas.get('version') or ''}".strip()
    return {
        "processor": processor,
        "cores": cores(),
        "system": platform.platform(),
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "minidl": minidl.__version__,
        "BLAS": name + (f", {blas['architecture']} kernels" if blas.get("architecture") else ""),
        "BLAS threads": blas.get("num_threads", "not known"),
    }


def cores() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
