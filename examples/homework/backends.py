"""Training by minidl, by PyTorch or by both, and from PyTorch's random numbers."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence

from minidl.checks import Rng
from minidl.history import History
from minidl.parity.torch_random import TorchRandom
from minidl.training import fit
from minidl.view.cli import Parser, int_argument
from minidl.view.plots import Panel, line_plot

CURVES = ("train_loss", "valid_loss", "valid_accuracy")


def add_parity_flags(parser: Parser) -> None:
    """Add ``--seed`` or ``--seed-like``, and ``--parity``."""
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int_argument("seed", low=0), default=42)
    seeds.add_argument(
        "--seed-like",
        dest="seed",
        type=_seed_like,
        metavar="torch:SEED",
        help="the initial weights and batches of a PyTorch script with this seed",
    )
    parser.add_argument(
        "--parity",
        dest="backend",
        action="store_const",
        const="both",
        default="numpy",
        help="train with PyTorch too and draw the two over each other",
    )


def fit_with(backend: str) -> Callable[..., History]:
    """Return ``minidl.fit``, or the same training computed by PyTorch."""
    if backend == "numpy":
        return fit
    from minidl.parity.torch_model import fit as fit_with_torch

    return fit_with_torch


def new_rng(seed: int | str) -> Rng:
    """Return a seed as it is, and for ``"torch:42"`` a new stream of PyTorch's numbers."""
    return seed if isinstance(seed, int) else TorchRandom(int(seed.removeprefix("torch:")))


def differences(ours: History, theirs: History) -> dict[str, float]:
    """Return the largest difference of each curve over the epochs."""
    return {
        name: max(abs(a - b) for a, b in zip(ours.column(name), theirs.column(name), strict=True))
        for name in CURVES
    }


def plot_parity(path: str | os.PathLike[str], ours: History, theirs: History, title: str) -> None:
    """Draw the curves of both libraries over each other, with their largest differences."""
    panels = [
        Panel(
            {
                "minidl": (ours.column("epoch"), ours.column(name)),
                "PyTorch": (theirs.column("epoch"), theirs.column(name)),
            },
            "epoch",
            f"{name.replace('train', 'training').replace('valid', 'validation').replace('_', ' ')} "
            f"({'nats' if name.endswith('loss') else 'share of examples'})",
            f"largest difference {difference:.2g}",
            dashed=("PyTorch",),
        )
        for name, difference in differences(ours, theirs).items()
    ]
    line_plot(path, *panels, title=title)


def print_parity(pairs: Sequence[tuple[History, History]]) -> None:
    """Print the largest differences between the libraries over all networks."""
    gaps = [differences(ours, theirs) for ours, theirs in pairs]
    print(f"minidl beside PyTorch, the largest differences over {len(gaps)} network(s):")
    for name in CURVES:
        print(f"  {name.replace('_', ' '):<16}{max(gap[name] for gap in gaps):.2g}")


def _seed_like(text: str) -> str:
    """Parse ``torch:`` and a seed; an argparse type."""
    library, _, seed = text.partition(":")
    if library != "torch" or not seed.removeprefix("-").isdecimal():
        raise argparse.ArgumentTypeError(f"expected torch:SEED, as torch:42, got {text!r}")
    try:
        TorchRandom(int(seed))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return f"torch:{int(seed)}"
