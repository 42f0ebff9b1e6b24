"""Our losses as PyTorch computes them, from the outputs ``z`` and the targets ``y``.

``CRITERIA`` has an entry for each class of losses; for a loss of your own, add one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from minidl.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryLogistic,
    CrossEntropy,
    FenchelYoung,
    Huber,
    Loss,
    Perceptron,
    Quantile,
    SmoothedNLL,
    SquaredError,
)
from minidl.parity.simplex import formula

Criterion = Callable[[Tensor, Tensor], Tensor]
WeightedCriterion = Callable[..., Tensor]
"""``criterion(z, y)`` or ``criterion(z, y, weight)``."""


def criterion(loss: Loss) -> WeightedCriterion:
    """Return the function of ``(z, y)`` that PyTorch differentiates in place of ``loss``.

    Its third argument, where given, are the weights of the examples.

    Raises
    ------
    TypeError
        If the loss, or its map, has no counterpart.
    """
    if type(loss) not in CRITERIA:
        raise TypeError(f"minidl.parity: no PyTorch counterpart of the loss {loss!r}")
    values = CRITERIA[type(loss)](loss)
    mean = getattr(loss, "reduction", "mean") == "mean"

    def reduced(z: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        if weight is None:
            return values(z, y).mean() if mean else values(z, y).sum()
        total = (weight * values(z, y)).sum()
        return total / weight.sum() if mean else total

    return reduced


def _cross_entropy(loss: CrossEntropy) -> Criterion:
    def values(z: Tensor, y: Tensor) -> Tensor:
        entropy = torch.xlogy(y, y).sum(dim=-1) if y.ndim == 2 else 0
        return F.cross_entropy(z, y, reduction="none") + entropy

    return values


def _fenchel_young(loss: FenchelYoung) -> Criterion:
    map, f = loss.map, formula(loss.map)
    if f.omega is None:
        raise TypeError(f"minidl.parity: no PyTorch counterpart of the regulariser of {map!r}")
    omega = f.omega

    def values(z: Tensor, y: Tensor) -> Tensor:
        p, y = f.project(map, z, -1), _distributions(y, z)
        return ((p - y) * z).sum(dim=-1) - omega(map, p).sum(dim=-1) + omega(map, y).sum(dim=-1)

    return values


def _smoothed_nll(loss: SmoothedNLL) -> Criterion:
    map, eps, f = loss.map, loss.eps, formula(loss.map)

    def values(z: Tensor, y: Tensor) -> Tensor:
        shares = (f.project(map, z, -1) + eps) / (1 + z.shape[1] * eps)
        return -torch.xlogy(_distributions(y, z), shares).sum(dim=-1)

    return values


def _squared_error(loss: SquaredError) -> Criterion:
    return lambda z, y: (z - y.reshape(z.shape)).square().sum(dim=-1) / 2


def _absolute_error(loss: AbsoluteError) -> Criterion:
    return lambda z, y: F.l1_loss(z, _like(y, z), reduction="none").sum(dim=-1)


def _huber(loss: Huber) -> Criterion:
    delta = loss.delta
    return lambda z, y: F.huber_loss(z, _like(y, z), reduction="none", delta=delta).sum(dim=-1)


def _quantile(loss: Quantile) -> Criterion:
    def values(z: Tensor, y: Tensor) -> Tensor:
        several = isinstance(loss.q, tuple)
        q = torch.tensor(loss.q, dtype=z.dtype)
        error = (y.reshape(-1, 1) if several else _like(y, z)) - z
        return torch.maximum(q * error, (q - 1) * error).sum(dim=-1)

    return values


def _binary_cross_entropy(loss: BinaryCrossEntropy) -> Criterion:
    mean = (loss.label_reduction or loss.reduction) == "mean"

    def values(z: Tensor, y: Tensor) -> Tensor:
        entropy = F.binary_cross_entropy_with_logits(z, _like(y, z), reduction="none")
        return entropy.mean(dim=-1) if mean else entropy.sum(dim=-1)

    return values


def _perceptron(loss: Perceptron) -> Criterion:
    return lambda z, y: z.max(dim=-1).values - z.gather(-1, y[:, None])[:, 0]


def _binary_logistic(loss: BinaryLogistic) -> Criterion:
    return lambda z, y: F.softplus(-y.reshape(z.shape) * z).sum(dim=-1)


def _like(y: Tensor, z: Tensor) -> Tensor:
    """Return numbers in the shape and dtype of the outputs."""
    return y.reshape(z.shape).to(z.dtype)


def _distributions(y: Tensor, z: Tensor) -> Tensor:
    """Return labels of either kind as rows of probabilities."""
    return y if y.ndim == 2 else F.one_hot(y, z.shape[1]).to(z.dtype)


CRITERIA: dict[type[Any], Callable[[Any], Criterion]] = {
    AbsoluteError: _absolute_error,
    BinaryCrossEntropy: _binary_cross_entropy,
    BinaryLogistic: _binary_logistic,
    CrossEntropy: _cross_entropy,
    FenchelYoung: _fenchel_young,
    Huber: _huber,
    Perceptron: _perceptron,
    Quantile: _quantile,
    SmoothedNLL: _smoothed_nll,
    SquaredError: _squared_error,
}
"""For each class of losses, a function that makes the criterion of ``(z, y)``.

The criterion returns one value for each row; their mean or sum is the loss.
"""
