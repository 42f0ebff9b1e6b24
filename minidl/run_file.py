"""The file from which runs go on: a checkpoint, and what else decides the rest of the runs.

That is the order of the examples, the state of the callbacks, and whether one of them has ended the
training. Of several runs that train together one file holds all.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidl import checkpoint
from minidl.archive import part, read_archive, write_archive
from minidl.callbacks import Run
from minidl.settings import first_difference
from minidl.typing import Stateful


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
    pieces = [checkpoint.contents(r.model, r.optimizer, r.history) for r in runs]
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
            history = checkpoint.check(piece, one, run.model, run.optimizer)
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
        checkpoint.restore(piece, one, run.model, run.optimizer)
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
