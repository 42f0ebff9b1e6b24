"""Layers, functions and losses in the styles of other code bases, each right and with a fault.

``fault`` is 1 where the code is right; a fault multiplies one entry of one gradient, or changes
the formula as told.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from minidl import Parameter


def spoil(gradient, index, fault):
    """Multiply one entry of a gradient by the fault; return the gradient."""
    gradient[index] *= fault
    return gradient


# Pairs: out, cache = forward(...) and gradients = backward(dout, cache)


def affine_pair(fault):
    def forward(x, w, b):
        return x.reshape(len(x), -1) @ w + b, (x, w)

    def backward(dout, cache):
        x, w = cache
        dw = x.reshape(len(x), -1).T @ dout
        return (dout @ w.T).reshape(x.shape), spoil(dw, (3, 1), fault), dout.sum(axis=0)

    return forward, backward


def relu_pair(fault):
    def forward(x):
        return np.maximum(x, 0), x

    def backward(dout, x):
        return spoil(dout * (x > 0), (1, 2), fault)

    return forward, backward


def batchnorm_pair(fault):
    def forward(x, gamma, beta, bn_param):
        mean, var = x.mean(axis=0), x.var(axis=0)
        bn_param["running_mean"] = 0.9 * bn_param.get("running_mean", 0) + 0.1 * mean
        scale = 1 / np.sqrt(var + bn_param["eps"])
        h = (x - mean) * scale
        return gamma * h + beta, (h, gamma, scale)

    def backward(dout, cache):
        h, gamma, scale = cache
        dh = dout * gamma
        dx = (dh - dh.mean(axis=0) - h * (dh * h).mean(axis=0)) * scale
        return {"dx": dx, "dgamma": spoil((dout * h).sum(axis=0), 1, fault), "dbeta": dout.sum(0)}

    return forward, backward


def embedding_pair(fault):
    def forward(ids, w):
        return w[ids], (ids, w)

    def backward(dout, cache):
        ids, w = cache
        dw = np.zeros_like(w)
        np.add.at(dw, ids, dout)
        return spoil(dw, (2, 0), fault)

    return forward, backward


def dropout_pair(fault):
    def forward(x, dropout_param):
        mask = (np.random.rand(*x.shape) < dropout_param["p"]) / dropout_param["p"]  # noqa: NPY002
        return x * mask, mask

    def backward(dout, mask):
        return dout * mask if fault == 1 else dout

    return forward, backward


def lstm_pair(fault):
    def forward(x, h, c, Wx, Wh, b):
        a, f, o, g = np.split(x @ Wx + h @ Wh + b, 4, axis=1)
        i, f, o, g = 1 / (1 + np.exp(-a)), 1 / (1 + np.exp(-f)), 1 / (1 + np.exp(-o)), np.tanh(g)
        c_next = f * c + i * g
        t = np.tanh(c_next)
        return o * t, c_next, (x, h, c, Wx, Wh, i, f, o, g, t)

    def backward(dh, dc, cache):
        x, h, c, Wx, Wh, i, f, o, g, t = cache
        dc = dc + dh * o * (1 - t * t)
        gates = (
            dc * g * i * (1 - i),
            dc * c * f * (1 - f),
            dh * t * o * (1 - o),
            dc * i * (1 - g * g),
        )
        da = np.hstack(gates)
        return (
            da @ Wx.T,
            da @ Wh.T,
            spoil(dc * f, (0, 1), fault),
            x.T @ da,
            h.T @ da,
            da.sum(axis=0),
        )

    return forward, backward


def attention_pair(fault):
    def forward(q, k, v, mask):
        s = np.where(mask, q @ k.T, -1e9)
        p = np.exp(s - s.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return p @ v, (q, k, v, p)

    def backward(dout, cache):
        q, k, v, p = cache
        dp = dout @ v.T
        ds = p * (dp - (dp * p).sum(axis=1, keepdims=True))
        return ds @ k, ds.T @ q, spoil(p.T @ dout, (1, 0), fault)

    return forward, backward


# Objects that keep their pass, with an attribute for each gradient


class Affine:
    def __init__(self, fault, out=3):
        self.W, self.b, self.fault = (
            np.linspace(-1, 1, 5 * out).reshape(5, out),
            np.zeros(out),
            fault,
        )

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dy):
        self.dW = spoil(self.x.T @ dy, (4, 2), self.fault)
        self.db = dy.sum(axis=0)
        return dy @ self.W.T


class Scale(Affine):
    """Its parameter is a number, its gradient is set in another object."""

    def __init__(self, fault):
        self.s, self.grads, self.fault = 1.5, SimpleNamespace(s=0.0), fault

    def forward(self, x):
        self.x = x
        return x * self.s

    def backward(self, dy):
        self.grads.s = (dy * self.x).sum() * self.fault
        return dy * self.s


class Conv1d:
    """Three dimensions, (n, c, t)."""

    def __init__(self, fault):
        self.W, self.fault = np.linspace(-1, 1, 12).reshape(2, 2, 3), fault

    def forward(self, x):
        self.windows = np.stack([x[:, :, k : x.shape[2] - 2 + k] for k in range(3)], axis=-1)
        return np.einsum("nctk,fck->nft", self.windows, self.W)

    def backward(self, dy):
        self.dW = np.einsum("nctk,nft->fck", self.windows, dy)
        parts = np.einsum("nft,fck->nctk", dy, self.W)
        dx = np.zeros((*parts.shape[:2], parts.shape[2] + 2))
        for k in range(3):
            dx[:, :, k : k + parts.shape[2]] += parts[..., k]
        return spoil(dx, (0, 1, 2), self.fault)


class MaxPool:
    """Four dimensions, (n, c, h, w), and an inner dictionary."""

    def __init__(self, fault):
        self.cache, self.fault = {}, fault

    def forward(self, x):
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // 2, 2, w // 2, 2)
        y = blocks.max(axis=(3, 5))
        self.cache["mask"] = blocks == y[:, :, :, None, :, None]
        return y

    def backward(self, dy):
        dx = self.cache["mask"] * dy[:, :, :, None, :, None]
        n, c, h, _, w, _ = dx.shape
        return dx.reshape(n, c, 2 * h, 2 * w) * self.fault


class Cell:
    """A recurrent step with an inner affine layer."""

    def __init__(self, fault):
        self.inner, self.U, self.fault = Affine(1), np.linspace(-1, 1, 9).reshape(3, 3), fault

    def forward(self, x, h):
        self.h, self.y = h, np.tanh(self.inner.forward(x) + h @ self.U)
        return self.y

    def backward(self, dy):
        da = dy * (1 - self.y**2)
        self.dU = spoil(self.h.T @ da, (0, 1), self.fault)
        return self.inner.backward(da), da @ self.U.T


# Dictionaries and lists of parameters, other names of methods, flags


class Dense:
    def __init__(self, fault):
        self.params = {"w": np.linspace(-1, 1, 10).reshape(5, 2), "b": np.zeros(2)}
        self.grads, self.fault = {}, fault

    def forward(self, inputs):
        self.inputs = inputs
        return inputs @ self.params["w"] + self.params["b"]

    def backward(self, grad):
        self.grads["w"] = self.inputs.T @ grad
        self.grads["b"] = spoil(grad.sum(axis=0), 1, self.fault)
        return grad @ self.params["w"].T


class Listed:
    def __init__(self, fault):
        self.weight = np.linspace(-1, 1, 10).reshape(5, 2)
        self.params, self.grads, self.fault = [self.weight], [np.zeros((5, 2))], fault

    def forward(self, x):
        self.x = x
        return np.tanh(x @ self.weight)

    def backward(self, dout):
        da = dout * (1 - np.tanh(self.x @ self.weight) ** 2)
        self.grads[0][...] = spoil(self.x.T @ da, (0, 1), self.fault)
        return da @ self.weight.T


class Adding:
    """Gradients are added until they are flushed; passes are appended to a list."""

    def __init__(self, fault):
        self.parameters, self.fault = {"W": np.linspace(-1, 1, 10).reshape(5, 2)}, fault
        self.flush_gradients()

    def flush_gradients(self):
        self.X, self.gradients = [], {"W": np.zeros((5, 2))}

    def forward(self, X, retain_derived=True):
        if retain_derived:
            self.X.append(X)
        return X @ self.parameters["W"]

    def backward(self, dLdy):
        self.gradients["W"] += spoil(self.X[-1].T @ dLdy, (3, 0), self.fault)
        return dLdy @ self.parameters["W"].T


class Passes:
    """Other names of the methods, an optimizer inside, and a flag that is an argument."""

    def __init__(self, fault):
        self.W, self.W_opt = np.linspace(-1, 1, 10).reshape(5, 2), Descent()
        self.fault, self.mask = fault, np.array([1.0, 0, 1, 1, 0])

    def forward_pass(self, X, training=True):
        self.layer_input = X * self.mask if training else X
        return self.layer_input @ self.W

    def backward_pass(self, accum_grad):
        W = self.W
        self.W = self.W_opt.update(
            self.W, spoil(self.layer_input.T @ accum_grad, (2, 1), self.fault)
        )
        return accum_grad @ W.T * self.mask


class Descent:
    def update(self, w, grad_wrt_w):
        return w - 0.1 * grad_wrt_w


class Stepping:
    """Makes a step of its own in backward, and keeps no gradient."""

    def __init__(self, fault):
        self.W, self.lr, self.fault = np.linspace(-1, 1, 10).reshape(5, 2), 0.01, fault

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dy):
        dx = dy @ self.W.T
        self.W -= self.lr * spoil(self.x.T @ dy, (1, 1), self.fault)
        return dx


class StoresAndSteps(Affine):
    def backward(self, dy):
        dx = super().backward(dy)
        self.W -= 0.01 * self.dW
        self.b -= 0.01 * self.db
        return dx


class Norm:
    """In evaluation it uses running averages; the flag is an attribute of the opposite sense."""

    def __init__(self, fault):
        self.mean, self.frozen, self.fault = np.linspace(0, 1, 5), False, fault

    def forward(self, x):
        self.used = self.frozen
        return x - (self.mean if self.frozen else x.mean(axis=0))

    def backward(self, dy):
        if self.used:
            return spoil(dy.copy(), (2, 3), self.fault)
        return dy - dy.mean(axis=0)


# Closures


def closure(fault):
    weight = Parameter(np.arange(1.0, 6))

    def forward(x, train=False):
        def backward(dy):
            weight.grad = spoil((dy * x).sum(axis=0), 4, fault)
            return dy * weight.value

        return x * weight.value, backward

    return SimpleNamespace(forward=forward, weight=weight)


class Begins:
    """``begin_update(X)`` returns the output and its backward pass; parameters behind methods."""

    def __init__(self, fault):
        self.fault = fault
        self._values, self._gradients = {"W": np.linspace(-1, 1, 10).reshape(5, 2)}, {}

    def get(self, name):
        return self._values[name]

    def begin_update(self, X):
        def backprop(dY):
            self._gradients["W"] = spoil(X.T @ dY, (0, 0), self.fault)
            return dY @ self._values["W"].T

        return X @ self._values["W"], backprop


# Losses


def pair_loss(fault):
    def mse(prediction, target):
        error = prediction - target
        return (error**2).mean(), spoil(2 * error / error.size, (0, 1), fault)

    return mse


class TrueFirst:
    def __init__(self, fault):
        self.fault = fault

    def loss(self, y_true, y_pred):
        return 0.5 * np.sum((y_pred - y_true) ** 2)

    def gradient(self, y_true, y_pred):
        return spoil(y_pred - y_true, (2, 0), self.fault)


class Head:
    """Softmax with cross-entropy; ``backward`` is a method without targets."""

    def __init__(self, fault):
        self.fault = fault

    def forward(self, x, t):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        self.p, self.t = e / e.sum(axis=1, keepdims=True), t
        return -np.log(self.p[np.arange(len(t)), t]).mean()

    def backward(self, dout=1):
        dx = self.p.copy()
        dx[np.arange(len(dx)), self.t] -= 1
        return dout * dx / (len(dx) if self.fault == 1 else 1)


class ByExample:
    """A value for each example: the gradient is that of their sum."""

    def __init__(self, fault):
        self.fault = fault

    def __call__(self, prediction, target):
        return np.abs(prediction - target).sum(axis=1)

    def grad(self, prediction, target):
        return spoil(np.sign(prediction - target), (1, 1), self.fault)


# Functions: y = f(x) and dx = vjp(x, dy)


def hidden_pair(fault):
    """Linear, ReLU, Linear, with a row of zeros and no biases."""

    def f(x, w1, w2):
        return np.maximum(x @ w1, 0) @ w2

    def vjp(x, w1, w2, dy):
        h = np.maximum(x @ w1, 0)
        da = (dy @ w2.T) * (h > 0)
        return da @ w1.T, spoil(x.T @ da, (2, 0), fault), h.T @ dy

    return f, vjp


def polar_pair(fault):
    """Two inputs and two outputs."""

    def f(r, phi):
        return r * np.cos(phi), r * np.sin(phi)

    def vjp(r, phi, dy):
        a, b = dy
        return a * np.cos(phi) + b * np.sin(phi), spoil(
            r * (b * np.cos(phi) - a * np.sin(phi)), 3, fault
        )

    return f, vjp
