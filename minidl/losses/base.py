"""The contract of a loss, and the base class that averages over the batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, Protocol

import numpy as np

from minidl.metrics import Metric
from minidl.special import quietly
from minidl.typing import Array
from minidl.validation import as_floats, check_weight

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

    ``fit``, ``evaluate`` and ``minidl.testing.check_loss`` pass targets of the shape of the logits,
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
