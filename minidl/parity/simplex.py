"""The maps onto the simplex as plain PyTorch formulas, differentiated by autograd.

Thresholds are found here by bisection, which shares nothing with our sorting; on the support
that this gives, they follow in closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minidl.simplex import SimplexMap, entmax15, relumax, softmax, sparsemax

Formula = Callable[[Tensor, int], Tensor]


class Simplex(nn.Module):  # type: ignore[misc]
    """A map onto the simplex as a module."""

    def __init__(self, map: SimplexMap, dim: int) -> None:
        super().__init__()
        self.map, self.dim, self.formula = map, dim, formula(map)

    def forward(self, z: Tensor) -> Tensor:
        return self.formula(z, self.dim)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"{self.map!r}, dim={self.dim}"


def formula(map: SimplexMap) -> Formula:
    """``p = f(z, dim)`` for one of our maps.

    Raises
    ------
    TypeError
        If the map has no counterpart.
    """
    if type(map) not in _FORMULAS:
        raise TypeError(f"minidl.parity: no PyTorch counterpart of the map {map!r}")
    return _FORMULAS[type(map)](map)


def omega(map: SimplexMap, p: Tensor) -> Tensor:
    """The regulariser of one of our maps, summed over the last axis."""
    return _OMEGAS[type(map)](p).sum(dim=-1)


def _sparsemax(z: Tensor, dim: int) -> Tensor:
    inside = z > _threshold(z, dim, power=1)
    tau = ((z * inside).sum(dim, keepdim=True) - 1) / inside.sum(dim, keepdim=True)
    return (z - tau).relu()


def _entmax15(z: Tensor, dim: int) -> Tensor:
    z = z / 2
    inside = z > _threshold(z, dim, power=2)
    k = inside.sum(dim, keepdim=True)
    mean = (z * inside).sum(dim, keepdim=True) / k
    deviations = ((z - mean).square() * inside).sum(dim, keepdim=True)
    return (z - mean + ((1 - deviations) / k).sqrt()).relu().square()


def _relumax(b: float) -> Formula:
    def map(z: Tensor, dim: int) -> Tensor:
        u = (z - z.max(dim, keepdim=True).values + b).relu()
        return u / u.sum(dim, keepdim=True)

    return map


def _threshold(z: Tensor, dim: int, power: int) -> Tensor:
    """``tau`` with ``sum (z - tau)_+^power = 1``, to the last digits."""
    with torch.no_grad():
        high = z.max(dim, keepdim=True).values
        low = high - 1
        for _ in range(60):
            middle = (low + high) / 2
            above = (z - middle).relu().pow(power).sum(dim, keepdim=True) > 1
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return low


_FORMULAS: dict[type[Any], Callable[[Any], Formula]] = {
    type(softmax): lambda _: torch.softmax,
    type(sparsemax): lambda _: _sparsemax,
    type(entmax15): lambda _: _entmax15,
    relumax: lambda ours: _relumax(ours.b),
}
_OMEGAS: dict[type[Any], Callable[[Tensor], Tensor]] = {
    type(softmax): lambda p: torch.xlogy(p, p),
    type(sparsemax): lambda p: p * (p - 1) / 2,
    type(entmax15): lambda p: (p**1.5 - p) * (4 / 3),
}
