"""The catalogue: every layer, map and loss of minidl, one line each.

The gradient checks, the random networks, the comparison with PyTorch and the tests read it. Add
a line for a new layer, map or loss; a test fails until you do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minidl.activations import (
    ELU,
    GELU,
    Entmax15,
    LeakyReLU,
    Quadratic,
    ReLU,
    Relumax,
    Sigmoid,
    SiLU,
    Simplex,
    Softmax,
    Softplus,
    Sparsemax,
    Tanh,
)
from minidl.checks import Array
from minidl.layer import Layer, Sequential
from minidl.layers import BatchNorm, Dropout, Flatten, Identity, LayerNorm, Linear, Residual
from minidl.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryLogistic,
    CrossEntropy,
    FenchelYoung,
    Huber,
    Loss,
    Perceptron,
    Poisson,
    Quantile,
    SmoothedNLL,
    SquaredError,
)
from minidl.maps import SimplexMap, entmax15, relumax, softmax, sparsemax

MakeLayer = Callable[[int, int], Layer]
"""``make(features, out)``: a layer for batches (n, features).

Its output is ``out`` wide if the layer can change the width, else ``features`` wide.
"""

LAYERS: dict[str, MakeLayer] = {
    "Linear": lambda features, out: Linear(features, out),
    "Linear, no bias": lambda features, out: Linear(features, out, bias=False),
    "Dropout": lambda features, out: Dropout(0.3),
    "LayerNorm": lambda features, out: LayerNorm(features),
    "BatchNorm": lambda features, out: BatchNorm(features),
    "BatchNorm, cumulative": lambda features, out: BatchNorm(features, momentum=None),
    "Flatten": lambda features, out: Flatten(),
    "Identity": lambda features, out: Identity(),
    "Residual": lambda features, out: Residual(Linear(features, features), Tanh()),
    "Sequential": lambda features, out: Sequential(Linear(features, out), ReLU(), Dropout(0.2)),
    "ReLU": lambda features, out: ReLU(),
    "Tanh": lambda features, out: Tanh(),
    "Sigmoid": lambda features, out: Sigmoid(),
    "LeakyReLU": lambda features, out: LeakyReLU(0.1),
    "ELU": lambda features, out: ELU(0.7),
    "Softplus": lambda features, out: Softplus(),
    "SiLU": lambda features, out: SiLU(),
    "GELU": lambda features, out: GELU(),
    "GELU, tanh": lambda features, out: GELU("tanh"),
    "Quadratic": lambda features, out: Quadratic(),
    "Simplex, axis 0": lambda features, out: Simplex(softmax, axis=0),
    "Softmax": lambda features, out: Softmax(),
    "Sparsemax": lambda features, out: Sparsemax(),
    "Entmax15": lambda features, out: Entmax15(),
    "Relumax": lambda features, out: Relumax(2.0),
}

MAPS: dict[str, SimplexMap] = {
    "softmax": softmax,
    "sparsemax": sparsemax,
    "entmax15": entmax15,
    "relumax": relumax(1.5),
}

Targets = Callable[[np.random.Generator, Array], Array]
"""``targets(rng, logits)``: random targets for a batch of logits."""


def classes(rng: np.random.Generator, logits: Array) -> Array:
    """Draw a class for each row."""
    return rng.integers(0, logits.shape[1], len(logits))


def distributions(rng: np.random.Generator, logits: Array) -> Array:
    """Draw a distribution over the classes for each row; about half of the entries are 0."""
    y = rng.uniform(0.1, 1, logits.shape) * (rng.random(logits.shape) < 0.5)
    y[:, 0] += y.sum(axis=1) == 0
    return np.asarray(y / y.sum(axis=1, keepdims=True), logits.dtype)


def signs(rng: np.random.Generator, logits: Array) -> Array:
    """Draw -1 or +1 for each row, for losses of one logit."""
    return rng.choice([-1, 1], len(logits))


def several_labels(rng: np.random.Generator, logits: Array) -> Array:
    """Draw 0 or 1 for each logit."""
    return rng.integers(0, 2, logits.shape)


def probabilities(rng: np.random.Generator, logits: Array) -> Array:
    """Draw a number in [0, 1] for each logit; about a quarter are 0, a quarter 1."""
    return np.asarray(np.clip(rng.uniform(-0.5, 1.5, logits.shape), 0, 1), logits.dtype)


def number(rng: np.random.Generator, logits: Array) -> Array:
    """Draw a number for each row."""
    return np.asarray(rng.standard_normal(len(logits)), logits.dtype)


def numbers(rng: np.random.Generator, logits: Array) -> Array:
    """Draw a number for each output."""
    return np.asarray(rng.standard_normal(logits.shape), logits.dtype)


def counts(rng: np.random.Generator, logits: Array) -> Array:
    """Draw a count for each output; about a third are 0."""
    return np.asarray(rng.poisson(1.0, logits.shape), logits.dtype)


@dataclass(frozen=True)
class LossEntry:
    """A loss, and logits and targets that fit it."""

    loss: Loss
    targets: Targets
    outputs: int | None = None
    """The number of logits of an example, where the loss demands one."""


LOSSES: dict[str, LossEntry] = {
    "CrossEntropy": LossEntry(CrossEntropy(), classes),
    "CrossEntropy, sum": LossEntry(CrossEntropy("sum"), classes),
    "CrossEntropy, distributions": LossEntry(CrossEntropy(), distributions),
    "FenchelYoung(sparsemax)": LossEntry(FenchelYoung(sparsemax), classes),
    "FenchelYoung(sparsemax), sum": LossEntry(FenchelYoung(sparsemax, "sum"), classes),
    "FenchelYoung(sparsemax), distributions": LossEntry(FenchelYoung(sparsemax), distributions),
    "FenchelYoung(entmax15)": LossEntry(FenchelYoung(entmax15), classes),
    "FenchelYoung(entmax15), distributions": LossEntry(FenchelYoung(entmax15), distributions),
    "SmoothedNLL(relumax)": LossEntry(SmoothedNLL(relumax(5.0)), classes),
    "SmoothedNLL(relumax), distributions": LossEntry(SmoothedNLL(relumax(5.0)), distributions),
    "SmoothedNLL(sparsemax)": LossEntry(SmoothedNLL(sparsemax, eps=0.1), classes),
    "Perceptron": LossEntry(Perceptron(), classes),
    "BinaryLogistic": LossEntry(BinaryLogistic(), signs, outputs=1),
    "BinaryCrossEntropy": LossEntry(BinaryCrossEntropy(), several_labels),
    "BinaryCrossEntropy, sum": LossEntry(BinaryCrossEntropy("sum"), several_labels),
    "BinaryCrossEntropy, labels summed": LossEntry(
        BinaryCrossEntropy(label_reduction="sum"), several_labels
    ),
    "BinaryCrossEntropy, probabilities": LossEntry(BinaryCrossEntropy(), probabilities),
    "SquaredError": LossEntry(SquaredError(), numbers),
    "SquaredError, sum": LossEntry(SquaredError("sum"), numbers),
    "AbsoluteError": LossEntry(AbsoluteError(), numbers),
    "AbsoluteError, sum": LossEntry(AbsoluteError("sum"), numbers),
    "Huber": LossEntry(Huber(0.8), numbers),
    "Huber, sum": LossEntry(Huber(2.5, "sum"), numbers),
    "Poisson": LossEntry(Poisson(), counts),
    "Poisson, sum": LossEntry(Poisson("sum"), counts),
    "Quantile": LossEntry(Quantile(0.3), numbers),
    "Quantile, several": LossEntry(Quantile((0.1, 0.5, 0.9)), number, outputs=3),
    "Quantile, sum": LossEntry(Quantile(0.9, "sum"), number, outputs=1),
}
