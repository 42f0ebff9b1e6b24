"""Run every point of a grid, several at once; finished runs stay on disk."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from minidl.cli import Interrupted
from minidl.grid import results as store
from minidl.grid.axes import Grid, Point
from minidl.grid.results import Result
from minidl.threads import one_blas_thread
from minidl.validation import check_int, require

Train = Callable[..., Mapping[str, Any]]
"""Trains one point, given as keyword arguments; returns values that JSON can hold.

Worker processes import it, so it is a function of a module, or a ``functools.partial`` of one.
"""


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
) -> list[Result]:
    """Train every point of a grid, except those that ``out`` already has results of.

    Each finished run becomes one line of ``out/results.jsonl`` at once. A run that raises is
    recorded with its error and repeated the next time. Each run has one BLAS thread, so its
    figures do not depend on ``jobs``.

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
        Used instead of processes, for example ``dask.distributed.Client().get_executor()``.
    settings : dict, optional
        Everything else that the results depend on; kept in ``out/grid.json``.
    cost : callable, optional
        ``cost(point)`` is the expected duration of a run, in any unit. Long runs start first,
        and the time left is estimated from it.
    progress : bool
        Show a bar over the runs (needs tqdm).

    Returns
    -------
    list of Result
        In the order of the grid.

    Raises
    ------
    ValueError
        If ``out`` holds the results of another grid or of other settings; names the difference.
    """
    out, jobs = Path(out), check_int("run", "jobs", jobs)
    require("threadpoolctl", "examples")
    store.claim(out, {"axes": grid.axes, "settings": dict(settings or {})})
    file = out / "results.jsonl"
    results = {r.id: r for r in store.read(file) if r.error is None}
    waiting = [p for p in grid if grid.identifier(p) not in results]
    waiting.sort(key=cost, reverse=True)
    total, left = sum(map(cost, grid)), sum(map(cost, waiting))
    with _progress_bar(len(grid), len(results), total, total - left, progress) as advance:
        try:
            for result in _results(waiting, train, jobs, executor):
                store.append(file, result)
                results[result.id] = result
                advance(cost(result.point))
        except (KeyboardInterrupt, BrokenProcessPool) as error:
            kept = f"{len(results)} of {len(grid)} runs are kept in {file}"
            resume = "the same command resumes"
            if isinstance(error, BrokenProcessPool):
                raise OSError(
                    f"a worker process died (out of memory?); {kept}, {resume}"
                ) from error
            raise Interrupted(f"stopped: {kept}, {resume}") from error
    return [results[grid.identifier(p)] for p in grid]


def _results(
    points: list[Point], train: Train, jobs: int, executor: Executor | None
) -> Iterator[Result]:
    """Yield results as they are ready."""
    if executor is not None:
        yield from _completed([executor.submit(_train_one, train, point) for point in points])
    elif jobs == 1:
        for point in points:
            yield _train_one(train, point)
    else:
        yield from _in_processes(points, train, jobs)


def _in_processes(points: list[Point], train: Train, jobs: int) -> Iterator[Result]:
    """Yield the results of worker processes; end the workers when this process is interrupted."""
    # A spawned worker starts afresh: it gets no threads or locks of this process.
    pool = ProcessPoolExecutor(
        min(jobs, max(len(points), 1)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_exit_with_parent,
    )
    try:
        with _interrupts_ignored():
            futures = [pool.submit(_train_one, train, point) for point in points]
        yield from _completed(futures)
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _completed(futures: list[Any]) -> Iterator[Result]:
    """Yield the futures' results as they are ready; cancel the others if one raises."""
    try:
        for future in as_completed(futures):
            yield future.result()
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def _train_one(train: Train, point: Point) -> Result:
    """Train one point in whichever process this is."""
    start = time.perf_counter()
    values, error = {}, None
    try:
        with one_blas_thread():
            values = dict(train(**point))
    except Exception as failure:  # any failure is recorded, and the other runs go on
        error = f"{type(failure).__name__}: {failure}"
    return Result(Grid.identifier(point), point, values, error, time.perf_counter() - start)


def _exit_with_parent() -> None:
    """Make a worker exit when its parent was killed; otherwise it waits for work forever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Start processes in this context to let them ignore Ctrl-C; their parent handles it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _progress_bar(
    runs: int, finished: int, total: float, done: float, show: bool
) -> Iterator[Callable[[float], None]]:
    """Show a bar that moves by cost and counts runs; gives the function that advances it."""
    if not show:
        yield lambda cost: None
        return
    bar = require("tqdm", "examples").tqdm(
        total=total,
        initial=done,
        smoothing=0,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left",
        desc=f"{finished}/{runs} runs",
    )

    def advance(cost: float) -> None:
        nonlocal finished
        finished += 1
        bar.set_description_str(f"{finished}/{runs} runs", refresh=False)
        bar.update(cost)

    with bar:
        yield advance
