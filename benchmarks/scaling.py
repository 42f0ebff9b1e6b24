"""Runs of a grid on one and two local workers: seconds, speed-up, and the cost of one more run.

``python benchmarks/scaling.py`` trains 16 networks (784-128-26, two epochs of 10,400 letters) in
this process, in two processes, and on Dask workers, by turns; then grids of runs that do nothing.
"""

import os

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Any

import minidl
from minidl.checks import require
from minidl.grid.points import Grid
from minidl.grid.runner import run
from minidl.view.tables import Table


def train(seed: int, *, dataset: minidl.Dataset) -> dict[str, Any]:
    """Train one network; a task of about a second."""
    layers = minidl.Linear(784, 128), minidl.ReLU(), minidl.Linear(128, 26)
    model = minidl.Sequential(*layers, rng=seed)
    loss, optimizer = minidl.CrossEntropy(), minidl.Adam(model, 1e-3)
    history = minidl.fit(model, dataset, loss, optimizer, epochs=2, rng=seed)
    return {"valid": history[-1].valid_accuracy}


def nothing(seed: int) -> dict[str, Any]:
    """Return at once."""
    return {"valid": seed}


@contextlib.contextmanager
def dask_workers(n: int) -> Iterator[Executor]:
    """Yield the executor of a scheduler with ``n`` worker processes of one thread."""
    library = require("distributed", "cluster")
    options = {"n_workers": n, "threads_per_worker": 1, "dashboard_address": None}
    with library.LocalCluster(**options) as cluster, library.Client(cluster) as client:
        yield client.get_executor()


def seconds(task: Callable[..., dict[str, Any]], runs: int, **options: Any) -> float:
    """Return the time of a whole grid, beginning with an empty folder."""
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        run(Grid(seed=range(runs)), task, out=out, progress=False, **options)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many counts")
    args = parser.parse_args()
    task = partial(train, dataset=minidl.load_letters(10_400, 2_600, 2_600))
    best: dict[tuple[str, int], list[float]] = {}
    for _ in range(args.repeats):
        for workers in (1, 2):
            pair = [seconds(f, n, jobs=workers) for f, n in ((task, args.runs), (nothing, 200))]
            best.setdefault(("processes", workers), []).append(pair[0])
            best.setdefault(("processes, nothing", workers), []).append(pair[1] / 200)
            with dask_workers(workers) as executor:
                for f, n in ((task, args.runs), (nothing, 200)):
                    took = seconds(f, n, executor=executor)
                    name = "Dask" if f is task else "Dask, nothing"
                    best.setdefault((name, workers), []).append(took if f is task else took / n)
    table = Table(["workers", "number", "seconds", "speed-up", "ms for a run of nothing"])
    for kind in ("processes", "Dask"):
        for workers in (1, 2):
            took, first = min(best[kind, workers]), min(best[kind, 1])
            empty = 1e3 * min(best[f"{kind}, nothing", workers])
            table.add(kind, workers, f"{took:.1f}", f"{first / took:.2f}", f"{empty:.1f}")
    table.show()


if __name__ == "__main__":
    main()
