"""Compare the estimators with scikit-learn's networks and skorch.

    python benchmarks/estimators.py                     # seconds of fit and predict at equal epochs
    python benchmarks/estimators.py --what score        # accuracy over 10 seeds, time to reach it
    python benchmarks/estimators.py --what memory       # peak memory of fit, each in a new process

All candidates take turns in one run, on the same rows in the same dtype. Covertype-like and
Adult-like tables are generated. skorch (with PyTorch) is timed once in each case, and left out
where it is not installed. Each case is written when it is measured; after Ctrl-C the same command
goes on.
"""

from __future__ import annotations

from harness.threads import pin  # isort: skip

pin(1)  # before NumPy loads; --threads sets another number

import gc
import importlib.util
import itertools
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness.environment import environment
from harness.results import Results, Row, key
from harness.timing import alternate
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier as TheirClassifier
from threadpoolctl import threadpool_limits
from workloads.tabular import table

import minidl
from minidl.checks import require
from minidl.files import as_path
from minidl.sklearn.classifier import MLPClassifier
from minidl.view.cli import Interrupted, Parser, int_argument, run_main
from minidl.view.tables import Table

Case = dict[str, Any]


def candidate(name: str, case: Case, seed: int = 0, **more: Any) -> Any:
    """Return an estimator that trains for exactly the epochs of a case."""
    width, batch, epochs = case["width"], case["batch"], more.pop("epochs", case["epochs"])
    if name == "skorch":
        from contestants import skorch_mlp

        return skorch_mlp.classifier(width, batch, epochs)
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (width,), "batch_size": batch, "max_iter": epochs, "tol": 0,
        "n_iter_no_change": epochs + 1, "random_state": seed,
    }  # fmt: skip
    return (MLPClassifier if name == "minidl" else TheirClassifier)(**settings, **more)


def names() -> list[str]:
    """Return the candidates that are installed."""
    known = ["minidl", "scikit-learn"]
    return [*known, "skorch"] if importlib.util.find_spec("skorch") else known


def measure_fit(case: Case, args: Any) -> Row:
    """Return seconds of fit and of predict at equal epochs, and the ratios to scikit-learn."""
    x, y, xv, _ = table(case["data"], case["rows"], case["dtype"])
    clock = time.process_time if args.cpu_time else time.perf_counter
    found = {n: candidate(n, case) for n in names()}
    in_turn = {n: partial(found[n].fit, x, y) for n in ("minidl", "scikit-learn")}
    fits = alternate(in_turn, rounds=args.rounds, calls=1, clock=clock)
    predictions = {n: partial(found[n].predict, xv) for n in in_turn}
    predicts = alternate(predictions, rounds=3 * args.rounds, calls=3, clock=clock)
    seconds = {n: t.median for n, t in fits.items()}
    if "skorch" in found:
        found["skorch"].fit(x[:500], y[:500])
        since = clock()
        found["skorch"].fit(x, y)
        seconds["skorch"] = clock() - since
    ours, theirs = predicts["minidl"].median, predicts["scikit-learn"].median
    return {
        "fit": seconds,
        "fit ratio": seconds["minidl"] / seconds["scikit-learn"],
        "predict": {"minidl": ours, "scikit-learn": theirs},
        "predict ratio": ours / theirs,
    }


def show_fit(rows: list[Row]) -> Table:
    known = names()
    columns = [*known, "ratio", "predict: ours", "theirs", "ratio"]
    shown = Table([*rows[0]["case"], *columns], "seconds of fit and of predict, medians")
    for row in rows:
        fits = (f"{row['fit'].get(n, float('nan')):.3g}" for n in known)
        predicts = (f"{seconds:.2g}" for seconds in row["predict"].values())
        ratios = f"{row['fit ratio']:.2f}", f"{row['predict ratio']:.2f}"
        shown.add(*row["case"].values(), *fits, ratios[0], *predicts, ratios[1])
    return shown


class Reached(minidl.Callback):
    """Stops when the validation accuracy reaches a goal."""

    def __init__(self, goal: float) -> None:
        self.goal, self.reached = goal, False

    def on_epoch(self, run: Any) -> bool:
        self.reached = run.history[-1].valid_accuracy >= self.goal
        return self.reached


def measure_score(case: Case, args: Any) -> Row:
    """Return the validation accuracy over seeds, and the time to reach scikit-learn's."""
    x, y, xv, yv = table(case["data"], case["rows"], case["dtype"])
    ours, theirs, seconds = [], [], []
    for seed in range(args.seeds):
        since = time.perf_counter()
        their = candidate("scikit-learn", case, seed).fit(x, y)
        their_seconds = time.perf_counter() - since
        theirs.append(float(their.score(xv, yv)))
        ours.append(float(candidate("minidl", case, seed).fit(x, y).score(xv, yv)))
        goal = Reached(theirs[-1])
        model = candidate("minidl", case, seed, epochs=5 * case["epochs"], callbacks=[goal])
        since = time.perf_counter()
        model.fit(x, y, X_val=xv, y_val=yv)
        seconds.append((time.perf_counter() - since if goal.reached else np.inf, their_seconds))
    error = np.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / len(ours))
    reached, took = np.median(seconds, axis=0)
    return {
        "minidl": ours, "scikit-learn": theirs,
        "difference": float(np.mean(ours) - np.mean(theirs)),
        "standard error": float(error), "seconds to its score": float(reached),
        "its seconds": float(took),
    }  # fmt: skip


