"""Parameters in PyTorch's layout, and safetensors files of a PyTorch ``state_dict``.

PyTorch is not needed. The names are the same in both libraries (``"0.weight"``); the weight of a
Linear is ``(in, out)`` in minidl and ``(out, in)`` in PyTorch.

Examples
--------
>>> minidl.safetensors.save("model.safetensors", model)
>>> state = safetensors.torch.load_file("model.safetensors")  # in PyTorch
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from minidl.checks import Array, check_finite, require
from minidl.files import atomic, open_to_read, reading
from minidl.layer import Layer
from minidl.layers import Linear
from minidl.parameter import walk

_FLOATS = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
_DTYPES = {**_FLOATS, "I32": "<i4", "I64": "<i8", "BOOL": "?"}


def transposed(model: Layer) -> set[str]:
    """Return the names of the parameters that are transposed in PyTorch."""
    if not isinstance(model, Layer):
        raise TypeError(f"safetensors: expected a Layer as model, got {model!r:.80}")
    weights = {id(layer.weight) for layer in walk(model) if isinstance(layer, Linear)}
    return {name for name, p in model.named_parameters() if id(p) in weights}


def torch_state(model: Layer) -> dict[str, Array]:
    """Return a copy of each parameter and buffer by its name, in PyTorch's layout."""
    names = transposed(model)
    return {
        name: np.array(value.T if name in names else value, order="C")
        for name, value in model.state_dict().items()
    }


def load_torch_state(model: Layer, state: Mapping[str, Array]) -> None:
    """Set all parameters and buffers to values in PyTorch's layout, or none on an error.

    ``state`` is such as ``module.state_dict()``, of arrays or tensors on the CPU. ValueError if a
    name is missing or unknown, or a shape differs; the message has minidl's layout.
    """
    names, arrays = transposed(model), {name: np.asarray(value) for name, value in state.items()}
    model.load_state_dict({k: v.T if k in names and v.ndim == 2 else v for k, v in arrays.items()})


def save(path: str | os.PathLike[str], model: Layer) -> None:
    """Write the parameters and buffers of a model for PyTorch (needs safetensors)."""
    with atomic(path) as temporary:
        require("safetensors.numpy", "safetensors").save_file(torch_state(model), temporary)


def load(
    path: str | os.PathLike[str], model: Layer, *, rename: Mapping[str, str] | None = None
) -> None:
    """Read parameters and buffers that PyTorch or ``save`` wrote (needs safetensors).

    ``rename`` has names in the file and the model's names for them: whole names, as
    ``"fc1.weight"``, or the parts before a dot, as ``{"fc1": "0", "net.out": "2"}``. The longest
    that fits is used.

    Raises
    ------
    ValueError
        If the file is damaged, has another dtype than these or a kind of numbers that does not fit
        (integers for weights), a parameter that is not finite, or belongs to another model; then
        nothing is changed. bfloat16 is read as float32.
    """
    transposed(model)  # an error for what is no model
    library = require("safetensors", "safetensors")
    with reading(path, "a safetensors file"):
        with open_to_read(path) as file:
            content = library.deserialize(file.read())
        state = _renamed({name: _array(name, **tensor) for name, tensor in content}, rename or {})
        own, learned = model.state_dict(), dict(model.named_parameters())
        for name in own.keys() & state.keys():
            if state[name].dtype.kind != own[name].dtype.kind:
                raise ValueError(f"expected {name} of {own[name].dtype}, got {state[name].dtype}")
            if name in learned:
                check_finite("safetensors.load", "parameters", name, state[name])
        load_torch_state(model, state)


def _array(name: str, dtype: str, shape: list[int], data: bytes) -> Array:
    """Return a tensor of a file as an array."""
    if dtype not in _DTYPES:
        raise ValueError(f"expected {name} of dtype {', '.join(_DTYPES)}, got {dtype}")
    values: Array = np.frombuffer(data, _DTYPES[dtype])
    if dtype == "BF16":  # the upper half of a float32
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.reshape(shape)


def _renamed(state: Mapping[str, Array], rename: Mapping[str, str]) -> dict[str, Array]:
    """Return the state under the model's names; ValueError if a name of ``rename`` is not used."""
    found: dict[str, Array] = {}
    unused = set(rename)
    for name, value in state.items():
        fits = [old for old in rename if f"{name}.".startswith(f"{old}.")]
        old = max(fits, key=len, default=name)
        unused.discard(old)
        new = f"{rename.get(old, old)}{name.removeprefix(old)}".removeprefix(".")
        if new in found:
            raise ValueError(f"rename: two tensors of the file become {new!r}")
        found[new] = value
    for old in sorted(unused):
        raise ValueError(f"rename: the file has no tensor {old!r}")
    return found
