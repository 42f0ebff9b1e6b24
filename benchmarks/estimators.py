"""Fit and predict at equal epochs: minidl's estimators beside scikit-learn's networks.

    python benchmarks/estimators.py            # one width, float32
    python benchmarks/estimators.py --full     # widths, batches, dtypes, 20,000 sparse features

All take turns on the same rows in the same dtype. Tables like covertype and Adult are generated, so
that nothing is downloaded; so are the texts. Scores over seeds: ``benchmarks/accuracy.py``.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from problems import Case
from timing import Contestant, Rounds, Task

import minidl
from minidl.checks import Array
from minidl.view.cli import run_main

UNIT, FACTOR = "milliseconds", 1e3
THREADS = True
ROUNDS = Rounds(least=5, most=20)
TABLES = ("iris", "digits", "covertype", "adult", "letters")


def cases(full: bool) -> list[Case]:
    """Return data sets, dtypes, widths and batch sizes; "auto" is scikit-learn's 200."""
    names = [(name, dtype) for name in TABLES for dtype in ("float32", "float64")[: 1 + full]]
    points = [(w, b) for w in ((16, 64, 256) if full else (64,)) for b in ("auto", 64)[: 1 + full]]
    sparse = [{"data": "text", "dtype": "float32", "width": 64, "batch": "auto"}]
    dense = [
        {"data": name, "dtype": dtype, "width": w, "batch": b}
        for name, dtype in names for w, b in points
    ]  # fmt: skip
    return [
        {**case, "what": what} for case in dense + sparse for what in ("fit", "predict", "one row")
    ]


@dataclass(frozen=True)
class Table:
    """Rows and labels for training and for prediction, and the settings of a network."""

    x: Any
    y: Array
    new_x: Any
    new_y: Array
    case: Case
    epochs: int = 10

    @classmethod
    def of(cls, case: Case) -> Table:
        """Return a data set, a fifth of it for prediction."""
        rng = np.random.default_rng(0)
        x, y = rows_of(case["data"])
        order, cut = rng.permutation(len(y)), len(y) // 5
        x, y = x[order].astype(case["dtype"]), y[order]
        return cls(x[cut:], y[cut:], x[:cut], y[:cut], case)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that all estimators share."""
        return {
            "hidden_layer_sizes": (self.case["width"],), "batch_size": self.case["batch"],
            "max_iter": self.epochs, "tol": 0, "n_iter_no_change": 99, "random_state": 0,
        }  # fmt: skip

    def task(self, made: Any) -> Task:
        """Return fit or predict of an estimator; its accuracy is what is checked."""

        def fit() -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the epochs are given
                return made.fit(self.x, self.y)

        def result() -> float:
            return float(np.mean(fit().predict(self.new_x) == self.new_y))

        rows = self.new_x[:1] if self.case["what"] == "one row" else self.new_x
        return Task(fit if self.case["what"] == "fit" else lambda: made.predict(rows), result)

    def disagreement(self, accuracy: float) -> str | None:
        """Refuse an accuracy that is far below scikit-learn's."""
        from sklearn.neural_network import MLPClassifier

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = MLPClassifier(**self.settings()).fit(self.x, self.y)
        expected = float(model.score(self.new_x, self.new_y))
        low = expected - 0.05 - 2 / np.sqrt(len(self.new_y))
        return None if accuracy >= low else f"accuracy {accuracy:.4f}, expected {expected:.4f}"


@lru_cache(maxsize=1)
def rows_of(name: str) -> tuple[Any, Array]:
    from sklearn import datasets

    rng = np.random.default_rng(0)
    if name in ("iris", "digits"):
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        return x / x.max(), y
    if name == "letters":
        part = minidl.load_letters(10_000, 26, 26).train
        return part.rows(slice(None)), part.y
    if name == "text":
        return text(rng, 10_000, 20_000, 0.01)
    if name == "covertype":
        return generated(rng, 10_000, 10, [4, 40], 7)
    return generated(rng, 10_000, 6, [8, 16, 7, 14, 6, 5, 2, 40], 2)


def generated(
    rng: np.random.Generator, n: int, numbers: int, categories: list[int], k: int
) -> tuple[Array, Array]:
    """Return correlated numbers and one-hot categories, and classes drawn by a noisy network."""

    def one_hot(values: int) -> Array:
        share = 1 / np.arange(1, values + 1)  # the first values the most frequent
        return np.eye(values)[rng.choice(values, n, p=share / share.sum())]

    latent = rng.normal(size=(n, 4))
    numeric = latent @ rng.normal(size=(4, numbers)) + rng.normal(size=(n, numbers))
    x = np.hstack([numeric / 2, *map(one_hot, categories)])
    hidden = np.tanh(x @ rng.normal(size=(x.shape[1], 24)) / 2)
    scores = hidden @ rng.normal(size=(24, k)) - np.arange(k) * 0.7 + 0.5 * rng.gumbel(size=(n, k))
    return x, scores.argmax(axis=1)


def text(rng: np.random.Generator, n: int, words: int, share: float) -> tuple[Any, Array]:
    """Return sparse rows of word weights, and two classes by a linear rule with noise."""
    from scipy import sparse

    x = sparse.random_array((n, words), density=share, format="csr", rng=rng)
    scores = x @ rng.normal(size=words)
    return x, (scores + rng.normal(0, scores.std() / 2, n) > 0).astype(int)


def ours(problem: Table) -> Task:
    from minidl.sklearn import MLPClassifier

    return problem.task(MLPClassifier(**problem.settings()))


def theirs(problem: Table) -> Task:
    from sklearn.neural_network import MLPClassifier

    return problem.task(MLPClassifier(**problem.settings()))


problem = Table.of

CONTESTANTS = {
    "minidl": Contestant(ours, "sklearn"),
    "scikit-learn": Contestant(theirs, "sklearn"),
}

if __name__ == "__main__":
    from tables import main

    run_main(lambda: main("estimators"))
