"""A Dask cluster on this machine that loses a worker: the same table."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from attacks.common import ENVIRONMENT, Tally, explained, grid_outcome, run, start
from attacks.kills import GRID

ARGS = (*GRID, "--epochs", 40)


def expected(folder: Path) -> object:
    if not (folder / "straight").exists():
        done = run(folder, "q2_width.py", *ARGS, "--jobs", 1, "--out", "straight")
        assert done.returncode == 0, done.stderr
    return grid_outcome(folder / "straight")


def dask(folder: Path) -> Tally:
    """Run on a scheduler with two workers, and kill one of them half way."""
    tally, right = Tally("Dask, a worker killed"), expected(folder)
    log = folder / "scheduler.log"
    processes = []
    elsewhere = folder / "elsewhere"  # a worker knows nothing of the command's folder
    elsewhere.mkdir()
    try:
        with log.open("w") as file:
            processes.append(dask_process(folder, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", stderr=file))  # fmt: skip
        deadline = time.monotonic() + 60
        while not (found := re.search(r"tcp://(127.0.0.1:\d+)", log.read_text())):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for _ in range(2):
            processes.append(dask_process(elsewhere, "worker", f"tcp://{found[1]}", "--nthreads", "1", "--no-nanny", "--no-dashboard"))  # fmt: skip
        command = start(folder, "q2_width.py", *ARGS, "--out", "dask", "--executor", f"dask://{found[1]}")  # fmt: skip
        results = folder / "dask/results.jsonl"
        while not results.exists() and command.poll() is None:
            time.sleep(0.02)
        processes[1].send_signal(signal.SIGKILL)
        command.stdout, command.stderr = command.communicate(timeout=600)
        failure = explained(command, 0)
        if not failure and grid_outcome(folder / "dask") != right:
            failure = "another outcome"
        tally.count(failure)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return tally


def dask_process(cwd: Path, kind: str, *args: str, stderr=subprocess.DEVNULL):
    command = [sys.executable, "-m", "distributed.cli.dask_" + kind, *args]
    return subprocess.Popen(
        command, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=stderr
    )
