"""Explicit randomness: everything random takes ``rng``, and there is no global state."""

from __future__ import annotations

import numpy as np

from minidl.typing import Rng


def as_generator(rng: Rng) -> np.random.Generator:
    """The generator itself, or a new one from a seed.

    Parameters
    ----------
    rng : int, SeedSequence or Generator
        ``None`` is refused: a run that nobody can repeat is never what was meant.

    Raises
    ------
    TypeError
        If ``rng`` is None or anything else that is neither a seed nor a generator.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (int, np.integer, np.random.SeedSequence)) and not isinstance(rng, bool):
        return np.random.default_rng(rng)
    raise TypeError(f"rng: expected a seed (int) or a numpy.random.Generator, got {rng!r}")
