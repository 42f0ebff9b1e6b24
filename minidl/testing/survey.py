"""A package as it is: what in it has a backward pass, what of that can be checked, what is wrong.

Found are classes and pairs of functions whose names say that one is the derivative of the other.
Objects are made with up to two sizes, and inputs of a few shapes are tried, until both passes run.
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
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from types import ModuleType
from typing import Any

import numpy as np

from minidl.checks import Array
from minidl.layer import Layer
from minidl.losses import ReducedLoss
from minidl.maps import SimplexMap
from minidl.testing import checks, subjects
from minidl.testing.cached import AdaptedLoss, Cached, float_arrays
from minidl.testing.report import GradientReport, raised
from minidl.testing.subjects import needed_arguments as needed

FORWARDS = {"forward", "pass", "propagate", "fprop", "feed", "activate", "call", "loss", "value"}
BACKWARDS = {
    *("backward", "backprop", "backpropagate", "backpropagation", "bprop", "vjp"),
    *("derivative", "deriv", "derivate", "gradient", "grad", "prime", "d", "dloss"),
}
"""The words of names: ``forward_pass``, ``sigmoid_derivative``."""

TARGETS = re.compile(r"true|target|label|gold|actual|^y$|^t$")
HOLDERS = re.compile(r"_?(param(eter)?|grad(ient)?)s?_?")
PREFIX = re.compile(r"^(d|delta|g|nabla)_|^d")
"""The gradient of ``W`` is ``dW`` or ``W_grad``, that of ``params.W`` is ``grads.W``."""

SHAPES: dict[int, list[list[tuple[int, ...]]]] = {
    1: [[(4, 5)], [(5, 4)], [(5,)], [(3, 6, 5)], [(3, 5, 6)], [(2, 6, 6, 5)], [(2, 5, 6, 6)]],
    2: [[(4, 5), (5, 3)], [(4, 5), (5,)]],
    3: [[(4, 5), (5, 3), (3,)], [(4, 5), (5,), (5,)]],
}
"""The shapes of so many inputs: weights and biases, or a scale for each feature."""

RIGHT, WRONG, UNSURE = "right", "wrong", "cannot tell"
SIDE, NOT = "side condition only", "not checked"

Trials = Iterator[tuple[Any, ...]]
"""Ways to check an object: a function and arguments; it raises where the object does not run so."""


@dataclass(frozen=True)
class Survey:
    """The findings of a package; printed, those that are wrong come first.

    Each has a ``name``, a ``verdict``, and in ``why`` a sentence for all that is wrong or missing.
    """

    package: str
    findings: list[dict[str, Any]]

    def __bool__(self) -> bool:
        return not any(found["verdict"] in (WRONG, SIDE) for found in self.findings)

    def __str__(self) -> str:
        counts = Counter(found["verdict"] for found in self.findings)
        numbers = ", ".join(f"{counts[v]} {v}" for v in (RIGHT, SIDE, WRONG, UNSURE, NOT))
        lines = [f"{self.package}: {len(self.findings)} found: {numbers}"]
        for verdict in (v for v in (WRONG, SIDE, UNSURE, NOT, RIGHT) if counts[v]):
            lines += ["", verdict]
            for found in (f for f in self.findings if f["verdict"] == verdict):
                lines += [f"  {found['name']}", *(f"      {why}" for why in found["why"])]
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
    findings, paths = [], getattr(imported(package), "__path__", [])
    inner = [m.name for m in pkgutil.walk_packages(paths, f"{package}.", lambda _: None)]
    for name in (n for n in (package, *inner) if not re.search(r"\.(__main__|test)[^.]*$", n)):
        try:
            trials = dict(_trials(imported(name)))
        except ImportError as error:
            findings.append({"name": name, "verdict": NOT, "why": [str(error)]})
            continue
        for label, ways in trials.items():
            with warnings.catch_warnings(), np.errstate(all="ignore"), redirect_stdout(StringIO()):
                warnings.simplefilter("ignore")
                found = _best(f"{name}:{label}", ways, options)
            if not re.match("NotImplementedError|.* abstract class", "".join(found["why"][:1])):
                findings.append(found)
    return Survey(package, findings)


def imported(name: str) -> ModuleType:
    """Return a module; ImportError for whatever it raises, and if it ends the program."""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ImportError(f"{name} cannot be imported: {error!r}") from error


def _trials(module: ModuleType) -> Iterator[tuple[str, Trials]]:
    """Yield what a module itself defines and could be checked, with the ways to try."""
    own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__}
    own = {n: v for n, v in own.items() if n[0] != "_" and getattr(v, "__name__", n) == n}
    functions = {name: value for name, value in own.items() if inspect.isfunction(value)}
    for name, value in own.items():
        kind = value if isinstance(value, type) else type(value)
        methods = [m for m in dir(kind) if m[0] != "_" or m == "__call__"]
        methods = [m for m in methods if _words(m) <= FORWARDS | BACKWARDS]
        passes = next(_pairs(sorted(methods, key=len)), ())
        if issubclass(kind, (Layer, ReducedLoss, SimplexMap)):
            yield name, _of_object(value, "__call__")
        elif kind is value and passes:
            yield name, _of_object(value, *passes)
        elif name in functions and "loss" in _words(name):
            yield name, _of_loss(value)
    for forward, backward in _pairs(list(functions)):
        yield f"{forward}, {backward}", _of_functions(functions[forward], functions[backward])


def _words(name: str) -> frozenset[str]:
    return frozenset(filter(None, re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower().split("_")))


def _pairs(names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the names of functions and of their derivatives: the same but for words of passes."""
    for backward in (name for name in names if _words(name) & BACKWARDS):
        words = _words(backward)
        stem = words - BACKWARDS - FORWARDS
        others = [n for n in names if not _words(n) & BACKWARDS and _words(n) - FORWARDS == stem]
        if others:
            yield max(others, key=lambda n: (len(_words(n) & words), -len(n))), backward


