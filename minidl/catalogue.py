"""Every layer, map and loss of minidl, one line each: what the kit checks, and draws from.

A new one joins by one line here; a test fails until it does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl.activations import (
    Entmax15,
    Quadratic,
    ReLU,
    Relumax,
    Sigmoid,
    Simplex,
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
from minidl.simplex import SimplexMap, entmax15, relumax, softmax, sparsemax
from minidl.typing import Array

Make = Callable[[int, int], Layer]
"""A layer on ``(n, features)``, ``out`` wide where it can change the width."""

LAYERS: dict[str, Make] = {
    "Linear": lambda features, out: Linear(features, out),
    "Linear, no bias": lambda features, out: Linear(features, out, bias=False),
    "Dropout": lambda features, out: Dropout(0.3),
    "LayerNorm": lambda features, out: LayerNorm(features),
    "Residual": lambda features, out: Residual(Linear(features, features), Tanh()),
    "Sequential": lambda features, out: Sequential(Linear(features, out), ReLU(), Dropout(0.2)),
    "ReLU": lambda features, out: ReLU(),
    "Tanh": lambda features, out: Tanh(),
    "Sigmoid": lambda features, out: Sigmoid(),
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
"""Draws what belongs to the logits."""


def classes(rng: np.random.Generator, logits: Array) -> Array:
    """A class for each row."""
    return rng.integers(0, logits.shape[1], len(logits))


def distributions(rng: np.random.Generator, logits: Array) -> Array:
    """A distribution over the classes for each row; half of the entries are 0."""
    y = rng.uniform(0.1, 1, logits.shape) * (rng.random(logits.shape) < 0.5)
    y[:, 0] += y.sum(axis=1) == 0
    return np.asarray(y / y.sum(axis=1, keepdims=True), logits.dtype)


def signs(rng: np.random.Generator, logits: Array) -> Array:
    """-1 or +1 for each row, for losses of one logit."""
    return rng.choice([-1, 1], len(logits))


def numbers(rng: np.random.Generator, logits: Array) -> Array:
    """A number for each output."""
    return np.asarray(rng.standard_normal(logits.shape), logits.dtype)


LOSSES: dict[str, tuple[Loss, Targets]] = {
    "CrossEntropy": (CrossEntropy(), classes),
    "CrossEntropy, sum": (CrossEntropy("sum"), classes),
    "CrossEntropy, distributions": (CrossEntropy(), distributions),
    "FenchelYoung(sparsemax)": (FenchelYoung(sparsemax), classes),
    "FenchelYoung(sparsemax), distributions": (FenchelYoung(sparsemax), distributions),
    "FenchelYoung(entmax15)": (FenchelYoung(entmax15), classes),
    "FenchelYoung(entmax15), distributions": (FenchelYoung(entmax15), distributions),
    "SmoothedNLL(relumax)": (SmoothedNLL(relumax(5.0)), classes),
    "SmoothedNLL(relumax), distributions": (SmoothedNLL(relumax(5.0)), distributions),
    "SmoothedNLL(sparsemax)": (SmoothedNLL(sparsemax, eps=0.1), classes),
    "Perceptron": (Perceptron(), classes),
    "BinaryLogistic": (BinaryLogistic(), signs),
    "SquaredError": (SquaredError(), numbers),
    "SquaredError, sum": (SquaredError("sum"), numbers),
}
