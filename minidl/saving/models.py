"""Trained models in files that load by themselves, with the steps before and after the model.

A file is an ``.npz``: arrays, and JSON about them in the array ``meta``, without pickle.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from minidl import losses
from minidl.checks import FLOATS, Array, Rng, check_array, check_finite, check_float, require
from minidl.data import features
from minidl.data.features import Feature, Predictor, predictor_of
from minidl.files import atomic, from_json, read_npz, to_json
from minidl.layer import Layer
from minidl.maps import SimplexMap
from minidl.saving.describe import architecture, build, build_value, check_size, describe

FORMAT = 2


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
        Of an estimator, its ``predictor_``, settings, labels and ``history_`` are written; a
        setting that is no plain data (a callback, a RandomState) is left out with a warning. Own
        layers need no extra code where each argument of the constructor is plain data, a layer or a
        map, or kept as an attribute of the same name; otherwise they define ``config()``, which
        returns the arguments as a dict. The same holds for own features, maps and losses.

    Raises
    ------
    TypeError
        If an argument of a layer cannot be saved; the message names both.
    ValueError
        If a value is NaN, or a parameter infinite.
    sklearn.exceptions.NotFittedError
        If an estimator is not fitted.
    """
    given, model = model, predictor_of(model)
    if isinstance(model, Predictor):
        arrays, steps = _predictor_parts(model)
        inner = model.model
        if given is not model:
            more, steps["estimator"] = _estimator_parts(given)
            arrays |= more
    elif isinstance(model, Layer):
        arrays, steps, inner = {}, {}, model
    else:
        raise TypeError(f"save: expected a model or a Predictor, got {model!r}")
    describe(inner)  # what load could not build is an error here
    arrays = {**split(inner.state_dict(), "model")[1], **arrays}
    _check_values("save", inner, arrays)
    write_archive(path, arrays, model_meta(inner) | steps)


def load(
    path: str | os.PathLike[str], layers: Iterable[type[Any]] = (), *, rng: Rng | None = None
) -> Any:
    """Read a model that ``save`` or a ``Checkpoint`` wrote.

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
    with damaged(path, "model"):
        check_size([meta["architecture"], meta.get("predictor")], arrays)
        model, dtype = build(meta["architecture"], own), np.dtype(meta["dtype"])
        if not isinstance(model, Layer):
            raise ValueError(f"expected a model, got {model!r}")
        if dtype not in FLOATS:
            raise ValueError(f"expected dtype float32 or float64, got {dtype}")
        state = join({}, arrays, "model")
        for name, parameter in model.named_parameters():
            if name not in state:
                raise ValueError(f"the state has no value for {name!r}")
            check_array("the model", name, state[name], parameter.shape, dtype)
            parameter.initialize(np.random.default_rng(0), dtype)  # to be replaced
        model.initialize(rng, dtype)
        model.load_state_dict(state)
        model.input_scale = _input_scale(meta)
        _check_values("the model", model, arrays)
        if "predictor" not in meta:
            return model
        predictor = _predictor(model, arrays, meta["predictor"], own)
        if "estimator" not in meta or importlib.util.find_spec("sklearn") is None:
            return predictor
        wing, saved = require("minidl.sklearn", "sklearn"), meta["estimator"]
        state = join(saved["state"], arrays, "estimator")
        state["settings"] = {k: build_value(v) for k, v in saved["settings"].items()}
        return wing.ESTIMATORS[saved["class"]].from_state(predictor, state)


def _check_values(owner: str, model: Layer, arrays: Mapping[str, Array]) -> None:
    """Raise ValueError for NaN in an array, and for a parameter that is not finite."""
    for name, parameter in model.named_parameters():
        check_finite(owner, "parameters", name, parameter.value)
    for name, array in arrays.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise ValueError(f"{owner}: expected numbers in {name}, got NaN")


def model_meta(model: Layer) -> dict[str, Any]:
    """Return what a file says of a model beside its arrays."""
    return {
        "architecture": architecture(model),
        "dtype": model.dtype.name,
        "input_scale": model.input_scale,
    }


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


def _predictor_parts(predictor: Predictor) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays of a predictor beside its model's, and what the file says of it."""
    arrays: dict[str, Array] = {}
    for i, feature in enumerate(predictor.features):
        learned = {k: v for k, v in vars(feature).items() if isinstance(v, np.ndarray)}
        arrays |= split(learned, f"features/{i}")[1]
    names = predictor.class_names
    if names is not None:
        if np.asarray(names).dtype.hasobject:
            raise TypeError(f"save: expected class names of text or numbers, got {names!r}")
        arrays["class_names"] = np.asarray(names)
    steps = {
        "features": [describe(feature) for feature in predictor.features],
        "loss": None if predictor.loss is None else describe(predictor.loss),
        "input_scale": predictor.input_scale,
    }
    return arrays, {"predictor": steps}


