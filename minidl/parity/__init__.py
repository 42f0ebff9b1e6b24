"""Standing beside PyTorch: the same network in both libraries, step by step.

The only part that imports torch (the ``parity`` extra), and not before one of its names is
used, so that what is missing can be said in one line.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from minidl.validation import require

if TYPE_CHECKING:
    from minidl.parity.convert import from_torch, to_torch
    from minidl.parity.lockstep import compare
    from minidl.parity.pytorch import twin
    from minidl.parity.report import ParityReport
    from minidl.parity.training import fit

__all__ = ["ParityReport", "compare", "fit", "from_torch", "to_torch", "twin"]

_MODULES = {
    "ParityReport": "report",
    "compare": "lockstep",
    "fit": "training",
    "from_torch": "convert",
    "to_torch": "convert",
    "twin": "pytorch",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("torch", "parity")
    return getattr(importlib.import_module(f"minidl.parity.{_MODULES[name]}"), name)
