"""Export of models to ONNX (extra ``onnx``).

``NODES`` has, for each method that a model's numbers pass through, the function that adds its nodes
to the graph: ``forward`` of a layer, ``apply`` of a feature, ``project_rows`` of a map, ``predict``
and ``probabilities`` of a loss. A class that inherits the method inherits the nodes; one that
overrides it needs nodes of its own, which ``register`` adds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import Any, Union

import numpy as np
from numpy.typing import DTypeLike

from minidl import activations as act
from minidl import layers, losses, maps
from minidl.checks import Array, require
from minidl.data import features
from minidl.data.features import Predictor, predictor_of
from minidl.files import atomic
from minidl.layer import Layer, Sequential
from minidl.parameter import walk

OPSET, IR_VERSION = 17, 8


def export(path: str | os.PathLike[str], model: Any) -> None:
    """Write a model to an ONNX file.

    Parameters
    ----------
    path : path
        Usually ``*.onnx``. It is written whole or not at all.
    model : Layer, Predictor or estimator of ``minidl.sklearn``
        Of layers, losses and features of minidl; ``x`` is ``(n, features)``.

    Notes
    -----
    The input is ``x``: floats of the model's dtype, or uint8 where a ``Predictor`` was trained on
    pixels. The outputs of a layer and of a regression are ``outputs`` (n, d); of a classifier
    ``label`` (n,) and ``probabilities`` (n, K), or (n, 1) of one logit; of several labels
    ``label`` and ``probabilities`` (n, K); of the perceptron ``label`` and ``outputs``.

    A label is what ``predict`` gives: the name of a class where there are names, or else int64.
    A ``Predictor`` without a loss has labels only if it has names, and ``outputs``.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If an estimator is not fitted.
    TypeError
        If a layer, a map, a feature or a loss has no operators here (see ``register``); names it.
    ImportError
        If onnx is not installed.
    """
    proto = to_onnx(model)
    with atomic(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())


def to_onnx(model: Any) -> Any:
    """Return a model as ``onnx.ModelProto``; see ``export``."""
    predictor = predictor_of(model)
    if isinstance(predictor, Layer):
        predictor = Predictor(predictor)
        predictor.input_scale = None  # its rows are floats
    if not isinstance(predictor, Predictor) or not isinstance(predictor.model, Layer):
        raise TypeError(f"export: expected a Layer, a Predictor or an estimator, got {model!r:.80}")
    layer, steps, scale = predictor.model, predictor.features, predictor.input_scale or 1.0
    width = next((one.in_features for one in walk(layer) if hasattr(one, "in_features")), None)
    columns = len(getattr(steps[0], "mean", ())) or None if steps else width
    helper = _onnx().helper
    graph = helper.make_graph([], "minidl", [], [])
    x = z = Value(graph, "x", np.uint8 if scale != 1 else layer.dtype)
    graph.input.append(helper.make_tensor_value_info(x.name, x.kind, ["n", columns]))
    if scale != 1:  # pixels
        z = x.cast(layer.dtype) * scale
    for feature in steps:
        z = convert(feature, "apply", z)
    outputs = None if width is None else layer(np.zeros((1, width), layer.dtype)).shape[1]
    for name, value, shape in _outputs(predictor, convert(layer, "forward", z), outputs):
        graph.node.append(helper.make_node("Identity", [value.name], [name]))
        graph.output.append(helper.make_tensor_value_info(name, value.kind, shape))
    versions = {"opset_imports": [helper.make_opsetid("", OPSET)], "ir_version": IR_VERSION}
    proto = helper.make_model(graph, producer_name="minidl", **versions)
    _onnx().checker.check_model(proto, full_check=True)
    return proto


def register(method: Callable[..., Any]) -> Callable[[Nodes], Nodes]:
    """Decorate ``nodes(part, x) -> y``: the nodes of a part of your own for its input, a ``Value``.

    ``method`` is ``forward`` of the layer, ``apply`` of the feature, ``project_rows`` of the map,
    ``probabilities`` or ``predict`` of the loss. The last returns labels of int64, (n, 1) for one,
    or numbers (floats), which are the outputs; None where only the outputs are known.

    Examples
    --------
    >>> @minidl.onnx.register(Scale.forward)
    ... def scale(layer, x):
    ...     return x * layer.weight.value
    """

    def add(nodes: Nodes) -> Nodes:
        NODES[method] = nodes
        return nodes

    return add


Operand = Union["Value", float, Array]
Nodes = Callable[[Any, "Value"], Any]


def _onnx() -> Any:
    return require("onnx", "onnx")


def _binary(operator: str) -> Callable[[Value, Operand], Value]:
    return lambda self, other: self.op(operator, other)


class Value:
    """A tensor of a graph; ``+ - * /`` and ``op`` add a node and return its output.

    Numbers and arrays beside it become constants of its dtype; arrays of integers, which are axes
    and shapes, keep theirs.
    """

    def __init__(self, graph: Any, name: str, dtype: DTypeLike) -> None:
        self.graph, self.name, self.dtype = graph, name, np.dtype(dtype)
        self.kind = _onnx().helper.np_dtype_to_tensor_dtype(self.dtype)

    def op(self, operator: str, *others: Operand, dtype: Any = None, **attributes: Any) -> Value:
        """Return the first output of an operator of ONNX; its dtype also beyond a comparison."""
        name = f"{operator}_{len(self.graph.node)}"
        inputs = [self.name, *(self.constant(other).name for other in others)]
        outputs = [name, f"{name}_indices"] if operator == "TopK" else [name]
        self.graph.node.append(_onnx().helper.make_node(operator, inputs, outputs, **attributes))
        return Value(self.graph, name, self.dtype if dtype is None else dtype)

    def cast(self, dtype: Any) -> Value:
        """Return the value in another dtype."""
        return self.op("Cast", dtype=dtype, to=Value(self.graph, "", dtype).kind)

    def constant(self, other: Operand) -> Value:
        """Return a number or an array as a value of the graph."""
        if isinstance(other, Value):
            return other
        axes = isinstance(other, np.ndarray) and other.dtype.kind == "i"
        array = np.asarray(other, None if axes else self.dtype, order="C")
        name = f"constant_{len(self.graph.initializer)}"
        self.graph.initializer.append(_onnx().numpy_helper.from_array(array, name))
        return Value(self.graph, name, array.dtype)

    __add__, __sub__ = _binary("Add"), _binary("Sub")
    __mul__, __truediv__ = _binary("Mul"), _binary("Div")

    def __rsub__(self, other: Operand) -> Value:
        return self.constant(other) - self


def convert(part: Any, method: str, x: Value) -> Any:
    """Add the nodes of a method; TypeError if the class of ``part`` has a method of its own."""
    nodes = NODES.get(getattr(type(part), method, None))
    if nodes is None:
        why = f"no ONNX operators for {method} of {part!r:.80}; see onnx.register"
        raise TypeError(f"export: {why}")
    return nodes(part, x)


def _outputs(
    predictor: Predictor, z: Value, width: int | None
) -> Iterator[tuple[str, Value, list[Any]]]:
    """Yield the names, values and shapes of what the model says, for its outputs (n, width)."""
    loss, names = predictor.loss, predictor.class_names
    task = losses.CrossEntropy() if loss is None and names is not None else loss
    label = convert(task, "predict", z) if hasattr(task, "predict") else None
    p = convert(loss, "probabilities", z) if hasattr(loss, "probabilities") else None
    if label is not None and label.dtype.kind == "f":  # numbers
        z = label
    elif label is not None and (width == 1 or isinstance(task, losses.ClassLoss)):
        label = label.op("Squeeze", np.array([1]))
        if names is not None:
            texts = names.astype(object) if names.dtype.kind == "U" else names
            constant = Value(z.graph, "", texts.dtype).constant(texts)
            label = constant.op("Gather", label.op("Max", 0))  # -1 is the first name
        yield "label", label, ["n"]
    elif label is not None:
        yield "label", label, ["n", None]
    yield ("outputs", z, ["n", None]) if p is None else ("probabilities", p, ["n", None])


def _max(x: Value) -> Value:
    return x.op("ReduceMax", axes=[-1])


def _cumulative(s: Value) -> Value:
    return s.op("CumSum", np.array(-1))


def _sorted(z: Value) -> tuple[Value, Value]:
    """Return the rows in descending order as float64, entries below -1 as -1, and 1 to K."""
    k = z.op("Shape").op("Gather", np.array([1]))
    s = z.op("Max", -1).cast(np.float64).op("TopK", k, axis=-1)
    return s, _cumulative(s * 0 + 1)


def _relumax(map: maps.relumax, z: Value) -> Value:
    u = (z - _max(z) + map.b).op("Relu")
    return u / u.op("ReduceSum", np.array([-1]))


def _sparsemax(map: Any, z: Value) -> Value:
    """``relu(z - tau)``, ``tau = max_k (s_1 + ... + s_k - 1) / k`` for the sorted row s."""
    z = z - _max(z)
    s, k = _sorted(z)
    tau = _max((_cumulative(s) - 1) / k)
    return (z - tau.cast(z.dtype)).op("Relu")


def _entmax15(map: Any, z: Value) -> Value:
    """``relu(z / 2 - tau)^2``, ``tau = max_k tau_k`` of those below ``s_k``.

    ``tau_k = m - sqrt(m^2 - (q - 1) / k)``, where ``m`` is the mean of the first k entries of the
    sorted row s of z / 2, and ``q`` the sum of their squares.
    """
    half = (z - _max(z)) * 0.5
    s, k = _sorted(half)
    mean = _cumulative(s) / k
    share = (_cumulative(s * s) - 1) / k
    taus = mean - (mean * mean - share).op("Max", 0).op("Sqrt")
    tau = _max(taus.op("LessOrEqual", s).op("Where", taus, -1))
    root = (half - tau.cast(z.dtype)).op("Relu")
    return root * root


def _simplex(layer: act.Simplex, x: Value) -> Value:
    if layer.axis not in (0, 1, -1, -2):
        raise TypeError(f"export: expected axis 0 or 1 of (n, features), got {layer!r}")
    if layer.axis in (1, -1):
        return _map(layer, x)  # type: ignore[no-any-return]
    return _map(layer, x.op("Transpose", perm=[1, 0])).op("Transpose", perm=[1, 0])  # type: ignore[no-any-return]


def _map(part: Any, z: Value) -> Any:
    return convert(part.map, "project_rows", z)


def _linear(layer: layers.Linear, x: Value) -> Value:
    if layer.bias is None:
        return x.op("MatMul", layer.weight.value)
    return x.op("Gemm", layer.weight.value, layer.bias.value)


def _sequential(layer: Sequential, x: Value) -> Value:
    for inner in layer.layers:
        x = convert(inner, "forward", x)
    return x


def _layer_norm(layer: layers.LayerNorm, x: Value) -> Value:
    # LayerNormalization has its epsilon in float32, which is not exact enough for float64.
    centred = x - x.op("ReduceMean", axes=[-1])
    scale = ((centred * centred).op("ReduceMean", axes=[-1]) + layer.eps).op("Sqrt")
    return centred / scale * layer.weight.value + layer.bias.value


def _batch_norm(layer: layers.BatchNorm, x: Value) -> Value:
    scale = layer.weight.value / np.sqrt(layer.running_var + layer.eps)
    return (x - layer.running_mean) * scale + layer.bias.value


def _softplus(layer: act.Softplus, x: Value) -> Value:
    return x.op("Max", 0) + (x.op("Abs").op("Neg").op("Exp") + 1).op("Log")


def _gelu(layer: act.GELU, x: Value) -> Value:
    if layer.approximate != "none":
        t = ((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)).op("Tanh")
        return x * 0.5 * (t + 1)
    # The distribution function of minidl.activations: onnxruntime has no Erf of float64.
    size = x.op("Abs").op("Min", 50)
    z = size * math.sqrt(0.5)
    t = (z - 2.5) / (z + 2.5)
    series: Operand
    series, *rest = act.erfc_coefficients(x.dtype)
    for coefficient in rest:
        series = t * series + coefficient
    tail = (size * size * -0.5).op("Exp") * series / (z * 4 + 2)
    return x * x.op("Less", 0).op("Where", tail, 1 - tail)


def _average_pool(feature: features.AveragePool, x: Value) -> Value:
    if feature.shape is None:
        raise TypeError(f"export: {feature!r} needs its shape, as AveragePool(2, (28, 28))")
    size, (height, width) = feature.size, (side // feature.size for side in feature.shape)
    squares = x.op("Reshape", np.array([-1, height, size, width, size]))
    means = squares.op("ReduceMean", axes=[2, 4], keepdims=0)
    return means.op("Reshape", np.array([-1, height * width]))


NODES: dict[Any, Nodes] = {
    # layers
    layers.Linear.forward: _linear,
    Sequential.forward: _sequential,
    layers.Residual.forward: lambda layer, x: x + convert(layer.inner, "forward", x),
    layers.Dropout.forward: lambda layer, x: x,
    layers.Identity.forward: lambda layer, x: x,
    layers.Flatten.forward: lambda layer, x: x.op("Flatten", axis=1),
    layers.LayerNorm.forward: _layer_norm,
    layers.BatchNorm.forward: _batch_norm,
    act.ReLU.forward: lambda layer, x: x.op("Relu"),
    act.Tanh.forward: lambda layer, x: x.op("Tanh"),
    act.Sigmoid.forward: lambda layer, x: x.op("Sigmoid"),
    act.LeakyReLU.forward: lambda layer, x: x.op("Max", 0) + x.op("Min", 0) * layer.slope,
    act.ELU.forward: lambda layer, x: x.op("Max", 0) + (x.op("Min", 0).op("Exp") - 1) * layer.alpha,
    act.Softplus.forward: _softplus,
    act.SiLU.forward: lambda layer, x: x * x.op("Sigmoid"),
    act.GELU.forward: _gelu,
    act.Quadratic.forward: lambda layer, x: x * (1 - x),
    act.Simplex.forward: _simplex,
    # maps, whose objects are copied with a model: the class of softmax is its type
    type(maps.softmax).project_rows: lambda _, z: z.op("Softmax", axis=-1),
    type(maps.sparsemax).project_rows: _sparsemax,
    type(maps.entmax15).project_rows: _entmax15,
    maps.relumax.project_rows: _relumax,
    # features
    features.Standardize.apply: lambda feature, x: (x - feature.mean) / feature.std,
    features.PCA.apply: lambda feature, x: (x - feature.mean).op("MatMul", feature.components.T),
    features.AveragePool.apply: _average_pool,
    # losses
    losses.ClassLoss.predict: lambda loss, z: z.op("ArgMax", axis=-1, dtype=np.int64),
    losses.BinaryLogistic.predict: lambda loss, z: z.op("Greater", 0).cast(np.int64) * 2 - 1,
    losses.BinaryCrossEntropy.predict: lambda loss, z: z.op("Greater", 0).cast(np.int64),
    losses.NumberLoss.predict: lambda loss, z: z,
    losses.Poisson.predict: lambda loss, z: z.op("Exp"),
    losses.ReducedLoss.predict: lambda loss, z: None,
    losses.MapLoss.probabilities: _map,
    losses.BinaryCrossEntropy.probabilities: lambda loss, z: z.op("Sigmoid"),
    losses.ReducedLoss.probabilities: lambda loss, z: None,
}
