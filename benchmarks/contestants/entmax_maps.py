"""The sparse maps and losses of the package entmax; with ``k``, by its partial sort."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import entmax
import torch
from harness.task import Task

from contestants.pytorch import differentiated

if TYPE_CHECKING:
    from workloads.simplex import Problem


def simplex(problem: Problem, *, k: int | None = None) -> Task:
    label = torch.from_numpy(problem.y)
    maps = {"sparsemax": entmax.sparsemax, "entmax15": entmax.entmax15}
    losses = {"sparsemax": entmax.sparsemax_loss, "entmax15": entmax.entmax15_loss}

    def function(z: Any) -> Any:
        if problem.is_loss:
            return losses[problem.what.removesuffix(" loss")](z, label, k=k).mean()
        return maps[problem.what](z, dim=-1, k=k)

    return differentiated(problem, function)
