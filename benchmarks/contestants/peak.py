"""Peak memory of one training run, as a command: prints megabytes before the data and at the peak.

    python benchmarks/contestants/peak.py minidl FILE.npz

The file has the course's keys: ``X_train`` with uint8 pixels and so on. One epoch, 256 hidden
units, with the loss and accuracy on the validation part.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from harness.memory import peak_megabytes

BATCH, WIDTH = 64, 256


def ours() -> Callable[[str], object]:
    import minidl

    def train(path: str) -> object:
        dataset = minidl.load_dataset(path)
        layers = minidl.Linear(784, WIDTH), minidl.ReLU(), minidl.Linear(WIDTH, 26)
        model = minidl.Sequential(*layers, rng=0)
        loss, optimizer = minidl.CrossEntropy(), minidl.Adam(model, 1e-3)
        return minidl.fit(model, dataset, loss, optimizer, epochs=1, batch_size=BATCH, rng=0)

    return train


def pytorch(keep_uint8: bool) -> Callable[[str], object]:
    import torch
    from torch import nn

    def tensors(file: Any, part: str) -> tuple[Any, Any]:
        x = torch.from_numpy(file[f"X_{part}"])
        x = x if keep_uint8 else x.float().div_(256)
        return x, torch.from_numpy(file[f"y_{part}"]).long()

    def floats(x: Any) -> Any:
        return x.float().mul_(1 / 256) if keep_uint8 else x

    def train(path: str) -> object:
        with np.load(path) as file:
            (x, y), (xv, yv) = tensors(file, "train"), tensors(file, "valid")
        model = nn.Sequential(nn.Linear(784, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 26))
        optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
        loss = nn.CrossEntropyLoss()
        for rows in torch.randperm(len(y)).split(BATCH):
            optimizer.zero_grad()
            loss(model(floats(x[rows])), y[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            chunks = zip(xv.split(4096), yv.split(4096), strict=True)
            return [loss(model(floats(a)), b).item() for a, b in chunks]

    return train


def sklearn() -> Callable[[str], object]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    def train(path: str) -> object:
        with np.load(path) as file:
            x, xv = (file[f"X_{part}"] * np.float32(1 / 256) for part in ("train", "valid"))
            y, yv = file["y_train"], file["y_valid"]
        model = MLPClassifier((WIDTH,), batch_size=BATCH, max_iter=1)
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y).score(xv, yv)

    return train


CONTESTANTS: dict[str, Callable[[], Callable[[str], object]]] = {
    "minidl": ours,
    "PyTorch": lambda: pytorch(keep_uint8=False),
    "PyTorch uint8": lambda: pytorch(keep_uint8=True),
    "scikit-learn": sklearn,
}


def main() -> None:
    train = CONTESTANTS[sys.argv[1]]()
    before = peak_megabytes()
    train(sys.argv[2])
    print(before, peak_megabytes())


if __name__ == "__main__":
    main()
