"""Readers of data files: the course's ``.npz`` files of several years, and IDX folders."""

from __future__ import annotations

import gzip
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from minidl.checks import Array, did_you_mean
from minidl.data.letters import load_letters
from minidl.dataset import Dataset
from minidl.files import as_path, fill, largest_content, open_to_read, read_npz, reading

# The keys of the course's files, by year, and of Keras: x and y of train, valid and test.
_SCHEMES: dict[str, tuple[str, ...]] = {
    "2025-26": ("X_train", "y_train", "X_valid", "y_valid", "X_test", "y_test"),
    "2024-25": (
        "train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels",
    ),
    "2021-22": ("Xtrain", "ytrain", "Xdev", "ydev", "Xtest", "ytest"),
    "Keras": ("x_train", "y_train", "x_test", "y_test"),
}  # fmt: skip

# The splits of EMNIST and their classes. Letters counts them from 1, and copies from 0; the others
# count from 0, and a part of their files may lack some.
_EMNIST = {
    "letters": None, "balanced": 47, "byclass": 62, "bymerge": 47, "digits": 10, "mnist": 10,
}  # fmt: skip
# Some copies have train-images.idx3-ubyte.
_IDX_NAME = re.compile(
    rf"(|emnist-(?:{'|'.join(_EMNIST)})-)(train|test|t10k)-(images|labels)[-.]idx[13]-ubyte(?:\.gz)?"
)

MAX_CLASSES = 1000
"""The largest label that a file may have if it has fewer examples."""

EMNIST_VALID = 20_800
"""The number of EMNIST Letters' training rows, from the end, that become the validation part. It is
then as large as the test part, and balanced, as the authors of EMNIST describe."""


