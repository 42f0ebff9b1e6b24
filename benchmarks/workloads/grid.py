"""The quick grid of ``examples/q2_width.py`` end to end, on two processes: seconds of the command.

The commands run once each, one after another, on letters that are drawn before: their start, the
reading of data, training, evaluation of all parts after each epoch, models and results on disk.
minidl's command also draws two pictures.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from harness.commands import run_python
from harness.task import Entry
from harness.timing import describe
from harness.workers import Case

TORCH = ["benchmarks/contestants/torch_grid.py"]
CONTESTANTS = {
    "minidl": Entry("ours.grid"),
    "PyTorch DataLoader": Entry("torch_grid.main", "torch", {"flags": [*TORCH, "--loader"]}),
    "PyTorch": Entry("torch_grid.main", "torch", {"flags": TORCH}),
}
CLOSE = 0.02
"""The mean best validation accuracy of a contestant differs by this at most."""


def cases(quick: bool, data: str | None) -> list[Case]:
    """Return the grid, or with ``quick`` a part of it."""
    widths, epochs = ([16], 2) if quick else ([16, 32, 64, 128, 256], 15)
    return [{"widths": widths, "epochs": epochs, "networks": 16 * len(widths), "processes": 2}]


def contestants(case: Case, quick: bool) -> list[str]:
    """Return who takes part."""
    return list(CONTESTANTS)


def measure(case: Case, names: list[str]) -> dict[str, Any]:
    """Run the command of each contestant; compare the accuracies."""
    run_python(["-c", "import minidl; minidl.load_letters(10_400, 2_600, 2_600)"])
    seconds: dict[str, float] = {}
    accuracy: dict[str, float] = {}
    refused: dict[str, str] = {}
    widths = ["--widths", *map(str, case["widths"])]
    flags = [*widths, "--epochs", str(case["epochs"]), "--jobs", str(case["processes"])]
    for name in names:
        command = CONTESTANTS[name].options.get("flags", ["examples/q2_width.py"])
        with tempfile.TemporaryDirectory() as folder:
            try:
                seconds[name], _ = run_python([*command, *flags, "--out", folder])
                accuracy[name] = statistics.mean(best_accuracies(Path(folder), name))
            except RuntimeError as error:
                refused[name] = str(error)
    for name in [name for name in seconds if name in accuracy]:
        gap = accuracy[name] - accuracy.get("minidl", accuracy[name])
        if abs(gap) > CLOSE:
            refused[name] = f"computes something else: its mean accuracy differs by {gap:+.4f}"
            del seconds[name]
    ours = [seconds["minidl"]] if "minidl" in seconds else None
    found = {
        name: {**describe([s], ours), "rounds": 1, "accuracy": accuracy[name]}
        for name, s in seconds.items()
    }
    return {"contestants": found, "refused": refused}


def best_accuracies(folder: Path, name: str) -> list[float]:
    """Return the best validation accuracy of each network."""
    if name == "minidl":
        lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["values"]["best_valid_accuracy"] for line in lines]
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return [result["best_valid_accuracy"] for result in results]
