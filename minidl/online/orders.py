"""Orders of the examples, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from minidl.data.split import Split
from minidl.state import set_stream
from minidl.training import epoch_rng
from minidl.typing import Array, Rng
from minidl.validation import check_array, check_int

Order = Rng | Iterator[Array]
"""The order of the examples: as in ``fit``, or an iterator with the order of each epoch."""


class compounding(Iterator[Array]):  # noqa: N801, an iterator as those of itertools
    """Orders of n examples, each a random permutation of the order before.

    These are the orders of a script that shuffles its arrays in place before each epoch. With
    ``numpy.random.RandomState(42)`` they are those of the course's scripts.
    """

    def __init__(self, n: int, rng: np.random.RandomState | np.random.Generator) -> None:
        self.order, self.rng = np.arange(check_int("compounding", "n", n)), rng

    def __next__(self) -> Array:
        self.order = self.order[self.rng.permutation(len(self.order))]
        return self.order

    def state(self) -> dict[str, Any]:
        """Return the last order and the state of the generator."""
        if isinstance(self.rng, np.random.RandomState):
            return {"order": self.order, "stream": self.rng.get_state(legacy=False)}
        return {"order": self.order, "stream": self.rng.bit_generator.state}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Set what ``state`` returned; ValueError if it is of another generator or number."""
        order = check_array(
            "compounding", "order", state["order"], self.order.shape, self.order.dtype
        )
        if (np.sort(order) != np.arange(len(order))).any():
            raise ValueError("compounding: expected order to be a permutation")
        if isinstance(self.rng, np.random.RandomState):
            try:
                self.rng.set_state(state["stream"])
            except (ValueError, TypeError, LookupError, OverflowError) as error:
                raise ValueError(f"rng: expected a state of RandomState ({error})") from error
        else:
            set_stream("rng", self.rng, state["stream"])
        self.order = order


def epoch_order(rng: Order, epoch: int, split: Split) -> Array:
    """Return the order of the examples in an epoch, without those of weight 0."""
    rows, n = split.counted, len(split)
    if not isinstance(rng, Iterator):
        return rows[epoch_rng(rng, epoch).permutation(len(rows))]
    order = next(rng, None)
    if order is None or np.shape(order) != (n,):
        raise ValueError(
            f"fit_online: expected an order of {n} rows for epoch {epoch}, "
            f"got {'none' if order is None else f'shape {np.shape(order)}'}"
        )
    return order if split.weight is None else order[split.weight[order] > 0]
