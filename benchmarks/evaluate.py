"""Loss and accuracy over a whole part of a data set: minidl beside PyTorch and JAX.

    python benchmarks/evaluate.py

uint8 pixels are converted chunk by chunk by everyone; float32 rows are ready.
"""

from __future__ import annotations

from problems import Case, Evaluation
from step import jax_forward, torch_network
from timing import Rounds, Task

import minidl
from minidl.view.cli import run_main

UNIT, FACTOR = "milliseconds", 1e3
THREADS = True
ROUNDS = Rounds(least=7, share=0.5)
CHUNK = 4096  # the rows at a time of the others: the fastest of some sizes that were tried


def cases(full: bool) -> list[Case]:
    widths, rows = ((16, 64, 256, 1024), 20_800) if full else ((64, 256), 10_400)
    return [{"width": w, "x": x, "rows": rows} for w in widths for x in ("uint8", "float32")]


problem = Evaluation


def ours(problem: Evaluation) -> Task:
    loss, model, part = minidl.CrossEntropy(), problem.model, problem.part
    return Task(
        lambda: minidl.evaluate(model, part, loss),
        lambda: minidl.evaluate(model, part, loss)["loss"],
    )


def pytorch(problem: Evaluation) -> Task:
    """Sum loss and correct rows over chunks, without gradients."""
    import torch

    model, y = torch_network(problem.weights), torch.from_numpy(problem.part.y)
    x = torch.from_numpy(problem.part.x)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def loss_and_accuracy() -> float:
        total = correct = 0.0
        for rows, labels in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
            if rows.dtype == torch.uint8:
                rows = rows.to(torch.float32).mul_(problem.part.scale)
            logits = model(rows)
            total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            correct += (logits.argmax(1) == labels).sum().item()
        return total / len(y)

    return Task(loss_and_accuracy, loss_and_accuracy)


def jax_jit(problem: Evaluation) -> Task:
    """Sum loss and correct rows over chunks in a jitted function."""
    import jax
    import jax.numpy as jnp

    weights = [jnp.asarray(w) for w in problem.weights]
    x, y = jnp.asarray(problem.part.x), jnp.asarray(problem.part.y)

    @jax.jit  # type: ignore[untyped-decorator]
    def sums(weights: list[object], rows: object, labels: object) -> object:
        if rows.dtype == jnp.uint8:  # type: ignore[attr-defined]
            rows = rows.astype(jnp.float32) * problem.part.scale  # type: ignore[attr-defined]
        logits = jax_forward(weights, rows)
        own = logits[jnp.arange(len(labels)), labels]  # type: ignore[arg-type]
        losses = jax.nn.logsumexp(logits, axis=1) - own
        return losses.sum(), (logits.argmax(axis=1) == labels).sum()

    chunks = [(x[i : i + CHUNK], y[i : i + CHUNK]) for i in range(0, len(y), CHUNK)]

    def loss_and_accuracy() -> float:
        found = jax.device_get([sums(weights, *chunk) for chunk in chunks])
        return float(sum(s for s, _ in found)) / len(y)

    return Task(loss_and_accuracy, loss_and_accuracy)


CONTESTANTS = {
    "minidl": ours,
    "PyTorch": pytorch,
    "JAX": jax_jit,
}

if __name__ == "__main__":
    from tables import main

    run_main(lambda: main("evaluate"))