def show_score(rows: list[Row]) -> Table:
    columns = ["minidl", "scikit-learn", "difference", "error", "seconds to its score", "its"]
    shown = Table([*rows[0]["case"], *columns], "validation accuracy, means over the seeds")
    for row in rows:
        means = (f"{np.mean(row[name]):.4f}" for name in ("minidl", "scikit-learn"))
        times = f"{row['seconds to its score']:.3g}", f"{row['its seconds']:.3g}"
        difference = f"{row['difference']:+.4f}", f"{row['standard error']:.4f}"
        shown.add(*row["case"].values(), *means, *difference, *times)
    return shown


def peak(name: str, folder: Path, case: Case) -> tuple[float, float]:
    """Return the megabytes of the process before fit, and at most during it (Linux)."""
    x, y = np.load(folder / "x.npy"), np.load(folder / "y.npy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        candidate(name, case, epochs=1).fit(x[:1000], np.resize(np.unique(y), 1000))  # imports
        gc.collect()
        Path("/proc/self/clear_refs").write_text(
            "5", encoding="ascii", newline="\n"
        )  # forget the old peak
        before = resident("VmRSS")
        candidate(name, case, epochs=2).fit(x, y)
    return before, resident("VmHWM")


def resident(name: str) -> float:
    """Return the memory of this process in megabytes: ``VmRSS`` now, ``VmHWM`` its peak."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024


def measure_memory(case: Case, args: Any) -> Row:
    """Return the peak memory of fit, each in a process of its own."""
    context, found = multiprocessing.get_context("spawn"), {}
    with tempfile.TemporaryDirectory() as folder:
        x, y, *_ = table(case["data"], case["rows"], case["dtype"])
        for file, array in (("x.npy", x), ("y.npy", y)):
            np.save(Path(folder) / file, array)
        for name in names():
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                before, most = pool.submit(peak, name, Path(folder), case).result()
            found[name] = {"before": before, "peak": most}
    return {"megabytes": x.nbytes / 2**20, "memory": found}


def show_memory(rows: list[Row]) -> Table:
    columns = ["x", "candidate", "before", "peak", "more"]
    title = "megabytes: the rows, the process before fit, its peak in fit"
    shown = Table([*rows[0]["case"], *columns], title)
    for row in rows:
        for name, found in row["memory"].items():
            figures = found["before"], found["peak"], found["peak"] - found["before"]
            cells = (f"{megabytes:.0f}" for megabytes in figures)
            shown.add(*row["case"].values(), f"{row['megabytes']:.0f}", name, *cells)
    return shown


@dataclass(frozen=True)
class What:
    """A quantity to measure: the axes of its cases, functions for one case and for the table."""

    axes: tuple[str, ...]
    measure: Callable[[Case, Any], Row]
    show: Callable[[list[Row]], Table]


WHAT = {
    "fit": What(("data", "dtype", "width", "batch"), measure_fit, show_fit),
    "score": What(("data", "width", "batch"), measure_score, show_score),
    "memory": What(("data", "dtype"), measure_memory, show_memory),
}


def cases(axes: tuple[str, ...], args: Any) -> list[Case]:
    """Return the product of the axes; of other flags the first value is taken."""
    values = {"data": args.data, "dtype": args.dtype, "width": args.widths, "batch": args.batch}
    points = itertools.product(*(values[name] for name in axes))
    more = {name: given[0] for name, given in values.items() if name not in axes}
    more |= {"rows": args.rows, "epochs": args.epochs}
    return [dict(zip(axes, point, strict=True)) | more for point in points]


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    add, number = parser.add_argument, int_argument
    add("--what", choices=WHAT, default="fit")
    known = ["digits", "covertype", "adult", "letters"]
    add("--data", nargs="+", default=known, metavar="NAME", help="these, or a path of images")
    add("--rows", type=number("rows"), default=10_000, help="of each data set (10,000)")
    add("--dtype", nargs="+", choices=("float32", "float64"), default=["float32", "float64"])
    widths = [16, 32, 64, 128, 256]
    add("--widths", type=number("widths"), nargs="+", default=widths, metavar="N")
    add("--batch", type=number("batch"), nargs="+", default=[64, 200], metavar="N")
    add("--epochs", type=number("epochs"), default=10)
    add("--rounds", type=number("rounds"), default=5)
    add("--seeds", type=number("seeds"), default=10, help="for --what score")
    add("--threads", type=number("threads"), default=1)
    add("--cpu-time", action="store_true", help="for one thread, on a busy machine")
    add("--out", type=as_path, default=Path("runs/benchmarks"))
    add("--again", action="store_true", help="measure anew what the folder has results of")
    args = parser.parse_args()
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(args.threads)
    what = WHAT[args.what]
    path = args.out / f"estimators-{args.what}-{args.threads}.json"
    settings = {"rounds": args.rounds, "seeds": args.seeds, "cpu time": args.cpu_time}
    results = Results.open(path, settings, environment(), again=args.again)
    rows: list[Row] = [
        {"workload": args.what, "case": case, "threads": args.threads}
        for case in cases(what.axes, args)
    ]
    bar = require("tqdm", "examples").tqdm(rows, unit="case")
    with warnings.catch_warnings(), threadpool_limits(args.threads):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are given
        try:
            for row in bar:
                if args.again or key(row) not in results.rows:
                    results.add({**row, **what.measure(row["case"], args)})
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"{len(results.rows)} cases are kept, the same command goes on"
            ) from error
    what.show([results.rows[key(row)] for row in rows]).show()
    print(f"wrote {path}")


if __name__ == "__main__":
    run_main(main)
