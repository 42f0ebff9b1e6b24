"""The models of the course, and the features of Question 1."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minidl import PCA, AveragePool, Dataset, Dropout, Layer, Linear, ReLU, Sequential
from minidl.checks import Rng
from minidl.data.features import Feature
from minidl.init import zeros

COMPONENTS = 90
"""As in a published report, where they hold 0.9315 of the variance."""
FEATURES = ("raw", "pca", "pool")


def make_feature(name: str, components: int) -> Feature | None:
    """Return the map from pixels to the features of this name, None for raw pixels."""
    return {"raw": None, "pca": PCA(components), "pool": AveragePool(2)}[name]


def linear(dataset: Dataset, dtype: str) -> Linear:
    """Return a linear model with all weights zero: the loss makes it a classifier or regression."""
    outputs = dataset.classes or 1
    return Linear(dataset.features, outputs, weight_init=zeros, bias_init=zeros, rng=0, dtype=dtype)


def product(*layers: Linear) -> Linear:
    """Return the layer that equals linear layers in turn: x (W1 W2) + (b1 W2 + b2) for two."""
    first, last = layers[0], layers[-1]
    one = Linear(first.in_features, last.out_features, rng=0, dtype="float64")
    weight, bias = np.eye(first.in_features), np.zeros((1, first.in_features))
    for layer in layers:
        weight, bias = weight @ layer.weight.value, layer(bias)
    one.load_state_dict({"weight": weight, "bias": bias[0]})
    return one


def mlp(dataset: Dataset, width: int, random: np.random.RandomState, dtype: str) -> Sequential:
    """Return a network with one hidden ReLU layer and the course's initial values.

    Weights are from N(0.1, 0.1^2), drawn in the course's layout (out, in); biases are zero.
    """
    hidden = Linear(dataset.features, width, weight_init=zeros, bias_init=zeros)
    output = Linear(width, dataset.classes or 1, weight_init=zeros, bias_init=zeros)
    model = Sequential(hidden, ReLU(), output, rng=0, dtype=dtype)
    for layer in (hidden, output):
        layer.weight.value = random.normal(0.1, 0.1, layer.weight.shape[::-1]).T
    return model


def feed_forward(
    dataset: Dataset,
    widths: Iterable[int],
    activation: type[Layer] = ReLU,
    *,
    dropout: float,
    rng: Rng,
    dtype: str,
) -> Sequential:
    """Return a network with PyTorch's initial values: Linear, activation, Dropout for each width.

    The last layer is linear: its outputs are logits.
    """
    layers: list[Layer] = []
    features = dataset.features
    for width in widths:
        layers += [Linear(features, width), activation(), Dropout(dropout)]
        features = width
    return Sequential(*layers, Linear(features, dataset.classes or 1), rng=rng, dtype=dtype)
