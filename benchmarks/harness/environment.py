"""The machine and the versions of the libraries, for the results."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

import minidl
from harness.commands import ROOT
from harness.threads import cores

PACKAGES = ("numpy", "torch", "jax", "jaxlib", "scikit-learn", "entmax")


def load() -> float | None:
    """Return the load average of the last minute, where the system has one."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def environment() -> dict[str, Any]:
    """Return processor, kernels of the matrix products, and versions."""
    return {
        "processor": processor(),
        "cores": cores(),
        "kernels": kernels(),
        "python": platform.python_version(),
        "system": platform.system(),
        "minidl": minidl.__version__,
        "commit": commit(),
        **{name: version(name) for name in PACKAGES},
    }


def kernels() -> list[str]:
    """Return the processors for which OpenBLAS has chosen its kernels."""
    return sorted({str(p["architecture"]) for p in threadpool_info() if "architecture" in p})


def processor() -> str:
    """Return the name of the processor."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def version(package: str) -> str | None:
    """Return the version of an installed package, else None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Return the last commit that changed the library, marked if files differ; None without git."""
    last = git("log", "-1", "--format=%h", "--abbrev=8", "--", "minidl")
    return f"{last}, changed" if last and git("status", "--porcelain", "--", "minidl") else last


def git(*arguments: str) -> str | None:
    """Return the output of git, or None where there is none."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None
