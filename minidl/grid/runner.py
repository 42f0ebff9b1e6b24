"""Run every point of a grid, several at once; finished runs stay on disk.

Points are trained in this process, in worker processes, or by an executor.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    as_completed,
)
from dataclasses import replace
from pathlib import Path
from typing import Any

from minidl.checks import check_int, one_blas_thread, progress_bar, require
from minidl.files import as_path
from minidl.grid.folder import RECORD, RESULTS, append, claimed, kept
from minidl.grid.points import Grid, Point, Result, Results, UnsavedError, encode, exit_status
from minidl.saving.describe import describe
from minidl.view.cli import handling

Train = Callable[..., Mapping[str, Any]]
"""Trains one point, given as keyword arguments; returns values that JSON can hold.

Worker processes import it, so it is a function of a module, or a ``functools.partial`` of one.
"""

Outcome = tuple[Result, str | None]
"""The result of a run, and the file for which there was no space, if that ended it."""

Task = Callable[[Point], Outcome]

UNGUARDED = 78
"""Exit code of a worker process that runs the script again."""


class EndedError(OSError):
    """The workers ended before their runs did."""


class NotImportableError(TypeError):
    """Worker processes cannot import the training function."""

    def __str__(self) -> str:
        hint = "put it and its arguments into a file, not into a notebook or inside a function"
        text = f"worker processes cannot import the training function ({self.args[0]})"
        return f"{text}: {hint}, or use jobs=1"


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
    # A worker process that is still importing the script: the script lacks a main guard.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(UNGUARDED)
    in_processes = jobs > 1 and executor is None  # an error here comes before anything is written
    task = functools.partial(_train_one, _pickled(train) if in_processes else train)
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
        raise KeyboardInterrupt(f"stopped: {_count(points, out, shown)}") from error
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


def outcomes(
    points: list[Point], task: Task, jobs: int, executor: Executor | None
) -> Generator[Outcome, None, None]:
    """Yield the outcomes of all points as they are ready; EndedError if the workers ended."""
    if executor is not None:
        yield from _by_executor(points, task, executor)
    elif jobs > 1:
        yield from _in_processes(points, task, jobs)
    else:
        yield from map(task, points)


def _train_one(train: Train | bytes, point: Point) -> Outcome:
    train = _unpickled(train) if isinstance(train, bytes) else train
    start = time.perf_counter()
    values: dict[str, Any] = {}
    error = unsaved = full = trace = None
    try:
        try:
            with one_blas_thread():
                given = train(**point)
        except UnsavedError as failure:
            given = failure.values
            unsaved, full = _text(failure.__cause__ or failure), full_disk(failure.__cause__)
        values = _plain(given)
    except (Exception, SystemExit) as failure:  # any failure is recorded, and the others go on
        error, full = _text(failure), full_disk(failure)
        trace = "".join(traceback.format_exception(failure, limit=-20))
    seconds = max(time.perf_counter() - start, 0.0)
    return Result(Grid.identifier(point), point, values, error, seconds, unsaved, trace), full


def full_disk(error: BaseException | None) -> str | None:
    """Return the name of the file for which there was no space; None for another error."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return str(error.filename or error)
    return None


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they will be read from the file of results."""
    if not isinstance(values, Mapping):
        raise TypeError(f"expected a dict of results, got {values!r}")
    plain: dict[str, Any] = json.loads(encode(dict(values)))
    _check_depth(plain)
    return plain


def _check_depth(value: Any, deepest: int = 100) -> None:
    """Raise ValueError for deeper values: what writes and reads them calls itself as often."""
    if deepest == 0:
        raise ValueError("expected results nested at most 100 deep")
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, (dict, list)):
            _check_depth(inner, deepest - 1)


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # of a class of one's own
        return type(error).__name__


def _by_executor(points: list[Point], task: Task, executor: Executor) -> Iterator[Outcome]:
    """Yield the outcomes of an executor's futures; cancel the others if one raises."""
    futures: dict[Future[Outcome], Point] = {}
    try:
        with handling(signal.SIGINT, signal.SIG_IGN):  # in processes; their parent handles it
            for point in points:
                futures[executor.submit(task, point)] = point
        for future in as_completed(futures):
            try:
                yield future.result()
            except (NotImportableError, CancelledError, BrokenExecutor):
                raise
            except Exception as error:  # the executor could not run this point
                point = futures[future]
                yield Result(Grid.identifier(point), point, {}, _text(error)), None
    except (BrokenExecutor, CancelledError, RuntimeError) as error:
        raise EndedError(f"the executor was closed ({_text(error)})") from error
    finally:
        for future in futures:
            future.cancel()


def _in_processes(points: list[Point], task: Task, jobs: int) -> Iterator[Outcome]:
    """Yield the outcomes of worker processes; end the workers when this process is interrupted."""
    # A spawned worker starts afresh: it gets no threads or locks of this process.
    pool = ProcessPoolExecutor(
        min(jobs, max(len(points), 1)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=exit_with_parent,
    )
    processes = pool._processes if pool._processes is not None else {}  # filled by submit
    try:
        yield from _by_executor(points, task, pool)
    except EndedError as error:
        pool.shutdown()
        codes = [process.exitcode for process in processes.values()]
        died = [c for c in codes if c not in (None, 0, -signal.SIGTERM)] or codes
        text = f"a worker process died with exit code {died[0]} (out of memory?)"
        if UNGUARDED in codes:
            text = 'the workers run the script again: call run() under if __name__ == "__main__":'
        raise EndedError(text) from error
    except BaseException:
        for process in processes.values():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _pickled(train: Train) -> bytes:
    """Return a training function as worker processes get it; NotImportableError if they cannot."""
    main: Any = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    in_module = getattr(main, "__spec__", None) is not None
    # Read from the standard input, given by ``-c``, or typed at a prompt: workers would run it.
    if file is not None and not in_module and not Path(file).is_file():
        raise NotImportableError(f"the program is read from {file}")
    try:
        content = pickle.dumps(train)
    except Exception as error:  # pickle raises many kinds
        raise NotImportableError(error) from error
    # A class or function of the program is pickled by the name of its module.
    if file is None and not in_module and b"\x8c\x08__main__" in content:
        raise NotImportableError("it is not defined in a file")
    return content


@functools.lru_cache(maxsize=1)
def _unpickled(task: bytes) -> Train:
    try:
        train: Train = pickle.loads(task)  # noqa: S301, written by the parent process
    except Exception as error:
        raise NotImportableError(error) from error
    return train


def exit_with_parent() -> None:
    """Make a worker exit when its parent was killed; otherwise it waits for work forever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
