"""The targets, as data, and whether a run meets them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.results import Results, Row

PYTORCH = ("PyTorch DataLoader", "PyTorch", "PyTorch fused", "torch.compile")


@dataclass(frozen=True)
class Target:
    """A bound on the ratio ours / theirs of a case."""

    text: str
    workload: str
    case: Mapping[str, Any]
    against: tuple[str, ...]
    """The contestants, of which the fastest counts."""
    at_most: float
    threads: int = 1
    is_share: bool = False
    """Whether the figure is theirs / ours, which is to be at least ``at_most``."""


@dataclass(frozen=True)
class Verdict:
    """A target, and the ratio that was measured; None if it was not."""

    target: Target
    ratio: float | None = None
    against: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if it was not measured."""
        if self.ratio is None:
            return None
        bound = self.target.at_most
        return self.ratio >= bound if self.target.is_share else self.ratio <= bound

    @property
    def word(self) -> str:
        """The verdict, with the distance of a miss."""
        if self.ratio is None:
            return "not measured"
        if self.met:
            return "met"
        return f"missed by {abs(self.ratio - self.target.at_most):.3f}"


def steps(
    widths: Mapping[int, float], text: str, against: tuple[str, ...], threads: int = 1
) -> Any:
    """Yield targets of training steps with Adam, batch 64, one hidden layer."""
    for width, at_most in widths.items():
        case = {"width": width, "batch": 64, "depth": 1, "optimizer": "Adam"}
        yield Target(f"{text}, width {width}", "step", case, against, at_most, threads)


def targets() -> Iterator[Target]:
    """Yield all targets of the project."""
    yield from steps(
        {16: 0.35, 32: 0.45, 64: 0.55, 128: 0.80, 256: 0.85},
        "step, 1 thread, best of PyTorch", PYTORCH,
    )  # fmt: skip
    yield from steps(
        {**dict.fromkeys((16, 32, 64, 128, 256), 0.95), **dict.fromkeys((512, 1024, 2048), 1.05)},
        "step, 2 threads, best of PyTorch", PYTORCH, threads=2,
    )  # fmt: skip
    yield from steps(
        {**dict.fromkeys((16, 32, 64), 1.05), **dict.fromkeys((128, 256), 1.3)},
        "step, 1 thread, JAX jit + scan", ("JAX",),
    )  # fmt: skip
    yield from steps(
        {16: 0.5, 32: 0.5, 64: 0.5, 256: 0.65}, "step, 1 thread, scikit-learn", ("scikit-learn",)
    )
    for model in ("logistic regression", "MLP"):
        case = {"model": model}
        yield Target(f"online, {model}, PyTorch", "online", case, ("PyTorch",), 0.06)
    for model in ("perceptron", "logistic regression", "six logistic regressions", "MLP"):
        yield Target(f"online, {model}, JAX", "online", {"model": model}, ("JAX",), 0.95)
    for model in ("perceptron, float64", "perceptron"):
        case = {"model": model}
        yield Target(f"online, {model}, NumPy loop", "online", case, ("NumPy loop",), 1.1)
    grid = {"networks": 80, "processes": 2}
    yield Target("grid, PyTorch with DataLoader", "grid", grid, ("PyTorch DataLoader",), 0.45)
    yield Target("grid, PyTorch indexed", "grid", grid, ("PyTorch",), 0.6)
    for x in ("uint8", "float32"):
        yield Target(
            f"evaluate, width 256, {x}, share of the matrix products", "evaluate",
            {"width": 256, "x": x}, ("matrix products",), 0.85, is_share=True,
        )  # fmt: skip
    for figure in ("seconds", "megabytes"):
        yield Target(f"import, {figure}, NumPy", "imports", {"figure": figure}, ("NumPy",), 1.5)


def judge(target: Target, row: Row | None) -> Verdict:
    """Compare a target with the row of its case."""
    found = row["contestants"] if row else {}
    known = [name for name in target.against if "ratio" in found.get(name, {})]
    if not known or "minidl" not in found:
        return Verdict(target)
    best = min(known, key=lambda name: found[name]["median"])
    ratio = found[best]["ratio"]
    return Verdict(target, 1 / ratio if target.is_share else ratio, best)


def verdicts(results: Results) -> list[Verdict]:
    """Judge all targets."""
    return [judge(t, results.find(t.workload, t.threads, dict(t.case))) for t in targets()]
