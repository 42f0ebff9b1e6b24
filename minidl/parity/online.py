"""``fit_online`` beside PyTorch, which takes the examples one at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it

from minidl.callbacks import Callback, Run
from minidl.checks import Array
from minidl.dataset import Dataset
from minidl.layer import Layer, write_gradients
from minidl.losses import Loss
from minidl.online.fitting import fit_online
from minidl.optim import SGD
from minidl.parity.report import Differences, ParityReport
from minidl.parity.torch_model import torch_counterparts


def compare_online(
    model: Layer,
    loss: Loss,
    examples: tuple[Array, Array],
    *,
    lr: float,
    weight_decay: float = 0.0,
    l1: float = 0.0,
    epochs: int,
    block_size: int,
    title: str = "",
    tick: Callable[[], object] = lambda: None,
) -> ParityReport:
    """Train a model by ``fit_online`` and by PyTorch, and compare after each epoch.

    PyTorch takes a plain step of its SGD for each example, and soft thresholds the parameters after
    each block, where there is an L1 penalty. Compared are the parameters and the mean loss.

    Parameters
    ----------
    model : Layer
        As for ``fit_online``, in float32 or float64. It is trained.
    loss : Loss
    examples : (x, y)
        All examples of an epoch.
    lr, weight_decay, l1, epochs, block_size
        As for ``fit_online``.
    title : str
        The title of the report.
    tick : callable
        Called after each epoch.
    """
    x, y = np.asarray(examples[0], model.dtype), np.asarray(examples[1])
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(x)) for _ in range(epochs)]
    theirs = torch_counterparts(model, loss, SGD(model, lr, weight_decay=weight_decay))
    differences, remaining = Differences(model), iter(orders)

    def epoch() -> float:
        """Train by PyTorch for one epoch; return the mean loss."""
        network, criterion, optimizer = theirs
        order, total = next(remaining), 0.0
        for start in range(0, len(order), block_size):
            block = order[start : start + block_size]
            for i in block:
                logits, backward = network.forward(x[i : i + 1], train=True)
                value, dlogits = criterion(logits, y[i : i + 1])
                write_gradients(network, backward, dlogits)
                optimizer.step()
                total += value
            if l1:
                with torch.no_grad():
                    for p in network.module.parameters():
                        p.copy_(F.softshrink(p, len(block) * lr * l1))
        return total / len(order)

    class Compare(Callback):
        def on_epoch(self, run: Run) -> None:
            mean = np.array(run.history.column("train_loss")[-1])
            here = {"loss": mean, "parameter": model.theta}
            there = {"loss": np.array(epoch()), "parameter": theirs[0].theta}
            differences.add(here, there)
            tick()

    fit_online(
        model,
        Dataset((x, y)),
        loss,
        lr=lr,
        weight_decay=weight_decay,
        l1=l1,
        epochs=epochs,
        block_size=block_size,
        rng=iter(orders),
        callbacks=[Compare()],
        parts=("valid",),
    )
    return differences.report(title)
