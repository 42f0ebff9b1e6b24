"""Losses: ``value, dlogits = loss(logits, y)``, or ``loss(logits, y, weight)``.

One call returns the value and its gradient, so the two always belong to the same function. A loss
is also the one place that knows the task: the targets, ``loss.predict(outputs)``, the
probabilities and the metrics.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, get_args

import numpy as np

from minidl.activations import sigmoid
from minidl.checks import (
    Array,
    Configured,
    as_array,
    as_floats,
    check_choice,
    check_float,
    check_weight,
    quietly,
    short_text,
)
from minidl.dataset import check_labels, check_matrix, check_shaped
from minidl.maps import RegularizedMap, SimplexMap, entries_of, row_sums, shift, softmax

Reduction = Literal["mean", "sum"]
REDUCTIONS = get_args(Reduction)

Metric = Callable[..., float]
"""``metric(outputs, y)`` or ``metric(outputs, y, weight)``: a number, larger is better or not."""

Metrics = Sequence[str] | Mapping[str, str | Metric]
"""Metrics of a loss: names of ``minidl.metrics``, or names with functions or with such names."""


class Loss(Protocol):
    """A function of logits and targets that returns its value and its gradient.

    To take weighted data too, it has a third argument, ``weight``, an array (n,), and divides by
    its sum: ``sum_i w_i l_i / sum_i w_i``. One that sums over the batch instead has the attribute
    ``reduction = "sum"``, also a function; with ``expects_logits = True`` training warns of a
    ``Softmax`` before it. Targets have the shape of ``shaped_targets``.
    """

    def __call__(self, logits: Array, y: Array) -> tuple[float, Array]:
        """Return the value and its gradient in the logits."""


class ReducedLoss(Configured, ABC):
    """Base of losses that are averaged or summed over the batch, by weights where there are some.

    A subclass defines ``per_example``; a call then returns, with the values ``l_i``,

    - "mean": ``sum_i l_i / n``, or with weights ``sum_i w_i l_i / sum_i w_i``;
    - "sum": ``sum_i l_i``, or with weights ``sum_i w_i l_i``,

    and its gradient in the logits, in their dtype. Equations of losses are those of "mean". An
    example of weight 0 counts as absent, even if its value is infinite or NaN; if all weights are
    0, the value and the gradient are 0.

    A common offset of the logits changes no loss of several classes. A logit of ``-inf`` has
    probability and gradient 0; if it is the label's, the value is ``inf``. A row whose largest
    logit is not finite makes the value NaN, which stops ``fit``. For the other losses an infinite
    output gives the limit, and NaN gives NaN.
    """

    metrics: ClassVar[Metrics] = ()
    """The metrics that describe success."""

    class_labels: ClassVar[bool | None] = None
    """Whether targets (n,) are class labels; None: unless there is one output."""

    expects_logits: ClassVar[bool] = False
    """Whether training warns of a model that ends with probabilities, as those of ``Softmax``."""

    reduction: Reduction = "mean"

    def __init_subclass__(cls) -> None:
        for name in ("__call__", "probabilities", "predict"):
            if name in vars(cls):
                setattr(cls, name, quietly(vars(cls)[name]))

    def __init__(self, reduction: Reduction = "mean") -> None:
        self.reduction = check_choice(type(self).__name__, "reduction", reduction, REDUCTIONS)

    @quietly
    def __call__(self, logits: Array, y: Array, weight: Array | None = None) -> tuple[float, Array]:
        """Return the value over the batch, and its gradient with respect to the logits.

        Logits are float32 or float64, a row for each example; weights (n,) are finite and not
        negative. TypeError or ValueError, which names the loss, for others.
        """
        logits, y = self.checked(logits, y)
        values, dlogits = self.per_example(logits, y)
        shares = self.shares(len(logits), weight)
        if isinstance(shares, float):
            dlogits *= shares
            return float(values.sum(dtype=np.float64)) * shares, dlogits
        used = shares > 0
        values = values.sum(axis=tuple(range(1, values.ndim)), dtype=np.float64)
        return float(shares[used] @ values[used]), scaled(dlogits, shares)

    @abstractmethod
    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        """Return the values of the examples (n, ...), and the gradient of their sum.

        The gradient is a new array of the logits' shape and dtype.
        """

    def check_targets(self, logits: Array, y: Array) -> Array:
        """Return the targets as ``per_example`` takes them; TypeError or ValueError for others."""
        return y

    def predict(self, outputs: Array) -> Array:
        """Return what the outputs (n, K) of a model predict.

        Classes or signs -1 and +1, (n,); labels 0 and 1 or numbers, (n, K), or (n,) for one.
        """
        hint = "define predict(outputs) in its class"
        raise TypeError(f"{short_text(self)} does not say what it predicts; {hint}")

    def probabilities(self, outputs: Array) -> Array:
        """Return probabilities for the outputs (n, K), of their shape; TypeError without any."""
        raise TypeError(f"probabilities: {short_text(self)} has no probabilities of classes")

    def checked(self, logits: Array, y: Array) -> tuple[Array, Array]:
        """Return checked logits and targets."""
        logits = as_floats(type(self).__name__, "logits", logits)
        if logits.ndim == 0:
            raise ValueError(f"{type(self).__name__}: expected logits with rows, got one number")
        return logits, self.check_targets(logits, y)

    def shares(self, n: int, weight: Array | None = None) -> float | Array:
        """Return the factor of the values of ``n`` examples, or with weights of each, (n,)."""
        if weight is None:
            return 1 / max(n, 1) if self.reduction == "mean" else 1.0
        weight = check_weight(type(self).__name__, weight, n)
        largest = weight.max(initial=0)
        if self.reduction == "sum" or largest == 0:
            return weight
        weight = weight / largest  # the sum does not overflow
        return np.asarray(weight / weight.sum())

    def _outputs(self, outputs: Array) -> Array:
        return as_floats(type(self).__name__, "outputs", outputs)


def scaled(rows: Array, shares: float | Array) -> Array:
    """Return the rows times their shares; 0 where the share is 0, whatever the row."""
    if isinstance(shares, float):
        return np.asarray(rows * rows.dtype.type(shares))
    column = shares.astype(rows.dtype).reshape(-1, *[1] * (rows.ndim - 1))
    found: Array = np.multiply(rows, column, where=column > 0, out=np.zeros_like(rows))
    return found


class TwiceDifferentiable(ReducedLoss):
    """Base of losses with second derivatives, as cross-entropy or the squared error."""

    @abstractmethod
    def curvature(self, logits: Array, y: Array, v: Array) -> Array:
        """Return the Hessian of each example in its logits times its row of ``v``."""

    @quietly
    def hessian_vector_product(
        self, logits: Array, y: Array, v: Array, weight: Array | None = None
    ) -> Array:
        """Return the Hessian of a call in the logits times ``v``, of the logits' shape."""
        logits, y = self.checked(logits, y)
        v = as_array(type(self).__name__, "v", v).astype(logits.dtype)
        return scaled(self.curvature(logits, y, v), self.shares(len(logits), weight))


