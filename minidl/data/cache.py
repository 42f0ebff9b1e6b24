"""Examples that a program draws, kept in a folder, from which they are mapped into memory."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minidl.checks import Array, check_int, progress_bar
from minidl.dataset import PIXEL_SCALE, Dataset, Split
from minidl.files import as_path, atomic

MOST = 10**9  # examples of a part: 784 GB of letters


def cache_folder() -> Path:
    """Return ``$MINIDL_CACHE``, or ``minidl`` in ``$XDG_CACHE_HOME``, by default ``~/.cache``."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "minidl")
    return as_path(os.environ.get("MINIDL_CACHE") or default)


@dataclass(frozen=True, eq=False)
class ImageGenerator:
    """A program that draws labelled images, a block of m at a time."""

    name: str
    version: int  # in the names of the cached files; increases when the pixels change
    note: str  # what the images are not
    features: int
    labels: Array  # (m,), of each block before they are permuted
    draw: Callable[[np.random.Generator, Array], Array]  # the pixels (m, features) of labels, uint8

    def blocks(self, n: int, *, seed: int = 0, split: int = 0) -> Iterator[tuple[Array, Array]]:
        """Draw n examples as blocks of pixels and labels; fewer are the beginning of more.

        ``split`` is an independent stream of the seed: 0 for training, 1 validation, 2 testing.
        """
        n, m = check_int(self.name, "n", n, high=MOST), len(self.labels)

        def block(i: int) -> tuple[Array, Array]:
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(split, i)))
            labels, rows = rng.permutation(self.labels), slice(n - i * m)
            return self.draw(rng, labels)[rows], labels[rows]

        return map(block, range(-(-n // m)))

    def load(self, sizes: dict[str, int], seed: int, progress: bool) -> Dataset:
        """Return parts of these sizes; they are drawn if the folder of the cache lacks them.

        Where the folder cannot be written, they are drawn into memory, with a warning.
        """
        seed = check_int(self.name, "seed", seed, low=0)
        sizes = {key: check_int(self.name, key, n, high=MOST) for key, n in sizes.items()}

        def parts(folder: Path | None) -> list[Split]:
            asked = enumerate(sizes.items())
            return [self._part(i, key, n, seed, progress, folder) for i, (key, n) in asked]

        try:
            splits = parts(cache_folder())
        except (OSError, ValueError) as error:
            hint = "name a folder that can be written in the environment variable MINIDL_CACHE"
            warnings.warn(f"{self.name}: drawn without a cache ({error}); {hint}", stacklevel=3)
            splits = parts(None)
        classes = int(self.labels.max()) + 1
        return Dataset(*splits, name=self.name, classes=classes, generated=self.note)

    def _part(
        self, i: int, key: str, n: int, seed: int, progress: bool, folder: Path | None
    ) -> Split:
        """Map the smallest file that has enough rows, or else draw them and write one."""
        labels = replace(self, draw=lambda rng, labels: labels).blocks(n, seed=seed, split=i)
        y = np.concatenate([y for _, y in labels]).astype(np.int64)
        stem = f"{self.name}-v{self.version}-seed{seed}-{key}"
        files = [] if folder is None else folder.glob(f"{stem}-[0-9]*.npy")
        for file in sorted(files, key=lambda file: (len(file.name), file.name)):
            with contextlib.suppress(Exception):  # damaged; the parsers raise many kinds
                split = MappedSplit.of(file, y, PIXEL_SCALE)
                if split.x.shape == (n, self.features) and split.x.dtype == np.uint8:
                    return split
        x = np.empty((n, self.features), np.uint8)
        bar = progress_bar(total=n, desc=f"drawing {key} {self.name}") if progress else None
        with bar or contextlib.nullcontext():
            for start, (pixels, _) in enumerate(self.blocks(n, seed=seed, split=i)):
                x[start * len(self.labels) :][: len(pixels)] = pixels
                if bar:
                    bar.update(len(pixels))
        split = Split(x, y, PIXEL_SCALE)
        return split if folder is None else _written(folder / f"{stem}-{n}.npy", split)


@dataclass(frozen=True, eq=False, repr=False)
class MappedSplit(Split):
    """A part whose ``x`` maps the first rows of a ``.npy`` file; pickled as the file's name."""

    file: Path = Path()

    @classmethod
    def of(cls, file: Path, y: Array, scale: float, weight: Array | None = None) -> Split:
        """Return the part whose ``x`` maps the first ``len(y)`` rows of a file."""
        return cls(np.load(file, mmap_mode="r")[: len(y)], y, scale, weight, file)

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedSplit.of, (self.file, self.y, self.scale, self.weight)


def _written(file: Path, split: Split) -> Split:
    """Write ``x`` to a file and map it into memory."""
    with atomic(file) as temporary:
        np.save(temporary, np.ascontiguousarray(split.x))
    return MappedSplit.of(file.resolve(), split.y, split.scale, split.weight)


def mapped(dataset: Dataset, folder: str | os.PathLike[str]) -> Dataset:
    """Return the data set with each ``x`` written to ``folder`` and mapped into memory.

    It is pickled as the names of the files: several processes share one copy of the rows.
    """
    files = {key: as_path(folder) / f"{key}.npy" for key in dataset.splits}
    return dataset.with_parts({k: _written(files[k], part) for k, part in dataset.splits.items()})
