"""The folder of a grid: claimed by one set of settings, written by one process at a time.

``grid.json`` has the axes and the settings, ``results.jsonl`` one line for each run that ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minidl.files import from_json, locked, remove_leftovers, to_json, write_text
from minidl.grid.points import Result
from minidl.saving.describe import difference

RECORD = "grid.json"
RESULTS = "results.jsonl"


@contextlib.contextmanager
def claimed(
    record: Path, settings: Mapping[str, Any], axes: Mapping[str, Any], begun: Callable[[], bool]
) -> Iterator[None]:
    """Record settings and axes in a file, and be the only process that does so in this context.

    Other settings are refused while ``begun()`` says that there are results of those recorded; more
    values on an axis are not. The lock ends with its process.

    Raises
    ------
    ValueError
        If the results belong to other axes or settings; names the difference.
    OSError
        If another process holds the lock, or none can; names it.
    """
    record.parent.mkdir(parents=True, exist_ok=True)
    contents = from_json(to_json({"axes": axes, "settings": settings}))
    lock, owner = (record.with_name(f".{record.stem}.{name}") for name in ("lock", "owner"))
    _refuse_other(record, contents, begun)  # other settings are worth more than who writes
    lock.touch()
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(lock))
        except BlockingIOError:
            by = "another process"
            with contextlib.suppress(OSError):
                by = owner.read_text(encoding="utf-8") or by
            text = f"{record.parent} is being written by {by}: wait, or choose another folder"
            raise OSError(f"{text} (its lock is {lock.name})") from None
        remove_leftovers(record.parent)
        with contextlib.suppress(OSError):  # the text is for people; the lock does not need it
            text = f"process {os.getpid()} on {platform.node()}"
            owner.write_text(text, encoding="utf-8", newline="\n")
        if _refuse_other(record, contents, begun) != contents:
            write_text(record, to_json(contents, indent=1) + "\n")
        yield


def _refuse_other(
    record: Path, contents: dict[str, Any], begun: Callable[[], bool]
) -> dict[str, Any] | None:
    """Return what is recorded, None without a record; ValueError if it excludes ``contents``."""
    try:
        recorded = from_json(record.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{record}: cannot be read ({error})") from error
    right = isinstance(recorded, dict) and set(recorded) == {"axes", "settings"}
    right = right and all(isinstance(part, dict) for part in recorded.values())
    if not right or not all(isinstance(values, list) for values in recorded["axes"].values()):
        raise ValueError(
            f"{record}: expected an object with axes and settings, and lists of values as axes"
        )
    try:
        other = _difference(recorded, contents)
    except Exception as error:
        raise ValueError(f"{record}: cannot be compared ({error!r:.200})") from error
    if other and begun():
        raise taken(record.parent, other)
    return dict(recorded)


def _difference(recorded: dict[str, Any], contents: dict[str, Any]) -> str:
    """Return a setting that differs, or an axis that lacks a value; empty if there is none."""
    old, new = recorded["axes"], contents["axes"]
    found = difference(recorded["settings"], contents["settings"]) or ""
    if list(old) != list(new):
        found = found or f"the axes were {', '.join(old)}, now they are {', '.join(new)}"
    for name in old:
        texts = [to_json(v) for v in new[name]]  # by which NaN is equal to NaN
        if not found and not all(v in new[name] or to_json(v) in texts for v in old[name]):
            found = f"{name} was {old[name]!r:.300}, now it is {new[name]!r:.300}"
    return found


def taken(folder: Path, other: str) -> ValueError:
    """Return the error about a folder that holds results of something else."""
    return ValueError(
        f"{folder} holds other results: {other}; choose another folder or delete this one"
    )


# The results.


def kept(folder: Path, *, repair: bool = False) -> dict[str, Result]:
    """Return the runs that ended by their names; complete ones come first.

    ``repair`` as in `read`. Files of shards, which earlier versions wrote, are read too.
    """
    results: dict[str, Result] = {}
    for file in sorted(folder.glob("results*.jsonl")):
        for result in read(file, repair=repair):
            known = results.get(result.id)
            if result.error is None and not (known and known.complete):
                results[result.id] = result
    return results


def read(file: Path, *, repair: bool = False) -> Iterator[Result]:
    """Yield the recorded runs, without a last line that is not complete.

    ``repair`` removes such a line from the file. It is for the process that writes the file alone:
    others may see a line that is being written. ValueError names a line that is not a result, or
    was changed after it was written.
    """
    if not file.exists():
        return
    text = file.read_bytes()
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
            raise ValueError(
                f"{file}, line {number}: not a result, or changed ({error}); delete the line to "
                "train its run again"
            ) from error
        yield result


def append(file: Path, result: Result) -> None:
    """Write one result as a line at the end of the file and sync it; all of the line or nothing."""
    record = from_json(to_json(asdict(result)))
    left = (to_json({**record, "crc32": _checksum(record)}) + "\n").encode()
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        end = os.fstat(handle).st_size
        try:
            while left:
                left = left[os.write(handle, left) :]
            os.fsync(handle)
        except OSError as error:
            os.ftruncate(handle, end)
            raise OSError(error.errno, error.strerror, str(file)) from error
    finally:
        os.close(handle)


def _checksum(record: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(record).encode())
