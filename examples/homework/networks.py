"""Grids of feed-forward networks: settings, and the run of a whole grid."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from homework.backends import add_parity_flags, new_rng
from homework.data import load_data, note_generated
from homework.flags import base_parser
from homework.grids import run_points, shared
from minidl.activations import ReLU, Tanh
from minidl.checks import Rng, require
from minidl.dataset import Dataset
from minidl.grid.points import Grid, Point, Result, keeping
from minidl.history import History
from minidl.layer import Layer, Sequential
from minidl.optim import SGD, Adam
from minidl.saving.runs import Checkpoint
from minidl.view.cli import Parser, int_argument

ACTIVATIONS: Mapping[str, type[Layer]] = {"relu": ReLU, "tanh": Tanh}
OPTIMIZERS: Mapping[str, type[SGD] | type[Adam]] = {"adam": Adam, "sgd": SGD}

QUICK_EPOCHS, FULL_EPOCHS = 15, 30


@dataclass(frozen=True)
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
        """Return the seed, or a new stream of PyTorch's random numbers."""
        return new_rng(self.seed)


Trained = tuple[Sequential, History, dict[str, Any]]
"""The trained network, its history, and the figures to tabulate."""


def make_parser(doc: str, out: str) -> Parser:
    """Return a parser with the flags of all experiments with feed-forward networks."""
    epochs = f"default {QUICK_EPOCHS}, with --full {FULL_EPOCHS}"
    parser = base_parser(doc, out, epochs=epochs, seed=False)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="relu")
    parser.add_argument("--batch-size", type=int_argument("batch size"), default=64)
    add_parity_flags(parser)
    return parser


def run_grid(
    grid: Grid, train: Callable[..., Trained], args: argparse.Namespace
) -> tuple[Dataset, list[Result]]:
    """Load the data, print a description, and train every network of the grid.

    ``train`` gets the values of a point and ``settings``, both as keyword arguments.
    """
    if args.backend != "numpy":
        require("torch", "parity")
    dataset = load_data(args.data, full=args.full)
    epochs = args.epochs or (FULL_EPOCHS if args.full else QUICK_EPOCHS)
    print(f"{dataset}; {len(grid)} networks, {epochs} epochs each", flush=True)
    note_generated(dataset)
    with shared(dataset, args) as mapped:
        models = (args.out / "models").absolute()  # workers may have another working folder
        flags = ("batch_size", "optimizer", "activation", "seed", "dtype", "backend")
        settings = Settings(mapped, epochs, **{name: getattr(args, name) for name in flags})
        task = partial(train_point, train, settings, models)
        results = run_points(grid, task, args, dataset=dataset, cost=cost)
    return dataset, results


def train_point(
    train: Callable[..., Trained], settings: Settings, models: Path, **point: Any
) -> dict[str, Any]:
    """Train the network of one point and save it; return its figures and its history.

    With the backend ``"both"`` the network is also trained by PyTorch; that history is returned
    as ``"beside"``.
    """
    ours, theirs = (dataclasses.replace(settings, backend=b) for b in ("numpy", "torch"))
    model, history, figures = train(**point, settings=ours)
    values = {**figures, "history": history.to_dict()}
    if settings.backend == "both":
        values["beside"] = train(**point, settings=theirs)[1].to_dict()
    with keeping(values):
        Checkpoint(models / f"{Grid.identifier(point)}.npz").save(model=model, history=history)
    return values


def cost(point: Point) -> float:
    """Return the relative duration of a training: a line through measured steps."""
    width = int(point["width"])
    return 20_000 + 800 * width + (int(point.get("layers", 1)) - 1) * (width**2 + 5_000)
