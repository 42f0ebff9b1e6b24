"""Checkpoints: all that decides the rest of a run, in one ``.npz`` file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from minidl.checks import Stateful, check_int
from minidl.files import as_path, reading
from minidl.history import History
from minidl.layer import Layer
from minidl.optim import Optimizer
from minidl.parameter import States
from minidl.saving.describe import describe, difference
from minidl.saving.models import join, model_meta, read_archive, split, write_archive


class Checkpoint:
    """A file from which a training goes on, with the same bits as one that was not stopped.

    Pass it to ``fit``, ``fit_online`` or ``fit_side_by_side``, or call ``save`` and ``load`` in a
    loop of your own. ``minidl.load(path)`` reads the model from it.

    Parameters
    ----------
    path : path
        Usually ``*.npz``; NumPy can read the file. It is written whole or not at all.
    every : int
        The number of epochs between two files. One is written at the end in any case.
    resume : bool
        Whether training goes on from the file; without a file it begins. More epochs may be asked
        for; a run that a callback has ended gets no further ones.

    Examples
    --------
    >>> checkpoint = minidl.Checkpoint("run.npz", resume=True)
    >>> minidl.fit(model, data, loss, optimizer, epochs=20, rng=0, checkpoint=checkpoint)

    In a loop of your own:

    >>> checkpoint.save(model=model, optimizer=optimizer)
    >>> checkpoint.load(model=model, optimizer=optimizer)
    """

    def __init__(
        self, path: str | os.PathLike[str], *, every: int = 1, resume: bool = False
    ) -> None:
        self.path = as_path(path).absolute()  # a callback may change the working folder
        self.every = check_int("Checkpoint", "every", every)
        self.resume = bool(resume)

    def save(self, *, settings: Mapping[str, Any] | None = None, **parts: Stateful) -> None:
        """Write the states of objects by name.

        Parameters
        ----------
        settings : mapping, optional
            What the result depends on beside these objects; ``load`` compares it.
        **parts : Stateful
            Objects with ``state_dict`` and ``load_state_dict``, such as ``model``,
            ``optimizer`` and ``history``.
        """
        states, arrays = split(States(parts).state_dict())
        given = self.describe(settings)
        made = {k: _made(part) for k, part in parts.items() if k == "model" or k not in given}
        meta = {"parts": states, "made": made, "settings": given}
        if isinstance(model := parts.get("model"), Layer):
            meta |= model_meta(model, made.pop("model"))
        write_archive(self.path, arrays, meta)

    def load(self, *, settings: Mapping[str, Any] | None = None, **parts: Stateful) -> None:
        """Set the states of objects to those in the file, or change nothing.

        Raises
        ------
        ValueError
            If the file is damaged, or holds other settings, or the state of an object that was
            made otherwise: names the first difference, in a model by the layer's position.
        FileNotFoundError
            If there is no file.
        """
        arrays, meta = read_archive(self.path)
        with reading(self.path, "a checkpoint"):
            if "parts" not in meta:
                raise ValueError("expected a checkpoint, got a model or a run of an older version")
            made = {"model": meta.get("architecture"), **meta["made"]}
            old = {name: made[name] for name in made if name in parts} | meta["settings"]
            now = {name: _made(part) for name, part in parts.items() if name in made}
            now |= self.describe(settings)
            if other := difference(old, now):
                raise ValueError(f"holds another run: {other}")
            history, model = parts.get("history"), parts.get("model")
            if isinstance(history, History) and isinstance(model, Layer):
                history.follow(model, None, None)
            States(parts).load_state_dict(join(meta["parts"], arrays))

    def describe(self, settings: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return settings as plain data; TypeError for one that cannot be compared, says why."""
        described = {}
        for name, value in (settings or {}).items():
            try:
                described[name] = describe(value, strict=False)
            except (TypeError, RecursionError) as error:
                why = f"{name}: a part of it cannot be compared with that of another run ({error})"
                hint = "define config() in its class, which returns what it was made with as a dict"
                raise TypeError(f"Checkpoint: {why}; {hint}") from error
        return described

    def exists(self) -> bool:
        """Return whether there is a file."""
        return self.path.exists()

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}, every={self.every}, resume={self.resume})"


def _made(part: object) -> Any:
    """Return what a model or an optimizer was made with; None for other objects.

    A model with an argument that cannot be saved is marked as one that is only compared.
    """
    if not isinstance(part, (Layer, Optimizer)):
        return None
    try:
        return describe(part, strict=isinstance(part, Layer))
    except TypeError:
        return {**describe(part, strict=False), "compared": True}
