"""The state of a model: its parameters, and its buffers, which it keeps but does not learn.

A layer names the attributes that are its buffers, arrays such as running means, in ``buffers``.
All functions here take any object with layers or parameters among its attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.parameter import Parameter, members, named_layers, named_parameters
from minidl.typing import Array
from minidl.validation import check_array, did_you_mean


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A copy of all parameters and buffers of a model, in memory.

    Attributes
    ----------
    theta : array
    buffers : dict of str to array
        By name, such as ``"1.running_mean"``.
    """

    theta: Array
    buffers: Mapping[str, Array]


def declared_buffers(layer: object) -> tuple[str, ...] | None:
    """Return the names of the buffers of one layer, without those inside it; None if undeclared."""
    names = getattr(layer, "buffers", None)
    if isinstance(names, str):
        raise ValueError(
            f"{type(layer).__name__}: expected buffers to be a tuple of names, got {names!r}; "
            f"write: buffers = ({names!r},)"
        )
    return tuple(names) if isinstance(names, (tuple, list)) else None


def check_buffers(model: object) -> None:
    """Raise ValueError if a layer has an array that is neither a parameter nor declared.

    Such an array would be left out of the saved state without a word. An object that has a method
    ``backward`` does not keep the layer contract (see ``minidl.testing.Cached``) and is left out.
    """
    for prefix, layer in named_layers(model):
        if declared_buffers(layer) is not None or callable(getattr(layer, "backward", None)):
            continue
        for name, value in vars(layer).items():
            if isinstance(value, np.ndarray) and name not in ("_theta", "_grad"):
                kind = type(layer).__name__
                raise ValueError(
                    f"{kind}: the array {name!r} is neither a parameter nor declared as a buffer; "
                    f"if it is to be saved and copied with the model, write in class {kind}: "
                    f"buffers = ({name!r},), or buffers = () if not"
                    + (f" (it is {prefix}{name} in this model)" if prefix else "")
                )


def named_buffers(model: object) -> Iterator[tuple[str, Array]]:
    """Yield every buffer of a model with its name, as ``("1.running_mean", array)``."""
    for prefix, layer in named_layers(model):
        for name in declared_buffers(layer) or ():
            yield prefix + name, _buffer(layer, name)


def _buffer(layer: object, name: str) -> Array:
    value = getattr(layer, name, None)
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{type(layer).__name__}: expected the buffer {name!r} to be an array of real "
            f"numbers, got {value!r}"
        )
    return array


def set_buffers(model: object, values: Mapping[str, Array]) -> None:
    """Replace the buffers that are in ``values`` by these arrays."""
    for prefix, layer in named_layers(model):
        for name in declared_buffers(layer) or ():
            if prefix + name in values:
                setattr(layer, name, values[prefix + name])


def cast_buffers(model: object, dtype: np.dtype[Any]) -> None:
    """Convert the buffers of floats to ``dtype``."""
    buffers = named_buffers(model)
    wrong = {k: v for k, v in buffers if v.dtype.kind == "f" and v.dtype != dtype}
    set_buffers(model, {name: value.astype(dtype) for name, value in wrong.items()})


def own_names(layer: object) -> list[str]:
    """Return the names of a layer's parameters and buffers, without those of layers in it."""
    parameters = [name for name, member in members(layer) if isinstance(member, Parameter)]
    return [*parameters, *(declared_buffers(layer) or ())]


def state_dict(model: object) -> dict[str, Array]:
    """Return a copy of every parameter's value and every buffer by its name.

    The names and their order are PyTorch's: the parameters of a layer, its buffers, then those of
    the layers in it.
    """
    state: dict[str, Array] = {}
    for prefix, layer in named_layers(model):
        for name, member in members(layer):
            if isinstance(member, Parameter):
                state[prefix + name] = member.value.copy()
        for name in declared_buffers(layer) or ():
            state[prefix + name] = _buffer(layer, name).copy()
    return state


def load_state_dict(model: object, state: Mapping[str, Array]) -> None:
    """Set all parameters and buffers to the values of ``state``, or none on an error.

    Raises
    ------
    ValueError
        If a name is missing or unknown, a shape differs, or a value is not a number.
    TypeError
        If a value is a tensor of PyTorch, whose weights of a ``Linear`` are transposed.
    """
    owner = type(model).__name__
    for name, value in state.items():
        if type(value).__module__.partition(".")[0] == "torch":
            raise TypeError(
                f"{owner}: {name!r} is a tensor of PyTorch, which stores the weight of a Linear "
                "transposed; use minidl.safetensors.load_torch_state(model, state)"
            )
    parameters, buffers = dict(named_parameters(model)), dict(named_buffers(model))
    own = {name: p.value for name, p in parameters.items()} | buffers
    parts = _checked(owner, own, state)
    for name, p in parameters.items():
        p.value = parts[name]
    set_buffers(model, {name: parts[name] for name in buffers})


def check_snapshot(owner: str, model: Any, snapshot: Snapshot) -> Snapshot:
    """Return a copy of a snapshot in the dtypes of the model; ValueError if it is of another."""
    theta = model.theta
    return Snapshot(
        check_array(owner, "theta", snapshot.theta, theta.shape, theta.dtype),
        _checked(owner, dict(named_buffers(model)), snapshot.buffers),
    )


def _checked(owner: str, own: Mapping[str, Array], given: Mapping[str, Array]) -> dict[str, Array]:
    """Return copies of the given values with the names, shapes and dtypes of ``own``."""
    for name in given:
        if name not in own:
            raise ValueError(f"{owner}: no parameter or buffer {name!r}{did_you_mean(name, own)}")
    parts: dict[str, Array] = {}
    for name, value in own.items():
        if name not in given:
            raise ValueError(f"{owner}: the state has no value for {name!r}")
        parts[name] = check_array(owner, name, given[name], value.shape, value.dtype)
    return parts


def random_streams(model: object) -> list[np.random.Generator]:
    """Return the random streams of the layers that have one."""
    rngs = [getattr(layer, "rng", None) for _, layer in named_layers(model)]
    return [rng for rng in rngs if isinstance(rng, np.random.Generator)]


def set_stream(name: str, rng: Any, state: Any) -> None:
    """Set the state of a random generator; ValueError if it is that of another kind."""
    try:
        rng.bit_generator.state = state
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        kind = type(rng.bit_generator).__name__
        raise ValueError(f"{name}: expected a state of {kind} ({error})") from error
