"""Explicit randomness: everything random takes ``rng``, and there is no global state."""

from __future__ import annotations

import numpy as np

from minidl.typing import Rng


def as_generator(rng: Rng) -> np.random.Generator:
    """Return the generator itself, or a new one from a seed.

    Parameters
    ----------
    rng : int, SeedSequence or Generator

    Raises
    ------
    TypeError
        If ``rng`` is anything else. None is not allowed, since the run could not be repeated.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (int, np.integer, np.random.SeedSequence)) and not isinstance(rng, bool):
        return np.random.default_rng(rng)
    raise TypeError(f"rng: expected a seed (int) or a numpy.random.Generator, got {rng!r}")
