"""SGD on one example at a time: time of an example, on one thread.

minidl trains whole epochs of letters (784 pixels, 26 classes), with the cost of gathering and
converting pixels. The others train on a sample of them that is floats already: their best case.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
from contestants import numpy_loop
from harness.task import Entry
from harness.timing import Budget
from harness.workers import Case

import minidl
from minidl import init
from minidl.checks import Array
from minidl.training import epoch_rng

HIDDEN, CHECKED = 100, 20
GRID = [(lr, l2) for lr in (1e-3, 1e-4, 1e-5) for l2 in (1e-4, 1e-5)]

CONTESTANTS = {
    "minidl": Entry("ours.online"),
    "NumPy loop": Entry("numpy_loop.online"),
    "PyTorch": Entry("pytorch.online", "torch"),
    "JAX": Entry("jax_scan.online", "jax"),
}
MODELS = {
    "perceptron, float64": ("perceptron", "float64", [(1.0, 0.0)]),
    "perceptron": ("perceptron", "float32", [(1.0, 0.0)]),
    "logistic regression": ("logistic", "float32", [(1e-4, 1e-5)]),
    "six logistic regressions": ("logistic", "float32", GRID),
    "MLP": ("MLP", "float32", [(1e-3, 0.0)]),
}


def cases(quick: bool, data: str | None) -> list[Case]:
    """Return the models."""
    if quick:
        return [{"model": m, "rows": 5_200} for m in ("perceptron", "logistic regression", "MLP")]
    return [{"model": model, "rows": 20_800} for model in MODELS]


def contestants(case: Case, quick: bool) -> list[str]:
    """Return who takes part."""
    return list(CONTESTANTS)


def budget(seconds: float, quick: bool) -> Budget:
    """Return the rounds of a case."""
    return Budget(seconds, least=3 if quick else 7)


@dataclass(frozen=True)
class Problem:
    """A model with initial weights, letters, and the settings of one or several runs."""

    model: str
    dtype: str
    settings: list[tuple[float, float]]
    """Learning rate and L2 penalty of each run."""
    x: Array
    y: Array
    classes: int
    scale: float
    floats: Array = field(init=False)
    weights: list[Array] = field(init=False)

    def __post_init__(self) -> None:
        made = self.network()
        vars(self)["weights"] = [p.value.copy() for _, p in made.named_parameters()]
        vars(self)["floats"] = self.x.astype(np.float32) * np.float32(self.scale)

    def network(self) -> minidl.Sequential:
        """Return a model in minidl, with the initial weights."""
        if self.model == "MLP":
            random = partial(minidl.Linear, weight_init=init.normal(0.1, 0.1), bias_init=init.zeros)
            layers = [random(784, HIDDEN), minidl.ReLU(), random(HIDDEN, self.classes)]
        else:
            zeros = partial(minidl.Linear, weight_init=init.zeros, bias_init=init.zeros)
            layers = [zeros(784, self.classes)]
        return minidl.Sequential(*layers, rng=0, dtype=self.dtype)

    @property
    def order(self) -> Array:
        """The examples of the check: the order of ``fit_online(rng=0)``."""
        return epoch_rng(0, 1).permutation(CHECKED)


@lru_cache(maxsize=1)
def letters(rows: int) -> minidl.Dataset:
    """Return generated letters."""
    return minidl.load_letters(rows, 26, 26)


def problem(case: Case) -> Problem:
    """Return the letters and a model of the case."""
    model, dtype, settings = MODELS[case["model"]]
    split = letters(case["rows"]).train
    return Problem(model, dtype, settings, np.array(split.x), split.y, 26, split.scale)


def disagreement(problem: Problem, runs: list[list[Array]]) -> str | None:
    """Compare the weights after 20 steps with those of a plain loop in float64.

    The tolerance is a thousandth of their change, or of the perceptron's, whose weights after
    an update are sums of pixels, exact in both dtypes.
    """
    expected = numpy_loop.online(problem, "float64").check
    assert expected is not None
    for found, want in zip(runs, expected(), strict=True):
        for a, b, start in zip(found, want, problem.weights, strict=True):
            error, change = np.abs(a - b).max(), np.abs(b - start).max()
            if not error <= 1e-3 * change:
                return f"weights after {CHECKED} steps differ by {error:.2g}, changed {change:.2g}"
    return None
