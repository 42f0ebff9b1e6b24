"""The standard set: every layer and loss, every optimizer option, ``fit_online``, ``TorchRandom``.

The deep networks have Tanh: a ReLU whose input is within rounding of 0 may be on in one library
and off in the other, and from then on two runs differ by more than rounding, as three of fifty
networks did within 200 steps in float32; it is no error of either library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import nn
from torch.utils.data import DataLoader

from minidl.activations import GELU, ReLU, Simplex, Tanh
from minidl.checks import Array, Rng
from minidl.dataset import Dataset
from minidl.history import History
from minidl.layer import Layer, Sequential
from minidl.layers import BatchNorm, Dropout, Linear
from minidl.losses import CrossEntropy, Loss, Perceptron, SquaredError
from minidl.online.fitting import fit_online
from minidl.optim import SGD, Adam, AdamW, Cosine, OneCycle, StepDecay, WarmUp
from minidl.parity.convert import from_torch, to_torch
from minidl.parity.report import ParityReport, Results, Tolerance, lockstep, report, train_step
from minidl.parity.torch_model import torch_counterparts
from minidl.parity.torch_random import TorchRandom
from minidl.testing.catalogue import LAYERS, LOSSES, MakeLayer, Targets
from minidl.training import epoch_rng

FEATURES, WIDTH, CLASSES = 20, 32, 5
EXAMPLES, BATCH = 256, 16
ONLINE_EXAMPLES, ONLINE_BLOCK = 6, 4  # the last block of an epoch is shorter
DEPTHS = (1, 3, 9)
SEEDS = [0, 1, 42, -1, -42, -(2**63), 2**32 - 1, 2**32 + 42, -(2**32), 2**63 - 1]

OPTIMIZERS: list[tuple[type[Any], dict[str, Any]]] = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "weight_decay": 0.01}),
    (SGD, {"lr": 0.05, "momentum": 0.9}),
    (SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}),
    (SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    (SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    (SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1, "decay_biases": False}),
    (SGD, {"lr": StepDecay(0.1, every=20, factor=0.5)}),
    (SGD, {"lr": WarmUp(0.05, steps=10), "momentum": 0.9}),
    (SGD, {"lr": 0.1, "clip_norm": 0.1}),
    (SGD, {"lr": 0.1, "clip_norm": 100.0}),
    (SGD, {"lr": OneCycle(0.1, steps=80), "momentum": 0.9, "clip_norm": 0.5}),
    (Adam, {"lr": 1e-3}),
    (Adam, {"lr": 1e-3, "betas": (0.5, 0.9)}),
    (Adam, {"lr": 1e-3, "eps": 1e-3}),
    (Adam, {"lr": 1e-3, "weight_decay": 0.01}),
    (Adam, {"lr": 1e-3, "weight_decay": 0.1, "decay_biases": False}),
    (Adam, {"lr": WarmUp(Cosine(1e-3, steps=100, final=1e-4), steps=10)}),
    (AdamW, {"lr": 1e-3}),
    (AdamW, {"lr": 1e-3, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (AdamW, {"lr": 1e-3, "eps": 1e-3, "weight_decay": 0.1, "decay_biases": False}),
    (AdamW, {"lr": OneCycle(1e-2, steps=100, pct_start=0.2), "clip_norm": 0.05}),
]
"""Classes and their options."""

Pairs = Iterator[tuple[Results, Results]]
"""The results of both libraries, step by step."""


@dataclass(frozen=True)
class ParityCase:
    """A network, a loss and an optimizer (class, options) to compare in both libraries.

    ``layers()`` makes the layers anew; ``targets`` draws targets, given a random map's outputs.
    """

    name: str
    layers: Callable[[], list[Layer]]
    loss: Loss = field(default_factory=CrossEntropy)
    targets: Targets = lambda rng, logits: logits.argmax(axis=1)  # classes that can be learned
    optimizer: tuple[type[Any], dict[str, Any]] = (SGD, {"lr": 0.02, "momentum": 0.9})
    tolerance: Tolerance | None = None

    def run(self, steps: int, dtype: str) -> ParityReport:
        """Compare both libraries for a number of steps."""
        results = self.results(steps, dtype)
        return report(self.model(dtype), results, self.name, self.tolerance)

    def results(self, steps: int, dtype: str) -> Pairs:
        """Train in both libraries on batches of random examples."""
        kind, options = self.optimizer
        model, rng = self.model(dtype), np.random.default_rng(1)
        x, y = self.examples(rng)
        rows = rng.integers(EXAMPLES, size=(steps, BATCH))
        return lockstep(model, self.loss, kind(model, **options), [(x[i], y[i]) for i in rows])

    def model(self, dtype: str, rng: Rng = 0) -> Sequential:
        """Return the network with new weights."""
        return Sequential(*self.layers(), rng=rng, dtype=dtype)

    def examples(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw examples with their targets."""
        x = rng.uniform(size=(EXAMPLES, FEATURES))
        return x, self.targets(rng, (x - 0.5) @ rng.normal(size=(FEATURES, CLASSES)))


