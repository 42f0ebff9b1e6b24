"""Losses of numbers: the squared error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from minidl.losses.base import ReducedLoss
from minidl.losses.targets import check_numbers
from minidl.metrics import Metric, r2
from minidl.typing import Array


class SquaredError(ReducedLoss):
    r"""Half the squared distance, for regression.

    value: ``mean_n 1/2 ||z_n - y_n||^2``; gradient: ``(z - y) / n``

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Over the batch; the outputs of one example are always summed.

    Notes
    -----
    ``y`` are integers or floats of the shape of ``z``, ``(n, d)``; ``(n,)`` is accepted if ``d``
    is 1. ``torch.nn.MSELoss`` also averages over the outputs and has no factor 1/2: it is ``2/d``
    times this. Squares are taken in the logits' dtype: where one overflows (from a difference of
    1.8e19 in float32, 1.3e154 in float64), the value is ``inf``.
    """

    metrics: ClassVar[Mapping[str, Metric]] = {"r2": r2}

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        error = logits - check_numbers(type(self).__name__, logits, y)
        values = np.square(error)
        values *= 0.5
        return values, error

    def hessian_vector_product(
        self, logits: Array, y: Array, v: Array, weight: Array | None = None
    ) -> Array:
        """Return the Hessian times ``v``: ``v / n``, since the Hessian of an example is I."""
        return self.reduced(v.astype(logits.dtype, copy=False), weight)
