"""Checkpoints: one ``.npz`` file, written whole or not at all, without pickle."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidl.callbacks import Run
from minidl.checks import Array, Stateful
from minidl.dataset import Dataset
from minidl.history import History
from minidl.layer import Layer
from minidl.optim import Optimizer
from minidl.parameter import Snapshot, check_snapshot, random_streams, set_stream
from minidl.saving.describe import difference, first_difference
from minidl.saving.describe import fingerprint as describe
from minidl.saving.models import model_meta, part, read_archive, state_arrays, write_archive


def save(
    path: str | os.PathLike[str],
    model: Layer,
    optimizer: Optimizer | None = None,
    history: History | None = None,
) -> None:
    """Write a model and, where given, the state of its optimizer and history.

    ``minidl.load`` builds the model from the file. The states of the layers' random streams are
    saved too. ``fit(..., checkpoint=path)`` writes such a file by itself, and also what decides
    the rest of a run: the order of the examples, and the state of callbacks.

    Parameters
    ----------
    path : path
        Usually ``*.npz``; NumPy can read the file.
    model : Layer
    optimizer : Optimizer, optional
    history : History, optional
    """
    write_archive(path, *contents(model, optimizer, history))


def contents(
    model: Layer, optimizer: Optimizer | None, history: History | None
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays and the meta data of a checkpoint."""
    arrays = state_arrays(model)
    meta = model_meta(model, lenient=True)
    meta["streams"] = [r.bit_generator.state for r in random_streams(model)]
    if optimizer is not None:
        meta["optimizer"] = optimizer.settings()
        meta["lr"] = None if callable(optimizer.lr) else optimizer.lr
        arrays |= {f"optimizer/{k}": np.asarray(v) for k, v in optimizer.state_dict().items()}
    if history is not None:
        meta["history"] = history.to_dict()
        if history.best_snapshot is not None:
            arrays["best/theta"] = history.best_snapshot.theta
            buffers = history.best_snapshot.buffers
            arrays |= {f"best/buffers/{k}": v for k, v in buffers.items()}
    return arrays, meta


def load(
    path: str | os.PathLike[str],
    model: Layer,
    optimizer: Optimizer | None = None,
) -> History:
    """Read a file that ``save`` wrote into a model (and optimizer) with the same structure.

    The optimizer must have been made with the settings of the saved one; to go on with another
    learning rate, set ``optimizer.lr`` afterwards.

    Returns
    -------
    History
        The saved history; empty if none was saved. Pass it to ``fit`` to resume.

    Raises
    ------
    ValueError
        If the file is damaged or belongs to another model or optimizer; then nothing is changed.
        A layer with another class or other arguments is named with its position, and so is a
        setting of the optimizer.
    """
    arrays, meta = read_archive(path)
    try:
        history = check(arrays, meta, model, optimizer)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    restore(arrays, meta, model, optimizer)
    return history


def check(
    arrays: Mapping[str, Array],
    meta: Mapping[str, Any],
    model: Layer,
    optimizer: Optimizer | None,
) -> History:
    """Return the saved history; ValueError if ``restore`` would fail. Nothing is changed."""
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    try:
        other = difference(
            model_meta(model, lenient=True)["architecture"], meta.get("architecture")
        )
        if other is not None:
            raise ValueError(other)
        if optimizer is not None:
            _check_optimizer(meta, optimizer)
        history = _history(arrays, meta, twin)
        restore(arrays, meta, twin, twin_optimizer)
    except (AttributeError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"cannot be read as a checkpoint ({error!r})") from error
    return history


def restore(
    arrays: Mapping[str, Array],
    meta: Mapping[str, Any],
    model: Layer,
    optimizer: Optimizer | None,
) -> None:
    """Set the state of model, optimizer and random streams; cannot fail after ``check``."""
    streams, rngs = meta.get("streams"), random_streams(model)
    if not isinstance(streams, list):
        raise ValueError(f"expected a list of random streams, got {streams!r}")
    if len(streams) != len(rngs):
        raise ValueError(f"has {len(streams)} random streams, the model {len(rngs)}")
    for i, (rng, state) in enumerate(zip(rngs, streams, strict=True)):
        set_stream(f"random stream {i}", rng, state)
    if optimizer is not None:
        optimizer.load_state_dict(part(arrays, "optimizer/"))
        if meta.get("lr") is not None and not callable(optimizer.lr):
            optimizer.lr = meta["lr"]
    model.load_state_dict(part(arrays, "model/"))


