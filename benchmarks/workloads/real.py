"""Epochs on images, one after another, with and without L2: slow-downs by denormal numbers.

Each round is one epoch of each contestant, from the first on: nothing is warmed up. Numbers of dead
units and dark pixels decay to denormal ones after some epochs, on images and not on noise.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from harness.task import Entry
from harness.timing import Budget
from harness.workers import Case

import minidl
from workloads import step
from workloads.step import Problem

CONTESTANTS = {
    "minidl": Entry("ours.step"),
    "PyTorch fused": Entry("pytorch.step", "torch", {"fused": True}),
    "PyTorch flush": Entry("pytorch.step", "torch", {"fused": True, "flush": True}),
}
disagreement = step.disagreement


def cases(quick: bool, data: str | None) -> list[Case]:
    """Return widths with and without L2; generated letters without ``data``."""
    rows, epochs = (2_600, 3) if quick else (20_800 if data is None else 60_000, 10)
    return [
        {"width": width, "l2": l2, "data": data or "letters", "rows": rows, "epochs": epochs}
        for width in ((64,) if quick else (16, 64, 256))
        for l2 in (0.0, 1e-4)
    ]


def contestants(case: Case, quick: bool) -> list[str]:
    """Return who takes part."""
    return list(CONTESTANTS)


def budget(seconds: float, quick: bool) -> Budget:
    """Return one round for each epoch."""
    epochs = 3 if quick else 10
    return Budget(0, least=epochs, most=epochs, warm_up=False)


@lru_cache(maxsize=1)
def images(source: str, rows: int) -> minidl.Dataset:
    """Return the images of a path, at most ``rows``, or so many generated letters."""
    if source == "letters":
        return minidl.load_letters(rows, 26, 26)
    return minidl.load_dataset(source)


class Images(Problem):
    """A problem whose times are those of an epoch."""

    @property
    def parts(self) -> int:
        """An epoch is not divided."""
        return 1


def problem(case: Case) -> Problem:
    """Return the images and a network of the case."""
    dataset = images(case["data"], case["rows"])
    split = dataset.train
    x, y = np.array(split.x[: case["rows"]]), split.y[: case["rows"]]
    sizes = (x.shape[1], case["width"], dataset.classes)
    return Images(sizes, 64, x, y, "Adam", case["l2"], scale=split.scale)
