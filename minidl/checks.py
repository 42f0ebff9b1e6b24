"""Arguments and the words of errors, and how an object was made: what all modules share."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import cache, lru_cache, wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Union, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[Any]

T = TypeVar("T", bound=str)
F = TypeVar("F", bound=Callable[..., Any])

Backward = Callable[..., Any]
"""``backward(dy) -> dx``, or None for ``input_grad=False`` if the layer ``skips_input_grad``."""

Rng = Union[int, "np.random.SeedSequence", "np.random.Generator"]
"""A seed or a generator. In quotes, so that ``numpy.random`` is not loaded before it is used."""

FLOATS = frozenset((np.dtype(np.float32), np.dtype(np.float64)))
"""The dtypes that maps, layers and losses compute in."""


@runtime_checkable
class Stateful(Protocol):
    """An object whose state decides the rest of a run: a model, an optimizer, a callback."""

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state: arrays, and values as JSON takes them, by name."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what ``state_dict`` returned; ValueError, and nothing changed, if it does not fit."""


# Of a class: to read it takes longer than all the rest.
_signature: Callable[[Any], inspect.Signature] = lru_cache(256)(inspect.signature)


class Configured:
    """Base of layers, maps, losses, optimizers and features: an object that knows its arguments.

    This one record serves ``repr``, saving, comparing and resuming.
    """

    _given: dict[str, Any]

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Keep the arguments, but no arrays, generators and functions, which a copy would have."""
        if cls.__init__ is object.__init__ and (args or options):
            raise TypeError(f"{cls.__name__}() takes no arguments")
        made = super().__new__(cls)
        made.__dict__["_given"] = {}
        plain = [v if is_plain(v) else ... for v in args]
        named = {name: v if is_plain(v) else ... for name, v in options.items()}
        with contextlib.suppress(TypeError):  # which ``__init__`` raises
            made.__dict__["_given"] = _signature(cls).bind_partial(*plain, **named).arguments
        return made

    def config(self) -> dict[str, Any]:
        """Return the arguments by name; ``...`` stands for one that is not known.

        An argument is the attribute of the same name where that is an array, plain data, an
        object of this class or a list of them; else what was given; else the default. Left out
        are generators, dtypes, initialisers (``*_init``) and the model of an optimizer.
        """
        given, found = getattr(self, "_given", {}), {}
        for name, parameter in _signature(type(self)).parameters.items():
            if name in ("rng", "dtype", "model") or name.endswith("_init"):
                continue
            variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            value = attribute = vars(self).get(name, ...)
            if not isinstance(value, np.ndarray) and not is_plain(value):
                default = attribute if parameter.default is parameter.empty else parameter.default
                value = given.get(name, () if variable else default)
            if not variable or value:
                found[name] = attribute if value is ... else value
        return found

    def __repr__(self) -> str:
        shown: list[str] = []
        config = self.config()
        for i, (name, parameter) in enumerate(_signature(type(self)).parameters.items()):
            default, value = parameter.default, config.get(name, parameter.default)
            keyword = parameter.kind is parameter.KEYWORD_ONLY
            number = i == 0 and not keyword and type(value) in (int, float)
            same = value is default or (is_plain(value) and bool(value == default))
            if parameter.kind is parameter.VAR_POSITIONAL:
                shown += map(_text, config.get(name, ()))
            elif not same or (number and isinstance(value, float)):  # always Dropout(0.5)
                bare = number or not (keyword or default is not parameter.empty)
                shown.append(_text(value) if bare else f"{name}={_text(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


def is_plain(value: object) -> bool:
    """Return whether a value is plain, has a record of its arguments, or is a list of these."""
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    kinds = (bool, int, float, str, np.bool_, np.number, Configured)
    return value is None or isinstance(value, kinds) or is_layer(value)


def is_layer(value: object) -> bool:
    """Return whether ``value`` is an object (not a class) with a ``forward`` method."""
    return callable(getattr(value, "forward", None)) and not isinstance(value, type)


def _text(value: object) -> str:
    """Return a number without a needless ``.0``, and the ``repr`` of anything else."""
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return "..." if value is ... or " at 0x" in repr(value) else repr(value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: the closest known one, or all."""
    from difflib import get_close_matches

    names = list(known)
    close = get_close_matches(word, names, n=1)
    every = f"one of {', '.join(names)}" if names else "none"
    return f", did you mean {close[0]!r}?" if close else f", expected {every}"


