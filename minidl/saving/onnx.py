"""An ONNX graph that grows by one node at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, TypeVar

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
    erfc_coefficients,
)
from minidl.checks import Array, require
from minidl.data.features import PCA, AveragePool, Feature, Predictor, Standardize, predictor_of
from minidl.files import atomic
from minidl.layer import Layer, Sequential
from minidl.layers import BatchNorm, Dropout, Flatten, Identity, LayerNorm, Linear, Residual
from minidl.losses import (
    BinaryCrossEntropy,
    BinaryLogistic,
    ClassLoss,
    MapLoss,
    NumberLoss,
    ReducedLoss,
    SigmoidLoss,
)
from minidl.maps import SimplexMap, entmax15, relumax, softmax, sparsemax
from minidl.parameter import walk

OPSET, IR_VERSION = 17, 8

T = TypeVar("T")


class Graph:
    """Nodes, constants, inputs and outputs of a graph, with names made up as it grows."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.onnx = require("onnx", "onnx")
        self.dtype = dtype
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def kind(self, dtype: np.dtype[Any]) -> int:
        """Return ONNX's number for a dtype."""
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its first output."""
        name = f"{operator}_{len(self.nodes)}"
        outputs = [name] if operator != "TopK" else [name, f"{name}_indices"]
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), outputs, **attributes))
        return name

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Add a constant, by default of the model's dtype, and return its name."""
        array = np.asarray(value, self.dtype if dtype is None else dtype)
        name = f"constant_{len(self.constants)}"
        if array.dtype.kind in "UO":
            strings = [str(word).encode() for word in array.ravel()]
            kind = self.onnx.TensorProto.STRING
            tensor = self.onnx.helper.make_tensor(name, kind, array.shape, strings)
        else:
            tensor = self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        self.constants.append(tensor)
        return name

    def integers(self, *values: int) -> str:
        """Add a vector of int64 and return its name."""
        return self.constant(values, np.int64)

    def cast(self, x: str, dtype: Any) -> str:
        """Convert a value to a dtype."""
        return self.add("Cast", x, to=self.kind(dtype))

    def input(self, name: str, dtype: np.dtype[Any], width: int | None) -> None:
        """Declare the input, ``(n, width)``."""
        info = self.onnx.helper.make_tensor_value_info(name, self.kind(dtype), ["n", width])
        self.inputs.append(info)

    def output(self, name: str, value: str, dtype: Any, rank: int) -> None:
        """Declare a value as an output."""
        kind = self.onnx.TensorProto.STRING if dtype is str else self.kind(dtype)
        self.nodes.append(self.onnx.helper.make_node("Identity", [value], [name]))
        shape = ["n", None][:rank]
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, kind, shape))

    def model(self) -> Any:
        """Return the checked model."""
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, "minidl", self.inputs, self.outputs, self.constants)
        opset = [helper.make_opsetid("", OPSET)]
        proto = helper.make_model(
            graph, producer_name="minidl", opset_imports=opset, ir_version=IR_VERSION
        )
        self.onnx.checker.check_model(proto, full_check=True)
        return proto


METHODS = {"layer": "forward", "feature": "apply"}


def find_entry(
    table: dict[Any, Callable[..., T]], part: Any, kind: str, method: str = ""
) -> Callable[..., T]:
    """Return the entry of a part, or of a base class whose method it has; TypeError without one."""
    method = method or METHODS[kind]
    for cls in type(part).__mro__:
        if cls in table and getattr(type(part), method) is getattr(cls, method):
            return table[cls]
    raise TypeError(f"export: no ONNX operators for the {kind} {part!r:.80}")


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
    """The distribution function of ``minidl.activations``: onnxruntime has no Erf of float64."""
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
    scale = None if predictor is None else predictor.input_scale
    scale = 1.0 if scale is None else scale
    features = [] if predictor is None else predictor.features
    graph.input("x", layer.dtype if scale == 1 else np.dtype(np.uint8), _width(features, layer))
    x = "x"
    if scale != 1:
        x = graph.cast(x, layer.dtype)
        x = graph.add("Mul", x, graph.constant(scale))
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
