"""Timing of several candidates, in turn, in one process, on one thread.

Import this module before NumPy: it limits every library to one thread, and removes
``OPENBLAS_CORETYPE``, so that OpenBLAS chooses its kernels for this processor as PyTorch's
libraries do. Set ``MINIDL_KEEP_CORETYPE=1`` to keep it.
"""

from __future__ import annotations

import os

for _name in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_name}_NUM_THREADS"] = "1"
# JAX reads this when it first starts its CPU client.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
if "MINIDL_KEEP_CORETYPE" not in os.environ and os.environ.pop("OPENBLAS_CORETYPE", ""):
    os.environ.pop("OPENBLAS_L2_SIZE", "")
    print("OPENBLAS_CORETYPE is removed; MINIDL_KEEP_CORETYPE=1 keeps it")

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from minidl.files import write_text


@dataclass(frozen=True)
class Timing:
    """Seconds for one call, or for one part of a call."""

    median: float
    minimum: float


def alternate(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    calls: int,
    parts: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time ``calls`` calls of each candidate in turn, for ``rounds`` rounds after a warm-up.

    If a call repeats its work ``parts`` times, the time is that of one part. The candidates take
    turns because the speed of a shared machine drifts. With ``time.process_time`` as ``clock``, the
    time that other processes take is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for i in range(rounds + 1):
        for name, call in candidates.items():
            since = clock()
            for _ in range(calls):
                call()
            if i:  # the first round warms up caches, allocators and just-in-time compilers
                seconds[name].append((clock() - since) / (calls * parts))
    return {n: Timing(statistics.median(s), min(s)) for n, s in seconds.items()}


def write_json(path: Path, figures: Any) -> None:
    """Write the figures as JSON, with a description of the machine."""
    import torch

    machine = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "blas": [p.get("architecture") for p in threadpool_info()],
        "threads": 1,
    }
    write_text(path, json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")
    print(f"wrote {path}")
