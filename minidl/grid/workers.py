"""Training of points: in this process, in worker processes, or by an executor."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import multiprocessing
import os
import pickle
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    as_completed,
)
from pathlib import Path
from typing import Any

from minidl.checks import one_blas_thread, require
from minidl.grid.points import Grid, Point, Result, UnsavedError, encode

EXECUTORS = "processes, loky or dask://HOST:PORT"


@contextlib.contextmanager
def connected(name: str, jobs: int = 1) -> Iterator[Executor | None]:
    """Yield the executor ``"loky"`` or ``"dask://HOST:PORT"``; None for ``"processes"``.

    ``jobs`` is the number of loky's processes. A Dask cluster goes on running.

    Raises
    ------
    ValueError
        If the name is another one.
    OSError
        If no scheduler answers.
    """
    if check_executor(name) == "processes":
        yield None
    elif name == "loky":
        executor: Executor = require("loky", "cluster").ProcessPoolExecutor(jobs)
        try:
            yield executor
        finally:
            executor.shutdown(wait=True, kill_workers=True)  # type: ignore[call-arg]
    else:
        address = f"tcp://{name.removeprefix('dask://')}"
        with require("distributed", "cluster").Client(address, set_as_default=False) as client:
            yield client.get_executor()


def check_executor(name: str) -> str:
    """Return the name of an executor; ValueError unless it is one."""
    if name not in ("processes", "loky") and not re.fullmatch(r"dask://[^/]+:\d+", name):
        raise ValueError(f"expected the executor to be {EXECUTORS}, got {name!r}")
    return name


class Polling(Executor):
    """An executor around ``submit(function, *args)`` that returns jobs to be asked.

    A job has ``done()`` and ``result()``. So have those of submitit.

    Parameters
    ----------
    submit : callable
    seconds : float
        The time between two questions.

    Examples
    --------
    >>> slurm = submitit.AutoExecutor("logs")
    >>> slurm.update_parameters(timeout_min=60, cpus_per_task=1)
    >>> results = minidl.grid.runner.run(grid, train, out="runs", executor=Polling(slurm.submit))
    """

    def __init__(self, submit: Callable[..., Any], seconds: float = 1.0) -> None:
        self._submit, self._seconds = submit, seconds
        self._waiting: dict[Future[Any], Any] = {}
        self._lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call; its future is set when the job says that it is done."""
        future: Future[Any] = Future()
        job = self._submit(fn, *args, **kwargs)
        if hasattr(job, "cancel"):
            future.add_done_callback(lambda ended: job.cancel() if ended.cancelled() else None)
        with self._lock:
            self._waiting[future] = job
            if len(self._waiting) == 1:
                threading.Thread(target=self._poll, daemon=True).start()
        return future

    def _poll(self) -> None:
        while True:
            time.sleep(self._seconds)
            for future, job in list(self._waiting.items()):
                if _settled(future, job):
                    with self._lock:
                        del self._waiting[future]
                        if not self._waiting:
                            return


def _settled(future: Future[Any], job: Any) -> bool:
    """Give the outcome of a job to its future, if it is done; return whether it is."""
    try:
        if not (future.cancelled() or job.done()):
            return False
        if future.set_running_or_notify_cancel():
            future.set_result(job.result())
    except Exception as error:
        future.set_exception(error)
    return True


Train = Callable[..., Mapping[str, Any]]
"""Trains one point, given as keyword arguments; returns values that JSON can hold.

Worker processes import it, so it is a function of a module, or a ``functools.partial`` of one.
"""

Outcome = tuple[Result, str | None]
"""The result of a run, and the file for which there was no space, if that ended it."""

UNGUARDED = 78
"""Exit code of a worker process that runs the script again."""


class EndedError(OSError):
    """The workers ended before their runs did."""


def outcomes(
    points: list[Point], train: Train, jobs: int, executor: Executor | None
) -> Generator[Outcome, None, None]:
    """Yield the outcomes of all points as they are ready.

    Raises
    ------
    EndedError
        If a worker died or the executor was closed.
    TypeError
        If worker processes cannot import the training function.
    """
    if executor is not None:
        yield from _by_executor(points, functools.partial(train_one, train), executor)
    elif jobs == 1:
        for point in points:
            yield train_one(train, point)
    else:
        yield from _in_processes(points, train, jobs)