def hessian(loss: TwiceDifferentiable, logits: Array, y: Array, *weight: Array) -> Array:
    """Return the Hessian of each example in its logits, (n, K, K), a column at a time."""
    product, units = loss.hessian_vector_product, np.eye(logits.shape[1], dtype=logits.dtype)
    columns = [product(logits, y, np.tile(unit, (len(logits), 1)), *weight) for unit in units]
    return np.stack(columns, axis=-1)


def _one_value(rows: Array) -> Array:
    """Return predictions (n, K), or (n,) where K is 1."""
    return rows[:, 0] if rows.shape[1:] == (1,) else rows


class ClassLoss(ReducedLoss):
    """Base of the losses of classes: the largest output is the class.

    ``y`` are labels, integers ``0..K-1``, (n,), or distributions (n, K), as for label smoothing.
    """

    metrics = ("accuracy",)
    class_labels = True
    expects_logits = True

    def check_targets(self, logits: Array, y: Array) -> Array:
        return check_labels(type(self).__name__, logits, y)

    def predict(self, outputs: Array) -> Array:
        """Return the class of the largest output, ``0..K-1``, (n,); the first one of equals."""
        return np.asarray(self._outputs(outputs).argmax(axis=1))


class MapLoss(ClassLoss):
    """Base of the losses of a map onto the simplex, ``self.map``, which gives probabilities."""

    map: SimplexMap

    def probabilities(self, outputs: Array) -> Array:
        """Return the probabilities of the classes, (n, K): ``map(outputs)``."""
        return self.map(outputs)


