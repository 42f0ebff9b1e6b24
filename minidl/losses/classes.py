"""Losses of classes: cross-entropy and others made from simplex maps; the perceptron's loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from minidl.losses.base import ReducedLoss
from minidl.losses.targets import check_labels, entries
from minidl.metrics import Metric, accuracy, predicted_classes
from minidl.simplex import softmax
from minidl.simplex_map import RegularizedMap, SimplexMap, row_sums, shift
from minidl.typing import Array
from minidl.validation import as_floats, check_float


class ClassLoss(ReducedLoss):
    """Base of the losses of classes: the largest output is the class."""

    metrics: ClassVar[Mapping[str, Metric]] = {"accuracy": accuracy}
    class_labels = True
    expects_logits = True

    def predict(self, outputs: Array) -> Array:
        """Return the class of the largest output, ``0..K-1``, (n,); the first one of equals."""
        return predicted_classes(as_floats(type(self).__name__, "outputs", outputs))


class MapLoss(ClassLoss):
    """Base of the losses of a map onto the simplex, ``self.map``, which gives probabilities."""

    map: SimplexMap

    def probabilities(self, outputs: Array) -> Array:
        """Return the probabilities of the classes, (n, K): ``map(outputs)``."""
        return self.map(outputs)


class FenchelYoung(MapLoss):
    r"""The Fenchel-Young loss of a regularised map (Blondel, Martins and Niculae 2020).

    value: ``mean_n (omega*(z_n) + omega(y_n) - <z_n, y_n>)``; gradient: ``(map(z) - y) / n``

    Convex in the logits, never negative, and 0 exactly where ``map(z) = y``: for sparsemax
    where the label's logit leads by 1, for entmax-1.5 by 2, for softmax nowhere. With softmax
    it is cross-entropy. For a label outside the support, where ``-log p_y`` would be infinite
    and have gradient 0, its gradient is not 0 (see ``SmoothedNLL``).

    It is computed as a sum of nonnegative terms from logits shifted by their row's maximum, so
    a common offset changes nothing. A logit of ``-inf`` has probability 0 and gradient 0; if it
    is the label's, the value is ``inf``. A row of only ``-inf``, or with ``+inf`` or NaN, gives
    NaN. The value for float32 logits is finite however far apart they are.

    Parameters
    ----------
    map : RegularizedMap
        ``softmax``, ``sparsemax``, ``entmax15``, or your own.
    reduction : {"mean", "sum"}
        Over the batch.

    Examples
    --------
    >>> loss = FenchelYoung(sparsemax)
    >>> value, dlogits = loss(logits, y)  # y (n,) integers in 0..K-1, or (n, K) distributions
    """

    def __init__(self, map: RegularizedMap, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__(reduction)
        if not isinstance(map, RegularizedMap):
            raise TypeError(
                f"FenchelYoung: expected a map with a regulariser omega, got {map!r}; "
                "for relumax there is SmoothedNLL"
            )
        self.map: RegularizedMap = map

    def __call__(self, logits: Array, y: Array, weight: Array | None = None) -> tuple[float, Array]:
        value, dlogits = super().__call__(logits, y, weight)
        if value == np.inf and dlogits.dtype != np.float64:
            # A difference of two logits may be too large for float32.
            value = super().__call__(np.asarray(logits, np.float64), y, weight)[0]
        return value, dlogits

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        labels = entries(check_labels(type(self).__name__, logits, y))
        return self.map.fenchel_young(logits, labels)

    def hessian_vector_product(
        self, logits: Array, y: Array, v: Array, weight: Array | None = None
    ) -> Array:
        """Return the Hessian times ``v``, (n, K): ``J v / n``, J the Jacobian of the map."""
        logits = as_floats(type(self).__name__, "logits", logits)
        check_labels(type(self).__name__, logits, y)
        return self.reduced(self.map.jvp(self.map(logits), v), weight)

    def settings(self) -> list[str]:
        return [repr(self.map), *super().settings()]


class CrossEntropy(FenchelYoung):
    r"""Softmax cross-entropy on logits: ``FenchelYoung(softmax)``.

    value: ``mean_n (log sum_k exp z_nk - z_ny)``; gradient: ``(softmax(z) - onehot(y)) / n``

    It is computed from logits shifted by their row's maximum: it is never negative, and a common
    offset changes nothing. A logit of ``-inf`` has probability 0 and gradient 0; if it is the
    label's, the value is ``inf``. A row of only ``-inf``, or with ``+inf`` or NaN, gives NaN. The
    value for float32 logits is finite however far apart they are.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Over the batch.

    Notes
    -----
    ``y`` are labels, integers ``0..K-1``, ``(n,)``, or distributions ``(n, K)``, as for label
    smoothing; ``Dataset.from_labels`` numbers other labels. For a distribution the value is the
    Kullback-Leibler divergence ``KL(y, softmax(z))``, which is the cross-entropy plus
    ``sum y log y``. So the least value is 0.

    Examples
    --------
    >>> value, dlogits = CrossEntropy()(logits, y)    # logits (n, K), y (n,) integers in 0..K-1
    """

    def __init__(self, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__(softmax, reduction)

    def settings(self) -> list[str]:
        return super().settings()[1:]


class SmoothedNLL(MapLoss):
    r"""The negative log-likelihood of smoothed probabilities, for any map.

    value: ``mean_n -log((p_y + eps) / (1 + K eps))`` with ``p = map(z)``

    gradient: ``-vjp(p, e_y / (p_y + eps)) / n``; note the minus sign

    Without ``eps``, a sparse map's ``-log p_y`` is infinite if the label is outside the support,
    and its gradient there is 0, since no small change of the logits changes ``p_y = 0``.
    ``eps`` makes the value finite; the gradient of such an example stays 0. So choose relumax's
    ``b`` large enough that labels are inside the support at the start of training, or use
    ``FenchelYoung``, whose gradient is 0 only where ``map(z) = y``.

    The least value is ``log((1 + K eps) / (1 + eps))``, at ``p_y = 1``: 0 only for ``eps = 0``
    or ``K = 1``. ``y`` are labels ``(n,)`` or distributions ``(n, K)``; the value of these is the
    mean of the values of the labels ``i``, with weights ``y_i``. A row whose largest logit is not
    finite gives NaN.

    Parameters
    ----------
    map : SimplexMap
        ``relumax(b)``, or any other.
    eps : float >= 0
        With ``eps = 0``, the value is ``inf`` and the gradient 0 where ``p_y = 0``.
    reduction : {"mean", "sum"}
        Over the batch.

    Examples
    --------
    >>> value, dlogits = SmoothedNLL(relumax(5.0), eps=0.01)(logits, y)
    """

    def __init__(
        self,
        map: SimplexMap,
        eps: float = 0.01,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__(reduction)
        if not isinstance(map, SimplexMap):
            raise TypeError(f"SmoothedNLL: expected a map as relumax(5.0), got {map!r}")
        self.map, self.eps = map, check_float("SmoothedNLL", "eps", eps, low=0)

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        labels = entries(check_labels(type(self).__name__, logits, y))
        rows, columns, weight = labels
        p = self.map.project_rows(shift(logits)[0])
        at = p[rows, columns] + p.dtype.type(self.eps)
        most = p.dtype.type(1 + p.shape[1] * self.eps)
        dp = np.zeros_like(p)
        values = row_sums(weight * np.log(most / at), labels, len(p))
        dp[rows, columns] = np.where(at > 0, -weight / at, 0)
        return values, self.map.vjp_rows(p, dp)

    def settings(self) -> list[str]:
        return [repr(self.map), f"eps={self.eps:g}", *super().settings()]


class Perceptron(ClassLoss):
    r"""The multi-class perceptron's loss (Rosenblatt 1958; Collobert and Bengio 2004).

    value: ``mean_n (max_k z_nk - z_ny)``; gradient: ``(e_predicted - e_y) / n``, which is 0
    where the prediction is right

    The prediction is the first of the largest logits. If the label ties with an earlier class,
    the prediction is wrong: the value is 0, the gradient is not. SGD on one example at a time
    with learning rate 1 is the perceptron algorithm: after a mistake, add ``x`` to the weights
    of the label and subtract it from those of the prediction. ``y`` are labels ``(n,)``.

    If the label's logit is ``-inf``, the value is ``inf``. A row of only ``-inf``, or with ``+inf``
    or NaN, gives NaN. Logits are subtracted in float64, so that far apart float32 logits give a
    finite value.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Over the batch.
    """

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        owner = type(self).__name__
        if np.ndim(y) != 1:
            raise ValueError(f"{owner}: expected y of shape (n,), got {np.shape(y)}")
        y = check_labels(owner, logits, y)
        starts = np.arange(0, logits.size, logits.shape[1])  # of the rows, in the flat arrays
        predicted, label, flat = starts + logits.argmax(axis=1), starts + y, logits.ravel()
        top = flat[predicted]
        top += 0 * top  # NaN where the largest logit is not finite
        values = np.subtract(top, flat[label], dtype=np.float64)
        dlogits = np.zeros(logits.shape, logits.dtype)
        dflat = dlogits.reshape(-1)
        dflat[predicted] = 1
        dflat[label] -= 1
        return values, dlogits
