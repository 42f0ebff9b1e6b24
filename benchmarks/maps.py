"""Maps onto the simplex and their losses, forward and backward: minidl beside PyTorch and entmax.

    python benchmarks/maps.py

Logits of standard deviation 2 give small supports, as in a trained model; 0.1 gives large ones, as
at the start of training. entmax sorts in part (k=100) where there are many classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from problems import Case, Mapping
from timing import Rounds, Task

from minidl.checks import Array
from minidl.view.cli import run_main

UNIT, FACTOR = "microseconds", 1e6
ROUNDS = Rounds(least=7, share=0.1)
SIZES = ((64, 26), (4096, 26), (64, 1000), (64, 32_000))
DENSE, SPARSE = ("softmax", "relumax"), ("sparsemax", "entmax15")
PARTIAL = 100


def cases(full: bool) -> list[Case]:
    return [
        {"what": what, "n": n, "K": k, "scale": scale}
        for scale in ((2.0, 0.1) if full else (2.0,))
        for n, k in (SIZES if full else SIZES[:3])
        for name in (*DENSE, *SPARSE)
        for what in (name, f"{name} loss")
    ]


def takes_part(name: str, case: Case, full: bool) -> bool:
    """Return whether a contestant has the map: entmax the sparse ones."""
    if case["what"].removesuffix(" loss") in DENSE:
        return name in ("minidl", "PyTorch")
    return name in ("minidl", "entmax") or (name.startswith("entmax k") and case["K"] > PARTIAL)


problem = Mapping


def ours(problem: Mapping) -> Task:
    """Call a map and its ``vjp``, or a loss."""
    both = partial(problem.both, problem.z, problem.dp)
    return Task(both, both)


def pytorch(problem: Mapping) -> Task:
    """Differentiate PyTorch's softmax and cross-entropy, and a relumax written with it."""
    import torch

    label = torch.from_numpy(problem.y)

    def relumax(z: Any) -> Any:
        u = torch.relu(z - z.max(dim=-1, keepdim=True).values + problem.b)
        return u / u.sum(dim=-1, keepdim=True)

    def smoothed(z: Any) -> Any:
        p = relumax(z).gather(1, label[:, None])
        return -torch.log((p + problem.eps) / (1 + problem.eps * z.shape[1])).mean()

    functions: dict[str, Callable[[Any], Any]] = {
        "softmax": lambda z: torch.softmax(z, -1),
        "relumax": relumax,
        "softmax loss": lambda z: torch.nn.functional.cross_entropy(z, label),
        "relumax loss": smoothed,
    }
    return differentiated(problem, functions[problem.what])


def by_entmax(problem: Mapping, *, k: int | None = None) -> Task:
    """Differentiate the maps and losses of the package entmax; with ``k``, by its partial sort."""
    import entmax
    import torch

    label = torch.from_numpy(problem.y)
    function = getattr(entmax, problem.what.replace(" ", "_"))
    if problem.loss is None:
        return differentiated(problem, lambda z: function(z, dim=-1, k=k))
    return differentiated(problem, lambda z: function(z, label, k=k).mean())


def differentiated(problem: Mapping, function: Callable[[Any], Any]) -> Task:
    """Return the task of a forward and a backward pass by PyTorch's autograd."""
    import torch

    z = torch.from_numpy(problem.z).requires_grad_()
    dp = None if problem.loss else torch.from_numpy(problem.dp)

    def both() -> tuple[Any, Any]:
        value = function(z)
        return value, torch.autograd.grad(value, z, dp)[0]

    def result() -> tuple[Array, Array]:
        value, grad = both()
        return np.asarray(value.detach()), np.asarray(grad)

    return Task(both, result)


CONTESTANTS = {
    "minidl": ours,
    "PyTorch": pytorch,
    "entmax": by_entmax,
    f"entmax k={PARTIAL}": partial(by_entmax, k=PARTIAL),
}

if __name__ == "__main__":
    from tables import main

    run_main(lambda: main("maps"))
