"""``compare``: a model trained in both libraries, and the report of their differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minidl.checks import Array
from minidl.layer import Layer, write_gradients
from minidl.losses import Loss
from minidl.optim import Optimizer, check_optimizer
from minidl.parameter import named_buffers
from minidl.parity.torch_model import torch_counterparts

Tolerance = Callable[[int], float]
"""The largest relative difference allowed at a step, counted from 1."""

Results = dict[str, Array]
"""The results of one step by kind, in the order of computation."""

WHOLE = ("logits", "buffers", "loss", "dlogits", "order")
"""The kinds that are one quantity; others have one for each parameter, laid out as ``theta``."""


def default_tolerance(dtype: str) -> Tolerance:
    """Return 1e-10 for float64; for float32 1e-5, and ten times as much every 50 steps.

    The first rounding differences of two runs grow exponentially where the loss is curved.
    """
    return lambda step: 1e-10 if dtype == "float64" else 1e-5 * 10 ** ((step - 1) / 50)


@dataclass(frozen=True, repr=False)
class ParityReport:
    """The differences between two runs, by step and quantity.

    The relative difference of a tensor is its largest absolute difference over its largest
    entry. A report is true if no relative difference is above its tolerance.

    Attributes
    ----------
    title, dtype : str
    quantities : list of str
        As training computes them: logits, loss, dlogits, then gradient, moments and value
        of each parameter, last layer first.
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
    def first(self) -> tuple[int, str] | None:
        """The first step with a difference above its tolerance, and the first such quantity."""
        allowed = [[self.tolerance(step)] for step in range(1, len(self.relative) + 1)]
        beyond = np.argwhere(self.relative > allowed)
        return (int(beyond[0, 0]) + 1, self.quantities[beyond[0, 1]]) if len(beyond) else None

    def __bool__(self) -> bool:
        return self.first is None

    @property
    def by_kind(self) -> dict[str, Array]:
        """The largest relative difference at each step, by the kind of quantity: ``"gradient"``."""
        kinds = np.array([name.partition(" of ")[0] for name in self.quantities])
        return {k: self.relative[:, kinds == k].max(axis=1) for k in dict.fromkeys(kinds.tolist())}

    def verdict(self) -> str:
        """Return one line: all within the tolerance, or the first quantity and step above it."""
        if self.first is None:
            return f"within the tolerance at all {len(self.relative)} steps"
        step, quantity = self.first
        value = self.relative[step - 1, self.quantities.index(quantity)]
        found = f"relative difference {value:.1e} > {self.tolerance(step):.1e}"
        return f"{quantity} passes the tolerance at step {step}: {found}"

    def __repr__(self) -> str:
        return f"ParityReport({', '.join(filter(None, [self.title, self.dtype, self.verdict()]))})"

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON, with the largest differences of each quantity."""
        columns = {"relative": self.relative, "absolute": self.absolute}
        worst = {name: x.max(axis=0).tolist() for name, x in columns.items()}
        rows = ({name: x[k] for name, x in worst.items()} for k in range(len(self.quantities)))
        return {
            "title": self.title, "dtype": self.dtype, "steps": len(self.relative),
            "passed": bool(self), "verdict": self.verdict(),
            "worst": dict(zip(self.quantities, rows, strict=True)),
            "relative": {kind: column.tolist() for kind, column in self.by_kind.items()},
        }  # fmt: skip


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
    that each continues from its own numbers. Model and optimizer are not changed. TypeError if a
    part has no counterpart in PyTorch, ValueError if a batch does not fit the model.

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
    """
    check_optimizer("compare", optimizer, model)
    model = model.copy(dtype)
    batches = batches if isinstance(batches, Iterable) else [batches]
    return report(model, lockstep(model, loss, optimizer.copy(model), batches), title, tolerance)


def lockstep(
    model: Layer, loss: Loss, optimizer: Optimizer, batches: Iterable[Any]
) -> Iterator[tuple[Results, Results]]:
    """Train a model and its counterpart on the same batches; yield the results of each step."""
    theirs = torch_counterparts(model, loss, optimizer)
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(f"compare: expected batches as [(x, y)], got {batch!r:.80}")
        x, y = np.asarray(batch[0], model.dtype), np.asarray(batch[1])
        yield train_step(model, loss, optimizer, x, y), train_step(*theirs, x, y)


def train_step(model: Any, loss: Any, optimizer: Any, x: Array, y: Array) -> Results:
    """Run one training step of either library."""
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


def report(
    model: Layer,
    results: Iterable[tuple[Results, Results]],
    title: str,
    tolerance: Tolerance | None = None,
) -> ParityReport:
    """Compare the results of two runs of a model, given step by step."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    starts = np.cumsum([0] + [p.size for p in parameters])[:-1]
    steps, quantities = [], list[str]()
    for here, there in results:
        quantities, columns = [], []
        for kind, value in here.items():
            whole = kind in WHOLE
            quantities += [kind] if whole else [f"{kind} of {name}" for name in names[::-1]]
            found = _differences(value, there[kind], np.array([0]) if whole else starts)
            columns.append(found[:, ::-1])  # the last layer first
        steps.append(np.hstack(columns))
    if not steps:
        raise ValueError("compare: expected at least one batch")
    dtype, (absolute, relative) = str(model.dtype), np.stack(steps, axis=1)
    allowed = tolerance or default_tolerance(dtype)
    return ParityReport(title, dtype, quantities, absolute, relative, allowed)


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