def _estimator_parts(estimator: Any) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays of an estimator beside its predictor's, and what the file says of it."""
    plain, arrays = split(estimator.state_dict(), "estimator")
    settings: dict[str, Any] = {}
    for name, value in plain.pop("settings").items():
        try:
            settings[name] = describe(value)
        except TypeError:
            warnings.warn(f"save: the setting {name}={value!r:.80} is left out", stacklevel=3)
    return arrays, {"class": type(estimator).__name__, "settings": settings, "state": plain}


def _predictor(
    model: Layer, arrays: Mapping[str, Array], steps: Mapping[str, Any], own: list[type[Any]]
) -> Predictor:
    """Return the predictor of a file around its model."""
    classes = [c for m in (features, losses) for c in vars(m).values() if isinstance(c, type)]
    known = [c for c in classes if c.__module__.startswith("minidl.")] + own
    made: list[Feature] = [build(description, known) for description in steps["features"]]
    for i, feature in enumerate(made):
        vars(feature).update(join({}, arrays, f"features/{i}"))
    loss = None if steps["loss"] is None else build(steps["loss"], known)
    if loss is not None and (not callable(loss) or isinstance(loss, (Layer, SimplexMap))):
        raise ValueError(f"expected a loss, got {loss!r}")
    predictor = Predictor(model, made, loss=loss)
    predictor.input_scale = _input_scale(steps)
    predictor.class_names = arrays.get("class_names")
    return predictor


@contextlib.contextmanager
def damaged(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Turn any error about the contents of a file into a ValueError that names the file.

    Its text is cut, since it may have a value of the file, of any length.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error!s:.2000}") from error
    except Exception as error:  # own classes may raise any kind
        raise ValueError(f"{path}: cannot be read as a {what} ({error!r:.2000})") from error


def split(state: Mapping[str, Any], prefix: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the plain values of a state, and its arrays by their path below ``prefix``."""
    plain: dict[str, Any] = {}
    arrays: dict[str, Array] = {}
    for name, value in state.items():
        if isinstance(value, np.ndarray):
            arrays[f"{prefix}/{name}"] = value
        elif isinstance(value, Mapping):
            plain[name], found = split(value, f"{prefix}/{name}")
            arrays |= found
        else:
            plain[name] = value
    return plain, arrays


def join(plain: Mapping[str, Any], arrays: Mapping[str, Array], prefix: str) -> dict[str, Any]:
    """Return the state that ``split`` took apart."""
    inner = {k: join(v, arrays, f"{prefix}/{k}") for k, v in plain.items() if isinstance(v, dict)}
    start = f"{prefix}/"
    paths = [path.removeprefix(start) for path in arrays if path.startswith(start)]
    own = {name: arrays[start + name] for name in paths if "/" not in name}
    return {**plain, **inner, **own}


def write_archive(
    path: str | os.PathLike[str], arrays: Mapping[str, Array], meta: Mapping[str, Any]
) -> None:
    """Write arrays, and ``meta`` as JSON, to an ``.npz``, completely or not at all."""
    text = to_json({"format": FORMAT, **meta}, default=str)
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
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: cannot be read as a model or checkpoint ({error})") from error
    if saved != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, got {saved}")
    return arrays, meta
