"""Files with the same bytes on every system, written completely or not at all.

All paths that a user gives pass through ``as_path``, and all JSON through ``to_json`` and
``from_json``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from minidl.checks import Array

LEFT = 24 * 3600
"""Seconds after which a temporary file that nobody writes is one that a dead process left."""

_WORD = re.compile(r"\\*(NaN|-?Infinity)")


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that a user gave; ``~`` is the home folder, ValueError if there is none."""
    try:
        if isinstance(path, str) and not path:
            raise TypeError
        return Path(path).expanduser()
    except TypeError:
        raise TypeError(f"expected a path, got {path!r}") from None
    except RuntimeError as error:
        raise ValueError(f"{os.fspath(path)}: ~ is not known here ({error})") from error


def to_json(
    value: object, *, indent: int | None = None, default: Callable[[object], Any] | None = None
) -> str:
    """Return the JSON text of a value, NumPy's too; options as for ``json.dumps``.

    JSON has no NaN and no infinity: they are written as the strings ``"NaN"``, ``"Infinity"`` and
    ``"-Infinity"``, from which ``from_json`` makes numbers again. A string with these words gets a
    backslash before it, which ``from_json`` removes. TypeError or ValueError for other values.
    """
    return json.dumps(_each(_escaped, value), indent=indent, default=default, allow_nan=False)


def from_json(text: str | bytes) -> Any:
    """Return the value that ``to_json`` wrote."""
    return _each(_unescaped, json.loads(text))


def _each(convert: Callable[[Any], Any], value: Any) -> Any:
    """Return plain data with every number and string converted, but for the names in dicts."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: _each(convert, item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_each(convert, item) for item in value]
    return convert(value)


def _escaped(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)  # the word that Python writes
    return f"\\{value}" if isinstance(value, str) and _WORD.fullmatch(value) else value


def _unescaped(value: Any) -> Any:
    if not (isinstance(value, str) and _WORD.fullmatch(value)):
        return value
    return value[1:] if value.startswith("\\") else float(value)


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; sync and rename it to ``path`` on success.

    If the block raises, the temporary file, of the same suffix, is removed and ``path`` is as it
    was. An OSError names ``path``.
    """
    target = as_path(path)
    if target.exists() and not target.is_file():  # a file would take the place of a device
        number, kind = (errno.EISDIR, "folder") if target.is_dir() else (errno.EINVAL, "device")
        raise OSError(number, f"expected a file to write, got a {kind}", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent)
    name = f".{target.stem}.{os.urandom(8).hex()}.tmp{target.suffix}"
    temporary = target.with_name(name)
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        _sync(temporary)
        temporary.replace(target)
        if os.name != "nt":  # Windows cannot open folders
            _sync(target.parent)
    except OSError as error:
        if error.filename is not None and name not in str(error.filename):
            raise
        number, why = error.errno or errno.EIO, error.strerror or str(error)
        raise OSError(number, why, str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` in UTF-8, lines ending in a line feed, completely or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of ``atomic`` in a folder that nobody has written for a day."""
    for path in folder.glob(f".*.{'[0-9a-f]' * 16}.tmp*"):
        with contextlib.suppress(OSError):  # gone, or of another user
            if path.stat().st_mtime < time.time() - LEFT:
                path.unlink()


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; some systems have no such wait for folders."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if not (path.is_dir() and error.errno in (errno.EBADF, errno.EINVAL)):
            raise
    finally:
        os.close(handle)


def largest_content(size: int) -> int:
    """Return how many bytes a compressed file of ``size`` bytes may hold: 32 MiB, or 100 times it.

    Real data are compressed less, and nothing more than 1032 times by deflate.
    """
    return min(1032 * size, max(100 * size, 1 << 25))


def open_to_read(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file of bytes; ValueError for a folder, a device or a pipe, which may never end."""
    path = as_path(path)
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise ValueError("a folder" if stat.S_ISDIR(mode) else "a device or pipe, not a file")
    return path.open("rb")


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], what: str = "a file") -> Iterator[None]:
    """Turn any error about the content of a file into a ValueError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except MemoryError as error:
        raise ValueError(f"{path}: does not fit into memory ({error})") from error
    except ValueError as error:  # cut, since it may have a value of the file, of any length
        raise ValueError(f"{path}: {error!s:.2000}") from error
    except Exception as error:  # parsers and own classes raise any kind
        raise ValueError(f"{path}: cannot be read as {what} ({error!r:.2000})") from error


def read_npz(
    path: str | os.PathLike[str], wanted: Callable[[str], bool] = lambda name: True
) -> tuple[dict[str, Array], list[str]]:
    """Read the arrays of an ``.npz`` file whose names are wanted; return them, and all names.

    An error of any kind if it is damaged, see ``reading``; ValueError if it is compressed by
    another method than deflate or more than ``largest_content`` allows, or holds Python objects.
    """
    import zipfile  # takes as long as a tenth of NumPy, so not on `import minidl`

    with open_to_read(path) as file:
        start = file.read(6)
        if start == np.lib.format.MAGIC_PREFIX:
            raise ValueError("a single array, not an archive of arrays")
        if start[:3] == bytes([0, 0, 8]):
            raise ValueError("an IDX file of another name; give its folder, as of MNIST's files")
        most = largest_content(os.fstat(file.fileno()).st_size)
        with zipfile.ZipFile(file) as archive:
            members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
            arrays: dict[str, Array] = {}
            for name, member in members.items():
                if wanted(name):
                    arrays[name] = _read_member(archive, member, most)
                    most -= arrays[name].nbytes
    return arrays, list(members)


def _read_member(archive: Any, member: Any, most: int) -> Array:
    """Read one array of a zip archive, of at most so many bytes."""
    name = member.filename
    if member.compress_type not in (0, 8):  # of others the content may be larger without bound
        raise ValueError(f"{name} is compressed by method {member.compress_type}, not by deflate")
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):  # versions 2 and 3 are for structured dtypes
            raise ValueError(f"{name} is not an .npy file of version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.kind not in "biufcSUV" or dtype.fields is not None or dtype.itemsize == 0:
            raise ValueError(f"{name}: expected numbers, text or bytes, got dtype {dtype}")
        length, got = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
        if got == length > most:
            raise ValueError(f"{name}: expected at most {most} bytes, got {got}; compress it less")
        if got == length:
            array = np.empty(shape, dtype, order="F" if fortran else "C")
            got = fill(file, array.T if fortran else array)
        if got != length:
            wanted = f"{length} bytes for shape {shape} and dtype {dtype}"
            raise ValueError(f"{name}: expected {wanted}, got {got}")
    return array


def fill(file: Any, array: Array) -> int:
    """Read the bytes of a contiguous array from a file; return their number, fewer at its end."""
    memory = array.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(memory) and (piece := file.read(min(1 << 18, len(memory) - done))):
        memory[done : done + len(piece)] = piece
        done += len(piece)
    return done
