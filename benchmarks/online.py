"""Benchmark of SGD on one example at a time: microseconds an example, on one thread.

    python benchmarks/online.py

The candidates are timed in turn in one process. minidl trains whole epochs of 104,000 letters
(784 pixels, 26 classes) with the cost of gathering and converting pixels, but without evaluation.
The textbook NumPy loop and eager PyTorch with batch size 1 train on 5,000 of them, JAX's jit + scan
(if JAX is installed) on 20,000, all from pixels that are floats already: their best case.
"""

from __future__ import annotations

from _timing import alternate, write_json  # isort: skip - pins threads before NumPy loads

import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import minidl
from minidl import OnlineRun, fit_side_by_side, init
from minidl.cli import Parser, run_main
from minidl.data import Split
from minidl.layer import Layer
from minidl.losses import Loss
from minidl.tables import Table
from minidl.typing import Array

FEATURES, CLASSES, HIDDEN, BLOCK = 784, 26, 100, 64
GRID = [(lr, weight_decay) for lr in (1e-3, 1e-4, 1e-5) for weight_decay in (1e-4, 1e-5)]
SAMPLE, JAX_SAMPLE = 5_000, 20_000

Candidate = tuple[Callable[[], object], int]
"""A function to call, and the number of examples that it trains on."""


def linear(dtype: str) -> Layer:
    return minidl.Linear(
        FEATURES, CLASSES, weight_init=init.zeros, bias_init=init.zeros, rng=0, dtype=dtype
    )


def mlp(dtype: str) -> Layer:
    some = {"weight_init": init.normal(0.1, 0.1), "bias_init": init.zeros}
    layers = minidl.Linear(FEATURES, HIDDEN, **some), minidl.Linear(HIDDEN, CLASSES, **some)  # type: ignore[arg-type]
    return minidl.Sequential(layers[0], minidl.ReLU(), layers[1], rng=0, dtype=dtype)


def ours(runs: list[OnlineRun], loss: Loss, split: Split) -> Candidate:
    """Train one epoch a call."""
    dataset = minidl.Dataset(split, classes=CLASSES)

    def fit(epochs: int) -> None:
        fit_side_by_side(
            runs, dataset, loss, epochs=epochs, block_size=BLOCK, rng=0, evaluate_train=False
        )

    fit(0)  # evaluates before training
    return lambda: fit(len(runs[0].history)), len(split)


def plain_perceptron(x: Array, y: Array) -> Candidate:
    w = np.zeros((CLASSES, FEATURES + 1), x.dtype)
    x = np.hstack([x, np.ones((len(x), 1), x.dtype)])

    def epoch() -> None:
        for xi, yi in zip(x, y, strict=True):
            predicted = (w @ xi).argmax()
            if predicted != yi:
                w[yi] += xi
                w[predicted] -= xi

    return epoch, len(x)


def plain_logistic(x: Array, y: Array, settings: list[tuple[float, float]]) -> Candidate:
    x = np.hstack([x, np.ones((len(x), 1), x.dtype)])
    ws = [np.zeros((CLASSES, FEATURES + 1), x.dtype) for _ in settings]

    def epoch() -> None:
        for w, (lr, weight_decay) in zip(ws, settings, strict=True):
            for xi, yi in zip(x, y, strict=True):
                z = w @ xi
                p = np.exp(z - z.max())
                p /= p.sum()
                p[yi] -= 1
                w -= lr * (np.outer(p, xi) + weight_decay * w)

    return epoch, len(x)


def plain_mlp(x: Array, y: Array) -> Candidate:
    rng = np.random.default_rng(0)
    w1 = rng.normal(0.1, 0.1, (HIDDEN, FEATURES)).astype(x.dtype)
    w2 = rng.normal(0.1, 0.1, (CLASSES, HIDDEN)).astype(x.dtype)
    b1, b2, lr = np.zeros(HIDDEN, x.dtype), np.zeros(CLASSES, x.dtype), 1e-3

    def epoch() -> None:
        for xi, yi in zip(x, y, strict=True):
            z = w1 @ xi + b1
            h = np.maximum(z, 0)
            logits = w2 @ h + b2
            p = np.exp(logits - logits.max())
            p /= p.sum()
            p[yi] -= 1
            dz = (w2.T @ p) * (z > 0)
            w2[...] -= lr * np.outer(p, h)
            b2[...] -= lr * p
            w1[...] -= lr * np.outer(dz, xi)
            b1[...] -= lr * dz

    return epoch, len(x)


def torch_perceptron(x: Array, y: Array) -> Candidate:
    xs, ys = torch.from_numpy(x), y.tolist()
    w, b = torch.zeros(CLASSES, FEATURES, dtype=xs.dtype), torch.zeros(CLASSES, dtype=xs.dtype)

    def epoch() -> None:
        for xi, yi in zip(xs, ys, strict=True):
            predicted = int(torch.addmv(b, w, xi).argmax())
            if predicted != yi:
                w[yi] += xi
                w[predicted] -= xi
                b[yi] += 1
                b[predicted] -= 1

    return epoch, len(x)


def torch_sgd(
    layers: Callable[[], Any], x: Array, y: Array, settings: list[tuple[float, float]]
) -> Candidate:
    """Run the usual training loop, once for each setting."""
    xs, ys = torch.from_numpy(x), torch.from_numpy(y)
    models = [layers() for _ in settings]
    loss = torch.nn.CrossEntropyLoss()
    optimizers = [
        torch.optim.SGD(model.parameters(), lr, weight_decay=weight_decay)
        for model, (lr, weight_decay) in zip(models, settings, strict=True)
    ]

    def epoch() -> None:
        for model, optimizer in zip(models, optimizers, strict=True):
            for i in range(len(ys)):
                optimizer.zero_grad()
                loss(model(xs[i : i + 1]), ys[i : i + 1]).backward()
                optimizer.step()

    return epoch, len(x)


