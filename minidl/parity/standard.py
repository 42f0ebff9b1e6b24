"""The standard set: every layer and loss, every optimizer option, ``fit_online``, ``TorchRandom``.

The deep networks have Tanh: a ReLU whose input is within rounding of 0 may be on in one library
and off in the other, and from then on two runs differ by more than rounding. In float32
that happened to three of fifty networks within 200 steps; it is no error of either library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl.activations import GELU, ReLU, Simplex, Tanh
from minidl.checks import Array
from minidl.layer import Layer, Sequential
from minidl.layers import BatchNorm, Dropout, Linear
from minidl.losses import CrossEntropy, Loss, Perceptron, SquaredError
from minidl.optim import SGD, Adam, AdamW, Cosine, OneCycle, Optimizer, StepDecay, WarmUp
from minidl.parity.online import compare_online
from minidl.parity.random import compare_random
from minidl.parity.report import ParityReport, compare
from minidl.testing.catalogue import LAYERS, LOSSES, MakeLayer, Targets

FEATURES, WIDTH, CLASSES = 20, 32, 5
EXAMPLES, BATCH = 256, 16
ONLINE_EXAMPLES, ONLINE_BLOCK = 6, 4  # the last block of an epoch is shorter
DEPTHS = (1, 3, 9)

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


Tick = Callable[[], object]


def learnable_classes(rng: np.random.Generator, logits: Array) -> Array:
    """Return the class with the largest logit for each row."""
    return np.asarray(logits.argmax(axis=1))


@dataclass(frozen=True)
class ParityCase:
    """A network, a loss and an optimizer to compare in both libraries.

    Attributes
    ----------
    name : str
    layers : callable
        Makes the layers anew at each use.
    loss : Loss
    targets : Targets
        Draws the targets of the examples, given the outputs of a random linear map.
    optimizer : (class, options)
    depth : int, optional
        The number of hidden layers, for the cases that compare depths.
    """

    name: str
    layers: Callable[[], list[Layer]]
    loss: Loss = field(default_factory=CrossEntropy)
    targets: Targets = learnable_classes
    optimizer: tuple[type[Any], dict[str, Any]] = (SGD, {"lr": 0.02, "momentum": 0.9})
    depth: int | None = None

    def run(self, steps: int, dtype: str, tick: Tick = lambda: None) -> ParityReport:
        """Train the network in both libraries; ``tick`` is called at each step."""
        kind, options = self.optimizer
        model = Sequential(*self.layers(), rng=0, dtype=dtype)
        optimizer: Optimizer = kind(model, **options)
        batches = self.batches(steps, tick)
        return compare(model, self.loss, optimizer, batches, dtype=dtype, title=self.name)

    def examples(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw examples with their targets."""
        x = rng.uniform(size=(EXAMPLES, FEATURES))
        linear = (x - 0.5) @ rng.normal(size=(FEATURES, CLASSES))
        return x, self.targets(rng, linear)

    def batches(self, steps: int, tick: Tick) -> Iterator[tuple[Array, Array]]:
        """Yield batches of random examples with their targets."""
        rng = np.random.default_rng(1)
        x, y = self.examples(rng)
        for _ in range(steps):
            rows = rng.integers(EXAMPLES, size=BATCH)
            yield x[rows], y[rows]
            tick()


@dataclass(frozen=True)
class OnlineCase(ParityCase):
    """A network that ``fit_online`` trains in blocks, and PyTorch one example at a time.

    One step is one epoch of a few examples. ``optimizer`` is the SGD that ``fit_online`` computes.

    Attributes
    ----------
    l1 : float
        The L1 penalty of ``fit_online``.
    """

    l1: float = 0.0

    def run(self, steps: int, dtype: str, tick: Tick = lambda: None) -> ParityReport:
        """Train the network in both libraries; ``tick`` is called at each step."""
        model = Sequential(*self.layers(), rng=0, dtype=dtype)
        x, y = self.examples(np.random.default_rng(1))
        return compare_online(
            model,
            self.loss,
            (x[:ONLINE_EXAMPLES], y[:ONLINE_EXAMPLES]),
            **self.optimizer[1],
            l1=self.l1,
            epochs=steps,
            block_size=ONLINE_BLOCK,
            title=self.name,
            tick=tick,
        )