@dataclass(frozen=True)
class OnlineCase(ParityCase):
    """``fit_online`` in blocks beside PyTorch, which takes the examples one at a time.

    One step is one epoch of a few examples; then the mean loss and the parameters are compared.
    PyTorch takes a step of its SGD for each example, and soft thresholds (L1) after each block.
    """

    l1: float = 0.0

    def results(self, steps: int, dtype: str) -> Pairs:
        """Train in both libraries for a number of epochs."""
        ours, copy, options = self.model(dtype), self.model(dtype), self.optimizer[1]
        theirs = torch_counterparts(copy, self.loss, SGD(copy, **options))
        x, y = (part[:ONLINE_EXAMPLES] for part in self.examples(np.random.default_rng(1)))
        x, history, theta = x.astype(dtype), History(), torch.from_numpy(theirs[0].theta)
        for epoch in range(1, steps + 1):
            fit_online(
                ours, Dataset((x, y)), self.loss, **options, l1=self.l1, epochs=epoch, rng=0,
                block_size=ONLINE_BLOCK, history=history, parts=(),
            )  # fmt: skip
            order, losses = epoch_rng(0, epoch).permutation(len(y)), []
            for block in np.split(order, range(ONLINE_BLOCK, len(order), ONLINE_BLOCK)):
                for i in block[:, None]:
                    losses.append(train_step(*theirs, x[i], y[i])["loss"])
                theta.copy_(F.softshrink(theta, len(block) * options["lr"] * self.l1))
            loss = np.array(history.column("train_loss")[-1])
            here = {"loss": loss, "parameter": ours.theta}
            yield here, {"loss": np.array(np.mean(losses)), "parameter": theirs[0].theta}


@dataclass(frozen=True)
class RandomCase(ParityCase):
    """``TorchRandom`` beside PyTorch's generator: initial weights, and the order of batches.

    Each step has another seed, of either sign and up to 64 bits. Only equal bits are within the
    tolerance. Weights are drawn in float32 and converted, as by ``module.double()``.
    """

    tolerance: Tolerance | None = lambda step: 0.0

    def results(self, steps: int, dtype: str) -> Pairs:
        """Draw with a number of seeds: the orders of two epochs, and the weights."""
        seeds = np.random.default_rng(0).integers(-(2**63), 2**63, size=steps)
        seeds[: len(SEEDS)] = SEEDS[:steps]
        for seed in seeds.tolist():
            model, rng = self.model(dtype, TorchRandom(seed)), TorchRandom(seed)
            order = np.concatenate([rng.permutation(EXAMPLES) for _ in range(2)])
            here = {"order": order, "parameter": model.theta}
            generator = torch.Generator().manual_seed(seed)
            loader: Any = DataLoader(
                range(EXAMPLES), BATCH, shuffle=True, generator=generator, collate_fn=list
            )
            rows = [row for _ in range(2) for batch in loader for row in batch]
            module = to_torch(model).float()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                for linear in filter(lambda part: isinstance(part, nn.Linear), module.modules()):
                    linear.reset_parameters()
            theta = from_torch(module.to(getattr(torch, dtype))).theta
            yield here, {"order": np.array(rows, np.int64), "parameter": theta}