def torch_mlp() -> Any:
    return torch.nn.Sequential(
        torch.nn.Linear(FEATURES, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, CLASSES)
    )


def jax_scan(case: str, x: Array, y: Array, settings: list[tuple[float, float]]) -> Candidate:
    """Run one jitted scan over the examples a call, with vmap over the settings."""
    import jax
    import jax.numpy as jnp

    sizes = [FEATURES, HIDDEN, CLASSES] if case == "MLP" else [FEATURES, CLASSES]
    key = np.random.default_rng(0)
    start = [
        (jnp.asarray(key.normal(0.1, 0.1, (i, o)), x.dtype), jnp.zeros(o, x.dtype))
        for i, o in itertools.pairwise(sizes)
    ]

    def value(weights: Any, xi: Any, yi: Any) -> Any:
        for w, b in weights[:-1]:
            xi = jax.nn.relu(xi @ w + b)
        w, b = weights[-1]
        z = xi @ w + b
        if case == "perceptron":
            return z.max() - z[yi]
        return jax.nn.logsumexp(z) - z[yi]

    def train(weights: Any, lr: Any, decay: Any, xs: Any, ys: Any) -> Any:
        def step(w: Any, example: Any) -> Any:
            g = jax.grad(value)(w, *example)
            return jax.tree_util.tree_map(lambda p, d: p - lr * (d + decay * p), w, g), None

        return jax.lax.scan(step, weights, (xs, ys))[0]

    many = jax.jit(jax.vmap(train, in_axes=(None, 0, 0, None, None)))
    xs, ys = jnp.asarray(x), jnp.asarray(y)
    lrs, decays = (jnp.asarray(v, x.dtype) for v in zip(*settings, strict=True))
    return lambda: jax.block_until_ready(many(start, lrs, decays, xs, ys)), len(x)


def measure(rounds: int, jax: bool) -> dict[str, Any]:
    letters = minidl.load_dataset("letters", progress=True).train
    split = Split(np.array(letters.x), letters.y, letters.scale)
    floats = split.rows(slice(JAX_SAMPLE)), split.y[:JAX_SAMPLE]
    x, y = floats[0][:SAMPLE], floats[1][:SAMPLE]
    x64 = x.astype(np.float64)
    ce, one = minidl.CrossEntropy(), [(1e-4, 1e-5)]

    def logistic(settings: list[tuple[float, float]]) -> dict[str, Candidate]:
        runs = [OnlineRun(linear("float32"), lr, weight_decay) for lr, weight_decay in settings]
        return {
            "minidl": ours(runs, ce, split),
            "NumPy loop": plain_logistic(x, y, settings),
            "torch": torch_sgd(lambda: torch.nn.Linear(FEATURES, CLASSES), x, y, settings),
        }

    cases: dict[str, tuple[list[tuple[float, float]], dict[str, Candidate]]] = {
        "perceptron, float64": (
            [],
            {
                "minidl": ours([OnlineRun(linear("float64"), 1.0)], minidl.Perceptron(), split),
                "NumPy loop": plain_perceptron(x64, y),
                "torch": torch_perceptron(x64, y),
            },
        ),
        "perceptron": (
            [(1.0, 0.0)],
            {
                "minidl": ours([OnlineRun(linear("float32"), 1.0)], minidl.Perceptron(), split),
                "NumPy loop": plain_perceptron(x, y),
                "torch": torch_perceptron(x, y),
            },
        ),
        "logistic regression": (one, logistic(one)),
        "six logistic regressions": (GRID, logistic(GRID)),
        "MLP": (
            [(1e-3, 0.0)],
            {
                "minidl": ours([OnlineRun(mlp("float32"), 1e-3)], ce, split),
                "NumPy loop": plain_mlp(x, y),
                "torch": torch_sgd(torch_mlp, x, y, [(1e-3, 0.0)]),
            },
        ),
    }
    table = Table(
        ["case", "minidl", "minimum", "NumPy loop", "torch", "jax", "torch / minidl"],
        "microseconds an example (medians, and minidl's minimum), float32, one thread",
    )
    figures: dict[str, Any] = {}
    for case, (settings, candidates) in cases.items():
        if jax and settings:
            candidates["jax"] = jax_scan(case, *floats, settings)
        calls = {name: call for name, (call, _) in candidates.items()}
        times = alternate(calls, rounds=rounds, calls=1)
        micros = {
            name: {
                "median": 1e6 * t.median / candidates[name][1],
                "minimum": 1e6 * t.minimum / candidates[name][1],
            }
            for name, t in times.items()
        }
        shown = {k: f"{v['median']:.1f}" for k, v in micros.items()}
        mine = micros["minidl"]
        ratio = micros["torch"]["median"] / mine["median"]
        least = f"{mine['minimum']:.1f}"
        cells = [shown["NumPy loop"], shown["torch"], shown.get("jax"), f"{ratio:.1f}"]
        table.add(case, shown["minidl"], least, *cells)
        figures[case] = {"torch / minidl": ratio, **micros}
    table.show()
    return figures


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="timings of each candidate (7)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    jax = importlib.util.find_spec("jax") is not None
    if not jax:
        print("JAX is not installed, so it is left out")
    write_json(args.out / "online.json", measure(args.rounds, jax))


if __name__ == "__main__":
    run_main(main)
