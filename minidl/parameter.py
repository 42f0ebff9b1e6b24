"""Parameters, and functions that find them among the attributes of any object."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.checks import Array, as_array, check_array, did_you_mean, is_layer

if TYPE_CHECKING:
    from typing_extensions import Self


class Parameter:
    """A tensor that is learned, and the gradient of the loss with respect to it.

    In a model, ``value`` and ``grad`` are views into its flat vectors ``theta`` and ``grad``.
    Assigning to either copies the numbers into the view, which stays a part of the vector. The
    initial value is copied; ``Parameter.drawn`` takes one that is drawn later.
    """

    __slots__ = ("_draw", "_grad", "_value", "asked", "root", "shape")

    _value: Array
    _grad: Array
    _draw: Callable[[np.random.Generator], Array] | None
    root: weakref.ref[Any] | None
    """The model whose vectors hold the parameter, if there is one."""
    asked: np.dtype[Any] | None
    """The dtype of a value that is not drawn yet, if its layer was given one."""

    def __init__(self, value: Array) -> None:
        array = np.array(as_array("Parameter", "value", value, numbers=True))
        self.shape: tuple[int, ...] = array.shape
        self._draw = self.root = self.asked = None
        self._value = array if array.dtype.kind == "f" else array.astype(np.float32)
        self._grad = np.zeros_like(self._value)

    @classmethod
    def drawn(
        cls,
        shape: tuple[int, ...],
        draw: Callable[[np.random.Generator], Array],
        dtype: np.dtype[Any] | None = None,
    ) -> Self:
        """Return a parameter whose value ``initialize`` will draw, as ``draw(rng)``."""
        parameter = cls.__new__(cls)
        parameter.shape, parameter.asked = shape, dtype
        parameter._draw, parameter.root = draw, None
        return parameter

    def initialize(self, rng: np.random.Generator, dtype: np.dtype[Any]) -> None:
        """Draw the value, unless there is one already."""
        if self._draw is not None:
            value = np.array(self._draw(rng), dtype=dtype, order="C")
            if (got := value.shape) != self.shape:
                raise ValueError(f"Parameter: expected values of shape {self.shape}, got {got}")
            self._value, self._grad, self._draw = value, np.zeros_like(value), None

    def bind(self, value: Array, grad: Array) -> None:
        """Use these two arrays, of one shape and dtype, as value and gradient, without a copy."""
        self._value, self._grad = value, grad

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        # Of the slots; a copy belongs to no model yet.
        names = ("shape", "asked", "_draw", "_value", "_grad")[: None if self.is_set else 3]
        return None, {"root": None, **{name: getattr(self, name) for name in names}}

    def __getattr__(self, name: str) -> Any:
        # Called only while a slot is empty, so this costs nothing once there is a value.
        if name in ("_value", "_grad"):
            raise ValueError(f"a parameter {self.shape} has no value yet; give its model rng=")
        raise AttributeError(name)

    @property
    def is_set(self) -> bool:
        """Whether the parameter has a value yet."""
        return self._draw is None

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)

    @property
    def value(self) -> Array:
        """The present value. Assigning to it writes in place."""
        return self._value

    @value.setter
    def value(self, new: Array) -> None:
        if new is not self._value:  # `p.value -= d` has written in place already
            self._value[...] = new

    @property
    def grad(self) -> Array:
        """The gradient that the last backward pass wrote. Assigning to it writes in place."""
        return self._grad

    @grad.setter
    def grad(self, new: Array) -> None:
        if new is not self._grad:
            self._grad[...] = new

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, {self.value.dtype if self.is_set else 'not set'})"


_PLAIN = (int, float, str, np.ndarray, type(None))


def _is_member(value: object) -> bool:
    return isinstance(value, Parameter) or is_layer(value)


def holds(value: object) -> bool:
    """Return whether ``value`` is a parameter, a layer, or a list or tuple with one."""
    return any(map(_is_member, value if isinstance(value, (list, tuple)) else [value]))


def members(layer: object) -> Iterator[tuple[str, Any]]:
    """Yield the parameters and layers among the attributes of ``layer``, and in lists of it."""
    for name, value in vars(layer).items():
        if isinstance(value, Parameter):
            yield name, value
        elif name == "_given" or isinstance(value, _PLAIN):
            continue  # at once, since this is asked often
        elif isinstance(value, (list, tuple)):
            # The layers of a Sequential are numbered as in PyTorch: "0.weight".
            prefix = "" if name == "layers" else f"{name}."
            yield from ((f"{prefix}{i}", v) for i, v in enumerate(value) if _is_member(v))
        elif is_layer(value):
            yield name, value


def infer(layer: object, x: Array) -> Array:
    """Return the output of a layer in inference mode; it need not have ``__call__``."""
    y: Array = layer(x) if callable(layer) else layer.forward(x, train=False)[0]  # type: ignore[attr-defined]
    return y


def named_layers(layer: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every layer, outer ones first, after its prefix: ``""``, ``"0."``, ``"0.inner."``."""
    yield prefix, layer
    for name, member in members(layer):
        if not isinstance(member, Parameter):
            yield from named_layers(member, f"{prefix}{name}.")


