"""Types that all modules share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

Backward = Callable[..., Any]
"""``backward(dy) -> dx``: pulls a cotangent back through one forward pass.

That of a layer with ``skips_input_grad`` also takes ``input_grad=False``; it then returns None.
"""

Rng: TypeAlias = "int | np.random.SeedSequence | np.random.Generator"
"""A seed or a generator. In quotes, since ``import numpy`` alone does not load ``numpy.random``."""
