"""Generated examples that are kept in a folder, from which they are mapped into memory."""

from __future__ import annotations

import functools
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from minidl.callbacks import progress_bar
from minidl.checks import Array, check_int
from minidl.dataset import CHUNK, PIXEL_SCALE, Dataset, Split
from minidl.files import as_path, atomic, remove_leftovers

Blocks = Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
"""Rows of pixels and their labels, some at a time."""


def cache_folder() -> Path:
    """Return ``$MINIDL_CACHE``, or ``minidl`` in the system's folder for caches.

    Raises
    ------
    ValueError
        If that is in the home folder, and there is none.
    """
    if "MINIDL_CACHE" in os.environ:
        return as_path(os.environ["MINIDL_CACHE"])
    if sys.platform == "win32":
        return as_path(os.environ.get("LOCALAPPDATA", "~")) / "minidl"
    if sys.platform == "darwin":
        return as_path("~/Library/Caches/minidl")
    return as_path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "minidl"


def load_generated(
    generator: ModuleType, sizes: dict[str, int], seed: int, progress: bool
) -> Dataset:
    """Load examples that a module generates, from the folder of the cache if they are there.

    The module has ``blocks``, ``VERSION``, ``FEATURES``, ``N_CLASSES`` and ``NOTE``, as
    ``minidl.data.letters``.
    """
    name = generator.__name__.rpartition(".")[2]
    for key, n in sizes.items():
        check_int(name, key, n)
    check_int(name, "seed", seed, low=0)
    folder = Path()
    why: Exception | None = None
    try:
        folder = cache_folder()
        remove_leftovers(folder)
    except ValueError as error:
        why = error
    splits = []
    for number, (key, n) in enumerate(sizes.items()):
        title = f"drawing {key} {name}" if progress else ""
        draw = functools.partial(_drawn, generator, n, seed, number, title)
        split = None
        if why is None:
            try:
                stem = f"{name}-v{generator.VERSION}-seed{seed}-{key}"
                split = _cached(folder, stem, n, generator, draw)
            except OSError as error:
                why = error
        if split is None:
            pixels, labels = zip(*draw(), strict=True)
            y = np.concatenate(labels).astype(np.int64)
            split = Split(np.concatenate(pixels), y, PIXEL_SCALE)
        splits.append(split)
    if why is not None:
        warnings.warn(
            f"{name}: drawn without a cache, which takes time in each process ({why}); name a "
            "folder that can be written in the environment variable MINIDL_CACHE",
            stacklevel=3,
        )
    return Dataset(*splits, name=name, classes=generator.N_CLASSES, generated=generator.NOTE)


def _drawn(generator: ModuleType, n: int, seed: int, number: int, title: str) -> Blocks:
    """Yield the blocks of a part, with a bar of progress if it has a title."""
    blocks = generator.blocks(n, seed=seed, split=number)
    if not title:
        yield from blocks
        return
    with progress_bar(total=n, desc=title) as bar:
        for pixels, labels in blocks:
            yield pixels, labels
            bar.update(len(labels))


def _cached(
    folder: Path, stem: str, n: int, generator: ModuleType, draw: Callable[[], Blocks]
) -> Split:
    """Return examples of the smallest cached file that has enough; draw them if there is none."""
    pattern = re.compile(rf"{re.escape(stem)}-(\d+)\.npy")
    listed = list(folder.iterdir()) if folder.exists() else []
    found = [(int(m[1]), p) for p in listed if (m := pattern.fullmatch(p.name))]
    for size, file in sorted(found):
        y = _labels(file, size, generator) if size >= n else None
        if y is not None:
            break
    else:
        file = folder / f"{stem}-{n}.npy"
        y = _write(file, (n, generator.FEATURES), draw())
    return Split.mapped(file, y[:n].astype(np.int64), PIXEL_SCALE)


def _write(file: Path, shape: tuple[int, int], blocks: Blocks) -> Array:
    """Write the pixels of ``blocks`` to ``file``; write and return their labels."""
    drawn: list[Array] = []

    def pixels() -> Iterator[Array]:
        for x, labels in blocks:
            yield x
            drawn.append(labels)

    write_rows(file, shape, pixels())
    y = np.concatenate(drawn)
    write_rows(file.with_suffix(".labels.npy"), y.shape, [y])
    return y


def _labels(file: Path, size: int, generator: ModuleType) -> Array | None:
    """Return the labels of a cached file; None if it or they are not what they should be."""
    try:
        # Mapping compares the declared size with that of the file, before anything is read.
        x = np.lib.format.open_memmap(file, mode="r")
        labels = np.array(np.lib.format.open_memmap(file.with_suffix(".labels.npy"), mode="r"))
    except Exception:  # not there, or damaged; the parser of the header raises many kinds
        return None
    right = x.shape == (size, generator.FEATURES) and labels.shape == (size,)
    right = right and x.dtype == labels.dtype == np.uint8
    return labels if right and labels.max() < generator.N_CLASSES else None


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
