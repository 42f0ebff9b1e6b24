"""Examples that a program draws, kept in a folder, from which they are mapped into memory."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minidl.checks import Array, check_int, progress_bar
from minidl.dataset import CHUNK, PIXEL_SCALE, Dataset, Split
from minidl.files import as_path, atomic, remove_leftovers


def cache_folder() -> Path:
    """Return ``$MINIDL_CACHE``, or ``minidl`` in the system's folder for caches."""
    if "MINIDL_CACHE" in os.environ:
        return as_path(os.environ["MINIDL_CACHE"])
    if sys.platform == "win32":
        return as_path(os.environ.get("LOCALAPPDATA", "~")) / "minidl"
    if sys.platform == "darwin":
        return as_path("~/Library/Caches/minidl")
    return as_path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "minidl"


MOST = 10**9
"""The largest number of examples of a part: 784 GB of letters."""


@dataclass(frozen=True, eq=False)
class ImageGenerator:
    """A program that draws labelled images, a block at a time."""

    name: str
    version: int
    """Increased when the pixels change; it is part of the names of the cached files."""
    note: str
    """Says what the images are not."""
    features: int
    labels: NDArray[np.uint8]
    """Of the examples of each block, (m,), before they are permuted."""
    draw: Callable[[np.random.Generator, NDArray[np.uint8]], NDArray[np.uint8]]
    """``draw(rng, labels)`` returns the pixels of a block, (m, features) uint8."""

    def blocks(self, n: int, *, seed: int = 0, split: int = 0) -> Iterator[tuple[Array, Array]]:
        """Draw n examples block by block, to save memory; fewer are the beginning of more.

        ``split`` is the number of an independent stream of the seed: 0 for training, 1 for
        validation, 2 for testing. A block is pixels (m, features) and labels (m,). ValueError, by
        the call, if a number is out of its range.
        """
        streams = self._streams("n", n, seed, split)
        return ((self.draw(rng, y)[:size], y[:size]) for rng, y, size in streams)

    def _streams(
        self, key: str, n: int, seed: int, split: int
    ) -> Iterator[tuple[np.random.Generator, NDArray[np.uint8], int]]:
        """Return the random stream, the labels and the part that counts of each block."""
        n, size = check_int(self.name, key, n, high=MOST), len(self.labels)
        seed, split = (check_int(self.name, *x, low=0) for x in (("seed", seed), ("split", split)))

        def stream(i: int) -> tuple[np.random.Generator, NDArray[np.uint8], int]:
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(split, i)))
            return rng, rng.permutation(self.labels), min(size, n - i * size)

        return map(stream, range(-(-n // size)))

    def load(self, sizes: dict[str, int], seed: int, progress: bool) -> Dataset:
        """Return parts of these sizes, from the folder of the cache if they are there.

        Where the folder cannot be written, they are drawn into memory, with a warning.
        """
        parts = [(i, key, n) for i, (key, n) in enumerate(sizes.items())]
        ys = []
        for i, key, n in parts:
            drawn = [y[:size] for _, y, size in self._streams(key, n, seed, i)]
            ys.append(np.concatenate(drawn).astype(np.int64))

        def pixels(i: int, key: str, n: int) -> Iterator[Array]:
            title = f"drawing {key} {self.name}"
            with progress_bar(total=n, desc=title) if progress else nullcontext() as bar:
                for x, _ in self.blocks(n, seed=seed, split=i):
                    yield x
                    if bar is not None:
                        bar.update(len(x))

        def file(i: int, key: str, n: int) -> Path:
            """Return the smallest file that has enough rows; write it if there is none."""
            stem = f"{self.name}-v{self.version}-seed{seed}-{key}"
            ends = [path.stem.removeprefix(f"{stem}-") for path in folder.glob(f"{stem}-*.npy")]
            for size in sorted(int(end) for end in ends if end.isdecimal()):
                found = folder / f"{stem}-{size}.npy"
                if size >= n and _is_whole(found, (size, self.features)):
                    return found
            path = folder / f"{stem}-{n}.npy"
            write_rows(path, (n, self.features), pixels(i, key, n))
            return path

        try:
            folder = cache_folder()
            remove_leftovers(folder)
            files = [file(*part) for part in parts]
            splits = [Split.mapped(*x, PIXEL_SCALE) for x in zip(files, ys, strict=True)]
        except (OSError, ValueError) as error:
            warnings.warn(
                f"{self.name}: drawn without a cache, which takes time in each process ({error}); "
                "name a folder that can be written in the environment variable MINIDL_CACHE",
                stacklevel=3,
            )
            xs = [np.concatenate(list(pixels(*part))) for part in parts]
            splits = [Split(*xy, PIXEL_SCALE) for xy in zip(xs, ys, strict=True)]
        classes = int(self.labels.max()) + 1
        return Dataset(*splits, name=self.name, classes=classes, generated=self.note)


def _is_whole(file: Path, shape: tuple[int, int]) -> bool:
    """Return whether a file has an array of uint8 of this shape."""
    try:
        x = np.lib.format.open_memmap(file, mode="r")  # compares the declared size with the file's
    except Exception:  # damaged; the parser of the header raises many kinds
        return False
    return x.shape == shape and x.dtype == np.uint8 and x.flags.c_contiguous


def mapped(dataset: Dataset, folder: str | os.PathLike[str]) -> Dataset:
    """Return the data set with each ``x`` written to ``folder`` and mapped into memory.

    It is pickled as the names of the files, so that several processes share one copy of the rows.
    """
    parts = {}
    for key, split in dataset.splits.items():
        file = as_path(folder) / f"{key}.npy"
        blocks = (split.x[start : start + CHUNK] for start in range(0, len(split), CHUNK))
        write_rows(file, split.x.shape, blocks)
        parts[key] = Split.mapped(file.resolve(), split.y, split.scale, split.weight)
    return dataset.with_parts(parts)


def write_rows(
    path: str | os.PathLike[str], shape: tuple[int, ...], blocks: Iterable[Array]
) -> None:
    """Write the rows of uint8 or float ``blocks`` to a ``.npy`` file, whole or not at all.

    The blocks are written, not mapped: on a full disk a write raises OSError, while a store to a
    mapped page ends the process.
    """
    with atomic(path) as temporary, temporary.open("wb") as file:
        for i, block in enumerate(blocks):
            if i == 0:
                header = np.lib.format.header_data_from_array_1_0(block[:0])
                np.lib.format.write_array_header_1_0(
                    file, {**header, "fortran_order": False, "shape": shape}
                )
            file.write(np.ascontiguousarray(block).data)
