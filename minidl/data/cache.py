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
    if "MINIDL_CACHE" in os.environ:
        return as_path(os.environ["MINIDL_CACHE"])
    return as_path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "minidl"


@dataclass(frozen=True, eq=False)
class ImageGenerator:
    """A program that draws labelled images, a block of m at a time.

    ``version`` is in the names of the cached files and increases when the pixels change; ``note``
    says what the images are not. ``labels`` (m,) are those of each block before they are permuted;
    ``draw(rng, labels)`` returns its pixels, (m, features) uint8.
    """

    name: str
    version: int
    note: str
    features: int
    labels: Array
    draw: Callable[[np.random.Generator, Array], Array]

    def blocks(self, n: int, *, seed: int = 0, split: int = 0) -> Iterator[tuple[Array, Array]]:
        """Draw n examples as blocks of pixels and labels; fewer are the beginning of more.

        ``split`` is the number of an independent stream of the seed: 0 for training, 1 for
        validation, 2 for testing.
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
        seed, parts = check_int(self.name, "seed", seed, low=0), []
        without_pixels = replace(self, draw=lambda rng, labels: labels)
        for i, (key, n) in enumerate(sizes.items()):
            check_int(self.name, key, n, high=MOST)
            blocks = without_pixels.blocks(n, seed=seed, split=i)
            parts.append((key, np.concatenate([y for _, y in blocks]).astype(np.int64)))

        def pixels(i: int) -> Iterator[Array]:
            key, y = parts[i]
            bar: Any = contextlib.nullcontext()
            if progress:
                bar = progress_bar(total=len(y), desc=f"drawing {key} {self.name}")
            with bar:
                for x, _ in self.blocks(len(y), seed=seed, split=i):
                    yield x
                    if progress:
                        bar.update(len(x))

        def cached(folder: Path, i: int) -> Split:
            """Map the smallest file that has enough rows, or write one."""
            key, y = parts[i]
            stem, shape = f"{self.name}-v{self.version}-seed{seed}-{key}", (len(y), self.features)
            ends = [path.stem.removeprefix(f"{stem}-") for path in folder.glob(f"{stem}-*.npy")]
            for size in sorted(int(end) for end in ends if end.isdecimal()):
                with contextlib.suppress(Exception):  # damaged; the parsers raise many kinds
                    split = MappedSplit.of(folder / f"{stem}-{size}.npy", y, PIXEL_SCALE)
                    if split.x.shape == shape and split.x.dtype == np.uint8:
                        return split
            file = folder / f"{stem}-{len(y)}.npy"
            # Written, not mapped: on a full disk a store to a mapped page ends the process.
            with atomic(file) as temporary, temporary.open("wb") as stream:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
                stream.writelines(x.data for x in pixels(i))
            return MappedSplit.of(file, y, PIXEL_SCALE)

        try:
            folder = cache_folder()
            splits = [cached(folder, i) for i in range(len(parts))]
        except (OSError, ValueError) as error:
            warnings.warn(
                f"{self.name}: drawn without a cache, which takes time in each process ({error}); "
                "name a folder that can be written in the environment variable MINIDL_CACHE",
                stacklevel=3,
            )
            drawn = [np.concatenate(list(pixels(i))) for i in range(len(parts))]
            splits = [Split(x, y, PIXEL_SCALE) for x, (_, y) in zip(drawn, parts, strict=True)]
        classes = int(self.labels.max()) + 1
        return Dataset(*splits, name=self.name, classes=classes, generated=self.note)


@dataclass(frozen=True, eq=False, repr=False)
class MappedSplit(Split):
    """A part whose ``x`` maps the first rows of a ``.npy`` file into memory.

    It is pickled as the file's name, so that several processes share one copy of the pixels.
    """

    file: Path = Path()

    @classmethod
    def of(cls, file: Path, y: Array, scale: float, weight: Array | None = None) -> Split:
        """Return the part whose ``x`` maps the first ``len(y)`` rows of a file."""
        return cls(np.load(file, mmap_mode="r")[: len(y)], y, scale, weight, file)

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedSplit.of, (self.file, self.y, self.scale, self.weight)


def mapped(dataset: Dataset, folder: str | os.PathLike[str]) -> Dataset:
    """Return the data set with each ``x`` written to ``folder`` and mapped into memory.

    It is pickled as the names of the files, so that several processes share one copy of the rows.
    """
    parts = {}
    for key, split in dataset.splits.items():
        file = as_path(folder) / f"{key}.npy"
        with atomic(file) as temporary:
            np.save(temporary, np.ascontiguousarray(split.x))
        parts[key] = MappedSplit.of(file.resolve(), split.y, split.scale, split.weight)
    return dataset.with_parts(parts)
