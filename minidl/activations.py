"""Elementwise activations. All take arrays of any shape and keep their dtype."""

from __future__ import annotations

import numpy as np

from minidl.arrays import Array, Backward
from minidl.layer import Layer


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

    Computed from ``exp(-|x|)``, which cannot overflow.
    """

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        e = np.exp(-np.abs(x))
        y = np.where(x >= 0, 1, e) / (1 + e)
        return y, lambda dy: dy * (y * (1 - y))


class Quadratic(Layer):
    """forward: ``y = x (1 - x)``; backward: ``dx = dy (1 - 2 x)``."""

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        return x * (1 - x), lambda dy: dy * (1 - 2 * x)
