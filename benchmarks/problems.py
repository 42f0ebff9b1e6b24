"""The problems of the benchmarks, each with its reference in NumPy.

A problem is what every contestant of a workload gets. ``problem.disagreement(result)`` compares
what a contestant has computed with a textbook loop in float64, and says what is wrong, or None.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np

import minidl
from minidl import init
from minidl.checks import Array
from minidl.dataset import Split
from minidl.training import epoch_rng

FEATURES, CLASSES, SCALE = 784, 26, 1 / 256
CHECKED = 20
"""The steps, or the examples, after which contestants are compared."""

Case = dict[str, Any]
"""The coordinates of a measurement, as JSON holds them."""


# ---------------------------------------------------------------- a textbook network


def softmax(z: Array) -> Array:
    p: Array = np.exp(z - z.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return p


def gradients(weights: list[Array], x: Array, y: Array) -> tuple[float, list[Array]]:
    """Return the mean cross-entropy and its gradients."""
    outputs = [x]
    for i in range(0, len(weights), 2):
        z = outputs[-1] @ weights[i] + weights[i + 1]
        outputs.append(np.maximum(z, 0))
    p, rows = softmax(z), np.arange(len(y))
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


class Textbook:
    """A network that is trained in place by batches, as a course would write it."""

    def __init__(self, problem: Step, dtype: str, rows: slice = slice(None)) -> None:
        self.problem = problem
        self.weights = [w.astype(dtype) for w in problem.weights]
        self.m = [np.zeros_like(w) for w in self.weights]
        self.v = [np.zeros_like(w) for w in self.weights]
        self.x, self.y, self.t = problem.floats(rows).astype(dtype), problem.y, 0

    def train(self, order: Array) -> None:
        """Take one step for each row of ``order``."""
        p = self.problem
        for rows in order:
            _, grads = gradients(self.weights, self.x[rows], self.y[rows])
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


# ---------------------------------------------------------------- training by batches


class Step:
    """A network, the rule of a step, and letters, or noisy patterns of the classes."""

    def __init__(self, case: Case) -> None:
        self.batch, self.optimizer, self.l2 = case["batch"], case["optimizer"], case.get("l2", 0.0)
        self.lr = 1e-3 if self.optimizer == "Adam" else 0.1
        hidden = [case["width"]] * case.get("depth", 1)
        self.sizes = (FEATURES, *hidden, case.get("classes", CLASSES))
        if "letters" in case:
            part = letters(case["letters"])
            self.x, self.y = np.array(part.x), part.y
        else:
            # Longer epochs for smaller steps, whose fixed costs count.
            entries = sum(i * o for i, o in itertools.pairwise(self.sizes))
            steps = int(np.clip(2e9 / (entries * (self.batch + 16)), CHECKED, 200))
            rng = np.random.default_rng(0)
            self.y = rng.integers(0, self.sizes[-1], steps * self.batch)
            self.x = rng.integers(0, 128, (len(self.y), FEATURES), dtype=np.uint8)
            self.x += rng.integers(0, 128, (self.sizes[-1], FEATURES), dtype=np.uint8)[self.y]
        # The steps of an epoch: times are those of one step.
        self.parts = -(-len(self.y) // self.batch)
        # The batches of the check, (steps, batch): those of ``minidl.fit(rng=0)``.
        self.order = epoch_rng(0, 1).permutation(CHECKED * self.batch).reshape(-1, self.batch)
        # Weight and bias of each layer in turn, (in, out) and (out,).
        self.weights = [p.value for _, p in self.model().named_parameters()]

    def model(self) -> minidl.Sequential:
        layers: list[minidl.Layer] = []
        for i, o in itertools.pairwise(self.sizes):
            layers += [minidl.Linear(i, o), minidl.ReLU()]
        return minidl.Sequential(*layers[:-1], rng=0)

    def floats(self, rows: slice = slice(None)) -> Array:
        return self.x[rows].astype(np.float32) * np.float32(SCALE)

    @cached_property
    def expected(self) -> tuple[float, float]:
        """The loss of the examples of the check before and after it, in float64."""
        textbook = Textbook(self, "float64", slice(self.order.size))
        textbook.train(self.order)
        return self.loss(self.weights), self.loss(textbook.weights)

    def loss(self, weights: Iterable[Array]) -> float:
        n, exact = self.order.size, [np.asarray(w, np.float64) for w in weights]
        return gradients(exact, self.floats(slice(n)).astype(np.float64), self.y[:n])[0]

    def disagreement(self, weights: list[Array]) -> str | None:
        """Compare the loss after 20 steps, within a hundredth of what it changes in them."""
        found, (before, expected) = self.loss(weights), self.expected
        if abs(found - expected) <= 0.01 * abs(expected - before):
            return None
        return f"loss {found:.6f} after {CHECKED} steps, expected {expected:.6f}"


@lru_cache(maxsize=1)
def letters(rows: int) -> Split:
    return minidl.load_letters(rows, CLASSES, CLASSES).train


# ---------------------------------------------------------------- one example at a time


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


GRID = [(lr, l2) for lr in (1e-3, 1e-4, 1e-5) for l2 in (1e-4, 1e-5)]
MODELS = {
    "perceptron, float64": (perceptron_step, "float64", [(1.0, 0.0)]),
    "perceptron": (perceptron_step, "float32", [(1.0, 0.0)]),
    "logistic regression": (logistic_step, "float32", [(1e-4, 1e-5)]),
    "six logistic regressions": (logistic_step, "float32", GRID),
    "MLP": (mlp_step, "float32", [(1e-3, 0.0)]),
}
"""The step of the textbook, the dtype, and learning rate and L2 penalty of each run."""


class Online:
    """Letters, a model with initial weights, and the settings of one or several runs."""

    def __init__(self, case: Case) -> None:
        self.part = letters(case["rows"])
        self.floats = self.part.x.astype(np.float32) * np.float32(SCALE)
        self.step, self.dtype, self.settings = MODELS[case["model"]]
        self.is_perceptron = self.step is perceptron_step
        # The examples of the check: the order of ``fit_online(rng=0)``.
        self.order = epoch_rng(0, 1).permutation(CHECKED)
        self.weights = [p.value for _, p in self.network().named_parameters()]

    def network(self) -> minidl.Sequential:
        if self.step is mlp_step:
            random = partial(minidl.Linear, weight_init=init.normal(0.1, 0.1), bias_init=init.zeros)
            layers = random(FEATURES, 100), minidl.ReLU(), random(100, CLASSES)
            return minidl.Sequential(*layers, rng=0, dtype=self.dtype)
        zeros = partial(minidl.Linear, weight_init=init.zeros, bias_init=init.zeros)
        return minidl.Sequential(zeros(FEATURES, CLASSES), rng=0, dtype=self.dtype)

    def train(self, runs: list[list[Array]], x: Array, rows: Array) -> None:
        """Train the weights of all runs by the textbook's loop."""
        for weights, (lr, l2) in zip(runs, self.settings, strict=True):
            for i in rows:
                self.step(weights, x[i], self.part.y[i], lr, l2)

    def start(self, dtype: str) -> list[list[Array]]:
        """Return initial weights for each run."""
        return [[w.astype(dtype) for w in self.weights] for _ in self.settings]

    def disagreement(self, runs: list[list[Array]]) -> str | None:
        """Compare the weights after 20 examples, within a thousandth of their change.

        The perceptron's are sums of pixels, exact in both dtypes.
        """
        expected = self.start("float64")
        self.train(expected, self.floats.astype(np.float64), self.order)
        for found, want in zip(runs, expected, strict=True):
            for a, b, start in zip(found, want, self.weights, strict=True):
                error, change = np.abs(a - b).max(), np.abs(b - start).max()
                if not error <= 1e-3 * change:
                    return f"the weights differ by {error:.2g}, they changed by {change:.2g}"
        return None


