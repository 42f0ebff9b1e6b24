"""Activation layers: elementwise functions, and maps onto the probability simplex along an axis.

All of them take arrays of any shape and keep the dtype.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from minidl.checks import Array, Backward, as_floats, check_choice, check_float, check_int
from minidl.layer import Layer
from minidl.maps import SimplexMap, entmax15, relumax, softmax, sparsemax

# The coefficients of (1 + 2z) exp(z^2) erfc(z), z >= 0, in Chebyshev polynomials of
# t = (z - 2.5) / (z + 2.5): the form of M. M. Shepherd and J. G. Laframboise, Mathematics of
# Computation 36 (1981). They were computed in 60 digits from the integrals that define them.
_CHEBYSHEV = """
         1.1771189339755783     0.01421274082732332    -0.10037710257743795     0.04838422197495771
      -0.012607425531069104   0.0016421555334706595  5.2927052289800504e-05  -5.106088378409827e-05
      2.371428558502003e-06  1.5839410905182581e-06 -1.2483958211750847e-07   -6.04565732133604e-08
     4.0925941245210135e-09  2.7374094237187243e-09 -4.5886933716003754e-11 -1.3187750369729465e-10
     -8.268090806120331e-12  5.9379251241790284e-12  1.0596357288540175e-12 -1.9892259921437084e-13
     -8.474653109110982e-14  -2.518334370166951e-16   4.974971993791261e-15   7.988345428788568e-16
    -1.7595071895673927e-16
"""
_MOST_AXES = 64  # of an array of NumPy
_TERMS = {np.dtype(np.float32): 12, np.dtype(np.float64): 25}


@cache
def erfc_coefficients(dtype: np.dtype[np.floating]) -> tuple[float, ...]:
    """Return the coefficients of the powers of t in ``normal``, highest first."""
    from numpy.polynomial.chebyshev import cheb2poly

    coefficients = list(map(float, _CHEBYSHEV.split()))[: _TERMS[dtype]]
    return tuple(map(float, cheb2poly(coefficients)[::-1]))


def normal(x: Array) -> tuple[Array, Array]:
    """Return the distribution function and the density of the standard normal distribution.

    ``cdf(x) = erfc(-x / sqrt 2) / 2``, ``density(x) = exp(-x^2 / 2) / sqrt(2 pi)``, in the dtype
    of ``x``, float32 or float64. In float64 the error of the distribution function is below 4e-16,
    and relative to its value below 5e-15 for ``x > -5``; in float32 3e-7 and 2e-6.
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


class ReLU(Layer):
    """forward: ``y = max(x, 0)``; backward: ``dx = dy`` where ``x > 0``, else 0.

    The derivative at 0 is taken as 0, as in PyTorch.
    """

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        x = as_floats(self, "x", x)
        y = np.maximum(x, 0)
        return y, lambda dy: dy * (y > 0)


class Tanh(Layer):
    """forward: ``y = tanh(x)``; backward: ``dx = dy (1 - y^2)``."""

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        x = as_floats(self, "x", x)
        y = np.tanh(x)
        return y, lambda dy: dy * (1 - y * y)


class Sigmoid(Layer):
    """forward: ``y = 1 / (1 + exp(-x))``; backward: ``dx = dy y (1 - y)``."""

    gives_probabilities = True

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        x = as_floats(self, "x", x)
        y = sigmoid(x)
        return y, lambda dy: dy * (y * (1 - y))


class LeakyReLU(Layer):
    """ReLU with a slope for negative inputs (Maas, Hannun and Ng 2013).

    forward: ``y = x`` where ``x > 0``, else ``slope x``

    backward: ``dx = dy`` where ``x > 0``, else ``slope dy``; so at 0 as in PyTorch
    """

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = check_float("LeakyReLU", "slope", slope)

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        x = as_floats(self, "x", x)
        factor = np.where(x > 0, x.dtype.type(1), x.dtype.type(self.slope))
        return x * factor, lambda dy: dy * factor


