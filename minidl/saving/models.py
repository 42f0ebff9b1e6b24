"""The ``.npz`` files of models and checkpoints: arrays, and JSON about them, without pickle."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minidl import losses
from minidl.checks import Array, Rng, check_float
from minidl.data import features
from minidl.data.features import Feature, Predictor, predictor_of
from minidl.files import atomic, from_json, read_npz, to_json
from minidl.layer import Layer
from minidl.saving.describe import build, describe

FORMAT = 2


def model_meta(model: Layer, *, lenient: bool = False) -> dict[str, Any]:
    """Return what a file says of a model beside its arrays; ``lenient`` as for ``describe``."""
    return {
        "architecture": describe(model, lenient=lenient),
        "dtype": model.dtype.name,
        "input_scale": model.input_scale,
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
    model.input_scale = _input_scale(meta)
    return model


def _input_scale(meta: Mapping[str, Any]) -> float | None:
    """Return the factor of uint8 rows that was saved.

    Files of before have ``trained_on``: whether the rows were uint8, and their factor.
    """
    saved = meta.get("input_scale")
    if (before := meta.get("trained_on")) is not None:
        pixels, saved = before if isinstance(before, list) and len(before) == 2 else (True, before)
        if not pixels and saved != 1:
            raise ValueError(
                f"the model was trained on floats times {saved}, and floats are no longer scaled"
            )
    return None if saved is None else check_float("load", "input_scale", saved)


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


def save(path: str | os.PathLike[str], model: Any) -> None:
    """Write a model, so that ``load`` needs no code to rebuild it.

    The file has the architecture as JSON, the parameters, the buffers, and the scale of the pixels
    on which the model was trained; of a ``Predictor`` also the fitted features, the loss and the
    names of the classes. It is written whole or not at all, without pickle.

    Parameters
    ----------
    path : path
        Usually ``*.npz``; NumPy can read the file.
    model : Layer, Predictor or estimator of ``minidl.sklearn``
        Of an estimator, its ``predictor_`` is written. Own layers need no extra code where each
        argument of the constructor is plain data, a layer or a map, or kept as an attribute of the
        same name; otherwise they define ``config()``, which returns the arguments as a dict. The
        same holds for own features, maps and losses.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If an estimator is not fitted.
    TypeError
        If an argument of a layer cannot be saved; the message names both.
    """
    model = predictor_of(model)
    if isinstance(model, Predictor):
        arrays, meta = state_arrays(model.model), model_meta(model.model)
        write_archive(path, {**arrays, **_predictor_arrays(model)}, {**meta, **_steps(model)})
    elif isinstance(model, Layer):
        write_archive(path, state_arrays(model), model_meta(model))
    else:
        raise TypeError(f"save: expected a model or a Predictor, got {model!r}")


def load(
    path: str | os.PathLike[str], layers: Iterable[type[Any]] = (), *, rng: Rng | None = None
) -> Any:
    """Read a model that ``save`` or ``minidl.saving.runs.save`` wrote.

    Parameters
    ----------
    path : path
    layers : iterable of classes
        The classes of own layers in the model that are not registered by ``register_layer``, and of
        own features, maps and losses.
    rng : int or Generator, optional
        For the streams of Dropout layers; without it they cannot train.

    Returns
    -------
    Layer or Predictor
        Whatever was saved.

    Raises
    ------
    ValueError
        If the file is damaged, has a layer class that is not known, or a state that does not fit.
    """
    arrays, meta = read_archive(path)
    own = list(layers)
    try:
        model = build_model(arrays, meta, own, rng)
        return _predictor(model, arrays, meta["predictor"], own) if "predictor" in meta else model
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _learned(feature: Feature) -> dict[str, Array]:
    """Return the arrays of a fitted feature by attribute."""
    return {name: v for name, v in vars(feature).items() if isinstance(v, np.ndarray)}


def _steps(predictor: Predictor) -> dict[str, Any]:
    """Return what the file says of a predictor beside its model."""
    steps = {
        "features": [describe(feature) for feature in predictor.features],
        "loss": None if predictor.loss is None else describe(predictor.loss),
        "input_scale": predictor.input_scale,
    }
    return {"predictor": steps}


def _predictor_arrays(predictor: Predictor) -> dict[str, Array]:
    arrays = {
        f"features/{i}/{name}": value
        for i, feature in enumerate(predictor.features)
        for name, value in _learned(feature).items()
    }
    names = predictor.class_names
    if names is not None:
        if np.asarray(names).dtype.hasobject:
            raise TypeError(f"save: expected class names of text or numbers, got {names!r}")
        arrays["class_names"] = np.asarray(names)
    return arrays


def _predictor(
    model: Layer, arrays: Mapping[str, Array], steps: Mapping[str, Any], own: list[type[Any]]
) -> Predictor:
    """Return the predictor of a file around its model; ValueError if it cannot be built."""
    classes = [c for m in (features, losses) for c in vars(m).values() if isinstance(c, type)]
    known = [c for c in classes if c.__module__.startswith("minidl.")] + own
    try:
        made = [build(description, known) for description in steps["features"]]
        for i, feature in enumerate(made):
            vars(feature).update(part(arrays, f"features/{i}/"))
        loss = None if steps["loss"] is None else build(steps["loss"], known)
        predictor = Predictor(model, made, loss=loss)
        predictor.input_scale = _input_scale(steps)
    except (TypeError, LookupError) as error:
        raise ValueError(f"has no predictor that can be built ({error!r})") from error
    predictor.class_names = arrays.get("class_names")
    return predictor
