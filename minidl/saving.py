"""Trained models in files that load by themselves, with the steps before and after the model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minidl import losses
from minidl.architecture import build, describe
from minidl.archive import (
    build_model,
    model_meta,
    part,
    read_archive,
    state_arrays,
    trained_on,
    write_archive,
)
from minidl.data import features
from minidl.data.features import Feature
from minidl.layer import Layer
from minidl.predictor import Predictor, predictor_of
from minidl.typing import Array, Rng


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
    """Read a model that ``save`` or ``minidl.checkpoint.save`` wrote.

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
        "trained_on": predictor.trained_on,
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
        predictor.trained_on = trained_on(steps)
    except (TypeError, LookupError) as error:
        raise ValueError(f"has no predictor that can be built ({error!r})") from error
    predictor.class_names = arrays.get("class_names")
    return predictor
