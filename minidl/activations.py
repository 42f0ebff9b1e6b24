"""Activation layers: elementwise functions, and maps onto the probability simplex along an axis.

All of them take arrays of any shape and keep the dtype.
"""

from __future__ import annotations

import numpy as np

from minidl.layer import Layer
from minidl.simplex import entmax15, relumax, softmax, sparsemax
from minidl.simplex_map import SimplexMap
from minidl.typing import Array, Backward


class ReLU(Layer):
    """forward: ``y = max(x, 0)``; backward: ``dx = dy`` where ``x > 0``, else 0.

    The derivative at 0 is taken as 0, as in PyTorch.
    """

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        y = np.maximum(x, 0)
        return y, lambda dy: dy * (y > 0)


class Tanh(Layer):
    """forward: ``y = tanh(x)``; backward: ``dx = dy (1 - y^2)``."""

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        y = np.tanh(x)
        return y, lambda dy: dy * (1 - y * y)


class Sigmoid(Layer):
    """forward: ``y = 1 / (1 + exp(-x))``; backward: ``dx = dy y (1 - y)``.

    It is computed from ``exp(-|x|)``, which cannot overflow.
    """

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        e = np.exp(-np.abs(x))
        y = np.where(x >= 0, 1, e) / (1 + e)
        return y, lambda dy: dy * (y * (1 - y))


class Quadratic(Layer):
    """forward: ``y = x (1 - x)``; backward: ``dx = dy (1 - 2 x)``."""

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        return x * (1 - x), lambda dy: dy * (1 - 2 * x)


class Simplex(Layer):
    """A map onto the probability simplex as a layer.

    forward: ``y = map(x)`` along ``axis``; backward: ``dx = J^T dy``, from ``y`` alone

    Where the largest entry of a row is not finite, all of the row's outputs are NaN.

    Parameters
    ----------
    map : SimplexMap
        One of ``minidl.simplex``, or your own.
    axis : int
        The axis of the classes.
    """

    def __init__(self, map: SimplexMap, axis: int = -1) -> None:
        self.map, self.axis = map, axis

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        y = self.map(x, self.axis, check_finite=False)
        return y, lambda dy: self.map.vjp(y, dy, self.axis)

    def __repr__(self) -> str:
        axis = "" if self.axis == -1 else f", axis={self.axis}"
        return f"Simplex({self.map!r}{axis})"


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
