"""Loss and accuracy over a whole part of a data set, beside its matrix products alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from contestants import numpy_loop
from harness.task import Entry
from harness.timing import Budget
from harness.workers import Case

import minidl
from minidl.checks import Array
from minidl.dataset import Split

CONTESTANTS = {
    "minidl": Entry("ours.evaluate"),
    "PyTorch": Entry("pytorch.evaluate", "torch"),
    "JAX": Entry("jax_scan.evaluate", "jax"),
    "matrix products": Entry("numpy_loop.evaluate_products"),
}


def cases(quick: bool, data: str | None) -> list[Case]:
    """Return widths, with pixels that are converted chunk by chunk, and with floats."""
    if quick:
        return [{"width": 256, "x": "uint8", "rows": 5_200}]
    return [
        {"width": width, "x": x, "rows": 20_800}
        for width in (16, 64, 256, 1024)
        for x in ("uint8", "float32")
    ]


def contestants(case: Case, quick: bool) -> list[str]:
    """Return who takes part."""
    return list(CONTESTANTS)


def budget(seconds: float, quick: bool) -> Budget:
    """Return the rounds of a case."""
    return Budget(seconds / 2, least=3 if quick else 7)


@dataclass(frozen=True)
class Problem:
    """A network and the rows to evaluate it on."""

    model: minidl.Sequential
    split: Split
    floats: Array

    @property
    def weights(self) -> list[Array]:
        """Weight and bias of each layer in turn."""
        return [p.value for _, p in self.model.named_parameters()]


def problem(case: Case) -> Problem:
    """Return random rows and a network of the case."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (case["rows"], 784), dtype=np.uint8)
    y = rng.integers(0, 26, len(x))
    floats = x.astype(np.float32) / 256
    model = minidl.Sequential(
        minidl.Linear(784, case["width"]), minidl.ReLU(), minidl.Linear(case["width"], 26), rng=0
    )
    split = Split(x, y, 1 / 256) if case["x"] == "uint8" else Split(floats, y, 1.0)
    return Problem(model, split, floats)


def disagreement(problem: Problem, loss: float) -> str | None:
    """Compare the loss with that of a plain loop in float64."""
    weights = [w.astype(np.float64) for w in problem.weights]
    expected = numpy_loop.loss(weights, problem.floats.astype(np.float64), problem.split.y)
    if abs(loss - expected) <= 1e-5 * expected:
        return None
    return f"loss {loss:.7f}, expected {expected:.7f}"
