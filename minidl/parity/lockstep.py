"""A training run in both libraries, compared step by step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minidl.layer import Layer, write_gradients
from minidl.losses import Loss
from minidl.optim import Optimizer
from minidl.parity.pytorch import torch_counterparts
from minidl.parity.report import ParityReport, Tolerance, default_tolerance
from minidl.typing import Array


def compare(
    model: Layer,
    loss: Loss,
    optimizer: Optimizer,
    batches: Iterable[tuple[Array, Array]],
    *,
    dtype: DTypeLike = np.float64,
    tolerance: Tolerance | None = None,
    title: str = "",
) -> ParityReport:
    """Train copies of a model here and in PyTorch, and record every difference at every step.

    Both start from the same weights and moments and see the same batches and dropout masks. After
    that each continues from its own numbers. Model and optimizer are not changed.

    Parameters
    ----------
    model, loss, optimizer
        Made of parts that have a counterpart in PyTorch; the optimizer is the model's.
    batches : iterable of (x, y)
        One for each step.
    dtype : float64 (default) or float32
        The dtype of both computations.
    tolerance : callable, optional
        ``tolerance(step)`` is the largest relative difference allowed at a step, from 1; by
        default ``minidl.parity.report.default_tolerance(dtype)``.
    title : str
        The title of the report.

    Raises
    ------
    TypeError, ValueError
        If a part has no counterpart in PyTorch, or a batch does not fit the model.
    """
    if optimizer.model is not model:
        raise ValueError("compare: the optimizer was made for another model")
    model = model.copy(dtype)
    ours = model, loss, optimizer.copy(model)
    theirs = torch_counterparts(*ours)
    differences = Differences(model)
    for x, y in batches:
        x, y = np.asarray(x, model.dtype), np.asarray(y)
        differences.add(_step(*ours, x, y), _step(*theirs, x, y))
    return differences.report(title, tolerance)


class Differences:
    """The differences between two runs of a model, collected step by step."""

    def __init__(self, model: Layer) -> None:
        parameters = list(model.named_parameters())
        self.dtype = str(model.dtype)
        self.quantities: list[str] = []
        self._names = [name for name, _ in reversed(parameters)]
        self._starts = np.cumsum([0] + [p.size for _, p in parameters])[:-1]
        self._steps: list[Array] = []

    def add(self, here: dict[str, Array], there: dict[str, Array]) -> None:
        """Compare the results of one step, by kind, in the order of causes.

        A kind that is not in ``WHOLE`` has one entry for each entry of ``theta`` of the model.
        """
        self.quantities, columns = [], []
        for kind, value in here.items():
            if kind in WHOLE:
                self.quantities.append(kind)
                columns.append(_differences(value, there[kind], np.array([0])))
            else:
                self.quantities += [f"{kind} of {name}" for name in self._names]
                columns.append(_differences(value, there[kind], self._starts)[:, ::-1])
        self._steps.append(np.hstack(columns))

    def report(self, title: str, tolerance: Tolerance | None = None) -> ParityReport:
        """Return the report of all steps."""
        if not self._steps:
            raise ValueError("compare: expected at least one batch")
        absolute, relative = np.stack(self._steps, axis=1)
        allowed = tolerance or default_tolerance(self.dtype)
        return ParityReport(title, self.dtype, self.quantities, absolute, relative, allowed)


WHOLE = ("logits", "buffers", "loss", "dlogits", "order")
"""The kinds of results that do not consist of one piece for each parameter."""


def _step(model: Any, loss: Any, optimizer: Any, x: Array, y: Array) -> dict[str, Array]:
    """Run one training step of either library; return all results in the order of causes."""
    logits, backward = model.forward(x, train=True)
    buffers = [np.ravel(value) for value in model.snapshot().buffers.values()]
    value, dlogits = loss(logits, y)
    write_gradients(model, backward, dlogits)
    optimizer.step()
    return {
        "logits": logits,
        **({"buffers": np.concatenate(buffers, dtype=logits.dtype)} if buffers else {}),
        "loss": np.array(value),
        "dlogits": dlogits,
        "gradient": model.grad,
        **optimizer.torch_moments(),
        "parameter": model.theta,
    }


def _differences(a: Array, b: Array, starts: Array) -> Array:
    """Return the largest difference in each piece: absolute, and relative to its largest entry."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.full((2, len(starts)), np.inf)
    a, b = a.ravel(), b.ravel()
    with np.errstate(invalid="ignore", divide="ignore"):
        entries = np.where(a == b, 0, np.abs(a - b)).astype(np.float64)
        absolute = np.maximum.reduceat(np.nan_to_num(entries, nan=np.inf), starts)
        largest = np.maximum.reduceat(np.abs(b).astype(np.float64), starts)
        relative = np.where(absolute == 0, 0, absolute / largest)
    return np.stack([absolute, np.nan_to_num(relative, nan=np.inf, posinf=np.inf)])
