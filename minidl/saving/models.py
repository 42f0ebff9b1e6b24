"""Trained models in files that load by themselves, with the steps before and after the model.

A file is an ``.npz``: arrays, and JSON about them in the array ``meta``, without pickle.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minidl import losses
from minidl.checks import Array, Rng, as_dtype, check_array, check_finite, check_float, require
from minidl.data import features
from minidl.data.features import Predictor, predictor_of
from minidl.files import atomic, from_json, read_npz, reading, to_json
from minidl.layer import Layer
from minidl.maps import SimplexMap
from minidl.saving.describe import build, check_size, describe

FORMAT = 2


def save(path: str | os.PathLike[str], model: Any) -> None:
    """Write a model, so that ``load`` needs no code to rebuild it.

    The file has the architecture as JSON, the parameters, the buffers, and the scale of the pixels
    of the training; of a ``Predictor`` also the fitted features, the loss and the names of the
    classes. It is written whole or not at all, without pickle.

    Parameters
    ----------
    path : path
        Usually ``*.npz``; NumPy can read the file.
    model : Layer, Predictor or estimator of ``minidl.sklearn``
        Of an estimator, its ``predictor_``, settings, labels and ``history_`` are written; a
        setting that is no plain data is left out with a warning. Own layers, features, maps and
        losses need no extra code where each argument of the constructor is plain data, a layer or a
        map, or kept as an attribute of the same name; else they define ``config()``, which returns
        the arguments as a dict.

    Raises
    ------
    TypeError
        If an argument of a layer cannot be saved; the message names both.
    ValueError
        If a value is NaN, or a parameter infinite.
    sklearn.exceptions.NotFittedError
        If an estimator is not fitted.
    """
    predictor = predictor_of(model)
    inner = predictor.model if isinstance(predictor, Predictor) else predictor
    if not isinstance(inner, Layer):
        raise TypeError(f"save: expected a model, a Predictor or an estimator, got {model!r:.80}")
    meta = model_meta(inner, describe(inner))
    state: dict[str, Any] = {"model": inner.state_dict()}
    if inner is not predictor:
        meta["predictor"] = _describe_predictor(predictor, state)
    if predictor is not model:
        meta["estimator"] = _describe_estimator(model, state)
    arrays = split(state)[1]
    _check_values("save", inner, arrays)
    write_archive(path, arrays, meta)


def load(
    path: str | os.PathLike[str], layers: Iterable[type[Any]] = (), *, rng: Rng | None = None
) -> Any:
    """Read a model that ``save`` or a ``Checkpoint`` wrote.

    Parameters
    ----------
    path : path
    layers : iterable of classes
        Own layers that ``register_layer`` does not know, own features, maps and losses.
    rng : int or Generator, optional
        For the streams of Dropout layers; without it they cannot train.

    Returns
    -------
    Layer, Predictor or estimator
        Whatever was saved; where scikit-learn is not installed, an estimator's ``predictor_``.

    Raises
    ------
    ValueError
        If the file is damaged, has a layer class that is not known, a state that does not fit, NaN,
        or sizes that its arrays do not have: nothing is allocated for these.
    """
    own = list(layers) if np.iterable(layers) else [None]
    if not all(isinstance(cls, type) for cls in own):
        raise TypeError(f"load: expected layers to be classes, got {layers!r}")
    arrays, meta = read_archive(path)
    with reading(path, "a model"):
        check_size([meta["architecture"], meta.get("predictor")], arrays)
        model, dtype = build(meta["architecture"], own), as_dtype("the model", meta["dtype"])
        if not isinstance(model, Layer):
            raise ValueError(f"expected a model, got {model!r}")
        state = join({"model": {}, "estimator": meta.get("estimator", {}).get("state")}, arrays)
        for name, parameter in model.named_parameters():
            check_array("the model", name, state["model"].get(name), parameter.shape, dtype)
            parameter.initialize(np.random.default_rng(0), dtype)  # to be replaced
        model.initialize(rng, dtype)
        model.load_state_dict(state["model"])
        model.input_scale = _input_scale(meta)
        _check_values("the model", model, arrays)
        if "predictor" not in meta:
            return model
        predictor = _predictor(model, meta["predictor"], state, own)
        if "estimator" not in meta or importlib.util.find_spec("sklearn") is None:
            return predictor
        wing, saved = require("minidl.sklearn", "sklearn"), meta["estimator"]
        state["estimator"]["settings"] = {k: build(v) for k, v in saved["settings"].items()}
        return wing.ESTIMATORS[saved["class"]].from_state(predictor, state["estimator"])


def model_meta(model: Layer, architecture: Any) -> dict[str, Any]:
    """Return what a file says of a model beside its arrays."""
    dtype, scale = model.dtype.name, model.input_scale
    return {"architecture": architecture, "dtype": dtype, "input_scale": scale}


def _input_scale(meta: Mapping[str, Any]) -> float | None:
    """Return the factor of uint8 rows that was saved."""
    saved = meta["input_scale"]
    return None if saved is None else check_float("load", "input_scale", saved)


def _check_values(owner: str, model: Layer, arrays: Mapping[str, Array]) -> None:
    """Raise ValueError for NaN in an array, and for a parameter that is not finite."""
    for name, parameter in model.named_parameters():
        check_finite(owner, "parameters", name, parameter.value)
    for name in (k for k, v in arrays.items() if v.dtype.kind == "f" and np.isnan(v).any()):
        raise ValueError(f"{owner}: expected numbers in {name}, got NaN")


def _describe_predictor(predictor: Predictor, state: dict[str, Any]) -> dict[str, Any]:
    """Return what a file says of a predictor's steps; add what they learned to the state."""
    names = predictor.class_names
    if names is not None:
        state["class_names"] = np.asarray(names)
        if state["class_names"].dtype.hasobject:
            raise TypeError(f"save: expected class names of text or numbers, got {names!r}")
    state["features"] = {
        str(i): {k: v for k, v in vars(feature).items() if isinstance(v, np.ndarray)}
        for i, feature in enumerate(predictor.features)
    }
    made = [describe(feature) for feature in predictor.features]
    scale = predictor.input_scale
    return {"features": made, "loss": describe(predictor.loss), "input_scale": scale}


