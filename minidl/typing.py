"""Types shared by all modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, Union, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

Backward = Callable[..., Any]
"""``backward(dy) -> dx``, the backward pass that belongs to one forward pass.

If the layer declares ``skips_input_grad``, it also takes ``input_grad=False`` and returns None.
"""

Rng = Union[int, "np.random.SeedSequence", "np.random.Generator"]
"""A seed or a generator. In quotes, so that ``numpy.random`` is not loaded before it is used."""


@runtime_checkable
class Stateful(Protocol):
    """Anything whose state decides the rest of a run: a callback, an order of the examples."""

    def state(self) -> dict[str, Any]:
        """Return arrays, and values as JSON takes them, by name."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Set what ``state`` returned."""