def _best(name: str, trials: Trials, options: dict[str, Any]) -> dict[str, Any]:
    """Return the finding of the first way in which an object runs and is right, or runs."""
    reasons, best = list[str](), dict[str, Any]()
    try:
        for check, *arguments in trials:
            # Code that computes in float32 inside and returns float64 cannot be seen to do so.
            for precision in (None, "float32"):
                try:
                    report = check(*arguments, **{"precision": precision, **options})
                except Exception as error:
                    reasons.append(raised(error)[:200])
                    break
                wrong = [t.failure for t in report.tensors if t.failure]
                found = {WRONG: wrong, SIDE: [*report.failures], UNSURE: [*report.unsure]}
                verdict = next((v for v, sentences in found.items() if sentences), RIGHT)
                left = [f"not checked: {', '.join(report.unchecked)}"] if report.unchecked else []
                why = [*found.get(verdict, report.notes), *left]
                if not best or verdict == RIGHT:
                    shown = verdict if report.tensors else NOT
                    best = {"name": f"{name} as {report.subject}", "verdict": shown, "why": why}
                if verdict != WRONG:
                    break
            if best.get("verdict") == RIGHT:
                return best
    except Exception as error:  # it cannot be made
        reasons.append(raised(error)[:200])
    # Of the first and of the last shape of an input.
    why = list(dict.fromkeys([*reasons[:1], *reasons[-1:]]))
    return best or {"name": name, "verdict": NOT, "why": why}


def _made(kind: type) -> Any:
    """Return an object, seeded, of sizes 5 and 4 where it needs arguments."""
    if len(needed(kind)) > 2:
        raise TypeError(f"needs the arguments {', '.join(needed(kind))}")
    with subjects.generators_restored():
        subjects.seed_generators(0)
        return kind(*(5, 4)[: len(needed(kind))])


def _inputs(count: int = 1) -> list[list[Array]]:
    rng = np.random.default_rng(0)
    return [[rng.standard_normal(shape) for shape in shapes] for shapes in SHAPES.get(count, [])]


