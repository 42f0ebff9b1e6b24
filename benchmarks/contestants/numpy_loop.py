"""Textbook loops in NumPy, which are also the reference of the checks, and bare matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
from harness.task import Task

from minidl.checks import Array

# The problems of the workloads, which import this module for their checks.
Problem = Any


# Batches.


def forward(weights: list[Array], x: Array) -> list[Array]:
    """Return the input, the outputs of the hidden layers and the logits."""
    outputs = [x]
    for i in range(0, len(weights), 2):
        z = outputs[-1] @ weights[i] + weights[i + 1]
        outputs.append(np.maximum(z, 0) if i < len(weights) - 2 else z)
    return outputs


def softmax(z: Array) -> Array:
    p: Array = np.exp(z - z.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return p


def loss(weights: list[Array], x: Array, y: Array) -> float:
    """Return the mean cross-entropy."""
    p = softmax(forward(weights, x)[-1])
    return float(-np.log(p[np.arange(len(y)), y]).mean())


def gradients(weights: list[Array], x: Array, y: Array) -> tuple[float, list[Array]]:
    """Return the mean cross-entropy and its gradients."""
    outputs = forward(weights, x)
    p = softmax(outputs[-1])
    rows = np.arange(len(y))
    value = float(-np.log(p[rows, y]).mean())
    p[rows, y] -= 1
    dz = p / len(y)
    found: list[Array] = []
    for i in range(len(weights) - 2, -1, -2):
        below = outputs[i // 2]
        found = [below.T @ dz, dz.sum(axis=0), *found]
        if i:
            dz = (dz @ weights[i].T) * (below > 0)
    return value, found


class Network:
    """Weights that are trained in place."""

    def __init__(self, problem: Problem, dtype: str, rows: slice = slice(None)) -> None:
        self.problem = problem
        self.weights = [w.astype(dtype) for w in problem.weights]
        self.m = [np.zeros_like(w) for w in self.weights]
        self.v = [np.zeros_like(w) for w in self.weights]
        self.x, self.y, self.t = problem.floats(rows).astype(dtype), problem.y, 0

    def train(self, order: Array) -> None:
        """Take one step for each row of ``order``."""
        p, total = self.problem, 0.0
        for rows in order:
            value, grads = gradients(self.weights, self.x[rows], self.y[rows])
            total += value
            self.t += 1
            for i, (w, g) in enumerate(zip(self.weights, grads, strict=True)):
                if p.l2:
                    g = g + p.l2 * w
                if p.optimizer == "SGD":
                    w -= p.lr * g
                    continue
                self.m[i] = 0.9 * self.m[i] + 0.1 * g
                self.v[i] = 0.999 * self.v[i] + 0.001 * g**2
                m_hat = self.m[i] / (1 - 0.9**self.t)
                v_hat = self.v[i] / (1 - 0.999**self.t)
                w -= p.lr * m_hat / (np.sqrt(v_hat) + 1e-8)


def trained(problem: Problem) -> list[Array]:
    """Return the weights after the steps of the check, in float64."""
    network = Network(problem, "float64", slice(problem.order.size))
    network.train(problem.order)
    return network.weights


def step(problem: Problem) -> Task:
    network, rng = Network(problem, "float32"), np.random.default_rng(0)
    steps = len(problem.y) // problem.batch

    def check() -> list[Array]:
        network.train(problem.order)
        return network.weights

    def epoch() -> None:
        network.train(rng.permutation(len(problem.y)).reshape(steps, -1))

    return Task(epoch, check, problem.parts)


def products(problem: Problem) -> Task:
    """Compute the matrix products of a step, and nothing else: a bound, not a contestant."""
    n, rng = problem.batch, np.random.default_rng(0)
    layers = [
        (rng.random((n, i), np.float32), w, np.empty_like(w), rng.random((n, w.shape[1]), "f"))
        for i, w in zip(problem.sizes[:-1], problem.weights[::2], strict=True)
    ]

    def call() -> None:
        for i, (x, w, dw, dy) in enumerate(layers):
            np.dot(x, w)
            np.dot(x.T, dy, out=dw)
            if i:
                np.dot(dy, w.T)

    return Task(call)


def evaluate_products(problem: Problem) -> Task:
    """Compute the matrix products of an evaluation, in chunks: a bound, not a contestant."""
    chunks = [problem.floats[i : i + 4096] for i in range(0, len(problem.floats), 4096)]
    w1, w2 = problem.weights[::2]
    hidden = [c @ w1 for c in chunks]

    def call() -> None:
        for c, h in zip(chunks, hidden, strict=True):
            np.dot(c, w1)
            np.dot(h, w2)

    return Task(call)


# One example at a time.


def online(problem: Problem, dtype: str = "") -> Task:
    kind = dtype or problem.dtype
    runs = [[w.astype(kind) for w in problem.weights] for _ in problem.settings]
    x, y = problem.floats.astype(kind), problem.y
    one = {"perceptron": perceptron_step, "logistic": logistic_step, "MLP": mlp_step}[problem.model]

    def train(rows: Array) -> None:
        for weights, (lr, l2) in zip(runs, problem.settings, strict=True):
            for i in rows:
                one(weights, x[i], y[i], lr, l2)

    def check() -> list[list[Array]]:
        train(problem.order)
        return runs

    sample = np.arange(min(len(y), 4000 // len(runs)))
    return Task(lambda: train(sample), check, len(sample))


def perceptron_step(weights: list[Array], x: Array, y: int, lr: float, l2: float) -> None:
    w, b = weights
    predicted = (x @ w + b).argmax()
    if predicted != y:
        w[:, y] += x
        w[:, predicted] -= x
        b[y] += 1
        b[predicted] -= 1


def logistic_step(weights: list[Array], x: Array, y: int, lr: float, l2: float) -> None:
    w, b = weights
    p = softmax(x @ w + b)
    p[y] -= 1
    w -= lr * (np.outer(x, p) + l2 * w)
    b -= lr * (p + l2 * b)


def mlp_step(weights: list[Array], x: Array, y: int, lr: float, l2: float) -> None:
    w1, b1, w2, b2 = weights
    z = x @ w1 + b1
    h = np.maximum(z, 0)
    p = softmax(h @ w2 + b2)
    p[y] -= 1
    dz = (w2 @ p) * (z > 0)
    w2 -= lr * np.outer(h, p)
    b2 -= lr * p
    w1 -= lr * np.outer(x, dz)
    b1 -= lr * dz
