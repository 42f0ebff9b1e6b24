"""The maps onto the simplex as plain PyTorch formulas, differentiated by autograd.

``FORMULAS`` has an entry for each class of maps; for a map of your own, add one. Thresholds are
found here by bisection, an algorithm independent of our sorting: it gives the support, and the
support gives the exact threshold in closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minidl.simplex import entmax15, relumax, softmax, sparsemax
from minidl.simplex_map import SimplexMap


@dataclass(frozen=True)
class Formula:
    """A class of maps in PyTorch.

    Attributes
    ----------
    project : callable
        ``project(map, z, dim)``: the probabilities of the logits ``z`` along ``dim``.
    omega : callable, optional
        ``omega(map, p)``: the terms of the regulariser, which is their sum over the last axis.
    """

    project: Callable[[Any, Tensor, int], Tensor]
    omega: Callable[[Any, Tensor], Tensor] | None = None


class Simplex(nn.Module):  # type: ignore[misc]
    """A map onto the simplex as a module."""

    def __init__(self, map: SimplexMap, dim: int) -> None:
        super().__init__()
        self.map, self.dim, self.formula = map, dim, formula(map)

    def forward(self, z: Tensor) -> Tensor:
        return self.formula.project(self.map, z, self.dim)

    def extra_repr(self) -> str:
        """Return the arguments that ``repr`` shows."""
        return f"{self.map!r}, dim={self.dim}"


def formula(map: SimplexMap) -> Formula:
    """Return the formulas of one of our maps.

    Raises
    ------
    TypeError
        If the map has no counterpart.
    """
    if type(map) not in FORMULAS:
        raise TypeError(f"minidl.parity: no PyTorch counterpart of the map {map!r}")
    return FORMULAS[type(map)]


def _sparsemax(map: SimplexMap, z: Tensor, dim: int) -> Tensor:
    inside = z > _threshold(z, dim, power=1)
    tau = ((z * inside).sum(dim, keepdim=True) - 1) / inside.sum(dim, keepdim=True)
    return (z - tau).relu()


def _entmax15(map: SimplexMap, z: Tensor, dim: int) -> Tensor:
    z = z / 2
    inside = z > _threshold(z, dim, power=2)
    k = inside.sum(dim, keepdim=True)
    mean = (z * inside).sum(dim, keepdim=True) / k
    deviations = ((z - mean).square() * inside).sum(dim, keepdim=True)
    return (z - mean + ((1 - deviations) / k).sqrt()).relu().square()


def _relumax(map: relumax, z: Tensor, dim: int) -> Tensor:
    u = (z - z.max(dim, keepdim=True).values + map.b).relu()
    return u / u.sum(dim, keepdim=True)


def _threshold(z: Tensor, dim: int, power: int) -> Tensor:
    """Return ``tau`` with ``sum (z - tau)_+^power = 1``, up to rounding."""
    with torch.no_grad():
        high = z.max(dim, keepdim=True).values
        low = high - 1
        for _ in range(60):
            middle = (low + high) / 2
            above = (z - middle).relu().pow(power).sum(dim, keepdim=True) > 1
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return low


FORMULAS: dict[type[SimplexMap], Formula] = {
    type(softmax): Formula(lambda _, z, dim: torch.softmax(z, dim), lambda _, p: torch.xlogy(p, p)),
    type(sparsemax): Formula(_sparsemax, lambda _, p: p * (p - 1) / 2),
    type(entmax15): Formula(_entmax15, lambda _, p: (p**1.5 - p) * (4 / 3)),
    relumax: Formula(_relumax),
}