def _of_object(value: Any, *passes: str) -> Trials:
    """Yield the ways to check an object of minidl, or one with passes of these names."""
    made = _made(value) if isinstance(value, type) else value
    if isinstance(made, Layer):
        made.initialize(0, "float64")
        yield from ((checks.check_layer, made, x) for (x,) in _inputs())
    elif isinstance(made, SimplexMap):
        yield from ((checks.check_simplex_map, made, x) for (x,) in _inputs())
    elif isinstance(made, ReducedLoss) or len(needed(getattr(made, passes[0]))) >= 2:
        yield from _of_loss(*(getattr(made, name) for name in passes))
    elif re.search("back|prop", passes[1]):
        for (x,) in _inputs():
            yield from ((_check_object, made, *passes, adds, x) for adds in (False, True))
    else:
        yield from _of_functions(*(getattr(made, name) for name in passes))


def _check_object(
    made: Any, forward: str, backward: str, adds: bool, x: Array, **options: Any
) -> GradientReport:
    """Check an object, with the parameters whose gradients it holds after a pass."""
    ready = copy.deepcopy(made)
    y = getattr(ready, forward)(x.copy())
    if not subjects.is_tensor(y):
        raise TypeError(f"{forward} returns {type(y).__name__}, no array of floats")
    after, again = copy.deepcopy(ready), copy.deepcopy(ready)
    getattr(after, backward)(np.ones_like(y))
    getattr(again, forward)(2 * x)
    before, other, params = dict(float_arrays(ready)), dict(float_arrays(again)), dict[str, str]()
    # What another pass forward changes is no parameter.
    kept = [path for path, v in before.items() if np.array_equal(v, other.get(path, [()]))]
    owners = {_stem(path): path for path in kept if "grad" not in path.lower()}
    for path, array in float_arrays(after):
        above, _, last = path.rpartition(".")
        for name in (path, f"{above}.{PREFIX.sub('', last)}"):
            owner = owners.get(_stem(name), path)
            if owner != path and before[owner].shape == array.shape:
                params[owner] = path
    layer = Cached(ready, params=params, forward=forward, backward=backward, adds=adds)
    return checks.check_layer(layer, x, **options)


def _stem(path: str) -> str:
    return HOLDERS.sub("", path.lower()).strip("._")


def _of_functions(f: Callable[..., Any], derivative: Callable[..., Any]) -> Trials:
    """Yield the ways to check a function and its derivative: with a cotangent, or elementwise."""

    def elementwise(x: Array, dy: Array) -> Any:
        f(x)
        slope = derivative(x) if needed(derivative) else derivative()  # of the last input
        if np.ndim(slope) > x.ndim:  # a Jacobian for each row
            return np.einsum("...i,...ij->...j", dy, slope)
        return dy * slope

    for inputs in map(tuple, _inputs(max(len(needed(f)), 1))):
        if len(needed(f)) >= 2 or len(needed(derivative)) >= 2:
            yield checks.check_pair, f, derivative, inputs
            yield checks.check_function, f, derivative, inputs
            yield checks.check_function, f, lambda *a: derivative(a[-1], *a[:-1]), inputs
        else:  # the derivative may be a function of the output
            yield checks.check_function, f, elementwise, inputs
            yield checks.check_function, f, lambda x, dy: elementwise(f(x), dy), inputs
    if len(needed(f)) >= 2:
        yield from _of_loss(f, derivative)


def _of_loss(value: Callable[..., Any], gradient: Callable[..., Any] | None = None) -> Trials:
    """Yield the ways to check a loss: at probabilities, with one-hot targets and with classes."""
    z = np.random.default_rng(0).random((4, 5)) + 0.1
    z /= z.sum(axis=1, keepdims=True)
    names = [bool(TARGETS.search(name)) for name in needed(value)[:2]]
    for y in (np.eye(5)[:4], np.arange(4), np.array([-1, -1, 1, 1])):
        for logits in (z, z[:, :1]):
            targets = y[:, : logits.shape[1]] if y.ndim == 2 else y
            for reduce in (None, np.sum):
                loss = AdaptedLoss(
                    value, gradient, targets_first=names == [True, False], reduce=reduce
                )
                yield checks.check_loss, loss, logits, targets