def _predictor(
    model: Layer, steps: Mapping[str, Any], state: Mapping[str, Any], own: list[type[Any]]
) -> Predictor:
    """Return the predictor of a file around its model."""
    classes = [c for m in (features, losses) for c in vars(m).values() if isinstance(c, type)]
    known = [c for c in classes if c.__module__.startswith("minidl.")] + own
    loss = build(steps["loss"], known)
    if loss is not None and (not callable(loss) or isinstance(loss, (Layer, SimplexMap))):
        raise ValueError(f"expected a loss, got {loss!r}")
    predictor = Predictor(model, [build(made, known) for made in steps["features"]], loss=loss)
    for i, feature in enumerate(predictor.features):
        vars(feature).update(state.get("features", {}).get(str(i), {}))
    predictor.input_scale = _input_scale(steps)
    predictor.class_names = state.get("class_names")
    return predictor


def _describe_estimator(estimator: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Return what a file says of an estimator; add its arrays to the state."""
    state["estimator"] = estimator.state_dict()
    settings: dict[str, Any] = {}
    for name, value in state["estimator"].pop("settings").items():
        try:
            settings[name] = describe(value)
        except TypeError:
            warnings.warn(f"save: the setting {name}={value!r:.80} is left out", stacklevel=3)
    plain = split(state["estimator"])[0]
    return {"class": type(estimator).__name__, "settings": settings, "state": plain}


def split(state: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the plain values of a state, and its arrays by their paths, ``"model/0.weight"``."""
    plain: dict[str, Any] = {}
    arrays: dict[str, Array] = {}
    for name, value in state.items():
        if isinstance(value, np.ndarray):
            arrays[f"{prefix}{name}"] = value
        elif isinstance(value, Mapping):
            plain[name], found = split(value, f"{prefix}{name}/")
            arrays |= found
        else:
            plain[name] = value
    return plain, arrays


def join(plain: dict[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Return the state that ``split`` took apart."""
    for path, array in arrays.items():
        *above, name = path.split("/")
        inner = plain
        for key in above:
            inner = inner.setdefault(key, {})
        inner[name] = array
    return plain


def write_archive(
    path: str | os.PathLike[str], arrays: Mapping[str, Array], meta: Mapping[str, Any]
) -> None:
    """Write arrays, and ``meta`` as JSON, to an ``.npz``, completely or not at all."""
    text = to_json({"format": FORMAT, **meta}, default=str)
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, meta=np.array(text), **arrays)  # type: ignore[arg-type]


def read_archive(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return what ``write_archive`` wrote; ValueError if it is damaged or of another format."""
    with reading(path, "a model or checkpoint"):
        arrays, found = read_npz(path)
        if "meta" not in arrays:
            raise ValueError(f"expected a model or checkpoint, with an array meta; found {found}")
        meta = from_json(str(arrays.pop("meta")))
        if meta["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {meta['format']}")
    return arrays, meta
