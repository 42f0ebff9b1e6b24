"""The machine that a run is computed on, and the sessions in which a folder was computed.

A folder of results has one line of JSON for each session of a script in ``sessions.jsonl``. They
say where and when, and are never compared when a run resumes: another machine may go on with it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import minidl
from minidl.files import from_json, to_json

SESSIONS = "sessions.jsonl"
LARGEST = 4_000_000
"""The size of a file of sessions, in bytes, at most."""
_KINDS: dict[str, type] = {
    **dict.fromkeys(("environment", "data", "settings"), dict),
    **dict.fromkeys(("started", "command", "program", "record"), str),
}


def environment() -> dict[str, str | int]:
    """Return the processor, its cores, the system, and the versions that figures depend on.

    ``BLAS`` names the library of the matrix products and its kernels, ``BLAS threads`` the number
    of threads that it takes by default (both need threadpoolctl).
    """
    processor, pools = platform.processor() or platform.machine(), list[dict[str, Any]]()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        processor = next(named, processor)
    with contextlib.suppress(ImportError):
        from threadpoolctl import threadpool_info

        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    blas, threads = "not known", "not known"
    if pools:
        pool = next((p for p in pools if "numpy" in p["filepath"]), pools[0])  # SciPy has its own
        blas, threads = (
            f"{pool['internal_api']} {pool['version'] or ''}".strip(),
            pool["num_threads"],
        )
        blas += f", {pool['architecture']} kernels" if pool.get("architecture") else ""
    return {
        "processor": processor,
        "cores": cores(),
        "system": platform.platform(),
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "minidl": minidl.__version__,
        "BLAS": blas,
        "BLAS threads": threads,
    }


def cores() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def session(folder: Path, *files: Path, note: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Add a line to ``folder/sessions.jsonl`` at the end of this context.

    The line has the start (UTC), the seconds, whether the context ended without an error or
    Ctrl-C, the command, the first line of the program's docstring, the environment, and ``note``.
    It is left out if none of ``files`` changed, where there are any, since then nothing was
    computed, and if it cannot be written: results do not depend on it.
    """

    def states() -> list[tuple[int, int]]:
        stats = [file.stat() for file in files if file.exists()]
        return [(s.st_size, s.st_mtime_ns) for s in stats]

    before, start, ended = states(), time.time(), False
    try:
        yield
        ended = True
    finally:
        with contextlib.suppress(OSError, ValueError):  # a full disk; a line that was changed
            known = sessions(folder)
            late = ended and not (known and known[-1]["ended"])  # stopped when all was computed
            if not files or states() != before or late:
                program = sys.modules["__main__"].__doc__ or ""
                line = {
                    "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)),
                    "seconds": round(time.time() - start, 3),
                    "ended": ended,
                    "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
                    "program": program.strip().partition("\n")[0],
                    "environment": environment(),
                    **(note or {}),
                }
                with (folder / SESSIONS).open("ab", buffering=0) as file:  # in one piece
                    file.write(f"{to_json(line)}\n".encode())


def sessions(folder: Path) -> list[dict[str, Any]]:
    """Return the sessions of a folder, the first one first; a line that is cut short is left out.

    A line that is not a session is a ValueError that names it.
    """
    file, found = folder / SESSIONS, []
    if not file.is_file():
        return []
    if file.stat().st_size > LARGEST:
        raise ValueError(f"{file}: expected at most {LARGEST:,} bytes")
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], start=1):
        try:
            one = from_json(line)
            kinds = all(isinstance(one.get(k, kind()), kind) for k, kind in _KINDS.items())
            examples = one.get("data", {}).get("examples", {}).values()
            seconds = float(one["seconds"])
            if not (kinds and all(isinstance(n, int) for n in examples) and 0 <= seconds < 1e12):
                raise ValueError("expected texts, objects, whole numbers and seconds")
            found.append({**one, "ended": bool(one["ended"]), "seconds": seconds})
        except Exception as error:
            raise ValueError(f"{file}, line {number}: not a session ({error!r:.200})") from error
    return found
