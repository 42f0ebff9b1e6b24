"""Networks of Questions 2 and 3: flags, training by minidl or PyTorch, and the run of a grid."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import minidl
from homework.flags import add_axis, base_parser, load_data, note_generated
from homework.models import feed_forward
from homework.runs import run_points, shared
from minidl import Dataset, History, Layer, Loss, Sequential, TorchRandom
from minidl.checks import Rng, require
from minidl.grid.points import Grid, Point, Result, keeping
from minidl.view.cli import Parser, int_argument
from minidl.view.plots import Panel, line_plot

ACTIVATIONS: Mapping[str, type[Layer]] = {"relu": minidl.ReLU, "tanh": minidl.Tanh}
OPTIMIZERS: Mapping[str, Any] = {"adam": minidl.Adam, "sgd": minidl.SGD}
QUICK_EPOCHS, FULL_EPOCHS = 15, 30
PARITY = {
    "train_loss": "training loss (nats)",
    "valid_loss": "validation loss (nats)",
    "valid_accuracy": "validation accuracy (share of examples)",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that all networks of an experiment share."""

    dataset: Dataset
    epochs: int
    batch_size: int
    optimizer: str
    activation: str
    seed: int | str
    dtype: str
    backend: str

    def rng(self) -> Rng:
        """Return the seed, or for ``"torch:42"`` a new stream of PyTorch's random numbers."""
        if isinstance(self.seed, int):
            return self.seed
        return TorchRandom(int(self.seed.removeprefix("torch:")))

    def network(self, widths: Iterable[int], dropout: float) -> Sequential:
        """Return a new network with these widths of hidden layers."""
        options: dict[str, Any] = {"dropout": dropout, "rng": self.rng(), "dtype": self.dtype}
        return feed_forward(self.dataset, widths, ACTIVATIONS[self.activation], **options)

    def fit(
        self, model: Layer, loss: Loss, lr: float, l2: float, *, optimizer: str = "", **options: Any
    ) -> History:
        """Train a network by ``minidl.fit``, or the same computed by PyTorch."""
        update = OPTIMIZERS[optimizer or self.optimizer](model, lr, weight_decay=l2)
        options |= {"epochs": self.epochs, "batch_size": self.batch_size, "rng": self.rng()}
        fit: Callable[..., History] = minidl.fit
        if self.backend == "torch":
            from minidl.parity.torch_model import fit
        return fit(model, self.dataset, loss, update, **options)


Trained = tuple[Sequential, History, dict[str, Any]]  # and the figures to tabulate


def make_parser(doc: str, out: str) -> Parser:
    """Return a parser with the flags of all experiments with feed-forward networks."""
    epochs = f"default {QUICK_EPOCHS}, with --full {FULL_EPOCHS}"
    parser = base_parser(doc, out, epochs=epochs, seed=False)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="relu")
    parser.add_argument("--batch-size", type=int_argument("batch size"), default=64)
    add_parity_flags(parser)
    return parser


def add_axes(
    parser: Parser, widths: list[int], rates: list[float], dropouts: list[float], l2s: list[float]
) -> None:
    """Add the axes of a grid of networks, with these values by default."""
    add_axis(parser, "--widths", widths)
    add_axis(parser, "--learning-rates", rates, low=0, open_low=True)
    add_axis(parser, "--dropouts", dropouts, low=0, high=1)
    add_axis(parser, "--l2s", l2s, low=0)


def add_parity_flags(parser: Parser) -> None:
    """Add ``--seed`` or ``--seed-like``, and ``--parity``."""
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int_argument("seed", low=0), default=42)
    text = "the initial weights and batches of a PyTorch script with this seed"
    seeds.add_argument("--seed-like", dest="seed", type=seed_like, metavar="torch:SEED", help=text)
    text = "train with PyTorch too and draw the two over each other"
    parser.set_defaults(backend="numpy")
    parser.add_argument("--parity", dest="backend", action="store_const", const="both", help=text)


def seed_like(text: str) -> str:
    """Parse ``torch:`` and a seed; an argparse type."""
    library, _, seed = text.partition(":")
    if library != "torch" or not seed.removeprefix("-").isdecimal():
        raise argparse.ArgumentTypeError(f"expected torch:SEED, as torch:42, got {text!r}")
    try:
        TorchRandom(int(seed))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return f"torch:{int(seed)}"


def run_grid(
    grid: Grid, train: Callable[..., Trained], args: argparse.Namespace
) -> tuple[Dataset, list[Result]]:
    """Load the data, and call ``train`` with ``settings`` and each point, as keyword arguments."""
    if args.backend != "numpy":
        require("torch", "parity")
    dataset = load_data(args.data, full=args.full)
    epochs = args.epochs or (FULL_EPOCHS if args.full else QUICK_EPOCHS)
    print(f"{dataset}; {len(grid)} networks, {epochs} epochs each", flush=True)
    note_generated(dataset)
    flags = ("batch_size", "optimizer", "activation", "seed", "dtype", "backend")
    with shared(dataset, args) as mapped:
        settings = Settings(mapped, epochs, **{name: getattr(args, name) for name in flags})
        models = (args.out / "models").absolute()  # workers may have another working folder
        task = partial(train_point, train=train, settings=settings, models=models)
        return dataset, run_points(grid, task, args, dataset=dataset, cost=cost)


def train_point(
    train: Callable[..., Trained], settings: Settings, models: Path, **point: Any
) -> dict[str, Any]:
    """Train and save the network of one point; ``"beside"`` is its history by PyTorch, if both."""
    ours, theirs = (dataclasses.replace(settings, backend=b) for b in ("numpy", "torch"))
    model, history, figures = train(**point, settings=ours)
    values = {**figures, "history": history.to_dict()}
    if settings.backend == "both":
        values["beside"] = train(**point, settings=theirs)[1].to_dict()
    with keeping(values):
        file = models / f"{Grid.identifier(point)}.npz"
        minidl.Checkpoint(file).save(model=model, history=history)
    return values


def cost(point: Point) -> float:
    """Return the relative duration of a training: a line through measured steps."""
    width = int(point["width"])
    return 20_000 + 800 * width + (int(point.get("layers", 1)) - 1) * (width**2 + 5_000)


def show_parity(path: Path, pairs: Sequence[tuple[History, History]], title: str) -> None:
    """Draw the first pair of histories, by minidl and by PyTorch; print the differences of all."""
    panels = []
    print(f"minidl beside PyTorch, the largest differences over {len(pairs)} network(s):")
    for name, label in PARITY.items():
        columns = [[history.column(name) for history in pair] for pair in pairs]
        gaps = [float(np.abs(np.subtract(a, b)).max()) for a, b in columns]
        print(f"  {name.replace('_', ' '):<16}{max(gaps):.2g}")
        ours, theirs = ((range(len(values)), values) for values in columns[0])
        heading, curves = f"largest difference {gaps[0]:.2g}", {"minidl": ours, "PyTorch": theirs}
        panels.append(Panel(curves, "epoch", label, heading, dashed=("PyTorch",)))
    line_plot(path, *panels, title=title)
