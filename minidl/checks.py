"""Types shared by all modules."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, Protocol, Union, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

Backward = Callable[..., Any]
"""``backward(dy) -> dx``, the backward pass that belongs to one forward pass.

If the layer declares ``skips_input_grad``, it also takes ``input_grad=False`` and returns None.
"""

Rng = Union[int, "np.random.SeedSequence", "np.random.Generator"]
"""A seed or a generator. In quotes, so that ``numpy.random`` is not loaded before it is used."""


@runtime_checkable
class Stateful(Protocol):
    """Anything whose state decides the rest of a run: a callback, an order of the examples."""

    def state(self) -> dict[str, Any]:
        """Return arrays, and values as JSON takes them, by name."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Set what ``state`` returned."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown ``word``: the closest known one, or all of them.

    The hint continues a message: ``", did you mean 'relu'?"`` or ``", expected one of ..."``.
    """
    import difflib

    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f", did you mean {close[0]!r}?"
    return f", expected one of {', '.join(names)}" if names else ""


def check_int(owner: str, name: str, value: object, *, low: int = 1) -> int:
    """Return ``value`` as an int; ValueError unless it is a whole number of at least ``low``."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = low - 1
    if number < low or isinstance(value, bool):
        raise ValueError(f"{owner}: expected {name} to be a whole number >= {low}, got {value!r}")
    return number


def check_float(
    owner: str,
    name: str,
    value: object,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return ``value`` as a float; ValueError unless it is finite and in ``[low, high]``.

    With ``open_low`` or ``open_high`` the bound itself is not allowed.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    above = number > low if open_low else number >= low
    below = number < high if open_high else number <= high
    if not (math.isfinite(number) and above and below):
        bounds = [f"{'>' if open_low else '>='} {low:g}"] if low > -math.inf else []
        bounds += [f"{'<' if open_high else '<='} {high:g}"] if high < math.inf else []
        want = " ".join(["a finite number", " and ".join(bounds)]).strip()
        raise ValueError(f"{owner}: expected {name} to be {want}, got {value!r}")
    return number


def check_array(
    owner: str, name: str, value: object, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Return a copy of ``value`` in ``dtype``; ValueError if it has another shape or no numbers."""
    array = np.asarray(value)
    if array.shape != shape:
        raise ValueError(f"{owner}: expected {name} of shape {shape}, got {array.shape}")
    if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(f"{owner}: expected {name} to be real numbers, got dtype {array.dtype}")
    return array.astype(dtype)


def check_weight(owner: str, weight: object, n: int) -> Array:
    """Return weights of ``n`` examples as float64; ValueError unless finite and not negative."""
    array = np.asarray(weight)
    if array.shape != (n,):
        raise ValueError(f"{owner}: expected weight of shape ({n},), got {array.shape}")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{owner}: expected weight of numbers, got dtype {array.dtype}")
    array = array.astype(np.float64)
    wrong = np.flatnonzero(~((array >= 0) & (array < math.inf)))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"{owner}: expected finite weights that are not negative, got weight[{i}] = {array[i]}"
        )
    return array


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency; if it is missing, the error names the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{package} is needed for this: pip install 'minidl[{extra}]' ({error})"
        ) from error


def type_text(value: object) -> str:
    """Return the type of a value, and the shape and dtype of an array, for an error."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}, {value.dtype}"
    if isinstance(value, tuple):
        return f"a tuple ({', '.join(map(type_text, value))})"
    return "None" if value is None else f"{type(value).__name__} {_short(value)}"


def _check_floats(want: str, value: object, dtype: np.dtype[Any]) -> None:
    """Raise TypeError unless ``value`` is an array of ``dtype``, or of floats if that has none."""
    fits = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    if not fits or (dtype.kind == "f" and value.dtype != dtype):  # type: ignore[attr-defined]
        kind = dtype if dtype.kind == "f" else "floats"
        raise TypeError(f"{want} an array of {kind}, got {type_text(value)}")


def _accepts(function: Callable[..., Any], *args: Any, **options: Any) -> bool:
    try:
        inspect.signature(function).bind(*args, **options)
    except TypeError:
        return False
    return True


def _short(value: object) -> str:
    """Return the name or ``repr`` of an object, or the name of its type if that is long."""
    text = getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= 70 and "\n" not in text else type(value).__name__


def as_generator(rng: Rng) -> np.random.Generator:
    """Return the generator itself, or a new one from a seed.

    Parameters
    ----------
    rng : int, SeedSequence or Generator

    Raises
    ------
    TypeError
        If ``rng`` is anything else. None is not allowed, since the run could not be repeated.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (int, np.integer, np.random.SeedSequence)) and not isinstance(rng, bool):
        return np.random.default_rng(rng)
    raise TypeError(f"rng: expected a seed (int) or a numpy.random.Generator, got {rng!r}")


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit matrix products in this context to one thread, if threadpoolctl is installed.

    The products of small models are too short for several threads: two threads take twice as
    long as one on narrow layers, and 20 to 40 times as long on one example at a time.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(1):
        yield
