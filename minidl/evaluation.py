"""Outputs and figures of a model on data: ``outputs``, ``probabilities``, ``evaluate``."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping

import numpy as np

from minidl.checks import Array, quietly
from minidl.checks import type_text as describe
from minidl.dataset import Part, Split, as_rows, as_split
from minidl.layer import Layer, last_layer
from minidl.losses import CrossEntropy, Loss, checked_loss, shaped_targets
from minidl.losses import probabilities as probabilities_of
from minidl.metrics import Metric


@quietly
def outputs(model: Layer, x: Array | Split) -> Array:
    """Return the outputs of ``model`` for all rows, in evaluation mode.

    Parameters
    ----------
    model : Layer
    x : array, shape (n, features), or Split
        Any real dtype; images (n, height, width, ...) are flattened. uint8 pixels are multiplied
        by the scale of the pixels that the model was trained on, by default 1/256.

    Raises
    ------
    ValueError
        If the model was trained on uint8 pixels and ``x`` has floats that are larger than these.
    """
    rows = as_rows("outputs", x, getattr(model, "input_scale", None))
    parts = [model(chunk) for chunk in rows.chunks(model.dtype)]
    return np.concatenate(parts or [model(rows.rows(slice(0), model.dtype))])


@quietly
def probabilities(model: Layer, x: Array | Split, loss: Loss | None = None) -> Array:
    """Return the probabilities of the classes for all rows.

    Parameters
    ----------
    model : Layer
    x : array or Split
        As for ``outputs``.
    loss : Loss, optional
        The loss that the model was trained with. It has the map from logits to probabilities:
        softmax for ``CrossEntropy``, its map for ``FenchelYoung``, the sigmoid for
        ``BinaryCrossEntropy``. By default ``CrossEntropy``, or no map where the model ends with a
        layer that gives probabilities.

    Raises
    ------
    TypeError
        If the loss has no probabilities, as ``SquaredError``; without a loss for one output, which
        may be a number or a logit.
    """
    if loss is None and getattr(last_layer(model), "gives_probabilities", False):
        return outputs(model, x)
    z = outputs(model, x)
    return probabilities_of(known_loss("probabilities", loss, z), z)


def known_loss(owner: str, loss: Loss | None, z: Array) -> Loss:
    """Return the loss, by default ``CrossEntropy``; TypeError for one output without a loss."""
    if loss is None and z.shape[1:] == (1,):
        raise TypeError(
            f"{owner}: one output may be a number, a logit or a sign; expected the loss of the "
            "training, as loss=SquaredError()"
        )
    return CrossEntropy() if loss is None else loss


@quietly
def evaluate(
    model: Layer,
    data: Part,
    loss: Loss,
    metrics: Mapping[str, Metric] | None = None,
) -> dict[str, float]:
    """Return the loss and the other figures over all rows of ``data``, in evaluation mode.

    Parameters
    ----------
    model : Layer
    data : Split, (x, y) or (x, y, weight)
        Part of a data set, or arrays, converted as in ``outputs``.
    loss : Loss
    metrics : mapping, optional
        More figures by name: ``metric(outputs, y)`` returns a number. Outputs are (n, K); ``y``
        has their shape, (n, 1) for one output, except for class labels, which are (n,).

    Returns
    -------
    dict
        ``"loss"``; the figures that the loss names as success, as ``"accuracy"``, ``"r2"``
        (weighted where the data has weights); those of ``metrics``.

    Raises
    ------
    TypeError
        If a metric returns no number; names it.
    """
    return measure(model, data, loss, metrics)[0]


def measure(
    model: Layer,
    data: Part,
    loss: Loss,
    metrics: Mapping[str, Metric] | None = None,
) -> tuple[dict[str, float], bool]:
    """Return what ``evaluate`` does, and whether the outputs are finite.

    They are where the loss is finite and no output is NaN or ``+inf``; ``-inf`` may be the logit of
    a masked class.
    """
    split = data if isinstance(data, Split) else as_split("evaluate", data)
    predicted = outputs(model, split if isinstance(data, Split) else split.x)
    y, *weight = split.targets()
    y = shaped_targets(loss, predicted, y)
    value, _ = checked_loss(loss, predicted, y, *weight)
    figures = {"loss": float(value)}
    own: Mapping[str, Metric] = getattr(loss, "metrics", {})
    for name, metric in own.items():
        figures[name] = _number(name, metric(predicted, y, *weight))
    for name, metric in (metrics or {}).items():
        figures[name] = _number(name, metric(predicted, y))
    # The largest output is NaN if any is.
    finite = math.isfinite(value) and bool(predicted.max(initial=-math.inf) < math.inf)
    return figures, finite


def _number(name: str, value: object) -> float:
    """Return the value of a metric as a float; TypeError, which names it, for anything else."""
    if isinstance(value, numbers.Real):
        return float(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise TypeError(f"metric {name!r}: expected it to return a number, got {describe(value)}")
    return float(array.reshape(()))
