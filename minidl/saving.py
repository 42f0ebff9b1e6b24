"""Models in files: the architecture and the state, in one ``.npz`` without pickle."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minidl.architecture import build, describe
from minidl.files import atomic
from minidl.layer import Layer
from minidl.typing import Array, Rng

FORMAT = 2


def save(path: str | os.PathLike[str], model: Layer) -> None:
    """Write a model, so that ``load`` needs no code to rebuild it.

    The file has the architecture as JSON, the parameters, the buffers, and the scale of the pixels
    on which the model was trained. It is written whole or not at all, without pickle.

    Parameters
    ----------
    path : path
        Usually ``*.npz``; NumPy can read the file.
    model : Layer
        Own layers need no extra code where each argument of the constructor is plain data, a layer
        or a map, or kept as an attribute of the same name; otherwise they define ``config()``,
        which returns the arguments as a dict.

    Raises
    ------
    TypeError
        If an argument of a layer cannot be saved; the message names both.
    """
    write_archive(path, state_arrays(model), model_meta(model))


def load(
    path: str | os.PathLike[str], layers: Iterable[type[Any]] = (), *, rng: Rng | None = None
) -> Layer:
    """Read a model that ``save`` or ``minidl.checkpoint.save`` wrote.

    Parameters
    ----------
    path : path
    layers : iterable of classes
        The classes of own layers in the model that are not registered by ``register_layer``.
    rng : int or Generator, optional
        For the streams of Dropout layers; without it they cannot train.

    Raises
    ------
    ValueError
        If the file is damaged, has a layer class that is not known, or a state that does not fit.
    """
    arrays, meta = read_archive(path)
    try:
        return build_model(arrays, meta, layers, rng)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def model_meta(model: Layer, *, lenient: bool = False) -> dict[str, Any]:
    """Return what a file says of a model beside its arrays; ``lenient`` as for ``describe``."""
    return {
        "architecture": describe(model, lenient=lenient),
        "dtype": model.dtype.name,
        "pixel_scale": model.pixel_scale,
    }


def state_arrays(model: Layer) -> dict[str, Array]:
    """Return the state of a model under the names of its arrays in a file."""
    return {f"model/{name}": value for name, value in model.state_dict().items()}


def build_model(
    arrays: Mapping[str, Array],
    meta: Mapping[str, Any],
    layers: Iterable[type[Any]] = (),
    rng: Rng | None = None,
) -> Layer:
    """Return the model of a file that was read; ValueError if it has none."""
    try:
        model, dtype = build(meta["architecture"], layers), np.dtype(meta["dtype"])
    except (TypeError, LookupError) as error:
        raise ValueError(f"has no model that can be built ({error!r})") from error
    if not isinstance(model, Layer):
        raise ValueError(f"expected a model, got {model!r}")
    for _, parameter in model.named_parameters():
        parameter.initialize(np.random.default_rng(0), dtype)  # to be replaced
    model.initialize(rng, dtype)
    model.load_state_dict(part(arrays, "model/"))
    model.pixel_scale = meta.get("pixel_scale")
    return model


def part(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return the arrays whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def write_archive(
    path: str | os.PathLike[str], arrays: Mapping[str, Array], meta: Mapping[str, Any]
) -> None:
    """Write arrays, and ``meta`` as JSON, to an ``.npz``, completely or not at all."""
    text = json.dumps({"format": FORMAT, **meta}, default=_as_json)
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
        with Path(path).open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            arrays = {key: archive[key] for key in archive.files}
        meta = json.loads(str(arrays.pop("meta")))
        saved = meta.get("format")
    except FileNotFoundError:
        raise
    except (
        AttributeError,
        KeyError,
        ValueError,
        OSError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f"{path}: cannot be read as a model or checkpoint ({error})") from error
    if saved != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, got {saved}")
    return arrays, meta


def _as_json(value: object) -> Any:
    """Convert the NumPy arrays and integers in the states of bit generators."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)
