"""Losses: ``value, dlogits = loss(logits, y)``.

One call returns the value and its gradient, so the two always belong to the same function. The
value is a Python float, summed in float64. The gradient is with respect to the logits and has
their dtype. Both are the mean over the batch by default.

Labels may have any integer dtype and byte order. For the losses of several classes, a row whose
largest logit is not finite (only ``-inf``, or ``+inf``, or NaN) makes the value NaN, which stops
``fit``, for every number of classes. They are finite for finite float32 logits however far apart,
and for float64 logits unless a difference or the sum is above the largest double, 1.8e308.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from minidl.simplex import softmax
from minidl.simplex_map import Entries, RegularizedMap, SimplexMap, shift
from minidl.typing import Array
from minidl.validation import check_float


class Loss(Protocol):
    """A function of logits and targets that returns its value and its gradient."""

    def __call__(self, logits: Array, y: Array) -> tuple[float, Array]:
        """Return the value, and the gradient with respect to the logits."""
        ...


class TwiceDifferentiable(Loss, Protocol):
    """A loss with second derivatives: cross-entropy, the squared error, logistic loss."""

    def hessian_vector_product(self, logits: Array, y: Array, v: Array) -> Array:
        """Return the product of the Hessian in the logits with ``v``, of the logits' shape."""
        ...


def hessian(loss: TwiceDifferentiable, logits: Array, y: Array) -> Array:
    """Return the Hessian of each example in its logits, (n, K, K), a column at a time.

    The Hessian in all logits together is block-diagonal with these blocks. For large K use
    ``loss.hessian_vector_product``, which takes O(K) for an example.
    """
    units = np.eye(logits.shape[1], dtype=logits.dtype)
    columns = [
        loss.hessian_vector_product(logits, y, np.tile(unit, (len(logits), 1))) for unit in units
    ]
    return np.stack(columns, axis=-1)


def check_labels(owner: str, logits: Array, y: Array) -> Array:
    """Check ``y``: integers in ``0..K-1``, (n,), or distributions, (n, K).

    Returns labels as int64, so that no arithmetic overflows; distributions in the logits' dtype.
    """
    y = np.asarray(y)
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"{owner}: expected logits of shape (n, K), K > 0, got {logits.shape}")
    n, k = logits.shape
    if y.shape == (n, k):
        return _check_distributions(owner, y).astype(logits.dtype, copy=False)
    if y.shape != (n,):
        raise ValueError(f"{owner}: expected y of shape ({n},) or ({n}, {k}), got {y.shape}")
    if y.dtype.kind not in "iu":
        raise TypeError(f"{owner}: expected integer labels, got dtype {y.dtype}")
    labels = y.astype(np.int64, copy=False)
    # One pass checks both bounds: as unsigned integers, negative labels are the largest.
    unsigned = labels.view(np.uint64)
    if n and unsigned.max() >= k:
        i = int(unsigned.argmax())
        raise ValueError(f"{owner}: expected labels in 0..{k - 1}, got y[{i}] = {y[i]}")
    return labels


def _check_distributions(owner: str, y: Array) -> Array:
    if y.dtype.kind not in "iuf":
        raise TypeError(f"{owner}: expected distributions of numbers, got dtype {y.dtype}")
    sums = y.sum(axis=1, dtype=np.float64)
    # Allow for rounded probabilities; the comparison is False for NaN.
    slack = np.sqrt(np.finfo(y.dtype).eps) if y.dtype.kind == "f" else 0
    wrong = ~((np.abs(sums - 1) <= slack) & (y >= 0).all(axis=1))
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(
            f"{owner}: expected distributions, not negative and of sum 1, got y[{i}] "
            f"with sum {sums[i]:g} and least entry {y[i].min():g}"
        )
    return y


def _entries(y: Array) -> Entries:
    """Return the nonzero entries of checked labels of either kind."""
    if y.ndim == 1:
        return np.arange(len(y)), y, 1.0
    rows, columns = np.nonzero(y)
    return rows, columns, y[rows, columns]


class ReducedLoss:
    """Base of losses that are averaged or summed over the batch.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Over the batch.
    """

    def __init__(self, reduction: Literal["mean", "sum"] = "mean") -> None:
        if reduction not in ("mean", "sum"):
            raise ValueError(
                f"{type(self).__name__}: expected reduction 'mean' or 'sum', got {reduction!r}"
            )
        self.reduction = reduction

    def share(self, n: int) -> float:
        """Return the weight of one example in a batch of ``n``."""
        return 1 / max(n, 1) if self.reduction == "mean" else 1.0

    def _settings(self) -> list[str]:
        """Return the arguments that ``repr`` shows."""
        return [] if self.reduction == "mean" else [f"reduction={self.reduction!r}"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._settings())})"


