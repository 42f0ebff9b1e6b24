"""A package as it is: what in it has a backward pass, what of that can be checked, what is wrong.

Found are classes and pairs of functions whose names say that one is the derivative of the other.
Objects are made with small sizes, and inputs of a few shapes are tried, until both passes run.
What needs more is listed with the reason: check it by a line of its own.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from functools import partial
from io import StringIO
from types import ModuleType
from typing import Any

import numpy as np

from minidl.checks import Array
from minidl.layer import Layer
from minidl.losses import ReducedLoss
from minidl.maps import SimplexMap
from minidl.testing import checks
from minidl.testing.cached import AdaptedLoss, Cached, float_arrays
from minidl.testing.report import GradientReport, raised
from minidl.testing.subjects import (
    generators_restored,
    is_tensor,
    needed_arguments,
    seed_generators,
    signature_of,
)

FORWARDS = {"forward", "pass", "propagate", "fprop", "feed", "activate", "call", "loss", "value"}
BACKWARDS = {
    *("backward", "backprop", "backpropagate", "backpropagation", "bprop", "vjp"),
    *("derivative", "deriv", "derivate", "gradient", "grad", "prime", "d", "dloss"),
}
"""The words of names: ``forward_pass``, ``sigmoid_derivative``."""

TARGETS = re.compile(r"true|target|label|gold|actual|^y$|^t$", re.IGNORECASE)
GRADIENT = re.compile(r"^(d_?|delta_?|g_|nabla_?)|_?grad(ient)?s?_?", re.IGNORECASE)
PARAMETERS = re.compile(r"_?param(eter)?s?", re.IGNORECASE)

FEATURES, SHAPES = 5, ((4, 5), (5, 4), (5,), (3, 6, 5), (3, 5, 6), (2, 6, 6, 5), (2, 5, 6, 6))
SEVERAL = ((4, 5), (5, 3)), ((4, 5), (5,)), ((4, 5), (5, 3), (3,)), ((4, 5), (5,), (5,))
"""Shapes of several inputs: weights and biases, or a scale for each feature."""

SIZES = {
    r"kernel|pool|filter_size|kern|^size$|heads|stride": 2,
    r"prob|rate|ratio|^p$|keep|drop|slope|alpha|momentum": 0.5,
    r"shape": (FEATURES,),
    r"^out|_out|unit|hidden|filters": 4,
    r"^in|_in|input|feature|channel|embed|model": FEATURES,
    r"out|filter|num_|size|dim|d_ff|^n_|^n$": 4,
}
"""The values of arguments, by their names: the first that fits."""

RIGHT, WRONG, UNSURE = "right", "wrong", "cannot tell"
SIDE, NOT = "side condition only", "not checked"

Trial = Callable[..., GradientReport]
"""A way to check an object, with options; it raises where the object does not run so."""


@dataclass(frozen=True)
class Finding:
    """The findings on one object, and a sentence for each thing that is wrong or missing."""

    name: str
    verdict: str
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """The findings of a package; printed, those that are wrong come first."""

    package: str
    findings: list[Finding]

    def __bool__(self) -> bool:
        return not any(f.verdict in (WRONG, SIDE) for f in self.findings)

    def __str__(self) -> str:
        counts = Counter(finding.verdict for finding in self.findings)
        numbers = ", ".join(f"{counts[v]} {v}" for v in (RIGHT, SIDE, WRONG, UNSURE, NOT))
        lines = [f"{self.package}: {len(self.findings)} found: {numbers}"]
        for verdict in (WRONG, SIDE, UNSURE, NOT, RIGHT):
            lines += ["", verdict] if counts[verdict] else []
            for f in self.findings:
                if f.verdict == verdict:
                    lines += [f"  {f.name}", *(f"      {why}" for why in f.why)]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the findings as a dictionary for ``json.dump``."""
        return {"passed": bool(self), **asdict(self)}


def survey(package: str, **options: Any) -> Survey:
    """Check all in a package, and its modules, that has a backward pass.

    ``options`` are those of ``check_layer``. Everything runs with a few small sizes; code that
    draws from global generators is seeded.
    """
    options = {"numpy_seed": 0, "locate_seconds": 1, "traceback": True, **options}
    found, paths = Survey(package, []), getattr(imported(package), "__path__", [])
    inner = [m.name for m in pkgutil.walk_packages(paths, f"{package}.", lambda _: None)]
    for name in (n for n in (package, *inner) if not re.search(r"\.(__main__|test)[^.]*$", n)):
        try:
            subjects = list(_subjects(imported(name)))
        except ImportError as error:
            found.findings.append(Finding(name, NOT, (str(error),)))
            continue
        for label, trials in subjects:
            with warnings.catch_warnings(), np.errstate(all="ignore"), redirect_stdout(StringIO()):
                warnings.simplefilter("ignore")
                finding = _first(f"{name}:{label}", trials, options)
            if "NotImplementedError" not in "".join(finding.why[:1]):  # no base class
                found.findings.append(finding)
    return found


