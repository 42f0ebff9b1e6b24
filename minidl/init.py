"""Initial values of weights and biases.

An initialiser is a function ``init(rng, shape, fan_in, fan_out) -> array`` in float64; the
layer rounds it to its own dtype. Weights have the shape ``(fan_in, fan_out)``, biases
``(fan_out,)``. ``rng`` needs only the methods ``uniform`` and ``normal``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from minidl.checks import Array, check_float


class Init(Protocol):
    """The signature of an initialiser."""

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
    ) -> Array: ...


def uniform_fan_in(
    rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> Array:
    """Uniform on ``(-1/sqrt(fan_in), 1/sqrt(fan_in))``, as in ``torch.nn.Linear``.

    The numbers are drawn in PyTorch's order: a weight is drawn as ``(fan_out, fan_in)`` and then
    transposed. So ``TorchRandom`` gives the same weights as PyTorch.
    """
    if len(shape) == 1:
        bound = 1 / math.sqrt(max(fan_in, 1))
        return rng.uniform(-bound, bound, shape)
    # The same bound, but computed as in PyTorch (Kaiming's, with a = sqrt(5)), for equal rounding.
    bound = math.sqrt(3) * (math.sqrt(2 / 6) / math.sqrt(max(fan_in, 1)))
    return rng.uniform(-bound, bound, shape[::-1]).T


def zeros(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Array:
    """All zeros; no random number is drawn."""
    return np.zeros(shape)


def he(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Array:
    """Normal with standard deviation ``sqrt(2 / fan_in)`` (He et al. 2015, eq. 10)."""
    return rng.normal(0.0, math.sqrt(2 / max(fan_in, 1)), shape)


def glorot(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Array:
    """Uniform within ``sqrt(6 / (fan_in + fan_out))`` (Glorot and Bengio 2010, eq. 16)."""
    bound = math.sqrt(6 / max(fan_in + fan_out, 1))
    return rng.uniform(-bound, bound, shape)


@dataclass(frozen=True)
class normal:  # noqa: N801 - named like the functions above: normal(0.1, 0.1)
    """Normal with a given ``mean`` and ``std``."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        check_float("normal", "mean", self.mean)
        check_float("normal", "std", self.std, low=0)

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
    ) -> Array:
        return rng.normal(self.mean, self.std, shape)
