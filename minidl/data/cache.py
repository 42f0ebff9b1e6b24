"""Cache of the generated examples: drawn once, then mapped into memory by every process.

A file that is not what its name says is not used, and replaced when that number of examples is
drawn again. Where the folder cannot be read or written (a read-only disk, a full one, no home
folder), the examples are drawn into the memory of this process, and a warning says so.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from minidl.data import letters, scenes
from minidl.data.dataset import Dataset
from minidl.data.split import Split
from minidl.files import as_path, remove_leftovers, write_rows
from minidl.typing import Array
from minidl.validation import check_int, require

Blocks = Iterator[tuple[Array, Array]]

SCALE = 1 / 256


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


def load_letters(
    train: int = 104_000,
    valid: int = 20_800,
    test: int = 20_800,
    *,
    seed: int = 0,
    progress: bool = False,
) -> Dataset:
    """Load the generated letters, drawing them on first use.

    The default sizes are those of the course's EMNIST Letters. A smaller set is the beginning of a
    larger one. Letters are stored in the cache folder (``$MINIDL_CACHE``) and mapped into memory;
    where it cannot be written, they are drawn each time, with a warning.

    Parameters
    ----------
    train, valid, test : int
        The number of examples of each part.
    seed : int
    progress : bool
        Show a progress bar while letters are drawn (needs tqdm).
    """
    return _load(letters, {"train": train, "valid": valid, "test": test}, seed, progress)


def load_scenes(
    train: int = 12_630,
    valid: int = 1_404,
    test: int = 3_000,
    *,
    seed: int = 0,
    progress: bool = False,
) -> Dataset:
    """Load the generated colour scenes, drawing them on first use.

    Six classes of 48x48 pixels. The parameters and the cache are those of ``load_letters``.
    """
    return _load(scenes, {"train": train, "valid": valid, "test": test}, seed, progress)


def _load(generator: ModuleType, sizes: dict[str, int], seed: int, progress: bool) -> Dataset:
    """Load examples that a module of this package generates."""
    name = generator.__name__.rpartition(".")[2]
    for key, n in sizes.items():
        check_int(name, key, n)
    check_int(name, "seed", seed, low=0)
    folder: Path | None = None
    why: Exception | None = None
    try:
        folder = cache_folder()
        remove_leftovers(folder)
    except ValueError as error:
        why = error
    splits = []
    for number, (key, n) in enumerate(sizes.items()):
        title = f"drawing {key} {name}" if progress else ""
        blocks = functools.partial(_blocks, generator, n, seed, number, title)
        stem = f"{name}-v{generator.VERSION}-seed{seed}-{key}"
        split = None
        if folder is not None:
            try:
                split = _mapped(folder, stem, n, generator, blocks)
            except OSError as error:
                folder, why = None, error
        splits.append(_in_memory(blocks()) if split is None else split)
    if why is not None:
        warnings.warn(
            f"{name}: drawn without a cache, which takes time in each process ({why}); name a "
            "folder that can be written in the environment variable MINIDL_CACHE",
            stacklevel=3,
        )
    return Dataset(*splits, name=name, classes=generator.N_CLASSES, generated=generator.NOTE)


def _blocks(generator: ModuleType, n: int, seed: int, number: int, title: str) -> Blocks:
    """Yield the blocks of a part, with a bar of progress if it has a title."""
    blocks = generator.blocks(n, seed=seed, split=number)
    if not title:
        yield from blocks
        return
    with require("tqdm", "examples").tqdm(total=n, desc=title) as bar:
        for pixels, labels in blocks:
            yield pixels, labels
            bar.update(len(labels))


def _mapped(
    folder: Path, stem: str, n: int, generator: ModuleType, blocks: Callable[[], Blocks]
) -> Split:
    """Return examples of the smallest cached file that has enough; draw them if there is none."""
    pattern = re.compile(rf"{re.escape(stem)}-(\d+)\.npy")
    listed = list(folder.iterdir()) if folder.exists() else []
    found = [(int(m[1]), p) for p in listed if (m := pattern.fullmatch(p.name))]
    for size, file in sorted(found):
        labels = _labels(file, size, generator) if size >= n else None
        if labels is not None:
            break
    else:
        file = folder / f"{stem}-{n}.npy"
        labels = _draw(file, n, generator.FEATURES, blocks())
    return Split.mapped(file, labels[:n].astype(np.int64), SCALE)


def _in_memory(blocks: Blocks) -> Split:
    pixels, labels = zip(*blocks, strict=True)
    return Split(np.concatenate(pixels), np.concatenate(labels).astype(np.int64), SCALE)


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


def _draw(file: Path, n: int, features: int, blocks: Blocks) -> Array:
    """Write the pixels of ``blocks`` to ``file``; write and return their labels."""
    drawn: list[Array] = []

    def pixels() -> Iterator[Array]:
        for block, labels in blocks:
            yield block
            drawn.append(labels)

    write_rows(file, (n, features), pixels())
    labels = np.concatenate(drawn)
    write_rows(file.with_suffix(".labels.npy"), labels.shape, [labels])
    return labels
