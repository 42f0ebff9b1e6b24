"""The options that every check takes, and the numbers that follow from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from minidl.checks import Array, Rng, check_choice, check_float, check_int


@dataclass(frozen=True)
class Precision:
    """The numbers that belong to the precision of the numeric side."""

    dtype: np.dtype[Any]
    eps: float  # the largest step of a difference
    shrink: float  # the factor between two steps
    steps: int  # their number
    sure: int  # so many are tried whatever the rounding
    unit: float  # the rounding in a difference, relative to its terms
    distances: tuple[float, ...]  # how far away points nearby are, relative and absolute
    by_entry: bool  # whether the step is that of one entry, or of a whole unit direction
    floor: float  # entries below this size are compared as if they had it


FLOAT64 = Precision(np.dtype(np.float64), 1e-5, 100, 5, 2, 2**-50, (1e-4, 1e-6, 1e-8), False, 3e-3)
FLOAT32 = Precision(np.dtype(np.float32), 2e-2, 4, 3, 1, 2**-21, (1e-1, 1e-2, 1e-3), True, 0.1)

TOLERANCES = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 1e-4, np.dtype(np.float16): 1e-2}
"""Relative, by the dtype of the analytic side; 2e-3 where the numeric side is float32 too."""


class Settings:
    """The generator and the numbers of one check, whose analytic side has this dtype."""

    def __init__(
        self, options: Options, rng: np.random.Generator, precision: Precision, dtype: np.dtype[Any]
    ) -> None:
        rtol = TOLERANCES[dtype] if precision is FLOAT64 else 2e-3
        self.rng, self.precision = rng, precision
        self.eps = precision.eps if options.eps is None else options.eps
        self.rtol = rtol if options.rtol is None else options.rtol
        self.atol, self.cotangent = options.atol, options.cotangent
        self.seconds_left = options.locate_seconds  # of the CPU, for all tensors together
        # The error, relative to the derivative, that must show beside the noise.
        self.clear = math.sqrt(self.rtol)
        # The size, relative to the typical entry, that all entries are taken to have.
        self.floor = max(precision.floor, self.rtol)

    def steps(self, u: Array) -> list[float]:
        """Return the steps of differences along a direction, from the largest to the smallest."""
        p = self.precision
        entries = max(int(np.count_nonzero(u)), 1) if p.by_entry else 1
        return [self.eps * math.sqrt(entries) / p.shrink**k for k in range(p.steps)]


@dataclass(frozen=True)
class Options:
    """The options of every check, all with defaults.

    Attributes
    ----------
    rng : int or Generator
        Draws the directions and the cotangent.
    eps : float
        The largest small step, relative to the size of the tensor: 1e-5, or 0.02 in float32.
    rtol, atol : float
        Tolerances: relative 1e-6 in float64, 1e-4 in float32, 2e-3 in ``precision="float32"``;
        absolute 0.
    precision : "float64" or "float32"
        The precision of the numeric side: float32 by default for code that returns float32 for
        float64, or refuses float64.
    cotangent : float
        The size of the random cotangent: a small one, as 1e-3, for code that clips gradients.
    locate_seconds : float
        The CPU time for naming the wrong entries, of all tensors together.
    numpy_seed : int
        Seeds the global generators of NumPy and of Python's ``random`` before every pass.
    skip : sequence of str
        Names of side conditions that are left out, as in the report.
    sweep : bool
        Check at 4 and 16 times the input, one row and no rows too, and the same object twice.
    name : str
        The name of the subject in the report.
    traceback : bool
        Raise an exception in the code that is checked, in place of a report of one line.
    """

    rng: Rng = 0
    eps: float | None = None
    rtol: float | None = None
    atol: float = 0.0
    precision: Literal["float64", "float32"] | None = None
    cotangent: float = 1.0
    locate_seconds: float = 5.0
    numpy_seed: int | None = None
    skip: Sequence[str] = ()
    sweep: bool = False
    name: str | None = None
    traceback: bool = False

    @classmethod
    def of(cls, owner: str, given: Mapping[str, Any]) -> Options:
        """Return the options given to the function ``owner``.

        TypeError for an unknown option, ValueError for a value that an option cannot have.
        """
        known, checked = [field.name for field in fields(cls)], dict[str, Any]()
        for key, value in given.items():
            if key not in known:
                raise TypeError(f"{owner}: unknown option {key!r}, known: {', '.join(known)}")
            if value is None:
                continue
            checked[key] = value
            if key == "precision":
                check_choice(owner, key, value, ("float64", "float32"))
            elif key == "numpy_seed":
                check_int(owner, key, value, low=0)
            elif key in ("eps", "rtol", "atol", "cotangent", "locate_seconds"):
                above = key in ("eps", "cotangent")
                checked[key] = check_float(owner, key, value, low=0, open_low=above)
        return cls(**checked)