class FenchelYoung(ReducedLoss):
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
        self.map = map

    def __call__(self, logits: Array, y: Array) -> tuple[float, Array]:
        labels = _entries(check_labels(type(self).__name__, logits, y))
        share = self.share(len(logits))
        value, dlogits = self.map.fenchel_young(logits, labels)
        if value == np.inf and logits.dtype != np.float64:
            # A difference of two logits may be too large for float32.
            value = self.map.fenchel_young(logits.astype(np.float64), labels)[0]
        dlogits *= share
        return value * share, dlogits

    def hessian_vector_product(self, logits: Array, y: Array, v: Array) -> Array:
        """Return the Hessian times ``v``, (n, K): ``J v / n``, J the Jacobian of the map."""
        check_labels(type(self).__name__, logits, y)
        product: Array = self.map.jvp(self.map(logits), v) * logits.dtype.type(self.share(len(v)))
        return product

    def _settings(self) -> list[str]:
        return [repr(self.map), *super()._settings()]


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
    For a distribution ``y`` the value is the Kullback-Leibler divergence ``KL(y, softmax(z))``,
    which is the cross-entropy plus ``sum y log y``. So the least value is 0.

    Examples
    --------
    >>> value, dlogits = CrossEntropy()(logits, y)    # logits (n, K), y (n,) integers in 0..K-1
    """

    def __init__(self, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__(softmax, reduction)

    def _settings(self) -> list[str]:
        return super()._settings()[1:]


class SmoothedNLL(ReducedLoss):
    r"""The negative log-likelihood of smoothed probabilities, for any map.

    value: ``mean_n -log((p_y + eps) / (1 + K eps))`` with ``p = map(z)``

    gradient: ``-vjp(p, e_y / (p_y + eps)) / n``; note the minus sign

    Without ``eps``, a sparse map's ``-log p_y`` is infinite if the label is outside the support,
    and its gradient there is 0, since no small change of the logits changes ``p_y = 0``.
    ``eps`` makes the value finite; the gradient of such an example stays 0. So choose relumax's
    ``b`` large enough that labels are inside the support at the start of training, or use
    ``FenchelYoung``, whose gradient is 0 only where ``map(z) = y``.

    The least value is ``log((1 + K eps) / (1 + eps))``, at ``p_y = 1``: 0 only for ``eps = 0``
    or ``K = 1``. For a distribution ``y`` the value is the mean of the values of the labels
    ``i``, with weights ``y_i``. A row whose largest logit is not finite gives NaN.

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

    def __call__(self, logits: Array, y: Array) -> tuple[float, Array]:
        rows, columns, weight = _entries(check_labels("SmoothedNLL", logits, y))
        share = self.share(len(logits))
        p = self.map.project_rows(shift(logits)[0])
        at = p[rows, columns] + p.dtype.type(self.eps)
        most = p.dtype.type(1 + p.shape[1] * self.eps)
        dp = np.zeros_like(p)
        with np.errstate(divide="ignore"):
            value = float((weight * np.log(most / at)).sum(dtype=np.float64))
            dp[rows, columns] = np.where(at > 0, -weight * share / at, 0)
        return value * share, self.map.vjp_rows(p, dp)

    def _settings(self) -> list[str]:
        return [repr(self.map), f"eps={self.eps:g}", *super()._settings()]


class SquaredError(ReducedLoss):
    r"""Half the squared distance, for regression.

    value: ``mean_n 1/2 ||z_n - y_n||^2``; gradient: ``(z - y) / n``

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Over the batch; the outputs of one example are always summed.

    Notes
    -----
    ``y`` has the shape of ``z``, ``(n, d)``; ``(n,)`` is accepted if ``d`` is 1.
    ``torch.nn.MSELoss`` also averages over the outputs and has no factor 1/2: it is ``2/d`` times
    this. Squares are taken in the logits' dtype: where one overflows (from a difference of 1.8e19
    in float32, 1.3e154 in float64), the value is ``inf``.
    """

    def __call__(self, logits: Array, y: Array) -> tuple[float, Array]:
        if y.ndim == 1 and logits.shape[1:] == (1,):
            y = y[:, None]
        if y.shape != logits.shape:
            raise ValueError(
                f"SquaredError: expected y of the outputs' shape {logits.shape}, got {y.shape}"
            )
        share = self.share(len(y))
        error = logits - y.astype(logits.dtype, copy=False)
        value = 0.5 * float(np.square(error).sum(dtype=np.float64)) * share
        return value, error * share

    def hessian_vector_product(self, logits: Array, y: Array, v: Array) -> Array:
        """Return the Hessian times ``v``: ``v / n``, since the Hessian of an example is I."""
        product: Array = v * logits.dtype.type(self.share(len(v)))
        return product


