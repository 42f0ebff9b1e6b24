"""Time the maps onto the simplex and their losses against PyTorch and entmax, on one thread.

    python benchmarks/simplex.py

Each time is that of a forward and a backward pass in float32; candidates take turns in one process.
With more than 100 classes, entmax also runs with ``k=100``, its partial sort. Logits of standard
deviation 2 give small supports, as in a trained model; 0.1 gives large ones, as at the start of
training.
"""

from __future__ import annotations

from _timing import Timing, alternate, write_json  # isort: skip - pins threads before NumPy loads

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import entmax
import numpy as np
import torch

import minidl
from minidl.cli import Parser, run_main
from minidl.simplex_map import SimplexMap
from minidl.tables import Table

SIZES = ((64, 26), (4096, 26), (64, 1000), (64, 32_000))
B = 2.0

Candidates = dict[str, Callable[[], object]]


def torch_relumax(z: torch.Tensor) -> torch.Tensor:
    """Compute relumax, differentiated by autograd."""
    u = torch.relu(z - z.max(dim=-1, keepdim=True).values + B)
    return u / u.sum(dim=-1, keepdim=True)


def cases(n: int, k: int, scale: float) -> dict[str, Candidates]:
    """Return the candidates of each measurement: minidl first, then the others."""
    rng = np.random.default_rng(0)
    z, dp = (scale * rng.normal(size=(n, k))).astype("f"), rng.normal(size=(n, k)).astype("f")
    y = rng.integers(0, k, n)
    t, dt, label = torch.from_numpy(z).requires_grad_(), torch.from_numpy(dp), torch.from_numpy(y)

    def our_map(map: SimplexMap) -> Callable[[], object]:
        return lambda: map.vjp(map(z), dp)

    def their_map(map: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(map(t), t, dt)

    def our_loss(loss: minidl.FenchelYoung | minidl.SmoothedNLL) -> Callable[[], object]:
        return lambda: loss(z, y)

    def their_loss(values: Callable[[], torch.Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(values().mean(), t)

    def smoothed() -> torch.Tensor:
        p = torch_relumax(t).gather(1, label[:, None])
        return -torch.log((p + 0.01) / (1 + 0.01 * k))

    result: dict[str, Candidates] = {
        "softmax": {
            "minidl": our_map(minidl.softmax),
            "torch": their_map(lambda t: torch.softmax(t, -1)),
        },
        "relumax": {
            "minidl": our_map(minidl.relumax(B)),
            "torch": their_map(torch_relumax),
        },
        "softmax loss": {
            "minidl": our_loss(minidl.CrossEntropy()),
            "torch": their_loss(lambda: torch.nn.functional.cross_entropy(t, label)),
        },
        "relumax loss": {
            "minidl": our_loss(minidl.SmoothedNLL(minidl.relumax(B), 0.01)),
            "torch": their_loss(smoothed),
        },
    }
    for name, map, their, loss in (
        ("sparsemax", minidl.sparsemax, entmax.sparsemax, entmax.sparsemax_loss),
        ("entmax15", minidl.entmax15, entmax.entmax15, entmax.entmax15_loss),
    ):
        result[name] = {"minidl": our_map(map)}
        result[f"{name} loss"] = {"minidl": our_loss(minidl.FenchelYoung(map))}
        for sort, limit in {"entmax": None, "entmax k=100": 100}.items():
            if limit is None or k > limit:
                result[name][sort] = their_map(partial(their, dim=-1, k=limit))
                result[f"{name} loss"][sort] = their_loss(partial(loss, t, label, k=limit))
    return result


def calls_in_10_ms(call: Callable[[], object]) -> int:
    """Return the number of calls that take about 10 ms, estimated from one call after a warm-up."""
    alternate({"": call}, rounds=1, calls=1)
    seconds = alternate({"": call}, rounds=1, calls=1)[""].minimum
    return max(1, min(200, int(0.01 / seconds)))


def measure(rounds: int, scale: float) -> list[dict[str, Any]]:
    """Measure microseconds for forward and backward, and ratios to the fastest of the others."""
    table = Table(
        ["what", "n", "K", "minidl", "torch", "entmax", "entmax k=100", "ratio", "of minima"],
        f"microseconds, forward and backward (median), float32, one thread, logits of sd {scale:g}",
    )
    figures = []
    for n, k in SIZES:
        for what, candidates in cases(n, k, scale).items():
            times = alternate(candidates, rounds=rounds, calls=calls_in_10_ms(candidates["minidl"]))
            ours, *others = times.values()
            ratio = ours.median / min(t.median for t in others)
            least = ours.minimum / min(t.minimum for t in others)
            cells = [micros(times.get(name)) for name in table.columns[3:7]]
            table.add(what, n, k, *cells, f"{ratio:.2f}", f"{least:.2f}")
            figures.append(
                {
                    "what": what,
                    "n": n,
                    "K": k,
                    "scale": scale,
                    "ratio": ratio,
                    "ratio of minima": least,
                    **{a: {"median": t.median, "minimum": t.minimum} for a, t in times.items()},
                }
            )
        table.end_group()
    table.show()
    return figures


def micros(timing: Timing | None) -> str | None:
    """Format a cell of the table."""
    return None if timing is None else f"{1e6 * timing.median:.0f}"


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="of each candidate in turn (15)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    figures = [f for scale in (2.0, 0.1) for f in measure(args.rounds, scale)]
    write_json(args.out / "simplex.json", figures)


if __name__ == "__main__":
    run_main(main)