def train_one(train: Train, point: Point) -> Outcome:
    """Train one point in whichever process this is."""
    start = time.perf_counter()
    values: dict[str, Any] = {}
    error = unsaved = full = None
    try:
        with one_blas_thread():
            values = _plain(train(**point))
    except UnsavedError as failure:
        values = _plain(failure.values)
        unsaved, full = _text(failure.__cause__ or failure), full_disk(failure.__cause__)
    except (Exception, SystemExit) as failure:  # any failure is recorded, and the others go on
        error, full = _text(failure), full_disk(failure)
    seconds = time.perf_counter() - start
    return Result(Grid.identifier(point), point, values, error, seconds, unsaved), full


def full_disk(error: BaseException | None) -> str | None:
    """Return the name of the file for which there was no space; None for another error."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return str(error.filename or error)
    return None


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they will be read from the file of results."""
    if not isinstance(values, Mapping):
        raise TypeError(f"expected a dict of results, got {values!r}")
    return dict(json.loads(encode(dict(values))))


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


# Worker processes.


def _in_processes(points: list[Point], train: Train, jobs: int) -> Iterator[Outcome]:
    """Yield the outcomes of worker processes; end the workers when this process is interrupted."""
    task = pickled(train)
    # A spawned worker starts afresh: it gets no threads or locks of this process.
    pool = ProcessPoolExecutor(
        min(jobs, max(len(points), 1)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_exit_with_parent,
    )
    processes = pool._processes if pool._processes is not None else {}  # filled by submit
    try:
        yield from _by_executor(points, functools.partial(_train_pickled, task), pool)
    except EndedError as error:
        pool.shutdown()
        codes = [process.exitcode for process in processes.values()]
        if UNGUARDED in codes:
            text = 'the workers run the script again: call run() under if __name__ == "__main__":'
            raise EndedError(text) from error
        died = [c for c in codes if c not in (None, 0, -signal.SIGTERM)] or codes
        raise EndedError(
            f"a worker process died with exit code {died[0]} (out of memory?)"
        ) from error
    except BaseException:
        for process in processes.values():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def pickled(train: Train) -> bytes:
    """Return a training function as worker processes get it.

    Raises
    ------
    NotImportableError
        If it cannot be pickled, or if the program is not in a file that workers can import:
        it was read from the standard input, given by ``-c``, or typed at a prompt.
    """
    main: Any = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    in_module = getattr(main, "__spec__", None) is not None
    if file is not None and not in_module and not Path(file).is_file():  # workers would run it
        raise _not_importable(f"the program is read from {file}")
    content = io.BytesIO()
    try:
        _Pickler(content, has_file=file is not None or in_module).dump(train)
    except Exception as error:  # pickle raises many kinds
        raise _not_importable(error) from error
    return content.getvalue()


class _Pickler(pickle.Pickler):
    """Refuses what is defined in a program without a file."""

    def __init__(self, file: io.BytesIO, has_file: bool) -> None:
        super().__init__(file)
        self.has_file = has_file

    def reducer_override(self, obj: Any) -> Any:
        if getattr(obj, "__module__", None) == "__main__" and not self.has_file:
            raise TypeError(f"{getattr(obj, '__qualname__', obj)} is not defined in a file")
        return NotImplemented


def _train_pickled(task: bytes, point: Point) -> Outcome:
    return train_one(_unpickled(task), point)


@functools.lru_cache(maxsize=1)
def _unpickled(task: bytes) -> Train:
    try:
        train: Train = pickle.loads(task)  # noqa: S301, written by the parent process
    except Exception as error:
        raise _not_importable(error) from error
    return train


class NotImportableError(TypeError):
    """Worker processes cannot import the training function."""


def _not_importable(reason: object) -> NotImportableError:
    return NotImportableError(
        f"worker processes cannot import the training function ({reason}): put it and its "
        "arguments into a file, not into a notebook or inside a function, or use jobs=1"
    )


def leave_if_imported_by_a_worker() -> None:
    """End a worker process that is still importing the script: the script lacks a main guard."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(UNGUARDED)


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


# Executors.


def _by_executor(
    points: list[Point], task: Callable[[Point], Outcome], executor: Executor
) -> Iterator[Outcome]:
    """Yield the outcomes of an executor's futures; cancel the others if one raises."""
    futures: dict[Future[Outcome], Point] = {}
    try:
        with _interrupts_ignored():
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
