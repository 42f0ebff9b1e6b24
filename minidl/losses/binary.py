"""Losses of yes or no: one logit for a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from minidl.losses.base import ReducedLoss
from minidl.losses.targets import check_signs
from minidl.metrics import Metric, sign_accuracy
from minidl.typing import Array


def sigmoid(z: Array) -> Array:
    """Return ``1 / (1 + exp(-z))``, from ``exp(-|z|)``, which cannot overflow."""
    e = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1, e) / (1 + e))


class BinaryLogistic(ReducedLoss):
    r"""Logistic loss of one logit, for labels -1 and +1.

    value: ``mean_n log(1 + exp(-m_n))`` with the margin ``m = y z``

    derivative: ``-y sigmoid(-m) / n``; second derivative: ``sigmoid(m) sigmoid(-m) / n``, never
    negative, so the loss is convex

    It is computed from ``exp(-|m|)``, which cannot overflow. Softmax cross-entropy of the two
    logits ``(0, z)`` is the same function. An infinite logit gives the limit, 0 or ``inf``; NaN
    gives NaN.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Over the batch.

    Examples
    --------
    >>> value, dlogits = BinaryLogistic()(logits, y)    # logits (n, 1), y (n,) of -1 and +1
    """

    metrics: ClassVar[Mapping[str, Metric]] = {"accuracy": sign_accuracy}

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        sign = check_signs(type(self).__name__, logits, y)
        margin = sign * logits
        return np.log1p(np.exp(-np.abs(margin))) + np.maximum(-margin, 0), -sign * sigmoid(-margin)

    def probabilities(self, logits: Array) -> Array:
        """Return the probability of the label +1 for each logit."""
        return sigmoid(logits)

    def second_derivative(self, logits: Array, y: Array, weight: Array | None = None) -> Array:
        """Return the second derivative for each logit; it is the same for both labels."""
        e = np.exp(-np.abs(check_signs(type(self).__name__, logits, y) * logits))
        return self.reduced(e / np.square(1 + e), weight)

    def hessian_vector_product(
        self, logits: Array, y: Array, v: Array, weight: Array | None = None
    ) -> Array:
        """Return the Hessian times ``v``: the second derivative of each logit times its ``v``."""
        return self.second_derivative(logits, y, weight) * v
