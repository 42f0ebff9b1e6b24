"""The answers of a model on data: ``outputs``, ``probabilities``, ``evaluate``, and the metrics.

A metric is ``metric(outputs, y)``, or ``metric(outputs, y, weight)``: it takes the outputs of a
model (n, K), the targets ``y`` and, where wanted, weights (n,) of the examples, finite and not
negative, and returns a number. It is NaN of no examples, where all weights are 0, and where an
output of an example of weight above 0 is NaN. Losses name the metrics that describe success.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from minidl.checks import (
    Array,
    ContractError,
    as_array,
    as_floats,
    check_choice,
    check_weight,
    is_floats,
    quietly,
    shaped_targets,
    short_text,
    takes,
    type_text,
)
from minidl.dataset import Part, Split, as_rows, as_split
from minidl.layer import Layer, last_layer
from minidl.losses import CrossEntropy, Loss, Metric, ReducedLoss


@quietly
def outputs(model: Layer, x: Array | Split) -> Array:
    """Return the outputs of ``model`` for all rows (n, features), in evaluation mode.

    Rows are arrays of any real dtype, or a ``Split``; images (n, height, width, ...) are flattened.
    uint8 is multiplied by the scale of the pixels that the model was trained on, by default 1/256.
    ValueError if it was trained on uint8 pixels and ``x`` has floats that are larger than these.
    """
    if isinstance(model, type) or not callable(model) or not hasattr(model, "dtype"):
        raise TypeError(f"outputs: expected a model, got {type_text(model)}")
    rows = as_rows("outputs", x, getattr(model, "input_scale", None))
    parts = [model(chunk) for chunk in rows.chunks(model.dtype)]
    return np.concatenate(parts or [model(rows.rows(slice(0), model.dtype))])


@quietly
def probabilities(model: Layer, x: Array | Split, loss: Loss | None = None) -> Array:
    """Return the probabilities of the classes for all rows, taken as by ``outputs``.

    The loss that the model was trained with has the map from logits to probabilities; by default
    ``CrossEntropy``, or no map where the model ends with a layer that gives probabilities.
    TypeError if the loss has no probabilities, and without a loss for one output.
    """
    if loss is None and getattr(last_layer(model), "gives_probabilities", False):
        return outputs(model, x)
    z = outputs(model, x)
    return probabilities_of(known_loss("probabilities", loss, z), z)


def known_loss(owner: str, loss: Loss | None, z: Array) -> Loss:
    """Return the loss, by default ``CrossEntropy``; TypeError for one output without a loss."""
    if loss is None and z.shape[1:] == (1,):
        want = "the loss of the training, as loss=SquaredError()"
        why = "one output may be a number, a logit or a sign"
        raise TypeError(f"{owner}: {why}; expected {want}")
    return CrossEntropy() if loss is None else loss


@quietly
def evaluate(
    model: Layer, data: Part, loss: Loss, metrics: Mapping[str, Metric] | None = None
) -> dict[str, float]:
    """Return the loss and the metrics over all rows of ``data``, in evaluation mode.

    ``data`` is part of a data set, or ``(x, y)`` or ``(x, y, weight)``, converted as in
    ``outputs``. The result has ``"loss"``; the metrics that the loss names, weighted where the data
    has weights; and those of ``metrics``, as for ``fit``: TypeError for one that returns no number.
    """
    return measure(model, data, as_loss("evaluate", loss), as_metrics("evaluate", metrics))[0]


def as_metrics(owner: str, metrics: Mapping[str, Metric] | None) -> dict[str, Metric]:
    """Return a user's metrics by name; TypeError for anything but functions by name."""
    found = {} if metrics is None else metrics
    if not isinstance(found, Mapping) or not all(map(callable, found.values())):
        want = "metrics by name, as {'f1': function}"
        raise TypeError(f"{owner}: expected {want}, got {type_text(metrics)}")
    return dict(found)


