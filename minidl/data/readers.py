"""Readers of data files: ``.npz`` files of the course and of Keras, and folders of IDX files."""

from __future__ import annotations

import gzip
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from minidl.checks import Array, check_entries
from minidl.data.letters import load_letters
from minidl.dataset import Dataset
from minidl.files import as_path, fill, largest_content, open_to_read, read_npz, reading

# The keys of x and y of train, valid and test.
_SCHEMES: dict[str, tuple[str, ...]] = {
    "2025-26": ("X_train", "y_train", "X_valid", "y_valid", "X_test", "y_test"),
    "2024-25": (
        "train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels",
    ),
    "2021-22 without a dev part": ("Xtrain", "ytrain", "Xtest", "ytest"),
    "2021-22": ("Xtrain", "ytrain", "Xdev", "ydev", "Xtest", "ytest"),
    "Keras": ("x_train", "y_train", "x_test", "y_test"),
}  # fmt: skip

# The splits of EMNIST and their classes, counted from 0, of which a file may lack some. Letters are
# counted from 1, in some copies from 0.
_EMNIST = {
    "letters": None, "balanced": 47, "byclass": 62, "bymerge": 47, "digits": 10, "mnist": 10,
}  # fmt: skip
_EMNIST_VALID = 20_800  # of Letters, as its authors say: as many rows as the test part, balanced
_MAX_CLASSES = 1000  # the largest label of a file with fewer examples; 10^9 would be an error of it
_IDX_NAME = re.compile(  # some copies have train-images.idx3-ubyte
    rf"(|emnist-(?:{'|'.join(_EMNIST)})-)(train|test|t10k)-(images|labels)[-.]idx[13]-ubyte(?:\.gz)?"
)


