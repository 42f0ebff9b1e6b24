"""Test scores of minidl's estimators beside scikit-learn's networks on five small data sets.

    python benchmarks/accuracy.py --splits 20

Digits, wine, iris, breast cancer and diabetes come with scikit-learn. A fifth of the rows is the
test part. Both sides standardise the features with the other rows, train a network with 100 hidden
units (batches of 32), stop when the score of a quarter of these rows has not improved for 10
epochs, and keep the weights of the best epoch: the same pipeline, with the import changed.
"""

from __future__ import annotations

import os
import warnings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from sklearn import datasets, neural_network
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import minidl.sklearn
from minidl.checks import Array
from minidl.view.cli import Parser, int_argument, run_main
from minidl.view.tables import Table

COLUMNS = ["data", "score", "minidl", "its sd", "scikit-learn", "sd of that", "difference", "error"]


def scores(name: str, x: Array, y: Array, classification: bool, seed: int) -> list[float]:
    """Return the test scores of both libraries on one split."""
    strata = y if classification else None
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, random_state=seed, stratify=strata)
    found = []
    for library in (minidl.sklearn, neural_network):
        kind = library.MLPClassifier if classification else library.MLPRegressor
        model = kind(
            hidden_layer_sizes=(100,), batch_size=32, max_iter=200, early_stopping=True,
            validation_fraction=0.25, n_iter_no_change=10, random_state=seed,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the last epoch was reached
            made = make_pipeline(StandardScaler(), model).fit(x, y)
        found.append(float(made.score(x_test, y_test)))
    return found


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--splits", type=int_argument("splits", low=2), default=20)
    splits = parser.parse_args().splits
    table = Table(COLUMNS, f"mean over {splits} splits; error: standard error of the difference")
    for name in ("digits", "wine", "iris", "breast_cancer", "diabetes"):
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        classes = name != "diabetes"
        a, b = np.array([scores(name, x, y, classes, seed) for seed in range(splits)]).T
        shown = (a.mean(), a.std(ddof=1), b.mean(), b.std(ddof=1))
        error = (a - b).std(ddof=1) / np.sqrt(splits)
        table.add(
            name.replace("_", " "), "accuracy" if classes else "R^2",
            *(f"{v:.4f}" for v in shown), f"{(a - b).mean():+.4f}", f"{error:.4f}",
        )  # fmt: skip
    table.show()


if __name__ == "__main__":
    run_main(main)
