"""The folder of a grid: claimed by one set of settings, written by one process at a time."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minidl.checks import require
from minidl.files import from_json, remove_leftovers, to_json, write_text
from minidl.grid.points import Result, Shard, read
from minidl.saving.describe import first_difference

RECORD = "grid.json"
RUN = "run.json"
ALL = "results*.jsonl"
WHOLE = "results.jsonl"


@contextlib.contextmanager
def claimed(out: Path, contents: dict[str, Any], shard: Shard | None = None) -> Iterator[Path]:
    """Record axes and settings in ``out/grid.json``, and lock the file of results in this context.

    More values on an axis are accepted, and any change while no run has ended. Shards write
    files of their own, at the same time; a run of the whole grid is alone in the folder. A lock
    ends with its process. A folder with a single run is refused.

    Yields
    ------
    Path
        The file of the results: ``results.jsonl``, or ``results-2-of-4.jsonl`` for a shard.

    Raises
    ------
    ValueError
        If the folder holds runs of other axes or settings; names the difference.
    OSError
        If another process writes there; names it.
    """
    library = require("filelock", "examples")
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    name = f"results-{shard.index}-of-{shard.count}.jsonl" if shard else WHOLE
    contents = from_json(to_json(contents))
    with contextlib.ExitStack() as held:
        with library.FileLock(out / ".claim.lock"):
            recorded = _recorded(out / RECORD)
            other = recorded is not None and _difference(recorded, contents)
            if other and kept(out):
                raise _taken(out, other)
            if (out / RUN).exists() and any(out.glob("*checkpoint*.npz")):
                raise _taken(out, f"those of a single run, see {RUN}")
            _check_free(out, shard=None if other else shard)
            held.enter_context(_lock(out / name))
            if recorded != contents:
                write_text(out / RECORD, to_json(contents, indent=1) + "\n")
        yield out / name


@contextlib.contextmanager
def claimed_by_run(record: Path, settings: Mapping[str, Any], *files: Path) -> Iterator[None]:
    """Record the settings of one run in a file, and lock it in this context.

    ``files`` are what the run keeps: while one of them exists, other settings are refused. A
    folder with results of a grid is refused too.

    Raises
    ------
    ValueError
        If the folder holds a run with other settings; names the difference.
    OSError
        If another process trains there; names it.
    """
    library = require("filelock", "examples")
    record.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(record.parent)
    contents = from_json(to_json({"axes": {}, "settings": settings}))
    with contextlib.ExitStack() as held:
        with library.FileLock(record.parent / ".claim.lock"):
            if kept(record.parent):
                raise _taken(record.parent, f"those of a grid, see {RECORD}")
            recorded = _recorded(record)
            held.enter_context(_lock(record))
            if recorded is not None and any(file.exists() for file in files):
                other = _difference(recorded, contents)
                if other:
                    raise _taken(record.parent, other)
            if recorded != contents:
                write_text(record, to_json(contents, indent=1) + "\n")
        yield


def kept(out: Path, own: Path | None = None) -> dict[str, Result]:
    """Return the runs that ended, of all shards, by their names; complete ones come first.

    ``own`` is the file that this process has locked, if any; a line cut short is removed from it.
    """
    results: dict[str, Result] = {}
    for file in sorted(out.glob(ALL)):
        for result in read(file, repair=file == own):
            known = results.get(result.id)
            if result.error is None and not (known and known.complete):
                results[result.id] = result
    return results


def _taken(out: Path, other: str) -> ValueError:
    return ValueError(
        f"{out} holds other results: {other}; choose another folder or delete this one"
    )


def _recorded(file: Path) -> dict[str, Any] | None:
    """Read ``grid.json``; None if there is none."""
    try:
        record = from_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from error
    parts = record.values() if isinstance(record, dict) else ()
    if not (
        parts and set(record) == {"axes", "settings"} and all(isinstance(p, dict) for p in parts)
    ):
        raise ValueError(f"{file}: expected an object with axes and settings")
    if not all(isinstance(values, list) for values in record["axes"].values()):
        raise ValueError(f"{file}: expected lists of values as axes")
    return dict(record)


def _difference(recorded: dict[str, Any], contents: dict[str, Any]) -> str:
    """Return a setting that differs, or an axis that lacks a value; empty if there is none."""
    old, new = recorded["axes"], contents["axes"]
    found = first_difference(recorded["settings"], contents["settings"])
    if list(old) != list(new):
        found = found or f"the axes were {', '.join(old)}, now they are {', '.join(new)}"
    for name in old:
        texts = [to_json(v) for v in new[name]]  # by which NaN is equal to NaN
        if not found and not all(v in new[name] or to_json(v) in texts for v in old[name]):
            found = f"{name} was {old[name]!r}, now it is {new[name]!r}"
    return found


@contextlib.contextmanager
def _lock(file: Path) -> Iterator[None]:
    """Hold the lock of a file of results."""
    library = require("filelock", "examples")
    owner = _hidden(file, ".owner")
    lock = library.FileLock(_hidden(file, ".lock"))
    try:
        lock.acquire(timeout=0)
    except library.Timeout:
        by = "another process"
        with contextlib.suppress(OSError):
            by = owner.read_text(encoding="utf-8") or by
        raise OSError(f"{file} is being written by {by}: wait, or choose another folder") from None
    try:
        with contextlib.suppress(OSError):  # the text is for people; the lock does not need it
            owner.write_text(
                f"process {os.getpid()} on {platform.node()}", encoding="utf-8", newline="\n"
            )
        yield
    finally:
        lock.release()


def _check_free(out: Path, shard: Shard | None) -> None:
    """Raise OSError if anyone writes, or, for a shard, if someone runs the whole grid."""
    for lock in out.glob(".results.lock" if shard else ".results*.lock"):
        with _lock(out / f"{lock.stem[1:]}.jsonl"):
            pass


def _hidden(file: Path, suffix: str) -> Path:
    return file.with_name(f".{file.stem}{suffix}")
