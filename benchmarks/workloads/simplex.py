"""Maps onto the simplex and their losses: time of a forward and a backward pass.

Logits of standard deviation 2 give small supports, as in a trained model; 0.1 gives large ones, as
at the start of training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from harness.task import Entry
from harness.timing import Budget
from harness.workers import Case

import minidl
from minidl.checks import Array
from minidl.maps import SimplexMap

SIZES = ((64, 26), (4096, 26), (64, 1000), (64, 32_000))
DENSE, SPARSE = ("softmax", "relumax"), ("sparsemax", "entmax15")
PARTIAL = 100
REGULARIZED = {
    "softmax": minidl.softmax,
    "sparsemax": minidl.sparsemax,
    "entmax15": minidl.entmax15,
}

CONTESTANTS = {
    "minidl": Entry("ours.simplex"),
    "PyTorch": Entry("pytorch.simplex", "torch"),
    "entmax": Entry("entmax_maps.simplex", "entmax"),
    f"entmax k={PARTIAL}": Entry("entmax_maps.simplex", "entmax", {"k": PARTIAL}),
}


def cases(quick: bool, data: str | None) -> list[Case]:
    """Return maps and losses on logits of several sizes and scales."""
    return [
        {"what": what, "n": n, "K": k, "scale": scale}
        for scale in ((2.0,) if quick else (2.0, 0.1))
        for n, k in (SIZES[:1] if quick else SIZES)
        for name in (*DENSE, *SPARSE)
        for what in (name, f"{name} loss")
    ]


def contestants(case: Case, quick: bool) -> list[str]:
    """Return who takes part: entmax has the sparse maps, and sorts in part where K is large."""
    if case["what"].removesuffix(" loss") in DENSE:
        return ["minidl", "PyTorch"]
    return ["minidl", "entmax", *([f"entmax k={PARTIAL}"] if case["K"] > PARTIAL else [])]


def budget(seconds: float, quick: bool) -> Budget:
    """Return the rounds of a case, of which there are many."""
    return Budget(seconds / 10, least=3 if quick else 7)


@dataclass(frozen=True)
class Problem:
    """Logits, a cotangent, labels, and the name of a map or a loss."""

    what: str
    z: Array
    dp: Array
    y: Array
    b: float = 2.0
    eps: float = 0.01

    @property
    def is_loss(self) -> bool:
        """Whether the loss of a map is measured."""
        return self.what.endswith(" loss")

    def map(self) -> SimplexMap:
        """Return minidl's map."""
        name = self.what.removesuffix(" loss")
        return minidl.relumax(self.b) if name == "relumax" else REGULARIZED[name]

    def loss(self) -> minidl.FenchelYoung | minidl.SmoothedNLL:
        """Return minidl's loss."""
        if self.what == "softmax loss":
            return minidl.CrossEntropy()
        if self.what == "relumax loss":
            return minidl.SmoothedNLL(self.map(), self.eps)
        return minidl.FenchelYoung(REGULARIZED[self.what.removesuffix(" loss")])


def problem(case: Case) -> Problem:
    """Return random logits of the case."""
    rng = np.random.default_rng(0)
    n, k = case["n"], case["K"]
    z = (case["scale"] * rng.normal(size=(n, k))).astype(np.float32)
    z[np.arange(n), z.argmax(axis=1)] += 1e-3  # at a tie of the largest, relumax has a kink
    dp = rng.normal(size=(n, k)).astype(np.float32)
    return Problem(case["what"], z, dp, np.asarray(rng.integers(0, k, n)))


def reference(problem: Problem) -> tuple[Any, Array]:
    """Return value and gradient in float64."""
    z, dp = problem.z.astype(np.float64), problem.dp.astype(np.float64)
    if problem.is_loss:
        value: tuple[Any, Array] = problem.loss()(z, problem.y)
        return value
    map = problem.map()
    p = map(z)
    return p, map.vjp(p, dp)


def disagreement(problem: Problem, found: tuple[Any, Array]) -> str | None:
    """Compare value and gradient with those in float64."""
    for name, a, b in zip(("value", "gradient"), found, reference(problem), strict=True):
        error, largest = np.abs(np.asarray(a) - b).max(), np.abs(b).max()
        if not error <= 1e-3 * largest:
            return f"the {name} differs by {error:.2g}, the largest entry is {largest:.2g}"
    return None
