"""Run every point of a grid, several at once; finished runs stay on disk."""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

from minidl.checks import check_int, progress_bar, require
from minidl.files import as_path
from minidl.grid.folder import RECORD, RESULTS, append, claimed, kept
from minidl.grid.points import Grid, Point, Results, exit_status
from minidl.grid.workers import EndedError, Train, full_disk, outcomes, task_of
from minidl.saving.describe import describe
from minidl.view.cli import Interrupted


def run(
    grid: Grid,
    train: Train,
    *,
    out: str | os.PathLike[str],
    jobs: int = 1,
    executor: Executor | None = None,
    settings: Mapping[str, Any] | None = None,
    cost: Callable[[Point], float] = lambda point: 1.0,
    progress: bool = True,
) -> Results:
    """Train every point of a grid, except those that ``out`` already has results of.

    Each finished run becomes one line of ``out/results.jsonl`` at once. A run that raises is
    recorded with its error and repeated the next time. Each run has one BLAS thread, so its
    results do not depend on ``jobs``.

    The folder belongs to the axes, the training function with its arguments, and the settings
    with which it was begun; more values on an axis may be added. One process writes at a time.

    Parameters
    ----------
    grid : Grid
    train : callable
        Called as ``train(**point)``; returns a dict. A function of a module, or a
        ``functools.partial`` of one.
    out : path
        The folder of the results.
    jobs : int
        The number of processes; 1 stays in this process.
    executor : concurrent.futures.Executor, optional
        Used instead of processes: for several machines
        ``dask.distributed.Client(ADDRESS).get_executor()``.
    settings : dict, optional
        What the results depend on beyond the training function and its arguments.
    cost : callable, optional
        ``cost(point)`` is the expected duration of a run, in any unit. Long runs start first,
        and the time left is estimated from it.
    progress : bool
        Show a bar over the runs (needs tqdm).

    Returns
    -------
    Results
        A list of ``Result`` in the order of the grid, which a notebook shows as a table. A warning
        names the first error if every run failed.

    Raises
    ------
    ValueError
        If ``out`` holds other axes or settings, or a line that is not a result.
    TypeError
        If worker processes cannot import the training function.
    OSError
        If another process writes to ``out``, the workers ended, or the disk is full.
    """
    if not isinstance(grid, Grid) or not callable(train):
        raise TypeError(f"run: expected a Grid and a function, got {grid!r} and {train!r}")
    if settings is not None and not isinstance(settings, Mapping):
        raise TypeError(f"run: expected settings by name, got {settings!r}")
    shown, jobs = as_path(out), check_int("run", "jobs", jobs)
    out = shown.absolute()  # a training function may change the working folder
    # An error here comes before anything is written.
    task = task_of(train, in_processes=jobs > 1 and executor is None)
    require("threadpoolctl", "examples")
    points = sorted(grid, key=cost, reverse=True)
    described = {**describe(train, strict=False), **(settings or {})}
    try:
        with claimed(out / RECORD, described, grid.axes, lambda: bool(kept(out))):
            results = kept(out, repair=True)
            done = {name for name, result in results.items() if result.complete}
            waiting = [p for p in points if grid.identifier(p) not in done]
            ended = len(points) - len(waiting)
            bar: Any = _bar(points, waiting, cost) if progress else contextlib.nullcontext()
            with bar, contextlib.closing(outcomes(waiting, task, jobs, executor)) as ready:
                for result, full in ready:
                    append(out / RESULTS, result)
                    if result.error is None or result.id not in results:
                        results[result.id] = result
                    ended += 1
                    if progress:
                        bar.set_description_str(f"{ended}/{len(points)} runs", refresh=False)
                        bar.update(cost(result.point))
                    if full:
                        raise OSError(errno.ENOSPC, "no space left", full)
    except KeyboardInterrupt as error:
        raise Interrupted(f"stopped: {_count(points, out, shown)}") from error
    except OSError as error:
        missing = full_disk(error)
        if missing is None and not isinstance(error, EndedError):
            raise
        reason = error if missing is None else f"no space left to write {missing}"
        raise OSError(f"{reason}; {_count(points, out, shown)}") from error
    found = Results(replace(results[grid.identifier(p)], point=p) for p in grid)
    if exit_status(found) == 2:
        why = found[0].error or found[0].unsaved
        warnings.warn(
            f"run: all of {len(found)} runs failed; the first one, {found[0].id}: {why}; "
            f"{shown / RESULTS} has the tracebacks",
            stacklevel=2,
        )
    return found


def _count(points: Sequence[Point], out: Path, shown: Path) -> str:
    """Return how many of the runs are on disk, and where."""
    done = kept(out)
    ended = sum(Grid.identifier(point) in done for point in points)
    return f"{ended} of {len(points)} runs are kept in {shown}{os.sep}, the same command resumes"


def _bar(points: Sequence[Point], waiting: Sequence[Point], cost: Callable[[Point], float]) -> Any:
    """Return a bar that moves by cost and counts runs."""
    total = sum(map(cost, points))
    return progress_bar(
        total=total,
        initial=total - sum(map(cost, waiting)),
        smoothing=0,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left",
        desc=f"{len(points) - len(waiting)}/{len(points)} runs",
    )
