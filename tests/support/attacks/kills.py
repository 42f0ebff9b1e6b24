"""Commands that are killed at random moments, and started again until they end."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attacks.common import (
    Tally,
    explained,
    grid_outcome,
    homework_outcome,
    plain_outcome,
    run,
    single_outcome,
    start,
)
from attacks.training import ORDERS


@dataclass(frozen=True)
class Subject:
    """A command; ``outcome(folder)`` is compared with that of an uninterrupted run."""

    script: str
    args: tuple[object, ...]
    outcome: Callable[[Path], object]
    shots: tuple[str, ...] = ("SIGKILL",)


GRID = ("--data", "set.npz", "--widths", 4, 8, "--learning-rates", 0.01, 0.1, "--dropouts", 0, 0.3, "--l2s", 0)  # fmt: skip

SUBJECTS = {
    "width grid": Subject(
        "q2_width.py",
        (*GRID, "--epochs", 40, "--jobs", 2),
        grid_outcome,
        ("SIGKILL", "SIGINT", "SIGTERM", "a worker"),
    ),
    "q1_logistic": Subject(
        "q1_logistic.py",
        ("--data", "set.npz", "--epochs", 60, "--l1", 0.01, "--features", "pca", "--components", 3),
        single_outcome,
        ("SIGKILL", "SIGINT", "SIGTERM"),
    ),
    "q1_mlp": Subject("q1_mlp.py", ("--data", "set.npz", "--epochs", 80), single_outcome),
    "q2_warmup": Subject(
        "q2_warmup.py",
        ("--data", "set.npz", "-epochs", 120, "-dropout", 0.3, "-optimizer", "adam"),
        single_outcome,
    ),
    "homework": Subject(
        "homework_2025.py",
        ("--data", "set.npz", "--full", "--epochs", 40, "--only", "1.1", "1.3"),
        homework_outcome,
        ("SIGKILL", "SIGINT"),
    ),
    **{
        f"{function}, {kind}": Subject(
            "../tests/support/attacks/training.py", (function, kind), plain_outcome
        )
        for function in ("fit", "fit_online")
        for kind in ORDERS
        if not (function == "fit" and kind == "compounding")
    },
}
"""By name."""


def attack(folder: Path, name: str, shot: str, n: int, seed: int = 0) -> Tally:
    """Shoot at a command ``n`` times, each time in a new folder, and compare its outcome."""
    subject, tally, rng = SUBJECTS[name], Tally(f"{name}: {shot}"), random.Random(seed)
    began = time.monotonic()
    straight = run(folder, subject.script, *subject.args, "--out", "straight")
    duration = time.monotonic() - began
    assert straight.returncode == 0, straight.stderr
    expected = subject.outcome(folder / "straight")
    for i in range(n):
        out = f"{shot.replace(' ', '-')}-{i}"
        process = start(folder, subject.script, *subject.args, "--out", out)
        try:
            process.wait(rng.uniform(0.1, 0.95) * duration)
        except Exception:  # still running
            shoot(process, shot)
        stdout, stderr = process.communicate(timeout=600)
        process.stdout, process.stderr = stdout, stderr
        failure = None
        if shot != "SIGKILL":
            process.stderr = stderr.replace("KeyboardInterrupt", "")
            # The signal itself while Python starts or ends, outside the command's own code.
            failure = explained(process, 0, 2, 130, -signal.SIGINT, -signal.SIGTERM)
        again = run(folder, subject.script, *subject.args, "--out", out)
        failure = failure or explained(again, 0)
        if not failure and subject.outcome(folder / out) != expected:
            failure = f"{out}: another outcome"
        tally.count(failure)
    return tally


def shoot(process, shot: str) -> None:
    """Send the signal to the command, or kill one of its worker processes if it has any yet."""
    if shot != "a worker":
        process.send_signal(getattr(signal, shot))
        return
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in children:
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
            import os

            os.kill(int(pid), signal.SIGKILL)
            return
