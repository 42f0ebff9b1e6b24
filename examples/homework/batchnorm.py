"""Batch normalisation, as a layer of one's own."""

from __future__ import annotations

import numpy as np

from minidl.layer import Layer
from minidl.parameter import Parameter
from minidl.typing import Array, Backward


class BatchNorm(Layer):
    """Batch normalisation of each feature (Ioffe and Szegedy 2015).

    forward: ``y = h weight + bias`` with ``h = (x - mean) / sqrt(var + eps)``. In training, mean
    and variance are those of the batch; in inference, running averages.

    backward: ``dh = dy weight``, ``dx = (dh - mean dh - h mean(dh h)) / sqrt(var + eps)`` in
    training, ``dx = dh / sqrt(var + eps)`` in inference; ``dweight = sum dy h``, ``dbias = sum dy``

    The running averages are attributes and no parameters: copies keep them, checkpoints do not.

    Parameters
    ----------
    features : int
    momentum : float
        The weight of a new batch in the running averages.
    eps : float
    """

    def __init__(self, features: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        self.weight = Parameter(np.ones(features, np.float32))
        self.bias = Parameter(np.zeros(features, np.float32))
        self.mean, self.var = np.zeros(features), np.ones(features)
        self.momentum, self.eps = momentum, eps

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        weight, bias, n = self.weight, self.bias, len(x)
        mean, var = self.mean.astype(x.dtype), self.var.astype(x.dtype)
        if train:
            mean, var = x.mean(axis=0), x.var(axis=0)
            unbiased = var * (n / max(n - 1, 1))
            self.mean = (1 - self.momentum) * self.mean + self.momentum * mean
            self.var = (1 - self.momentum) * self.var + self.momentum * unbiased
        scale = 1 / np.sqrt(var + x.dtype.type(self.eps))
        h = (x - mean) * scale

        def backward(dy: Array) -> Array:
            (dy * h).sum(axis=0, out=weight.grad)
            dy.sum(axis=0, out=bias.grad)
            dh = dy * weight.value
            if train:
                dh = dh - dh.mean(axis=0) - h * (dh * h).mean(axis=0)
            dx: Array = dh * scale
            return dx

        return h * weight.value + bias.value, backward

    def __repr__(self) -> str:
        return f"BatchNorm({self.weight.size})"
