"""Compare the estimators with scikit-learn's networks and skorch on one or two threads.

    python benchmarks/estimators.py                     # seconds of fit and predict at equal epochs
    python benchmarks/estimators.py --what score        # accuracy over 10 seeds, time to reach it
    python benchmarks/estimators.py --what memory       # peak memory of fit, each in a new process

All candidates take turns in one run, on the same rows in the same dtype. Covertype-like and
Adult-like tables are generated. skorch (with PyTorch) is left out where it is not installed.
"""

from __future__ import annotations

from harness.threads import pin  # isort: skip

pin(1)  # before NumPy loads

import gc
import importlib.util
import multiprocessing
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness.environment import environment
from harness.results import write_json
from harness.timing import alternate
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier as TheirClassifier
from threadpoolctl import threadpool_limits

import minidl
from minidl.cli import Parser, run_main
from minidl.sklearn import MLPClassifier
from minidl.tables import Table
from minidl.typing import Array

Table4 = tuple[Array, Array, Array, Array]
"""Training rows and labels, validation rows and labels."""


def one_hot(rng: np.random.Generator, n: int, values: int) -> Array:
    """Return n rows of a category, the first values the most frequent."""
    share = 1 / np.arange(1, values + 1)
    return np.eye(values)[rng.choice(values, n, p=share / share.sum())]


def generated(rng: np.random.Generator, n: int, numbers: int, categories: list[int], k: int) -> Any:
    """Return a table of correlated numbers and one-hot categories with k classes of unequal size.

    A random network with noise draws the classes.
    """
    latent = rng.normal(size=(n, 4))
    numeric = latent @ rng.normal(size=(4, numbers)) + rng.normal(size=(n, numbers))
    x = np.hstack([numeric / 2, *(one_hot(rng, n, values) for values in categories)])
    hidden = np.tanh(x @ rng.normal(size=(x.shape[1], 24)) / 2)
    scores = hidden @ rng.normal(size=(24, k)) - np.arange(k) * 0.7 + 0.5 * rng.gumbel(size=(n, k))
    return x, scores.argmax(axis=1)


def table(name: str, rows: int, dtype: str) -> Table4:
    """Return a data set with a fifth of its rows for validation."""
    rng = np.random.default_rng(0)
    if name == "digits":
        x, y = load_digits(return_X_y=True)
        x = x / 16
    elif name == "covertype":
        x, y = generated(rng, rows, 10, [4, 40], 7)
    elif name == "adult":
        x, y = generated(rng, rows, 6, [8, 16, 7, 14, 6, 5, 2, 40], 2)
    else:
        split = minidl.load_dataset(name).train
        x, y = split.rows(slice(0, rows)), split.y[:rows]
    order, cut = rng.permutation(len(x)), len(x) // 5
    x, y = x[order].astype(dtype), y[order]
    return x[cut:], y[cut:], x[:cut], y[:cut]


def candidate(name: str, width: int, batch: int, epochs: int, seed: int = 0, **more: Any) -> Any:
    """Return an estimator that trains for exactly these epochs."""
    if name == "skorch":
        return skorch_network(width, batch, epochs)
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (width,), "batch_size": batch, "max_iter": epochs, "tol": 0,
        "n_iter_no_change": epochs + 1, "random_state": seed,
    }  # fmt: skip
    return (MLPClassifier if name == "minidl" else TheirClassifier)(**settings, **more)


