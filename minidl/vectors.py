"""The flat vectors of a model: gathering the parameters in them, and who owns a parameter.

A parameter can be a view into the vectors of one model only, its ``root``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.parameter import Parameter, members, named_parameters, walk
from minidl.typing import Array


def gather(model: Any, dtype: np.dtype[Any]) -> None:
    """Make all parameters views into two new vectors, which become those of the model."""
    size = sum(p.size for _, p in named_parameters(model))
    _gather(model, model, np.empty(size, dtype), np.empty(size, dtype))


def _gather(root: object, layer: Any, theta: Array, grad: Array) -> int:
    """Move the parameters of ``layer`` into the vectors; return the number of entries used."""
    end = 0
    for _, member in members(layer):
        if isinstance(member, Parameter):
            piece = slice(end, end + member.size)
            value_view = theta[piece].reshape(member.shape)
            grad_view = grad[piece].reshape(member.shape)
            value_view[...], grad_view[...] = member.value, member.grad
            member.bind(value_view, grad_view)
            member.root = root
            end = piece.stop
        else:
            end += _gather(root, member, theta[end:], grad[end:])
    if hasattr(layer, "use_vectors"):
        layer.use_vectors(theta[:end], grad[:end])
    return end


def shared_parameter(model: object) -> tuple[str, Any] | None:
    """Return a parameter that is in the vectors of another model, and that model; or None."""
    inside = {id(layer) for layer in walk(model)}
    for name, parameter in named_parameters(model):
        if parameter.root is not None and id(parameter.root) not in inside:
            return name, parameter.root
    return None


def check_owners(model: object) -> None:
    """Raise ValueError if a parameter occurs twice, or is in the vectors of another model."""
    parameters = [p for _, p in named_parameters(model)]
    if len({id(p) for p in parameters}) < len(parameters):
        raise ValueError(
            f"{model!r}: a layer occurs twice; shared parameters are not supported, since "
            "backward writes gradients and does not add them"
        )
    shared = shared_parameter(model)
    if shared is not None:
        name, owner = shared
        raise ValueError(
            f"{type(model).__name__}: the parameter {name!r} belongs to another model, a "
            f"{type(owner).__name__}; this one can compute outputs, but to train it, build it "
            "from copies of the layers: layer.copy()"
        )


def check_vectors(model: Any) -> None:
    """Raise ValueError if a parameter is not a view into ``model.theta`` at its place.

    That happens when a list of layers is changed after the model was built.
    """
    theta: Array = model.theta
    if theta is not vars(model).get("_theta"):
        return  # a model with vectors of its own making, as in minidl.parity
    start = theta.ctypes.data
    for name, p in named_parameters(model):
        if p.size and p.value.ctypes.data != start:
            raise ValueError(
                f"{type(model).__name__}: the parameter {name!r} is not at its place in theta, "
                "since layers were changed after the model was built; build a new model"
            )
        start += p.value.nbytes
    if start != theta.ctypes.data + theta.nbytes:
        raise ValueError(
            f"{type(model).__name__}: theta has other parameters than the layers, since layers "
            "were changed after the model was built; build a new model"
        )
