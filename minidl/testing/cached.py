"""Adapters: the contracts of layers and losses for objects that are written in other styles."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from minidl.checks import Array, Backward, returned_floats, returned_pass, takes, type_text
from minidl.parameter import Parameter
from minidl.testing.subjects import function_name, is_tensor, items_of, signature_of, title


def look_up(found: Any, path: str) -> Any:
    """Return what a path of attributes, keys and positions leads to; None if it leads nowhere."""
    for part in path.split(".") if path else ():
        items = items_of(found)
        if items is None:
            found = getattr(found, part, None)
        else:
            found = {str(key): value for key, value in items.items()}.get(part)
    return found


def put(owner: Any, path: str, value: Any) -> None:
    """Put a value where a path leads."""
    parent, _, last = path.rpartition(".")
    holder = look_up(owner, parent)
    items = items_of(holder)
    if items is None:
        setattr(holder, last, value)
    else:
        holder[{str(key): key for key in items}.get(last, last)] = value


def float_arrays(
    owner: Any, prefix: str = "", depth: int = 4, seen: set[int] | None = None
) -> Iterator[tuple[str, Array]]:
    """Yield the arrays of floats in an object and in other objects that it holds, by path."""
    seen = set() if seen is None else seen
    if id(owner) in seen or isinstance(owner, (type, FunctionType, ModuleType)):
        return
    seen.add(id(owner))
    if isinstance(owner, np.ndarray):
        if owner.dtype.kind == "f" and owner.size:
            yield prefix, owner
    elif depth:
        held = items_of(owner)
        held = dict(getattr(owner, "__dict__", {})) if held is None else held
        for name, value in held.items():
            yield from float_arrays(value, f"{prefix}.{name}".lstrip("."), depth - 1, seen)


@dataclass(frozen=True)
class Step:
    """A gradient that reaches only the optimizer: ``backward`` makes a step and keeps no gradient.

    Parameters
    ----------
    optimizer : str, optional
        The attribute with the optimizer, as ``"W_opt"``: the gradient is the last argument of
        its method ``update`` or ``step``, or of itself; it returns the parameter as it is.
    rate : str or float, optional
        The learning rate, or its attribute, of a step ``W -= rate * gradient``.
    """

    optimizer: str | None = None
    rate: str | float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if (self.optimizer is None) == (self.rate is None):
            raise TypeError("Step: expected the name of an optimizer, or rate=")

    def gradient(self, layer: Any, path: str, value: Array) -> Any:
        """Return the gradient of the parameter at ``path``, whose value was ``value``."""
        if self.optimizer is not None:
            return look_up(layer, self.optimizer).gradient
        rate = look_up(layer, self.rate) if isinstance(self.rate, str) else self.rate
        return (value - look_up(layer, path)) / rate


class Recorder:
    """An optimizer that makes no step and keeps the gradient that it was given."""

    gradient: Any = None

    def update(self, parameter: Any, *args: Any, **options: Any) -> Any:
        self.gradient = [*args, *options.values()][-1]
        return parameter

    step = __call__ = update


TRAINING = ("train", "training", "is_train", "is_training", "train_flg", "train_mode")
EVALUATION = ("eval", "evaluate", "inference", "is_eval", "is_test", "test_mode")
"""Names of training flags that are found without being told, and of those of the opposite sense."""


def find_flag(layer: Any, forward: Callable[..., Any], told: str | None) -> tuple[str, str, bool]:
    """Return the kind of the training flag, its name, and whether it says the opposite."""
    names = (told.removeprefix("not "),) if told else TRAINING + EVALUATION
    methods = all(callable(getattr(layer, method, None)) for method in ("train", "eval"))
    known = {
        "argument": [name for name in names if name in signature_of(forward)],
        "attribute": [name for name in names if isinstance(look_up(layer, name), (int, np.bool_))],
        "methods": ["train"] if methods and not told else [],
    }
    for kind, found in known.items():
        if found:
            return kind, found[0], told.startswith("not ") if told else found[0] in EVALUATION
    if told:
        raise ValueError(f"Cached: {type(layer).__name__} has no flag {told!r}")
    return "", "", False


class Cached:
    """The layer contract for an object that keeps the state of its pass in itself.

    Such an object has ``y = layer.forward(x)`` and ``dx = layer.backward(dy)``, plain arrays
    for parameters, and other arrays into which ``backward`` writes their gradients. Each pass
    runs on a deep copy.

    Parameters
    ----------
    layer : object
    params : str, mapping or callable, optional
        The attribute with a dictionary or list of parameters; or a dictionary from the path of
        each parameter to the path of its gradient, as ``{"cell.W": "cell.dW"}``; or a function
        of the layer that returns a dictionary of arrays.
    grads : str or callable, optional
        The attribute with the dictionary or list of their gradients, or a function.
    forward, backward : str
        The names of the two methods; ``backward=None`` if ``forward`` returns ``y, backward``.
    train : str, optional
        The training flag, an argument of ``forward`` or an attribute; ``"not NAME"`` for one of
        the opposite sense. Without it the usual names are tried, methods too.
    before_forward : str, optional
        A method to call first, as ``"flush_gradients"``.
    adds : bool
        ``backward`` adds to the gradients; what it has added is checked.
    steps : bool
        ``backward`` changes the parameters after it has stored their gradients; that is undone.
    buffers : sequence of str
        Arrays that the output depends on and that are not learned: running averages, masks.
    **gradients : str or Step
        For the attribute of each parameter, the attribute of its gradient.

    Examples
    --------
    >>> print(check_layer(Cached(Affine(12, 5), W="dW", b="db"), x))
    """

    def __init__(
        self,
        layer: Any,
        *,
        params: str | Mapping[str, Any] | Callable[[Any], Mapping[str, Array]] | None = None,
        grads: str | Callable[[Any], Mapping[str, Array]] | None = None,
        forward: str = "forward",
        backward: str | None = "backward",
        train: str | None = None,
        before_forward: str | None = None,
        adds: bool = False,
        steps: bool = False,
        buffers: Sequence[str] = (),
        **gradients: Any,
    ) -> None:
        self._names = forward, backward, before_forward
        for method in filter(None, self._names):
            if not callable(getattr(layer, method, None)):
                raise TypeError(f"Cached: expected passes of {layer!r}, which has no {method}")
        self.layer, self.method = layer, getattr(layer, forward)
        # Paths lead from what these two return.
        self._values_of: Callable[[Any], Any] = params if callable(params) else lambda m: m
        self._grads_of: Callable[[Any], Any] = grads if callable(grads) else lambda m: m
        self._places: dict[str, Any] = self._paths(params, grads) | gradients
        self._adds, self.not_learned = adds, tuple(buffers)
        self._steps = steps or any(isinstance(g, Step) for g in self._places.values())
        self._flag = find_flag(layer, self.method, train)
        self._object: Any = None  # the copy of all passes, if it is kept
        for path in self._places:
            value = np.asarray(look_up(self._values_of(layer), path))
            if value.dtype.kind not in "fiu":
                want = f"{type(layer).__name__}.{path} to be an array of numbers"
                raise ValueError(f"Cached: expected {want}, got {type_text(value[()])}")
            setattr(self, path, Parameter(value))

    def _paths(self, params: Any, grads: Any) -> dict[str, Any]:
        """Return the path of the gradient for the path of each parameter."""
        if params is None or isinstance(params, Mapping):
            return dict(params or {})
        if callable(params) and callable(grads):
            return {path: path for path in params(self.layer)}
        if not (isinstance(params, str) and isinstance(grads, str)):
            raise TypeError("Cached: expected grads= with params=, two names or two functions")
        values, known = (items_of(look_up(self.layer, path)) for path in (params, grads))
        if values is None:
            owner = type(self.layer).__name__
            raise ValueError(f"Cached: {owner} has no dictionary or list {params!r}")
        # A value without a gradient, among others that have one, is a buffer; a setting too.
        learned = [k for k, v in values.items() if is_tensor(v) or (known and type(v) is float)]
        return {f"{params}.{k}": f"{grads}.{k}" for k in learned if not known or k in known}

    def forward(self, *x: Any, train: bool = False, **fixed: Any) -> tuple[Any, Backward]:
        """Run one pass of a copy of the layer, with the present values of the parameters."""
        name, (forward, pull_name, before_forward) = type(self.layer).__name__, self._names
        values = {path: getattr(self, path).value for path in self._places}
        held = {path: v.copy() for path, v in values.items()} if self._steps else values
        layer = self._copy(held) if self._object is None else self._object
        self._put(layer, held)
        kind, flag, opposite = self._flag
        if kind == "argument":
            fixed[flag] = train != opposite
        elif kind == "attribute":
            put(layer, flag, train != opposite)
        elif kind == "methods":
            (layer.train if train else layer.eval)()
        if before_forward:
            getattr(layer, before_forward)()
        y = getattr(layer, forward)(*x, **fixed)
        y, pull = (y, getattr(layer, pull_name)) if pull_name else returned_pass(name, forward, y)

        def gradient(path: str) -> Any:
            where = self._places[path]
            if isinstance(where, Step):
                return where.gradient(layer, path, values[path])
            return look_up(self._grads_of(layer), where)

        def backward(dy: Any) -> Any:
            earlier = {path: copy.copy(gradient(path)) for path in values if self._adds}
            dx = pull(*dy) if isinstance(dy, tuple) and pull_name else pull(dy)
            for path, value in values.items():
                place = getattr(self._places[path], "optimizer", self._places[path])
                want = f"expected backward to write the gradient of {path} to {place!r},"
                found = returned_floats(f"{name}: {want}", gradient(path), shape=value.shape)
                getattr(self, path).grad = found - earlier[path] if self._adds else found
            if self._steps:
                self._put(layer, {path: value.copy() for path, value in values.items()})
            return dx

        return y, backward

    def keep_object(self) -> None:
        """Run the next passes on one copy, instead of a new one each."""
        self._object = self._copy({path: getattr(self, path).value.copy() for path in self._places})

    def _copy(self, values: Mapping[str, Array]) -> Any:
        """Return a copy of the layer that holds these arrays wherever it holds parameters."""
        own = {path: look_up(self._values_of(self.layer), path) for path in values}
        arrays = {id(own[p]): v for p, v in values.items() if isinstance(own[p], np.ndarray)}
        modules: dict[int, Any] = {id(m): m for m in sys.modules.values()}  # have no copies
        try:
            layer = copy.deepcopy(self.layer, modules | arrays)
        except TypeError as error:
            name = type(self.layer).__name__
            raise TypeError(f"Cached: expected a layer that copies, got {name}: {error}") from None
        for place in self._places.values():
            if isinstance(place, Step) and place.optimizer:
                put(layer, place.optimizer, Recorder())
        return layer

    def _put(self, layer: Any, values: Mapping[str, Array]) -> None:
        """Put values where the copy does not hold them yet."""
        for path, value in values.items():
            owner = self._values_of(layer)
            found = look_up(owner, path)
            if isinstance(found, np.ndarray) and found.dtype == value.dtype:
                found[...] = value
            else:
                put(owner, path, value if isinstance(found, np.ndarray) else value[()])

    def notes(self, train: bool) -> tuple[str, ...]:
        """Return what must be said of the training flag: none, or set otherwise by hand."""
        (kind, flag, opposite), name = self._flag, type(self.layer).__name__
        if not kind and not train:
            none = f"{name} has no training flag among the usual names"
            return (f"train=False had no effect: {none}; name it with Cached(..., train=)",)
        was, now = look_up(self.layer, flag), train != opposite
        if kind != "attribute" or bool(was) == now:
            return ()
        how = f"is {now} in this check; as it was: train={not train}"
        return (f"{name}.{flag} was {was!r} and {how}",)

    def __repr__(self) -> str:
        return f"Cached({title(self.layer)})"


@dataclass(eq=False)
class AdaptedLoss:
    """The loss contract ``value, gradient = loss(logits, y)`` for losses of another style.

    Parameters
    ----------
    value : callable
        ``value(logits, y)``: a number, or without ``gradient`` a pair of it and its gradient.
    gradient : callable, optional
        ``gradient(logits, y)``, or ``gradient()`` after ``value`` if it takes no two arguments.
    targets_first : bool
        Both take ``(y, logits)``.
    reduce : callable, optional
        Makes a number of an array of values, as ``np.sum``.

    Examples
    --------
    >>> print(check_loss(AdaptedLoss(mse.loss, mse.gradient, targets_first=True), x, y))
    """

    value: Callable[..., Any]
    gradient: Callable[..., Any] | None = None
    targets_first: bool = field(default=False, kw_only=True)
    reduce: Callable[[Any], Any] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self.__name__ = function_name(self.value)

    def __call__(self, logits: Array, y: Any) -> Any:
        arguments = (y, logits) if self.targets_first else (logits, y)
        result = self.value(*arguments)
        if self.gradient is not None:
            fits = takes(self.gradient, *arguments)
            result = result, self.gradient(*arguments) if fits else self.gradient()
        if self.reduce is not None and isinstance(result, tuple) and len(result) == 2:
            result = self.reduce(result[0]), result[1]
        return result
