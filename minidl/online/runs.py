"""The model and the settings of one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np

from minidl.callbacks import Run
from minidl.checks import Array, Rng, check_array, check_float, check_int
from minidl.dataset import Split
from minidl.history import History
from minidl.layer import Layer, in_order
from minidl.layers import Linear
from minidl.parameter import set_stream
from minidl.training import epoch_rng


class OnlineRun(Run):
    """A model, its update rule ``lr, weight_decay, l1`` as in ``fit_online``, and its results.

    ``error`` says why the run ended early: its loss was not finite.
    """

    def __init__(
        self,
        model: Layer,
        lr: float,
        weight_decay: float = 0.0,
        l1: float = 0.0,
        history: History | None = None,
    ) -> None:
        self.lr = check_float("fit_online", "lr", lr, low=0, open_low=True)
        self.weight_decay = check_float("fit_online", "weight_decay", weight_decay, low=0)
        self.l1 = check_float("fit_online", "l1", l1, low=0)
        self.layers = tuple(in_order(model))
        layer = self.layers[0] if self.layers else model
        if not isinstance(layer, Linear) or type(layer).forward is not Linear.forward:
            want = "a model whose first layer is Linear, with its forward pass"
            raise ValueError(f"fit_online: expected {want}, got {layer!r}")
        self.model, self.history = model, History() if history is None else history
        self.total = 0.0  # the loss of the epoch so far

    def __repr__(self) -> str:
        rule = f"lr={self.lr:g}, weight_decay={self.weight_decay:g}, l1={self.l1:g}"
        return f"OnlineRun({self.model!r}, {rule})"

    @property
    def first(self) -> Linear:
        """The first layer, which is updated once a block."""
        return cast(Linear, self.layers[0])

    @property
    def first_weights(self) -> Array:
        """A view of the first layer's weight with its bias as the last row."""
        return self.first.theta.reshape(-1, self.first.out_features)

    @property
    def tail_theta(self) -> Array:
        """A view of the parameters of the layers after the first."""
        return self.model.theta[self.first.theta.size :]

    @property
    def decay_factor(self) -> float:
        """The factor by which weight decay multiplies each parameter at each step."""
        return 1 - self.lr * self.weight_decay


Order = Rng | Iterator[Array]
"""The order of the examples: as in ``fit``, or an iterator with the order of each epoch."""


class compounding(Iterator[Array]):  # noqa: N801, an iterator as those of itertools
    """Orders of n examples, each a random permutation of the order before.

    They are those of a script that shuffles its arrays in place before each epoch, as the course's
    scripts do with ``numpy.random.RandomState(42)``.
    """

    def __init__(self, n: int, rng: np.random.RandomState | np.random.Generator) -> None:
        if not isinstance(rng, (np.random.RandomState, np.random.Generator)):
            raise TypeError(f"compounding: expected a RandomState or a Generator, got {rng!r:.80}")
        self.order, self.rng = np.arange(check_int("compounding", "n", n)), rng
        self._first = self.state_dict()

    def config(self) -> dict[str, Any]:
        """Return what a resumed run is compared by: the first order, and the first state."""
        return self._first

    def __next__(self) -> Array:
        self.order = self.order[self.rng.permutation(len(self.order))]
        return self.order

    def state_dict(self) -> dict[str, Any]:
        """Return the last order and the state of the generator."""
        if isinstance(self.rng, np.random.RandomState):
            return {"order": self.order, "stream": self.rng.get_state(legacy=False)}
        return {"order": self.order, "stream": self.rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what ``state_dict`` returned; ValueError if it is of another generator or number."""
        like = self.order
        order = check_array("compounding", "order", state["order"], like.shape, like.dtype)
        if (np.sort(order) != np.arange(len(order))).any():
            raise ValueError("compounding: expected order to be a permutation")
        if isinstance(self.rng, np.random.RandomState):
            self.rng.set_state(state["stream"])
        else:
            set_stream("rng", self.rng, state["stream"])
        self.order = order


def epoch_order(rng: Order, epoch: int, split: Split) -> Array:
    """Return the order of the examples in an epoch, without those of weight 0."""
    rows, n = split.counted, len(split)
    if not isinstance(rng, Iterator):
        return rows[epoch_rng(rng, epoch).permutation(len(rows))]
    order = next(rng, np.empty(0, int))
    if np.shape(order) != (n,):
        want, got = f"an order of {n} rows for epoch {epoch}", np.shape(order)
        raise ValueError(f"fit_online: expected {want}, got shape {got}")
    return order if split.weight is None else order[split.weight[order] > 0]
