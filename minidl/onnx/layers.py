"""The operators of each layer in inference: functions of the graph, the layer and its input."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minidl.activations import (
    ELU,
    GELU,
    LeakyReLU,
    Quadratic,
    ReLU,
    Sigmoid,
    SiLU,
    Simplex,
    Softplus,
    Tanh,
)
from minidl.layer import Layer, Sequential
from minidl.layers import BatchNorm, Dropout, Flatten, Identity, LayerNorm, Linear, Residual
from minidl.onnx.graph import Graph, find_entry
from minidl.onnx.maps import map_nodes
from minidl.special import erfc_coefficients


def layer_nodes(graph: Graph, layer: Layer, x: str) -> str:
    """Add the nodes of a layer in inference; return the name of its output."""
    return find_entry(NODES, layer, "layer")(graph, layer, x)


def _linear(graph: Graph, layer: Linear, x: str) -> str:
    weight = graph.constant(layer.weight.value)
    if layer.bias is None:
        return graph.add("MatMul", x, weight)
    return graph.add("Gemm", x, weight, graph.constant(layer.bias.value))


def _sequential(graph: Graph, layer: Sequential, x: str) -> str:
    for inner in layer.layers:
        x = layer_nodes(graph, inner, x)
    return x


def _layer_norm(graph: Graph, layer: LayerNorm, x: str) -> str:
    # LayerNormalization has its epsilon in float32, which is not exact enough for float64.
    centred = graph.add("Sub", x, graph.add("ReduceMean", x, axes=[-1], keepdims=1))
    square = graph.add("Mul", centred, centred)
    variance = graph.add("ReduceMean", square, axes=[-1], keepdims=1)
    scale = graph.add("Sqrt", graph.add("Add", variance, graph.constant(layer.eps)))
    h = graph.add("Mul", graph.add("Div", centred, scale), graph.constant(layer.weight.value))
    return graph.add("Add", h, graph.constant(layer.bias.value))


def _batch_norm(graph: Graph, layer: BatchNorm, x: str) -> str:
    scale = layer.weight.value / np.sqrt(layer.running_var + layer.eps)
    centred = graph.add("Sub", x, graph.constant(layer.running_mean))
    h = graph.add("Mul", centred, graph.constant(scale))
    return graph.add("Add", h, graph.constant(layer.bias.value))


def _elu(graph: Graph, layer: ELU, x: str) -> str:
    above = graph.add("Max", x, graph.constant(0))
    e = graph.add("Exp", graph.add("Min", x, graph.constant(0)))
    below = graph.add("Mul", graph.add("Sub", e, graph.constant(1)), graph.constant(layer.alpha))
    return graph.add("Add", above, below)


def _softplus(graph: Graph, layer: Softplus, x: str) -> str:
    e = graph.add("Exp", graph.add("Neg", graph.add("Abs", x)))
    log = graph.add("Log", graph.add("Add", e, graph.constant(1)))
    return graph.add("Add", graph.add("Max", x, graph.constant(0)), log)


def _leaky_relu(graph: Graph, layer: LeakyReLU, x: str) -> str:
    above = graph.add("Max", x, graph.constant(0))
    below = graph.add("Min", x, graph.constant(0))
    return graph.add("Add", above, graph.add("Mul", below, graph.constant(layer.slope)))


def _silu(graph: Graph, layer: SiLU, x: str) -> str:
    return graph.add("Mul", x, graph.add("Sigmoid", x))


def _gelu(graph: Graph, layer: GELU, x: str) -> str:
    if layer.approximate == "none" and graph.dtype == np.float64:
        return graph.add("Mul", x, _normal_cdf(graph, x))
    if layer.approximate == "none":
        t = graph.add("Erf", graph.add("Mul", x, graph.constant(math.sqrt(0.5))))
    else:
        cube = graph.add("Mul", graph.add("Mul", x, x), x)
        u = graph.add("Add", x, graph.add("Mul", cube, graph.constant(0.044715)))
        t = graph.add("Tanh", graph.add("Mul", u, graph.constant(math.sqrt(2 / math.pi))))
    half = graph.add("Mul", x, graph.constant(0.5))
    return graph.add("Mul", half, graph.add("Add", t, graph.constant(1)))


def _normal_cdf(graph: Graph, x: str) -> str:
    """The distribution function of ``minidl.special``: onnxruntime has no Erf of float64."""
    size = graph.add("Min", graph.add("Abs", x), graph.constant(50))
    z = graph.add("Mul", size, graph.constant(math.sqrt(0.5)))
    below, above = (graph.add("Add", z, graph.constant(by)) for by in (-2.5, 2.5))
    t = graph.add("Div", below, above)
    highest, *rest = map(graph.constant, erfc_coefficients(graph.dtype))
    series = highest
    for coefficient in rest:
        series = graph.add("Add", graph.add("Mul", series, t), coefficient)
    exponent = graph.add("Mul", graph.add("Mul", size, size), graph.constant(-0.5))
    top = graph.add("Mul", graph.add("Exp", exponent), series)
    bottom = graph.add("Add", graph.add("Mul", z, graph.constant(4)), graph.constant(2))
    tail = graph.add("Div", top, bottom)
    negative = graph.add("Less", x, graph.constant(0))
    return graph.add("Where", negative, tail, graph.add("Sub", graph.constant(1), tail))


def _quadratic(graph: Graph, layer: Quadratic, x: str) -> str:
    return graph.add("Mul", x, graph.add("Sub", graph.constant(1), x))


def _residual(graph: Graph, layer: Residual, x: str) -> str:
    return graph.add("Add", x, layer_nodes(graph, layer.inner, x))


def _simplex(graph: Graph, layer: Simplex, x: str) -> str:
    if layer.axis in (-1, 1):
        return map_nodes(graph, layer.map, x)
    if layer.axis not in (0, -2):
        raise TypeError(f"export: expected axis 0 or 1 of (n, features), got {layer!r}")
    transposed = graph.add("Transpose", x, perm=[1, 0])
    return graph.add("Transpose", map_nodes(graph, layer.map, transposed), perm=[1, 0])


NODES: dict[type[Layer], Callable[..., str]] = {
    Linear: _linear,
    Sequential: _sequential,
    Dropout: lambda graph, layer, x: x,
    Identity: lambda graph, layer, x: x,
    Flatten: lambda graph, layer, x: graph.add("Flatten", x, axis=1),
    LayerNorm: _layer_norm,
    BatchNorm: _batch_norm,
    Residual: _residual,
    ReLU: lambda graph, layer, x: graph.add("Relu", x),
    Tanh: lambda graph, layer, x: graph.add("Tanh", x),
    Sigmoid: lambda graph, layer, x: graph.add("Sigmoid", x),
    LeakyReLU: _leaky_relu,
    ELU: _elu,
    Softplus: _softplus,
    SiLU: _silu,
    GELU: _gelu,
    Quadratic: _quadratic,
    Simplex: _simplex,
}
