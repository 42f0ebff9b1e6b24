"""Types shared by all modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

Backward = Callable[..., Any]
"""``backward(dy) -> dx``, the backward pass that belongs to one forward pass.

If the layer declares ``skips_input_grad``, it also takes ``input_grad=False`` and returns None.
"""

Rng = Union[int, "np.random.SeedSequence", "np.random.Generator"]
"""A seed or a generator. In quotes, so that ``numpy.random`` is not loaded before it is used."""
