"""The machine and the versions of the libraries, for the results."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from typing import Any

from harness.commands import ROOT

sys.path.append(str(ROOT / "examples"))  # the scripts note the same about a machine
from homework import sessions

PACKAGES = ("torch", "jax", "jaxlib", "scikit-learn", "entmax")


def load() -> float | None:
    """Return the load average of the last minute, where the system has one."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def environment() -> dict[str, Any]:
    """Return the machine, the commit, and the versions of the contestants."""
    return {
        **sessions.environment(),
        "commit": commit(),
        **{name: version(name) for name in PACKAGES},
    }


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
