"""Functions that NumPy lacks, for whole arrays, and how its floating-point errors are taken.

Underflow to 0, overflow to infinity and NaN are results here: they are what IEEE 754 says, guards
look at results, and no ``np.seterr`` of the user changes that. Each door of the library is
``quietly``: training, a forward pass and its backward pass, a loss, a map, an optimizer's step.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any, TypeVar

import numpy as np

from minidl.typing import Array
from minidl.validation import as_floats

F = TypeVar("F", bound=Callable[..., Any])

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let floating-point errors pass in this context, whatever ``np.seterr`` says."""
    if _QUIET.get():
        yield
        return
    token = _QUIET.set(True)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _QUIET.reset(token)


def quietly(function: F) -> F:
    """Decorate a function to run in ``quiet``; inside another one this costs 0.1 microseconds."""

    @wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        if _QUIET.get():
            return function(*args, **options)
        with quiet():
            return function(*args, **options)

    return run  # type: ignore[return-value]


def quiet_passes(forward: F) -> F:
    """Decorate ``forward(...) -> y, backward``: both passes run in ``quiet``.

    Inside of it, ``backward`` is returned as it is, since whoever calls it there is quiet too.
    """

    @wraps(forward)
    def run(*args: Any, **options: Any) -> Any:
        if _QUIET.get():
            return forward(*args, **options)
        with quiet():
            passes = forward(*args, **options)
        if isinstance(passes, tuple) and len(passes) == 2 and callable(passes[1]):
            return passes[0], quietly(passes[1])
        return passes  # not what the contract says; whoever checks it tells

    return run  # type: ignore[return-value]


# The coefficients of (1 + 2z) exp(z^2) erfc(z), z >= 0, in Chebyshev polynomials of
# t = (z - 2.5) / (z + 2.5): the form of M. M. Shepherd and J. G. Laframboise, Mathematics of
# Computation 36 (1981). They were computed in 60 digits from the integrals that define them.
_CHEBYSHEV = (
    1.1771189339755783,
    0.01421274082732332,
    -0.10037710257743795,
    0.04838422197495771,
    -0.012607425531069104,
    0.0016421555334706595,
    5.2927052289800504e-05,
    -5.106088378409827e-05,
    2.371428558502003e-06,
    1.5839410905182581e-06,
    -1.2483958211750847e-07,
    -6.04565732133604e-08,
    4.0925941245210135e-09,
    2.7374094237187243e-09,
    -4.5886933716003754e-11,
    -1.3187750369729465e-10,
    -8.268090806120331e-12,
    5.9379251241790284e-12,
    1.0596357288540175e-12,
    -1.9892259921437084e-13,
    -8.474653109110982e-14,
    -2.518334370166951e-16,
    4.974971993791261e-15,
    7.988345428788568e-16,
    -1.7595071895673927e-16,
)
_TERMS = {np.dtype(np.float32): 12, np.dtype(np.float64): len(_CHEBYSHEV)}


@cache
def erfc_coefficients(dtype: np.dtype[np.floating]) -> tuple[float, ...]:
    """Return the coefficients of the powers of t in ``normal``, highest first, for a dtype."""
    from numpy.polynomial.chebyshev import cheb2poly

    return tuple(map(float, cheb2poly(_CHEBYSHEV[: _TERMS[dtype]])[::-1]))


def normal(x: Array) -> tuple[Array, Array]:
    """Return the distribution function and the density of the standard normal distribution.

    ``cdf(x) = erfc(-x / sqrt 2) / 2``, ``density(x) = exp(-x^2 / 2) / sqrt(2 pi)``

    Parameters
    ----------
    x : array of float32 or float64

    Returns
    -------
    cdf, density : array
        In the dtype of ``x``. In float64 the error of the distribution function is below 4e-16, and
        relative to its value below 5e-15 for ``x > -5``; in float32 3e-7 and 2e-6.
    """
    x = as_floats("normal", "x", x)
    size = np.minimum(np.abs(x), 50)  # beyond, the tail and the density are 0
    z = size * math.sqrt(0.5)
    t = (z - 2.5) / (z + 2.5)
    highest, *rest = erfc_coefficients(x.dtype)
    series = np.full_like(t, highest)
    for coefficient in rest:
        series *= t
        series += coefficient
    exponential = np.exp(-0.5 * np.square(size))
    tail = exponential * series / (2 + 4 * z)
    return np.where(x < 0, tail, 1 - tail), exponential * (1 / math.sqrt(2 * math.pi))


def sigmoid(x: Array) -> Array:
    """Return ``1 / (1 + exp(-x))``, computed from ``exp(-|x|)``, which cannot overflow."""
    e = np.exp(-np.abs(x))
    y: Array = np.where(x >= 0, 1, e) / (1 + e)
    return y