class Perceptron(ReducedLoss):
    r"""The multi-class perceptron's loss (Rosenblatt 1958; Collobert and Bengio 2004).

    value: ``mean_n (max_k z_nk - z_ny)``; gradient: ``(e_predicted - e_y) / n``, which is 0
    where the prediction is right

    The prediction is the first of the largest logits. If the label ties with an earlier class,
    the prediction is wrong: the value is 0, the gradient is not. SGD on one example at a time
    with learning rate 1 is the perceptron algorithm: after a mistake, add ``x`` to the weights
    of the label and subtract it from those of the prediction.

    If the label's logit is ``-inf``, the value is ``inf``. A row of only ``-inf``, or with ``+inf``
    or NaN, gives NaN. Logits are subtracted in float64, so that far apart float32 logits give a
    finite value.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Over the batch.
    """

    def __call__(self, logits: Array, y: Array) -> tuple[float, Array]:
        if np.ndim(y) != 1:
            raise ValueError(f"Perceptron: expected y of shape (n,), got {np.shape(y)}")
        y = check_labels("Perceptron", logits, y)
        starts = np.arange(0, logits.size, logits.shape[1])  # of the rows, in the flat arrays
        predicted, label = starts + logits.argmax(axis=1), starts + y
        share, flat = self.share(len(y)), logits.ravel()
        top = flat[predicted]
        with np.errstate(invalid="ignore", over="ignore"):
            top += 0 * top  # NaN where the largest logit is not finite
            value = np.subtract(top, flat[label], dtype=np.float64).sum()
        dlogits = np.zeros(logits.shape, logits.dtype)
        dflat = dlogits.reshape(-1)
        dflat[predicted] = share
        dflat[label] -= share
        return float(value) * share, dlogits


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

    def __call__(self, logits: Array, y: Array) -> tuple[float, Array]:
        sign = self._signs(logits, y)
        margin = sign * logits
        share = self.share(len(logits))
        e = np.exp(-np.abs(margin))
        value = (np.log1p(e) + np.maximum(-margin, 0)).sum(dtype=np.float64)
        sigmoid = np.where(margin <= 0, 1, e) / (1 + e)
        return float(value) * share, -share * sign * sigmoid

    def second_derivative(self, logits: Array, y: Array) -> Array:
        """Return the second derivative for each logit; it is the same for both labels."""
        e = np.exp(-np.abs(self._signs(logits, y) * logits))
        curvature: Array = self.share(len(logits)) * e / np.square(1 + e)
        return curvature

    def hessian_vector_product(self, logits: Array, y: Array, v: Array) -> Array:
        """Return the Hessian times ``v``: the second derivative of each logit times its ``v``."""
        product: Array = self.second_derivative(logits, y) * v
        return product

    @staticmethod
    def _signs(logits: Array, y: Array) -> Array:
        """Check the labels; return them as a column of -1 and +1 in the logits' dtype."""
        y = np.asarray(y)
        if logits.ndim != 2 or logits.shape[1] != 1:
            raise ValueError(f"BinaryLogistic: expected logits of shape (n, 1), got {logits.shape}")
        if y.shape not in ((len(logits),), logits.shape):
            raise ValueError(f"BinaryLogistic: expected y of shape ({len(logits)},), got {y.shape}")
        if y.dtype.kind not in "if":
            raise TypeError(f"BinaryLogistic: expected labels -1 and +1, got dtype {y.dtype}")
        wrong = np.flatnonzero(np.abs(y) != 1)
        if len(wrong):
            i = int(wrong[0])
            raise ValueError(
                f"BinaryLogistic: expected labels -1 and +1, got y[{i}] = {y.ravel()[i]}"
            )
        return y.reshape(-1, 1).astype(logits.dtype)
