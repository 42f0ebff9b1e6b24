"""The layers of a module that a user wrote, read off the trace of its ``forward``.

A module that calls other modules and common functions one after another is a chain of layers. Any
other form, as a sum of two branches, is refused by name: register a counterpart for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import fx, nn

from minidl.activations import ELU, GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Softplus, Tanh
from minidl.layer import Layer
from minidl.layers import Dropout, Flatten, Identity


def _flatten(start_dim: int = 0, end_dim: int = -1) -> Layer:
    if (start_dim, end_dim) != (1, -1):
        raise TypeError("expected all axes but the first")
    return Flatten()


def _view(rows: Any, features: Any = None) -> Layer:
    sizes = rows if isinstance(rows, tuple) else (rows, features)
    # The rows are -1 or read off the shape of the input; the features are -1 or a number.
    if len(sizes) != 2 or not (sizes[0] == -1 or isinstance(sizes[0], fx.Node)):
        raise TypeError("expected a view of one row for each example")
    return Flatten()


def _softplus(beta: float = 1, threshold: float = 20) -> Layer:
    if beta != 1:
        raise TypeError("expected beta 1")
    return Softplus()


FUNCTIONS: dict[str, Callable[..., Layer]] = {
    "relu": lambda inplace=False: ReLU(),
    "tanh": Tanh,
    "sigmoid": Sigmoid,
    "silu": lambda inplace=False: SiLU(),
    "gelu": lambda approximate="none": GELU(approximate),
    "leaky_relu": lambda negative_slope=0.01, inplace=False: LeakyReLU(negative_slope),
    "elu": lambda alpha=1.0, inplace=False: ELU(alpha),
    "softplus": _softplus,
    "softmax": lambda dim, _stacklevel=3, dtype=None: Softmax(dim),
    "dropout": lambda p=0.5, training=True, inplace=False: Dropout(p),
    "contiguous": Identity,
    "flatten": _flatten,
    "view": _view,
    "reshape": _view,
}
"""Functions and methods of tensors by name, with the layers that compute the same."""


class _Tracer(fx.Tracer):  # type: ignore[misc]
    """Follows the modules of users; those with a counterpart are steps of the chain."""

    def __init__(self, has_counterpart: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.has_counterpart = has_counterpart

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self.has_counterpart(m) or type(m).__module__.startswith("torch.nn")


def trace(
    module: nn.Module, has_counterpart: Callable[[nn.Module], bool]
) -> Iterator[tuple[str, Any]]:
    """Yield the steps of a module's forward: a name, and an inner module or a layer of ours.

    Parameters
    ----------
    module : nn.Module
    has_counterpart : callable
        Whether a module is a step by itself.

    Raises
    ------
    TypeError
        If the forward pass is not such a chain; the message names the step.
    """
    try:
        graph = _Tracer(has_counterpart).trace(module)
    except Exception as error:  # torch.fx raises whatever the module's code does on a proxy
        raise TypeError(f"its forward cannot be traced ({error})") from error
    previous: Any = None
    for node in graph.nodes:
        if node.op == "placeholder":
            if previous is not None:
                raise TypeError(f"its forward takes more than one input, {node.name!r}")
            previous = node
            continue
        if _is_size(node):
            continue
        if node.op == "output":
            if node.args[0] is not previous:
                raise TypeError("its forward does not return the result of its last step")
            return
        inputs = [n for n in node.all_input_nodes if not _is_size(n)]
        if inputs != [previous] or node.args[:1] != (previous,):
            raise TypeError(f"its forward is not a chain at {node.format_node()!r}")
        previous = node
        if node.op == "call_module":
            yield node.target, module.get_submodule(node.target)
        else:
            yield node.name, _layer(node)


def _is_size(node: fx.Node) -> bool:
    """Return whether a node reads a size off the shape of a tensor, for a view."""
    name = node.target if isinstance(node.target, str) else node.target.__name__
    if name in ("size", "getattr"):
        return name == "size" or node.args[1] == "shape"
    return name == "getitem" and isinstance(node.args[0], fx.Node) and _is_size(node.args[0])


def _layer(node: fx.Node) -> Layer:
    name = node.target if isinstance(node.target, str) else node.target.__name__
    if node.op not in ("call_function", "call_method") or name not in FUNCTIONS:
        raise TypeError(f"its forward calls {name!r}, which has no counterpart")
    try:
        return FUNCTIONS[name](*node.args[1:], **node.kwargs)
    except TypeError as error:
        raise TypeError(
            f"its forward calls {name!r} with options that have no counterpart ({error})"
        ) from error
