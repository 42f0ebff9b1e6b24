"""Time one training step, or whole epochs, beside PyTorch, JAX and scikit-learn on one thread.

    python benchmarks/step.py                      # steps at batch 64, Adam, five widths
    python benchmarks/step.py --epochs 10 --data ../shared/data/fashion-mnist

The second form trains on real images, where numbers decay to denormal ones, with and without
L2, and compares the last epoch with the first. All candidates take turns in one run. JAX and
scikit-learn are left out where they are not installed.
"""

from __future__ import annotations

from _timing import alternate, write_json  # isort: skip - pins threads before NumPy loads

import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_info

import minidl
from minidl.cli import Parser, run_main
from minidl.data import Split
from minidl.tables import Table

WIDTHS = (16, 32, 64, 128, 256)
CLASSES, FEATURES, BATCH = 26, 784, 64


def our_epochs(width: int, split: Split, l2: float = 0.0) -> Callable[[], object]:
    """Return a function that runs one epoch of ``fit``, without evaluation."""
    model = minidl.Sequential(
        minidl.Linear(FEATURES, width), minidl.ReLU(), minidl.Linear(width, CLASSES), rng=0
    )
    dataset = minidl.Dataset(split, classes=CLASSES)
    optimizer = minidl.Adam(model, 1e-3, weight_decay=l2)
    loss, history = minidl.CrossEntropy(), minidl.History()

    def fit(epochs: int) -> None:
        minidl.fit(
            model,
            dataset,
            loss,
            optimizer,
            epochs=epochs,
            batch_size=BATCH,
            rng=0,
            history=history,
            evaluate_train=False,
        )

    fit(0)  # the record before training
    return lambda: fit(len(history))


def torch_epochs(
    width: int, split: Split, l2: float = 0.0, *, fused: bool = False, loader: bool = False
) -> Callable[[], object]:
    """Return a function that runs one epoch in eager PyTorch, on pixels that are float tensors.

    By default batches are indexed from one tensor, PyTorch's best case; with ``loader`` they
    come from a DataLoader, as in the course's script.
    """
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, width), torch.nn.ReLU(), torch.nn.Linear(width, CLASSES)
    )
    loss = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, weight_decay=l2, fused=fused)
    x, y = torch.from_numpy(split.rows(slice(None))), torch.from_numpy(split.y)
    tensors = torch.utils.data.TensorDataset(x, y)
    from_loader = torch.utils.data.DataLoader(tensors, batch_size=BATCH, shuffle=True)

    def indexed() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = torch.randperm(len(y))
        for start in range(0, len(y), BATCH):
            rows = order[start : start + BATCH]
            yield x[rows], y[rows]

    def epoch() -> None:
        for inputs, labels in from_loader if loader else indexed():
            optimizer.zero_grad()
            value = loss(model(inputs), labels)
            value.backward()
            optimizer.step()
            value.item()  # fit reads the loss of every step too

    return epoch


def jax_epochs(width: int, split: Split) -> Callable[[], object]:
    """Return a function that runs one epoch in JAX: Adam in a compiled ``lax.scan``."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    x, y = jnp.asarray(split.rows(slice(None))), jnp.asarray(split.y)
    shapes = [(FEATURES, width), (width,), (width, CLASSES), (CLASSES,)]
    bounds = [FEATURES**-0.5] * 2 + [width**-0.5] * 2
    weights = [
        jnp.asarray(rng.uniform(-b, b, s), x.dtype) for s, b in zip(shapes, bounds, strict=True)
    ]
    zeros = [jnp.zeros_like(w) for w in weights]

    def loss(weights: Any, x: Any, y: Any) -> Any:
        w1, b1, w2, b2 = weights
        logits = jax.nn.relu(x @ w1 + b1) @ w2 + b2
        rows = jax.nn.logsumexp(logits, axis=1) - logits[jnp.arange(len(y)), y]
        return rows.mean()

    def step(state: Any, rows: Any) -> Any:
        w, m, v, t = state
        value, g = jax.value_and_grad(loss)(w, x[rows], y[rows])
        t = t + 1
        m = [0.9 * a + 0.1 * b for a, b in zip(m, g, strict=True)]
        v = [0.999 * a + 0.001 * b * b for a, b in zip(v, g, strict=True)]
        rate, scale = 1e-3 / (1 - 0.9**t), 1 / (1 - 0.999**t)
        w = [a - rate * b / (jnp.sqrt(c * scale) + 1e-8) for a, b, c in zip(w, m, v, strict=True)]
        return (w, m, v, t), value

    scan = jax.jit(lambda state, order: jax.lax.scan(step, state, order))
    state = weights, zeros, zeros, jnp.zeros((), x.dtype)

    def epoch() -> None:
        nonlocal state
        order = rng.permutation(len(y)).reshape(-1, BATCH)
        state, values = scan(state, jnp.asarray(order))
        np.asarray(values)

    return epoch


def sklearn_epochs(width: int, split: Split) -> Callable[[], object]:
    """Return a function that runs one epoch of scikit-learn's MLPClassifier."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    x, y = split.rows(slice(None)), split.y
    model = MLPClassifier((width,), alpha=0, batch_size=BATCH, max_iter=1, warm_start=True)

    def epoch() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # one epoch is all that is asked
            model.fit(x, y)

    return epoch


