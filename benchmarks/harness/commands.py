"""Commands in fresh processes: their seconds, and what they print."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import minidl
from harness.threads import pinned

ROOT = Path(__file__).resolve().parents[2]
"""The folder of the project."""

PATHS = os.pathsep.join(map(str, (Path(minidl.__file__).parents[1], ROOT / "benchmarks")))
"""The search path of new processes: the minidl of this process, and the harness."""


def run_python(arguments: Sequence[str], threads: int = 1) -> tuple[float, str]:
    """Return the seconds of a Python process, and its output; RuntimeError if it fails."""
    with pinned(threads):
        since = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env={**os.environ, "PYTHONPATH": PATHS},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - since
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"exit status {done.returncode}: {last}")
    return seconds, done.stdout
