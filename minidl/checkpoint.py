"""Checkpoints: one ``.npz`` file, written whole or not at all, without pickle."""

from __future__ import annotations

import copy
import os
from typing import Any

import numpy as np

from minidl.architecture import difference
from minidl.history import History
from minidl.layer import Layer
from minidl.optim import Optimizer
from minidl.parameter import walk
from minidl.saving import model_meta, part, read_archive, state_arrays, write_archive
from minidl.state import Snapshot, check_snapshot
from minidl.typing import Array


def save(
    path: str | os.PathLike[str],
    model: Layer,
    optimizer: Optimizer | None = None,
    history: History | None = None,
) -> None:
    """Write a model and, where given, the state of its optimizer and history.

    ``minidl.load`` builds the model from the file. With optimizer and history, ``fit`` resumes with
    the same bits as a run that was not interrupted: the states of the layers' random streams are
    saved too.

    Parameters
    ----------
    path : path
        Usually ``*.npz``; NumPy can read the file.
    model : Layer
    optimizer : Optimizer, optional
    history : History, optional
    """
    arrays = state_arrays(model)
    meta = model_meta(model, lenient=True)
    meta["streams"] = [r.bit_generator.state for r in _rngs(model)]
    if optimizer is not None:
        meta["optimizer"] = type(optimizer).__name__
        arrays |= {f"optimizer/{k}": np.asarray(v) for k, v in optimizer.state_dict().items()}
    if history is not None:
        meta["history"] = history.to_dict()
        if history.best_snapshot is not None:
            arrays["best/theta"] = history.best_snapshot.theta
            buffers = history.best_snapshot.buffers
            arrays |= {f"best/buffers/{k}": v for k, v in buffers.items()}
    write_archive(path, arrays, meta)


def load(
    path: str | os.PathLike[str],
    model: Layer,
    optimizer: Optimizer | None = None,
) -> History:
    """Read a file that ``save`` wrote into a model (and optimizer) with the same structure.

    Returns
    -------
    History
        The saved history; empty if none was saved. Pass it to ``fit`` to resume.

    Raises
    ------
    ValueError
        If the file is damaged or belongs to another model or optimizer; then nothing is changed.
        A layer with another class or other arguments is named with its position.
    """
    arrays, meta = read_archive(path)
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    try:
        other = difference(
            model_meta(model, lenient=True)["architecture"], meta.get("architecture")
        )
        if other is not None:
            raise ValueError(other)
        history = _history(arrays, meta, twin)
        _restore(arrays, meta, twin, twin_optimizer)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    _restore(arrays, meta, model, optimizer)  # cannot fail: the copies took the same state
    return history


def _restore(
    arrays: dict[str, Array], meta: dict[str, Any], model: Layer, optimizer: Optimizer | None
) -> None:
    """Set the state of model, optimizer and random streams."""
    streams, rngs = meta.get("streams"), _rngs(model)
    if not isinstance(streams, list):
        raise ValueError(f"expected a list of random streams, got {streams!r}")
    if len(streams) != len(rngs):
        raise ValueError(f"has {len(streams)} random streams, the model {len(rngs)}")
    for i, (rng, state) in enumerate(zip(rngs, streams, strict=True)):
        try:
            rng.bit_generator.state = state
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            kind = type(rng.bit_generator).__name__
            raise ValueError(f"random stream {i}: expected a state of {kind} ({error})") from error
    if optimizer is not None:
        if meta.get("optimizer") != type(optimizer).__name__:
            saved = meta.get("optimizer", "no optimizer")
            raise ValueError(f"expected a {type(optimizer).__name__}, got {saved}")
        optimizer.load_state_dict(part(arrays, "optimizer/"))
    model.load_state_dict(part(arrays, "model/"))


def _history(arrays: dict[str, Array], meta: dict[str, Any], model: Layer) -> History:
    """Return the saved history, with best parameters that fit the model."""
    history = History.from_dict(meta["history"]) if "history" in meta else History()
    if "best/theta" in arrays:
        best = Snapshot(arrays["best/theta"], part(arrays, "best/buffers/"))
        history.best_snapshot = check_snapshot("History: the best state", model, best)
    return history


def _rngs(model: Layer) -> list[np.random.Generator]:
    """Return the random streams of the layers that have one."""
    rngs = [getattr(layer, "rng", None) for layer in walk(model)]
    return [rng for rng in rngs if isinstance(rng, np.random.Generator)]
