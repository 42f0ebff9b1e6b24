"""Arrays that look like parameters, since the output depends on them, but were not checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.state import declared_buffers
from minidl.testing.adapters import Cached
from minidl.testing.gradients import Linearization
from minidl.testing.paths import float_arrays


def unchecked_arrays(at: Linearization) -> tuple[str, ...]:
    """Return the names of plain arrays in the layers whose values change the output.

    Each is changed, and put back. Buffers that a layer declares do not count.
    """
    known = [array for p in at.subject.parameters.values() for array in (p.value, p.grad)]
    known += [array for pair in at.subject.state.arrays.values() for array in pair]
    seen: set[int] = set()
    names: list[str] = []
    for layer in at.subject.layers:
        owner = layer.layer if isinstance(layer, Cached) else layer
        buffers = getattr(layer, "not_learned", None) or declared_buffers(owner) or ()
        for path, array in float_arrays(owner):
            shared = any(np.may_share_memory(array, other) for other in known)
            if shared or id(array) in seen or not array.flags.writeable:
                continue
            seen.add(id(array))
            if path not in buffers and changes_output(at, array):
                names.append(path)
    return tuple(dict.fromkeys(names))


def changes_output(at: Linearization, array: Any) -> bool:
    """Return whether the output is another one with other values in the array."""
    content = array.copy()
    array[...] = 1.1 * content + 0.1
    try:
        y = at.run().y
    except Exception:
        return False
    finally:
        array[...] = content
    return y.shape != at.output.shape or not np.allclose(y, at.output, equal_nan=True)
