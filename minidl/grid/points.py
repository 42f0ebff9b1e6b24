"""A grid of settings: named axes, their product, and the results of its points."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np

from minidl.view.tables import Table

Point = dict[str, Any]
"""One value on every axis."""

_LONGEST = 120  # characters of an identifier, so that it fits into the name of a file


class Grid:
    """The product of named axes; the last axis varies fastest.

    Parameters
    ----------
    **axes : sequence of values
        ``Grid(width=[16, 32], learning_rate=[1e-2, 1e-3])`` has four points. The names are
        those of the training function's arguments. A value is a number, a string, None, or a
        list or tuple of such values; ValueError for others, and for an axis that is empty or names
        a value twice.
    """

    def __init__(self, **axes: Iterable[Any]) -> None:
        if not axes:
            raise ValueError("Grid: expected at least one axis")
        self.axes: dict[str, list[Any]] = {}
        for name, given in axes.items():
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise ValueError(f"Grid: expected a list of values on axis {name}, got {given!r}")
            values = [v.tolist() if isinstance(v, (np.generic, np.ndarray)) else v for v in given]
            if not values:
                raise ValueError(f"Grid: axis {name} is empty")
            try:
                texts = list(map(encode, values))
            except (TypeError, ValueError, RecursionError) as error:
                want = "numbers, strings, None or lists of them"
                raise ValueError(f"Grid: axis {name}: expected {want} ({error})") from None
            for i, value in enumerate(values):
                if value in values[:i] or texts[i] in texts[:i]:
                    raise ValueError(f"Grid: axis {name} names {value!r} twice")
            self.axes[name] = values

    def __iter__(self) -> Iterator[Point]:
        for values in itertools.product(*self.axes.values()):
            yield dict(zip(self.axes, values, strict=True))

    def __len__(self) -> int:
        return math.prod(map(len, self.axes.values()))

    @staticmethod
    def identifier(point: Point) -> str:
        """Return a stable name of a point for files: ``width-16,learning_rate-0.001``.

        Two points never share one, and it is no path: separators are written as ``%2F``.
        """
        name = ",".join(f"{_name(axis)}-{_name(value)}" for axis, value in point.items())
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 17]}-{digest}"

    def __repr__(self) -> str:
        return f"Grid({', '.join(f'{name}={values}' for name, values in self.axes.items())})"


def encode(value: object) -> str:
    """Return the JSON text of a value; NumPy's scalars and arrays become numbers and lists."""
    return json.dumps(value, default=_plain)


def _plain(value: object) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    got = f"{type(value).__module__}.{type(value).__qualname__}"
    raise TypeError(f"expected numbers, strings, lists and dicts, got {got}")


def _name(value: object) -> str:
    """Return a value as a part of the name of a file."""
    if isinstance(value, (list, tuple)):
        return f"[{';'.join(map(_name, value))}]"
    text = value if isinstance(value, str) and not _is_json(value) else encode(value)
    return quote(text, safe="()+", errors="surrogatepass")


def _is_json(text: str) -> bool:
    """Return whether a string would be read as another value, as ``"1"`` and ``"null"``."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


@dataclass(frozen=True)
class Result:
    """One run: its ``values``, or the ``error`` that ended it, with the ``traceback``.

    ``unsaved`` says why the files of a run that ended could not be written; its values are kept.
    """

    id: str
    point: Point
    values: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0
    unsaved: str | None = None
    traceback: str | None = None

    @property
    def complete(self) -> bool:
        """Whether the run ended and its files were written."""
        return self.error is None and self.unsaved is None


class Results(list[Result]):
    """The results of a grid, in its order; a notebook shows them as a table."""

    def _repr_html_(self) -> str:
        axes = list(self[0].point) if self else []
        plain = (str, int, float, type(None))
        shown = {n: None for r in self for n, v in r.values.items() if isinstance(v, plain)}
        table = Table([*axes, *shown, "seconds", "error"])
        for r in self:
            texts = [f"{v:g}" if isinstance(v, float) else v for v in r.point.values()]
            table.add(*texts, *map(r.values.get, shown), r.seconds, r.error)
        return table._repr_html_()


def exit_status(results: list[Result]) -> int:
    """Return the exit status of a program: 0, 1 if some runs failed, 2 if all did."""
    failed = sum(not r.complete for r in results)
    return 0 if failed == 0 else 2 if failed == len(results) else 1


class UnsavedError(Exception):
    """Raised by a training function that ended but could not write its files."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__("the files of a run could not be written")
        self.values = values


@contextlib.contextmanager
def keeping(values: dict[str, Any]) -> Iterator[None]:
    """Keep the results of a run whose files cannot be written in this context.

    Examples
    --------
    >>> with keeping(metrics):
    ...     minidl.save(path, model)
    """
    try:
        yield
    except OSError as error:
        raise UnsavedError(values) from error