def skorch_network(width: int, batch: int, epochs: int) -> Any:
    import torch
    from skorch import NeuralNetClassifier

    class Network(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, features: int, classes: int) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(features, width), torch.nn.ReLU(), torch.nn.Linear(width, classes)
            )

        def forward(self, x: Any) -> Any:
            return self.layers(x)

    class Sized(NeuralNetClassifier):  # type: ignore[misc]
        """Learns the sizes of its layers from the data."""

        def fit(self, X: Array, y: Array) -> Any:
            dtype = torch.float64 if X.dtype == np.float64 else torch.float32
            sizes = {"module__features": X.shape[1], "module__classes": int(y.max()) + 1}
            self.set_params(**sizes)
            self.initialize()
            self.module_.to(dtype)
            self.initialize_criterion()
            self.initialize_optimizer()
            return self.partial_fit(X, y)

    return Sized(
        Network, criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=1e-3,
        optimizer__weight_decay=1e-4 / batch, batch_size=batch, max_epochs=epochs, verbose=0,
        iterator_train__shuffle=True, train_split=None, module__features=1, module__classes=1,
    )  # fmt: skip


def names() -> list[str]:
    """Return the candidates that are installed."""
    if importlib.util.find_spec("skorch") is None:
        print("skorch is not installed, so it is left out")
        return ["minidl", "scikit-learn"]
    return ["minidl", "scikit-learn", "skorch"]


def measure_fit(args: Any) -> dict[str, Any]:
    """Return seconds of fit and of predict at equal epochs, and the ratios to scikit-learn."""
    figures: dict[str, Any] = {}
    known = names()
    clock = time.process_time if args.cpu_time else time.perf_counter
    shown = Table(
        ["data", "dtype", "width", "batch", *known, "ratio", "predict: ours", "theirs", "ratio"],
        f"seconds: fit of {args.epochs} epochs, predict; {args.threads} thread(s), medians",
    )
    for data in args.data:
        for dtype in args.dtype:
            x, y, xv, _ = table(data, args.rows, dtype)
            for width in args.widths:
                for batch in args.batch:
                    found = {n: candidate(n, width, batch, args.epochs) for n in known}
                    calls = {n: partial(model.fit, x, y) for n, model in found.items()}
                    fits = alternate(calls, rounds=args.rounds, calls=1, clock=clock)
                    predictions = {n: partial(found[n].predict, xv) for n in known[:2]}
                    predicts = alternate(predictions, rounds=3 * args.rounds, calls=3, clock=clock)
                    ratios = [
                        t["minidl"].median / t["scikit-learn"].median for t in (fits, predicts)
                    ]
                    fit_cells = [f"{fits[n].median:.3g}" for n in known]
                    predict_cells = [f"{predicts[n].median:.2g}" for n in known[:2]]
                    shown.add(data, dtype, width, batch, *fit_cells, f"{ratios[0]:.2f}",
                              *predict_cells, f"{ratios[1]:.2f}")  # fmt: skip
                    figures[f"{data}, {dtype}, width {width}, batch {batch}"] = {
                        "fit": {n: fits[n].median for n in known},
                        "fit ratio": ratios[0],
                        "predict": {n: predicts[n].median for n in known[:2]},
                        "predict ratio": ratios[1],
                    }
    shown.show()
    return figures


class Reached(minidl.Callback):
    """Stops when the validation accuracy reaches a goal."""

    def __init__(self, goal: float) -> None:
        self.goal, self.reached = goal, False

    def on_epoch(self, run: Any) -> bool:
        self.reached = run.history[-1].valid_accuracy >= self.goal
        return self.reached