def short_text(value: object) -> str:
    """Return the name or ``repr`` of an object, or the name of its type if that is long."""
    text = getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= 70 and "\n" not in text else type(value).__name__


def type_text(value: object) -> str:
    """Return the type of a value, and the shape and dtype of an array, for an error."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}, {value.dtype}"
    if isinstance(value, tuple):
        return f"a tuple ({', '.join(map(type_text, value))})"
    kind = "the class" if isinstance(value, type) else type(value).__name__
    return "None" if value is None else f"{kind} {short_text(value)}"


def takes(function: Callable[..., Any], *args: Any, **options: Any) -> bool:
    """Return whether a call with these arguments fits the signature of the function."""
    try:
        inspect.signature(function).bind(*args, **options)
    except (TypeError, ValueError) as error:  # ValueError: a built-in one without a signature
        return isinstance(error, ValueError) and not options
    return True


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency; if it is missing, the error names the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        want = f"{module.partition('.')[0]} is needed for this: pip install 'minidl[{extra}]'"
        raise ImportError(f"{want} ({error})") from error


def check_int(owner: str, name: str, value: object, *, low: int = 1, high: int = 2**63 - 1) -> int:
    """Return ``value`` as an int; ValueError unless it is a whole number in ``low..high``."""
    try:
        number = low - 1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = low - 1
    if not low <= number <= high:
        want = f"a whole number >= {low}" if number < low else f"at most {high}"
        got = repr(value) if number < 2**64 else f"one of {number.bit_length()} bits"
        raise ValueError(f"{owner}: expected {name} to be {want}, got {got}")
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
    """Return a float; ValueError unless finite and in ``[low, high]``, without an open bound."""
    try:
        number = math.nan if isinstance(value, (str, bytes)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    inside = low <= number <= high and not (open_low and number == low)
    if not (inside and math.isfinite(number)) or (open_high and number == high):
        bounds = [f"{'>' if open_low else '>='} {low:g}"] if low > -math.inf else []
        bounds += [f"{'<' if open_high else '<='} {high:g}"] if high < math.inf else []
        want = " ".join(["a finite number", " and ".join(bounds)]).strip()
        raise ValueError(f"{owner}: expected {name} to be {want}, got {value!r}")
    return number


def check_choice(owner: str, name: str, value: T, choices: Sequence[T]) -> T:
    """Return ``value``; ValueError unless it is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        known = " or ".join(map(repr, choices))
        raise ValueError(f"{owner}: expected {name} {known}, got {value!r}")
    return value


