"""Microseconds an example at batch size 1, beside PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from minidl.checks import one_blas_thread
from minidl.dataset import Dataset
from minidl.layer import Sequential
from minidl.losses import CrossEntropy
from minidl.online.fitting import fit_online
from minidl.optim import SGD
from minidl.training import fit
from minidl.view.tables import Table

Settings = tuple[int, float, str]
"""Width, dropout and activation."""


def show_times(
    dataset: Dataset,
    settings: Settings,
    depths: Sequence[int],
    build: Callable[..., Sequential],
    n: int = 1000,
) -> None:
    """Print the times of ``fit_online``, of ``fit`` and of a PyTorch loop, on ``n`` examples.

    ``build(dataset, *settings, layers)`` returns a network.
    """
    few = Dataset(dataset.sample(train=n).train, classes=dataset.classes)
    n, loss = len(few.train), CrossEntropy()
    table = Table(["layers", "fit_online", "fit", "PyTorch"], f"microseconds an example, n = {n}")
    for layers in depths:
        with one_blas_thread():
            model = build(few, *settings, layers)
            options: dict[str, Any] = {"epochs": 1, "rng": 0, "parts": ("valid",)}
            online = fit_online(model, few, loss, lr=1e-3, **options)[-1].seconds
            optimizer = SGD(model, 1e-3)
            plain = fit(model, few, loss, optimizer, batch_size=1, **options)[-1].seconds
            times = [f"{1e6 * seconds / n:.0f}" for seconds in (online, plain)]
            table.add(layers, *times, torch_microseconds(few, *settings, layers))
    table.show()


def torch_microseconds(
    few: Dataset, width: int, dropout: float, activation: str, layers: int
) -> str:
    """Return the time of a plain PyTorch loop for one example, if PyTorch is installed."""
    try:
        import torch
    except ImportError:
        return "not installed"
    stack: list[Any] = []
    size = few.features
    for _ in range(layers):
        function = torch.nn.ReLU() if activation == "relu" else torch.nn.Tanh()
        stack += [torch.nn.Linear(size, width), function, torch.nn.Dropout(dropout)]
        size = width
    model = torch.nn.Sequential(*stack, torch.nn.Linear(size, few.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x, y = torch.from_numpy(few.train.rows(slice(None))), torch.from_numpy(few.train.y)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = time.perf_counter()
    for i in torch.randperm(len(y)).tolist():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        value.backward()
        optimizer.step()
    seconds = time.perf_counter() - start
    torch.set_num_threads(threads)
    return f"{1e6 * seconds / len(y):.0f}"
