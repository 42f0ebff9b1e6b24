"""Readers of data files: the course's ``.npz`` files of several years, and IDX folders."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path

import numpy as np

from minidl.checks import Array, did_you_mean
from minidl.data.letters import load_letters, load_scenes
from minidl.dataset import Dataset
from minidl.files import MAX_EXPANSION, Readable, fill, read_npz

GENERATED = {"letters": load_letters, "scenes": load_scenes}

# The keys of the course's files, by year: x and y of train, valid and test.
_SCHEMES: dict[str, tuple[str, ...]] = {
    "2025-26": ("X_train", "y_train", "X_valid", "y_valid", "X_test", "y_test"),
    "2024-25": (
        "train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels",
    ),
    "2021-22": ("Xtrain", "ytrain", "Xdev", "ydev", "Xtest", "ytest"),
}  # fmt: skip

_PREFIXES = ("emnist-letters-", "")  # of the IDX files of EMNIST, and of MNIST

MAX_CLASSES = 1000
"""The largest label that a file may have if it has fewer examples."""

EMNIST_VALID = 20_800
"""The number of EMNIST training rows, from the end, that become the validation part. It is then
as large as the test part, and balanced, as the authors of EMNIST describe."""


def load_dataset(source: str | os.PathLike[str], *, progress: bool = False) -> Dataset:
    """Load a data set from a file or folder, whose format is recognised.

    A damaged file costs no more memory than its data would. IDX files have no checksum: a changed
    pixel is not noticed; ``python -m minidl.data show`` compares with the published files.

    Parameters
    ----------
    source : path or name
        The name ``"letters"`` or ``"scenes"`` (generated, no file needed); a course ``.npz`` of
        2025-26, 2024-25 or 2021-22; or a folder of IDX files, plain or gzip, named as those of
        EMNIST (``emnist-letters-train-images-idx3-ubyte.gz``) or of MNIST
        (``train-images-idx3-ubyte.gz``).
    progress : bool
        Show a progress bar while examples are drawn for the first time (needs tqdm).

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder, or no IDX file in the folder.
    ValueError, TypeError
        If the content is damaged or is not a data set.
    """
    if str(source) in GENERATED:
        return GENERATED[str(source)](progress=progress)
    path = Path(source)
    if path.is_dir():
        return _load_idx(path)
    if not path.exists():
        hint = did_you_mean(str(source), GENERATED) if Path(source).suffix == "" else ""
        raise FileNotFoundError(f"{path}: no such file or folder{hint}")
    return _load_npz(path)


def _load_npz(path: Path) -> Dataset:
    try:
        arrays, found = read_npz(path, _KNOWN_KEYS.__contains__)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as an .npz file ({error})") from error
    year, keys = max(_SCHEMES.items(), key=lambda item: len(set(item[1]) & set(found)))
    missing = [key for key in keys if key not in found]
    if year == "2021-22" and missing == ["Xdev", "ydev"]:  # the Ames file has no validation part
        missing, keys = [], (*keys[:2], *keys[4:])
    if missing:
        raise ValueError(
            f"{path}: missing {', '.join(missing)} (the keys of {year}); found {_listed(found)}"
        )
    ys = {key: arrays[key] for key in keys[1::2]}
    # The only regression among the course's data sets, Ames house prices, has these keys.
    regression = year == "2021-22" and not _is_integral(ys[keys[1]])
    if not regression:
        ys = _labels(path, ys)
    parts = [(arrays[x], ys[y]) for x, y in zip(keys[::2], keys[1::2], strict=True)]
    classes = None if regression else _classes(ys[keys[1]])
    if len(parts) == 2:
        return Dataset(parts[0], None, parts[1], name=path.stem, classes=classes)
    return Dataset(*parts, name=path.stem, classes=classes)


_KNOWN_KEYS = {key for keys in _SCHEMES.values() for key in keys}


def _is_integral(y: Array) -> bool:
    if y.dtype.kind == "f":
        return bool(np.all(np.isfinite(y) & (y == np.round(y))))
    return y.dtype.kind in "iu"


def _labels(path: Path, ys: dict[str, Array]) -> dict[str, Array]:
    """Return the labels as integers from 0; the course's files count from 0 or from 1.

    A label of 10^9 is an error of the file, and would need as many outputs of a model.
    """
    first = next(iter(ys.values()))
    limit = max(MAX_CLASSES, first.size)
    for key, y in ys.items():
        if not _is_integral(y):
            if y.dtype.kind == "f":
                got = repr(y[~(np.isfinite(y) & (y == np.round(y)))].item(0))
            else:
                got = f"{y.item(0)!r} of dtype {y.dtype}" if y.size else f"dtype {y.dtype}"
            raise ValueError(f"{path}: expected integer labels in {key}, got {got}")
        if y.size and (y.max() > limit or y.min() < -limit):
            worst = y.max() if y.max() > limit else y.min()
            raise ValueError(f"{path}: expected labels of at most {limit} in {key}, got {worst}")
    base = 1 if first.size and first.min() == 1 else 0
    return {key: y.astype(np.int64) - base for key, y in ys.items()}


def _classes(y: Array) -> int:
    """Return the number of classes: one more than the largest training label."""
    return int(y.max(initial=0)) + 1


def _listed(names: list[str]) -> str:
    """Return the names in a line, the first ones of many."""
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") or "nothing"


def _load_idx(folder: Path) -> Dataset:
    names = sorted(p.name for p in folder.iterdir())
    prefix = next(
        (p for p in _PREFIXES if any(n.startswith(p + "train-images") for n in names)), None
    )
    if prefix is None:
        raise FileNotFoundError(
            f"{folder}: no IDX files: expected [emnist-letters-]train-images-idx3-ubyte[.gz] "
            f"and the other three files; found {_listed(names)}"
        )

    def part(stem: str, dimensions: int) -> Array:
        for dash in ("-", "."):  # some copies have train-images.idx3-ubyte
            for suffix in ("", ".gz"):
                name = f"{prefix}{stem}{dash}idx{dimensions}-ubyte{suffix}"
                if name in names:
                    return read_idx(folder / name, dimensions)
        raise FileNotFoundError(
            f"{folder}: missing {prefix}{stem}-idx{dimensions}-ubyte[.gz]; found {_listed(names)}"
        )

    test = "test" if prefix else "t10k"
    x, y = part("train-images", 3), part("train-labels", 1)
    x_test, y_test = part(f"{test}-images", 3), part(f"{test}-labels", 1)
    if len(x) != len(y):
        raise ValueError(f"{folder}: {len(x)} training images but {len(y)} labels")
    cut = len(x) - (EMNIST_VALID if prefix else len(x) // 6)
    if cut < 1:
        raise ValueError(
            f"{folder}: expected more than {EMNIST_VALID} training images, since the last "
            f"{EMNIST_VALID} become the validation part; got {len(x)}"
        )
    labels = _labels(folder, {"training labels": y, "test labels": y_test})
    y, y_test = labels["training labels"], labels["test labels"]
    return Dataset(
        (x[:cut], y[:cut]),
        (x[cut:], y[cut:]),
        (x_test, y_test),
        name=prefix.strip("-") or folder.resolve().name,
        classes=_classes(y),
        transposed=bool(prefix),
    )


def read_idx(path: str | os.PathLike[str], dimensions: int) -> Array:
    """Read an IDX file of uint8 with a given number of dimensions, plain or gzip.

    The format: two zero bytes, the type 0x08, the number of dimensions in one byte, the dimensions
    as big-endian uint32, the values in C order. No more is decompressed than the header declares,
    and nothing is allocated that the size of the file rules out.

    Raises
    ------
    ValueError
        If the file is damaged, of another type, or too large for the memory.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not zipped:
                return _read_idx(file, dimensions, size)
            with gzip.open(file) as content:
                return _read_idx(content, dimensions, MAX_EXPANSION * size)
    except FileNotFoundError:
        raise
    except MemoryError as error:
        raise ValueError(f"{path}: does not fit into memory ({error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # gzip and zlib raise many kinds
        raise ValueError(f"{path}: cannot be read ({error})") from error


def _read_idx(file: Readable, dimensions: int, largest: int) -> Array:
    """Read the content of an IDX file that is at most ``largest`` bytes long."""
    start = file.read(4)
    sizes = file.read(4 * dimensions)
    if start != bytes([0, 0, 8, dimensions]) or len(sizes) < 4 * dimensions:
        raise ValueError(
            f"expected an IDX file of uint8 with {dimensions} dimensions, "
            f"got one that begins with {start.hex(' ') or 'nothing'}"
        )
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    count = math.prod(shape)
    if count > largest:
        raise ValueError(f"expected {count} values for shape {shape}, got at most {largest}")
    array = np.empty(shape, np.uint8)
    got = fill(file, array)
    if got < count:
        raise ValueError(f"expected {count} values for shape {shape}, got {got}")
    if file.read(1):
        raise ValueError(f"expected {count} values for shape {shape}, got more")
    return array
