"""Models in files: the architecture and the state, in one ``.npz`` without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minidl import losses
from minidl.architecture import build, describe
from minidl.data import features
from minidl.files import atomic
from minidl.layer import Layer
from minidl.npz import read_npz
from minidl.predictor import Predictor
from minidl.typing import Array, Rng

FORMAT = 2


def save(path: str | os.PathLike[str], model: Layer | Predictor) -> None:
    """Write a model, so that ``load`` needs no code to rebuild it.

    The file has the architecture as JSON, the parameters and the buffers, and how the training
    rows were scaled. It is written whole or not at all, without pickle.

    Parameters
    ----------
    path : path
        Usually ``*.npz``; NumPy can read the file.
    model : Layer or Predictor
        Own layers need no extra code where each argument of the constructor is plain data, a layer
        or a map, or kept as an attribute of the same name; otherwise they define ``config()``,
        which returns the arguments as a dict. A ``Predictor`` is written with its features, its
        loss and the names of its classes.

    Raises
    ------
    TypeError
        If an argument of a layer cannot be saved; the message names both.
    """
    if not isinstance(model, Predictor):
        write_archive(path, state_arrays(model), model_meta(model))
        return
    arrays = state_arrays(model.model)
    for i, feature in enumerate(model.features):
        learned = {k: v for k, v in vars(feature).items() if isinstance(v, np.ndarray)}
        arrays |= {f"features/{i}/{name}": value for name, value in learned.items()}
    if model.class_names is not None:
        arrays["class_names"] = model.class_names
    steps = {
        "features": [describe(feature) for feature in model.features],
        "loss": None if model.loss is None else describe(model.loss),
        "trained_on": model.trained_on,
    }
    write_archive(path, arrays, {**model_meta(model.model), "predictor": steps})


def load(
    path: str | os.PathLike[str], layers: Iterable[type[Any]] = (), *, rng: Rng | None = None
) -> Any:
    """Read a model that ``save`` or ``minidl.checkpoint.save`` wrote.

    Parameters
    ----------
    path : path
    layers : iterable of classes
        The classes of own layers, features and losses in the file that are not registered by
        ``register_layer``.
    rng : int or Generator, optional
        For the streams of Dropout layers; without it they cannot train.

    Returns
    -------
    Layer or Predictor
        As it was saved.

    Raises
    ------
    ValueError
        If the file is damaged, has a class that is not known, or a state that does not fit.
    """
    arrays, meta = read_archive(path)
    layers = tuple(layers)
    try:
        model = build_model(arrays, meta, layers, rng)
        return _predictor(model, arrays, meta, layers) if "predictor" in meta else model
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _predictor(
    model: Layer,
    arrays: Mapping[str, Array],
    meta: Mapping[str, Any],
    layers: tuple[type[Any], ...],
) -> Predictor:
    """Return the predictor of a file around its model."""
    known = [
        kind
        for module in (features, losses)
        for kind in vars(module).values()
        if isinstance(kind, type)
    ]
    try:
        steps = meta["predictor"]
        fitted = [build(description, [*known, *layers]) for description in steps["features"]]
        for i, feature in enumerate(fitted):
            vars(feature).update(part(arrays, f"features/{i}/"))
        loss = None if steps["loss"] is None else build(steps["loss"], [*known, *layers])
        predictor = Predictor(model, fitted, loss=loss)
        predictor.trained_on = _trained_on(steps["trained_on"])
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"has no predictor that can be built ({error!r})") from error
    predictor.class_names = arrays.get("class_names")
    return predictor


def _trained_on(value: Any) -> tuple[bool, float] | None:
    """Return what JSON made a list."""
    return None if value is None else (bool(value[0]), float(value[1]))


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
    layers: Iterable[type[Any]] = (),
    rng: Rng | None = None,
) -> Layer:
    """Return the model of a file that was read; ValueError if it has none."""
    try:
        model, dtype = build(meta["architecture"], layers), np.dtype(meta["dtype"])
        trained_on = _trained_on(meta["trained_on"])
    except (TypeError, LookupError) as error:
        raise ValueError(f"has no model that can be built ({error!r})") from error
    if not isinstance(model, Layer):
        raise ValueError(f"expected a model, got {model!r}")
    for _, parameter in model.named_parameters():
        parameter.initialize(np.random.default_rng(0), dtype)  # to be replaced
    model.initialize(rng, dtype)
    model.load_state_dict(part(arrays, "model/"))
    model.trained_on = trained_on
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
        arrays, _ = read_npz(path)
        meta = json.loads(str(arrays.pop("meta")))
        saved = meta["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a model or checkpoint ({error})") from error
    if saved != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, got {saved}")
    return arrays, meta


def _as_json(value: object) -> Any:
    """Convert the NumPy arrays and integers in the states of bit generators."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)
