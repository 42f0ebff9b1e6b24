"""Training steps of a network: time of one step, along the axes of width, batch, depth, optimizer.

Each axis is measured from a base point (batch 64, one hidden layer, Adam), at 784 inputs and 26
classes in float32. minidl runs whole epochs of ``fit`` on uint8 pixels, which it converts batch by
batch; the others have floats from the start.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from contestants import numpy_loop
from harness.task import Entry
from harness.timing import Budget
from harness.workers import Case

import minidl
from minidl.checks import Array
from minidl.training import epoch_rng

FEATURES, CLASSES, CHECKED_STEPS = 784, 26, 20
WIDTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)

CONTESTANTS = {
    "minidl": Entry("ours.step"),
    "PyTorch DataLoader": Entry("pytorch.step", "torch", {"loader": True}),
    "PyTorch": Entry("pytorch.step", "torch"),
    "PyTorch fused": Entry("pytorch.step", "torch", {"fused": True}),
    "torch.compile": Entry("pytorch.step", "torch", {"fused": True, "compiled": True}),
    "JAX": Entry("jax_scan.step", "jax"),
    "JAX vmap": Entry("jax_scan.step", "jax", {"seeds": 4}),
    "scikit-learn": Entry("sklearn_mlp.step", "sklearn"),
    "NumPy loop": Entry("numpy_loop.step"),
    "matrix products": Entry("numpy_loop.products"),
}


def point(**changes: object) -> Case:
    """Return the base point with some coordinates changed."""
    return {"width": 64, "batch": 64, "depth": 1, "optimizer": "Adam", **changes}


def cases(quick: bool, data: str | None) -> list[Case]:
    """Return the points along the axes."""
    if quick:
        return [point(width=width) for width in (16, 256)]
    return [
        *[point(width=width) for width in WIDTHS],
        *[point(batch=batch) for batch in (16, 512)],
        *[point(depth=depth) for depth in (3, 5)],
        *[point(width=width, optimizer="SGD") for width in (64, 256)],
    ]


def contestants(case: Case, quick: bool) -> list[str]:
    """Return who takes part; programs that take long to compile only along the axis of width."""
    along_width = case == point(width=case["width"]) and not quick
    left_out = [
        *([] if along_width else ["torch.compile", "JAX vmap"]),
        *(["JAX vmap"] if case["width"] > 256 else []),
    ]
    return [name for name in CONTESTANTS if name not in left_out]


def budget(seconds: float, quick: bool) -> Budget:
    """Return the rounds of a case."""
    return Budget(seconds, least=3 if quick else 5)


@dataclass(frozen=True)
class Problem:
    """A network with initial weights, examples, and the rule of a step."""

    sizes: tuple[int, ...]
    """Inputs, hidden layers, classes."""
    batch: int
    x: Array
    """uint8 pixels, worth 1/256 each."""
    y: Array
    optimizer: str = "Adam"
    l2: float = 0.0
    checked_steps: int = CHECKED_STEPS
    weights: list[Array] = field(init=False)
    """Weight and bias of each layer in turn, (in, out) and (out,)."""
    scale: float = 1 / 256

    def __post_init__(self) -> None:
        model = self.model()
        vars(self)["weights"] = [p.value.copy() for _, p in model.named_parameters()]

    def model(self) -> minidl.Sequential:
        """Return the network in minidl, with the initial weights."""
        layers: list[minidl.Layer] = []
        for i, o in itertools.pairwise(self.sizes):
            layers += [minidl.Linear(i, o), minidl.ReLU()]
        return minidl.Sequential(*layers[:-1], rng=0)

    @property
    def lr(self) -> float:
        """The learning rate."""
        return 1e-3 if self.optimizer == "Adam" else 0.1

    @property
    def parts(self) -> int:
        """The number of steps of an epoch: times are those of one step."""
        return -(-len(self.y) // self.batch)

    @property
    def order(self) -> Array:
        """The batches of the check, (steps, batch): those of ``minidl.fit(rng=0)``."""
        n = self.checked_steps * self.batch
        return epoch_rng(0, 1).permutation(n).reshape(-1, self.batch)

    def floats(self, rows: slice = slice(None)) -> Array:
        """Return pixels as floats."""
        return self.x[rows].astype(np.float32) * np.float32(self.scale)

    @cached_property
    def losses(self) -> tuple[float, float]:
        """The loss of the examples of the check before and after it, by a loop in float64."""
        return self.loss(self.weights), self.loss(numpy_loop.trained(self))

    def loss(self, weights: list[Array]) -> float:
        """Return the loss of the examples of the check."""
        n = self.order.size
        x, exact = self.floats(slice(n)), [np.asarray(w, np.float64) for w in weights]
        return numpy_loop.loss(exact, x.astype(np.float64), self.y[:n])


def problem(case: Case) -> Problem:
    """Return noisy patterns of the classes, enough for 20 to 200 steps, and a network."""
    sizes = (FEATURES, *[case["width"]] * case["depth"], case.get("classes", CLASSES))
    entries = sum(i * o for i, o in itertools.pairwise(sizes))
    # Longer epochs for smaller steps, whose fixed costs count.
    steps = int(np.clip(2e9 / (entries * (case["batch"] + 16)), CHECKED_STEPS, 200))
    rng = np.random.default_rng(0)
    y = rng.integers(0, sizes[-1], steps * case["batch"])
    x = rng.integers(0, 128, (len(y), FEATURES), dtype=np.uint8)
    x += rng.integers(0, 128, (sizes[-1], FEATURES), dtype=np.uint8)[y]  # a pattern of each class
    return Problem(sizes, case["batch"], x, y, case["optimizer"])


def disagreement(problem: Problem, weights: list[Array]) -> str | None:
    """Compare the loss after 20 steps with that of a plain loop in float64.

    The tolerance is a hundredth of what the loss changes in these steps.
    """
    found, (before, expected) = problem.loss(weights), problem.losses
    if abs(found - expected) <= 0.01 * abs(expected - before):
        return None
    return f"loss {found:.6f} after {problem.checked_steps} steps, expected {expected:.6f}"