@dataclass(frozen=True)
class RandomCase(ParityCase):
    """``TorchRandom`` beside PyTorch: initial weights and batch orders, equal to the last bit."""

    def run(self, steps: int, dtype: str, tick: Tick = lambda: None) -> ParityReport:
        """Draw from another seed at each step; ``tick`` is called at each step."""
        return compare_random(self.layers, steps, dtype=dtype, title=self.name, tick=tick)


def standard_set() -> list[ParityCase]:
    """Return all cases: depths and optimizers, layers, losses."""
    depths = [
        ParityCase(
            f"depth {depth}, {_call(*optimizer)}", _deep(depth), optimizer=optimizer, depth=depth
        )
        for depth in DEPTHS
        for optimizer in OPTIMIZERS
    ]
    layers = [ParityCase(name, _around(make)) for name, make in LAYERS.items()]
    layers.append(ParityCase("depth 3, BatchNorm and GELU", _deep(3, modern=True)))
    spared = (AdamW, {"lr": 1e-3, "weight_decay": 0.1, "decay_biases": False})
    layers.append(ParityCase("gains without weight decay", _deep(3, modern=True), optimizer=spared))
    layers += [ParityCase(f"Dropout({p})", _around(lambda *_, p=p: Dropout(p))) for p in (0, 1)]
    small_steps = (SGD, {"lr": 0.002, "momentum": 0.9})
    losses = [
        ParityCase(
            name,
            _around(lambda *_: Tanh(), entry.outputs or CLASSES),
            entry.loss,
            entry.targets,
            small_steps,
        )
        for name, entry in LOSSES.items()
    ]
    return [*depths, *layers, *losses, *_online_cases(), RandomCase("TorchRandom", _deep(2))]


def _online_cases() -> list[ParityCase]:
    """Return cases of ``fit_online``: its kernels, any layers, both penalties."""

    def linear() -> list[Layer]:
        return [Linear(FEATURES, CLASSES)]

    def relu() -> list[Layer]:
        return [Linear(FEATURES, WIDTH), ReLU(), Linear(WIDTH, CLASSES)]

    def dropped() -> list[Layer]:
        return [Linear(FEATURES, WIDTH), Tanh(), Dropout(0.3), Linear(WIDTH, CLASSES)]

    sgd = (SGD, {"lr": 0.05})
    decayed = (SGD, {"lr": 0.05, "weight_decay": 0.01})
    return [
        OnlineCase("fit_online, linear", linear, optimizer=decayed),
        OnlineCase("fit_online, linear, l1", linear, optimizer=sgd, l1=0.001),
        OnlineCase("fit_online, Perceptron", linear, Perceptron(), optimizer=sgd),
        OnlineCase("fit_online, ReLU", relu, optimizer=decayed),
        OnlineCase("fit_online, Tanh and Dropout", dropped, optimizer=decayed),
        OnlineCase(
            "fit_online, SquaredError",
            dropped,
            SquaredError(),
            LOSSES["SquaredError"].targets,
            (SGD, {"lr": 0.01}),
        ),
    ]


def _deep(depth: int, *, modern: bool = False) -> Callable[[], list[Layer]]:
    def layers() -> list[Layer]:
        hidden: list[Layer] = []
        for i in range(depth):
            # A bias before BatchNorm has no effect, and gradients of rounding alone.
            linear = Linear(WIDTH if i else FEATURES, WIDTH, bias=not modern)
            hidden += [linear, BatchNorm(WIDTH), GELU()] if modern else [linear, Tanh()]
        return [*hidden, Linear(WIDTH, CLASSES)]

    return layers


def _around(make: MakeLayer, outputs: int = CLASSES) -> Callable[[], list[Layer]]:
    """Put a layer between two Linears, so that the gradient of its input is compared too.

    A map onto the simplex and BatchNorm are invariant to a shift along an axis, so the gradient of
    a bias directly before them could be 0, and its computed entries rounding alone: the map gets a
    Tanh in front, and the Linear before BatchNorm has no bias.
    """

    def layers() -> list[Layer]:
        layer = make(WIDTH, WIDTH)
        front = [Tanh()] if isinstance(layer, Simplex) else []
        first = Linear(FEATURES, WIDTH, bias=not isinstance(layer, BatchNorm))
        return [first, *front, layer, Linear(WIDTH, outputs)]

    return layers


def _call(kind: type[Any], options: dict[str, Any]) -> str:
    return f"{kind.__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())})"