def measure(
    model: Layer, data: Part, loss: Loss, metrics: Mapping[str, Metric] | None = None
) -> tuple[dict[str, float], bool]:
    """Return what ``evaluate`` does, and whether the loss is finite, no output NaN or ``+inf``."""
    split = data if isinstance(data, Split) else as_split("evaluate", data)
    predicted = outputs(model, split if isinstance(data, Split) else split.x)
    y, *weight = split.targets()
    y = shaped_targets(loss, predicted, y)
    value, _ = checked_loss(loss, predicted, y, *weight)
    measured = {"loss": float(value)}
    for name, metric in metrics_of(loss).items():
        measured[name] = _number(name, metric(predicted, y, *weight))
    for name, metric in (metrics or {}).items():
        measured[name] = _number(name, metric(predicted, y))
    # The largest output is NaN if any is.
    finite = math.isfinite(value) and bool(predicted.max(initial=-math.inf) < math.inf)
    return measured, finite


def predict(loss: Any, outputs: Array) -> Array:
    """Return ``loss.predict(outputs)`` of any loss; TypeError, which names it, without."""
    own = getattr(loss, "predict", partial(ReducedLoss.predict, loss))
    return np.asarray(own(outputs))


def probabilities_of(loss: Any, outputs: Array) -> Array:
    """Return ``loss.probabilities(outputs)`` of any loss; TypeError, which names it, without."""
    own = getattr(loss, "probabilities", partial(ReducedLoss.probabilities, loss))
    return np.asarray(own(outputs))


def as_loss(owner: str, loss: Any) -> Loss:
    """Return a loss; TypeError for a class, and for what is not called as ``loss(logits, y)``."""
    called = callable(loss) and (
        isinstance(loss, ReducedLoss) or takes(loss, None, None) or takes(loss, None, None, None)
    )
    if isinstance(loss, type) or not called:
        raise TypeError(f"{owner}: expected a loss as CrossEntropy(), got {loss!r:.80}")
    return loss  # type: ignore[no-any-return]


def checked_loss(loss: Any, logits: Array, *targets: Array) -> tuple[float, Array]:
    """Return ``loss(logits, *targets)``: a number and an array of the logits' shape and dtype."""
    result: Any = loss(logits, *targets)
    pair: Any = result if isinstance(result, tuple) and len(result) == 2 else (None, None)
    value, dlogits = pair
    if np.ndim(value) or np.asarray(value).dtype.kind not in "iuf":
        want = "loss(logits, y) to return value, dlogits, its value to be a number"
        raise TypeError(f"{short_text(loss)}: expected {want}, got {type_text(result)}")
    if not is_floats(dlogits, logits.dtype) or dlogits.shape != logits.shape:
        want = f"dlogits of the shape of the logits, {logits.shape}, and of {logits.dtype}"
        raise ContractError(f"{short_text(loss)}: expected {want}, got {type_text(dlogits)}")
    return value, dlogits


def check_loss(loss: Any, logits: Array, y: Array, *weight: Array) -> None:
    """Check a loss as ``checked_loss`` does, and that it divides by the sum of the weights."""
    value, _ = checked_loss(loss, logits, y, *weight)
    if not weight or getattr(loss, "reduction", "mean") == "sum":
        return
    twice, _ = loss(logits, y, 2 * weight[0])
    if not math.isclose(twice, value, rel_tol=1e-3) and math.isfinite(value):
        raise ValueError(
            f"{short_text(loss)}: expected the weighted mean, the same when all weights "
            f'are doubled, got {value:g} and {twice:g}; one that sums has reduction = "sum"'
        )


def metrics_of(loss: object) -> dict[str, Metric]:
    """Return the metrics of a loss by name; ValueError for a name that is not known."""
    given = getattr(loss, "metrics", ())
    found = dict(given) if isinstance(given, Mapping) else {name: name for name in given}
    for name, metric in found.items():
        if not callable(metric):
            found[name] = METRICS[check_choice(repr(loss), "metric", metric, tuple(METRICS))]
    return found


