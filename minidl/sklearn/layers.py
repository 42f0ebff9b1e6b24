"""The hidden layers and the schedules by the names that the estimators take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.activations import ELU, GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from minidl.init import glorot
from minidl.layer import Layer
from minidl.layers import BatchNorm, Dropout, Identity, LayerNorm, Linear
from minidl.schedules import Cosine, OneCycle, Schedule
from minidl.validation import check_float, check_int, did_you_mean

ACTIVATIONS: dict[str, Callable[[], Layer]] = {
    "identity": Identity,
    "logistic": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "elu": ELU,
    "gelu": GELU,
    "silu": SiLU,
    "softplus": Softplus,
}
NORMALIZATIONS: dict[str | None, Callable[[int], Layer] | None] = {
    None: None,
    "layer": LayerNorm,
    "batch": BatchNorm,
}
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {"cosine": Cosine, "one_cycle": OneCycle}


def choose(owner: str, name: str, value: Any, known: Mapping[Any, Any]) -> Any:
    """Return the entry of a table; ValueError that names the known ones."""
    if isinstance(value, (str, type(None))) and value in known:
        return known[value]
    hint = did_you_mean(str(value), [str(word) for word in known])
    raise ValueError(f"{owner}: no {name} {value!r}{hint}")


def hidden_layers(
    owner: str,
    features: int,
    sizes: Any,
    activation: str,
    normalization: str | None,
    dropout: float,
) -> tuple[list[Layer], int]:
    """Return the layers before the last, and the width of their output.

    Each hidden layer is ``Linear``, the normalization, the activation, ``Dropout``. Weights and
    biases are drawn as scikit-learn's (Glorot and Bengio 2010).
    """
    make = choose(owner, "activation", activation, ACTIVATIONS)
    normalize = choose(owner, "normalization", normalization, NORMALIZATIONS)
    p = check_float(owner, "dropout", dropout, low=0, high=1, open_high=True)
    layers: list[Layer] = []
    for size in np.atleast_1d(np.asarray(sizes, dtype=object)).tolist():
        width = check_int(owner, "hidden_layer_sizes", size)
        layers.append(Linear(features, width, weight_init=glorot, bias_init=glorot))
        if normalize is not None:
            layers.append(normalize(width))
        layers.append(make())
        if p:
            layers.append(Dropout(p))
        features = width
    return layers, features


@dataclass(frozen=True)
class InverseScaling:
    """scikit-learn's ``learning_rate="invscaling"``: ``lr / (t + 1)^power``.

    ``t`` is the number of examples seen in the epochs that are complete.
    """

    lr: float
    power: float
    examples: int
    batches: int

    def __call__(self, t: int) -> float:
        return float(self.lr / (t // self.batches * self.examples + 1) ** self.power)
