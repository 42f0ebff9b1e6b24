"""``compare``: a model trained in both libraries, and the report of their differences."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minidl.checks import Array
from minidl.layer import Layer, write_gradients
from minidl.losses import Loss
from minidl.optim import Optimizer
from minidl.parameter import named_buffers
from minidl.parity.torch_model import torch_counterparts
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

Tolerance = Callable[[int], float]
"""The largest relative difference allowed at a step, counted from 1."""


def default_tolerance(dtype: str) -> Tolerance:
    """Return the tolerance for a dtype.

    1e-10 in float64. In float32, 1e-5 at the first step and ten times as much every 50 steps:
    the first rounding differences of two runs grow exponentially where the loss is curved.
    """
    if dtype == "float64":
        return lambda step: 1e-10
    return lambda step: 1e-5 * 10 ** ((step - 1) / 50)


@dataclass(frozen=True)
class ParityReport:
    """The differences between two runs, by step and quantity.

    The relative difference of a tensor is its largest absolute difference over its largest
    entry. A report is true if no relative difference is above its tolerance.

    Attributes
    ----------
    title : str
    dtype : str
    quantities : list of str
        As training computes them: logits, loss, dlogits, then gradient, moments and value
        of each parameter, last layer first, as the backward pass meets them.
    absolute, relative : array, shape (steps, quantities)
    tolerance : callable
    """

    title: str
    dtype: str
    quantities: list[str]
    absolute: Array
    relative: Array
    tolerance: Tolerance

    @property
    def beyond(self) -> Array:
        """A mask of the differences above their tolerance, (steps, quantities)."""
        allowed = [self.tolerance(step) for step in range(1, len(self.relative) + 1)]
        late: Array = self.relative > np.array(allowed)[:, None]
        return late

    @property
    def first(self) -> tuple[int, str] | None:
        """The first step with a difference above its tolerance, and the first such quantity."""
        where = np.argwhere(self.beyond)
        return (int(where[0, 0]) + 1, self.quantities[where[0, 1]]) if len(where) else None

    def __bool__(self) -> bool:
        return self.first is None

    def of(self, kind: str) -> Array:
        """Return the largest relative difference of a kind, as ``"gradient"``, at each step."""
        columns = [i for i, name in enumerate(self.quantities) if _kind(name) == kind]
        largest: Array = self.relative[:, columns].max(axis=1, initial=0)
        return largest

    @property
    def kinds(self) -> list[str]:
        """The kinds of quantities, in the order of computation."""
        return list(dict.fromkeys(map(_kind, self.quantities)))

    def table(self) -> Table:
        """Return the worst step of each quantity, and the first step above the tolerance."""
        columns = ["quantity", "relative", "at step", "absolute", "at step", "beyond from step"]
        table = Table(columns, f"{self.title} ({self.dtype}, {len(self.relative)} steps)".strip())
        for i, name in enumerate(self.quantities):
            relative, absolute = _worst(self.relative[:, i]), _worst(self.absolute[:, i])
            late = np.flatnonzero(self.beyond[:, i])
            first = int(late[0]) + 1 if len(late) else None
            table.add(
                name, f"{relative[0]:.1e}", relative[1], f"{absolute[0]:.1e}", absolute[1], first
            )
        return table

    def verdict(self) -> str:
        """Return one line: all within the tolerance, or the first quantity and step above it."""
        if self.first is None:
            return f"within the tolerance at all {len(self.relative)} steps"
        step, quantity = self.first
        value = self.relative[step - 1, self.quantities.index(quantity)]
        return (
            f"{quantity} passes the tolerance at step {step}: "
            f"relative difference {value:.1e} > {self.tolerance(step):.1e}"
        )

    def show(self) -> None:
        """Print the table and the verdict (needs rich)."""
        self.table().show()
        print(self.verdict())

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the relative differences over the steps (needs matplotlib)."""
        steps = range(1, len(self.relative) + 1)
        curves = {kind: (steps, self.of(kind).tolist()) for kind in self.kinds}
        curves["tolerance"] = (steps, [self.tolerance(step) for step in steps])
        title = f"{self.title}, {self.dtype}".strip(", ")
        line_plot(path, Panel(curves, "step", "largest relative difference", title, ylog=True))

    def to_dict(self) -> dict[str, Any]:
        """Return the report in a form for JSON."""
        worst: dict[str, dict[str, Any]] = {}
        for i, name in enumerate(self.quantities):
            worst[name] = {}
            for kind, differences in (("relative", self.relative), ("absolute", self.absolute)):
                largest, step = _worst(differences[:, i])
                worst[name] |= {kind: _json(largest), f"{kind}_step": step}
        return {
            "title": self.title,
            "dtype": self.dtype,
            "steps": len(self.relative),
            "passed": bool(self),
            "verdict": self.verdict(),
            "worst": worst,
            "relative": {kind: [_json(x) for x in self.of(kind).tolist()] for kind in self.kinds},
        }


def _kind(quantity: str) -> str:
    """Return the kind of a quantity: ``"gradient"`` for ``"gradient of 0.weight"``."""
    return quantity.partition(" of ")[0]


def _worst(differences: Array) -> tuple[float, int]:
    """Return the largest difference and the first step that has it."""
    step = int(differences.argmax())
    return float(differences[step]), step + 1


def _json(x: float) -> float | str:
    """Return ``x``, infinity as text: JSON has none."""
    return x if math.isfinite(x) else str(x)


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


def _step(model: Any, loss: Any, optimizer: Any, x: Array, y: Array) -> dict[str, Array]:
    """Run one training step of either library; return all results in the order of computation."""
    logits, backward = model.forward(x, train=True)
    buffers = [np.ravel(value.copy()) for _, value in named_buffers(model)]
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


WHOLE = ("logits", "buffers", "loss", "dlogits", "order")
"""The kinds of results that do not consist of one piece for each parameter."""


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
        """Compare the results of one step, by kind, in the order of computation.

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
