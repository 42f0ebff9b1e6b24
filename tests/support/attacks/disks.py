"""A grid on a small file system that fills up, and is resumed when there is space."""

import contextlib
import shutil
import subprocess
from pathlib import Path

from attacks.common import Tally, explained, grid_outcome, run
from attacks.kills import GRID

ARGS = (*GRID, "--epochs", 3, "--jobs", 2)
SIZES = (4, 8, 16, 24, 40, 64, 96, 128, 192, 224)
"""Kilobytes; a whole run takes about 260."""


@contextlib.contextmanager
def small_disk(where: Path, kilobytes: int):
    """Mount a file system of that size; yields False where that is not allowed."""
    where.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(where)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(where)], check=True)


def attack(folder: Path, sizes: tuple[int, ...] = SIZES) -> Tally | None:
    """Fill a disk of each size; None where none can be mounted."""
    tally = Tally("disk full")
    done = run(folder, "q2_width.py", *ARGS, "--out", "straight")
    assert done.returncode == 0, done.stderr
    expected = grid_outcome(folder / "straight")
    for size in sizes:
        with small_disk(folder / "disk", size) as mounted:
            if not mounted:
                return None
            done = run(folder, "q2_width.py", *ARGS, "--out", "disk/out")
            failure = explained(done, 2)
            if not failure and not ("o space left" in done.stderr and "disk/out" in done.stderr):
                failure = f"{size} kB: {done.stderr[-300:]}"
            shutil.copytree(folder / "disk", folder / f"kept-{size}")
        before = kept(folder / f"kept-{size}/out")
        again = run(folder, "q2_width.py", *ARGS, "--out", f"kept-{size}/out")
        failure = failure or explained(again, 0)
        if not failure and grid_outcome(folder / f"kept-{size}/out") != expected:
            failure = f"{size} kB: another outcome"
        if not failure and not before <= kept(folder / f"kept-{size}/out"):
            failure = f"{size} kB: results were lost"
        tally.count(failure)
    return tally


def kept(out: Path) -> set[str]:
    file = out / "results.jsonl"
    return set(file.read_text().splitlines()) if file.exists() else set()