def _check_optimizer(meta: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Raise ValueError if the saved optimizer had another class or other settings."""
    saved, own = meta.get("optimizer"), optimizer.settings()
    kind = saved.get("class") if isinstance(saved, dict) else saved
    if not isinstance(saved, dict) or kind != own["class"]:
        raise ValueError(f"expected a {own['class']}, got {kind or 'no optimizer'}")
    other = first_difference(saved, own)
    if other:
        raise ValueError(f"{own['class']}: {other}")
    lr = meta.get("lr")
    if lr is not None and (isinstance(lr, bool) or not isinstance(lr, (int, float))):
        raise ValueError(f"expected lr to be a number, got {lr!r}")


def _history(arrays: Mapping[str, Array], meta: Mapping[str, Any], model: Layer) -> History:
    """Return the saved history, with best parameters that fit the model."""
    history = History.from_dict(meta["history"]) if "history" in meta else History()
    if "best/theta" in arrays:
        best = Snapshot(arrays["best/theta"], part(arrays, "best/buffers/"))
        history.best_snapshot = check_snapshot("History: the best state", model, best)
    return history


def write(
    path: Path,
    runs: Sequence[Run],
    parts: Sequence[Stateful],
    *,
    order: Mapping[str, Any],
    settings: Mapping[str, Any],
    ended: bool,
) -> None:
    """Write the state of runs that have just ended an epoch."""
    pieces = [contents(r.model, r.optimizer, r.history) for r in runs]
    arrays = {
        f"{_prefix(i)}{name}": value
        for i, (found, _) in enumerate(pieces)
        for name, value in found.items()
    }
    states = {"order": order} | {name: one.state() for name, one in _named(parts)}
    plain: dict[str, Any] = {}
    for name, state in states.items():
        plain[name] = {k: v for k, v in state.items() if not isinstance(v, np.ndarray)}
        arrays |= {f"run/{name}/{k}": v for k, v in state.items() if k not in plain[name]}
    first, *others = [meta for _, meta in pieces]
    record = {"settings": settings, "ended": ended, "states": plain}
    write_archive(path, arrays, {**first, "runs": others, "run": record})


def read(
    path: Path,
    runs: Sequence[Run],
    parts: Sequence[Stateful],
    *,
    order: Callable[[Mapping[str, Any]], None],
    trial: Callable[[Mapping[str, Any]], None],
    settings: Mapping[str, Any],
) -> bool:
    """Set runs, callbacks and order to the state in a file; return whether the training has ended.

    ``order`` sets the order of the examples, ``trial`` does so to a copy.

    Raises
    ------
    ValueError
        If the file is damaged or holds runs with other settings; then nothing is changed.
    """
    arrays, meta = read_archive(path)
    try:
        record, metas = meta["run"], [meta, *meta["runs"]]
        other = first_difference(record["settings"], settings)
        if other:
            raise ValueError(f"holds another run: {other}")
        if len(metas) != len(runs):
            raise ValueError(f"holds {len(metas)} runs, expected {len(runs)}")
        pieces = [part(arrays, _prefix(i)) for i in range(len(metas))]
        histories = []
        for piece, one, run in zip(pieces, metas, runs, strict=True):
            history = check(piece, one, run.model, run.optimizer)
            if not history.records:
                raise ValueError("has no epochs")
            copy.copy(run.history).replace(copy.copy(history), run.model)
            histories.append(history)
        states = {
            name: {**plain, **part(arrays, f"run/{name}/")}
            for name, plain in record["states"].items()
        }
        ended, ordered = bool(record["ended"]), states["order"]
        trial(ordered)
        changed = [(one, states[name]) for name, one in _named(parts) if states.get(name)]
        for callback, state in changed:
            copy.copy(callback).load_state(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (AttributeError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path}: has no run that can be resumed ({error!r})") from error
    for piece, one, history, run in zip(pieces, metas, histories, runs, strict=True):
        restore(piece, one, run.model, run.optimizer)
        run.history.replace(history, run.model)
    order(ordered)
    for callback, state in changed:
        callback.load_state(state)
    return ended


def _prefix(i: int) -> str:
    return f"runs/{i}/" if i else ""  # the file of one run is a checkpoint like any other


def _named(parts: Sequence[Stateful]) -> list[tuple[str, Stateful]]:
    """Return the parts with their class names, numbered where there are several of a class."""
    seen: Counter[str] = Counter()
    named = []
    for one in parts:
        kind = type(one).__name__
        seen[kind] += 1
        named.append((f"{kind} {seen[kind]}", one))
    return named


def run_settings(dataset: Dataset, loss: Any, **others: Any) -> dict[str, Any]:
    """Return what the result of a run depends on beside its model, as JSON takes it."""
    if hasattr(loss, "__qualname__"):  # a function
        described = describe(loss)
    else:
        described = {"class": type(loss).__name__, **describe(vars(loss))}
    return {"data": dataset.checksum(), "loss": described, **describe(others)}


def _describe_order(owner: str, rng: Any) -> Any:
    """Return what orders the examples, as JSON takes it, without the state of a generator."""
    if isinstance(rng, np.random.SeedSequence):
        return describe([rng.entropy, rng.spawn_key])
    if isinstance(rng, np.random.Generator):
        return str(rng)
    if isinstance(rng, Stateful):
        return type(rng).__qualname__
    if isinstance(rng, Iterator):
        raise TypeError(
            f"{owner}: expected rng with a state that checkpoint= can save (a seed, a Generator, "
            f"minidl.compounding, or an iterator with state and load_state), got {rng!r}"
        )
    return describe(rng)