def as_dtype(owner: str, dtype: DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64 as a dtype; ValueError for any other."""
    with contextlib.suppress(Exception):  # NumPy raises many kinds
        if dtype is not None and np.dtype(dtype) in FLOATS:
            return np.dtype(dtype)
    raise ValueError(f"{owner}: expected dtype float32 or float64, got {dtype!r}")


def as_generator(rng: Rng) -> np.random.Generator:
    """Return the generator itself, or a new one from a seed; TypeError for anything else."""
    if isinstance(rng, np.random.Generator):
        return rng
    seed = isinstance(rng, (int, np.integer)) and not isinstance(rng, bool) and rng >= 0
    if seed or isinstance(rng, np.random.SeedSequence):
        return np.random.default_rng(rng)
    raise TypeError(f"rng: expected a seed (int >= 0) or a numpy.random.Generator, got {rng!r}")


def as_array(owner: object, name: str, value: Any, *, numbers: bool = False) -> Array:
    """Return what a user hands in as an array of NumPy in the byte order of this machine.

    Lists, tensors of PyTorch without a gradient, and frames and series of pandas and Polars are
    converted; a frame of pandas column by column, nullable ones too, to their common dtype.
    TypeError for a masked array, a sparse matrix, what does not become an array, and with
    ``numbers`` for other than booleans, integers and floats; ValueError for rows of unequal
    length, and for a missing value in a nullable column.
    """
    array: Array = value
    if type(array) is not np.ndarray or not array.dtype.isnative:
        refuse_mask(owner, name, value)
        try:
            array = _converted(owner, name, value, numbers)
        except Exception as error:  # PyTorch: a gradient, bfloat16, another device
            if str(error).startswith(f"{owner}: "):
                raise
            kind = ValueError if isinstance(error, ValueError) else TypeError
            got = f"{type(value).__name__} ({error})"
            raise kind(f"{owner}: expected {name} as an array, got {got}") from error
    if numbers and array.dtype.kind not in "biuf":
        raise TypeError(f"{owner}: expected {name} of real numbers, got dtype {array.dtype}")
    return array


def _converted(owner: object, name: str, value: Any, numbers: bool) -> Array:
    """Return an array_like, a frame or a series as an array."""
    dtype = getattr(value, "dtype", None)
    plain = getattr(dtype, "numpy_dtype", None)  # of nullable and of Arrow's dtypes
    if hasattr(value, "toarray"):
        raise TypeError(f"a sparse matrix; write {name}.toarray()")
    frame = hasattr(value, "iloc") and hasattr(value, "columns")
    if frame and not (len(set(value.dtypes)) == 1 and isinstance(value.dtypes.iloc[0], np.dtype)):
        columns = ((f"column {c!r} of {name}", value.iloc[:, i]) for i, c in enumerate(value))
        found = [as_array(owner, *column, numbers=numbers) for column in columns]
        array = np.stack(found, axis=1)
    elif plain is not None and getattr(dtype, "kind", "O") in "biuf":
        for row in np.flatnonzero(np.asarray(value.isna())):
            raise ValueError(f"{owner}: {name} has a missing value in row {row}")
        array = value.to_numpy(dtype=plain)
    else:
        array = np.asarray(value)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def refuse_mask(owner: object, name: str, value: object) -> None:
    """Raise TypeError for a masked array, or a list of some: NumPy and others drop the mask."""
    entries = value if isinstance(value, (list, tuple)) else (value,)
    if any(isinstance(entry, np.ma.MaskedArray) for entry in entries):
        want = f"{name} without a mask, got a masked array; write {name}.filled(...)"
        raise TypeError(f"{owner}: expected {want}")


def as_floats(owner: object, name: str, value: Any) -> Array:
    """Return ``as_array`` of ``value``; TypeError unless it is float32 or float64."""
    array = as_array(owner, name, value)
    if array.dtype not in FLOATS:
        raise TypeError(f"{owner}: expected {name} of dtype float32 or float64, got {array.dtype}")
    return array


def check_array(
    owner: str, name: str, value: object, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Return a copy of ``value`` in ``dtype``; ValueError if the shape or range is another."""
    array = as_array(owner, name, value)
    if array.shape != shape:
        raise ValueError(f"{owner}: expected {name} of shape {shape}, got {array.shape}")
    if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(f"{owner}: expected {name} to be real numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    fits = np.isinf(array) | ~np.isinf(cast)
    check_entries(owner, f"{name} in the range of {dtype}", name, array, fits)
    return cast


def check_weight(owner: str, weight: object, n: int) -> Array:
    """Return weights of ``n`` examples as float64; ValueError unless finite and not negative."""
    array = as_array(owner, "weight", weight, numbers=True)
    array = check_array(owner, "weight", array, (n,), np.dtype(np.float64))
    fits = (array >= 0) & (array < math.inf)
    check_entries(owner, "finite weights that are not negative", "weight", array, fits)
    return array


def check_finite(owner: object, what: str, name: str, array: Array) -> None:
    """Raise ValueError, and name the first entry, if an array has NaN or infinity."""
    with np.errstate(all="ignore"):  # one pass, and no array of bool, unless the sum is not finite
        if array.dtype.kind == "f" and not np.isfinite(array.sum()):
            check_entries(owner, f"finite {what}", name, array, np.isfinite(array))


def check_entries(owner: object, want: str, name: str, array: Array, fits: Array) -> None:
    """Raise ValueError, and name the first entry that does not fit, unless all do."""
    for at in np.argwhere(~fits):
        got = f"{name}[{', '.join(map(str, at))}] = {array[tuple(at)]}"
        raise ValueError(f"{owner}: expected {want}, got {got}")


def shaped_targets(loss: object, outputs: Array, y: Array) -> Array:
    """Return targets in the shape in which a loss and metrics see them beside the outputs.

    Targets (n,) become a column (n, 1) if there is one output, unless they are class labels, and
    beside several outputs too if ``loss.class_labels`` is False, as for ``Quantile``.
    """
    labels = getattr(loss, "class_labels", None)
    column = outputs.shape[1:] == (1,) if labels is None else not labels
    return y[:, None] if column and y.ndim == 1 else y


class ContractError(TypeError, ValueError):
    """A pass returned the wrong type or shape."""


def returned_pass(owner: str, method: str, result: Any) -> tuple[Any, Callable[..., Any]]:
    """Return the output and the backward pass that a forward pass returned."""
    if not (isinstance(result, tuple) and len(result) == 2 and callable(result[1])):
        want = f"{method} to return y, backward"
        raise ContractError(f"{owner}: expected {want}, got {type_text(result)}")
    return result


def is_floats(value: Any, dtype: np.dtype[Any] | None = None) -> bool:
    """Return whether a value is an array or a number of NumPy's floats, of ``dtype`` if given."""
    floats = isinstance(value, (np.ndarray, np.floating)) and value.dtype.kind == "f"
    return floats and (dtype is None or dtype.kind != "f" or value.dtype == dtype)


def returned_floats(
    expected: str,
    y: Any,
    dtype: np.dtype[Any] | None = None,
    shape: tuple[int, ...] | None = None,
) -> Array:
    """Return a copy of an output or a gradient, if it fits; ``expected`` begins the error."""
    floats = is_floats(y, dtype) or (dtype is None and isinstance(y, float))
    if not floats or shape not in (None, np.shape(y)):
        kind = "floats" if dtype is None or dtype.kind != "f" else dtype
        want = f"shape {shape}" if shape is not None and (floats or dtype is None) else kind
        hint = "; is a transpose missing?" if shape and np.shape(y) == shape[::-1] else ""
        raise ContractError(f"{expected} an array of {want}, got {type_text(y)}{hint}")
    return np.array(y)


def progress_bar(**options: Any) -> Any:
    """Return a bar of tqdm, also in notebooks; without a terminal it is written once a minute."""
    notebook = "ipykernel" in sys.modules and "ipywidgets" in sys.modules
    if sys.stderr is not None and not (sys.stderr.isatty() or notebook):
        options |= {"mininterval": 60, "maxinterval": 60, "miniters": 1}
    tqdm = require("tqdm.notebook" if notebook else "tqdm", "examples").tqdm
    return tqdm(disable=sys.stderr is None, **options)


@cache
def _blas() -> Any:
    """Return the control of the threads, found once: that takes as long as a short fit."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def one_blas_thread() -> contextlib.AbstractContextManager[Any]:
    """Limit matrix products to one thread in this context, if threadpoolctl is installed.

    Two threads take twice as long on narrow layers, 20 to 40 times on one example at a time.
    """
    try:
        return _blas().limit(limits=1)  # type: ignore[no-any-return]
    except ImportError:
        return contextlib.nullcontext()


_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let floating-point errors pass in this context, whatever ``np.seterr`` says."""
    token = _QUIET.set(True)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _QUIET.reset(token)


def quietly(function: F) -> F:
    """Decorate a function to run in ``quiet``, and so the backward pass if it returns one.

    Inside another one this costs 0.1 microseconds.
    """

    @wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        if _QUIET.get():
            return function(*args, **options)
        with quiet():
            result = function(*args, **options)
        if isinstance(result, tuple) and len(result) == 2 and callable(result[1]):
            return result[0], quietly(result[1])
        return result

    return run  # type: ignore[return-value]