def _number(name: str, value: object) -> float:
    """Return the value of a metric as a float; TypeError, which names it, for anything else."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise TypeError(f"metric {name!r}: expected it to return a number, got {type_text(value)}")
    return float(array.reshape(()))


METRICS: dict[str, Metric] = {}
"""The metrics that a loss may name."""


def _metric(measured: Callable[[Array, Array, Array], Any]) -> Metric:
    """Decorate ``measured(outputs, y, weight)``, which returns a number or one an example."""
    owner = measured.__name__

    def metric(outputs: Array, y: Array, weight: Array | None = None) -> float:
        outputs = as_array(owner, "outputs", outputs, numbers=True)
        y = as_array(owner, "y", y, numbers=True)
        whole = outputs.dtype.kind != "f"
        outputs = outputs.astype(np.float64) if whole else as_floats(owner, "outputs", outputs)
        if outputs.ndim != 2:
            raise ValueError(f"{owner}: expected outputs of shape (n, K), got {outputs.shape}")
        n, labels = len(outputs), owner == "accuracy"
        column = labels or outputs.shape[1] == 1
        if y.shape != outputs.shape and not (column and y.shape == (n,)):
            want = f"({n},) or {outputs.shape}" if column else f"{outputs.shape}"
            raise ValueError(f"{owner}: expected y of shape {want}, got {y.shape}")
        y = y if labels else y.reshape(outputs.shape)
        weight = np.ones(n) if weight is None else check_weight(owner, weight, n)
        weight = weight / (weight.max(initial=0) or 1)  # of these the sum does not overflow
        if not weight.any() or np.isnan(outputs[weight > 0]).any():
            return math.nan
        values = measured(outputs, y, weight)
        return float(weight @ values / weight.sum() if np.ndim(values) else values)

    metric.__name__ = metric.__qualname__ = owner
    metric.__doc__ = measured.__doc__
    METRICS[owner] = quietly(metric)
    return METRICS[owner]


@_metric
def accuracy(outputs: Array, y: Array, weight: Array) -> Array:
    """Return the share of examples whose largest output, the first of equals, is the label's.

    ``y`` are labels (n,), or distributions (n, K), of which the largest entry is the label.
    """
    labels = y if y.ndim == 1 else y.argmax(axis=1)
    return np.asarray(outputs.argmax(axis=1) == labels)


@_metric
def sign_accuracy(outputs: Array, y: Array, weight: Array) -> Array:
    """Return the share of examples whose one output has the sign of the label; 0 is negative."""
    if outputs.shape[1] != 1:
        raise ValueError(f"sign_accuracy: expected outputs of shape (n, 1), got {outputs.shape}")
    return np.asarray((outputs > 0)[:, 0] == (y > 0)[:, 0])


@_metric
def exact_match(outputs: Array, y: Array, weight: Array) -> Array:
    """Return the share of examples of which all labels are predicted right.

    A label is predicted where its logit is above 0; it is there where ``y`` is above 1/2. ``y`` are
    zeros and ones, or probabilities, (n, K), or (n,) where K = 1.
    """
    return np.asarray(((outputs > 0) == (y > 0.5)).all(axis=1))


@_metric
def mean_accuracy(outputs: Array, y: Array, weight: Array) -> Array:
    """Return the share of labels that are predicted right; arguments as of ``exact_match``."""
    return np.asarray(((outputs > 0) == (y > 0.5)).mean(axis=1))


@_metric
def r2(outputs: Array, y: Array, weight: Array) -> float:
    """Return the coefficient of determination R^2, the mean over the outputs.

    ``1 - sum_n w_n (y_n - z_n)^2 / sum_n w_n (y_n - ybar)^2`` with the weighted mean ``ybar``, as
    ``sklearn.metrics.r2_score``. Of a constant target it is 1 if the predictions are exact, else 0;
    of fewer than two examples NaN. ``y`` is (n, d), as the outputs, or (n,) where d = 1.
    """
    used = weight > 0
    if used.sum() < 2:
        return math.nan
    y, outputs = y[used].astype(np.float64), outputs[used].astype(np.float64)
    weight = weight[used]
    mean = weight @ y / weight.sum()
    residual, total = weight @ np.square(y - outputs), weight @ np.square(y - mean)
    constant = (y == y[0]).all(axis=0)
    return float(np.where(constant, residual == 0, 1 - residual / total).mean())


@_metric
def exp_r2(outputs: Array, y: Array, weight: Array) -> float:
    """Return ``r2`` of the rates ``exp(outputs)``, which ``Poisson`` predicts."""
    return r2(np.exp(outputs), y, weight)
