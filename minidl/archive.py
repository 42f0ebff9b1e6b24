"""The ``.npz`` files of models and checkpoints: arrays, and JSON about them, without pickle."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minidl.architecture import build, describe
from minidl.files import atomic, from_json, to_json
from minidl.layer import Layer
from minidl.npz import read_npz
from minidl.typing import Array, Rng

FORMAT = 2


def model_meta(model: Layer, *, lenient: bool = False) -> dict[str, Any]:
    """Return what a file says of a model beside its arrays; ``lenient`` as for ``describe``."""
    return {
        "architecture": describe(model, lenient=lenient),
        "dtype": model.dtype.name,
        "trained_on": model.trained_on,
    }


def state_arrays(model: Layer) -> dict[str, Array]:
    """Return the state of a model under the names of its arrays in a file."""
    return {f"model/{name}": value for name, value in model.state_dict().items()}


def build_model(
    arrays: Mapping[str, Array],
    meta: Mapping[str, Any],
    own: Iterable[type[Any]] = (),
    rng: Rng | None = None,
) -> Layer:
    """Return the model of a file that was read; ValueError if it has none."""
    try:
        model, dtype = build(meta["architecture"], own), np.dtype(meta["dtype"])
    except (AttributeError, LookupError, RecursionError, TypeError) as error:
        raise ValueError(f"has no model that can be built ({error!r})") from error
    if not isinstance(model, Layer):
        raise ValueError(f"expected a model, got {model!r}")
    for _, parameter in model.named_parameters():
        parameter.initialize(np.random.default_rng(0), dtype)  # to be replaced
    model.initialize(rng, dtype)
    model.load_state_dict(part(arrays, "model/"))
    model.trained_on = trained_on(meta)
    return model


def trained_on(meta: Mapping[str, Any]) -> tuple[bool, float] | None:
    """Return whether a model was trained on pixels and the factor of its rows, as was saved."""
    saved = meta.get("trained_on")
    if saved is None:
        return None
    try:
        return bool(saved[0]), float(saved[1])
    except (TypeError, ValueError, LookupError) as error:
        raise ValueError(f"expected trained_on to be two values, got {saved!r}") from error


def part(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return the arrays whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def write_archive(
    path: str | os.PathLike[str], arrays: Mapping[str, Array], meta: Mapping[str, Any]
) -> None:
    """Write arrays, and ``meta`` as JSON, to an ``.npz``, completely or not at all."""
    text = to_json({"format": FORMAT, **meta}, default=_as_json)
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, meta=np.array(text), **arrays)  # type: ignore[arg-type]


def read_archive(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays and the ``meta`` of a file that ``write_archive`` wrote.

    Raises
    ------
    ValueError
        If it cannot be read, or is of another format.
    """
    try:
        arrays, _ = read_npz(path)
        meta = from_json(str(arrays.pop("meta")))
        saved = meta.get("format")
    except (AttributeError, KeyError, RecursionError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a model or checkpoint ({error})") from error
    if saved != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, got {saved}")
    return arrays, meta


def _as_json(value: object) -> Any:
    """Convert the NumPy arrays and integers in the states of bit generators."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)
