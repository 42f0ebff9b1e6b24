"""The operators of the maps onto the simplex, for rows."""

from __future__ import annotations

import numpy as np

from minidl.onnx.graph import Graph
from minidl.simplex import entmax15, relumax, softmax, sparsemax
from minidl.simplex_map import SimplexMap


def map_nodes(graph: Graph, map: SimplexMap, z: str) -> str:
    """Add the nodes of a map along the last axis; return the name of the probabilities."""
    kind = type(map)  # not the object: a copy or a pickle of a model has a map of its own
    if kind is type(softmax):
        return graph.add("Softmax", z, axis=-1)
    top = graph.add("ReduceMax", z, axes=[-1], keepdims=1)
    z = graph.add("Sub", z, top)
    if kind is type(sparsemax):
        return graph.add("Relu", graph.add("Sub", z, _sparsemax_threshold(graph, z)))
    if kind is type(entmax15):
        half = graph.add("Mul", z, graph.constant(0.5))
        root = graph.add("Relu", graph.add("Sub", half, _entmax15_threshold(graph, half)))
        return graph.add("Mul", root, root)
    if type(map) is relumax:
        u = graph.add("Relu", graph.add("Add", z, graph.constant(map.b)))
        total = graph.add("ReduceSum", u, graph.integers(-1), keepdims=1)
        return graph.add("Div", u, total)
    raise TypeError(f"export: no ONNX operators for the map {map!r:.80}")


def _sorted(graph: Graph, z: str) -> tuple[str, str]:
    """Return the rows in descending order as float64, entries below -1 as -1, and 1 to K."""
    s = graph.cast(graph.add("Max", z, graph.constant(-1)), np.float64)
    k = graph.add("Gather", graph.add("Shape", z), graph.integers(1), axis=0)
    s = graph.add("TopK", s, k, axis=-1, largest=1, sorted=1)
    one = graph.constant(1, np.int64)
    scalar = graph.add("Squeeze", k)
    counts = graph.add("Range", one, graph.add("Add", scalar, one), one)
    return s, graph.cast(counts, np.float64)


def _cumulative(graph: Graph, s: str) -> str:
    return graph.add("CumSum", s, graph.constant(-1, np.int64))


def _sparsemax_threshold(graph: Graph, z: str) -> str:
    """``max_k (s_1 + ... + s_k - 1) / k`` for the sorted row s."""
    s, k = _sorted(graph, z)
    one = graph.constant(1, np.float64)
    taus = graph.add("Div", graph.add("Sub", _cumulative(graph, s), one), k)
    return graph.cast(graph.add("ReduceMax", taus, axes=[-1], keepdims=1), graph.dtype)


def _entmax15_threshold(graph: Graph, half: str) -> str:
    """``max_k tau_k`` of those below ``s_k``, ``tau_k = m - sqrt(m^2 - (q - 1) / k)``.

    ``m`` is the mean of the first k entries of the sorted row s, ``q`` the sum of their squares.
    """
    s, k = _sorted(graph, half)
    zero, one = graph.constant(0, np.float64), graph.constant(1, np.float64)
    mean = graph.add("Div", _cumulative(graph, s), k)
    squares = _cumulative(graph, graph.add("Mul", s, s))
    share = graph.add("Div", graph.add("Sub", squares, one), k)
    root = graph.add("Max", graph.add("Sub", graph.add("Mul", mean, mean), share), zero)
    taus = graph.add("Sub", mean, graph.add("Sqrt", root))
    below = graph.add("LessOrEqual", taus, s)
    taus = graph.add("Where", below, taus, graph.constant(-1, np.float64))
    return graph.cast(graph.add("ReduceMax", taus, axes=[-1], keepdims=1), graph.dtype)
