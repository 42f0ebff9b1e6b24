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

    def __new__(cls, matrix: Any) -> SparseRows:
        made = super().__new__(cls, (matrix,))
        made.shape, made.dtype = matrix.shape, matrix.dtype
        return made

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        """Return the stored entries, which are all that can be other than finite."""
        return np.asarray(self[0].data, dtype)


class SparseLinear(Linear):
    """A ``Linear`` of sparse rows: ``y = x W + b``; backward: ``dW = x^T dy``, and no ``dx``."""

    skips_input_grad = True

    def forward(self, x: Any, *, train: bool = False) -> tuple[Array, Backward]:
        (matrix,), weight, bias = x, self.weight, self.bias
        y = matrix @ weight.value
        if bias is not None:
            y += bias.value

        def backward(dy: Array, input_grad: bool = False) -> None:
            weight.grad = matrix.T @ dy
            if bias is not None:
                dy.sum(axis=0, out=bias.grad)

        return y, backward


@contextmanager
def sparse_first(model: Sequential, x: Any) -> Iterator[None]:
    """Let the first layer take sparse rows for a while, if ``x`` is sparse."""
    first = model.layers[0]
    try:
        if issparse(x):
            first.__class__ = SparseLinear
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
            return SparseRows(x)
        if isinstance(index, slice):
            x.flags.writeable = False
        return x

    def batches(
        self, batch_size: int, rng: Any, dtype: DTypeLike = np.float32
    ) -> Iterator[tuple[Array, ...]]:
        if not self.shuffle:
            rng = SimpleNamespace(permutation=np.arange)
        return super().batches(batch_size, rng, dtype)


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
    rows: Any = SparseRows(x.astype(model.dtype, copy=False))
    z = SparseLinear.forward(first, rows)[0]  # type: ignore[arg-type]
    for layer in rest:
        z = layer(z)
    return z
