"""SGD on one example at a time: minidl beside PyTorch, JAX and a NumPy loop, on one thread.

    python benchmarks/online.py

minidl trains whole epochs of letters (784 pixels, 26 classes), with the cost of gathering and
converting pixels. The others train on a sample of them that is floats already: their best case.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from problems import CHECKED, CLASSES, MODELS, SCALE, Case, Online
from step import jax_forward, torch_network, torch_weights
from timing import Rounds, Task

import minidl
from minidl import OnlineRun, fit_side_by_side
from minidl.checks import Array
from minidl.dataset import Split
from minidl.view.cli import run_main

UNIT, FACTOR = "microseconds an example", 1e6
ROUNDS = Rounds(least=3)


def cases(full: bool) -> list[Case]:
    return [{"model": model, "rows": 20_800 if full else 5_200} for model in MODELS]


problem = Online


def ours(problem: Online) -> Task:
    """Train whole epochs."""
    loss = minidl.Perceptron() if problem.is_perceptron else minidl.CrossEntropy()

    def epochs(rows: slice) -> tuple[Callable[[], object], list[OnlineRun]]:
        part = Split(problem.part.x[rows], problem.part.y[rows], SCALE)
        dataset = minidl.Dataset(part, classes=CLASSES)
        runs = [OnlineRun(problem.network(), lr, weight_decay=l2) for lr, l2 in problem.settings]
        fit = partial(fit_side_by_side, runs, dataset, loss, rng=0, parts=("valid",))
        fit(epochs=0)
        return lambda: fit(epochs=len(runs[0].history)), runs

    def result() -> list[list[Array]]:
        epoch, runs = epochs(slice(CHECKED))
        epoch()
        return [[p.value for _, p in run.model.named_parameters()] for run in runs]

    return Task(epochs(slice(None))[0], result, len(problem.part.y))


def numpy_loop(problem: Online) -> Task:
    runs, x = problem.start(problem.dtype), problem.floats.astype(problem.dtype)

    def result() -> list[list[Array]]:
        problem.train(runs, x, problem.order)
        return runs

    sample = np.arange(min(len(problem.part.y), 4000 // len(runs)))
    return Task(lambda: problem.train(runs, x, sample), result, len(sample))


def pytorch(problem: Online) -> Task:
    """Run the usual loop with batch size 1, once for each setting."""
    import torch

    kind = getattr(torch, problem.dtype)
    x, y = torch.from_numpy(problem.floats).to(kind), torch.from_numpy(problem.part.y)
    models = [torch_network(problem.weights).to(kind) for _ in problem.settings]
    optimizers = [
        torch.optim.SGD(model.parameters(), lr, weight_decay=l2)
        for model, (lr, l2) in zip(models, problem.settings, strict=True)
    ]
    loss = torch.nn.CrossEntropyLoss()

    def train(rows: list[int]) -> None:
        for model, optimizer in zip(models, optimizers, strict=True):
            if problem.is_perceptron:
                perceptron(model[0], rows)
                continue
            for i in rows:
                optimizer.zero_grad()
                loss(model(x[i : i + 1]), y[i : i + 1]).backward()
                optimizer.step()

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def perceptron(layer: Any, rows: list[int]) -> None:
        w, b = layer.weight, layer.bias
        for i in rows:
            xi, yi = x[i], int(y[i])
            predicted = int(torch.addmv(b, w, xi).argmax())
            if predicted != yi:
                w[yi] += xi
                w[predicted] -= xi
                b[yi] += 1
                b[predicted] -= 1

    def result() -> list[list[Array]]:
        train(problem.order.tolist())
        return [torch_weights(model) for model in models]

    sample = list(range(min(len(y), 1000 // len(models))))
    return Task(lambda: train(sample), result, len(sample))


def jax_scan(problem: Online) -> Task:
    """Run one jitted scan over the examples, with ``vmap`` over the settings."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)  # for the perceptron in float64
    x, y = jnp.asarray(problem.floats.astype(problem.dtype)), jnp.asarray(problem.part.y)
    weights = [jnp.asarray(w, x.dtype) for w in problem.weights]

    def value(weights: Any, xi: Any, yi: Any) -> Any:
        z = jax_forward(weights, xi)
        largest = z[jnp.argmax(z)] if problem.is_perceptron else jax.nn.logsumexp(z)
        return largest - z[yi]

    def train(lr: Any, l2: Any, rows: Any, factors: Any) -> Any:
        def one(w: Any, example: Any) -> Any:
            i, factor = example
            g = jax.grad(value)(w, x[i], y[i])
            rate = lr * factor
            return [p - rate * (d + l2 * p) for p, d in zip(w, g, strict=True)], None

        return jax.lax.scan(one, weights, (rows, factors))[0]

    many = len(problem.settings) > 1
    scan = jax.jit(jax.vmap(train, in_axes=(0, 0, None, None)) if many else train)
    given = list(zip(*problem.settings, strict=True)) if many else problem.settings[0]
    lrs, l2s = (jnp.asarray(v, x.dtype) for v in given)
    rows = jnp.arange(min(len(y), 10_000))
    ones = jnp.ones(len(rows), x.dtype)

    def result() -> list[list[Array]]:
        # The program that is timed, with learning rate 0 after the examples of the check.
        order = jnp.asarray(np.resize(problem.order, len(rows)))
        found = [np.asarray(w) for w in scan(lrs, l2s, order, ones.at[CHECKED:].set(0))]
        return [[w[i] for w in found] for i in range(len(problem.settings))] if many else [found]

    return Task(lambda: jax.block_until_ready(scan(lrs, l2s, rows, ones)), result, len(rows))


CONTESTANTS = {
    "minidl": ours,
    "NumPy loop": numpy_loop,
    "PyTorch": pytorch,
    "JAX": jax_scan,
}

if __name__ == "__main__":
    from tables import main

    run_main(lambda: main("online"))
