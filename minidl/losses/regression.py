"""Losses of numbers: squared and absolute errors, and what lies between them; quantiles.

The targets ``y`` are integers or floats of the shape of the outputs ``z``, ``(n, d)``; ``(n,)`` is
accepted if ``d`` is 1. The values of an example's outputs are summed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np

from minidl.losses.base import ReducedLoss
from minidl.losses.targets import check_numbers, one_value
from minidl.metrics import Metric, r2
from minidl.typing import Array
from minidl.validation import as_array, as_floats, check_float


class NumberLoss(ReducedLoss):
    """Base of the losses of numbers, which are the outputs themselves."""

    metrics: ClassVar[Mapping[str, Metric]] = {"r2": r2}
    class_labels = False

    def predict(self, outputs: Array) -> Array:
        """Return the outputs: (n, K), or (n,) for one."""
        return one_value(as_floats(type(self).__name__, "outputs", outputs))


class SquaredError(NumberLoss):
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

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        error = logits - check_numbers(type(self).__name__, logits, y)
        values = np.square(error)
        values *= 0.5
        return values, error

    def hessian_vector_product(
        self, logits: Array, y: Array, v: Array, weight: Array | None = None
    ) -> Array:
        """Return the Hessian times ``v``: ``v / n``, since the Hessian of an example is I."""
        logits = as_floats(type(self).__name__, "logits", logits)
        return self.reduced(as_array(type(self).__name__, "v", v).astype(logits.dtype), weight)


class AbsoluteError(NumberLoss):
    r"""The absolute error; its best constant prediction is the median.

    value: ``mean_n sum_k |z_nk - y_nk|``; gradient: ``sign(z - y) / n``, 0 where ``z = y``

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Over the batch; the outputs of one example are always summed.

    Notes
    -----
    ``y`` are integers or floats of the shape of ``z``, ``(n, d)``; ``(n,)`` is accepted if ``d``
    is 1. ``torch.nn.L1Loss`` also averages over the outputs: it is ``1/d`` times this.
    """

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        error = logits - check_numbers(type(self).__name__, logits, y)
        return np.abs(error), np.sign(error)


class Huber(NumberLoss):
    r"""Squared for small errors, linear for large ones, so that outliers count less (Huber 1964).

    value: ``mean_n sum_k c (|e| - c / 2)`` with ``e = z - y`` and ``c = min(|e|, delta)``, which is
    ``e^2 / 2`` up to ``delta`` and ``delta (|e| - delta / 2)`` beyond

    gradient: ``clip(e, -delta, delta) / n``; second derivative: 1 where ``|e| <= delta``, else 0

    Parameters
    ----------
    delta : float > 0
        The error from which the loss is linear.
    reduction : {"mean", "sum"}
        Over the batch; the outputs of one example are always summed.

    Notes
    -----
    ``y`` are integers or floats of the shape of ``z``, ``(n, d)``; ``(n,)`` is accepted if ``d``
    is 1. ``torch.nn.HuberLoss`` also averages over the outputs: it is ``1/d`` times this.
    """

    def __init__(self, delta: float = 1.0, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__(reduction)
        self.delta = check_float("Huber", "delta", delta, low=0, open_low=True)

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        error = logits - check_numbers(type(self).__name__, logits, y)
        size = np.abs(error)
        c = np.minimum(size, self.delta)
        return c * (size - c / 2), np.clip(error, -self.delta, self.delta)

    def hessian_vector_product(
        self, logits: Array, y: Array, v: Array, weight: Array | None = None
    ) -> Array:
        """Return the Hessian times ``v``: ``v / n`` where the error is at most ``delta``."""
        logits = as_floats(type(self).__name__, "logits", logits)
        error = logits - check_numbers(type(self).__name__, logits, y)
        return self.reduced(np.where(np.abs(error) <= self.delta, v, 0), weight)

    def settings(self) -> list[str]:
        return [f"{self.delta:g}", *super().settings()]


class Quantile(NumberLoss):
    r"""The pinball loss; its best constant prediction is a quantile (Koenker and Bassett 1978).

    value: ``mean_n sum_k max(q e, (q - 1) e)`` with ``e = y - z``

    gradient: ``-q / n`` where ``z < y``, ``(1 - q) / n`` where ``z > y``, 0 where ``z = y``

    Half the absolute error for ``q = 0.5``. Several quantiles are learned together, one for each
    output: ``Quantile((0.1, 0.5, 0.9))`` with outputs ``(n, 3)`` and targets ``(n,)``. Nothing
    keeps them in order.

    Parameters
    ----------
    q : float or sequence of floats
        Each between 0 and 1.
    reduction : {"mean", "sum"}
        Over the batch; the outputs of one example are always summed.

    Notes
    -----
    For one quantile, ``y`` are integers or floats of the shape of ``z``, ``(n, d)``; ``(n,)`` is
    accepted if ``d`` is 1. For several, ``y`` is ``(n,)`` or ``(n, 1)``.
    """

    metrics: ClassVar[Mapping[str, Metric]] = {}

    def __init__(
        self, q: float | Sequence[float], reduction: Literal["mean", "sum"] = "mean"
    ) -> None:
        super().__init__(reduction)
        checked = tuple(
            check_float("Quantile", "q", one, low=0, high=1, open_low=True, open_high=True)
            for one in np.atleast_1d(q).tolist()
        )
        if not checked:
            raise ValueError("Quantile: expected at least one q, got none")
        self.q = checked if np.ndim(q) else checked[0]

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        q = np.array(self.q)
        error = self._targets(logits, y) - logits
        slope = np.where(error > 0, -q.astype(logits.dtype), (1 - q).astype(logits.dtype))
        slope *= error != 0
        return -slope * error, slope

    def _targets(self, logits: Array, y: Array) -> Array:
        """Check the targets; return them in the outputs' dtype, a column for several quantiles."""
        if not isinstance(self.q, tuple):
            return check_numbers(type(self).__name__, logits, y)
        if logits.shape[1:] != (len(self.q),):
            raise ValueError(
                f"{self!r}: expected one output for each quantile, (n, {len(self.q)}), "
                f"got {logits.shape}"
            )
        return check_numbers(type(self).__name__, logits[:, :1], y)

    def settings(self) -> list[str]:
        return [repr(self.q), *super().settings()]
