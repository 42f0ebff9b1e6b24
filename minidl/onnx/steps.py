"""The operators of the features before a model, and of the label and probabilities after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.data.features import PCA, AveragePool, Feature, Standardize
from minidl.losses import BinaryCrossEntropy, BinaryLogistic, ReducedLoss
from minidl.losses.binary import SigmoidLoss
from minidl.losses.classes import ClassLoss, MapLoss
from minidl.losses.regression import NumberLoss
from minidl.onnx.graph import Graph, find_entry
from minidl.onnx.maps import map_nodes
from minidl.predictor import Predictor
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


def add_outputs(graph: Graph, predictor: Predictor, z: str, width: int | None) -> None:
    """Declare what a predictor gives for the outputs ``z`` (n, width).

    Label and probabilities where the loss has them, as ``predict`` and ``probabilities`` give them;
    without probabilities the outputs.
    """
    loss, names = predictor.loss, predictor.class_names
    if loss is None and names is not None:
        _label(graph, names, _largest(graph, z), 1)
    elif hasattr(loss, "predict"):
        label = find_entry(LABELS, loss, "loss", "predict")(graph, z)
        rank = 1 if width == 1 or isinstance(loss, ClassLoss) else 2
        if label is not None:
            if rank == 1 and not isinstance(loss, ClassLoss):
                label = graph.add("Squeeze", label, graph.integers(1))
            _label(graph, names if rank == 1 else None, label, rank)
    probabilities = None
    if hasattr(loss, "probabilities"):
        probabilities = find_entry(PROBABILITIES, loss, "loss", "probabilities")(graph, loss, z)
    if probabilities is None:
        graph.output("outputs", z, graph.dtype, 2)
    else:
        graph.output("probabilities", probabilities, graph.dtype, 2)


def _largest(graph: Graph, z: str) -> str:
    return graph.add("ArgMax", z, axis=-1, keepdims=0)


def _positive(graph: Graph, z: str) -> str:
    return graph.cast(graph.add("Greater", z, graph.constant(0)), np.int64)


def _sign(graph: Graph, z: str) -> str:
    positive = graph.add("Greater", z, graph.constant(0))
    one, minus_one = (graph.constant(sign, np.int64) for sign in (1, -1))
    return graph.add("Where", positive, one, minus_one)


LABELS: dict[type[Any], Callable[[Graph, str], str | None]] = {
    ClassLoss: _largest,
    BinaryLogistic: _sign,
    BinaryCrossEntropy: _positive,
    NumberLoss: lambda graph, z: None,
    ReducedLoss: lambda graph, z: None,
}
PROBABILITIES: dict[type[Any], Callable[[Graph, Any, str], str | None]] = {
    MapLoss: lambda graph, loss, z: map_nodes(graph, loss.map, z),
    SigmoidLoss: lambda graph, loss, z: graph.add("Sigmoid", z),
    ReducedLoss: lambda graph, loss, z: None,
}


def _label(graph: Graph, names: Array | None, label: str, rank: int) -> None:
    """Declare the label: the name of a class where there are names, or else its number."""
    if names is None:
        graph.output("label", label, np.int64, rank)
        return
    names = np.asarray(names)
    dtype: Any = str if names.dtype.kind in "UO" else names.dtype
    if names.dtype.kind not in "UObiuf" or not all(map(_is_text, names if dtype is str else ())):
        raise TypeError(f"export: expected class names of text or numbers, got {names[:3]!r}")
    index = graph.add("Max", label, graph.constant(0, np.int64))  # the sign -1 is the first name
    label = graph.add("Gather", graph.constant(names, names.dtype), index, axis=0)
    graph.output("label", label, dtype, rank)


def _is_text(value: object) -> bool:
    return isinstance(value, str)
