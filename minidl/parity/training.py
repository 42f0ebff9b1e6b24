"""Whole training runs through PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch

from minidl import training
from minidl.data.dataset import Dataset
from minidl.history import History
from minidl.layer import Layer
from minidl.losses import Loss
from minidl.optim import Optimizer
from minidl.parity.pytorch import twin


def fit(
    model: Layer,
    dataset: Dataset,
    loss: Loss,
    optimizer: Optimizer,
    *,
    restore_best: bool = False,
    history: History | None = None,
    **options: Any,
) -> History:
    """``minidl.fit`` with everything that is computed computed by PyTorch, on one thread.

    The same weights at the start, the same batches and dropout masks. Takes what ``minidl.fit``
    takes; the model ends with the trained weights, its optimizer stays as it was.
    """
    theirs, criterion, method = twin(model, loss, optimizer)
    history = History() if history is None else history
    try:
        with one_thread():
            return training.fit(
                theirs, dataset, criterion, cast(Optimizer, method), history=history, **options
            )
    finally:
        best = history.best_theta if restore_best else None
        model.theta[:] = theirs.theta if best is None else best


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: at these sizes faster, and the same whatever runs beside it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