def imported(name: str) -> ModuleType:
    """Return a module; ImportError for whatever it raises, and if it ends the program."""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ImportError(f"{name} cannot be imported: {error!r}") from error


def _subjects(module: ModuleType) -> Iterator[tuple[str, Callable[[], Iterator[Trial]]]]:
    """Yield what a module itself defines and could be checked, with the ways to try."""
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    here = module.__name__
    own = {n: v for n, v in public.items() if getattr(v, "__module__", None) == here}
    for name, value in own.items():
        another_name = getattr(value, "__name__", name) != name and value.__name__ in own
        if another_name or inspect.isabstract(value):
            continue
        bases = getattr(value, "__mro__", ())
        if isinstance(value, SimplexMap) or {Layer, ReducedLoss, SimplexMap} & set(bases):
            yield name, partial(_of_ours, value)
        elif inspect.isclass(value) and (passes := _passes(dir(value))):
            yield name, partial(_of_object, value, *passes)
        elif inspect.isfunction(value) and "loss" in _words(name):
            yield name, partial(_of_loss, value, None)
    functions = [name for name, value in own.items() if inspect.isfunction(value)]
    for forward, backward in _pairs(functions):
        yield f"{forward}, {backward}", partial(_of_functions, own[forward], own[backward])


def _words(name: str) -> frozenset[str]:
    return frozenset(filter(None, re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower().split("_")))


