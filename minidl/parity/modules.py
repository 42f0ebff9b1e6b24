"""Modules for layers that ``torch.nn`` lacks: plain formulas, differentiated by autograd."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class Quadratic(nn.Module):  # type: ignore[misc]
    """``x (1 - x)``."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 - x)


class Residual(nn.Module):  # type: ignore[misc]
    """``x + f(x)``."""

    def __init__(self, inner: nn.Sequential) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class SameMasks(nn.Module):  # type: ignore[misc]
    """Dropout that draws from a copy of our layer's stream, so that both drop the same entries.

    Only the draw is the same: the scaling is PyTorch's arithmetic.
    """

    def __init__(self, p: float, rng: np.random.Generator | None) -> None:
        super().__init__()
        self.p, self.rng = p, rng

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if self.rng is None:
            raise ValueError(f"Dropout({self.p:g}): needs rng= to train")
        keep = torch.from_numpy(self.rng.random(tuple(x.shape), dtype=np.float32) >= self.p)
        return x * keep / (1 - self.p) if self.p < 1 else x * 0
