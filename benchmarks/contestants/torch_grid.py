"""A PyTorch script for the grid of ``examples/q2_width.py``: 80 networks in two processes.

    python benchmarks/contestants/torch_grid.py --out DIR [--loader]

The same networks, learning rates, dropout, L2, batches, epochs and evaluations; models and
histories are saved. It draws no pictures.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import minidl

Part = tuple[torch.Tensor, torch.Tensor]


@lru_cache(maxsize=1)
def letters(train: int, other: int) -> dict[str, Part]:
    """Return pixels as float tensors, and labels."""
    parts = minidl.load_letters(train, other, other).splits
    return {
        name: (torch.from_numpy(split.x / 256).float(), torch.from_numpy(split.y))
        for name, split in parts.items()
    }


@torch.no_grad()  # type: ignore[untyped-decorator]
def evaluate(model: nn.Module, part: Part) -> tuple[float, float]:
    """Return loss and accuracy."""
    model.eval()
    logits = model(part[0])
    loss = nn.functional.cross_entropy(logits, part[1]).item()
    accuracy = (logits.argmax(1) == part[1]).float().mean().item()
    model.train()
    return loss, accuracy


def indexed(part: Part) -> Iterator[Part]:
    """Yield random batches by indexing."""
    x, y = part
    for rows in torch.randperm(len(y)).split(64):
        yield x[rows], y[rows]


def train(
    point: tuple[int, float, float, float], *, out: Path, sizes: tuple[int, int], epochs: int,
    loader: bool,
) -> dict[str, Any]:  # fmt: skip
    """Train one network, and return its figures."""
    width, lr, dropout, l2 = point
    torch.set_num_threads(1)
    torch.manual_seed(42)
    parts = letters(*sizes)
    model = nn.Sequential(
        nn.Linear(784, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 26)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr, weight_decay=l2)
    criterion = nn.CrossEntropyLoss()
    batches = DataLoader(TensorDataset(*parts["train"]), batch_size=64, shuffle=True)
    history: list[dict[str, Any]] = []
    best: Any = None
    for epoch in range(epochs + 1):
        if epoch:
            for x, y in batches if loader else indexed(parts["train"]):
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
        figures = {name: evaluate(model, part) for name, part in parts.items()}
        history.append({"epoch": epoch, **figures})
        if best is None or figures["valid"][1] > best[0]:
            best = figures["valid"][1], copy.deepcopy(model.state_dict())
    name = f"{width}-{lr:g}-{dropout:g}-{l2:g}"
    torch.save({"best": best[1], "last": model.state_dict()}, out / f"{name}.pt")
    return {"point": point, "best_valid_accuracy": best[0], "history": history}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--loader", action="store_true", help="batches from a DataLoader")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rates, dropouts, l2s = (1e-2, 1e-3, 1e-4, 1e-5), (0.0, 0.3), (0.0, 1e-4)
    points = sorted(itertools.product(args.widths, rates, dropouts, l2s), reverse=True)
    task = partial(
        train, out=args.out, sizes=(10_400, 2_600), epochs=args.epochs, loader=args.loader
    )
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        results = list(pool.map(task, points))
    (args.out / "results.json").write_text(json.dumps(results), encoding="utf-8", newline="\n")
    for result in results:
        print(*result["point"], f"{result['best_valid_accuracy']:.4f}")


if __name__ == "__main__":
    main()
