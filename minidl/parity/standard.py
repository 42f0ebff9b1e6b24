"""The standard set: every layer, activation, map, loss and optimizer option beside PyTorch.

The deep networks have Tanh: a ReLU whose input is within rounding of 0 may be on in one library
and off in the other, and from there on two runs differ by more than rounding. In float32
that happened to three of fifty networks within 200 steps, and says nothing about either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl.activations import (
    Entmax15,
    Quadratic,
    ReLU,
    Relumax,
    Sigmoid,
    Softmax,
    Sparsemax,
    Tanh,
)
from minidl.layer import Layer, Sequential
from minidl.layers import Dropout, LayerNorm, Linear, Residual
from minidl.losses import (
    BinaryLogistic,
    CrossEntropy,
    FenchelYoung,
    Loss,
    Perceptron,
    SmoothedNLL,
    SquaredError,
)
from minidl.optim import SGD, Adam, AdamW, Optimizer
from minidl.parity.lockstep import compare
from minidl.parity.report import ParityReport
from minidl.schedules import Cosine, StepDecay, WarmUp
from minidl.simplex import entmax15, relumax, sparsemax
from minidl.typing import Array

FEATURES, WIDTH, CLASSES = 20, 32, 5
EXAMPLES, BATCH = 256, 16
DEPTHS = (1, 3, 9)

OPTIMIZERS: list[tuple[type[Any], dict[str, Any]]] = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "weight_decay": 0.01}),
    (SGD, {"lr": 0.05, "momentum": 0.9}),
    (SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}),
    (SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    (SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    (SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (SGD, {"lr": StepDecay(0.1, every=20, factor=0.5)}),
    (SGD, {"lr": WarmUp(0.05, steps=10), "momentum": 0.9}),
    (Adam, {"lr": 1e-3}),
    (Adam, {"lr": 1e-3, "betas": (0.5, 0.9)}),
    (Adam, {"lr": 1e-3, "eps": 1e-3}),
    (Adam, {"lr": 1e-3, "weight_decay": 0.01}),
    (Adam, {"lr": WarmUp(Cosine(1e-3, steps=100, final=1e-4), steps=10)}),
    (AdamW, {"lr": 1e-3}),
    (AdamW, {"lr": 1e-3, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
]


@dataclass(frozen=True)
class Case:
    """A network, a loss and an optimizer; layers are made anew at every use."""

    name: str
    layers: Callable[[], list[Layer]]
    loss: Loss = field(default_factory=CrossEntropy)
    optimizer: tuple[type[Any], dict[str, Any]] = (SGD, {"lr": 0.02, "momentum": 0.9})
    depth: int | None = None
    """Set where the case is one of those that compare depths."""

    def run(self, steps: int, dtype: str) -> ParityReport:
        """Train it in both libraries."""
        kind, options = self.optimizer
        model = Sequential(*self.layers(), rng=0, dtype=dtype)
        optimizer: Optimizer = kind(model, **options)
        batches = _batches(steps, self.loss)
        return compare(model, self.loss, optimizer, batches, dtype=dtype, title=self.name)


def standard_set() -> list[Case]:
    """All cases."""
    cases = [
        Case(f"depth {depth}, {_call(*optimizer)}", _deep(depth), optimizer=optimizer, depth=depth)
        for depth in DEPTHS
        for optimizer in OPTIMIZERS
    ]
    inner: dict[str, Callable[[], list[Layer]]] = {
        "Linear without bias": lambda: [Linear(WIDTH, WIDTH, bias=False)],
        "ReLU": lambda: [ReLU()],
        "Tanh": lambda: [Tanh()],
        "Sigmoid": lambda: [Sigmoid()],
        "Quadratic": lambda: [Quadratic()],
        "LayerNorm": lambda: [LayerNorm(WIDTH)],
        "Residual": lambda: [Residual(Linear(WIDTH, WIDTH), Tanh()), ReLU()],
        "Softmax": lambda: [Tanh(), Softmax()],
        "Sparsemax": lambda: [Tanh(), Sparsemax()],
        "Entmax15": lambda: [Tanh(), Entmax15()],
        "Relumax(1)": lambda: [Tanh(), Relumax(1.0)],
        "Dropout(0.3)": lambda: [Tanh(), Dropout(0.3)],
        "Dropout(0)": lambda: [Tanh(), Dropout(0.0)],
        "Dropout(1)": lambda: [Tanh(), Dropout(1.0)],
    }
    cases += [Case(name, _around(layers)) for name, layers in inner.items()]
    losses: list[Loss] = [
        CrossEntropy("sum"),
        FenchelYoung(sparsemax),
        FenchelYoung(sparsemax, "sum"),
        FenchelYoung(entmax15),
        SmoothedNLL(relumax(5.0), eps=0.01),
        SmoothedNLL(sparsemax, eps=0.1),
        Perceptron(),
        BinaryLogistic(),
        SquaredError(),
        SquaredError("sum"),
    ]
    gentle = (SGD, {"lr": 0.002, "momentum": 0.9})
    for loss in losses:
        outputs = 1 if isinstance(loss, BinaryLogistic) else CLASSES
        cases.append(Case(repr(loss), _around(lambda: [Tanh()], outputs), loss, gentle))
    return cases


def _deep(depth: int) -> Callable[[], list[Layer]]:
    def layers() -> list[Layer]:
        hidden: list[Layer] = []
        for i in range(depth):
            hidden += [Linear(WIDTH if i else FEATURES, WIDTH), Tanh()]
        return [*hidden, Linear(WIDTH, CLASSES)]

    return layers


def _around(inner: Callable[[], list[Layer]], outputs: int = CLASSES) -> Callable[[], list[Layer]]:
    """Layers between two Linears, so that the gradient of their input is seen as well."""
    return lambda: [Linear(FEATURES, WIDTH), *inner(), Linear(WIDTH, outputs)]


def _batches(steps: int, loss: Loss) -> Iterator[tuple[Array, Array]]:
    """Batches of random examples that a linear map has labelled, as the loss takes labels."""
    rng = np.random.default_rng(1)
    x = rng.uniform(size=(EXAMPLES, FEATURES))
    outputs = (x - 0.5) @ rng.normal(size=(FEATURES, CLASSES))
    y = outputs.argmax(axis=1)
    if isinstance(loss, SquaredError):
        y = outputs
    elif isinstance(loss, BinaryLogistic):
        y = np.sign(outputs[:, 0])
    for _ in range(steps):
        rows = rng.integers(EXAMPLES, size=BATCH)
        yield x[rows], y[rows]


def _call(kind: type[Any], options: dict[str, Any]) -> str:
    return f"{kind.__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())})"
