"""An ONNX graph that grows by one node at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from minidl.validation import require

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