def load_dataset(source: str | os.PathLike[str], *, progress: bool = False) -> Dataset:
    """Load a data set from a file or folder, whose format is recognised.

    A damaged file costs no more memory than its data would. IDX files have no checksum: a changed
    pixel is not noticed.

    Parameters
    ----------
    source : path or name
        The name ``"letters"`` (generated, no file needed); an ``.npz`` with the
        keys of the course in 2025-26, 2024-25 or 2021-22, or of Keras (``x_train``, ``y_train``,
        ``x_test``, ``y_test``); or a folder of IDX files, plain or gzip, named as those of EMNIST
        (``emnist-letters-train-images-idx3-ubyte.gz``, or another of its six splits) or of MNIST
        (``train-images-idx3-ubyte.gz``). The path of one IDX file stands for its folder, and says
        which split is meant where there are several; else it is Letters.
    progress : bool
        Show a progress bar while examples are drawn for the first time (needs tqdm).

    Notes
    -----
    Labels are ``(n,)``, and count from 1 if that is the least label of all parts, else from 0. The
    training part has the largest label. Columns ``(n, K)`` of 0 and 1 are classes if every row of
    every part has a single 1 (one-hot labels); else they are ``K`` labels that do not exclude each
    other. Where there is no validation part, it is taken from the end of the training part: as
    many rows as the test part has for EMNIST, else the last sixth.

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
        hint = did_you_mean(str(source), ["letters"]) if path.suffix == "" else ""
        raise FileNotFoundError(f"{path}: no such file or folder{hint}")
    if idx := _IDX_NAME.fullmatch(path.name):
        return _load_idx(path.parent, idx[1])
    return _load_npz(path)


Pair = tuple[Array, Array]


def _load_npz(path: Path) -> Dataset:
    known = {key for keys in _SCHEMES.values() for key in keys}
    try:
        arrays, found = read_npz(path, known.__contains__)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as an .npz file ({error})") from error
    year, keys = max(_SCHEMES.items(), key=lambda item: len(set(item[1]) & set(found)))
    missing = [key for key in keys if key not in found]
    if year == "2021-22" and missing == ["Xdev", "ydev"]:  # the Ames file has no validation part
        missing, keys = [], (*keys[:2], *keys[4:])
    if missing:
        scheme = f"{', '.join(missing)} (the keys of {year})"
        raise ValueError(f"{path}: missing {scheme}; found {_listed(found)}")
    ys, classes = {key: arrays[key] for key in keys[1::2]}, None
    # The only regression among the course's data sets, Ames house prices, has these keys.
    if year != "2021-22" or not _no_label(ys[keys[1]]):
        ys, classes = _labels(path, ys)
    train, *valid, test = [(arrays[x], ys[y]) for x, y in zip(keys[::2], keys[1::2], strict=True)]
    if year == "Keras":
        train, *valid = _with_validation(path, train, len(train[0]) // 6)
    valid_part = valid[0] if valid else None
    return Dataset(train, valid_part, test, name=path.stem, classes=classes)


def _with_validation(path: Path, train: Pair, valid: int) -> tuple[Pair, Pair]:
    """Return two parts; the validation part is the last ``valid`` of the training examples."""
    x, y = train
    cut = len(x) - valid
    if cut < 1:
        expected = f"expected more than {valid} training images, the validation part"
        raise ValueError(f"{path}: {expected}; got {len(x)}")
    return (x[:cut], y[:cut]), (x[cut:], y[cut:])


def _no_label(y: Array) -> str:
    """Return the first entry that is no whole number, and its dtype; nothing if there is none."""
    if y.dtype.kind == "f":
        y = y[~(np.isfinite(y) & (y == np.round(y)))]
    if y.dtype.kind in "iu" or (y.dtype.kind == "b" and y.ndim == 2):
        return ""
    if y.size:
        return f"{y.item(0)!r} of dtype {y.dtype}"
    return "" if y.dtype.kind == "f" else f"dtype {y.dtype}"


def _labels(
    path: Path, ys: dict[str, Array], classes: int | None = None
) -> tuple[dict[str, Array], int | None]:
    """Return the labels of all parts as ``load_dataset`` says, and the number of classes.

    With ``classes`` they count from 0. A label of 10^9 is an error of the file, and would need as
    many outputs of a model. Errors have the numbers of the file.
    """
    ys = {k: y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y for k, y in ys.items()}
    first, train = next(iter(ys.items()))
    limit = max(MAX_CLASSES, len(train))
    for key, y in ys.items():
        want, got = "", f"an array {y.shape} of {y.dtype} up to "
        if no_label := _no_label(y):
            want, got = "integer labels", no_label
        elif y.ndim not in (1, 2) or (y.ndim == 2 and not ((y == 0) | (y == 1)).all()):
            want, got = "labels (n,), or columns of 0 and 1", f"{got}{y.max(initial=0)}"
        elif y.shape[1:] != train.shape[1:]:
            want, got = f"labels (n, ...) {train.shape[1:]} as in {first}", f"an array {y.shape}"
        elif len(large := y[np.abs(y) > limit]):
            want, got = f"labels of at most {limit}", f"{large[0]}"
        if want:
            raise ValueError(f"{path}: {key}: expected {want}, got {got}")
    integers = {key: y.astype(np.int64) for key, y in ys.items()}
    if train.ndim == 2:
        if any((y.sum(axis=1) != 1).any() for y in integers.values()):
            return integers, None
        return {key: y.argmax(axis=1) for key, y in integers.items()}, train.shape[1]
    if not len(train):  # an error of the data set
        return integers, None
    least = min(y.min() for y in integers.values() if y.size)
    base = int(classes is None and least == 1)
    classes = classes or int(integers[first].max(initial=base)) + 1 - base
    for key, y in integers.items():
        wrong = np.flatnonzero((y < base) | (y >= base + classes))
        if len(wrong):
            raise ValueError(
                f"{path}: {key}: expected labels in {base}..{base + classes - 1}, got "
                f"y[{wrong[0]}] = {y[wrong[0]]}"
            )
    return {key: y - base for key, y in integers.items()}, classes


def _listed(names: list[str]) -> str:
    """Return the names in a line, the first ones of many."""
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") or "nothing"


def _load_idx(folder: Path, prefix: str | None = None) -> Dataset:
    """Read the IDX files of a folder: those that begin with ``prefix``, or the only ones."""
    names = sorted(p.name for p in folder.iterdir())
    files: dict[str, dict[str, str]] = {}
    for found in filter(None, map(_IDX_NAME.fullmatch, names)):
        files.setdefault(found[1], {}).setdefault(f"{found[2]}-{found[3]}", found[0])
    if prefix is None:
        prefix = "emnist-letters-" if len(files) != 1 else next(iter(files))
        if len(files) > 1 and prefix not in files:
            several = ", ".join(p.strip("-") or "MNIST" for p in files)
            which = "give the path of one of the files to say which"
            raise ValueError(f"{folder}: several data sets: {several}; {which}")
    split = prefix.removeprefix("emnist-").strip("-")
    test = "test" if split else "t10k"
    arrays = []
    for stem in ("train-images", "train-labels", f"{test}-images", f"{test}-labels"):
        dimensions = 3 if stem.endswith("images") else 1
        if stem not in files.get(prefix, {}):
            wanted = f"{prefix if files else '[emnist-SPLIT-]'}{stem}-idx{dimensions}-ubyte[.gz]"
            what = f"missing {wanted}" if files else f"no IDX files, as {wanted}"
            raise FileNotFoundError(f"{folder}: {what}; found {_listed(names)} in the folder")
        arrays.append(read_idx(folder / files[prefix][stem], dimensions))
    x, y, x_test, y_test = arrays
    if len(x) != len(y):
        raise ValueError(f"{folder}: {len(x)} training images but {len(y)} labels")
    ys, classes = _labels(folder, {"training labels": y, "test labels": y_test}, _EMNIST.get(split))
    y, y_test = ys.values()
    n_valid = EMNIST_VALID if split == "letters" else len(x_test) if split else len(x) // 6
    train, valid = _with_validation(folder, (x, y), n_valid)
    return Dataset(
        train, valid, (x_test, y_test), name=prefix.strip("-") or folder.resolve().name,
        classes=classes, transposed=bool(prefix),
    )  # fmt: skip


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
    path = as_path(path)
    try:
        with reading(), open_to_read(path) as file:
            largest = os.fstat(file.fileno()).st_size
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            content: Any = gzip.GzipFile(fileobj=file) if zipped else file
            largest = largest_content(largest) if zipped else largest
            start, sizes = content.read(4), content.read(4 * dimensions)
            if start != bytes([0, 0, 8, dimensions]) or len(sizes) < 4 * dimensions:
                raise ValueError(
                    f"expected an IDX file of uint8 with {dimensions} dimensions, "
                    f"got one that begins with {start.hex(' ') or 'nothing'}"
                )
            shape = tuple(np.frombuffer(sizes, ">u4").tolist())
            count = math.prod(shape)
            wanted = f"expected {count} values for shape {shape}"
            if count > largest:
                raise ValueError(f"{wanted}, got at most {largest}")
            array = np.empty(shape, np.uint8)
            got = fill(content, array)
            if got < count or content.read(1):
                raise ValueError(f"{wanted}, got {got if got < count else 'more'}")
            return array
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
