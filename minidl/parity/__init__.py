"""Comparison with PyTorch: the same network in both libraries, step by step.

``compare`` trains copies in both and records every difference; ``fit`` trains with PyTorch;
``to_torch`` and ``from_torch`` convert networks; ``register`` adds a layer of your own.
``python -m minidl.parity`` compares every part of the library.

Only this package imports torch (the extra ``parity``), and only when one of its names is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from minidl.checks import require

if TYPE_CHECKING:
    from minidl.parity.convert import from_torch, register, to_torch
    from minidl.parity.report import ParityReport, compare
    from minidl.parity.torch_model import fit, torch_counterparts

__all__ = [
    "ParityReport", "compare", "fit", "from_torch", "register", "to_torch", "torch_counterparts",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("torch", "parity")
    modules = (
        importlib.import_module(f"{__name__}.{m}") for m in ("convert", "torch_model", "report")
    )
    return next(getattr(module, name) for module in modules if hasattr(module, name))
