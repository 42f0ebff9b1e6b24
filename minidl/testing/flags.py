"""The training flag of an object: an argument of its forward pass, an attribute, or two methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minidl.testing.calling import argument_names
from minidl.testing.paths import look_up, put

TRAINING = ("train", "training", "is_train", "is_training", "train_flg", "train_mode")
EVALUATION = ("eval", "evaluate", "inference", "is_eval", "is_test", "test_mode")
"""Names of flags that are found without being told."""


@dataclass(frozen=True)
class Flag:
    """The training flag of an object: its name, its sense, and its kind. No name: none."""

    name: str = ""
    opposite: bool = False
    kind: str = ""

    def set(self, layer: Any, train: bool) -> dict[str, bool]:
        """Set the flag of a copy, or return it as an argument for ``forward``."""
        value = train != self.opposite
        if self.kind == "argument":
            return {self.name: value}
        if self.kind == "attribute":
            put(layer, self.name, value)
        elif self.kind == "methods":
            (layer.train if train else layer.eval)()
        return {}


def find_flag(layer: Any, forward: Callable[..., Any], told: str | None) -> Flag:
    """Return the flag that the user named, or one with a usual name; ValueError if it is absent."""
    if told is not None:
        names = [(told.removeprefix("not "), told.startswith("not "))]
    else:
        names = [*((n, False) for n in TRAINING), *((n, True) for n in EVALUATION)]
    for name, opposite in names:
        if name in argument_names(forward):
            return Flag(name, opposite, "argument")
    for name, opposite in names:
        try:
            found = look_up(layer, name)
        except LookupError:
            continue
        if told or isinstance(found, bool):
            return Flag(name, opposite, "attribute")
    if told is not None:
        raise ValueError(f"Cached: {type(layer).__name__} has no flag {told!r}")
    if all(callable(getattr(layer, method, None)) for method in ("train", "eval")):
        return Flag("train() and eval()", False, "methods")
    return Flag()