class FenchelYoung(MapLoss, TwiceDifferentiable):
    r"""The Fenchel-Young loss of a regularised map (Blondel, Martins and Niculae 2020).

    value: ``mean_n (omega*(z_n) + omega(y_n) - <z_n, y_n>)``; gradient: ``(map(z) - y) / n``;
    Hessian: ``J / n`` with the Jacobian J of the map

    Convex in the logits, never negative, and 0 exactly where ``map(z) = y``: for sparsemax
    where the label's logit leads by 1, for entmax-1.5 by 2, for softmax nowhere. Its gradient is
    not 0 for a label outside the support either. The map is ``softmax``, ``sparsemax``,
    ``entmax15``, or your own ``RegularizedMap``.
    """

    def __init__(self, map: RegularizedMap, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        if not isinstance(map, RegularizedMap):
            want = "a map with a regulariser omega (for relumax there is SmoothedNLL)"
            raise TypeError(f"FenchelYoung: expected {want}, got {map!r}")
        self.map: RegularizedMap = map

    def __call__(self, logits: Array, y: Array, weight: Array | None = None) -> tuple[float, Array]:
        value, dlogits = super().__call__(logits, y, weight)
        if value == np.inf and dlogits.dtype != np.float64:
            # A difference of two logits may be too large for float32.
            value = super().__call__(np.asarray(logits, np.float64), y, weight)[0]
        return value, dlogits

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        return self.map.fenchel_young(logits, entries_of(y))

    def curvature(self, logits: Array, y: Array, v: Array) -> Array:
        return self.map.jvp(self.map(logits), v)


class CrossEntropy(FenchelYoung):
    r"""Softmax cross-entropy on logits: ``FenchelYoung(softmax)``.

    value: ``mean_n (log sum_k exp z_nk - z_ny)``; gradient: ``(softmax(z) - onehot(y)) / n``

    For a distribution ``y`` the value is ``KL(y, softmax(z))``, the cross-entropy plus
    ``sum y log y``, so that the least value is 0.
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__(softmax, reduction)


class SmoothedNLL(MapLoss):
    r"""The negative log-likelihood of smoothed probabilities, for any map.

    value: ``mean_n -log((p_y + eps) / (1 + K eps))`` with ``p = map(z)``

    gradient: ``-vjp(p, e_y / (p_y + eps)) / n``; note the minus sign

    For a label outside the support ``eps`` makes the value finite; the gradient is 0: labels must
    be inside at the start of training. The least value is ``log((1 + K eps) / (1 + eps))``, at
    ``p_y = 1``. That of a distribution is the mean over the labels ``i`` with weights ``y_i``.
    With ``eps = 0``, the value is ``inf`` and the gradient 0 where ``p_y = 0``.
    """

    def __init__(self, map: SimplexMap, eps: float = 0.01, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        if not isinstance(map, SimplexMap):
            raise TypeError(f"SmoothedNLL: expected a map as relumax(5.0), got {map!r}")
        self.map, self.eps = map, check_float("SmoothedNLL", "eps", eps, low=0)

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        rows, columns, weight = labels = entries_of(y)
        p = self.map.project_rows(shift(logits)[0])
        at = p[rows, columns] + p.dtype.type(self.eps)
        most = p.dtype.type(1 + p.shape[1] * self.eps)
        dp = np.zeros_like(p)
        values = row_sums(weight * np.log(most / at), labels, len(p))
        dp[rows, columns] = np.where(at > 0, -weight / at, 0)
        return values, self.map.vjp_rows(p, dp)


class Perceptron(ClassLoss):
    r"""The multi-class perceptron's loss (Rosenblatt 1958; Collobert and Bengio 2004).

    value: ``mean_n (max_k z_nk - z_ny)``; gradient: ``(e_predicted - e_y) / n``

    The prediction is the first of the largest logits. If the label ties with an earlier class,
    the prediction is wrong: the value is 0, the gradient is not. SGD on one example at a time
    with learning rate 1 is the perceptron algorithm. ``y`` are labels ``(n,)``.
    """

    def check_targets(self, logits: Array, y: Array) -> Array:
        if np.ndim(y) != 1:
            raise ValueError(f"{type(self).__name__}: expected y of shape (n,), got {np.shape(y)}")
        return super().check_targets(logits, y)

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        starts = np.arange(0, logits.size, logits.shape[1])  # of the rows, in the flat arrays
        predicted, label, flat = starts + logits.argmax(axis=1), starts + y, logits.ravel()
        top = flat[predicted]
        top += 0 * top  # NaN where the largest logit is not finite
        values = np.subtract(top, flat[label], dtype=np.float64)  # finite for far float32 logits
        dlogits = np.zeros(logits.size, logits.dtype)
        dlogits[predicted] = 1
        dlogits[label] -= 1
        return values, dlogits.reshape(logits.shape)


class BinaryCrossEntropy(TwiceDifferentiable):
    r"""Binary cross-entropy on logits, for any number of labels that do not exclude each other.

    value: ``mean_nk (log(1 + exp z_nk) - y_nk z_nk)``; gradient: ``(sigmoid(z) - y) / (n K)``

    second derivative: ``sigmoid(z) sigmoid(-z) / (n K)``, never negative, so the loss is convex

    ``y`` is ``(n, K)``, or ``(n,)`` where ``K`` is 1: zeros and ones, booleans, or probabilities in
    [0, 1], for which the least value is their entropy. With weights of the examples PyTorch divides
    by their number, not by the sum of weights. All is computed from ``exp(-|z|)``, which cannot
    overflow, and is exact for confident logits.

    ``label_reduction``, over the ``K`` labels of an example, is by default ``reduction``, as in
    ``torch.nn.BCEWithLogitsLoss``; "sum" with ``reduction="mean"`` is scikit-learn's loss.
    """

    metrics: ClassVar[Metrics] = ("exact_match", "mean_accuracy")
    class_labels = False
    expects_logits = True

    def __init__(
        self, reduction: Reduction = "mean", label_reduction: Reduction | None = None
    ) -> None:
        super().__init__(reduction)
        if label_reduction is not None:
            check_choice("BinaryCrossEntropy", "label_reduction", label_reduction, REDUCTIONS)
        self.label_reduction = label_reduction

    def check_targets(self, logits: Array, y: Array) -> Array:
        check_matrix(type(self).__name__, logits)
        want = "y in [0, 1] (BinaryLogistic takes -1 and +1)"
        return check_shaped(type(self).__name__, logits, y, want, lambda y: (y >= 0) & (y <= 1))

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        e, positive = np.exp(-np.abs(logits)), logits >= 0
        wrong = np.where(positive, 1 - y, y)  # the share of the label that the sign contradicts
        values = np.log1p(e) + np.where(wrong == 0, 0, np.abs(logits) * wrong)  # 0 inf is 0
        there, absent = np.where(positive, 1, e), np.where(positive, e, 1)
        dlogits = ((1 - y) * there - y * absent) / (1 + e)
        return values * self._per_label(logits), dlogits * self._per_label(logits)

    def predict(self, outputs: Array) -> Array:
        """Return 1 where a logit is above 0, else 0: (n, K), or (n,) for one label."""
        return _one_value(np.asarray(self._outputs(outputs) > 0, np.int64))

    def probabilities(self, outputs: Array) -> Array:
        """Return the probability of +1, or of each label, in the shape of the outputs (n, K)."""
        return sigmoid(self._outputs(outputs))

    def second_derivative(self, logits: Array, y: Array, weight: Array | None = None) -> Array:
        """Return the second derivative for each logit; it does not depend on the labels."""
        return self.hessian_vector_product(logits, y, np.ones(np.shape(logits)), weight)

    def curvature(self, logits: Array, y: Array, v: Array) -> Array:
        e = np.exp(-np.abs(logits))
        return np.asarray(e / np.square(1 + e) * self._per_label(logits) * v)

    def _per_label(self, logits: Array) -> float:
        """Return the factor of each label in the value of an example."""
        reduction = self.label_reduction or self.reduction
        return 1 / logits.shape[1] if reduction == "mean" else 1.0


class BinaryLogistic(BinaryCrossEntropy):
    r"""Logistic loss of one logit, for labels -1 and +1.

    value: ``mean_n log(1 + exp(-m_n))`` with the margin ``m = y z``

    derivative: ``-y sigmoid(-m) / n``; second derivative: ``sigmoid(m) sigmoid(-m) / n``

    It is the binary cross-entropy of ``(y + 1) / 2``, and softmax's of the logits ``(0, z)``.
    """

    metrics: ClassVar[Metrics] = {"accuracy": "sign_accuracy"}

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)

    def check_targets(self, logits: Array, y: Array) -> Array:
        if logits.shape[1:] != (1,):
            raise ValueError(f"{self!r}: expected logits of shape (n, 1), got {logits.shape}")
        want = "labels -1 and +1 (BinaryCrossEntropy takes 0 and 1)"
        return check_shaped(type(self).__name__, logits, y, want, lambda y: abs(y) == 1, "if")

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        margin = y * logits
        e = np.exp(-np.abs(margin))
        wrong = np.where(margin <= 0, 1, e) / (1 + e)  # sigmoid(-m), the probability of the other
        return np.log1p(e) + np.maximum(-margin, 0), -y * wrong

    def predict(self, outputs: Array) -> Array:
        """Return the sign of each logit, -1 or +1, (n,); -1 for a logit of 0."""
        return _one_value(np.where(self._outputs(outputs) > 0, 1, -1))


class NumberLoss(ReducedLoss):
    """Base of the losses of numbers, which are the outputs themselves.

    ``y`` are numbers of the shape of the outputs ``z``, (n, d), or (n,) if ``d`` is 1. The outputs
    of one example are always summed.
    """

    metrics: ClassVar[Metrics] = ("r2",)
    class_labels = False

    def check_targets(self, logits: Array, y: Array) -> Array:
        return check_shaped(type(self).__name__, logits, y, "y of integers or floats")

    def predict(self, outputs: Array) -> Array:
        """Return the outputs: (n, K), or (n,) for one."""
        return _one_value(self._outputs(outputs))


class SquaredError(NumberLoss, TwiceDifferentiable):
    r"""Half the squared distance, for regression.

    value: ``mean_n 1/2 ||z_n - y_n||^2``; gradient: ``(z - y) / n``; Hessian: ``I / n``

    ``torch.nn.MSELoss`` also averages over the outputs and has no factor 1/2: ``2/d`` times this.
    Where a square overflows (from 1.8e19 in float32, 1.3e154 in float64), the value is ``inf``.
    """

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        error = logits - y
        return np.square(error) / 2, error

    def curvature(self, logits: Array, y: Array, v: Array) -> Array:
        return v


class AbsoluteError(NumberLoss):
    r"""The absolute error; its best constant prediction is the median.

    value: ``mean_n sum_k |z_nk - y_nk|``; gradient: ``sign(z - y) / n``, 0 where ``z = y``

    ``torch.nn.L1Loss`` also averages over the outputs: it is ``1/d`` times this.
    """

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        error = logits - y
        return np.abs(error), np.sign(error)


class Huber(NumberLoss, TwiceDifferentiable):
    r"""Squared for small errors, linear for large ones, so that outliers count less (Huber 1964).

    value: ``mean_n sum_k c (|e| - c / 2)`` with ``e = z - y`` and ``c = min(|e|, delta)``

    gradient: ``clip(e, -delta, delta) / n``; second derivative: 1 where ``|e| <= delta``, else 0

    ``delta`` is above 0. ``torch.nn.HuberLoss`` also averages over the outputs: it is ``1/d`` times
    this.
    """

    def __init__(self, delta: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.delta = check_float("Huber", "delta", delta, low=0, open_low=True)

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        error = logits - y
        size = np.abs(error)
        c = np.minimum(size, self.delta)
        return c * (size - c / 2), np.clip(error, -self.delta, self.delta)

    def curvature(self, logits: Array, y: Array, v: Array) -> Array:
        return np.where(np.abs(logits - y) <= self.delta, v, 0)


class Poisson(NumberLoss, TwiceDifferentiable):
    r"""Half the deviance of counts from a Poisson distribution whose rate is ``exp(z)``.

    value: ``mean_n sum_k (exp(z_nk) - y_nk - y_nk (z_nk - log y_nk))``, where ``0 log 0`` is 0

    gradient: ``(exp(z) - y) / n``; second derivative: ``exp(z) / n``, so the loss is convex

    ``y >= 0`` need not be whole. The least value is 0, at ``exp(z) = y``;
    ``torch.nn.PoissonNLLLoss`` averages over the outputs too, and is lower by ``y log y - y``.
    Where ``exp`` overflows (from z = 88.8 in float32, 709.8 in float64), the value is ``inf``.
    """

    metrics: ClassVar[Metrics] = {"r2": "exp_r2"}

    def check_targets(self, logits: Array, y: Array) -> Array:
        return check_shaped(type(self).__name__, logits, y, "y of numbers >= 0", lambda y: y >= 0)

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        rate = np.exp(logits)
        error, counted = rate - y, y > 0
        saved = np.where(counted, y * (logits - np.log(np.where(counted, y, 1))), 0)
        return np.where(rate == np.inf, rate, error - saved), error

    def predict(self, outputs: Array) -> Array:
        """Return the rates ``exp(outputs)``: (n, K), or (n,) for one."""
        return _one_value(np.exp(self._outputs(outputs)))

    def curvature(self, logits: Array, y: Array, v: Array) -> Array:
        return np.asarray(np.exp(logits) * v)


class Quantile(NumberLoss):
    r"""The pinball loss; its best constant prediction is a quantile (Koenker and Bassett 1978).

    value: ``mean_n sum_k max(q e, (q - 1) e)`` with ``e = y - z``

    gradient: ``-q / n`` where ``z < y``, ``(1 - q) / n`` where ``z > y``, 0 where ``z = y``

    Several quantiles are learned together, one for each output: ``Quantile((0.1, 0.5, 0.9))`` with
    outputs ``(n, 3)`` and targets ``(n,)`` or ``(n, 1)``. Nothing keeps them in order. Each ``q``
    is between 0 and 1.
    """

    metrics = ()

    def __init__(self, q: float | Sequence[float], reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        bounds: Any = {"low": 0, "high": 1, "open_low": True, "open_high": True}
        several = tuple(check_float("Quantile", "q", v, **bounds) for v in np.ravel(q).tolist())
        if not several:
            raise ValueError("Quantile: expected at least one q, got none")
        self.q = several if np.ndim(q) else several[0]

    def check_targets(self, logits: Array, y: Array) -> Array:
        if isinstance(self.q, tuple):
            if logits.shape[1:] != (len(self.q),):
                want = f"one output for each quantile, (n, {len(self.q)})"
                raise ValueError(f"{self!r}: expected {want}, got {logits.shape}")
            logits = logits[:, :1]
        return super().check_targets(logits, y)

    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        q = np.array(self.q)
        error = y - logits
        slope = np.where(error > 0, -q.astype(logits.dtype), (1 - q).astype(logits.dtype))
        slope *= error != 0
        return -slope * error, slope