# ---------------------------------------------------------------- evaluation, maps


class Evaluation:
    """A network, and random rows to evaluate it on."""

    def __init__(self, case: Case) -> None:
        rng = np.random.default_rng(0)
        x = rng.integers(0, 256, (case["rows"], FEATURES), dtype=np.uint8)
        y = rng.integers(0, CLASSES, len(x))
        self.floats = x.astype(np.float32) * np.float32(SCALE)
        layers = [minidl.Linear(FEATURES, case["width"]), minidl.ReLU()]
        self.model = minidl.Sequential(*layers, minidl.Linear(case["width"], CLASSES), rng=0)
        self.weights = [p.value for _, p in self.model.named_parameters()]
        self.part = Split(x, y, SCALE) if case["x"] == "uint8" else Split(self.floats, y, 1.0)

    def disagreement(self, loss: float) -> str | None:
        """Compare the loss with that of the textbook."""
        weights = [w.astype(np.float64) for w in self.weights]
        expected, _ = gradients(weights, self.floats.astype(np.float64), self.part.y)
        if abs(loss - expected) <= 1e-5 * expected:
            return None
        return f"loss {loss:.7f}, expected {expected:.7f}"


class Mapping:
    """Logits, a cotangent, labels, and a map or its loss.

    Of logits of scale 2 the supports are small, of scale 0.1 large.
    """

    b, eps = 2.0, 0.01

    def __init__(self, case: Case) -> None:
        rng, n, k = np.random.default_rng(0), case["n"], case["K"]
        self.z = (case["scale"] * rng.normal(size=(n, k))).astype(np.float32)
        # At a tie of the largest, relumax has a kink.
        self.z[np.arange(n), self.z.argmax(axis=1)] += 1e-3
        self.dp = rng.normal(size=(n, k)).astype(np.float32)
        self.y = np.asarray(rng.integers(0, k, n))
        self.what = case["what"]
        name = self.what.removesuffix(" loss")
        self.map: Any = getattr(minidl, name)
        if name == "relumax":
            self.map = minidl.relumax(self.b)
        losses: dict[str, Any] = {
            "softmax loss": minidl.CrossEntropy,
            "relumax loss": partial(minidl.SmoothedNLL, self.map, self.eps),
        }
        self.loss: Any = None
        if name != self.what:
            self.loss = losses.get(self.what, partial(minidl.FenchelYoung, self.map))()

    def both(self, z: Array, dp: Array) -> tuple[Any, Array]:
        """Return minidl's value and gradient, in the dtype of the logits."""
        if self.loss is not None:
            pair: tuple[Any, Array] = self.loss(z, self.y)
            return pair
        p = self.map(z)
        return p, self.map.vjp(p, dp)

    def disagreement(self, found: tuple[Any, Array]) -> str | None:
        """Compare value and gradient with those in float64."""
        exact = self.both(self.z.astype(np.float64), self.dp.astype(np.float64))
        for name, a, b in zip(("value", "gradient"), found, exact, strict=True):
            error, largest = np.abs(np.asarray(a) - b).max(), np.abs(b).max()
            if not error <= 1e-3 * largest:
                return f"the {name} differs by {error:.2g}, the largest entry is {largest:.2g}"
        return None
