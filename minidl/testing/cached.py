"""Suggestions for objects that do not keep the layer contract: the adapter that would fit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minidl.checks import Array, Backward
from minidl.parameter import Parameter
from minidl.testing.calling import accepts, describe, find_flag, gradient_like, items, look_up, put
from minidl.testing.report import ContractError

FORWARD = ("forward", "forward_pass", "forward_prop", "fprop", "__call__")
BACKWARD = ("backward", "backward_pass", "backward_prop", "backprop", "bprop")


def suggestion(layer: Any) -> str:
    """Return ``"; or try: Cached(...)"`` if the object looks as if an adapter would fit."""
    found = adapter_for(layer)
    return f"; or try: {found}" if found else ""


def adapter_for(layer: Any) -> str:
    """Return the line of code with the adapter that would fit, empty if none does."""
    names = [
        next((n for n in known if callable(getattr(layer, n, None))), "")
        for known in (FORWARD, BACKWARD)
    ]
    name = type(layer).__name__
    if all(callable(getattr(layer, n, None)) for n in ("loss", "gradient")):
        return "check_loss(AdaptedLoss(loss.loss, loss.gradient), x, y)"
    if not all(names):
        return ""
    arguments = [f"{name}(...)", *_parameters(vars(layer) if hasattr(layer, "__dict__") else {})]
    arguments += [
        f'{option}="{found}"'
        for option, found in zip(("forward", "backward"), names, strict=True)
        if found != option
    ]
    return f"Cached({', '.join(arguments)})"


def _parameters(attributes: dict[str, Any]) -> list[str]:
    for params, grads in (("params", "grads"), ("parameters", "gradients")):
        if params in attributes and grads in attributes:
            return [f'params="{params}"', f'grads="{grads}"']
    arrays = [
        key
        for key, v in attributes.items()
        if isinstance(v, np.ndarray) and v.dtype.kind == "f" and not key.startswith(("d", "grad"))
    ]
    pairs = []
    for key in arrays:
        known = (f"d{key}", f"d_{key}", f"grad_{key}", f"{key}_grad")
        pairs.append(f'{key}="{next((k for k in known if k in attributes), f"d{key}")}"')
    return pairs


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
    before_forward, before_backward : str, optional
        Methods to call first, as ``"flush_gradients"``.
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
        before_backward: str | None = None,
        adds: bool = False,
        steps: bool = False,
        buffers: Sequence[str] = (),
        **gradients: Any,
    ) -> None:
        for method in (forward, backward, before_forward, before_backward):
            if method is not None and not callable(getattr(layer, method, None)):
                raise TypeError(
                    f"Cached: expected an object with y = forward(x) and dx = backward(dy), "
                    f"got {layer!r}, which has no {method}"
                )
        self.layer, self.method = layer, getattr(layer, forward)
        self._names = forward, backward, before_forward, before_backward
        self._params, self._grads = params, grads
        self._adds, self._steps, self.not_learned = adds, steps, tuple(buffers)
        self._flag = find_flag(layer, self.method, train)
        self._object: Any = None
        self._keeps = False
        self._gradients: dict[str, Any] = self._paths(layer) | gradients
        self._copies = steps or any(isinstance(g, Step) for g in self._gradients.values())
        for path in self._gradients:
            value = np.asarray(self._value(layer, path))
            if value.dtype.kind not in "fiu":
                raise ValueError(
                    f"Cached: {type(layer).__name__}.{path} is {describe(value[()])}, not an "
                    "array of numbers; if the first pass makes it, run one before"
                )
            setattr(self, path, Parameter(value))

    def _paths(self, layer: Any) -> dict[str, Any]:
        """Return the path of the gradient for the path of each parameter."""
        params, grads = self._params, self._grads
        if callable(params) and callable(grads):
            return dict.fromkeys(params(layer))
        if isinstance(params, Mapping):
            return dict(params)
        if params is None:
            return {}
        if not (isinstance(params, str) and isinstance(grads, str)):
            raise TypeError("Cached: expected grads= with params=, two names or two functions")
        try:
            found = items(layer, params)
        except (LookupError, TypeError):
            raise ValueError(
                f"Cached: {type(layer).__name__} has no dictionary or list {params!r}"
            ) from None
        paths = {path: grads + path[len(params) :] for path in found}
        try:
            known = items(layer, grads)
        except (LookupError, TypeError):
            known = {}
        # A value without a gradient, among others that have one, is a buffer.
        return {path: g for path, g in paths.items() if g in known or not known}

    def _value(self, layer: Any, path: str) -> Any:
        if callable(self._params):
            return self._params(layer)[path]
        try:
            return look_up(layer, path)
        except LookupError:
            raise ValueError(f"Cached: {type(layer).__name__} has no attribute {path!r}") from None

    def forward(self, *x: Any, train: bool = False, **fixed: Any) -> tuple[Any, Backward]:
        """Run one pass of a copy of the layer, with the present values of the parameters."""
        forward_name, backward_name, before_forward, before_backward = self._names
        values = {path: getattr(self, path).value for path in self._gradients}
        if self._copies:
            values = {path: value.copy() for path, value in values.items()}
        layer = self._copy(values)
        options = self._flag.set(layer, train)
        if before_forward:
            getattr(layer, before_forward)()
        y = getattr(layer, forward_name)(*x, **fixed, **options)
        pull = getattr(layer, backward_name) if backward_name else None
        if pull is None:
            y, pull = checked_pair(layer, forward_name, y)

        def backward(dy: Any) -> Any:
            if before_backward:
                getattr(layer, before_backward)()
            before = {p: self._present_gradient(layer, p) for p in values if self._adds}
            dx = pull(*dy) if isinstance(dy, tuple) and backward_name else pull(dy)
            for path, value in values.items():
                expected = f"{type(layer).__name__}: expected the gradient of {path}"
                parameter = getattr(self, path)
                got = self._gradient(layer, path, parameter.value)
                parameter.grad = gradient_like(value, got, expected) - before.get(path, 0)
            if self._copies:
                self._put(layer, {path: getattr(self, path).value.copy() for path in values})
            return dx

        return y, backward

    def keep_object(self) -> None:
        """Run the next passes on one copy, instead of a new one each."""
        self._keeps = True

    @property
    def notes(self) -> tuple[str, ...]:
        """A note for ``train=False`` if there is no flag."""
        if self._flag.name:
            return ()
        return (
            f"train=False had no effect: {type(self.layer).__name__} has no training flag "
            "among the usual names; name it with Cached(..., train=)",
        )

    def _gradient(self, layer: Any, path: str, value: Array) -> Any:
        gradient = self._gradients[path]
        try:
            if isinstance(gradient, Step):
                return gradient.gradient(layer, path, value)
            if callable(self._grads) and gradient is None:
                return self._grads(layer)[path]
            return look_up(layer, gradient)
        except LookupError:
            raise ContractError(
                f"{type(layer).__name__}: expected backward to write the gradient of {path} to "
                f"{gradient!r}, which does not exist"
            ) from None

    def _present_gradient(self, layer: Any, path: str) -> Any:
        """Return a copy of the gradient as it is now, 0 if there is none yet."""
        try:
            gradient = self._gradient(layer, path, getattr(self, path).value)
        except (ContractError, AttributeError):
            return 0
        return 0 if gradient is None else np.array(gradient)

    def _copy(self, values: Mapping[str, Array]) -> Any:
        """Return a copy of the layer that holds these arrays wherever it holds parameters."""
        if self._object is not None:
            self._put(self._object, values)
            return self._object
        memo = {}
        for path, value in values.items():
            array = self._value(self.layer, path)
            if isinstance(array, np.ndarray):
                memo[id(array)] = value
        try:
            layer = copy.deepcopy(self.layer, memo)
        except TypeError:  # it holds something that cannot be copied
            layer = copy.copy(self.layer)
        self._put(layer, values)
        for gradient in self._gradients.values():
            if isinstance(gradient, Step) and gradient.optimizer:
                put(layer, gradient.optimizer, Recorder())
        if self._keeps:
            self._object = layer
        return layer

    def _put(self, layer: Any, values: Mapping[str, Array]) -> None:
        """Put values where the copy does not hold them yet."""
        for path, value in values.items():
            found = self._value(layer, path)
            if found is value:
                continue
            if callable(self._params):
                if not isinstance(found, np.ndarray) or found.dtype != value.dtype:
                    raise TypeError("Cached: expected params= to return the layer's own arrays")
                found[...] = value
            else:
                put(layer, path, value if isinstance(found, np.ndarray) else value[()])

    def __repr__(self) -> str:
        return f"Cached({type(self.layer).__name__})"


def checked_pair(owner: Any, method: str, result: Any) -> tuple[Any, Any]:
    """Return ``y, backward`` from a forward pass; raise ContractError for anything else."""
    if not (isinstance(result, tuple) and len(result) == 2 and callable(result[1])):
        raise ContractError(
            f"{type(owner).__name__}: expected {method} to return the output and a function, "
            f"got {describe(result)}"
        )
    return result


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
        owner = getattr(value, "__self__", None)
        name = getattr(value, "__name__", type(value).__name__)
        self.__name__ = name if owner is None else f"{type(owner).__name__}.{name}"

    def __call__(self, logits: Array, y: Any) -> Any:
        arguments = (y, logits) if self.targets_first else (logits, y)
        result = self.value(*arguments)
        if self.gradient is not None:
            fits = accepts(self.gradient, *arguments)
            result = result, self.gradient(*arguments) if fits else self.gradient()
        if self.reduce is not None and isinstance(result, tuple) and len(result) == 2:
            result = self.reduce(result[0]), result[1]
        return result