def measure_score(args: Any) -> dict[str, Any]:
    """Return the validation accuracy over seeds, and the time to reach scikit-learn's."""
    figures: dict[str, Any] = {}
    shown = Table(
        ["data", "width", "batch", "minidl", "scikit-learn", "difference", "standard error",
         "seconds to its score", "its seconds"],
        f"validation accuracy after {args.epochs} epochs, means over {args.seeds} seeds",
    )  # fmt: skip
    for data in args.data:
        x, y, xv, yv = table(data, args.rows, args.dtype[0])
        for width in args.widths:
            for batch in args.batch:
                ours, theirs, seconds = [], [], []
                for seed in range(args.seeds):
                    since = time.perf_counter()
                    their = candidate("scikit-learn", width, batch, args.epochs, seed).fit(x, y)
                    their_seconds = time.perf_counter() - since
                    theirs.append(their.score(xv, yv))
                    ours.append(
                        candidate("minidl", width, batch, args.epochs, seed).fit(x, y).score(xv, yv)
                    )
                    goal = Reached(theirs[-1])
                    model = candidate(
                        "minidl", width, batch, 5 * args.epochs, seed, callbacks=[goal]
                    )
                    since = time.perf_counter()
                    model.fit(x, y, X_val=xv, y_val=yv)
                    reached = time.perf_counter() - since if goal.reached else np.inf
                    seconds.append((reached, their_seconds))
                difference = np.array(ours) - theirs
                error = float(np.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / len(ours)))
                median = np.median(seconds, axis=0)
                shown.add(data, width, batch, f"{np.mean(ours):.4f}", f"{np.mean(theirs):.4f}",
                          f"{difference.mean():+.4f}", f"{error:.4f}",
                          *(f"{s:.3g}" for s in median))  # fmt: skip
                figures[f"{data}, width {width}, batch {batch}"] = {
                    "minidl": ours, "scikit-learn": theirs, "difference": difference.mean(),
                    "standard error": error, "seconds to its score": seconds,
                }  # fmt: skip
    shown.show()
    return figures


def peak(name: str, folder: Path, width: int, batch: int) -> tuple[float, float]:
    """Return the megabytes of the process before fit, and at most during it (Linux)."""
    x, y = np.load(folder / "x.npy"), np.load(folder / "y.npy")
    model = candidate(name, width, batch, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        candidate(name, width, batch, 1).fit(x[:1000], np.resize(np.unique(y), 1000))  # imports
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the old peak
        before = resident("VmRSS")
        model.fit(x, y)
    return before, resident("VmHWM")


def resident(name: str) -> float:
    """Return the memory of this process in megabytes: ``VmRSS`` now, ``VmHWM`` its peak."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024


def measure_memory(args: Any) -> dict[str, Any]:
    """Return the peak memory of fit, each in a process of its own."""
    figures: dict[str, Any] = {}
    known = names()
    shown = Table(
        ["data", "rows", "x", "dtype", "candidate", "before", "peak", "more"], "MB of fit"
    )
    context = multiprocessing.get_context("spawn")
    for data in args.data:
        for dtype in args.dtype:
            with tempfile.TemporaryDirectory() as folder:
                x, y, *_ = table(data, args.rows, dtype)
                for file, array in (("x.npy", x), ("y.npy", y)):
                    np.save(Path(folder) / file, array)
                for name in known:
                    with ProcessPoolExecutor(1, mp_context=context) as pool:
                        sizes = args.widths[0], args.batch[0]
                        before, most = pool.submit(peak, name, Path(folder), *sizes).result()
                    cells = (f"{megabytes:.0f}" for megabytes in (before, most, most - before))
                    shown.add(data, args.rows, f"{x.nbytes / 2**20:.0f}", dtype, name, *cells)
                    figures[f"{data}, {dtype}, {name}"] = {"before": before, "peak": most}
    shown.show()
    return figures


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--what", choices=("fit", "score", "memory"), default="fit")
    known = ["digits", "covertype", "adult", "letters"]
    parser.add_argument("--data", nargs="+", default=known, help="these, or a path of images")
    parser.add_argument("--rows", type=int, default=10_000, help="of each data set (10,000)")
    parser.add_argument("--dtype", nargs="+", default=["float32", "float64"])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 200])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=10, help="for --what score")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="for one thread, on a busy machine")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    args = parser.parse_args()
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(args.threads)
    measure = {"fit": measure_fit, "score": measure_score, "memory": measure_memory}[args.what]
    with warnings.catch_warnings(), threadpool_limits(args.threads):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are given
        figures = measure(args)
    path = args.out / f"estimators-{args.what}-{args.threads}.json"
    write_json(path, {"environment": environment(), "figures": figures})
    print(f"wrote {path}")


if __name__ == "__main__":
    run_main(main)
