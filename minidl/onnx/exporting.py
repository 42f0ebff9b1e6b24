"""``export``: a model, what comes before it and what comes after it, as one ONNX file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from minidl.data.features import PCA, Standardize
from minidl.files import atomic
from minidl.layer import Layer
from minidl.onnx.graph import Graph, find_entry
from minidl.onnx.layers import layer_nodes
from minidl.onnx.steps import FEATURES, add_outputs
from minidl.parameter import walk
from minidl.predictor import Predictor, predictor_of


def export(path: str | os.PathLike[str], model: Any) -> None:
    """Write a model to an ONNX file.

    Parameters
    ----------
    path : path
        Usually with the suffix ``.onnx``. The file is written whole or not at all.
    model : Layer, Predictor or estimator of ``minidl.sklearn``
        Of layers, losses and features of minidl; ``x`` is ``(n, features)``.

    Notes
    -----
    The input is ``x``: floats of the model's dtype, or uint8 where a ``Predictor`` was trained on
    pixels. The outputs depend on the model:

    ==============================================  ==========================================
    model                                           outputs
    ==============================================  ==========================================
    a layer, or a regression                        ``outputs`` (n, d)
    classes                                         ``label`` (n,), ``probabilities`` (n, K)
    one logit (``BinaryLogistic``, or one label)    ``label`` (n,), ``probabilities`` (n, 1)
    several labels (``BinaryCrossEntropy``)         ``label`` (n, K), ``probabilities`` (n, K)
    the perceptron                                  ``label`` (n,), ``outputs`` (n, K)
    ==============================================  ==========================================

    A label is what ``predict`` gives: the name of a class where there are names, or else int64.
    A ``Predictor`` without a loss has labels only if it has names, and ``outputs``.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If an estimator is not fitted.
    TypeError
        If a layer, a map, a feature or a loss has no operators here; names it.
    ImportError
        If onnx is not installed.

    Examples
    --------
    >>> minidl.onnx.export("model.onnx", estimator)
    >>> session = onnxruntime.InferenceSession("model.onnx")
    >>> label, probabilities = session.run(None, {"x": x})
    """
    proto = to_onnx(model)
    with atomic(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())


def to_onnx(model: Any) -> Any:
    """Return a model as ``onnx.ModelProto``; see ``export``."""
    model = predictor_of(model)
    predictor = model if isinstance(model, Predictor) else None
    layer = model if predictor is None else predictor.model
    if not isinstance(layer, Layer):
        raise TypeError(f"export: expected a Layer, a Predictor or an estimator, got {layer!r:.80}")
    graph = Graph(layer.dtype)
    pixels = predictor is not None and predictor.trained_on is not None and predictor.trained_on[0]
    features = [] if predictor is None else predictor.features
    graph.input("x", np.dtype(np.uint8) if pixels else layer.dtype, _width(features, layer))
    x = "x"
    if predictor is not None and pixels and predictor.trained_on is not None:
        x = graph.cast(x, layer.dtype)
        x = graph.add("Mul", x, graph.constant(predictor.trained_on[1]))
    for feature in features:
        x = find_entry(FEATURES, feature, "feature")(graph, feature, x)
    outputs = layer_nodes(graph, layer, x)
    if predictor is None:
        graph.output("outputs", outputs, graph.dtype, 2)
    else:
        add_outputs(graph, predictor, outputs, _outputs(layer))
    return graph.model()


def _outputs(layer: Layer) -> int | None:
    """Return the number of outputs of a layer, if it is known."""
    features = _width([], layer)
    return None if features is None else layer(np.zeros((1, features), layer.dtype)).shape[1]


def _width(features: Any, layer: Layer) -> int | None:
    """Return the number of columns of ``x``, if it is known."""
    for feature in features:
        if isinstance(feature, (Standardize, PCA)):
            return len(feature.mean)
        return None
    return next((inner.in_features for inner in walk(layer) if hasattr(inner, "in_features")), None)
