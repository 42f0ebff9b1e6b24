"""Results of runs, one line of JSON each."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minidl.files import from_json, to_json
from minidl.grid.axes import Point


@dataclass(frozen=True)
class Result:
    """One run: its ``values``, or the ``error`` that ended it.

    ``unsaved`` says why the files of a run that ended could not be written; its values are kept.
    """

    id: str
    point: Point
    values: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0
    unsaved: str | None = None

    @property
    def complete(self) -> bool:
        """Whether the run ended and its files were written."""
        return self.error is None and self.unsaved is None


def exit_status(results: list[Result]) -> int:
    """Return the exit status of a program: 0, 1 if some runs failed, 2 if all did."""
    failed = sum(not r.complete for r in results)
    return 0 if failed == 0 else 2 if failed == len(results) else 1


class UnsavedError(Exception):
    """Raised by a training function that ended but could not write its files."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__("the files of a run could not be written")
        self.values = values


@contextlib.contextmanager
def keeping(values: dict[str, Any]) -> Iterator[None]:
    """Keep the results of a run whose files cannot be written in this context.

    Examples
    --------
    The end of a training function:

    >>> with keeping(figures):
    ...     minidl.checkpoint.save(path, model)
    """
    try:
        yield
    except OSError as error:
        raise UnsavedError(values) from error


def append(file: Path, result: Result) -> None:
    """Write one result as a line at the end of the file and sync it; all of the line or nothing."""
    record = from_json(to_json(asdict(result)))
    line = to_json({**record, "crc32": _checksum(record)}) + "\n"
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        end = os.fstat(handle).st_size
        left = line.encode()
        try:
            while left:
                left = left[os.write(handle, left) :]
            os.fsync(handle)
        except OSError as error:
            os.ftruncate(handle, end)
            raise OSError(error.errno, error.strerror, str(file)) from error
    finally:
        os.close(handle)


def read(file: Path, *, repair: bool = False) -> Iterator[Result]:
    """Yield the recorded runs, without a last line that is not complete.

    Parameters
    ----------
    file : Path
    repair : bool
        Remove such a line from the file. Only for the process that writes the file: others may
        see a line that is being written.

    Raises
    ------
    ValueError
        If a line is not a result, or was changed after it was written.
    """
    if not file.exists():
        return
    text = file.read_bytes()
    complete = text[: text.rfind(b"\n") + 1]
    if repair and complete != text:
        os.truncate(file, len(complete))
    for number, line in enumerate(complete.split(b"\n")[:-1], start=1):
        try:
            yield _parse(line)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{file}, line {number}: not a result, or changed ({error}); delete the line to "
                "train its run again"
            ) from error


def _parse(line: bytes) -> Result:
    record = from_json(line)
    if not isinstance(record, dict):
        raise ValueError(f"expected an object, got {type(record).__name__}")
    checksum = record.pop("crc32", None)
    if checksum != _checksum(record):
        raise ValueError("another crc32")
    return Result(**record)


def _checksum(record: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(record).encode())