def _pairs(names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the names of functions and of their derivatives."""
    for backward in names:
        words = _words(backward)
        stems = words - BACKWARDS, words - BACKWARDS - FORWARDS
        for forward in names if words & BACKWARDS and stems[1] else ():
            if not _words(forward) & BACKWARDS and _words(forward) - {"forward"} in stems:
                yield forward, backward
                break


def _passes(methods: list[str]) -> tuple[str, str] | None:
    """Return the names of the two passes among those of methods."""
    public = [m for m in methods if m == "__call__" or not m.startswith("_")]
    forwards = [m for m in public if _words(m) <= FORWARDS]
    backwards = [m for m in public if _words(m) & BACKWARDS and _words(m) <= BACKWARDS | FORWARDS]
    if not forwards or not backwards:
        return None
    return min(forwards, key=lambda m: (m == "__call__", len(m))), min(backwards, key=len)


def _first(name: str, trials: Callable[[], Iterator[Trial]], options: dict[str, Any]) -> Finding:
    """Return the outcome of the first way in which an object runs and is right, or runs."""
    reasons: list[str] = []
    outcome: Finding | None = None
    try:
        ways = list(trials())
    except Exception as error:  # it cannot be made
        return Finding(name, NOT, (raised(error)[:200],))
    for trial in ways:
        try:
            now = _finding(name, trial(**options))
        except Exception as error:
            reasons.append(raised(error)[:200])
            continue
        if now.verdict == WRONG and "precision" not in options:
            # Code that computes in float32 inside and returns float64 cannot be seen to do so.
            with suppress(Exception):
                narrow = _finding(name, trial(**options, precision="float32"))
                now = narrow if narrow.verdict == RIGHT else now
        if now.verdict == RIGHT:
            return now
        outcome = outcome or now
    # Of the first and of the last shape of an input.
    why = tuple(dict.fromkeys([*reasons[:1], *reasons[-1:]])) or ("no way to run it",)
    return outcome or Finding(name, NOT, why)


def _finding(name: str, report: GradientReport) -> Finding:
    wrong = tuple(t.failure for t in report.tensors if t.failure)
    found = {WRONG: wrong, SIDE: report.failures, UNSURE: report.unsure, RIGHT: report.notes}
    verdict = next((v for v, sentences in found.items() if sentences), RIGHT)
    left = (f"not checked: {', '.join(report.unchecked)}",) if report.unchecked else ()
    shown = verdict if report.tensors else NOT
    return Finding(f"{name} as {report.subject}", shown, (*found[verdict], *left))


# Objects


def _made(kind: type) -> Any:
    """Return an object with small sizes and seeded; TypeError for an argument that is no size."""
    given: dict[str, Any] = {}
    for name, argument in signature_of(kind).items():
        sizes = [v for words, v in SIZES.items() if re.search(words, name, re.IGNORECASE)]
        unset = argument.default is None and re.search(r"^(n_|num_)?in(put)?(_|s$|$)", name)
        if argument.default is argument.empty and not sizes:
            raise TypeError(f"needs an argument {name}")
        if argument.default is argument.empty or unset:
            given[name] = sizes[0]
    with generators_restored():
        seed_generators(0)
        made = kind(**given)
        for setup in ("connect_to", "build", "initialize", "init_weights"):
            for arguments in ((), ((FEATURES,),), (FEATURES,), ((FEATURES, 6, 6),)):
                with suppress(Exception):  # there is none, or it takes others
                    getattr(made, setup)(*arguments)
                    break
    return made


def _of_ours(value: Any) -> Iterator[Trial]:
    """Yield the ways to check a layer, a map or a loss with the contracts of minidl."""
    made = _made(value) if isinstance(value, type) else value
    if isinstance(made, ReducedLoss):
        yield from _of_loss(made, None)
        return
    if isinstance(made, Layer):
        made.initialize(0, "float64")
    check = checks.check_layer if isinstance(made, Layer) else checks.check_simplex_map
    for shape in SHAPES:
        yield partial(check, made, np.random.default_rng(0).standard_normal(shape))


def _of_object(kind: type, forward: str, backward: str) -> Iterator[Trial]:
    made, rng = _made(kind), np.random.default_rng(0)
    f, derivative = getattr(made, forward), getattr(made, backward)
    if len(needed_arguments(f)) >= 2 or not re.search("back|prop", backward):
        ways = _of_loss if len(needed_arguments(f)) >= 2 else _of_functions
        yield from ways(f, derivative)
        return
    for x in (rng.standard_normal(shape) for shape in SHAPES):
        for adds in (False, True):
            yield partial(_check_object, made, forward, backward, adds, x)


def _check_object(
    made: Any, forward: str, backward: str, adds: bool, x: Array, **options: Any
) -> GradientReport:
    """Check an object, with the parameters whose gradients it holds after a pass."""
    tried = copy.deepcopy(made)
    y = getattr(tried, forward)(x.copy())
    if not is_tensor(y):
        raise TypeError(f"{forward} returns {type(y).__name__}, no array of floats")
    ready = copy.deepcopy(tried)
    getattr(tried, backward)(np.ones_like(y))
    arrays, params = dict(float_arrays(tried)), dict[str, str]()
    owners = {_stem(path): path for path, _ in float_arrays(ready)}
    for path, array in arrays.items():
        above, _, last = path.rpartition(".")
        for name in (f"{above}.{GRADIENT.sub('', last)}", GRADIENT.sub("", path, 1)):
            owner = owners.get(_stem(name))
            if owner and owner != path and arrays[owner].shape == array.shape:
                params[owner] = path
    layer = Cached(ready, params=params, forward=forward, backward=backward, adds=adds)
    return checks.check_layer(layer, x, **options)


def _stem(path: str) -> str:
    return PARAMETERS.sub("", path).strip("._").lower()


# Functions


def _of_functions(f: Callable[..., Any], derivative: Callable[..., Any]) -> Iterator[Trial]:
    """Yield the ways to check a function and its derivative: elementwise, or with a cotangent."""

    def elementwise(x: Array, dy: Array) -> Any:
        needs_none = not needed_arguments(derivative) and f(x) is not None
        slope = derivative() if needs_none else derivative(x)  # of the last input
        if np.ndim(slope) == x.ndim + 1:  # a Jacobian for each row
            return np.einsum("...i,...ij->...j", dy, slope)
        return dy * slope

    rng, needed = np.random.default_rng(0), len(needed_arguments(f))
    vjps: tuple[Callable[..., Any], ...]
    with_cotangent = needed >= 2 or len(needed_arguments(derivative)) >= 2
    if with_cotangent:
        vjps = derivative, lambda *args: derivative(args[-1], *args[:-1])
    else:  # the derivative may be a function of the output
        vjps = elementwise, lambda x, dy: elementwise(f(x), dy)
    for shapes in (*((shape,) for shape in SHAPES[:4]), *SEVERAL):
        if len(shapes) == max(needed, 1):
            inputs = tuple(rng.standard_normal(shape) for shape in shapes)
            if with_cotangent:
                yield partial(checks.check_pair, f, derivative, inputs)
            yield from (partial(checks.check_function, f, vjp, inputs) for vjp in vjps)
    if needed >= 2:
        yield from _of_loss(f, derivative)


def _of_loss(value: Callable[..., Any], gradient: Callable[..., Any] | None) -> Iterator[Trial]:
    """Yield the ways to check a loss: at probabilities, with one-hot targets and with classes."""
    z = np.random.default_rng(0).random((4, FEATURES)) + 0.1
    z /= z.sum(axis=1, keepdims=True)
    classes = np.arange(4) % FEATURES
    first, second = [*needed_arguments(value), "", ""][:2]
    order = bool(TARGETS.search(first)) and not TARGETS.search(second)
    for y in (np.eye(FEATURES)[classes], classes, np.where(classes > 1, 1, -1)):
        for logits in (z, z[:, :1]):
            targets = y[:, : logits.shape[1]] if y.ndim == 2 else y
            for reduce in (None, np.sum):
                loss = AdaptedLoss(value, gradient, targets_first=order, reduce=reduce)
                yield partial(checks.check_loss, loss, logits, targets)
