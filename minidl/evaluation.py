"""Outputs and figures of a model on data: ``outputs``, ``probabilities``, ``evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minidl.activations import Sigmoid, Simplex
from minidl.checks import Array
from minidl.dataset import Part, Split, as_rows, as_split
from minidl.layer import Layer, Sequential
from minidl.losses import CrossEntropy, Loss, checked_loss
from minidl.metrics import Metric


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
    rows = as_rows("outputs", x, getattr(model, "trained_on", None))
    parts = [model(chunk) for chunk in rows.chunks(model.dtype)]
    return np.concatenate(parts or [model(rows.rows(slice(0), model.dtype))])


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
        If the loss has no probabilities, as ``SquaredError``.
    """
    last = model[-1] if isinstance(model, Sequential) and model.layers else model
    if loss is None and isinstance(last, (Simplex, Sigmoid)):
        return outputs(model, x)
    from_logits = getattr(CrossEntropy() if loss is None else loss, "probabilities", None)
    if from_logits is None:
        raise TypeError(f"probabilities: {loss!r} has no probabilities of classes")
    result: Array = from_logits(outputs(model, x))
    return result


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
        More figures by name: functions of the outputs and ``y``.

    Returns
    -------
    dict
        ``"loss"``; the figures that the loss names as success, as ``"accuracy"``, ``"r2"``
        (weighted where the data has weights); those of ``metrics``.
    """
    split = data if isinstance(data, Split) else as_split("evaluate", data)
    predicted = outputs(model, split if isinstance(data, Split) else split.x)
    targets = split.targets()
    value, _ = checked_loss(loss, predicted, *targets)
    own: Mapping[str, Callable[..., Any]] = getattr(loss, "metrics", {})
    figures = {"loss": float(value)}
    figures |= {name: float(metric(predicted, *targets)) for name, metric in own.items()}
    figures |= {name: float(m(predicted, split.y)) for name, m in (metrics or {}).items()}
    return figures
