"""The folder of a grid: claimed by one set of settings, written by one process at a time.

``grid.json`` has the axes and the settings, ``results.jsonl`` one line for each run that ended.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minidl.files import from_json, to_json, write_text
from minidl.grid.points import Result
from minidl.saving.describe import difference

RECORD = "grid.json"
RESULTS = "results.jsonl"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file in this context; BlockingIOError if another process does."""
    with path.open("rb+") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # WebAssembly
            raise OSError(errno.ENOLCK, "no locks on this platform", str(path)) from None
        except OSError as error:
            held = isinstance(error, (BlockingIOError, PermissionError))
            number = errno.EAGAIN if held else error.errno
            raise OSError(number, f"cannot be locked ({error.strerror})", str(path)) from error
        yield


@contextlib.contextmanager
def claimed(
    record: Path, settings: Mapping[str, Any], axes: Mapping[str, Any], begun: Callable[[], bool]
) -> Iterator[None]:
    """Record settings and axes in a file, and be the only process that does so in this context.

    Other settings are a ValueError that names the difference while ``begun()`` says that there are
    results of those recorded; more values on an axis are not. The lock ends with its process;
    OSError if another one holds it, or none can.
    """
    folder, contents = record.parent, from_json(to_json({"axes": axes, "settings": settings}))
    folder.mkdir(parents=True, exist_ok=True)
    lock = record.with_name(f".{record.stem}.lock")
    lock.touch()
    with contextlib.ExitStack() as held:
        free = False
        with contextlib.suppress(BlockingIOError):
            held.enter_context(locked(lock))
            free = True
        other = _other(record, contents)  # other settings are worth more than who writes
        if other and begun():
            raise taken(folder, other)
        if not free:
            text = f"{folder} is being written by another process: wait, or choose another folder"
            raise OSError(f"{text} (its lock is {lock.name})")
        content = to_json(contents, indent=1) + "\n"
        if not record.exists() or record.read_bytes() != content.encode():
            write_text(record, content)
        yield


def _other(record: Path, contents: Mapping[str, Any]) -> str:
    """Return a recorded setting that differs, or an axis that lacks a value; empty without one."""
    if not record.exists():
        return ""
    new = contents["axes"]
    try:
        recorded = from_json(record.read_bytes())
        old = {name: list(values) for name, values in recorded["axes"].items()}
        if other := difference(dict(recorded["settings"]), contents["settings"]):
            return other
    except Exception as error:  # whatever the file holds
        raise ValueError(f"{record}: expected axes and settings ({error!r:.200})") from error
    if list(old) != list(new):
        return f"the axes were {', '.join(old)}, now they are {', '.join(new)}"
    for name, values in old.items():
        if not set(map(repr, values)) <= set(map(repr, new[name])):  # NaN is equal to NaN here
            return f"{name} was {values!r:.300}, now it is {new[name]!r:.300}"
    return ""


def taken(folder: Path, other: str) -> ValueError:
    """Return the error about a folder that holds results of something else."""
    hint = "choose another folder or delete this one"
    return ValueError(f"{folder} holds other results: {other}; {hint}")


def kept(folder: Path, *, repair: bool = False) -> dict[str, Result]:
    """Return the runs that ended by their names; complete ones come first; see `read`."""
    results: dict[str, Result] = {}
    for result in read(folder / RESULTS, repair=repair):
        known = results.get(result.id)
        if result.error is None and not (known and known.complete):
            results[result.id] = result
    return results


def read(file: Path, *, repair: bool = False) -> Iterator[Result]:
    """Yield the recorded runs; ValueError names a line that is no result, or was changed later.

    A last line that is not complete is left out, and removed from the file with ``repair``: only
    for the process that writes it, since others may see a line that is being written.
    """
    text = file.read_bytes() if file.exists() else b""
    complete = text[: text.rfind(b"\n") + 1]
    if repair and complete != text:
        os.truncate(file, len(complete))
    for number, line in enumerate(complete.split(b"\n")[:-1], start=1):
        try:
            record = from_json(line)
            if record.pop("crc32", None) != _checksum(record):
                raise ValueError("another crc32")
            result = Result(**record)
            if not isinstance(result.id, str) or not isinstance(result.values, dict):
                raise TypeError("another type")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            hint = "delete the line to train its run again"
            wrong = f"{file}, line {number}: not a result, or changed ({error}); {hint}"
            raise ValueError(wrong) from error
        yield result


def append(file: Path, result: Result) -> None:
    """Write one result as a line at the end of the file and sync it; all of the line or nothing."""
    record = from_json(to_json(asdict(result)))
    left = (to_json({**record, "crc32": _checksum(record)}) + "\n").encode()
    with file.open("ab", buffering=0) as handle:
        end = handle.tell()
        try:
            while left:
                left = left[handle.write(left) :]
            os.fsync(handle)
        except OSError as error:
            handle.truncate(end)
            raise OSError(error.errno, error.strerror, str(file)) from error


def _checksum(record: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(record).encode())
