"""The operators of the features before a model, and of the label and probabilities after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.data.features import PCA, AveragePool, Feature, Standardize
from minidl.losses import BinaryCrossEntropy, BinaryLogistic, Loss
from minidl.onnx.graph import Graph
from minidl.onnx.maps import map_nodes
from minidl.predictor import Predictor
from minidl.simplex_map import SimplexMap
from minidl.typing import Array


def _standardize(graph: Graph, feature: Standardize, x: str) -> str:
    centred = graph.add("Sub", x, graph.constant(feature.mean))
    return graph.add("Div", centred, graph.constant(feature.std))


def _pca(graph: Graph, feature: PCA, x: str) -> str:
    centred = graph.add("Sub", x, graph.constant(feature.mean))
    return graph.add("MatMul", centred, graph.constant(feature.components.T))


def _average_pool(graph: Graph, feature: AveragePool, x: str) -> str:
    if feature.shape is None:
        raise TypeError(f"export: {feature!r} needs its shape, as AveragePool(2, (28, 28))")
    (height, width), size = feature.shape, feature.size
    shape = graph.integers(-1, height // size, size, width // size, size)
    means = graph.add("ReduceMean", graph.add("Reshape", x, shape), axes=[2, 4], keepdims=0)
    return graph.add("Reshape", means, graph.integers(-1, height // size * (width // size)))


FEATURES: dict[type[Feature], Callable[..., str]] = {
    Standardize: _standardize,
    PCA: _pca,
    AveragePool: _average_pool,
}


def add_outputs(graph: Graph, predictor: Predictor, z: str) -> bool:
    """Declare label and probabilities from the outputs ``z``; return whether there are any."""
    loss, names = predictor.loss, predictor.class_names
    probabilities = _probabilities(graph, loss, z)
    if isinstance(loss, BinaryCrossEntropy):
        positive = graph.add("Greater", z, graph.constant(0))
        graph.output("label", graph.cast(positive, np.int64), np.int64, 2)
    elif names is not None:
        _label(graph, names, z)
    if probabilities is not None:
        graph.output("probabilities", probabilities, graph.dtype, 2)
    elif names is not None:
        graph.output("outputs", z, graph.dtype, 2)
    return names is not None or probabilities is not None


def _probabilities(graph: Graph, loss: Loss | None, z: str) -> str | None:
    if isinstance(loss, (BinaryCrossEntropy, BinaryLogistic)):
        return graph.add("Sigmoid", z)
    map: SimplexMap | None = getattr(loss, "map", None)
    return None if map is None else map_nodes(graph, map, z)


def _label(graph: Graph, names: Array, z: str) -> None:
    """Declare the name of the class of the largest output."""
    names = np.asarray(names)
    dtype: Any = str if names.dtype.kind in "UO" else names.dtype
    if names.dtype.kind not in "UObiuf" or not all(map(_is_text, names if dtype is str else ())):
        raise TypeError(f"export: expected class names of text or numbers, got {names[:3]!r}")
    largest = graph.add("ArgMax", z, axis=-1, keepdims=0)
    label = graph.add("Gather", graph.constant(names, names.dtype), largest, axis=0)
    graph.output("label", label, dtype, 1)


def _is_text(value: object) -> bool:
    return isinstance(value, str)
