"""Peak memory of a full-size run (104,000 training images), each in a fresh process: megabytes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from harness.commands import run_python
from harness.task import Entry
from harness.timing import describe
from harness.workers import Case

CONTESTANTS = {
    "minidl": Entry("peak.ours"),
    "PyTorch": Entry("peak.pytorch", "torch"),
    "PyTorch uint8": Entry("peak.pytorch", "torch"),
    "scikit-learn": Entry("peak.sklearn", "sklearn"),
}


def cases(quick: bool, data: str | None) -> list[Case]:
    """Return the sizes."""
    return [{"rows": 10_400 if quick else 104_000, "width": 256}]


def contestants(case: Case, quick: bool) -> list[str]:
    """Return who takes part."""
    return list(CONTESTANTS)


def measure(case: Case, names: list[str]) -> dict[str, Any]:
    """Write random pixels to a file, and run each contestant on it."""
    found: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    ours: list[float] | None = None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pixels.npz"
        write_pixels(path, case["rows"])
        for name in names:
            try:
                _, text = run_python(["benchmarks/contestants/peak.py", name, str(path)])
            except RuntimeError as error:
                refused[name] = str(error)
                continue
            before, peak = map(float, text.split())
            if name == "minidl":
                ours = [peak]
            found[name] = {**describe([peak], ours), "rounds": 1, "before": before}
    return {"contestants": found, "refused": refused}


def write_pixels(path: Path, rows: int) -> None:
    """Write random images with the course's keys: rows, and a fifth of them twice."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, n in (("train", rows), ("valid", rows // 5), ("test", rows // 5)):
        arrays[f"X_{part}"] = rng.integers(0, 256, (n, 784), dtype=np.uint8)
        arrays[f"y_{part}"] = rng.integers(0, 26, n)
    np.savez(path, **arrays)
