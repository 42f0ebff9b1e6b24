"""The catalogue: every layer, map and loss of minidl, one line each.

The comparison with PyTorch and the tests read it; a test fails where a line is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import activations, layers, losses, maps
from minidl.checks import Array
from minidl.layer import Layer, Sequential

MakeLayer = Callable[[int, int], Layer]
"""``make(features, out)``: a layer for batches (n, features), ``out`` wide if it can be."""

LAYERS: dict[str, MakeLayer] = {
    "Linear": lambda features, out: layers.Linear(features, out),
    "Linear, no bias": lambda features, out: layers.Linear(features, out, bias=False),
    "Dropout": lambda features, out: layers.Dropout(0.3),
    "LayerNorm": lambda features, out: layers.LayerNorm(features),
    "BatchNorm": lambda features, out: layers.BatchNorm(features),
    "BatchNorm, cumulative": lambda features, out: layers.BatchNorm(features, momentum=None),
    "Flatten": lambda features, out: layers.Flatten(),
    "Identity": lambda features, out: layers.Identity(),
    "Residual": lambda n, out: layers.Residual(layers.Linear(n, n), activations.Tanh()),
    "Sequential": lambda n, out: Sequential(
        layers.Linear(n, out), activations.ReLU(), layers.Dropout(0.2)
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


def distributions(rng: np.random.Generator, z: Array) -> Array:
    """Draw a distribution over the classes for each row; about half of the entries are 0."""
    y = rng.uniform(0.1, 1, z.shape) * (rng.random(z.shape) < 0.5)
    y[:, 0] += y.sum(axis=1) == 0
    return np.asarray(y / y.sum(axis=1, keepdims=True), z.dtype)


TARGETS: dict[str, Targets] = {
    "classes": lambda rng, z: rng.integers(0, z.shape[1], len(z)),
    "distributions": distributions,
    "signs": lambda rng, z: rng.choice([-1, 1], len(z)),
    "several_labels": lambda rng, z: rng.integers(0, 2, z.shape),
    "probabilities": lambda rng, z: np.clip(rng.uniform(-0.5, 1.5, z.shape), 0, 1).astype(z.dtype),
    "counts": lambda rng, z: rng.poisson(1.0, z.shape).astype(z.dtype),
    "number": lambda rng, z: rng.standard_normal(len(z)).astype(z.dtype),  # one for each row
    "numbers": lambda rng, z: rng.standard_normal(z.shape).astype(z.dtype),
}
"""By name; of the probabilities a quarter are 0, and a quarter 1."""


@dataclass(frozen=True)
class LossEntry:
    """A loss, targets that fit it, and the number of logits of an example where it demands one."""

    loss: losses.Loss
    targets: Targets
    outputs: int | None = None


_sparse, _entmax = losses.FenchelYoung(maps.sparsemax), losses.FenchelYoung(maps.entmax15)
_relumax, _binary = losses.SmoothedNLL(maps.relumax(5.0)), losses.BinaryCrossEntropy
_LOSSES: dict[str, tuple[Any, ...]] = {
    "CrossEntropy": (losses.CrossEntropy(), "classes"),
    "CrossEntropy, sum": (losses.CrossEntropy("sum"), "classes"),
    "CrossEntropy, distributions": (losses.CrossEntropy(), "distributions"),
    "FenchelYoung(sparsemax)": (_sparse, "classes"),
    "FenchelYoung(sparsemax), sum": (losses.FenchelYoung(maps.sparsemax, "sum"), "classes"),
    "FenchelYoung(sparsemax), distributions": (_sparse, "distributions"),
    "FenchelYoung(entmax15)": (_entmax, "classes"),
    "FenchelYoung(entmax15), distributions": (_entmax, "distributions"),
    "SmoothedNLL(relumax)": (_relumax, "classes"),
    "SmoothedNLL(relumax), distributions": (_relumax, "distributions"),
    "SmoothedNLL(sparsemax)": (losses.SmoothedNLL(maps.sparsemax, eps=0.1), "classes"),
    "Perceptron": (losses.Perceptron(), "classes"),
    "BinaryLogistic": (losses.BinaryLogistic(), "signs", 1),
    "BinaryCrossEntropy": (_binary(), "several_labels"),
    "BinaryCrossEntropy, sum": (_binary("sum"), "several_labels"),
    "BinaryCrossEntropy, labels summed": (_binary(label_reduction="sum"), "several_labels"),
    "BinaryCrossEntropy, probabilities": (_binary(), "probabilities"),
    "SquaredError": (losses.SquaredError(), "numbers"),
    "SquaredError, sum": (losses.SquaredError("sum"), "numbers"),
    "AbsoluteError": (losses.AbsoluteError(), "numbers"),
    "AbsoluteError, sum": (losses.AbsoluteError("sum"), "numbers"),
    "Huber": (losses.Huber(0.8), "numbers"),
    "Huber, sum": (losses.Huber(2.5, "sum"), "numbers"),
    "Poisson": (losses.Poisson(), "counts"),
    "Poisson, sum": (losses.Poisson("sum"), "counts"),
    "Quantile": (losses.Quantile(0.3), "numbers"),
    "Quantile, several": (losses.Quantile((0.1, 0.5, 0.9)), "number", 3),
    "Quantile, sum": (losses.Quantile(0.9, "sum"), "number", 1),
}
LOSSES = {n: LossEntry(loss, TARGETS[y], *k) for n, (loss, y, *k) in _LOSSES.items()}
