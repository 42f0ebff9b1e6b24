"""One form for all that can be checked: a function of named tensors with its backward pass.

The caller's arrays are never modified: every pass gets copies, in the caller's memory layout.
"""

from __future__ import annotations

import copy
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.checks import Array, returned_floats, returned_gradient
from minidl.parameter import Parameter
from minidl.testing.layouts import copy_with_strides

Tensors = Mapping[str, Array]
Pull = Callable[..., Sequence[Any]]
"""``pull(dy)`` returns the gradients of the tensors in order."""
Tap = Callable[[Any, Array], tuple[Array, Callable[[Array], Array]]]
"""``tap(layer, x)`` returns the input to use, and a function that is applied to the cotangent."""


@dataclass(frozen=True)
class Pass:
    """One forward pass: a copy of the output, and the gradients for a cotangent.

    ``pull`` returns checked copies of all gradients by name, ``raw_pull`` is the subject's own.
    ``given`` are the arrays that the subject received, after ``pull`` the cotangent too.
    """

    y: Array
    pull: Callable[[Array], dict[str, Array]]
    raw_pull: Pull
    given: dict[str, Array]


class Subject(ABC):
    """A function of named tensors with its backward pass."""

    source: Any  # what the caller gave
    name: str  # in messages about tensors
    title: str  # the object in the heading of the report
    details: str  # its inputs there
    tensors: dict[str, Array]  # the inputs, then the parameters
    inputs: list[str]  # the names of the tensors that are no parameters
    parameters: dict[str, Parameter]
    fixed: dict[str, Any]  # further arguments, which have no gradient
    expected: tuple[str, str]  # in errors: the output, and the gradient of the tensor {}
    axis: int = -1  # of a simplex map
    batch: bool = True  # whether the rows of the inputs are examples
    notes: tuple[str, ...] = ()  # what the check cannot see
    numpy_seed: int | None = None  # for NumPy's and Python's global generators, before every pass

    @abstractmethod
    def forward(self, given: dict[str, Array]) -> tuple[Any, Pull]:
        """Run one pass on these copies of the tensors; return the output and its pull."""

    def run(self, tensors: Tensors) -> Pass:
        """Run one pass at these values; their dtypes decide the precision."""
        given = {name: copy_with_strides(value) for name, value in tensors.items()}
        if self.numpy_seed is not None:
            random.seed(self.numpy_seed)
            np.random.seed(self.numpy_seed)  # noqa: NPY002
        output, gradient = (f"{self.name}: expected {phrase}" for phrase in self.expected)
        y, raw_pull = self.forward(given)
        y = returned_floats(f"{output} to be", y)

        def pull(dy: Array) -> dict[str, Array]:
            given["cotangent"] = dy = copy_with_strides(dy)
            return {
                name: returned_gradient(gradient.format(name), tensors[name], d)
                for name, d in zip(self.tensors, raw_pull(dy), strict=True)
            }

        return Pass(y.copy(), pull, raw_pull, given)

    @contextmanager
    def preserved(self, rng: np.random.Generator) -> Iterator[None]:
        """Restore, after this context, all that a pass may change; passes are made within it.

        ``rng`` gives generators to layers that have none yet.
        """
        states = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002

    def tapped(self, tap: Tap) -> AbstractContextManager[None]:
        """Pass the inputs and cotangents of the innermost layers, if any, through ``tap``."""
        return nullcontext()

    def label(self, tensor: str) -> str:
        """Return the name of a tensor in messages, as ``Linear.weight``."""
        return f"{self.name}.{tensor}"

    def first_rows(self, k: int, names: Collection[str]) -> Subject:
        """Return the same subject at the first k rows of these tensors and fixed arguments."""
        less = copy.copy(self)
        less.tensors = {n: v[:k] if n in names else v for n, v in self.tensors.items()}
        less.fixed = {n: v[:k] if n in names else v for n, v in self.fixed.items()}
        return less


def described(tensors: Tensors) -> str:
    """Return the names, shapes and dtypes of tensors."""
    return ", ".join(f"{key} {v.shape} {v.dtype}" for key, v in tensors.items())
