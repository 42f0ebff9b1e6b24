"""Losses: ``value, dlogits = loss(logits, y)``, or ``loss(logits, y, weight)``.

One call returns the value and its gradient, so the two always belong to the same function. The
value is a Python float, summed in float64. The gradient is with respect to the logits and has
their dtype. Both are the mean over the batch by default, weighted where weights are given (see
``ReducedLoss``, which also says how to write a loss).

========================  ====================================  ==========================
loss                      targets                               figure of success
========================  ====================================  ==========================
``CrossEntropy``          labels (n,) or distributions (n, K)   accuracy
``FenchelYoung(map)``     labels (n,) or distributions (n, K)   accuracy
``SmoothedNLL(map)``      labels (n,) or distributions (n, K)   accuracy
``Perceptron``            labels (n,)                           accuracy
``BinaryLogistic``        -1 and +1, (n,)                       accuracy
``BinaryCrossEntropy``    0 and 1 or probabilities, (n, K)      exact_match, mean_accuracy
``SquaredError``          numbers (n, d)                        r2
``AbsoluteError``         numbers (n, d)                        r2
``Huber(delta)``          numbers (n, d)                        r2
``Quantile(q)``           numbers (n, d)                        the value itself
========================  ====================================  ==========================

``loss.predict(outputs)`` gives classes, signs, labels 0 and 1, or numbers, as the targets are, and
``loss.probabilities(outputs)`` probabilities where there are any. Where an example has one output,
its targets may be (n,). Labels are integers ``0..K-1`` of any
dtype and byte order; ``Dataset.from_labels`` numbers others. Other targets are refused by name.

For the losses of several classes, a row whose largest logit is not finite (only ``-inf``, or
``+inf``, or NaN) makes the value NaN, which stops ``fit``, for every number of classes. They are
finite for finite float32 logits however far apart, and for float64 logits unless a difference or
the sum is above the largest double, 1.8e308."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from minidl.checks import (
    Array,
    _check_floats,
    _short,
    as_array,
    as_floats,
    check_float,
    check_weight,
    quietly,
    type_text,
)
from minidl.maps import Entries, RegularizedMap, SimplexMap, row_sums, shift, softmax
from minidl.metrics import (
    Metric,
    accuracy,
    exact_match,
    mean_accuracy,
    predicted_classes,
    predicted_labels,
    predicted_signs,
    r2,
    sign_accuracy,
)

Reduction = Literal["mean", "sum"]


def check_reduction(owner: str, name: str, value: object) -> None:
    """Raise ValueError unless ``value`` is "mean" or "sum"."""
    if value not in ("mean", "sum"):
        raise ValueError(f"{owner}: expected {name} 'mean' or 'sum', got {value!r}")


class Loss(Protocol):
    """A function of logits and targets that returns its value and its gradient.

    A loss of your own may stop there. To take weighted data too, it has a third argument,
    ``weight``, an array (n,), and divides by its sum: ``sum_i w_i l_i / sum_i w_i``. One that sums
    over the batch instead has the attribute ``reduction = "sum"``, also a function; training then
    adds up the values of an epoch, and uses the weights as they are. With the attribute
    ``expects_logits = True`` training warns of a ``Softmax`` before it. A subclass of
    ``ReducedLoss`` has all of this.

    ``fit``, ``evaluate`` and ``minidl.testing.checks.check_loss`` pass targets of the shape of the logits,
    (n, 1) for one output, except class labels, which stay (n,): see ``shaped_targets``.
    """

    def __call__(self, logits: Array, y: Array) -> tuple[float, Array]:
        """Return the value, and the gradient with respect to the logits."""
        ...


class TwiceDifferentiable(Loss, Protocol):
    """A loss with second derivatives, as cross-entropy or the squared error."""

    def hessian_vector_product(self, logits: Array, y: Array, v: Array) -> Array:
        """Return the product of the Hessian in the logits with ``v``, of the logits' shape."""
        ...


def hessian(loss: TwiceDifferentiable, logits: Array, y: Array, *weight: Array) -> Array:
    """Return the Hessian of each example in its logits, (n, K, K), a column at a time.

    The Hessian in all logits together is block-diagonal with these blocks. For large K use
    ``loss.hessian_vector_product``, which takes O(K) for an example. A weight (n,) of the
    examples, where given, is passed on.
    """
    units = np.eye(logits.shape[1], dtype=logits.dtype)
    columns = [
        loss.hessian_vector_product(logits, y, np.tile(unit, (len(logits), 1)), *weight)
        for unit in units
    ]
    return np.stack(columns, axis=-1)


