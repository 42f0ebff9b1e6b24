"""scikit-learn's MLPClassifier."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from harness.task import Task
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from minidl.checks import Array

if TYPE_CHECKING:
    from workloads.step import Problem


def step(problem: Problem) -> Task:
    """Run one epoch of ``fit`` a call, with ``warm_start``."""
    x, y = problem.floats(), problem.y
    settings: dict[str, Any] = {
        "hidden_layer_sizes": problem.sizes[1:-1], "alpha": problem.l2, "batch_size": problem.batch,
        "max_iter": 1, "warm_start": True, "tol": 0, "solver": problem.optimizer.lower(),
        "learning_rate_init": problem.lr, "momentum": 0, "nesterovs_momentum": False,
        # It is divided by sqrt(1 - beta_2^t): in the first steps it is up to 30 times as large.
        "epsilon": 1e-9,
    }  # fmt: skip
    model = MLPClassifier(**settings)
    classes = np.arange(problem.sizes[-1])

    def fit(x: Array, y: Array) -> None:
        with warnings.catch_warnings():
            # One epoch is all that is asked.
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", UserWarning)  # batches larger than the data
            model.fit(x, y)

    def set_weights() -> None:
        # One example of each class makes the arrays, which then get the initial weights.
        fit(np.zeros((len(classes), x.shape[1]), x.dtype), classes)
        for have, want in zip(model.coefs_, problem.weights[::2], strict=True):
            have[...] = want
        for have, want in zip(model.intercepts_, problem.weights[1::2], strict=True):
            have[...] = want

    def check() -> list[Array]:
        set_weights()
        order = problem.order.ravel()
        model.set_params(shuffle=False)
        fit(x[order], y[order])
        model.set_params(shuffle=True)
        pairs = zip(model.coefs_, model.intercepts_, strict=True)
        return [array for pair in pairs for array in pair]

    return Task(lambda: fit(x, y), check, problem.parts)
