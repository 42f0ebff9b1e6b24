"""Cache of the generated letters: drawn once, then mapped into memory by every process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from minidl.data import letters
from minidl.data.dataset import Dataset, Split
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
    sizes = {"train": train, "valid": valid, "test": test}
    for key, n in sizes.items():
        check_int("letters", key, n)
    check_int("letters", "seed", seed, low=0)
    splits = [_split(i, key, n, seed, progress) for i, (key, n) in enumerate(sizes.items())]
    return Dataset(*splits, name="letters", classes=letters.N_CLASSES, generated=True)


def _split(number: int, key: str, n: int, seed: int, progress: bool) -> Split:
    stem = f"letters-v{letters.VERSION}-seed{seed}-{key}"
    file = _cached(stem, n)
    if file is None:
        file = cache_folder() / f"{stem}-{n}.npy"
        blocks = letters.blocks(n, seed=seed, split=number)
        if progress:
            with require("tqdm", "examples").tqdm(total=n, desc=f"drawing {key} letters") as bar:
                _draw(file, n, blocks, bar.update)
        else:
            _draw(file, n, blocks, lambda drawn: None)
    labels = np.load(file.with_suffix(".labels.npy"))[:n].astype(np.int64)
    return Split.mapped(file, labels, 1 / 256)


def _cached(stem: str, n: int) -> Path | None:
    """Return the smallest cached file with at least ``n`` letters, None if there is none."""
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
    blocks: Iterator[tuple[Array, Array]],
    advance: Callable[[int], object],
) -> None:
    """Write the pixels of ``blocks`` to ``file`` and their labels beside it."""
    labels = np.empty(n, np.uint8)
    with atomic(file) as temporary:
        pixels = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(n, 784))
        start = 0
        for block, block_labels in blocks:
            stop = start + len(block)
            pixels[start:stop], labels[start:stop] = block, block_labels
            advance(len(block))
            start = stop
        pixels.flush()
        with atomic(file.with_suffix(".labels.npy")) as temporary_labels:
            np.save(temporary_labels, labels)
