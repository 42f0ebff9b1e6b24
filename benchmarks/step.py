"""One training step of a network: minidl beside PyTorch, JAX, scikit-learn and a NumPy loop.

    python benchmarks/step.py           # widths 16 to 1024, about two minutes
    python benchmarks/step.py --full    # also batches, depths, classes, SGD, images with L2

784 inputs and 26 classes, float32, batch 64, one hidden layer and Adam where a case says nothing
else. minidl runs whole epochs of ``fit`` on uint8 pixels, which it converts batch by batch, inside
the time; the others have floats from the start. Everyone reads the loss of every step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from problems import CHECKED, SCALE, Case, Step, Textbook
from timing import Rounds, Task

import minidl
from minidl.checks import Array
from minidl.dataset import Split
from minidl.view.cli import run_main

UNIT, FACTOR = "microseconds a step", 1e6
THREADS = True
ROUNDS = Rounds()


def point(**changes: object) -> Case:
    """Return the base point with some coordinates changed."""
    return {"width": 64, "batch": 64, "depth": 1, "optimizer": "Adam", **changes}


def cases(full: bool) -> list[Case]:
    """Return the points along each axis."""
    if not full:
        return [point(width=width) for width in (16, 32, 64, 128, 256, 512, 1024)]
    return [
        *[point(width=width) for width in (16, 32, 64, 128, 256, 512, 1024, 2048)],
        *[point(batch=batch) for batch in (1, 16, 512)],
        *[point(classes=classes) for classes in (2, 1000)],
        *[point(depth=depth) for depth in (3, 5)],
        *[point(width=width, optimizer="SGD") for width in (64, 256)],
        # Dark pixels have gradient 0: with L2 their weights and moments become denormal numbers.
        *[point(width=256, l2=l2, letters=20_000) for l2 in (0.0, 1e-4)],
    ]


def takes_part(name: str, case: Case, full: bool) -> bool:
    """Return whether a contestant takes part: what compiles long only along the widths."""
    if name == "torch.compile":
        return full and case == point(width=case["width"]) and case["width"] <= 1024
    if "letters" in case:
        return name in ("minidl", "PyTorch fused", "PyTorch flush")
    return name != "PyTorch flush"


problem = Step


# ---------------------------------------------------------------- minidl, NumPy


def ours(problem: Step) -> Task:
    """Run one epoch of ``fit`` a call, without evaluation."""

    def epochs(rows: slice) -> tuple[Callable[[], object], minidl.Sequential]:
        model, history = problem.model(), minidl.History()
        part = Split(problem.x[rows], problem.y[rows], SCALE)
        dataset = minidl.Dataset(part, classes=problem.sizes[-1])
        kind = minidl.Adam if problem.optimizer == "Adam" else minidl.SGD
        optimizer = kind(model, problem.lr, weight_decay=problem.l2)
        fit = partial(
            minidl.fit, model, dataset, minidl.CrossEntropy(), optimizer,
            batch_size=problem.batch, rng=0, history=history, parts=("valid",),
        )  # fmt: skip
        fit(epochs=0)  # the record before training
        return lambda: fit(epochs=len(history)), model

    def result() -> list[Array]:
        epoch, model = epochs(slice(problem.order.size))
        epoch()
        return [p.value for _, p in model.named_parameters()]

    return Task(epochs(slice(None))[0], result, problem.parts)


def numpy_loop(problem: Step) -> Task:
    textbook, rng = Textbook(problem, "float32"), np.random.default_rng(0)

    def result() -> list[Array]:
        textbook.train(problem.order)
        return textbook.weights

    def epoch() -> None:
        textbook.train(rng.permutation(len(problem.y)).reshape(-1, problem.batch))

    return Task(epoch, result, problem.parts)


def products(problem: Step) -> Task:
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


# ---------------------------------------------------------------- PyTorch


def torch_network(weights: list[Array]) -> Any:
    """Return linear layers with these weights, and ReLU between them."""
    import torch

    layers: list[Any] = []
    for w, b in zip(weights[::2], weights[1::2], strict=True):
        layers += [torch.nn.Linear(*w.shape), torch.nn.ReLU()]
        with torch.no_grad():
            layers[-2].weight.copy_(torch.from_numpy(w.T.copy()))
            layers[-2].bias.copy_(torch.from_numpy(b))
    return torch.nn.Sequential(*layers[:-1])


def torch_weights(model: Any) -> list[Array]:
    return [p.detach().numpy().T.copy() for p in model.parameters()]


def pytorch(
    problem: Step, *, fused: bool = False, loader: bool = False, compiled: bool = False,
    flush: bool = False,
) -> Task:  # fmt: skip
    """Train on pixels that are float tensors from the start.

    ``loader`` takes batches from a DataLoader, as most scripts do; otherwise they are indexed,
    which is PyTorch's best case. ``compiled`` compiles the loss with its gradient; ``flush`` sets
    denormal numbers to zero.
    """
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    if compiled:
        torch.compiler.reset()
    model = torch_network(problem.weights)
    kind = torch.optim.Adam if problem.optimizer == "Adam" else torch.optim.SGD
    optimizer = kind(model.parameters(), problem.lr, weight_decay=problem.l2, fused=fused)
    x, y = torch.from_numpy(problem.floats()), torch.from_numpy(problem.y)
    from_loader = DataLoader(TensorDataset(x, y), batch_size=problem.batch, shuffle=True)
    cross_entropy = torch.nn.CrossEntropyLoss()

    def eager(inputs: Any, labels: Any) -> Any:
        return cross_entropy(model(inputs), labels)

    loss = torch.compile(eager) if compiled else eager

    def train(batches: Iterable[Any]) -> None:
        total = 0.0
        for inputs, labels in batches:
            optimizer.zero_grad()
            value = loss(inputs, labels)
            value.backward()
            optimizer.step()
            total += value.item()

    def indexed(order: Any) -> Iterator[Any]:
        for rows in order.split(problem.batch):
            yield x[rows], y[rows]

    def result() -> list[Array]:
        train(indexed(torch.from_numpy(problem.order.ravel())))
        return torch_weights(model)

    def epoch() -> None:
        torch.set_flush_denormal(flush)  # a setting of the processor, for all contestants
        train(from_loader if loader else indexed(torch.randperm(len(y))))
        torch.set_flush_denormal(False)

    return Task(epoch, result, problem.parts)


# ---------------------------------------------------------------- JAX


def jax_forward(weights: list[Any], x: Any) -> Any:
    """Return the logits of rows, or of one row."""
    import jax

    for w, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        x = jax.nn.relu(x @ w + b)
    return x @ weights[-2] + weights[-1]


def jax_scan(problem: Step) -> Task:
    """Run one jitted ``lax.scan`` over all steps of an epoch."""
    import jax
    import jax.numpy as jnp

    x, y, l2 = jnp.asarray(problem.floats()), jnp.asarray(problem.y), problem.l2

    def mean_loss(weights: list[Any], x: Any, y: Any) -> Any:
        logits = jax_forward(weights, x)
        return (jax.nn.logsumexp(logits, axis=1) - logits[jnp.arange(len(y)), y]).mean()

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

    scan = jax.jit(lambda state, order, lrs: jax.lax.scan(one_step, state, (order, lrs)))
    rng, steps = np.random.default_rng(0), problem.parts
    constant = jnp.full(steps, problem.lr, x.dtype)
    weights = [jnp.asarray(w) for w in problem.weights]
    zeros = [jnp.zeros_like(w) for w in weights]
    state = weights, zeros, zeros, jnp.zeros((), x.dtype)

    def result() -> list[Array]:
        # The program that is timed, with learning rate 0 after the steps of the check.
        order = np.resize(problem.order, (steps, problem.batch))
        lrs = constant.at[CHECKED:].set(0)
        return [np.asarray(w) for w in scan(state, jnp.asarray(order), lrs)[0][0]]

    def call() -> None:
        nonlocal state
        order = rng.permutation(len(y)).reshape(steps, -1)
        state, values = scan(state, jnp.asarray(order), constant)
        np.asarray(values)

    return Task(call, result, steps)


# ---------------------------------------------------------------- scikit-learn


def sklearn(problem: Step) -> Task:
    """Run one epoch of ``MLPClassifier.fit`` a call, with ``warm_start``."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    x, y, classes = problem.floats(), problem.y, np.arange(problem.sizes[-1])
    model = MLPClassifier(
        hidden_layer_sizes=problem.sizes[1:-1], alpha=problem.l2, batch_size=problem.batch,
        max_iter=1, warm_start=True, tol=0, solver=problem.optimizer.lower(),
        learning_rate_init=problem.lr, momentum=0, nesterovs_momentum=False,
        # It is divided by sqrt(1 - beta_2^t): in the first steps it is up to 30 times as large.
        epsilon=1e-9,
    )  # fmt: skip

    def fit(x: Array, y: Array) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # one epoch is all that is asked
            warnings.simplefilter("ignore", UserWarning)  # batches larger than the data
            model.fit(x, y)

    def result() -> list[Array]:
        # One example of each class makes the arrays, which then get the initial weights.
        fit(np.zeros((len(classes), x.shape[1]), x.dtype), classes)
        for have, want in zip(
            [*model.coefs_, *model.intercepts_], [*problem.weights[::2], *problem.weights[1::2]],
            strict=True,
        ):  # fmt: skip
            have[...] = want
        order = problem.order.ravel()
        model.set_params(shuffle=False)
        fit(x[order], y[order])
        model.set_params(shuffle=True)
        pairs = zip(model.coefs_, model.intercepts_, strict=True)
        return [array for pair in pairs for array in pair]

    return Task(lambda: fit(x, y), result, problem.parts)


CONTESTANTS = {
    "minidl": ours,
    "PyTorch DataLoader": partial(pytorch, loader=True),
    "PyTorch": pytorch,
    "PyTorch fused": partial(pytorch, fused=True),
    "PyTorch flush": partial(pytorch, fused=True, flush=True),
    "torch.compile": partial(pytorch, fused=True, compiled=True),
    "JAX": jax_scan,
    "scikit-learn": sklearn,
    "NumPy loop": numpy_loop,
    "matrix products": products,
}

if __name__ == "__main__":
    from tables import main

    run_main(lambda: main("step"))
