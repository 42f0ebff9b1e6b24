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

    def blocks(
        self, n: int, *, seed: int = 0, split: int = 0, start: int = 0
    ) -> Iterator[tuple[Array, Array]]:
        """Draw n examples, but for the first ``start``, as blocks of pixels and labels.

        Fewer are the beginning of more. ``split`` is an independent stream of the seed: 0 for
        training, 1 validation, 2 testing. ``start`` is a multiple of m, or n.
        """
        n, m = check_int(self.name, "n", n, high=MOST), len(self.labels)

        def block(i: int) -> tuple[Array, Array]:
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(split, i)))
            labels, rows = rng.permutation(self.labels), slice(n - i * m)
            return self.draw(rng, labels)[rows], labels[rows]

        return map(block, range(-(-start // m), -(-n // m)))

    def load(self, sizes: dict[str, int], seed: int, progress: bool) -> Dataset:
        """Return parts of these sizes; they are drawn if the folder of the cache lacks them.

        What cannot be written there is kept in memory, with a warning.
        """
        seed = check_int(self.name, "seed", seed, low=0)
        sizes = {key: check_int(self.name, key, n, high=MOST) for key, n in sizes.items()}
        errors: list[Exception] = []
        asked = enumerate(sizes.items())
        splits = [self._part(i, key, n, seed, progress, errors) for i, (key, n) in asked]
        if errors:
            hint = "name a folder that can be written in the environment variable MINIDL_CACHE"
            warnings.warn(f"{self.name}: drawn without a cache ({errors[0]}); {hint}", stacklevel=3)
        classes = int(self.labels.max()) + 1
        return Dataset(*splits, name=self.name, classes=classes, generated=self.note)

    def _part(
        self, i: int, key: str, n: int, seed: int, progress: bool, errors: list[Exception]
    ) -> Split:
        """Map the smallest file that has enough rows, or else write one; note why it fails."""
        labels = replace(self, draw=lambda rng, labels: labels).blocks(n, seed=seed, split=i)
        y = np.concatenate([y for _, y in labels]).astype(np.int64)
        stem, shape = f"{self.name}-v{self.version}-seed{seed}-{key}", (n, self.features)
        x, done = np.empty((0, self.features), np.uint8), 0

        def drawn() -> Iterator[tuple[int, Array]]:
            """Draw the blocks after the rows that are done, each with its first row."""
            options = {"total": n, "initial": done, "desc": f"drawing {key} {self.name}"}
            bar, first = progress_bar(**options) if progress else None, done
            with bar or contextlib.nullcontext():
                for pixels, _ in self.blocks(n, seed=seed, split=i, start=first):
                    yield first, pixels
                    first += len(pixels)
                    if bar:
                        bar.update(len(pixels))

        try:
            folder = cache_folder()
            files = folder.glob(f"{stem}-[0-9]*.npy")
            for file in sorted(files, key=lambda file: (len(file.name), file.name)):
                with contextlib.suppress(Exception):  # damaged; the parsers raise many kinds
                    split = MappedSplit.of(file, y, PIXEL_SCALE)
                    if split.x.shape == shape and split.x.dtype == np.uint8:
                        return split
            if errors:  # those of another part: nothing more is written
                raise errors[0]
            file, block = folder / f"{stem}-{n}.npy", (0, x)
            # Written, not mapped: on a full disk a store to a mapped page ends the process.
            with atomic(file) as temporary, temporary.open("wb") as stream:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
                stream.flush()
                start = stream.tell()
                try:
                    for block in drawn():
                        stream.write(block[1].data)
                        stream.flush()
                    os.fsync(stream.fileno())
                except OSError:  # all but the last block is in the file
                    x, (row, pixels) = np.empty(shape, np.uint8), block
                    x[:row] = np.memmap(temporary, np.uint8, "r", start, (row, self.features))
                    x[row:][: len(pixels)] = pixels
                    done = row + len(pixels)
                    raise
            return MappedSplit.of(file, y, PIXEL_SCALE)
        except (OSError, ValueError) as error:
            errors.append(error)
        x = x if done else np.empty(shape, np.uint8)
        for row, pixels in drawn():
            x[row:][: len(pixels)] = pixels
        return Split(x, y, PIXEL_SCALE)


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


def mapped(dataset: Dataset, folder: str | os.PathLike[str]) -> Dataset:
    """Return the data set with each ``x`` written to ``folder`` and mapped into memory.

    It is pickled as the names of the files: several processes share one copy of the rows.
    """
    parts = {}
    for key, part in dataset.splits.items():
        file = as_path(folder).resolve() / f"{key}.npy"
        with atomic(file) as temporary:
            np.save(temporary, np.ascontiguousarray(part.x))
        parts[key] = MappedSplit.of(file, part.y, part.scale, part.weight)
    return dataset.with_parts(parts)
