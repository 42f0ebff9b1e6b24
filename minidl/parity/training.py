"""Whole training runs through PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch

from minidl import training
from minidl.contract import name_probabilities
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
    **options: Any,
) -> History:
    """Train as ``minidl.fit`` does, with all arithmetic done by PyTorch on one thread.

    Initial weights, batches and dropout masks are those of ``minidl.fit``, and so are the
    parameters of this function. The model gets the trained weights; its optimizer is not changed.
    """
    theirs, criterion, method = torch_counterparts(model, loss, optimizer)
    name_probabilities("parity.fit", model, loss, stacklevel=3)
    try:
        with one_thread():
            return training.fit(theirs, dataset, criterion, cast(Optimizer, method), **options)
    finally:
        model.restore(theirs.snapshot())


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within this context PyTorch uses one thread: faster at these sizes, and reproducible."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
