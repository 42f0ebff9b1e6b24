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
from minidl.parity.pytorch import torch_counterparts


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
    """Train as ``minidl.fit`` does, with all arithmetic done by PyTorch on one thread.

    Initial weights, batches and dropout masks are those of ``minidl.fit``, and so are the
    parameters of this function. The model gets the trained weights; its optimizer is not changed.
    """
    theirs, criterion, method = torch_counterparts(model, loss, optimizer)
    history = History() if history is None else history
    try:
        with one_thread():
            return training.fit(
                theirs, dataset, criterion, cast(Optimizer, method), history=history, **options
            )
    finally:
        best = history.best_snapshot if restore_best else None
        model.restore(theirs.snapshot() if best is None else best)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within this context PyTorch uses one thread: faster at these sizes, and reproducible."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