def walk(layer: object) -> Iterator[Any]:
    """Yield ``layer`` itself, then every layer in it, outer layers before inner ones."""
    return (inner for _, inner in named_layers(layer))


def named_parameters(layer: object, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
    """Yield every parameter of any object and of the layers in it, as ``("0.weight", p)``."""
    for name, member in members(layer):
        if isinstance(member, Parameter):
            yield prefix + name, member
        else:
            yield from named_parameters(member, f"{prefix}{name}.")


def gather(model: Any, dtype: np.dtype[Any]) -> None:
    """Make all parameters views into two new vectors, which become those of the model."""
    size = sum(p.size for _, p in named_parameters(model))
    theta, grad = np.empty(size, dtype), np.empty(size, dtype)

    def place(layer: Any, start: int) -> int:
        end = start
        for _, member in members(layer):
            if isinstance(member, Parameter):
                piece, end = slice(end, end + member.size), end + member.size
                value, own = theta[piece].reshape(member.shape), grad[piece].reshape(member.shape)
                value[...], own[...] = member.value, member.grad
                member.bind(value, own)
                member.root = weakref.ref(model)
            else:
                end = place(member, end)
        if hasattr(type(layer), "forget_vectors"):  # one of ours
            vars(layer).update(theta=theta[start:end], grad=grad[start:end])
        return end

    place(model, 0)


def shared_parameter(model: object) -> tuple[str, Any] | None:
    """Return a parameter that is in the vectors of another model, and that model; or None."""
    roots = [(name, p.root and p.root()) for name, p in named_parameters(model)]
    owned = [(name, root) for name, root in roots if root is not None]
    inside = {id(layer) for layer in walk(model)} if owned else set()
    return next(((name, root) for name, root in owned if id(root) not in inside), None)


def check_owners(model: object) -> None:
    """Raise ValueError if a parameter occurs twice, or is in the vectors of another model."""
    parameters = [p for _, p in named_parameters(model)]
    if len({id(p) for p in parameters}) < len(parameters):
        raise ValueError(f"{model!r}: a layer occurs twice, but backward does not add gradients")
    if shared := shared_parameter(model):
        name, other = shared[0], f"another model, a {type(shared[1]).__name__}"
        why = f"the parameter {name!r} belongs to {other}; build this one from layer.copy()"
        raise ValueError(f"{type(model).__name__}: {why}")


def check_vectors(model: Any) -> None:
    """Raise ValueError if a parameter is not a view into ``model.theta`` at its place."""
    theta: Array = model.theta
    end, wrong = theta.ctypes.data, ""
    for name, p in named_parameters(model):
        if p.size and p.value.ctypes.data != end:
            wrong = wrong or f"the parameter {name!r} is not at its place in theta"
        end += p.value.nbytes
    if wrong or end != theta.ctypes.data + theta.nbytes:
        why = wrong or "theta has other parameters than the layers"
        raise ValueError(f"{type(model).__name__}: {why}; build a new model")


def declared_buffers(layer: object) -> tuple[str, ...] | None:
    """Return the names of the buffers of one layer, without those inside it; None if undeclared."""
    names = getattr(layer, "buffers", None)
    if names is None or callable(names):  # a method, as of PyTorch's modules
        return None
    if not isinstance(names, (tuple, list)):
        want = "the names of buffers in a tuple, as buffers = ('mean',)"
        raise ValueError(f"{type(layer).__name__}: expected {want}, got {names!r:.80}")
    return tuple(names)


def check_buffers(model: object) -> None:
    """Raise ValueError if a layer has an array that is neither a parameter nor declared.

    An object with a method ``backward`` is none of ours (see ``minidl.testing.Cached``).
    """
    for prefix, layer in named_layers(model):
        if declared_buffers(layer) is not None or callable(getattr(layer, "backward", None)):
            continue
        for name, value in vars(layer).items():
            if isinstance(value, np.ndarray) and name not in ("theta", "grad"):
                kind, place = type(layer).__name__, f" ({prefix}{name})" if prefix else ""
                why = f"the array {name!r}{place} is neither a parameter nor a buffer"
                hint = f"buffers = ({name!r},), or buffers = () if it is not to be saved"
                raise ValueError(f"{kind}: {why}; write in the class: {hint}")


def places(model: object, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield the name of each parameter's value and each buffer, its owner, and its name there.

    In PyTorch's order: the parameters of a layer, its buffers, then those of the layers in it.
    """
    found = list(members(model))
    yield from ((prefix + n, p, "value") for n, p in found if isinstance(p, Parameter))
    yield from ((prefix + n, model, n) for n in declared_buffers(model) or ())
    for name, member in found:
        if not isinstance(member, Parameter):
            yield from places(member, f"{prefix}{name}.")


def array_at(owner: object, name: str) -> Array:
    """Return a parameter's value or a buffer; ValueError unless it has real numbers."""
    array = np.asarray(value := getattr(owner, name, None))
    if array.dtype.kind not in "biuf":
        want = f"the buffer {name!r} to be an array of real numbers"
        raise ValueError(f"{type(owner).__name__}: expected {want}, got {value!r}")
    return array


def named_buffers(model: object) -> Iterator[tuple[str, Array]]:
    """Yield every buffer of a model with its name, as ``("1.running_mean", array)``."""
    for path, owner, name in places(model):
        if not isinstance(owner, Parameter):
            yield path, array_at(owner, name)


def set_buffers(model: object, values: Mapping[str, Array]) -> None:
    """Replace the buffers that are in ``values`` by these arrays."""
    for path, owner, name in places(model):
        if path in values and not isinstance(owner, Parameter):
            setattr(owner, name, values[path])


def check_state(
    owner: str,
    own: Mapping[str, Array],
    state: Mapping[str, Array],
    kind: str = "parameter or buffer",
) -> dict[str, Array]:
    """Return copies of the arrays of a state, with the names, shapes and dtypes of ``own``."""
    for name in (name for name in state if name not in own):
        raise ValueError(f"{owner}: no {kind} {name!r}{did_you_mean(name, own)}")
    for name in (name for name in own if name not in state):
        raise ValueError(f"{owner}: the state has no value for {name!r}")
    return {
        name: check_array(owner, name, state[name], value.shape, value.dtype)
        for name, value in own.items()
    }


def not_finite(model: Any) -> list[str]:
    """Return the names of the parameters and buffers that are not finite."""
    return [path for path, o, name in places(model) if not np.isfinite(array_at(o, name)).all()]


class Values:
    """The parameters and buffers of a model, found once, so that a copy of them takes little."""

    def __init__(self, model: Any) -> None:
        self.load_state_dict, self._places = model.load_state_dict, list(places(model))

    def state_dict(self) -> dict[str, Array]:
        """Return what ``state_dict`` of the model does."""
        return {name: np.array(getattr(owner, at)) for name, owner, at in self._places}


class Streams:
    """Random generators by name, such as those of a model's layers, as one object with a state."""

    def __init__(self, rngs: Mapping[str, np.random.Generator]) -> None:
        self.rngs = rngs

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each generator."""
        return {name: rng.bit_generator.state for name, rng in self.rngs.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the states; ValueError if there are more or fewer generators, or of another kind."""
        if len(state) != len(self.rngs):
            raise ValueError(f"has {len(state)} random streams, the model {len(self.rngs)}")
        for name, rng in self.rngs.items():
            set_stream(f"random stream {name}", rng, state[name])


class States:
    """Objects with a state by name, and after each model its random streams, as one of them."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self.parts: dict[str, Any] = {}
        for name, part in parts.items():
            self.parts[name] = part
            if is_layer(part):
                if type(part).state_dict.__module__ == "minidl.layer":
                    self.parts[name] = Values(part)
                rngs = (getattr(layer, "rng", None) for layer in walk(part))
                drawn = [rng for rng in rngs if isinstance(rng, np.random.Generator)]
                self.parts[f"{name} streams"] = Streams({str(i): r for i, r in enumerate(drawn)})

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state of each object by its name."""
        found = {name: part.state_dict() for name, part in self.parts.items()}
        own = {k for k, p in self.parts.items() if not type(p).__module__.startswith("minidl.")}
        return found | copy.deepcopy({name: found[name] for name in own})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set all states that are not empty, or none on an error."""
        before = self.state_dict()
        if missing := [name for name in before if before[name] and not state.get(name)]:
            raise ValueError(f"has no state of {missing[0]!r}")
        try:
            self.set(state)
        except BaseException:
            self.set(before)
            raise

    def set(self, state: Mapping[str, Any]) -> None:
        """Set the states that are not empty."""
        for name, part in self.parts.items():
            if state.get(name):
                part.load_state_dict(state[name])


def set_stream(name: str, rng: Any, state: Any) -> None:
    """Set the state of a random generator; ValueError if it is that of another kind."""
    try:
        rng.bit_generator.state = state
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        kind = type(rng.bit_generator).__name__
        raise ValueError(f"{name}: expected a state of {kind} ({error})") from error