def measure_steps(rounds: int) -> dict[str, Any]:
    """Return microseconds of a training step on random pixels, and the ratio to eager PyTorch."""
    others = {"JAX": ("jax", jax_epochs), "scikit-learn": ("sklearn", sklearn_epochs)}
    for name, (module, _) in list(others.items()):
        if importlib.util.find_spec(module) is None:
            print(f"{name} is not installed, so it is left out")
            del others[name]
    rng = np.random.default_rng(0)
    steps = 200
    pixels = rng.integers(0, 256, (steps * BATCH, FEATURES), dtype=np.uint8)
    split = Split(pixels, rng.integers(0, CLASSES, len(pixels)), 1 / 256)
    table = Table(
        [
            *("width", "minidl", "torch", "fused Adam", "DataLoader", *others),
            *("ratio", "of minima"),
        ],
        "microseconds a step (median), batch 64, Adam, float32, one thread; ratio to torch",
    )
    figures: dict[str, Any] = {}
    for width in WIDTHS:
        candidates = {
            "minidl": our_epochs(width, split),
            "torch": torch_epochs(width, split),
            "torch fused": torch_epochs(width, split, fused=True),
            "torch DataLoader": torch_epochs(width, split, loader=True),
            **{name: make(width, split) for name, (_, make) in others.items()},
        }
        times = alternate(candidates, rounds=rounds, calls=1, parts=steps)
        ours, theirs = times["minidl"], times["torch"]
        ratio = ours.median / theirs.median
        least = ours.minimum / theirs.minimum
        micros = [f"{1e6 * t.median:.0f}" for t in times.values()]
        table.add(width, *micros, f"{ratio:.3f}", f"{least:.3f}")
        figures[str(width)] = {
            "ratio": ratio,
            "ratio of minima": least,
            **{k: {"median": t.median, "minimum": t.minimum} for k, t in times.items()},
        }
    table.show()
    return figures


def measure_epochs(data: str, epochs: int, width: int) -> dict[str, Any]:
    """Return seconds of the first and the last epoch on real images, with and without L2."""
    split = minidl.load_dataset(data).train
    table = Table(
        ["candidate", "L2", "first", "last", "last / first"],
        f"seconds an epoch on {data}, width {width}, {epochs} epochs",
    )
    figures: dict[str, Any] = {}
    for l2 in (0.0, 1e-4):
        for name, epoch, flush in (
            ("minidl", our_epochs(width, split, l2), False),
            ("torch", torch_epochs(width, split, l2), False),
            ("torch, set_flush_denormal", torch_epochs(width, split, l2), True),
        ):
            torch.set_flush_denormal(flush)
            seconds = []
            for _ in range(epochs):
                since = time.perf_counter()
                epoch()
                seconds.append(time.perf_counter() - since)
            torch.set_flush_denormal(False)
            ratio = seconds[-1] / seconds[0]
            table.add(name, f"{l2:g}", f"{seconds[0]:.2f}", f"{seconds[-1]:.2f}", f"{ratio:.2f}")
            figures[f"{name}, L2 {l2:g}"] = {"seconds": seconds, "last / first": ratio}
    table.show()
    return figures


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="of 200 steps each (15)")
    parser.add_argument("--epochs", type=int, help="measure whole epochs in place of steps")
    parser.add_argument("--data", default="letters", help="for --epochs: .npz, IDX folder, name")
    parser.add_argument("--width", type=int, default=256, help="for --epochs (256)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    kernels = {p["architecture"] for p in threadpool_info() if p["user_api"] == "blas"}
    print(f"NumPy's OpenBLAS uses its kernels for {', '.join(map(str, kernels))}")
    if args.epochs:
        figures = measure_epochs(args.data, args.epochs, args.width)
        write_json(args.out / "epochs.json", figures)
    else:
        write_json(args.out / "step.json", measure_steps(args.rounds))


if __name__ == "__main__":
    run_main(main)
