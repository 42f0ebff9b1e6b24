"""The machine that a run is computed on."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np


def environment() -> dict[str, str | int]:
    """Return the processor, its cores, the system, and the versions that figures depend on.

    ``BLAS`` names the library of the matrix products and its kernels, ``BLAS threads`` the number
    of threads that it takes by default (both need threadpoolctl to be exact).
    """
    blas, threads = _blas()
    return {
        "processor": _processor(),
        "cores": _cores(),
        "system": platform.platform(),
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "minidl": sys.modules["minidl"].__version__,
        "BLAS": blas,
        "BLAS threads": threads,
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _blas() -> tuple[str, int | str]:
    """Return the library of the matrix products with its kernels, and its number of threads."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        build: Any = np.show_config(mode="dicts")
        blas = build["Build Dependencies"]["blas"]
        return f"{blas.get('name', '')} {blas.get('version', '')}".strip(), "not known"
    for pool in threadpool_info():
        if pool["user_api"] == "blas":
            kernels = pool.get("architecture")
            words = f"{pool['internal_api']} {pool['version'] or ''}".strip()
            return words + (f", {kernels} kernels" if kernels else ""), pool["num_threads"]
    return "not known", "not known"