class ELU(Layer):
    """The exponential linear unit (Clevert, Unterthiner and Hochreiter 2016).

    forward: ``y = x`` where ``x > 0``, else ``alpha (exp(x) - 1)``

    backward: ``dx = dy`` where ``x > 0``, else ``dy alpha exp(x)``; so ``dy alpha`` at 0
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = check_float("ELU", "alpha", alpha, low=0)

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        x = as_floats(self, "x", x)
        positive = x > 0
        below = self.alpha * np.expm1(np.minimum(x, 0))
        y = np.where(positive, x, below)
        return y, lambda dy: dy * np.where(positive, 1, below + self.alpha)


class Softplus(Layer):
    """forward: ``y = log(1 + exp(x))``; backward: ``dx = dy / (1 + exp(-x))``.

    Both are computed from ``exp(-|x|)``, which cannot overflow.
    """

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        x = as_floats(self, "x", x)
        e = np.exp(-np.abs(x))
        y = np.maximum(x, 0) + np.log1p(e)
        return y, lambda dy: dy * (np.where(x >= 0, 1, e) / (1 + e))


class SiLU(Layer):
    """The sigmoid linear unit, also called swish (Elfwing, Uchibe and Doya 2018).

    forward: ``y = x s`` with ``s = 1 / (1 + exp(-x))``; backward: ``dx = dy (s + y (1 - s))``
    """

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        x = as_floats(self, "x", x)
        s = sigmoid(x)
        y = x * s
        return y, lambda dy: dy * (s + y * (1 - s))


class GELU(Layer):
    """The Gaussian error linear unit (Hendrycks and Gimpel 2016).

    forward: ``y = x cdf(x)``, with the distribution function of the standard normal distribution

    backward: ``dx = dy (cdf(x) + x density(x))``

    With ``approximate="tanh"``, ``y = x (1 + t) / 2`` with ``t = tanh(u)``,
    ``u = sqrt(2 / pi) (x + 0.044715 x^3)``; backward ``dx = dy ((1 + t) + x (1 - t^2) du/dx) / 2``
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = check_choice("GELU", "approximate", approximate, ("none", "tanh"))

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        x = as_floats(self, "x", x)
        if self.approximate == "none":
            cdf, density = normal(x)
            return x * cdf, lambda dy: dy * (cdf + x * density)
        a, square = math.sqrt(2 / math.pi), x * x
        t = np.tanh(a * x * (1 + 0.044715 * square))

        def backward(dy: Array) -> Array:
            du = a * (1 + 3 * 0.044715 * square)
            dx: Array = dy * (0.5 * ((1 + t) + x * (1 - t * t) * du))
            return dx

        return 0.5 * x * (1 + t), backward


class Quadratic(Layer):
    """forward: ``y = x (1 - x)``; backward: ``dx = dy (1 - 2 x)``."""

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        x = as_floats(self, "x", x)
        return x * (1 - x), lambda dy: dy * (1 - 2 * x)


class Simplex(Layer):
    """A map onto the probability simplex as a layer.

    forward: ``y = map(x)`` along ``axis``; backward: ``dx = J^T dy``, from ``y`` alone

    Where the largest entry of a row is not finite, all of the row's outputs are NaN.
    """

    gives_probabilities = True

    def __init__(self, map: SimplexMap, axis: int = -1) -> None:
        if not isinstance(map, SimplexMap):
            raise TypeError(f"Simplex: expected map to be a SimplexMap, got {map!r}")
        self.map, self.axis = map, check_int(type(self).__name__, "axis", axis, low=-_MOST_AXES)

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        y = self.map(x, self.axis, check_finite=False)
        return y, lambda dy: self.map.vjp(y, dy, self.axis)


class Softmax(Simplex):
    """``y = softmax(x)``; backward: ``dx = y (dy - <dy, y>)``."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__(softmax, axis)


class Sparsemax(Simplex):
    """``y = sparsemax(x)``; backward: ``dx = dy - mean_S dy`` where ``y > 0``, else 0."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__(sparsemax, axis)


class Entmax15(Simplex):
    """``y = entmax15(x)``; backward: ``dx = r (dy - <dy, r> / sum r)``, ``r = sqrt y``."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__(entmax15, axis)


class Relumax(Simplex):
    """``y = relumax(b)(x)``; backward: ``dx = h - (sum h) e_m``, as derived in ``relumax``."""

    def __init__(self, b: float, axis: int = -1) -> None:
        super().__init__(relumax(b), axis)
