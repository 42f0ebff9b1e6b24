"""Parts of all attacks: commands of the examples, a small data set, and the tally."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples"), str(ROOT / "tests/support")]), "OPENBLAS_NUM_THREADS": "1"}  # fmt: skip
QUIET = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


@dataclass
class Tally:
    """The cases of one kind of fault that were tried, and what went wrong in which."""

    kind: str
    tried: int = 0
    failures: list[str] = field(default_factory=list)

    def count(self, failure: str | None) -> None:
        """Count a case; ``failure`` says what went wrong, None that nothing did."""
        self.tried += 1
        if failure:
            self.failures.append(failure)

    @property
    def survived(self) -> int:
        return self.tried - len(self.failures)


def write_data(folder: Path) -> Path:
    """Write a small data set in the course's format."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 200, (4, 12))
    content = {}
    for part, n in (("train", 400), ("valid", 60), ("test", 60)):
        y = np.resize(np.arange(4), n)
        content[f"X_{part}"] = (centres[y] + rng.integers(0, 56, (n, 12))).astype(np.uint8)
        content[f"y_{part}"] = y + 1
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "set.npz", **content)
    return folder


def start(folder: Path, script: str, *args: object) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "examples" / script), *map(str, args)]
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, **QUIET)


def run(folder: Path, script: str, *args: object) -> subprocess.CompletedProcess:
    process = start(folder, script, *args)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(args, process.returncode, out, err)


def explained(done: subprocess.CompletedProcess, *codes: int) -> str | None:
    """Return a failure unless a command ended with one of the exit statuses, in a line."""
    if "Traceback" in done.stderr:
        return f"a traceback: {done.stderr[-300:]}"
    if done.returncode not in codes:
        return f"exit status {done.returncode}: {done.stderr[-300:]}"
    return None


TIMES = {"seconds", "time", "crc32", "share_of_seconds", "epoch_seconds", "share of seconds"}


def timeless(value):
    """Return a result without the durations in it."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def single_outcome(out: Path) -> object:
    """Return the results of a single run, without durations: figures, records and weights."""
    found = {}
    for file in [*out.glob("*.npz"), *out.glob("*.json"), *out.glob("*.csv")]:
        if file.suffix == ".npz":
            with np.load(file) as archive:
                found[file.name] = {k: v.tobytes() for k, v in archive.items() if k != "meta"}
        elif file.suffix == ".json":
            found[file.name] = timeless(json.loads(file.read_text()))
        else:
            with file.open() as lines:
                found[file.name] = [timeless(row) for row in csv.DictReader(lines)]
    return found


def homework_outcome(out: Path) -> object:
    """Return the results of every question of a homework."""
    return {folder.name: single_outcome(folder) for folder in out.glob("q*")}


def plain_outcome(out: Path) -> object:
    """Return the outcome of ``training.py``."""
    return (out / "outcome.json").read_text()


def grid_outcome(out: Path) -> object:
    """Return the complete runs of a folder and its table, without durations."""
    records = {}
    for file in out.glob("results*.jsonl"):
        for line in file.read_text().splitlines():
            record = timeless(json.loads(line))
            if record["error"] is None and record["unsaved"] is None:
                records[record["id"]] = record
    with (out / "table.csv").open() as file:
        table = [timeless(row) for row in csv.DictReader(file)]
    models = sorted(p.name for p in (out / "models").iterdir())
    return records, table, models
