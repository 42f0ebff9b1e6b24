"""The rows of an estimator as a part of a data set, and sparse rows before the first layer.

The core is dense: it hands a batch of sparse rows, which is a tuple, on to the first layer. That
is a ``SparseLinear`` as long as it sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.sparse import issparse

from minidl.checks import Array, Backward, quietly
from minidl.dataset import Dataset, Split
from minidl.evaluation import outputs
from minidl.layer import Sequential
from minidl.layers import Linear


class SparseRows(tuple[Any]):
    """Rows of a CSR matrix as one batch, with the shape, length and dtype of an array."""

    shape = property(lambda self: self[0].shape)
    dtype = property(lambda self: self[0].dtype)

    def __len__(self) -> int:
        return int(self[0].shape[0])

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        """Return the stored entries, which are all that can be other than finite."""
        return np.asarray(self[0].data, dtype)


class SparseLinear(Linear):
    """A ``Linear`` of sparse rows: ``y = x W + b``; backward: ``dW = x^T dy``, and no ``dx``."""

    skips_input_grad = True
    weight: Any
    bias: Any

    def forward(self, x: Any, *, train: bool = False) -> tuple[Array, Backward]:
        (matrix,) = x
        y = matrix @ self.weight.value
        y += self.bias.value

        def backward(dy: Array, input_grad: bool = False) -> None:
            self.weight.grad = matrix.T @ dy
            dy.sum(axis=0, out=self.bias.grad)

        return y, backward


@contextmanager
def sparse_first(model: Sequential, x: Any) -> Iterator[None]:
    """Let the first layer take sparse rows for a while, if ``x`` is sparse."""
    first = model.layers[0]
    first.__class__ = SparseLinear if issparse(x) else Linear
    try:
        yield
    finally:
        first.__class__ = Linear


@dataclass(frozen=True, eq=False)
class Examples(Split):
    """A part whose rows are arrays or CSR, checked already.

    Consecutive rows of the right dtype are views that cannot be written, not copies.
    """

    shuffle: bool = True

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def rows(
        self, index: Array | slice, dtype: DTypeLike = np.float32, out: Array | None = None
    ) -> Any:
        if out is not None:
            return super().rows(index, dtype, out)
        x = self.x[index].astype(dtype, copy=False)
        if issparse(x):
            return SparseRows((x,))
        if isinstance(index, slice):
            x.flags.writeable = False
        return x

    def batches(
        self, batch_size: int, rng: Any, dtype: DTypeLike = np.float32
    ) -> Iterator[tuple[Array, ...]]:
        order: Any = rng if self.shuffle else SimpleNamespace(permutation=np.arange)
        return super().batches(batch_size, order, dtype)


class Checked(Dataset):
    """A data set of ``Examples``; only dense validation rows are compared with the training's."""

    def _check(self, owner: str, split: Split, classes: int) -> None:
        if split is not self.train and not issparse(split.x):
            super()._check(owner, split, classes)


@quietly
def answers(model: Sequential, x: Any) -> Array:
    """Return the outputs of a model for checked rows, dense or sparse."""
    if not issparse(x):
        return outputs(model, Examples(x, np.empty((len(x), 0)), 1.0))
    first, *rest = model.layers
    rows = SparseRows((x.astype(model.dtype, copy=False),))
    z = SparseLinear.forward(first, rows)[0]  # type: ignore[arg-type]
    for layer in rest:
        z = layer(z)
    return z