def standard_set() -> list[ParityCase]:
    """Return all cases: depths and optimizers, layers, losses, ``fit_online``, ``TorchRandom``."""
    cases = []
    for depth in DEPTHS:
        for kind, options in OPTIMIZERS:
            text = ", ".join(f"{name}={value!r}" for name, value in options.items())
            name = f"depth {depth}, {kind.__name__}({text})"
            cases.append(ParityCase(name, _deep(depth), optimizer=(kind, options)))
    cases += [ParityCase(name, _around(make)) for name, make in LAYERS.items()]
    cases.append(ParityCase("depth 3, BatchNorm and GELU", _deep(3, modern=True)))
    spared = (AdamW, {"lr": 1e-3, "weight_decay": 0.1, "decay_biases": False})
    cases.append(ParityCase("gains without weight decay", _deep(3, modern=True), optimizer=spared))
    cases += [ParityCase(f"Dropout({p})", _around(lambda *_, p=p: Dropout(p))) for p in (0, 1)]
    small_steps = (SGD, {"lr": 0.002, "momentum": 0.9})
    for name, entry in LOSSES.items():
        layers = _around(lambda *_: Tanh(), entry.outputs or CLASSES)
        cases.append(ParityCase(name, layers, entry.loss, entry.targets, small_steps))
    linear, relu = _deep(0), _around(lambda *_: ReLU())
    dropped = _around(lambda *_: Sequential(Tanh(), Dropout(0.3)))
    sgd, small = (SGD, {"lr": 0.05}), (SGD, {"lr": 0.01})
    decayed = (SGD, {"lr": 0.05, "weight_decay": 0.01})
    numbers = LOSSES["SquaredError"].targets
    return [
        *cases,
        OnlineCase("fit_online, linear", linear, optimizer=decayed),
        OnlineCase("fit_online, linear, l1", linear, optimizer=sgd, l1=0.001),
        OnlineCase("fit_online, Perceptron", linear, Perceptron(), optimizer=sgd),
        OnlineCase("fit_online, ReLU", relu, optimizer=decayed),
        OnlineCase("fit_online, Tanh and Dropout", dropped, optimizer=decayed),
        OnlineCase("fit_online, SquaredError", dropped, SquaredError(), numbers, small),
        RandomCase("TorchRandom", _deep(2)),
    ]


def _deep(depth: int, *, modern: bool = False) -> Callable[[], list[Layer]]:
    def layers() -> list[Layer]:
        hidden: list[Layer] = []
        for features in [FEATURES, *[WIDTH] * (depth - 1)][:depth]:
            hidden.append(Linear(features, WIDTH, bias=not modern))  # as in _around
            hidden += [BatchNorm(WIDTH), GELU()] if modern else [Tanh()]
        return [*hidden, Linear(WIDTH if depth else FEATURES, CLASSES)]

    return layers


def _around(make: MakeLayer, outputs: int = CLASSES) -> Callable[[], list[Layer]]:
    """Put a layer between two Linears, so that the gradient of its input is compared too."""

    def layers() -> list[Layer]:
        layer = make(WIDTH, WIDTH)
        # Both are invariant to a shift: the gradient of a bias before them is rounding alone.
        front = [Tanh()] if isinstance(layer, Simplex) else []
        first = Linear(FEATURES, WIDTH, bias=not isinstance(layer, BatchNorm))
        return [first, *front, layer, Linear(WIDTH, outputs)]

    return layers