def predict(loss: Loss, outputs: Array) -> Array:
    """Return what a loss predicts from outputs, ``loss.predict(outputs)``.

    Raises
    ------
    TypeError
        If the loss does not say what it predicts, as a plain function; says how to give it.
    """
    method: Callable[[Array], Array] | None = getattr(loss, "predict", None)
    if method is None:
        raise _no_predictions(loss)
    return method(outputs)


def probabilities(loss: Loss, outputs: Array) -> Array:
    """Return the probabilities of a loss, ``loss.probabilities(outputs)``; TypeError without."""
    method: Callable[[Array], Array] | None = getattr(loss, "probabilities", None)
    if method is None:
        raise _no_probabilities(loss)
    return method(outputs)


def _no_predictions(loss: Loss) -> TypeError:
    name = getattr(loss, "__name__", None) or repr(loss)
    return TypeError(
        f"{name} does not say what it predicts; define predict(outputs) in a loss that is a class, "
        "as a subclass of minidl.losses.ReducedLoss, or take the outputs themselves"
    )


def _no_probabilities(loss: Loss) -> TypeError:
    name = getattr(loss, "__name__", None) or repr(loss)
    return TypeError(f"probabilities: {name} has no probabilities of classes")


class ReducedLoss(ABC):
    """Base of losses that are averaged or summed over the batch, with weights where wanted.

    A subclass defines ``per_example``; a call then returns, with the values ``l_i``,

    - "mean": ``sum_i l_i / n``, or with weights ``sum_i w_i l_i / sum_i w_i``;
    - "sum": ``sum_i l_i``, or with weights ``sum_i w_i l_i``,

    and the gradient of this with respect to the logits. So a weight of 2 counts as much as the
    same example twice. An example of weight 0 counts as absent, even if its value is infinite or
    NaN; if all weights are 0, the value and the gradient are 0.

    A loss also knows the task: ``predict(outputs)`` and, where there are any,
    ``probabilities(outputs)``, which ``Predictor``, the estimators and the ONNX export ask.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Over the batch.

    Examples
    --------
    The squared error of the logarithms, for positive targets (n, K):

    >>> class LogSquaredError(ReducedLoss):
    ...     def per_example(self, logits, y):
    ...         error = logits - np.log(y)
    ...         return np.square(error) / 2, error
    >>> value, dlogits = LogSquaredError("sum")(logits, y, weight)
    """

    metrics: ClassVar[Mapping[str, Metric]] = {}
    """The figures that describe success, by name: ``metric(outputs, y, weight)``."""

    class_labels: ClassVar[bool | None] = None
    """Whether targets (n,) are class labels; if None, they are unless there is one output."""

    expects_logits: ClassVar[bool] = False
    """Whether the outputs of the model must not be probabilities yet: the loss has a map of its
    own from logits to probabilities, or a margin."""

    reduction: Reduction = "mean"

    def __init_subclass__(cls) -> None:
        for name in ("__call__", "probabilities", "predict", "hessian_vector_product"):
            if name in vars(cls):
                setattr(cls, name, quietly(vars(cls)[name]))

    def __init__(self, reduction: Reduction = "mean") -> None:
        check_reduction(type(self).__name__, "reduction", reduction)
        self.reduction = reduction

    @quietly
    def __call__(self, logits: Array, y: Array, weight: Array | None = None) -> tuple[float, Array]:
        """Return the value over the batch, and its gradient with respect to the logits.

        Parameters
        ----------
        logits : array of float32 or float64
            The outputs of the model, one row for each example. Half and extended precision,
            masked arrays and sparse matrices are refused by name.
        y : array
            The targets; the class says which it takes.
        weight : array, shape (n,), optional
            The weights of the examples: finite, not negative.

        Raises
        ------
        TypeError, ValueError
            If the targets or the weights are of another kind or shape; names the loss.
        """
        logits = as_floats(type(self).__name__, "logits", logits)
        values, dlogits = self.per_example(logits, y)
        if weight is None:
            share = self.share(len(logits))
            dlogits *= share
            return float(values.sum(dtype=np.float64)) * share, dlogits
        shares = self.shares(len(logits), weight)
        used = shares > 0
        values = values.sum(axis=tuple(range(1, values.ndim)), dtype=np.float64)
        return float(shares[used] @ values[used]), _scaled(dlogits, shares)

    @abstractmethod
    def per_example(self, logits: Array, y: Array) -> tuple[Array, Array]:
        """Return the values of the examples and the gradient of their sum.

        Returns
        -------
        values : array
            One for each example, (n,); entries along further axes are summed.
        dlogits : array
            A new array of the logits' shape and dtype.
        """

    def predict(self, outputs: Array) -> Array:
        """Return what the outputs (n, K) of a model predict: (n,) where that is one value.

        Classes (n,); signs -1 and +1, (n,); labels 0 and 1, (n, K), or (n,) for one; numbers
        (n, K), or (n,) for one. A subclass of this class alone has to define it.
        """
        raise _no_predictions(self)

    def probabilities(self, outputs: Array) -> Array:
        """Return probabilities for the outputs (n, K), of their shape; TypeError without any."""
        raise _no_probabilities(self)

    def share(self, n: int) -> float:
        """Return the factor of each value in a batch of ``n`` without weights."""
        return 1 / max(n, 1) if self.reduction == "mean" else 1.0

    def shares(self, n: int, weight: Array) -> Array:
        """Return the factors of the values, (n,) float64, for checked weights of the examples."""
        weight = check_weight(type(self).__name__, weight, n)
        largest = weight.max(initial=0)
        if self.reduction == "sum" or largest == 0:
            return weight
        weight = weight / largest  # the sum does not overflow
        return np.asarray(weight / weight.sum())

    def reduced(self, rows: Array, weight: Array | None = None) -> Array:
        """Return rows of derivatives, one for each example, times the factors of the values."""
        if weight is None:
            return np.asarray(rows * rows.dtype.type(self.share(len(rows))))
        return _scaled(rows, self.shares(len(rows), weight))

    def settings(self) -> list[str]:
        """Return the arguments that ``repr`` shows."""
        return [] if self.reduction == "mean" else [f"reduction={self.reduction!r}"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.settings())})"


