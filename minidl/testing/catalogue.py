"""The catalogue: every layer, map and loss of minidl, one line each.

The gradient checks, the random networks, the comparison with PyTorch and the tests read it. Add
a line for a new layer, map or loss; a test fails until you do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minidl import activations, layers, losses, maps
from minidl.checks import Array
from minidl.layer import Layer, Sequential

MakeLayer = Callable[[int, int], Layer]
"""``make(features, out)``: a layer for batches (n, features).

Its output is ``out`` wide if the layer can change the width, else ``features`` wide.
"""

LAYERS: dict[str, MakeLayer] = {
    "Linear": lambda features, out: layers.Linear(features, out),
    "Linear, no bias": lambda features, out: layers.Linear(features, out, bias=False),
    "Dropout": lambda features, out: layers.Dropout(0.3),
    "LayerNorm": lambda features, out: layers.LayerNorm(features),
    "BatchNorm": lambda features, out: layers.BatchNorm(features),
    "BatchNorm, cumulative": lambda features, out: layers.BatchNorm(features, momentum=None),
    "Flatten": lambda features, out: layers.Flatten(),
    "Identity": lambda features, out: layers.Identity(),
    "Residual": lambda features, out: layers.Residual(
        layers.Linear(features, features), activations.Tanh()
    ),
    "Sequential": lambda features, out: Sequential(
        layers.Linear(features, out), activations.ReLU(), layers.Dropout(0.2)
    ),
    "ReLU": lambda features, out: activations.ReLU(),
    "Tanh": lambda features, out: activations.Tanh(),
    "Sigmoid": lambda features, out: activations.Sigmoid(),
    "LeakyReLU": lambda features, out: activations.LeakyReLU(0.1),
    "ELU": lambda features, out: activations.ELU(0.7),
    "Softplus": lambda features, out: activations.Softplus(),
    "SiLU": lambda features, out: activations.SiLU(),
    "GELU": lambda features, out: activations.GELU(),
    "GELU, tanh": lambda features, out: activations.GELU("tanh"),
    "Quadratic": lambda features, out: activations.Quadratic(),
    "Simplex, axis 0": lambda features, out: activations.Simplex(maps.softmax, axis=0),
    "Softmax": lambda features, out: activations.Softmax(),
    "Sparsemax": lambda features, out: activations.Sparsemax(),
    "Entmax15": lambda features, out: activations.Entmax15(),
    "Relumax": lambda features, out: activations.Relumax(2.0),
}

MAPS: dict[str, maps.SimplexMap] = {
    "softmax": maps.softmax,
    "sparsemax": maps.sparsemax,
    "entmax15": maps.entmax15,
    "relumax": maps.relumax(1.5),
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


def counts(rng: np.random.Generator, logits: Array) -> Array:
    """Draw a count for each output; about a third are 0."""
    return np.asarray(rng.poisson(1.0, logits.shape), logits.dtype)


def numbers(rng: np.random.Generator, logits: Array) -> Array:
    """Draw a number for each output."""
    return np.asarray(rng.standard_normal(logits.shape), logits.dtype)


DRAWN = (classes, distributions, signs, several_labels, probabilities, counts, number, numbers)
TARGETS: dict[str, Targets] = {draw.__name__: draw for draw in DRAWN}


@dataclass(frozen=True)
class LossEntry:
    """A loss, and logits and targets that fit it."""

    loss: losses.Loss
    targets: Targets
    outputs: int | None = None
    """The number of logits of an example, where the loss demands one."""


LOSSES: dict[str, LossEntry] = {
    "CrossEntropy": LossEntry(losses.CrossEntropy(), classes),
    "CrossEntropy, sum": LossEntry(losses.CrossEntropy("sum"), classes),
    "CrossEntropy, distributions": LossEntry(losses.CrossEntropy(), distributions),
    "FenchelYoung(sparsemax)": LossEntry(losses.FenchelYoung(maps.sparsemax), classes),
    "FenchelYoung(sparsemax), sum": LossEntry(losses.FenchelYoung(maps.sparsemax, "sum"), classes),
    "FenchelYoung(sparsemax), distributions": LossEntry(
        losses.FenchelYoung(maps.sparsemax), distributions
    ),
    "FenchelYoung(entmax15)": LossEntry(losses.FenchelYoung(maps.entmax15), classes),
    "FenchelYoung(entmax15), distributions": LossEntry(
        losses.FenchelYoung(maps.entmax15), distributions
    ),
    "SmoothedNLL(relumax)": LossEntry(losses.SmoothedNLL(maps.relumax(5.0)), classes),
    "SmoothedNLL(relumax), distributions": LossEntry(
        losses.SmoothedNLL(maps.relumax(5.0)), distributions
    ),
    "SmoothedNLL(sparsemax)": LossEntry(losses.SmoothedNLL(maps.sparsemax, eps=0.1), classes),
    "Perceptron": LossEntry(losses.Perceptron(), classes),
    "BinaryLogistic": LossEntry(losses.BinaryLogistic(), signs, outputs=1),
    "BinaryCrossEntropy": LossEntry(losses.BinaryCrossEntropy(), several_labels),
    "BinaryCrossEntropy, sum": LossEntry(losses.BinaryCrossEntropy("sum"), several_labels),
    "BinaryCrossEntropy, labels summed": LossEntry(
        losses.BinaryCrossEntropy(label_reduction="sum"), several_labels
    ),
    "BinaryCrossEntropy, probabilities": LossEntry(losses.BinaryCrossEntropy(), probabilities),
    "SquaredError": LossEntry(losses.SquaredError(), numbers),
    "SquaredError, sum": LossEntry(losses.SquaredError("sum"), numbers),
    "AbsoluteError": LossEntry(losses.AbsoluteError(), numbers),
    "AbsoluteError, sum": LossEntry(losses.AbsoluteError("sum"), numbers),
    "Huber": LossEntry(losses.Huber(0.8), numbers),
    "Huber, sum": LossEntry(losses.Huber(2.5, "sum"), numbers),
    "Poisson": LossEntry(losses.Poisson(), counts),
    "Poisson, sum": LossEntry(losses.Poisson("sum"), counts),
    "Quantile": LossEntry(losses.Quantile(0.3), numbers),
    "Quantile, several": LossEntry(losses.Quantile((0.1, 0.5, 0.9)), number, outputs=3),
    "Quantile, sum": LossEntry(losses.Quantile(0.9, "sum"), number, outputs=1),
}
