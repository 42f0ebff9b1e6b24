"""A grid of settings: named axes and their product."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

Point = dict[str, Any]
"""One value on every axis."""


class Grid:
    """The product of named axes; the last axis varies fastest.

    Parameters
    ----------
    **axes : sequence of numbers or strings
        ``Grid(width=[16, 32], learning_rate=[1e-2, 1e-3])`` has four points. The names are
        those of the training function's arguments.

    Raises
    ------
    ValueError
        If an axis is empty, names a value twice, or holds a value that JSON cannot hold.
    """

    def __init__(self, **axes: Sequence[Any]) -> None:
        if not axes:
            raise ValueError("Grid: expected at least one axis")
        for name, values in axes.items():
            if len(values) == 0:
                raise ValueError(f"Grid: axis {name} is empty")
            for i, value in enumerate(values):
                if not isinstance(value, (bool, int, float, str)):
                    raise ValueError(
                        f"Grid: expected numbers or strings on axis {name}, got {value!r}"
                    )
                if value in values[:i]:
                    raise ValueError(f"Grid: axis {name} names {value!r} twice")
        self.axes = {name: list(values) for name, values in axes.items()}

    def __iter__(self) -> Iterator[Point]:
        for values in itertools.product(*self.axes.values()):
            yield dict(zip(self.axes, values, strict=True))

    def __len__(self) -> int:
        return math.prod(map(len, self.axes.values()))

    @staticmethod
    def identifier(point: Point) -> str:
        """Return a stable name of a point for files: ``width=16,learning_rate=0.001``."""
        return ",".join(
            f"{name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in point.items()
        )

    def __repr__(self) -> str:
        return f"Grid({', '.join(f'{name}={values}' for name, values in self.axes.items())})"
