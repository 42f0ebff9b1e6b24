"""``import`` and a run on 104,000 images, in fresh processes: minidl beside the other libraries.

    python benchmarks/imports.py

The seconds of an import, its megabytes beyond those of the interpreter, and the peak memory of one
epoch with 256 hidden units, with the loss of the validation part (Linux only).
"""

from __future__ import annotations

import importlib
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from problems import Case
from timing import Rounds, Task, run_python

from minidl.checks import Array
from minidl.view.cli import run_main

UNIT, FACTOR = "figure", 1
ROUNDS = Rounds(least=3, most=7)
WIDTH, BATCH = 256, 64
IMPORT = """
import time
def peak():
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1024
before, since = peak(), time.perf_counter()
import {module}
print(time.perf_counter() - since, peak() - before)
"""


def cases(full: bool) -> list[Case]:
    rows = 104_000 if full else 10_400
    return [{"import": "seconds"}, {"import": "megabytes"}, {"peak": "megabytes", "rows": rows}]


def takes_part(name: str, case: Case, full: bool) -> bool:
    return "import" in case or name not in ("NumPy", "JAX")


def problem(case: Case) -> Case:
    """Return a case, with a folder for the random images of a run, in the course's format."""
    if "rows" not in case:
        return case
    rng, folder = np.random.default_rng(0), tempfile.TemporaryDirectory()
    arrays: dict[str, Any] = {}
    for part, n in (("train", 1), ("valid", 5), ("test", 5)):
        rows = case["rows"] // n
        arrays[f"X_{part}"] = rng.integers(0, 256, (rows, 784), dtype=np.uint8)
        arrays[f"y_{part}"] = rng.integers(0, 26, rows)
    np.savez(Path(folder.name) / "pixels.npz", **arrays)
    return {**case, "folder": folder}


def fresh(problem: Case, *, module: str, run: str) -> Task:
    importlib.import_module(module)  # an ImportError leaves it out
    if "import" in problem:
        column = ["seconds", "megabytes"].index(problem["import"])
        code = IMPORT.format(module=module)
        return Task(lambda: run_python("-c", code).split()[column], measures=True)

    def peak() -> str:
        path = str(Path(problem["folder"].name) / "pixels.npz")
        code = f"import imports; imports.{run.format(path)}\n{IMPORT.format(module='sys')}"
        return run_python("-c", code + "print(peak())").split()[-1]

    return Task(peak, measures=True)


def ours(path: str) -> None:
    import minidl

    dataset = minidl.load_dataset(path)
    layers = minidl.Linear(784, WIDTH), minidl.ReLU(), minidl.Linear(WIDTH, 26)
    model, loss = minidl.Sequential(*layers, rng=0), minidl.CrossEntropy()
    minidl.fit(model, dataset, loss, minidl.Adam(model, 1e-3), epochs=1, batch_size=BATCH, rng=0)


def pytorch(path: str, keep_uint8: bool = False) -> None:
    """Train for an epoch with PyTorch; with ``keep_uint8`` pixels become floats batch by batch."""
    import torch
    from torch import nn

    def floats(x: Any) -> Any:
        return x.float().mul_(1 / 256) if x.dtype == torch.uint8 else x

    with np.load(path) as file:
        x, xv = (torch.from_numpy(file[f"X_{part}"]) for part in ("train", "valid"))
        y, yv = (torch.from_numpy(file[f"y_{part}"]).long() for part in ("train", "valid"))
    if not keep_uint8:
        x, xv = floats(x), floats(xv)
    model = nn.Sequential(nn.Linear(784, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 26))
    optimizer, loss = torch.optim.Adam(model.parameters(), 1e-3, fused=True), nn.CrossEntropyLoss()
    for rows in torch.randperm(len(y)).split(BATCH):
        optimizer.zero_grad()
        loss(model(floats(x[rows])), y[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        for rows, labels in zip(xv.split(4096), yv.split(4096), strict=True):
            loss(model(floats(rows)), labels).item()


def sklearn(path: str) -> None:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    with np.load(path) as file:
        x, xv = (file[f"X_{part}"] * np.float32(1 / 256) for part in ("train", "valid"))
        y: Array = file["y_train"]
        model = MLPClassifier((WIDTH,), batch_size=BATCH, max_iter=1)
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y).score(xv, file["y_valid"])


CONTESTANTS = {
    name: partial(fresh, module=module, run=run)
    for name, module, run in (
        ("minidl", "minidl", "ours({!r})"),
        ("NumPy", "numpy", ""),
        ("scikit-learn", "sklearn.neural_network", "sklearn({!r})"),
        ("JAX", "jax", ""),
        ("PyTorch", "torch", "pytorch({!r})"),
        ("PyTorch uint8", "torch", "pytorch({!r}, keep_uint8=True)"),
    )
}

if __name__ == "__main__":
    from tables import main

    run_main(lambda: main("imports"))
