"""The maps onto the simplex and the losses as PyTorch formulas, differentiated by autograd.

``FORMULAS`` has an entry for each class of maps, ``CRITERIA`` for each class of losses; for one of
your own, add one. Thresholds are found here by bisection, an algorithm independent of our sorting:
it gives the support, and the support gives the exact threshold in closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from minidl import losses
from minidl.maps import SimplexMap, entmax15, relumax, softmax, sparsemax


class Formula(NamedTuple):
    """A class of maps: ``project(map, z, dim)``, and ``omega(map, p)``, the regulariser's terms."""

    project: Callable[[Any, Tensor, int], Tensor]
    omega: Callable[[Any, Tensor], Tensor] | None = None


class Simplex(nn.Module):  # type: ignore[misc]
    """A map onto the simplex as a module."""

    def __init__(self, map: SimplexMap, dim: int) -> None:
        super().__init__()
        self.map, self.dim, self.formula = map, dim, formula(map)

    def forward(self, z: Tensor) -> Tensor:
        return self.formula.project(self.map, z, self.dim)


def formula(map: SimplexMap) -> Formula:
    """Return the formulas of one of our maps; TypeError if it has none."""
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


def criterion(loss: losses.Loss) -> Callable[..., Tensor]:
    """Return ``criterion(z, y, weight=None)``, which PyTorch differentiates in place of ``loss``.

    TypeError if the loss, or its map, has no counterpart.
    """
    if type(loss) not in CRITERIA:
        raise TypeError(f"minidl.parity: no PyTorch counterpart of the loss {loss!r}")
    values = CRITERIA[type(loss)]
    mean = getattr(loss, "reduction", "mean") == "mean"

    def reduced(z: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        w = torch.ones(len(z), dtype=z.dtype) if weight is None else weight
        total = (w * values(loss, z, y)).sum()
        return total / w.sum() if mean else total

    return reduced


def _cross_entropy(loss: losses.CrossEntropy, z: Tensor, y: Tensor) -> Tensor:
    entropy = torch.xlogy(y, y).sum(dim=-1) if y.ndim == 2 else 0
    return F.cross_entropy(z, y, reduction="none") + entropy


def _fenchel_young(loss: losses.FenchelYoung, z: Tensor, y: Tensor) -> Tensor:
    f = formula(loss.map)
    if f.omega is None:
        raise TypeError(f"minidl.parity: no PyTorch counterpart of the regulariser of {loss.map!r}")
    p, y = f.project(loss.map, z, -1), _distributions(y, z)
    return ((p - y) * z - f.omega(loss.map, p) + f.omega(loss.map, y)).sum(dim=-1)


def _smoothed_nll(loss: losses.SmoothedNLL, z: Tensor, y: Tensor) -> Tensor:
    p = formula(loss.map).project(loss.map, z, -1)
    shares = (p + loss.eps) / (1 + z.shape[1] * loss.eps)
    return -torch.xlogy(_distributions(y, z), shares).sum(dim=-1)


def _quantile(loss: losses.Quantile, z: Tensor, y: Tensor) -> Tensor:
    q = torch.tensor(loss.q, dtype=z.dtype)
    error = y.reshape(len(z), -1) - z
    return torch.maximum(q * error, (q - 1) * error).sum(dim=-1)


def _poisson(loss: losses.Poisson, z: Tensor, y: Tensor) -> Tensor:
    values = F.poisson_nll_loss(z, y, log_input=True, full=False, reduction="none")
    return (values + torch.xlogy(y, y) - y).sum(dim=-1)


def _binary_cross_entropy(loss: losses.BinaryCrossEntropy, z: Tensor, y: Tensor) -> Tensor:
    entropy = F.binary_cross_entropy_with_logits(z, y, reduction="none")
    mean = (loss.label_reduction or loss.reduction) == "mean"
    return entropy.mean(dim=-1) if mean else entropy.sum(dim=-1)


def _distributions(y: Tensor, z: Tensor) -> Tensor:
    """Return classes or distributions as distributions."""
    return y if y.ndim == 2 else F.one_hot(y, z.shape[1]).to(z.dtype)


Values = Callable[[Any, Tensor, Tensor], Tensor]
"""``values(loss, z, y)``: the loss of each row, (n,)."""


def _alike(values: Values) -> Values:
    """Return ``values`` of numbers in the shape and dtype of the outputs."""
    return lambda loss, z, y: values(loss, z, y.reshape(z.shape).to(z.dtype))


CRITERIA: dict[type[Any], Values] = {
    losses.AbsoluteError: _alike(lambda _, z, y: (z - y).abs().sum(dim=-1)),
    losses.BinaryCrossEntropy: _alike(_binary_cross_entropy),
    losses.BinaryLogistic: _alike(lambda _, z, y: F.softplus(-y * z).sum(dim=-1)),
    losses.CrossEntropy: _cross_entropy,
    losses.FenchelYoung: _fenchel_young,
    losses.Huber: _alike(
        lambda loss, z, y: F.huber_loss(z, y, reduction="none", delta=loss.delta).sum(dim=-1)
    ),
    losses.Perceptron: lambda _, z, y: z.max(dim=-1).values - z.gather(-1, y[:, None])[:, 0],
    losses.Poisson: _alike(_poisson),
    losses.Quantile: _quantile,
    losses.SmoothedNLL: _smoothed_nll,
    losses.SquaredError: _alike(lambda _, z, y: (z - y).square().sum(dim=-1) / 2),
}
