"""Time training steps and whole epochs against PyTorch, on one thread.

    python benchmarks/step.py                      # steps at batch 64, Adam, five widths
    python benchmarks/step.py --epochs 10 --data ../shared/data/fashion-mnist

Candidates take turns in one process. The second form trains on real images, with and without L2,
and compares the last epoch with the first: there some numbers decay until they are denormal.
"""

from __future__ import annotations

from _timing import alternate, write_json  # isort: skip - pins threads before NumPy loads

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from homework.feedforward import feedforward
from threadpoolctl import threadpool_info

import minidl
from minidl.cli import Parser, run_main
from minidl.data import Split
from minidl.tables import Table

WIDTHS = (16, 32, 64, 128, 256)
TARGETS = (0.30, 0.35, 0.45, 0.60, 0.80)
CLASSES, FEATURES, BATCH = 26, 784, 64


def our_epochs(width: int, split: Split, l2: float = 0.0) -> Callable[[], object]:
    """Return a function that trains one epoch with ``fit``, without evaluation."""
    model = feedforward(FEATURES, CLASSES, width=width, rng=0)
    dataset = minidl.Dataset(split, classes=CLASSES)
    optimizer = minidl.Adam(model, 1e-3, weight_decay=l2)
    loss, history = minidl.CrossEntropy(), minidl.History()

    def fit(epochs: int) -> None:
        minidl.fit(
            model,
            dataset,
            loss,
            optimizer,
            epochs=epochs,
            batch_size=BATCH,
            rng=0,
            history=history,
            evaluate_train=False,
        )

    fit(0)  # the record before training
    return lambda: fit(len(history))


def torch_epochs(
    width: int, split: Split, l2: float = 0.0, *, fused: bool = False, loader: bool = False
) -> Callable[[], object]:
    """Return a function that trains one epoch with the usual loop in eager PyTorch.

    The pixels are a float tensor already. By default batches are indexed from it, PyTorch's best
    case; with ``loader`` they come from a DataLoader, as in the course's script.
    """
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, width), torch.nn.ReLU(), torch.nn.Linear(width, CLASSES)
    )
    loss = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, weight_decay=l2, fused=fused)
    x, y = torch.from_numpy(split.rows(slice(None))), torch.from_numpy(split.y)
    tensors = torch.utils.data.TensorDataset(x, y)
    from_loader = torch.utils.data.DataLoader(tensors, batch_size=BATCH, shuffle=True)

    def indexed() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = torch.randperm(len(y))
        for start in range(0, len(y), BATCH):
            rows = order[start : start + BATCH]
            yield x[rows], y[rows]

    def epoch() -> None:
        for inputs, labels in from_loader if loader else indexed():
            optimizer.zero_grad()
            value = loss(model(inputs), labels)
            value.backward()
            optimizer.step()
            value.item()  # fit reads the loss of every step too

    return epoch


def measure_steps(rounds: int) -> dict[str, Any]:
    """Measure microseconds for a training step on random pixels, and the ratio to eager PyTorch."""
    rng = np.random.default_rng(0)
    steps = 200
    pixels = rng.integers(0, 256, (steps * BATCH, FEATURES), dtype=np.uint8)
    split = Split(pixels, rng.integers(0, CLASSES, len(pixels)), 1 / 256)
    table = Table(
        ["width", "minidl", "torch", "fused Adam", "DataLoader", "ratio", "of minima", "target"],
        "microseconds a step (median), batch 64, Adam, float32, one thread; ratio to torch",
    )
    figures: dict[str, Any] = {}
    for width, target in zip(WIDTHS, TARGETS, strict=True):
        candidates = {
            "minidl": our_epochs(width, split),
            "torch": torch_epochs(width, split),
            "torch fused": torch_epochs(width, split, fused=True),
            "torch DataLoader": torch_epochs(width, split, loader=True),
        }
        times = alternate(candidates, rounds=rounds, calls=1, parts=steps)
        ours, theirs = times["minidl"], times["torch"]
        ratio = ours.median / theirs.median
        least = ours.minimum / theirs.minimum
        micros = [f"{1e6 * t.median:.0f}" for t in times.values()]
        table.add(width, *micros, f"{ratio:.3f}", f"{least:.3f}", f"{target:.2f}")
        figures[str(width)] = {
            "target": target,
            "ratio": ratio,
            "ratio of minima": least,
            **{k: {"median": t.median, "minimum": t.minimum} for k, t in times.items()},
        }
    table.show()
    return figures


def measure_epochs(data: str, epochs: int, width: int) -> dict[str, Any]:
    """Measure seconds of the first and the last epoch on real images, with and without L2."""
    split = minidl.load_dataset(data).train
    table = Table(
        ["candidate", "L2", "first", "last", "last / first"],
        f"seconds an epoch on {data}, width {width}, {epochs} epochs",
    )
    figures: dict[str, Any] = {}
    for l2 in (0.0, 1e-4):
        for name, epoch, flush in (
            ("minidl", our_epochs(width, split, l2), False),
            ("torch", torch_epochs(width, split, l2), False),
            ("torch, set_flush_denormal", torch_epochs(width, split, l2), True),
        ):
            torch.set_flush_denormal(flush)
            seconds = []
            for _ in range(epochs):
                since = time.perf_counter()
                epoch()
                seconds.append(time.perf_counter() - since)
            torch.set_flush_denormal(False)
            ratio = seconds[-1] / seconds[0]
            table.add(name, f"{l2:g}", f"{seconds[0]:.2f}", f"{seconds[-1]:.2f}", f"{ratio:.2f}")
            figures[f"{name}, L2 {l2:g}"] = {"seconds": seconds, "last / first": ratio}
    table.show()
    return figures


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="of 200 steps each (15)")
    parser.add_argument("--epochs", type=int, help="measure whole epochs in place of steps")
    parser.add_argument("--data", default="letters", help="for --epochs: .npz, IDX folder, name")
    parser.add_argument("--width", type=int, default=256, help="for --epochs (256)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    kernels = {p["architecture"] for p in threadpool_info() if p["user_api"] == "blas"}
    print(f"NumPy's OpenBLAS uses its kernels for {', '.join(map(str, kernels))}")
    if args.epochs:
        figures = measure_epochs(args.data, args.epochs, args.width)
        write_json(args.out / "epochs.json", figures)
    else:
        write_json(args.out / "step.json", measure_steps(args.rounds))


if __name__ == "__main__":
    run_main(main)