def _scaled(rows: Array, shares: Array) -> Array:
    """Return the rows times their shares; 0 where the share is 0, whatever the row."""
    column = shares.astype(rows.dtype).reshape(-1, *[1] * (rows.ndim - 1))
    scaled: Array = np.multiply(rows, column, where=column > 0, out=np.zeros_like(rows))
    return scaled


def checked_loss(loss: Any, logits: Array, *targets: Array) -> tuple[float, Array]:
    """Return ``loss(logits, *targets)``; raise an error that names the loss if its form is wrong.

    Raises
    ------
    TypeError, ValueError
        Unless it is a number, and an array of the shape and dtype of the logits.
    """
    if isinstance(loss, type):
        raise TypeError(f"expected a loss, got the class {loss.__name__}; write {loss.__name__}()")
    name = _short(loss)
    result: Any = loss(logits, *targets)
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(
            f"{name}: expected loss(logits, y) to return value, dlogits, got {type_text(result)}"
        )
    value, dlogits = result
    if isinstance(value, complex) or np.ndim(value) or np.asarray(value).dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected its value to be a number, got {type_text(value)}")
    _check_floats(f"{name}: expected dlogits to be", dlogits, logits.dtype)
    if dlogits.shape != logits.shape:
        raise ValueError(
            f"{name}: expected dlogits of the shape of the logits, {logits.shape}, got "
            f"{type_text(dlogits)}"
        )
    return value, dlogits


def check_weighted_mean(loss: Any, value: float, logits: Array, y: Array, weight: Array) -> None:
    """Raise ValueError unless a loss, whose value is given, divides by the sum of the weights."""
    twice, _ = loss(logits, y, 2 * weight)
    if not math.isclose(twice, value, rel_tol=1e-3) and math.isfinite(value):
        raise ValueError(
            f"{_short(loss)}: expected the weighted mean, sum_i w_i l_i / sum_i w_i, which stays "
            f"the same when all weights are doubled, got {value:g} and {twice:g}; a loss that sums "
            'has the attribute reduction = "sum"'
        )


def shaped_targets(loss: object, outputs: Array, y: Array) -> Array:
    """Return targets in the shape in which a loss and metrics see them beside the outputs.

    Targets (n,) become a column (n, 1) if there is one output, so that they have the shape of the
    outputs, unless they are class labels. The loss says whether they are (``class_labels``): if it
    says that they are not, they become a column beside several outputs too, as for ``Quantile``.
    """
    labels = getattr(loss, "class_labels", None)
    column = outputs.shape[1:] == (1,) if labels is None else not labels
    return y[:, None] if column and y.ndim == 1 else y


def one_value(rows: Array) -> Array:
    """Return predictions (n, K), or (n,) where K is 1."""
    return rows[:, 0] if rows.shape[1:] == (1,) else rows


