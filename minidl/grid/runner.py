"""Runs every point of a grid, several at once; what is finished is on disk and stays finished."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minidl.cli import Interrupted
from minidl.files import write_text
from minidl.grid.axes import Grid, Point
from minidl.threads import one_blas_thread
from minidl.validation import check_int, require

TrainOne = Callable[[Point], Mapping[str, Any]]
"""Trains one point; returns what JSON can hold. Must be picklable to run in other processes."""


@dataclass(frozen=True)
class Result:
    """One finished run: its ``values``, or the ``error`` that ended it."""

    id: str
    point: Point
    values: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0


def run(
    grid: Grid,
    train_one: TrainOne,
    *,
    out: str | os.PathLike[str],
    jobs: int = 1,
    executor: Executor | None = None,
    settings: Mapping[str, Any] | None = None,
    cost: Callable[[Point], float] = lambda point: 1.0,
    progress: bool = True,
) -> list[Result]:
    """Train every point of a grid, skipping those that ``out`` holds already.

    Each finished run is one line of ``out/results.jsonl``, written at once. A run that raises is
    recorded with its error and tried again the next time. Each run has one BLAS thread, so its
    figures do not depend on ``jobs``.

    Parameters
    ----------
    grid : Grid
    train_one : callable
        ``train_one(point) -> dict``; a module's function, or a ``functools.partial`` of one.
    out : path
        The folder of the results.
    jobs : int
        Processes; 1 runs in this one.
    executor : concurrent.futures.Executor, optional
        Used in place of processes, for example ``dask.distributed.Client().get_executor()``.
    settings : dict, optional
        What the results depend on beside the grid; kept in ``out/grid.json``.
    cost : callable, optional
        How long a point takes, in any unit: long ones start first, and the time left is
        estimated by it.
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
    _claim(out, {"axes": grid.axes, "settings": dict(settings or {})})
    file = out / "results.jsonl"
    results = {r.id: r for r in _read(file) if r.error is None}
    waiting = [p for p in grid if grid.identifier(p) not in results]
    waiting.sort(key=cost, reverse=True)
    done = sum(cost(p) for p in grid if grid.identifier(p) in results)
    with _Bar(len(grid), len(results), sum(map(cost, grid)), done, progress) as bar:
        try:
            for result in _run_all(waiting, train_one, jobs, executor):
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(asdict(result)) + "\n")
                results[result.id] = result
                bar.advance(cost(result.point))
        except (KeyboardInterrupt, BrokenProcessPool) as error:
            kept = f"{len(results)} of {len(grid)} runs are kept in {file}"
            again = "the same command goes on from there"
            if isinstance(error, BrokenProcessPool):
                raise OSError(f"a worker process died (out of memory?); {kept}, {again}") from error
            raise Interrupted(f"stopped: {kept}, {again}") from error
    return [results[grid.identifier(p)] for p in grid]


def _claim(out: Path, what: dict[str, Any]) -> None:
    """Write down what this folder is for, or refuse if it is for something else."""
    file = out / "grid.json"
    if not file.exists():
        write_text(file, json.dumps(what, indent=1) + "\n")
        return
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: cannot be read ({error})") from error
    what = json.loads(json.dumps(what))
    for part in ("axes", "settings"):
        for name in {**there[part], **what[part]}:
            old, new = there[part].get(name), what[part].get(name)
            if old != new:
                raise ValueError(
                    f"{out} holds other results: {name} was {old!r}, now it is {new!r}; "
                    "choose another folder or delete this one"
                )


def _read(file: Path) -> Iterator[Result]:
    """The recorded runs; cuts off a last line that was not written to its end."""
    if not file.exists():
        return
    text = file.read_bytes()
    whole_lines = text[: text.rfind(b"\n") + 1]
    if whole_lines != text:
        os.truncate(file, len(whole_lines))
    for number, line in enumerate(whole_lines.splitlines(), start=1):
        try:
            yield Result(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file}, line {number}: not a result ({error})") from error


def _run_all(
    points: list[Point], train_one: TrainOne, jobs: int, executor: Executor | None
) -> Iterator[Result]:
    """Yield results as they are ready."""
    if executor is None and jobs == 1:
        for point in points:
            yield _call(train_one, point)
        return
    own = executor is None
    if executor is None:
        # A spawned worker starts from nothing: no threads or locks of this process are copied.
        executor = ProcessPoolExecutor(
            min(jobs, max(len(points), 1)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_end_with_parent,
        )
    try:
        with _deaf_to_interrupts() if own else contextlib.nullcontext():
            futures = [executor.submit(_call, train_one, point) for point in points]
        for future in as_completed(futures):
            yield future.result()
    except BaseException:
        for future in futures:
            future.cancel()
        if own:
            for process in list((executor._processes or {}).values()):  # type: ignore[attr-defined]
                process.terminate()
        raise
    finally:
        if own:
            executor.shutdown(cancel_futures=True)


def _call(train_one: TrainOne, point: Point) -> Result:
    """One run, in whatever process."""
    since = time.perf_counter()
    values, error = {}, None
    try:
        with one_blas_thread():
            values = dict(train_one(point))
    except Exception as failure:  # whatever it is, it is recorded and the other runs go on
        error = f"{type(failure).__name__}: {failure}"
    return Result(Grid.identifier(point), point, values, error, time.perf_counter() - since)


def _end_with_parent() -> None:
    """Let a worker end when its parent has been killed, instead of waiting for work for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that start in here leave Ctrl-C to their parent."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Bar:
    """A bar that moves by cost and counts runs."""

    def __init__(self, runs: int, done: int, cost: float, cost_done: float, show: bool) -> None:
        self.runs, self.done, self.cost, self.cost_done, self.show = (
            runs,
            done,
            cost,
            cost_done,
            show,
        )
        self.bar: Any = None

    def __enter__(self) -> _Bar:
        if self.show:
            self.bar = require("tqdm", "examples").tqdm(
                total=self.cost,
                initial=self.cost_done,
                smoothing=0,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left",
                desc=self._count(),
            )
        return self

    def _count(self) -> str:
        return f"{self.done}/{self.runs} runs"

    def advance(self, cost: float) -> None:
        self.done += 1
        if self.bar is not None:
            self.bar.set_description_str(self._count(), refresh=False)
            self.bar.update(cost)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
