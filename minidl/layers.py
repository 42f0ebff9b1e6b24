"""Layers with parameters, randomness or inner layers, and layers that change the shape."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minidl.checks import (
    Array,
    Backward,
    Rng,
    as_array,
    as_dtype,
    as_generator,
    check_float,
    check_int,
)
from minidl.init import Init, uniform_fan_in
from minidl.layer import Layer, Sequential, check_input
from minidl.parameter import Parameter


class Linear(Layer):
    """An affine map of the features.

    forward: ``y = x W + b``

    backward: ``dW = x^T dy``, ``db = sum_n dy_n``, ``dx = dy W^T``

    Parameters
    ----------
    in_features, out_features : int
        ``x`` is ``(n, in_features)``, ``y`` is ``(n, out_features)``.
    bias : bool
        Whether to add ``b``.
    weight_init, bias_init : Init
        By default uniform within ``1/sqrt(in_features)``, as in PyTorch.
    rng : int or Generator, optional
        Draws the initial values. Not needed in a ``Sequential``, which draws them with its own.
    dtype : float32 (default) or float64, optional

    Attributes
    ----------
    weight : Parameter, shape (in_features, out_features)
    bias : Parameter, shape (out_features,), or None
    """

    skips_input_grad = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        weight_init: Init = uniform_fan_in,
        bias_init: Init = uniform_fan_in,
        rng: Rng | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        dtype = None if dtype is None else as_dtype("Linear", dtype)
        self.in_features = i = check_int("Linear", "in_features", in_features)
        self.out_features = o = check_int("Linear", "out_features", out_features)

        def drawn(name: str, init: Init, *shape: int) -> Parameter:
            if not callable(init) or isinstance(init, type):
                raise TypeError(f"Linear: expected {name} to be a function, got {init!r}")
            return Parameter.drawn(shape, partial(init, shape=shape, fan_in=i, fan_out=o), dtype)

        self.weight = drawn("weight_init", weight_init, i, o)
        self.bias = drawn("bias_init", bias_init, o) if bias else None
        if rng is not None:
            self.initialize(rng, dtype)

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        weight, bias = self.weight, self.bias
        x = check_input(self, x, self.in_features, weight.value)
        y = np.dot(x, weight.value)
        if bias is not None:
            y += bias.value

        def backward(dy: Array, input_grad: bool = True) -> Array | None:
            np.dot(x.T, dy, out=weight.grad)
            if bias is not None:
                dy.sum(axis=0, out=bias.grad)
            return np.dot(dy, weight.value.T) if input_grad else None

        return y, backward

    def config(self) -> dict[str, Any]:
        """Return the arguments by name; ``bias`` as the layer has it."""
        return {**super().config(), "bias": self.bias is not None}


class Dropout(Layer):
    """Set entries to zero at random in training (inverted dropout, Srivastava et al. 2014).

    forward, training: ``y = m * x``, ``m_i = 0`` with probability ``p``, else ``1/(1-p)``

    backward: ``dx = m * dy``, with the same mask

    In inference, and for ``p = 0``, it is the identity; ``p = 1`` gives zeros. Any shape. ``rng``
    draws the masks; it is not needed in a ``Sequential``, which gives each layer its own stream.
    """

    def __init__(self, p: float = 0.5, *, rng: Rng | None = None) -> None:
        self.p = check_float("Dropout", "p", p, low=0, high=1)
        self.rng = None if rng is None else as_generator(rng)

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        if not train or self.p == 0:
            return x, lambda dy: dy
        if self.rng is None:
            raise ValueError(f"{self!r}: needs rng= to train, in the layer or in its Sequential")
        x = as_array(self, "x", x)
        if x.dtype.kind != "f":
            raise TypeError(f"{self!r}: expected x of floats, got {x.dtype}")
        # Drawn in float32 for both dtypes: half the cost, and the same masks in both.
        keep = self.rng.random(x.shape, dtype=np.float32) >= self.p
        mask = keep * x.dtype.type(1 / (1 - self.p) if self.p < 1 else 0)
        return x * mask, lambda dy: dy * mask


def _normalized(
    layer: LayerNorm | BatchNorm, h: Array, scale: Array, axis: int | None
) -> tuple[Array, Backward]:
    """Return ``h * weight + bias`` and its backward pass to ``x``, where ``h = scale (x - mean)``.

    Mean and scale are those of ``x`` along ``axis``; constants if that is None.
    """
    weight, bias = layer.weight, layer.bias

    def backward(dy: Array, input_grad: bool = True) -> Array | None:
        (dy * h).sum(axis=0, out=weight.grad)
        dy.sum(axis=0, out=bias.grad)
        if not input_grad:
            return None
        dh = dy * weight.value
        if axis is not None:
            along_h = h * (dh * h).mean(axis=axis, keepdims=True)
            dh = dh - dh.mean(axis=axis, keepdims=True) - along_h
        return np.asarray(scale * dh)

    return h * weight.value + bias.value, backward


class LayerNorm(Layer):
    """Normalise each example over its features (Ba, Kiros and Hinton 2016).

    forward: ``h = (x - mean(x)) / sqrt(var(x) + eps)``, ``y = h * weight + bias``

    backward: ``dweight = sum_n dy h``, ``dbias = sum_n dy``, and with ``dh = dy * weight``
    ``dx = (dh - mean(dh) - h mean(dh h)) / sqrt(var(x) + eps)``

    ``x`` and ``y`` are ``(n, features)``; ``weight`` and ``bias`` are parameters ``(features,)``,
    initially ones and zeros, of ``dtype`` float32 (default) or float64.
    """

    skips_input_grad = True

    def __init__(self, features: int, *, eps: float = 1e-5, dtype: DTypeLike | None = None) -> None:
        dtype = as_dtype("LayerNorm", np.float32 if dtype is None else dtype)
        self.in_features = check_int("LayerNorm", "features", features)
        self.eps = check_float("LayerNorm", "eps", eps, low=0, open_low=True)
        self.weight = Parameter(np.ones(features, dtype))
        self.bias = Parameter(np.zeros(features, dtype))

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        x = check_input(self, x, self.in_features, self.weight.value)
        centred = x - x.mean(axis=1, keepdims=True)
        scale = 1 / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + self.eps)
        return _normalized(self, centred * scale, scale, axis=1)


class BatchNorm(Layer):
    """Normalise each feature over the batch (Ioffe and Szegedy 2015), as ``torch.nn.BatchNorm1d``.

    forward: ``h = (x - mean) / sqrt(var + eps)``, ``y = h * weight + bias``. In training, mean and
    variance (with divisor n) are those of the batch; in inference, the running ones.

    backward: ``dweight = sum_n dy h``, ``dbias = sum_n dy``, and with ``dh = dy * weight``
    ``dx = (dh - mean(dh) - h mean(dh h)) / sqrt(var + eps)`` in training, with means over the
    batch; ``dx = dh / sqrt(var + eps)`` in inference

    In training, ``running = (1 - momentum) running + momentum batch``, the variance with n - 1.

    ``weight`` and ``bias`` are parameters ``(features,)``, initially ones and zeros; the buffers
    ``running_mean`` and ``running_var``, ``(features,)``, and ``num_batches_tracked`` are initially
    zeros, ones and zero.

    Parameters
    ----------
    features : int
        ``x`` and ``y`` are ``(n, features)``; in training n is not 1.
    momentum : float in [0, 1], or None
        The weight of a new batch in the running mean and variance. With None they are the means
        over all batches so far.
    eps : float
    dtype : float32 (default) or float64, optional
    """

    skips_input_grad = True
    buffers = ("running_mean", "running_var", "num_batches_tracked")

    def __init__(
        self,
        features: int,
        *,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        dtype: DTypeLike | None = None,
    ) -> None:
        dtype = as_dtype("BatchNorm", np.float32 if dtype is None else dtype)
        self.in_features = check_int("BatchNorm", "features", features)
        if momentum is not None:
            momentum = check_float("BatchNorm", "momentum", momentum, low=0, high=1)
        self.momentum = momentum
        self.eps = check_float("BatchNorm", "eps", eps, low=0, open_low=True)
        self.weight = Parameter(np.ones(features, dtype))
        self.bias = Parameter(np.zeros(features, dtype))
        self.running_mean = np.zeros(features, dtype)
        self.running_var = np.ones(features, dtype)
        self.num_batches_tracked = np.array(0)

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        x = check_input(self, x, self.in_features, self.weight.value)
        n = len(x)
        if train and n == 1:
            want = "more than one example to train, as batch_size must leave in the last batch"
            raise ValueError(f"{self!r}: expected {want}, got x {x.shape}")
        if train and n:
            mean = x.mean(axis=0)
            centred = x - mean
            var = np.square(centred).mean(axis=0)
            self._track(mean, var * (n / (n - 1)))
        else:
            centred, var = x - self.running_mean, self.running_var
        scale = 1 / np.sqrt(var + self.eps)
        return _normalized(self, centred * scale, scale, axis=0 if train and n else None)

    def _track(self, mean: Array, var: Array) -> None:
        """Add a batch to the running mean and variance."""
        self.num_batches_tracked = self.num_batches_tracked + 1
        new = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean = (1 - new) * self.running_mean + new * mean
        self.running_var = (1 - new) * self.running_var + new * var


class Flatten(Layer):
    """forward: ``y[n] = x[n]`` as one row; backward: ``dx[n]`` is ``dy[n]`` in the shape of ``x``.

    ``x`` is ``(n, ...)``, ``y`` is ``(n, features)``.
    """

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        y = x.reshape(len(x), math.prod(x.shape[1:]))
        return y, lambda dy: dy.reshape(x.shape)


class Identity(Layer):
    """forward: ``y = x``; backward: ``dx = dy``."""

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        return x, lambda dy: dy


class Residual(Layer):
    """Inner layers with a skip connection around them (He et al. 2016).

    forward: ``y = x + f(x)``; backward: ``dx = dy + f'(dy)``

    ``f`` is the layers one after another; its output must have the shape of its input. ``rng``
    draws the missing initial values.
    """

    skips_input_grad = True

    def __init__(self, *layers: Layer, rng: Rng | None = None) -> None:
        self.inner = Sequential(*layers)
        if rng is not None:
            self.initialize(rng)

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        fx, inner_backward = self.inner.forward(x, train=train)
        if fx.shape != x.shape:
            raise ValueError(f"{self!r}: expected an output of shape {x.shape}, got {fx.shape}")

        def backward(dy: Array, input_grad: bool = True) -> Array | None:
            dfx = inner_backward(dy, input_grad=input_grad)
            return dy + dfx if input_grad else None

        return x + fx, backward

    def __repr__(self) -> str:
        return f"Residual({', '.join(map(repr, self.inner.layers))})"
