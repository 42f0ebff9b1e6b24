"""Fit and predict at equal epochs: minidl's estimators beside scikit-learn's networks.

    python benchmarks/estimators.py            # one width, float32
    python benchmarks/estimators.py --full     # widths, batches, dtypes, 20,000 sparse features

All take turns on the same rows in the same dtype. Tables of the sizes of covertype and Adult are
generated, so that nothing is downloaded; so are the texts. Scores over seeds: ``accuracy.py``.
"""

from __future__ import annotations

import importlib
import itertools
import warnings
from functools import lru_cache, partial
from typing import Any

import numpy as np
from problems import Case
from timing import Rounds, Task

import minidl
from minidl.view.cli import run_main

UNIT, FACTOR = "milliseconds", 1e3
THREADS = True
ROUNDS = Rounds(least=5, most=20)
TABLES = ("iris", "digits", "covertype", "adult", "letters")


def cases(full: bool) -> list[Case]:
    """Return data sets, dtypes, widths and batch sizes; "auto" is scikit-learn's 200."""
    dtypes, batches = ("float32", "float64")[: 1 + full], ("auto", 64)[: 1 + full]
    points = [*itertools.product(TABLES, dtypes, (16, 64, 256) if full else (64,), batches)]
    points.append(("text", "float32", 64, "auto"))
    names = ("data", "dtype", "width", "batch", "what")
    what = "fit", "predict", "one row"
    return [dict(zip(names, (*point, w), strict=True)) for point in points for w in what]


class Table:
    """Rows and labels for training, a fifth for prediction, and the settings of a network."""

    def __init__(self, case: Case) -> None:
        x, y = rows_of(case["data"])
        order, cut = np.random.default_rng(0).permutation(len(y)), len(y) // 5
        x, y = x[order].astype(case["dtype"]), y[order]
        self.x, self.y, self.new_x, self.new_y = x[cut:], y[cut:], x[:cut], y[:cut]
        self.what = case["what"]
        self.settings = {
            "hidden_layer_sizes": (case["width"],), "batch_size": case["batch"],
            "max_iter": 10, "tol": 0, "n_iter_no_change": 99, "random_state": 0,
        }  # fmt: skip

    def model(self, library: str) -> Any:
        return importlib.import_module(library).MLPClassifier(**self.settings)

    def fit(self, model: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the epochs are given
            return model.fit(self.x, self.y)

    def task(self, library: str) -> Task:
        """Return fit or predict of a library's estimator; its accuracy is what is checked."""
        made = self.model(library)
        rows = self.new_x[:1] if self.what == "one row" else self.new_x
        call = partial(self.fit, made) if self.what == "fit" else lambda: made.predict(rows)
        return Task(call, lambda: self.fit(made).score(self.new_x, self.new_y))

    def disagreement(self, accuracy: float) -> str | None:
        """Refuse an accuracy that is far below scikit-learn's."""
        expected = self.fit(self.model("sklearn.neural_network")).score(self.new_x, self.new_y)
        low = expected - 0.05 - 2 / np.sqrt(len(self.new_y))
        return None if accuracy >= low else f"accuracy {accuracy:.4f}, expected {expected:.4f}"


@lru_cache(maxsize=1)
def rows_of(name: str) -> tuple[Any, Any]:
    from scipy import sparse
    from sklearn import datasets

    rng = np.random.default_rng(0)
    if name in ("iris", "digits"):
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        return x / x.max(), y
    if name == "letters":
        part = minidl.load_letters(10_000, 26, 26).train
        return part.rows(slice(None)), part.y
    if name == "text":  # sparse rows of word weights, and two classes by a linear rule with noise
        x = sparse.random_array((10_000, 20_000), density=0.01, format="csr", rng=rng)
        scores = x @ rng.normal(size=20_000)
        return x, (scores + rng.normal(0, scores.std() / 2, len(scores)) > 0).astype(int)
    columns, classes = (54, 7) if name == "covertype" else (104, 2)
    made: tuple[Any, Any] = datasets.make_classification(
        10_000, columns, n_informative=12, n_redundant=10, n_classes=classes,
        n_clusters_per_class=2, random_state=0,
    )  # fmt: skip
    return made


problem = Table

CONTESTANTS = {
    "minidl": partial(Table.task, library="minidl.sklearn"),
    "scikit-learn": partial(Table.task, library="sklearn.neural_network"),
}

if __name__ == "__main__":
    from tables import main

    run_main(lambda: main("estimators"))
