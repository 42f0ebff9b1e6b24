"""Two commands that start together in one folder: one writes it, or both the same."""

from pathlib import Path

from attacks.common import Tally, explained, grid_outcome, run, start
from attacks.kills import GRID

ARGS = (*GRID, "--epochs", 5, "--jobs", 1)


def attack(folder: Path, n: int) -> Tally:
    """Start ``n`` pairs, by turns with the same and with another seed."""
    tally = Tally("two commands, one folder")
    for seed in (42, 7):
        done = run(folder, "q2_width.py", *ARGS, "--seed", seed, "--out", f"straight-{seed}")
        assert done.returncode == 0, done.stderr
    outcomes = {seed: grid_outcome(folder / f"straight-{seed}") for seed in (42, 7)}
    for i in range(n):
        seeds = (42, 42 if i % 2 else 7)
        pair = [start(folder, "q2_width.py", *ARGS, "--seed", s, "--out", f"pair-{i}") for s in seeds]  # fmt: skip
        failure, ended = None, []
        for seed, process in zip(seeds, pair, strict=True):
            process.stdout, process.stderr = process.communicate(timeout=600)
            failure = failure or explained(process, 0, 2)
            ended += [seed] if process.returncode == 0 else []
            refused = "is being written by" in process.stderr or "holds other" in process.stderr
            if process.returncode == 2 and not refused:
                failure = failure or f"pair {i}: {process.stderr[-200:]}"
        if not failure and len(set(ended)) != 1:
            failure = f"pair {i}: seeds that ended: {ended}"
        if not failure and grid_outcome(folder / f"pair-{i}") != outcomes[ended[0]]:
            failure = f"pair {i}: a mixed outcome"
        tally.count(failure)
    return tally
