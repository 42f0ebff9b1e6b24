"""Losses of one logit for each label: there or not, yes or no."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from minidl.losses.base import ReducedLoss, Reduction, check_reduction
from minidl.losses.targets import check_signs, check_zeros_and_ones, one_value
from minidl.metrics import (
    Metric,
    exact_match,
    mean_accuracy,
    predicted_labels,
    predicted_signs,
    sign_accuracy,
)
from minidl.typing import Array
from minidl.validation import as_floats


class SigmoidLoss(ReducedLoss):
    """Base of the losses of logits that give a probability each, by the sigmoid."""

    class_labels = False
    expects_logits = True

    def probabilities(self, outputs: Array) -> Array:
        """Return the probability of +1, or of each label, in the shape of the outputs (n, K)."""
        outputs = as_floats(type(self).__name__, "outputs", outputs)
        e = np.exp(-np.abs(outputs))  # cannot overflow
        return np.asarray(np.where(outputs >= 0, 1, e) / (1 + e))


class BinaryLogistic(SigmoidLoss):
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
        e = np.exp(-np.abs(margin))
        wrong = np.where(margin <= 0, 1, e) / (1 + e)  # sigmoid(-m), the probability of the other
        return np.log1p(e) + np.maximum(-margin, 0), -sign * wrong

    def predict(self, outputs: Array) -> Array:
        """Return the sign of each logit, -1 or +1, (n,); -1 for a logit of 0."""
        return one_value(predicted_signs(as_floats(type(self).__name__, "outputs", outputs)))

    def second_derivative(self, logits: Array, y: Array, weight: Array | None = None) -> Array:
        """Return the second derivative for each logit; it is the same for both labels."""
        logits = as_floats(type(self).__name__, "logits", logits)
        e = np.exp(-np.abs(check_signs(type(self).__name__, logits, y) * logits))
        return self.reduced(e / np.square(1 + e), weight)

    def hessian_vector_product(
        self, logits: Array, y: Array, v: Array, weight: Array | None = None
    ) -> Array:
        """Return the Hessian times ``v``: the second derivative of each logit times its ``v``."""
        return self.second_derivative(logits, y, weight) * v


class BinaryCrossEntropy(SigmoidLoss):
    r"""Binary cross-entropy on logits, for any number of labels that do not exclude each other.

    value: ``mean_nk (log(1 + exp z_nk) - y_nk z_nk)``; gradient: ``(sigmoid(z) - y) / (n K)``

    second derivative: ``sigmoid(z) sigmoid(-z) / (n K)``, never negative, so the loss is convex

    It is computed from ``exp(-|z|)``, which cannot overflow, and the gradient without the
    difference, so that it is exact for confident logits too. An infinite logit gives the limit;
    NaN gives NaN.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Over the batch. With weights of the examples, "mean" is ``sum_n w_n l_n / sum_n w_n``, where
        PyTorch divides by the number of examples.
    label_reduction : {"mean", "sum"}, optional
        Over the ``K`` labels of an example. By default as ``reduction``, as in
        ``torch.nn.BCEWithLogitsLoss``; "sum" with ``reduction="mean"`` is scikit-learn's loss,
        ``K`` times the default.

    Notes
    -----
    ``y`` is ``(n, K)``, or ``(n,)`` where ``K`` is 1: zeros and ones, booleans, or probabilities in
    [0, 1]. For probabilities the least value is their entropy, not 0. For labels -1 and +1 there is
    ``BinaryLogistic``; for classes that exclude each other, ``CrossEntropy``.

    Examples
    --------
    >>> value, dlogits = BinaryCrossEntropy()(logits, y)    # logits (n, K), y (n, K) of 0 and 1
    """

    metrics: ClassVar[Mapping[str, Metric]] = {
        "exact_match": exact_match,
        "mean_accuracy": mean_accuracy,
    }

    label_reduction: Reduction | None = None

    def __init__(
        self,
        reduction: Reduction = "mean",
        label_reduction: Reduction | None = None,
    ) -> None:
        super().__init__(reduction)
        self.label_reduction = label_reduction
        check_reduction(type(self).__name__, "label_reduction", label_reduction or reduction)

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        y = check_zeros_and_ones(type(self).__name__, logits, y)
        e, positive = np.exp(-np.abs(logits)), logits >= 0
        wrong = np.where(positive, 1 - y, y)  # the share of the label that the sign contradicts
        # An infinite logit on the right side costs nothing.
        values = np.log1p(e) + np.where(wrong == 0, 0, np.abs(logits) * wrong)
        there, absent = np.where(positive, 1, e), np.where(positive, e, 1)
        dlogits = ((1 - y) * there - y * absent) / (1 + e)
        return values * self._per_label(logits), dlogits * self._per_label(logits)

    def predict(self, outputs: Array) -> Array:
        """Return 1 where a logit is above 0, else 0: (n, K), or (n,) for one label."""
        return one_value(predicted_labels(as_floats(type(self).__name__, "outputs", outputs)))

    def hessian_vector_product(
        self, logits: Array, y: Array, v: Array, weight: Array | None = None
    ) -> Array:
        """Return the Hessian times ``v``: the second derivative of each logit times its ``v``."""
        logits = as_floats(type(self).__name__, "logits", logits)
        check_zeros_and_ones(type(self).__name__, logits, y)
        e = np.exp(-np.abs(logits))
        return self.reduced(e / np.square(1 + e) * v * self._per_label(logits), weight)

    def _per_label(self, logits: Array) -> float:
        """Return the factor of each label in the value of an example."""
        reduction = self.label_reduction or self.reduction
        return 1 / logits.shape[1] if reduction == "mean" else 1.0
