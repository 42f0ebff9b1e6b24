"""Networks from our layers to ``torch.nn`` modules and back, with their weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from minidl.activations import (
    Entmax15,
    Quadratic,
    ReLU,
    Relumax,
    Sigmoid,
    Simplex,
    Softmax,
    Sparsemax,
    Tanh,
)
from minidl.init import zeros
from minidl.layer import Layer, Sequential
from minidl.layers import Dropout, LayerNorm, Linear, Residual
from minidl.parity import modules, simplex
from minidl.safetensors import load_torch_state, torch_state
from minidl.typing import Rng

# What has no parameters and no children, ours and PyTorch's.
_PAIRS: Mapping[type[Layer], type[Any]] = {
    ReLU: nn.ReLU,
    Tanh: nn.Tanh,
    Sigmoid: nn.Sigmoid,
    Quadratic: modules.Quadratic,
}
_PAIRS_BACK = {theirs: ours for ours, theirs in _PAIRS.items()}

_DTYPES = {torch.float32: "float32", torch.float64: "float64"}


def to_torch(model: Layer, *, same_masks: bool = False) -> nn.Module:
    """The PyTorch module that computes what ``model`` does, with a copy of its weights.

    Parameters
    ----------
    model : Layer
        Any network made of this library's layers. A Residual, and an activation that ``torch.nn``
        lacks, become small modules of ``minidl.parity.modules``.
    same_masks : bool
        Whether Dropout becomes a module that draws the masks that ours will draw, instead of
        ``nn.Dropout``.

    Raises
    ------
    TypeError
        If a layer has no counterpart; names it and where it is.
    """
    shared: dict[int, Any] = {}  # streams that several layers share stay shared in the copy

    def module(layer: Layer, where: str) -> nn.Module:
        kind = type(layer)
        if kind in _PAIRS:
            return _PAIRS[kind]()
        if isinstance(layer, Sequential) and kind is Sequential:
            return nn.Sequential(*[module(x, f"{where}{i}.") for i, x in enumerate(layer)])
        if isinstance(layer, Residual) and kind is Residual:
            return modules.Residual(module(layer.inner, f"{where}inner."))
        if isinstance(layer, Linear) and kind is Linear:
            return nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        if isinstance(layer, LayerNorm) and kind is LayerNorm:
            return nn.LayerNorm(layer.in_features, eps=layer.eps)
        if isinstance(layer, Softmax) and kind is Softmax:
            return nn.Softmax(layer.axis)
        if isinstance(layer, Simplex) and kind in (Simplex, Sparsemax, Entmax15, Relumax):
            return simplex.Simplex(layer.map, layer.axis)
        if isinstance(layer, Dropout) and kind is Dropout:
            if same_masks:
                return modules.SameMasks(layer.p, copy.deepcopy(layer.rng, shared))
            return nn.Dropout(layer.p)
        raise TypeError(f"to_torch: no PyTorch counterpart of {_place(where)}{layer!r}")

    with torch.device("meta"):  # draws no random numbers and sets no memory aside
        twin = module(model, "")
    state = {name: torch.from_numpy(value) for name, value in torch_state(model).items()}
    twin.load_state_dict(state, assign=True)
    return twin


def from_torch(module: nn.Module, *, rng: Rng | None = None) -> Layer:
    """The network of ours that computes what ``module`` does, with a copy of its weights.

    Parameters
    ----------
    module : nn.Module
        A ``nn.Sequential`` (or one module) of those that have a counterpart, or what ``to_torch``
        gave; in float32 or float64.
    rng : int or Generator, optional
        For the streams of Dropout layers; without it they cannot train.

    Raises
    ------
    TypeError, ValueError
        If a module has no counterpart, or only with other options; if the parameters are of
        another dtype, or of several. Names the module and where it is.
    """
    values = [value for _, value in module.named_parameters(remove_duplicate=False)]
    dtypes = {value.dtype for value in values} or {torch.float32}
    if len(dtypes) > 1 or not dtypes <= _DTYPES.keys():
        raise ValueError(
            "from_torch: expected parameters of dtype float32 or float64, the same for all, "
            f"got {', '.join(sorted(map(str, dtypes)))}"
        )
    if len({id(value) for value in values}) < len(values):
        raise ValueError("from_torch: a module occurs twice; shared parameters are not supported")
    dtype = _DTYPES[dtypes.pop()]

    def layer(module: Any, where: str) -> Layer:
        kind = type(module)
        if kind in _PAIRS_BACK:
            return _PAIRS_BACK[kind]()
        if kind is nn.Sequential:
            children = module.named_children()
            return Sequential(*[layer(child, f"{where}{name}.") for name, child in children])
        if kind is modules.Residual:
            children = module.inner.named_children()
            return Residual(*[layer(child, f"{where}inner.{name}.") for name, child in children])
        if kind is nn.Linear:
            blank: dict[str, Any] = {"weight_init": zeros, "bias_init": zeros, "rng": 0}
            bias = module.bias is not None
            return Linear(module.in_features, module.out_features, bias=bias, dtype=dtype, **blank)
        if kind is nn.LayerNorm:
            if len(module.normalized_shape) > 1 or module.weight is None or module.bias is None:
                raise ValueError(
                    "from_torch: expected a LayerNorm over one axis with weight and bias, "
                    f"got {_place(where)}{module!r}"
                )
            return LayerNorm(module.normalized_shape[0], eps=module.eps, dtype=dtype)
        if kind is nn.Softmax:
            return Softmax(-1 if module.dim is None else module.dim)
        if kind is simplex.Simplex:
            return Simplex(module.map, module.dim)
        if kind in (nn.Dropout, modules.SameMasks):
            return Dropout(module.p)
        raise TypeError(f"from_torch: no counterpart of {_place(where)}{module!r}")

    model = layer(module, "")
    names = [name for name, _ in model.named_parameters()]
    arrays = [value.detach().cpu().numpy() for value in values]
    load_torch_state(model, dict(zip(names, arrays, strict=True)))
    return model.initialize(rng)


def _place(where: str) -> str:
    return f"module {where.rstrip('.')}, " if where else ""
