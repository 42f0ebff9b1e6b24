"""Suggestions for objects that do not keep the layer contract: the adapter that would fit."""

from __future__ import annotations

from typing import Any

import numpy as np

FORWARD = ("forward", "forward_pass", "forward_prop", "fprop", "__call__")
BACKWARD = ("backward", "backward_pass", "backward_prop", "backprop", "bprop")


def suggestion(layer: Any) -> str:
    """Return ``"; or try: Cached(...)"`` if the object looks as if an adapter would fit."""
    found = adapter_for(layer)
    return f"; or try: {found}" if found else ""


def adapter_for(layer: Any) -> str:
    """Return the line of code with the adapter that would fit, empty if none does."""
    names = [
        next((n for n in known if callable(getattr(layer, n, None))), "")
        for known in (FORWARD, BACKWARD)
    ]
    name = type(layer).__name__
    if all(callable(getattr(layer, n, None)) for n in ("loss", "gradient")):
        return "check_loss(AdaptedLoss(loss.loss, loss.gradient), x, y)"
    if not all(names):
        return ""
    arguments = [f"{name}(...)", *_parameters(vars(layer) if hasattr(layer, "__dict__") else {})]
    arguments += [
        f'{option}="{found}"'
        for option, found in zip(("forward", "backward"), names, strict=True)
        if found != option
    ]
    return f"Cached({', '.join(arguments)})"


def _parameters(attributes: dict[str, Any]) -> list[str]:
    for params, grads in (("params", "grads"), ("parameters", "gradients")):
        if params in attributes and grads in attributes:
            return [f'params="{params}"', f'grads="{grads}"']
    arrays = [
        key
        for key, v in attributes.items()
        if isinstance(v, np.ndarray) and v.dtype.kind == "f" and not key.startswith(("d", "grad"))
    ]
    pairs = []
    for key in arrays:
        known = (f"d{key}", f"d_{key}", f"grad_{key}", f"{key}_grad")
        pairs.append(f'{key}="{next((k for k in known if k in attributes), f"d{key}")}"')
    return pairs
