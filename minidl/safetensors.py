"""Weights as PyTorch keeps them, and its ``state_dict`` files in safetensors form.

Needs no PyTorch. Names are the same on both sides (``"0.weight"``); the weight of a Linear is
``(in, out)`` here and ``(out, in)`` there::

    minidl.safetensors.save("model.safetensors", model)
    module.load_state_dict(safetensors.torch.load_file("model.safetensors"))    # in PyTorch
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minidl.files import atomic
from minidl.layer import Layer
from minidl.layers import Linear
from minidl.parameter import walk
from minidl.typing import Array
from minidl.validation import require


def transposed(model: Layer) -> set[str]:
    """The names of the parameters that PyTorch keeps the other way round."""
    weights = {id(layer.weight) for layer in walk(model) if isinstance(layer, Linear)}
    return {name for name, p in model.named_parameters() if id(p) in weights}


def torch_state(model: Layer) -> dict[str, Array]:
    """A copy of every parameter's value by its name, in PyTorch's layout."""
    turned = transposed(model)
    return {
        name: np.array(value.T if name in turned else value, order="C")
        for name, value in model.state_dict().items()
    }


def load_torch_state(model: Layer, state: Mapping[str, Array]) -> None:
    """Take over values in PyTorch's layout; all or none.

    Raises
    ------
    ValueError
        If a name is missing or unknown, or a shape differs (shapes are told in our layout).
    """
    turned = transposed(model)
    model.load_state_dict(
        {k: np.transpose(v) if k in turned and np.ndim(v) == 2 else v for k, v in state.items()}
    )


def save(path: str | os.PathLike[str], model: Layer) -> None:
    """Write the model's weights for PyTorch (needs safetensors)."""
    with atomic(path) as temporary:
        require("safetensors.numpy", "safetensors").save_file(torch_state(model), temporary)


def load(path: str | os.PathLike[str], model: Layer) -> None:
    """Read weights that PyTorch (or ``save``) wrote (needs safetensors).

    Raises
    ------
    ValueError
        If the file is damaged, has a dtype that NumPy lacks, or belongs to another model;
        nothing is changed then.
    """
    library = require("safetensors", "safetensors")
    try:
        content = library.deserialize(Path(path).read_bytes())
    except library.SafetensorError as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error})") from error
    state: dict[str, Array] = {}
    for name, tensor in content:
        if tensor["dtype"] not in _DTYPES:
            raise ValueError(
                f"{path}: expected {name} of dtype {', '.join(_DTYPES)}, got {tensor['dtype']}"
            )
        values = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]])
        state[name] = values.reshape(tensor["shape"])
    try:
        load_torch_state(model, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
