"""Cache of the generated examples: drawn once, then mapped into memory by every process.

A file that is not what its name says is not used, and replaced when that number of examples is
drawn again.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from minidl.data import letters, scenes
from minidl.data.dataset import Dataset
from minidl.data.split import Split
from minidl.files import remove_leftovers, write_rows
from minidl.typing import Array
from minidl.validation import check_int, require


def cache_folder() -> Path:
    """Return ``$MINIDL_CACHE``, or ``minidl`` in the system's folder for caches."""
    if "MINIDL_CACHE" in os.environ:
        return Path(os.environ["MINIDL_CACHE"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~")).expanduser() / "minidl"
    if sys.platform == "darwin":
        return Path("~/Library/Caches/minidl").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "minidl"


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
    larger one. Letters are stored in the cache folder (``$MINIDL_CACHE``) and mapped into memory.

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
    remove_leftovers(cache_folder())
    splits = []
    for number, (key, n) in enumerate(sizes.items()):
        stem = f"{name}-v{generator.VERSION}-seed{seed}-{key}"
        file, labels = _cached(stem, n, generator)
        if labels is None:
            blocks = generator.blocks(n, seed=seed, split=number)
            if progress:
                tqdm = require("tqdm", "examples").tqdm
                with tqdm(total=n, desc=f"drawing {key} {name}") as bar:
                    labels = _draw(file, n, generator.FEATURES, blocks, bar.update)
            else:
                labels = _draw(file, n, generator.FEATURES, blocks, lambda drawn: None)
        splits.append(Split.mapped(file, labels[:n].astype(np.int64), 1 / 256))
    return Dataset(*splits, name=name, classes=generator.N_CLASSES, generated=generator.NOTE)


def _cached(stem: str, n: int, generator: ModuleType) -> tuple[Path, Array | None]:
    """Return the smallest cached file with at least ``n`` examples, and their labels.

    If there is none, the file to write, and None.
    """
    pattern = re.compile(rf"{re.escape(stem)}-(\d+)\.npy")
    found = [(int(m[1]), p) for p in _listed(cache_folder()) if (m := pattern.fullmatch(p.name))]
    for size, file in sorted(found):
        labels = _labels(file, size, generator) if size >= n else None
        if labels is not None:
            return file, labels
    return cache_folder() / f"{stem}-{n}.npy", None


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


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


def _draw(
    file: Path,
    n: int,
    features: int,
    blocks: Iterator[tuple[Array, Array]],
    advance: Callable[[int], object],
) -> Array:
    """Write the pixels of ``blocks`` to ``file``; write and return their labels."""
    drawn: list[Array] = []

    def pixels() -> Iterator[Array]:
        for block, labels in blocks:
            yield block
            drawn.append(labels)
            advance(len(labels))

    write_rows(file, (n, features), pixels())
    labels = np.concatenate(drawn)
    write_rows(file.with_suffix(".labels.npy"), labels.shape, [labels])
    return labels
