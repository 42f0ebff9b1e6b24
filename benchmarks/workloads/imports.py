"""``import`` in a fresh process: seconds, and megabytes beyond those of the interpreter."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from harness.commands import run_python
from harness.task import Entry
from harness.timing import describe
from harness.workers import Case

CONTESTANTS = {
    "minidl": Entry("minidl"),
    "NumPy": Entry("numpy"),
    "scikit-learn": Entry("sklearn.neural_network", "sklearn"),
    "JAX": Entry("jax", "jax"),
    "PyTorch": Entry("torch", "torch"),
}
CODE = """
import time
from harness.memory import peak_megabytes
before, since = peak_megabytes(), time.perf_counter()
import {module}
print(time.perf_counter() - since, peak_megabytes() - before)
"""


def cases(quick: bool, data: str | None) -> list[Case]:
    """Return the two figures, which are measured together."""
    return [{"figure": figure, "rounds": 3 if quick else 7} for figure in ("seconds", "megabytes")]


def contestants(case: Case, quick: bool) -> list[str]:
    """Return who takes part: in a quick run only those of the targets."""
    return ["minidl", "NumPy"] if quick else list(CONTESTANTS)


def measure(case: Case, names: list[str]) -> dict[str, Any]:
    """Return one figure of the imports."""
    kept = {
        name: [pair[case["figure"]] for pair in pairs]
        for name, pairs in imports(tuple(names), case["rounds"]).items()
    }
    found = {
        name: {**describe(v, kept.get("minidl")), "rounds": len(v)} for name, v in kept.items()
    }
    return {"contestants": found, "refused": {}}


@lru_cache(maxsize=1)
def imports(names: tuple[str, ...], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Import in turn; the first round, which reads files from the disk, does not count."""
    pairs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds + 1):
        for name in names:
            _, text = run_python(["-c", CODE.format(module=CONTESTANTS[name].make)])
            seconds, megabytes = map(float, text.split())
            pairs[name].append({"seconds": seconds, "megabytes": megabytes})
    return {name: values[1:] for name, values in pairs.items()}
