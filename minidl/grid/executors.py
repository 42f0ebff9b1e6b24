"""Executors by name, and an adapter for those that are not ``concurrent.futures.Executor``."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

from minidl.validation import require

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
    >>> results = minidl.grid.run(grid, train, out="runs", executor=Polling(slurm.submit))
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
