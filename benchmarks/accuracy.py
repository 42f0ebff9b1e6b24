"""Test scores of minidl and of scikit-learn's MLP estimators on four small data sets.

    python benchmarks/accuracy.py --splits 20

Digits, wine, breast cancer and diabetes come with scikit-learn. Each split has 60 per cent of the
rows for training, 20 for validation and 20 for the test. Both sides standardise the features with
the training rows, train a network with 100 hidden ReLU units by Adam (learning rate 0.001, batches
of 32, L2 penalty 1e-4), stop when the validation score has not improved by 1e-4 for 10 epochs, and
keep the weights of the best epoch by the same score: accuracy, or R^2 for diabetes.
"""

from __future__ import annotations

import argparse
import os
import warnings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor

import minidl
from minidl.checks import Array
from minidl.view.tables import Table

EPOCHS, BATCH, L2, LR, PATIENCE, MIN_DELTA = 200, 32, 1e-4, 1e-3, 10, 1e-4


def ours(x: list[Array], y: list[Array], classification: bool, seed: int) -> float:
    """Return the test score of a network of minidl."""
    raw = minidl.Dataset(*zip(x, y, strict=True))
    data = minidl.Standardize().fit_transform(raw)
    out = data.classes if classification else 1
    layers = minidl.Linear(data.features, 100), minidl.ReLU(), minidl.Linear(100, out)
    model = minidl.Sequential(*layers, rng=seed, dtype="float64")
    loss = minidl.CrossEntropy() if classification else minidl.SquaredError()
    score = "accuracy" if classification else "r2"
    minidl.fit(
        model, data, loss, minidl.Adam(model, LR, weight_decay=L2),
        epochs=EPOCHS, batch_size=BATCH, rng=seed, restore_best=True, parts=("valid",),
        monitor=f"valid_{score}",
        callbacks=[minidl.EarlyStopping(PATIENCE, min_delta=MIN_DELTA)],
    )  # fmt: skip
    return minidl.evaluate(model, data.splits["test"], loss)[score]


def theirs(x: list[Array], y: list[Array], classification: bool, seed: int) -> float:
    """Return the test score of scikit-learn's estimator, which chooses its validation rows."""
    rows = np.concatenate(x[:2])
    mean, std = x[0].mean(axis=0), x[0].std(axis=0)
    std[std == 0] = 1
    kind = MLPClassifier if classification else MLPRegressor
    estimator = kind(
        hidden_layer_sizes=(100,), alpha=L2, batch_size=BATCH, learning_rate_init=LR,
        max_iter=EPOCHS, tol=MIN_DELTA,
        early_stopping=True, validation_fraction=len(x[1]) / len(rows), n_iter_no_change=PATIENCE,
        random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the last epoch was reached
        estimator.fit((rows - mean) / std, np.concatenate(y[:2]))
    return float(estimator.score((x[2] - mean) / std, y[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Test scores beside scikit-learn's.")
    parser.add_argument("--splits", type=int, default=20)
    args = parser.parse_args()
    table = Table(
        [
            "data",
            "score",
            "minidl",
            "its sd",
            "scikit-learn",
            "sd of that",
            "difference",
            "standard error",
        ],
        f"mean over {args.splits} splits",
    )
    for name in ("digits", "wine", "breast_cancer", "diabetes"):
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        classification = name != "diabetes"
        scores = []
        for seed in range(args.splits):
            rest, test = train_test_split(
                np.arange(len(x)), test_size=0.2, random_state=seed,
                stratify=y if classification else None,
            )  # fmt: skip
            train, valid = train_test_split(
                rest,
                test_size=0.25,
                random_state=seed,
                stratify=y[rest] if classification else None,
            )
            parts = [train, valid, test]
            arguments = [x[p] for p in parts], [y[p] for p in parts], classification, seed
            scores.append((ours(*arguments), theirs(*arguments)))
        a, b = np.array(scores).T
        error = (a - b).std(ddof=1) / np.sqrt(len(a))
        table.add(
            name.replace("_", " "), "accuracy" if classification else "R^2",
            *(f"{v:.4f}" for v in (a.mean(), a.std(ddof=1), b.mean(), b.std(ddof=1))),
            f"{(a - b).mean():+.4f}", f"{error:.4f}",
        )  # fmt: skip
    table.show()


if __name__ == "__main__":
    main()
