"""``TorchRandom`` beside PyTorch's generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from minidl.checks import Array
from minidl.layer import Layer, Sequential
from minidl.parity.convert import from_torch, to_torch
from minidl.parity.report import Differences, ParityReport
from minidl.parity.torch_random import TorchRandom

_ROWS, _BATCH, _EPOCHS = 100, 16, 2


def compare_random(
    layers: Callable[[], list[Layer]],
    steps: int,
    *,
    dtype: str = "float64",
    title: str = "",
    tick: Callable[[], object] = lambda: None,
) -> ParityReport:
    """Compare initial weights and the order of batches, from another seed at each step.

    Nothing but equal bits is within the tolerance.

    Parameters
    ----------
    layers : callable
        Makes the layers of a network anew at each use.
    steps : int
        The number of seeds, of both signs and of up to 64 bits.
    dtype : float64 (default) or float32
        PyTorch's weights are drawn in float32 and converted, as by ``module.double()``.
    title : str
        The title of the report.
    tick : callable
        Called after each step.
    """
    seeds = np.random.default_rng(0).integers(-(2**63), 2**63, size=steps)
    seeds[: len(_SEEDS)] = _SEEDS[:steps]
    differences: Differences | None = None
    for seed in seeds.tolist():
        model = Sequential(*layers(), rng=TorchRandom(seed), dtype=dtype)
        rng = TorchRandom(seed)
        ours = np.concatenate([rng.permutation(_ROWS) for _ in range(_EPOCHS)])
        here = {"order": ours, "parameter": model.theta}
        there = {"order": _orders(seed), "parameter": _weights(model, seed)}
        differences = differences or Differences(model)
        differences.add(here, there)
        tick()
    if differences is None:
        raise ValueError(f"compare_random: expected at least one step, got {steps}")
    return differences.report(title, lambda step: 0.0)


_SEEDS = [0, 1, 42, -1, -42, -(2**63), 2**32 - 1, 2**32 + 42, -(2**32), 2**63 - 1]


def _orders(seed: int) -> Array:
    """Return the orders of a DataLoader."""
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(
        range(_ROWS), batch_size=_BATCH, shuffle=True, generator=generator, collate_fn=list
    )
    return np.array([row for _ in range(_EPOCHS) for batch in loader for row in batch], np.int64)


def _weights(model: Layer, seed: int) -> Array:
    """Return PyTorch's initial weights, laid out as ``theta`` of the model."""
    module = to_torch(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in module.modules():
            if isinstance(part, nn.Linear):
                fresh = nn.Linear(part.in_features, part.out_features, part.bias is not None)
                part.load_state_dict(fresh.state_dict())
    return from_torch(module).theta
