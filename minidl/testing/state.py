"""The state that passes may change: it is put back before each of them, and after the check."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from minidl.parameter import Parameter
from minidl.state import declared_buffers


class State:
    """The state of layers, and of the global random generators, when it was taken.

    These are values, gradients, attributes, arrays among those, and the states of random
    generators. A layer that has no generator yet gets one. Before every pass the generators and
    the ``buffers`` that a layer declares are put back; everything is, by ``restore``.

    Parameters
    ----------
    layers : list
    parameters : mapping of Parameter
    rng : Generator
        Gives generators to layers.
    numpy_seed : int, optional
        Before every pass, seeds the global generators of NumPy and Python.
    """

    def __init__(
        self,
        layers: list[Any],
        parameters: Mapping[str, Parameter],
        rng: np.random.Generator,
        numpy_seed: int | None = None,
    ) -> None:
        self.parameters = parameters
        self.arrays = {key: (p.value, p.grad) for key, p in parameters.items()}
        self._globals = random.getstate(), np.random.get_state()  # noqa: NPY002
        self._numpy_seed = numpy_seed
        self._attributes = _attributes(layers)
        values = [v for m in layers for v in vars(m).values() if isinstance(v, np.ndarray)]
        values += [array for pair in self.arrays.values() for array in pair]
        self._contents = [(array, array.copy()) for array in values]
        for layer in layers:
            if getattr(layer, "rng", layer) is None:
                layer.rng = rng.spawn(1)[0]
        self._at_first = _attributes(layers)
        self._buffers = [
            (layer, name, getattr(layer, name), getattr(layer, name).copy())
            for layer in layers
            for name in declared_buffers(layer) or ()
            if isinstance(getattr(layer, name, None), np.ndarray)
        ]
        attributes = [v for m in layers for v in vars(m).values()]
        bits = [v.bit_generator for v in attributes if isinstance(v, np.random.Generator)]
        self._generators = [(b, b.state) for b in bits]

    def before_pass(self) -> None:
        """Put back the random generators and the buffers."""
        for bits, state in self._generators:
            bits.state = state
        for layer, name, array, content in self._buffers:
            array[...] = content
            setattr(layer, name, array)
        if self._numpy_seed is not None:
            random.seed(self._numpy_seed)
            np.random.seed(self._numpy_seed)  # noqa: NPY002

    def as_new(self) -> None:
        """Put back the attributes of the layers, as before the first pass."""
        _put_back(self._at_first)
        self._put_back_arrays()

    def restore(self) -> None:
        """Put back everything."""
        self.before_pass()
        for key, p in self.parameters.items():
            p.bind(*self.arrays[key])
        self._put_back_arrays()
        _put_back(self._attributes)
        random.setstate(self._globals[0])
        np.random.set_state(self._globals[1])  # noqa: NPY002

    def _put_back_arrays(self) -> None:
        for array, content in self._contents:
            if array.flags.writeable:
                array[...] = content


Attributes = list[tuple[dict[str, Any], dict[str, Any]]]


def _attributes(layers: list[Any]) -> Attributes:
    return [(vars(m), dict(vars(m))) for m in layers]


def _put_back(attributes: Attributes) -> None:
    for now, then in attributes:
        now.clear()
        now.update(then)


@contextmanager
def attributes_restored(layers: list[Any]) -> Iterator[None]:
    """Put the attributes of the layers back after this context."""
    before = _attributes(layers)
    try:
        yield
    finally:
        _put_back(before)
