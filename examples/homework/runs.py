"""Single runs: a folder that belongs to one set of settings, and the file to go on from."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from homework.data import about
from homework.sessions import session
from minidl.dataset import Dataset
from minidl.grid.folder import RECORD, claimed, kept, taken
from minidl.saving.describe import describe
from minidl.saving.runs import Checkpoint
from minidl.view.cli import Interrupted

RUN = "run.json"
NO_SETTINGS = {"out", "epochs", "jobs", "executor", "compare"}
"""The flags on which the results of an epoch do not depend."""


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
    settings = {
        name: describe(v, strict=False) for name, v in vars(args).items() if name not in NO_SETTINGS
    }
    out: Path = args.out
    files = [out / name for name in names]
    note: dict[str, Any] = {"record": record, "processes": 1, "threads": 1}
    note |= {"settings": {"epochs": args.epochs}} if hasattr(args, "epochs") else {}
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
            raise Interrupted(
                f"stopped: {where or 'no epoch had ended'}; the same command resumes"
            ) from error
