"""Adapters: the contracts of layers and losses for objects that are written in other styles."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from minidl.checks import (
    Array,
    Backward,
    ContractError,
    returned_gradient,
    returned_pass,
    takes,
    type_text,
)
from minidl.parameter import Parameter
from minidl.testing.subjects import argument_names, function_name, is_tensor, title

DEPTH = 4
"""Objects within objects are searched so deep."""


def items_of(holder: Any) -> dict[Any, Any] | None:
    """Return what a dictionary, list or tuple holds, None for anything else."""
    if isinstance(holder, Mapping):
        return dict(holder)
    return dict(enumerate(holder)) if isinstance(holder, (list, tuple)) else None


def look_up(found: Any, path: str) -> Any:
    """Return what a path leads to: attributes, items of dictionaries, lists and tuples.

    LookupError, with the part of the path that does not exist.
    """
    for part in path.split("."):
        try:
            if isinstance(found, (list, tuple)):
                found = found[int(part)]
            else:
                found = found[part] if isinstance(found, Mapping) else getattr(found, part)
        except (AttributeError, LookupError, ValueError):
            raise LookupError(part) from None
    return found


def put(owner: Any, path: str, value: Any) -> None:
    """Put a value where a path leads."""
    parent, _, last = path.rpartition(".")
    holder = look_up(owner, parent) if parent else owner
    if isinstance(holder, MutableMapping):
        holder[last] = value
    elif isinstance(holder, list):
        holder[int(last)] = value
    else:
        setattr(holder, last, value)


def float_arrays(
    owner: Any, prefix: str = "", depth: int = DEPTH, seen: set[int] | None = None
) -> Iterator[tuple[str, Array]]:
    """Yield the arrays of floats in an object and in what it holds, each once, with their paths.

    Functions, classes and modules are not entered.
    """
    seen = set() if seen is None else seen
    if id(owner) in seen or depth == 0 or isinstance(owner, (type, FunctionType, ModuleType)):
        return
    seen.add(id(owner))
    if isinstance(owner, np.ndarray):
        if owner.dtype.kind == "f" and owner.size:
            yield prefix, owner
        return
    held = items_of(owner)
    for name, value in (dict(getattr(owner, "__dict__", {})) if held is None else held).items():
        deeper = depth if isinstance(value, np.ndarray) else depth - 1
        yield from float_arrays(value, f"{prefix}.{name}".lstrip("."), deeper, seen)


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

    def __init__(self, optimizer: str | None = None, *, rate: str | float | None = None) -> None:
        if (optimizer is None) == (rate is None):
            raise TypeError("Step: expected the name of an optimizer, or rate=")
        self.optimizer, self.rate = optimizer, rate

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
USUAL_FLAGS = {**dict.fromkeys(TRAINING, False), **dict.fromkeys(EVALUATION, True)}
"""Names of training flags that are found without being told, and whether they say the opposite."""


def find_flag(layer: Any, forward: Callable[..., Any], told: str | None) -> tuple[str, str, bool]:
    """Return the kind of the training flag, its name, and whether it says the opposite."""
    names = {told.removeprefix("not "): told.startswith("not ")} if told else USUAL_FLAGS
    arguments = argument_names(forward)
    for name, opposite in names.items():
        if name in arguments:
            return "argument", name, opposite
    for name, opposite in names.items():
        with suppress(LookupError):
            if isinstance(look_up(layer, name), bool) or told:
                return "attribute", name, opposite
    if told:
        raise ValueError(f"Cached: {type(layer).__name__} has no flag {told!r}")
    methods = all(callable(getattr(layer, method, None)) for method in ("train", "eval"))
    return "methods" if methods else "", "", False


class Cached:
    """The layer contract for an object that keeps the state of its pass in itself.

    Such an object has ``y = layer.forward(x)`` and ``dx = layer.backward(dy)``, plain arrays
    for parameters, and other arrays into which ``backward`` writes their gradients. Each pass
    runs on a copy (``copy.deepcopy``), so the object itself is never changed.

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
        The training flag: an argument of ``forward``, or an attribute, or ``"not NAME"`` for a
        flag of the opposite sense. Without it the usual names are tried: ``train``,
        ``training``, ``eval``, ... as arguments, attributes or methods.
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
    >>> print(check_layer(Cached(Dense(12, 5), params="params", grads="grads"), x))
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
        for method in (forward, backward, before_forward):
            if method is not None and not callable(getattr(layer, method, None)):
                raise TypeError(
                    f"Cached: expected an object with y = forward(x) and dx = backward(dy), "
                    f"got {layer!r}, which has no {method}"
                )
        self.layer, self.method = layer, getattr(layer, forward)
        self._names = forward, backward, before_forward
        self._params, self._grads = params, grads
        self._adds, self.not_learned = adds, tuple(buffers)
        self._flag = find_flag(layer, self.method, train)
        self._object: Any = None  # the copy of all passes, if it is kept
        self._keeps_object = False
        self._gradients: dict[str, Any] = self._paths(layer) | gradients
        self._steps = steps or any(isinstance(g, Step) for g in self._gradients.values())
        for path in self._gradients:
            value = np.asarray(self._value(layer, path))
            if value.dtype.kind not in "fiu":
                raise ValueError(
                    f"Cached: {type(layer).__name__}.{path} is {type_text(value[()])}, not an "
                    "array of numbers; if the first pass makes it, run one before"
                )
            setattr(self, path, Parameter(value))

    def _paths(self, layer: Any) -> dict[str, Any]:
        """Return the path of the gradient for the path of each parameter."""
        params, grads = self._params, self._grads
        if params is None or isinstance(params, Mapping):
            return dict(params or {})
        if callable(params) and callable(grads):
            return {path: path for path in params(layer)}
        if not (isinstance(params, str) and isinstance(grads, str)):
            raise TypeError("Cached: expected grads= with params=, two names or two functions")
        found = {}
        for path in (params, grads):
            with suppress(LookupError):
                found[path] = items_of(look_up(layer, path))
        values, known = found.get(params), found.get(grads)
        if values is None:
            raise ValueError(f"Cached: {type(layer).__name__} has no dictionary or list {params!r}")
        # A value without a gradient, among others that have one, is a buffer; a setting too.
        return {
            f"{params}.{k}": f"{grads}.{k}"
            for k, v in values.items()
            if (k in known and (is_tensor(v) or type(v) is float) if known else is_tensor(v))
        }

    def _value(self, layer: Any, path: str) -> Any:
        try:
            return look_up(self._params(layer) if callable(self._params) else layer, path)
        except LookupError:
            raise ValueError(f"Cached: {type(layer).__name__} has no attribute {path!r}") from None

    def forward(self, *x: Any, train: bool = False, **fixed: Any) -> tuple[Any, Backward]:
        """Run one pass of a copy of the layer, with the present values of the parameters."""
        forward_name, backward_name, before_forward = self._names
        values = {path: getattr(self, path).value for path in self._gradients}
        if self._steps:
            values = {path: value.copy() for path, value in values.items()}
        layer = self._copy(values)
        kind, flag, opposite = self._flag
        options = {flag: train != opposite} if kind == "argument" else {}
        if kind == "attribute":
            put(layer, flag, train != opposite)
        elif kind == "methods":
            (layer.train if train else layer.eval)()
        if before_forward:
            getattr(layer, before_forward)()
        y = getattr(layer, forward_name)(*x, **fixed, **options)
        if backward_name:
            pull = getattr(layer, backward_name)
        else:
            y, pull = returned_pass(type(layer).__name__, forward_name, y)

        def backward(dy: Any) -> Any:
            before = {p: self._present_gradient(layer, p) for p in values if self._adds}
            dx = pull(*dy) if isinstance(dy, tuple) and backward_name else pull(dy)
            for path, value in values.items():
                got = self._gradient(layer, path)
                expected = f"{type(layer).__name__}: expected the gradient of {path}"
                gradient = returned_gradient(expected, value, got) - before.get(path, 0)
                getattr(self, path).grad = gradient
            if self._steps:
                self._put(layer, {path: getattr(self, path).value.copy() for path in values})
            return dx

        return y, backward

    def keep_object(self) -> None:
        """Run the next passes on one copy, instead of a new one each."""
        self._keeps_object = True

    def notes(self, train: bool) -> tuple[str, ...]:
        """Return what must be said of the training flag: none, or set otherwise by hand."""
        (kind, flag, opposite), name = self._flag, type(self.layer).__name__
        if not kind and not train:
            return (
                f"train=False had no effect: {name} has no training flag among the usual names; "
                "name it with Cached(..., train=)",
            )
        found = look_up(self.layer, flag) if kind == "attribute" else train != opposite
        if bool(found) != (train != opposite):
            return (
                f"{name}.{flag} was {found!r} and is {train != opposite} in this check; as it was: "
                f"train={not train}",
            )
        return ()

    def _gradient(self, layer: Any, path: str) -> Any:
        """Return the gradient that the pass of a copy has left for a parameter."""
        where = self._gradients[path]
        try:
            if isinstance(where, Step):
                return where.gradient(layer, path, getattr(self, path).value)
            return look_up(self._grads(layer) if callable(self._grads) else layer, where)
        except LookupError:
            raise ContractError(
                f"{type(layer).__name__}: expected backward to write the gradient of {path} to "
                f"{where!r}, which does not exist"
            ) from None

    def _present_gradient(self, layer: Any, path: str) -> Any:
        """Return a copy of the gradient as it is now, 0 if there is none yet."""
        try:
            gradient = self._gradient(layer, path)
        except (ContractError, AttributeError):
            return 0
        return 0 if gradient is None else np.array(gradient)

    def _copy(self, values: Mapping[str, Array]) -> Any:
        """Return a copy of the layer that holds these arrays wherever it holds parameters."""
        if self._object is not None:
            self._put(self._object, values)
            return self._object
        own = {path: self._value(self.layer, path) for path in values}
        memo = {id(own[p]): value for p, value in values.items() if isinstance(own[p], np.ndarray)}
        try:
            layer = copy.deepcopy(self.layer, memo)
        except TypeError:  # it holds something that cannot be copied
            layer = copy.copy(self.layer)
        self._put(layer, values)
        for gradient in self._gradients.values():
            if isinstance(gradient, Step) and gradient.optimizer:
                put(layer, gradient.optimizer, Recorder())
        self._object = layer if self._keeps_object else None
        return layer

    def _put(self, layer: Any, values: Mapping[str, Array]) -> None:
        """Put values where the copy does not hold them yet."""
        for path, value in values.items():
            found = self._value(layer, path)
            if found is value:
                continue
            if not callable(self._params):
                put(layer, path, value if isinstance(found, np.ndarray) else value[()])
            elif isinstance(found, np.ndarray) and found.dtype == value.dtype:
                found[...] = value
            else:
                raise TypeError("Cached: expected params= to return the layer's own arrays")

    def __repr__(self) -> str:
        return f"Cached({title(self.layer)})"


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
    >>> print(check_loss(AdaptedLoss(head.forward, head.backward), x, y))
    """

    def __init__(
        self,
        value: Callable[..., Any],
        gradient: Callable[..., Any] | None = None,
        *,
        targets_first: bool = False,
        reduce: Callable[[Any], Any] | None = None,
    ) -> None:
        self.value, self.gradient = value, gradient
        self.targets_first, self.reduce = targets_first, reduce
        self.__name__ = function_name(value)

    def __call__(self, logits: Array, y: Any) -> Any:
        arguments = (y, logits) if self.targets_first else (logits, y)
        result = self.value(*arguments)
        if self.gradient is not None:
            fits = takes(self.gradient, *arguments)
            result = result, self.gradient(*arguments) if fits else self.gradient()
        if self.reduce is not None and isinstance(result, tuple) and len(result) == 2:
            result = self.reduce(result[0]), result[1]
        return result