def load_dataset(source: str | os.PathLike[str], *, progress: bool = False) -> Dataset:
    """Load a data set from a file or folder, whose format is recognised.

    Parameters
    ----------
    source : path or name
        ``"letters"`` (generated, no file needed); an ``.npz`` with the keys of the course in
        2025-26, 2024-25 or 2021-22, or of Keras (``x_train``, ...); or a folder of IDX files, plain
        or gzip, named as those of EMNIST (``emnist-letters-train-images-idx3-ubyte.gz``, or another
        of its six splits) or of MNIST (``train-images-idx3-ubyte.gz``). The path of one IDX file
        stands for its folder, and says which split is meant where there are several; else it is
        Letters.
    progress : bool
        Show a progress bar while examples are drawn for the first time (needs tqdm).

    Notes
    -----
    Labels are ``(n,)``, and count from 1 if that is the least label of all parts, else from 0. The
    training part has the largest label. Columns ``(n, K)`` are classes if every row of every part
    is one-hot; else they are kept. Training targets of an ``.npz`` that are not whole are those of
    a regression. Where MNIST or EMNIST has no validation part, it is the end of the training part:
    as many rows as the test part has for EMNIST, else the last sixth. IDX files have no checksum: a
    changed pixel is not noticed.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder, or no IDX file in the folder.
    ValueError, TypeError
        If the content is damaged or is not a data set.
    """
    if str(source) == "letters":
        return load_letters(progress=progress)
    path = as_path(source)
    if path.is_dir():
        return _load_idx(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; the one name is 'letters'")
    if idx := _IDX_NAME.fullmatch(path.name):
        return _load_idx(path.parent, idx[1])
    return _load_npz(path)


def _load_npz(path: Path) -> Dataset:
    known = {key for keys in _SCHEMES.values() for key in keys}
    try:
        arrays, found = read_npz(path, known.__contains__)
    except Exception as error:  # zipfile raises many kinds
        why = str(error) if isinstance(error, ValueError) else repr(error)
        raise ValueError(f"{path}: cannot be read as an .npz file ({why:.2000})") from error
    year, keys = max(_SCHEMES.items(), key=lambda item: len(set(item[1]) & set(found)))
    if missing := [key for key in keys if key not in found]:
        scheme = f"{', '.join(missing)} (the keys of {year})"
        raise ValueError(f"{path}: missing {scheme}; found {', '.join(found[:12]) or 'nothing'}")
    ys, classes = _labels(path, {key: arrays[key] for key in keys[1::2]})
    parts = [(arrays[x], ys[y]) for x, y in zip(keys[::2], keys[1::2], strict=True)]
    if year == "Keras":
        parts[:1] = _with_validation(path, *parts[0], len(parts[0][0]) // 6)
    valid = parts[1] if len(parts) == 3 else None
    return Dataset(parts[0], valid, parts[-1], name=path.stem, classes=classes)


def _with_validation(path: Path, x: Array, y: Array, valid: int) -> list[tuple[Array, Array]]:
    """Return two parts; the validation part is the last ``valid`` of the training examples."""
    cut = len(x) - valid
    if cut < 1:
        raise ValueError(f"{path}: expected more than {valid} training images, got {len(x)}")
    return [(x[:cut], y[:cut]), (x[cut:], y[cut:])]


def _labels(
    path: Path, ys: dict[str, Array], classes: int | None = None
) -> tuple[dict[str, Array], int | None]:
    """Return the labels of all parts as ``load_dataset`` says, and the number of classes.

    With ``classes`` they count from 0. Errors have the numbers of the file.
    """
    ys = {key: y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y for key, y in ys.items()}
    train = next(iter(ys.values()))
    if train.dtype.kind == "f" and (train != np.rint(train)).any():
        return ys, None
    limit = max(_MAX_CLASSES, len(train))
    for key, y in ys.items():
        if y.dtype.kind not in "biuf":
            raise ValueError(f"{path}: {key}: expected integer labels, got dtype {y.dtype}")
        want, fits = f"integer labels of at most {limit}", (y == np.rint(y)) & (np.abs(y) <= limit)
        check_entries(f"{path}: {key}", want, "y", y, fits)
    ys = {key: y.astype(np.int64) for key, y in ys.items()}
    if train.ndim > 1:
        for y in ys.values():
            ones = y.shape[1:] == train.shape[1:] and (y == 1).any(axis=1).all()
            if not ones or np.count_nonzero(y) != len(y):
                return ys, None
        return {key: y.argmax(axis=1) for key, y in ys.items()}, train.shape[1]
    least = min(y.min(initial=limit) for y in ys.values())
    base = int(classes is None and least == 1)
    classes = classes or int(train.max(initial=base)) + 1 - base
    for key, y in ys.items():
        want, fits = f"labels in {base}..{base + classes - 1}", (y >= base) & (y < base + classes)
        check_entries(f"{path}: {key}", want, "y", y, fits)
    return {key: y - base for key, y in ys.items()}, classes


def _load_idx(folder: Path, prefix: str | None = None) -> Dataset:
    """Read the IDX files of a folder: those that begin with ``prefix``, or the only ones."""
    names = sorted(p.name for p in folder.iterdir())
    found = filter(None, map(_IDX_NAME.fullmatch, reversed(names)))  # so that plain files count
    files = {f"{name[1]}{name[2]}-{name[3]}": name for name in found}
    if prefix is None:
        prefixes = {name[1] for name in files.values()}
        prefix = prefixes.pop() if len(prefixes) == 1 else "emnist-letters-"
    split = prefix.removeprefix("emnist-").strip("-")
    arrays = []
    for part in ("train", "test" if split else "t10k"):
        for kind, dimensions in (("images", 3), ("labels", 1)):
            stem = f"{prefix}{part}-{kind}"
            if stem not in files:
                missing = f"missing {stem}-idx{dimensions}-ubyte[.gz] in this folder"
                seen = ", ".join(names[:12]) or "nothing"
                raise FileNotFoundError(f"{folder}: {missing}; found {seen}")
            arrays.append(read_idx(folder / files[stem][0], dimensions))
    x, y, x_test, y_test = arrays
    ys, classes = _labels(folder, {"training labels": y, "test labels": y_test}, _EMNIST.get(split))
    y, y_test = ys.values()
    n_valid = _EMNIST_VALID if split == "letters" else len(x_test) if split else len(x) // 6
    train, valid = _with_validation(folder, x, y, n_valid)
    name = prefix.strip("-") or folder.resolve().name
    return Dataset(
        train, valid, (x_test, y_test), name=name, classes=classes, transposed=bool(prefix)
    )


def read_idx(path: str | os.PathLike[str], dimensions: int) -> Array:
    """Read an IDX file of uint8 with a given number of dimensions, plain or gzip.

    The format: two zero bytes, the type 0x08, the number of dimensions in one byte, the dimensions
    as big-endian uint32, the values in C order. No more is decompressed than the header declares,
    and nothing is allocated that the size of the file rules out.

    Raises
    ------
    ValueError
        If the file is damaged, of another type, compressed more than ``largest_content`` allows,
        too large for the memory, or a device or a pipe.
    """
    with reading(path), open_to_read(path) as file:
        largest = os.fstat(file.fileno()).st_size
        content: Any = file
        if content.peek(2)[:2] == b"\x1f\x8b":
            content, largest = gzip.GzipFile(fileobj=file), largest_content(largest)
        header, length = content.read(4 + 4 * dimensions), 4 + 4 * dimensions
        if header[:4] != bytes([0, 0, 8, dimensions]) or len(header) < length:
            want = f"an IDX file of uint8 with {dimensions} dimensions"
            begin = header[:4].hex(" ") or "nothing"
            raise ValueError(f"expected {want}, got one that begins with {begin}")
        shape = tuple(np.frombuffer(header, ">u4", offset=4).tolist())
        count = math.prod(shape)
        wanted = f"expected {count} values for shape {shape}"
        if count > largest:
            raise ValueError(f"{wanted}, got at most {largest}")
        array = np.empty(shape, np.uint8)
        got = fill(content, array)
        if got < count or content.read(1):
            raise ValueError(f"{wanted}, got {got if got < count else 'more'}")
    return array
