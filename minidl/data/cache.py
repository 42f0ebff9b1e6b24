"""Cache of the generated examples: drawn once, then mapped into memory by every process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from minidl.data import letters, scenes
from minidl.data.dataset import Dataset
from minidl.data.split import Split
from minidl.files import atomic
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
    splits = []
    for number, (key, n) in enumerate(sizes.items()):
        stem = f"{name}-v{generator.VERSION}-seed{seed}-{key}"
        file = _cached(stem, n)
        if file is None:
            file = cache_folder() / f"{stem}-{n}.npy"
            blocks = generator.blocks(n, seed=seed, split=number)
            if progress:
                tqdm = require("tqdm", "examples").tqdm
                with tqdm(total=n, desc=f"drawing {key} {name}") as bar:
                    _draw(file, n, generator.FEATURES, blocks, bar.update)
            else:
                _draw(file, n, generator.FEATURES, blocks, lambda drawn: None)
        labels = np.load(file.with_suffix(".labels.npy"))[:n].astype(np.int64)
        splits.append(Split.mapped(file, labels, 1 / 256))
    return Dataset(*splits, name=name, classes=generator.N_CLASSES, generated=generator.NOTE)


def _cached(stem: str, n: int) -> Path | None:
    """Return the smallest cached file with at least ``n`` examples, None if there is none."""
    sizes = {
        int(p.name.removeprefix(f"{stem}-").removesuffix(".npy")): p
        for p in cache_folder().glob(f"{stem}-*.npy")
        if not p.name.endswith(".labels.npy") and p.with_suffix(".labels.npy").exists()
    }
    large_enough = [size for size in sizes if size >= n]
    return sizes[min(large_enough)] if large_enough else None


def _draw(
    file: Path,
    n: int,
    features: int,
    blocks: Iterator[tuple[Array, Array]],
    advance: Callable[[int], object],
) -> None:
    """Write the pixels of ``blocks`` to ``file`` and their labels beside it."""
    labels = np.empty(n, np.uint8)
    with atomic(file) as temporary:
        shape = n, features
        pixels = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        start = 0
        for block, block_labels in blocks:
            stop = start + len(block)
            pixels[start:stop], labels[start:stop] = block, block_labels
            advance(len(block))
            start = stop
        pixels.flush()
        with atomic(file.with_suffix(".labels.npy")) as temporary_labels:
            np.save(temporary_labels, labels)
