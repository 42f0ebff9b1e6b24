"""The embedded letters on disk: drawn once, then mapped into memory by every process."""

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
    """``$MINIDL_CACHE``, or ``minidl`` in the place where the system keeps caches."""
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
    """The generated letters, in the sizes of the course's EMNIST Letters by default.

    A smaller set is the beginning of a larger one. What is drawn is kept in the cache folder
    (``$MINIDL_CACHE``) and mapped from there.

    Parameters
    ----------
    train, valid, test : int
        How many of each.
    seed : int
    progress : bool
        Show a bar while letters are drawn (needs tqdm).
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
        bar = progress and require("tqdm", "examples").tqdm(total=n, desc=f"drawing {key} letters")
        _draw(file, n, letters.blocks(n, seed=seed, split=number), bar.update if bar else int)
        if bar:
            bar.close()
    labels = np.load(file.with_suffix(".labels.npy"))[:n].astype(np.int64)
    return Split.mapped(file, labels, 1 / 256)


def _cached(stem: str, n: int) -> Path | None:
    """The smallest cached file with at least ``n`` letters."""
    sizes = {
        int(p.name.removeprefix(f"{stem}-").removesuffix(".npy")): p
        for p in cache_folder().glob(f"{stem}-*.npy")
        if not p.name.endswith(".labels.npy") and p.with_suffix(".labels.npy").exists()
    }
    return sizes[min(s for s in sizes if s >= n)] if any(s >= n for s in sizes) else None


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
