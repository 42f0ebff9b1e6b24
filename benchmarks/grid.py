"""A grid of networks, from start to end, in two processes: ``examples/q2_width.py`` beside PyTorch.

    python benchmarks/grid.py           # 16 networks of width 16, two epochs
    python benchmarks/grid.py --full    # the 80 networks: a quarter of an hour

Each command runs once, after another, on letters that are drawn before: its start, the reading of
data, training, the evaluation of all parts after each epoch, models and results on disk. minidl's
command also draws two pictures; it runs in one process and on two local Dask workers as well. The
PyTorch script below trains the same networks.
"""

from __future__ import annotations

import copy
import itertools
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from problems import Case
from timing import Rounds, Task, run_python

import minidl
from minidl.checks import require
from minidl.view.cli import run_main

UNIT, FACTOR = "seconds", 1
ROUNDS = Rounds(least=1, most=1)


def cases(full: bool) -> list[Case]:
    widths, epochs = ([16, 32, 64, 128, 256], 15) if full else ([16], 2)
    return [{"networks": 16 * len(widths), "widths": widths, "epochs": epochs, "processes": 2}]


class Grid:
    """The grid of a case; its contestants agree if their mean accuracies do."""

    def __init__(self, case: Case) -> None:
        self.case, self.ours = case, 0.0
        minidl.load_letters(10_400, 2_600, 2_600)  # draws them

    def disagreement(self, accuracy: float) -> str | None:
        """Compare the mean best validation accuracy with minidl's, which comes first."""
        self.ours = self.ours or accuracy
        gap = accuracy - self.ours
        return f"mean accuracy differs by {gap:+.4f}" if abs(gap) > 0.02 else None


problem = Grid


def ours(problem: Grid, *, command: tuple[str, ...] = ("q2_width.py", "--jobs", "2")) -> Task:
    if command[0] == "cluster.py":
        require("distributed", "cluster")
    widths = map(str, problem.case["widths"])
    flags = [*command[1:], "--epochs", str(problem.case["epochs"]), "--widths", *widths]

    def accuracies(folder: str) -> list[float]:
        run_python(f"examples/{command[0]}", *flags, "--out", folder)
        lines = (Path(folder) / "results.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["values"]["best_valid"] for line in lines]

    return timed(accuracies)


def pytorch(problem: Grid, *, loader: bool = False) -> Task:
    require("torch", "benchmarks")
    case = json.dumps(problem.case)

    def accuracies(folder: str) -> list[float]:
        code = f"import grid; grid.train_all({folder!r}, {case!r}, {loader})"
        return [float(word) for word in run_python("-c", code).split()]

    return timed(accuracies)


def timed(accuracies: Any) -> Task:
    """Run a command once; its accuracies are checked, and its seconds are the figure."""

    @lru_cache(maxsize=1)
    def once() -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder:
            since = time.perf_counter()
            found = accuracies(folder)
            return time.perf_counter() - since, statistics.mean(found)

    return Task(lambda: once()[0], lambda: once()[1], measures=True)


# ---------------------------------------------------------------- the PyTorch script


@lru_cache(maxsize=1)
def tensors() -> dict[str, tuple[Any, Any]]:
    """Return pixels as float tensors, and labels, of each part."""
    import torch

    parts = minidl.load_letters(10_400, 2_600, 2_600).splits
    return {
        name: (torch.from_numpy(split.x / 256).float(), torch.from_numpy(split.y))
        for name, split in parts.items()
    }


def train(point: tuple[int, float, float, float], folder: str, epochs: int, loader: bool) -> float:
    """Train one network, save it with its history, and return its best validation accuracy."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    width, lr, dropout, l2 = point
    torch.set_num_threads(1)
    torch.manual_seed(42)
    layers = nn.Linear(784, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 26)
    model, (x, y) = nn.Sequential(*layers), tensors()["train"]
    optimizer = torch.optim.Adam(model.parameters(), lr, weight_decay=l2)
    criterion = nn.CrossEntropyLoss()
    batches = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)

    def indexed() -> Iterator[tuple[Any, Any]]:
        for rows in torch.randperm(len(y)).split(64):
            yield x[rows], y[rows]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def evaluate(part: tuple[Any, Any]) -> tuple[float, float]:
        model.eval()
        logits = model(part[0])
        model.train()
        accuracy = (logits.argmax(1) == part[1]).float().mean().item()
        return criterion(logits, part[1]).item(), accuracy

    history: list[dict[str, Any]] = []
    best, weights = -1.0, None
    for epoch in range(epochs + 1):
        if epoch:
            for rows, labels in batches if loader else indexed():
                optimizer.zero_grad()
                criterion(model(rows), labels).backward()
                optimizer.step()
        history.append({name: evaluate(part) for name, part in tensors().items()})
        if history[-1]["valid"][1] > best:
            best, weights = history[-1]["valid"][1], copy.deepcopy(model.state_dict())
    name = f"{width}-{lr:g}-{dropout:g}-{l2:g}"
    made = {"best": weights, "last": model.state_dict(), "history": history}
    torch.save(made, Path(folder) / f"{name}.pt")
    return best


def train_all(folder: str, case: str, loader: bool) -> None:
    """Train the networks of a case in two processes, and print their accuracies."""
    given, rates = json.loads(case), (1e-2, 1e-3, 1e-4, 1e-5)
    points = itertools.product(given["widths"], rates, (0.0, 0.3), (0.0, 1e-4))
    task = partial(train, folder=folder, epochs=given["epochs"], loader=loader)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given["processes"], mp_context=context) as pool:
        print(*pool.map(task, sorted(points, reverse=True)))


CONTESTANTS = {
    "minidl": ours,
    "minidl, one process": partial(ours, command=("q2_width.py", "--jobs", "1")),
    "minidl, Dask": partial(ours, command=("cluster.py",)),
    "PyTorch DataLoader": partial(pytorch, loader=True),
    "PyTorch": pytorch,
}

if __name__ == "__main__":
    from tables import main

    run_main(lambda: main("grid"))
