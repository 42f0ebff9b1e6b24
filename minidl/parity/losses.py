"""Our losses as PyTorch computes them, from the outputs ``z`` and the targets ``y``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from minidl.losses import CrossEntropy, Loss, SquaredError

Criterion = Callable[[Tensor, Tensor], Tensor]


def criterion(loss: Loss) -> Criterion:
    """The function of ``(z, y)`` that PyTorch differentiates in place of ``loss``.

    Raises
    ------
    TypeError
        If the loss has no counterpart.
    """
    if type(loss) not in _CRITERIA:
        raise TypeError(f"minidl.parity: no PyTorch counterpart of the loss {loss!r}")
    return _CRITERIA[type(loss)](loss)


def _cross_entropy(loss: Any) -> Criterion:
    return lambda z, y: F.cross_entropy(z, y, reduction=loss.reduction)


def _squared_error(loss: Any) -> Criterion:
    def value(z: Tensor, y: Tensor) -> Tensor:
        total = F.mse_loss(z, y.reshape(z.shape).to(z.dtype), reduction="sum") / 2
        return total / len(z) if loss.reduction == "mean" else total

    return value


_CRITERIA: dict[type[Any], Callable[[Any], Criterion]] = {
    CrossEntropy: _cross_entropy,
    SquaredError: _squared_error,
}
