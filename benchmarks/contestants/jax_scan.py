"""JAX: one jitted ``lax.scan`` over all steps of an epoch, with ``vmap`` over seeds or settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from harness.task import Task

from minidl.checks import Array

if TYPE_CHECKING:
    from workloads.evaluate import Problem as EvaluateProblem
    from workloads.online import Problem as OnlineProblem
    from workloads.step import Problem as StepProblem

jax.config.update("jax_enable_x64", True)  # for float64 where a workload asks for it


def forward(weights: list[Any], x: Any) -> Any:
    """Return the logits of rows, or of one row."""
    for w, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        x = jax.nn.relu(x @ w + b)
    return x @ weights[-2] + weights[-1]


def mean_loss(weights: list[Any], x: Any, y: Any) -> Any:
    logits = forward(weights, x)
    return (jax.nn.logsumexp(logits, axis=1) - logits[jnp.arange(len(y)), y]).mean()


def step(problem: StepProblem, *, seeds: int = 1) -> Task:
    """Train ``seeds`` networks in one call; times are those of a step of one of them.

    The first network has the initial weights and batches of the check.
    """
    x, y, l2 = jnp.asarray(problem.floats()), jnp.asarray(problem.y), problem.l2

    def one_step(state: Any, batch: Any) -> Any:
        (w, m, v, t), (rows, lr) = state, batch
        value, g = jax.value_and_grad(mean_loss)(w, x[rows], y[rows])
        if l2:
            g = [a + l2 * b for a, b in zip(g, w, strict=True)]
        t = t + 1
        if problem.optimizer == "SGD":
            return ([a - lr * b for a, b in zip(w, g, strict=True)], m, v, t), value
        m = [0.9 * a + 0.1 * b for a, b in zip(m, g, strict=True)]
        v = [0.999 * a + 0.001 * b * b for a, b in zip(v, g, strict=True)]
        rate, scale = lr / (1 - 0.9**t), 1 / (1 - 0.999**t)
        w = [a - rate * b / (jnp.sqrt(c * scale) + 1e-8) for a, b, c in zip(w, m, v, strict=True)]
        return (w, m, v, t), value

    def epoch(state: Any, order: Any, lrs: Any) -> Any:
        return jax.lax.scan(one_step, state, (order, lrs))

    scan = jax.jit(epoch if seeds == 1 else jax.vmap(epoch, in_axes=(0, 0, None)))
    rng, steps = np.random.default_rng(0), problem.parts
    constant = jnp.full(steps, problem.lr, x.dtype)

    def start() -> Any:
        weights = [jnp.asarray(w) for w in problem.weights]
        if seeds > 1:
            noise = [rng.normal(0, 0.02, (seeds, *w.shape)).astype("f") for w in weights]
            for array in noise:
                array[0] = 0
            weights = [w + jnp.asarray(array) for w, array in zip(weights, noise, strict=True)]
        zeros = [jnp.zeros_like(w) for w in weights]
        return weights, zeros, zeros, jnp.zeros((seeds,) if seeds > 1 else (), x.dtype)

    def check() -> list[Array]:
        # The program that is timed, with learning rate 0 after the steps of the check.
        order = np.resize(problem.order, (steps, problem.batch))
        orders = np.stack([np.roll(order, i) for i in range(seeds)]) if seeds > 1 else order
        lrs = constant.at[problem.checked_steps :].set(0)
        weights = scan(start(), jnp.asarray(orders), lrs)[0][0]
        return [np.asarray(w[0] if seeds > 1 else w) for w in weights]

    state = start()

    def call() -> None:
        nonlocal state
        orders = [rng.permutation(len(y)).reshape(steps, -1) for _ in range(seeds)]
        order = jnp.asarray(np.stack(orders) if seeds > 1 else orders[0])
        state, values = scan(state, order, constant)
        np.asarray(values)

    return Task(call, check, steps * seeds)


def online(problem: OnlineProblem) -> Task:
    """Run one jitted scan over the examples, with vmap over the settings."""
    x, y = jnp.asarray(problem.floats.astype(problem.dtype)), jnp.asarray(problem.y)
    weights = [jnp.asarray(w, x.dtype) for w in problem.weights]

    def value(weights: Any, xi: Any, yi: Any) -> Any:
        z = forward(weights, xi)
        if problem.model == "perceptron":
            return z[jnp.argmax(z)] - z[yi]
        return jax.nn.logsumexp(z) - z[yi]

    def train(lr: Any, l2: Any, rows: Any, factors: Any) -> Any:
        def one(w: Any, example: Any) -> Any:
            i, factor = example
            g = jax.grad(value)(w, x[i], y[i])
            rate = lr * factor
            return [p - rate * (d + l2 * p) for p, d in zip(w, g, strict=True)], None

        return jax.lax.scan(one, weights, (rows, factors))[0]

    many = len(problem.settings) > 1
    scan = jax.jit(jax.vmap(train, in_axes=(0, 0, None, None)) if many else train)
    if many:
        lrs, l2s = (jnp.asarray(v, x.dtype) for v in zip(*problem.settings, strict=True))
    else:
        lrs, l2s = (jnp.asarray(v, x.dtype) for v in problem.settings[0])
    rows = jnp.arange(min(len(y), 10_000))
    ones = jnp.ones(len(rows), x.dtype)

    def check() -> list[list[Array]]:
        # The program that is timed, with learning rate 0 after the examples of the check.
        order = jnp.asarray(np.resize(problem.order, len(rows)))
        factors = ones.at[len(problem.order) :].set(0)
        found = [np.asarray(w) for w in scan(lrs, l2s, order, factors)]
        return [[w[i] for w in found] for i in range(len(problem.settings))] if many else [found]

    return Task(lambda: jax.block_until_ready(scan(lrs, l2s, rows, ones)), check, len(rows))


def evaluate(problem: EvaluateProblem) -> Task:
    weights = [jnp.asarray(w) for w in problem.weights]
    x, y = jnp.asarray(problem.split.x), jnp.asarray(problem.split.y)
    scale = problem.split.scale

    @jax.jit  # type: ignore[untyped-decorator]
    def sums(weights: Any, rows: Any, labels: Any) -> Any:
        if rows.dtype == jnp.uint8:
            rows = rows.astype(jnp.float32) * scale
        logits = forward(weights, rows)
        losses = jax.nn.logsumexp(logits, axis=1) - logits[jnp.arange(len(labels)), labels]
        return losses.sum(), (logits.argmax(axis=1) == labels).sum()

    chunks = [(x[i : i + 4096], y[i : i + 4096]) for i in range(0, len(y), 4096)]

    def loss_and_accuracy() -> float:
        found = [sums(weights, *chunk) for chunk in chunks]
        correct = sum(int(c) for _, c in found)
        return sum(float(s) for s, _ in found) / len(y) if correct >= 0 else 0.0

    return Task(loss_and_accuracy, loss_and_accuracy)