def check_labels(owner: str, logits: Array, y: Array) -> Array:
    """Check ``y``: integers in ``0..K-1``, (n,), or distributions, (n, K).

    Returns labels as int64, so that no arithmetic overflows; distributions in the logits' dtype.
    """
    y = as_array(owner, "y", y)
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"{owner}: expected logits of shape (n, K), K > 0, got {logits.shape}")
    n, k = logits.shape
    if y.shape == (n, k):
        return _check_distributions(owner, y).astype(logits.dtype, copy=False)
    if y.shape != (n,):
        raise ValueError(f"{owner}: expected y of shape ({n},) or ({n}, {k}), got {y.shape}")
    if y.dtype.kind not in "iu":
        raise TypeError(
            f"{owner}: expected integer labels, got dtype {y.dtype}; Dataset.from_labels numbers "
            "labels of any kind, and SquaredError is for numbers"
        )
    labels = y.astype(np.int64, copy=False)
    # One pass checks both bounds: as unsigned integers, negative labels are the largest.
    unsigned = labels.view(np.uint64)
    if n and unsigned.max() >= k:
        i = int(unsigned.argmax())
        raise ValueError(
            f"{owner}: expected labels in 0..{k - 1}, got y[{i}] = {y[i]}; "
            "Dataset.from_labels numbers labels from 0"
        )
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


def entries(y: Array) -> Entries:
    """Return the nonzero entries of checked labels of either kind."""
    if y.ndim == 1:
        return np.arange(len(y)), y, 1.0
    rows, columns = np.nonzero(y)
    return rows, columns, y[rows, columns]


_HINT = "BinaryCrossEntropy takes 0 and 1"


def check_signs(owner: str, logits: Array, y: Array) -> Array:
    """Check labels -1 and +1, (n,) or (n, 1); return them as a column in the logits' dtype."""
    y = as_array(owner, "y", y)
    if logits.ndim != 2 or logits.shape[1] != 1:
        raise ValueError(f"{owner}: expected logits of shape (n, 1), got {logits.shape}")
    if y.shape not in ((len(logits),), logits.shape):
        raise ValueError(f"{owner}: expected y of shape ({len(logits)},), got {y.shape}")
    if y.dtype.kind not in "if":
        raise TypeError(f"{owner}: expected labels -1 and +1, got dtype {y.dtype}; {_HINT}")
    wrong = np.flatnonzero(np.abs(y) != 1)
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"{owner}: expected labels -1 and +1, got y[{i}] = {y.ravel()[i]}; {_HINT}"
        )
    return y.reshape(-1, 1).astype(logits.dtype)


def check_zeros_and_ones(owner: str, logits: Array, y: Array) -> Array:
    """Check labels that are there or not, (n, K), or (n,) where K = 1: numbers in [0, 1].

    Returns them in the logits' shape and dtype.
    """
    y = as_array(owner, "y", y)
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"{owner}: expected logits of shape (n, K), K > 0, got {logits.shape}")
    if y.dtype.kind not in "biuf":
        raise TypeError(f"{owner}: expected y of zeros and ones, got dtype {y.dtype}")
    if y.shape == (len(logits),) and logits.shape[1] == 1:
        y = y[:, None]
    if y.shape != logits.shape:
        hint = "; CrossEntropy takes one class of several" if y.ndim == 1 else ""
        raise ValueError(
            f"{owner}: expected y of the logits' shape {logits.shape}, got {y.shape}{hint}"
        )
    inside = (y >= 0) & (y <= 1)
    if not inside.all():
        i, k = np.argwhere(~inside)[0]
        hint = "; BinaryLogistic takes -1 and +1" if y[i, k] == -1 else ""
        raise ValueError(f"{owner}: expected y in [0, 1], got y[{i}, {k}] = {y[i, k]}{hint}")
    return y.astype(logits.dtype, copy=False)


def check_numbers(owner: str, logits: Array, y: Array) -> Array:
    """Check targets of a regression: numbers of the outputs' shape, or (n,) for one; True is 1.

    Returns them in the outputs' shape and dtype.
    """
    y = as_array(owner, "y", y)
    if y.dtype.kind not in "biuf":
        raise TypeError(f"{owner}: expected y of integers or floats, got dtype {y.dtype}")
    if y.ndim == 1 and logits.shape[1:] == (1,):
        y = y[:, None]
    if y.shape != logits.shape:
        raise ValueError(f"{owner}: expected y of the outputs' shape {logits.shape}, got {y.shape}")
    return y.astype(logits.dtype, copy=False)


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
