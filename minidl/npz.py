"""Reading of ``.npz`` files that may be damaged or made to do harm.

Nothing is unpickled, and no more memory is used than the arrays take. Sizes are compared before an
array is made: the compressed bytes with the file, the declared bytes with the compressed ones, and
the shape with the declared bytes. NumPy's own reader allocates first and reads then.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from typing import IO, Any, Protocol

import numpy as np

from minidl.files import as_path
from minidl.typing import Array

MAX_EXPANSION = 1032
"""The largest ratio by which deflate, the method of zip and gzip, compresses."""

_PIECE = 1 << 18  # bytes that are read at a time


def read_npz(
    path: str | os.PathLike[str], wanted: Callable[[str], bool] = lambda name: True
) -> tuple[dict[str, Array], list[str]]:
    """Read arrays of an ``.npz`` file.

    Parameters
    ----------
    path : path
    wanted : callable
        ``wanted(name)`` says whether an array is read.

    Returns
    -------
    arrays : dict of arrays
    names : list of str
        Of all arrays of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, encrypted, compressed by another method than deflate, or holds
        Python objects; or if its arrays do not fit into memory.
    """
    import zipfile  # takes as long as a tenth of NumPy, so not on `import minidl`

    path = as_path(path)
    if path.is_dir():
        raise ValueError("a folder")
    try:
        with path.open("rb") as file:
            start = file.read(6)
            if start == np.lib.format.MAGIC_PREFIX:
                raise ValueError("a single array, not an archive of arrays")
            if start[:3] == bytes([0, 0, 8]):
                raise ValueError(
                    "an IDX file of another name; give its folder, with files named as "
                    "train-images-idx3-ubyte"
                )
            size = os.fstat(file.fileno()).st_size
            with zipfile.ZipFile(file) as archive:
                members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
                arrays = {
                    name: _read_member(archive, member, size)
                    for name, member in members.items()
                    if wanted(name)
                }
        return arrays, list(members)
    except (FileNotFoundError, ValueError):
        raise
    except MemoryError as error:
        raise ValueError(f"does not fit into memory ({error})") from error
    except Exception as error:  # the parsers of zip and npy raise many kinds
        raise ValueError(str(error) or type(error).__name__) from error


def _read_member(archive: Any, member: Any, size: int) -> Array:
    """Read one array of a zip archive that is ``size`` bytes long."""
    import zipfile

    name, content = member.filename, member.file_size
    if member.flag_bits & 1:
        raise ValueError(f"{name} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed by method {member.compress_type}, not by deflate")
    expansion = MAX_EXPANSION if member.compress_type == zipfile.ZIP_DEFLATED else 1
    if member.compress_size > size or content > expansion * member.compress_size:
        raise ValueError(
            f"{name} declares {content} bytes, compressed to {member.compress_size}, in a file "
            f"of {size}"
        )
    with archive.open(member) as file:
        shape, fortran, dtype = _read_header(file, name)
        length = math.prod(shape) * dtype.itemsize
        if content - file.tell() != length:
            raise ValueError(
                f"{name}: expected {length} bytes for shape {shape} and dtype {dtype}, got "
                f"{content - file.tell()}"
            )
        array = np.empty(shape, dtype, order="F" if fortran else "C")
        got = fill(file, array.T if fortran else array)
        if got < length or file.read(1):  # at its end the file compares the checksum
            raise ValueError(f"{name}: expected {length} bytes, got {got}")
    return array


def _read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, order and dtype of an ``.npy`` file."""
    if np.lib.format.read_magic(file) != (1, 0):  # versions 2 and 3 are for structured dtypes
        raise ValueError(f"{name} is not an .npy file of version 1.0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the parser, on odd headers
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in "biufcSUV" or dtype.fields is not None or dtype.itemsize == 0:
        raise ValueError(f"{name}: expected numbers, text or bytes, got dtype {dtype}")
    if min(shape, default=0) < 0:
        raise ValueError(f"{name}: expected a shape, got {shape}")
    return shape, fortran, dtype


class Readable(Protocol):
    """Anything that bytes are read from: a file, a gzip stream, a member of an archive."""

    def read(self, size: int, /) -> bytes: ...


def fill(file: Readable, array: Array) -> int:
    """Read the bytes of a contiguous array from a file, piece by piece; return their number.

    It is less than ``array.nbytes`` if the file ends before.
    """
    memory = array.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(memory) and (piece := file.read(min(_PIECE, len(memory) - done))):
        memory[done : done + len(piece)] = piece
        done += len(piece)
    return done
