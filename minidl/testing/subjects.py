"""What can be checked, as one kind of thing: a function of named tensors, and its pull-back.

A layer, a loss, a simplex map and a bare pair of functions each become a ``Subject``. To run
one never touches the caller's arrays: every run gets copies, in the caller's memory layout.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.parameter import Parameter, is_layer, named_parameters, walk
from minidl.testing.adapters import Cached, accepts
from minidl.testing.report import ContractError
from minidl.typing import Array, Backward

Tensors = Mapping[str, Array]
Pull = Callable[[Array], dict[str, Array]]
Forward = Callable[[Array], tuple[Array, Backward]]
FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Run:
    """One forward pass: its output, its pull-back, and the arrays that were handed out.

    The pull-back adds the cotangent that it hands out, which is a copy too.
    """

    y: Array
    pull: Pull
    given: dict[str, Array]
    backward: Backward
    """The subject's own function, before anything is checked or copied."""


class Subject(ABC):
    """A function of named tensors with its pull-back.

    Attributes
    ----------
    name : str
        Stands before a tensor's name, as in ``Linear.weight``.
    title : str
        What the report says was checked.
    tensors : dict of array
        The caller's, in their own dtypes; the input first.
    """

    name: str
    title: str
    tensors: dict[str, Array]
    notes: tuple[str, ...] = ()

    @abstractmethod
    def run(self, tensors: Tensors) -> Run:
        """One pass at these values. Their dtypes decide the precision."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within this context the subject may be run; after it, all is as it was."""
        yield

    def parts(self, tensors: Tensors, dy: Array) -> list[tuple[Subject, Array]]:
        """What it is made of, each at what it is given in this pass, with its cotangent."""
        return []

    @contextmanager
    def shaken(self, jitter: Callable[[Array], Array]) -> Iterator[None]:
        """Within this context, what passes between its parts goes through ``jitter``."""
        yield

    def label(self, tensor: str) -> str:
        return f"{self.name}.{tensor}"


class LayerSubject(Subject):
    """An object with ``forward(x, train=...) -> y, backward``.

    The object itself is run, not a deep copy: a copy of an object that holds closures would
    share what they captured. ``held`` puts everything back: values, gradients, attributes of
    the layers and of those in them, arrays among those, and the states of their generators.
    """

    def __init__(self, layer: Any, x: Array, train: bool, rng: np.random.Generator) -> None:
        self.name = type(layer).__name__
        _require_contract(layer, self.name)
        self.layer, self.train, self._rng = layer, train, rng
        self.title = f"{_short(layer)}, x {x.shape} {x.dtype}, train={train}"
        self.parameters: dict[str, Parameter] = {}
        for key, p in named_parameters(layer):
            if all(p is not q for q in self.parameters.values()):
                self.parameters[key] = p
        self.tensors = {"input": x, **{k: p.value.copy() for k, p in self.parameters.items()}}
        self._members = list(walk(layer))
        self._generators: list[tuple[Any, Any]] = []
        if not self.parameters:
            arrays = [k for m in self._members for k, v in vars(m).items() if _is_float(v)]
            if arrays:
                self.notes = (
                    f"{', '.join(arrays)}: plain arrays, not checked as parameters; make them "
                    "minidl.Parameter, or wrap the layer in minidl.testing.Cached",
                )

    def run(self, tensors: Tensors) -> Run:
        for key, p in self.parameters.items():
            if p.value.dtype != tensors[key].dtype:
                self._rebind(key, tensors[key].dtype)
            p.value[...], p.grad[...] = tensors[key], 0
        for bits, state in self._generators:
            bits.state = state
        x = twin(tensors["input"])
        y, backward = self._checked(self.layer.forward(x, train=self.train), x.dtype)

        given = {"input": x, **{key: p.value for key, p in self.parameters.items()}}

        def pull(dy: Array) -> dict[str, Array]:
            given["cotangent"] = dy = twin(dy)
            dx = gradient_like(x, backward(dy), f"{self.name}: expected backward(dy) to return dx")
            grads = {key: p.grad.copy() for key, p in self.parameters.items()}
            return {"input": dx, **grads}

        return Run(y.copy(), pull, given, backward)

    @contextmanager
    def held(self) -> Iterator[None]:
        attributes = [(vars(m), dict(vars(m))) for m in self._members]
        arrays = [(v, v.copy()) for _, d in attributes for v in d.values() if _is_array(v)]
        self._own = {key: (p.value, p.grad) for key, p in self.parameters.items()}
        contents = [(a, a.copy()) for pair in self._own.values() for a in pair]
        for member in self._members:
            if getattr(member, "rng", member) is None:
                member.rng = self._rng.spawn(1)[0]
        held = [v for m in self._members for v in vars(m).values()]
        bits = [v.bit_generator for v in held if isinstance(v, np.random.Generator)]
        self._generators = [(b, b.state) for b in bits]
        try:
            yield
        finally:
            for b, state in self._generators:
                b.state = state
            for key, p in self.parameters.items():
                p._value, p._grad = self._own[key]
            for now, before in attributes:
                now.clear()
                now.update(before)
            for array, content in [*arrays, *contents]:
                if array.flags.writeable:
                    array[...] = content

    def parts(self, tensors: Tensors, dy: Array) -> list[tuple[Subject, Array]]:
        """The innermost layers; their forward is listened to for one pass."""
        calls: list[tuple[Any, Array, Array]] = []

        def listen(layer: Any, x: Array, run: Forward) -> tuple[Array, Backward]:
            y, backward = run(x)

            def pull(dy: Array, **options: Any) -> Any:
                calls.append((layer, twin(x), twin(dy)))
                return backward(dy, **options)

            return y, pull

        with self._through(listen):
            self.run(tensors).pull(dy)
        for bits, state in self._generators:
            bits.state = state
        return [(LayerSubject(m, x, self.train, self._rng), d) for m, x, d in calls]

    @contextmanager
    def shaken(self, jitter: Callable[[Array], Array]) -> Iterator[None]:
        def shake(layer: Any, x: Array, run: Forward) -> tuple[Array, Backward]:
            y, backward = run(jitter(x))
            return y, lambda dy, **options: backward(jitter(dy), **options)

        with self._through(shake):
            yield

    @contextmanager
    def _through(self, between: Callable[[Any, Array, Forward], Any]) -> Iterator[None]:
        """Within this context the innermost layers' ``forward`` goes through ``between``."""
        wrapped = [id(m) for c in self._members if isinstance(c, Cached) for m in [*walk(c)][1:]]
        innermost = [
            m
            for m in self._members[1:]
            if id(m) not in wrapped and (isinstance(m, Cached) or len([*walk(m)]) == 1)
        ]
        before = [(vars(m), dict(vars(m))) for m in innermost]

        def redirected(m: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
            return lambda x, **options: between(m, x, lambda x: forward(x, **options))

        for m in innermost:
            m.forward = redirected(m, m.forward)
        try:
            yield
        finally:
            for now, then in before:
                now.clear()
                now.update(then)

    def _rebind(self, key: str, dtype: np.dtype[Any]) -> None:
        """Give a parameter arrays of another dtype, or its own ones back."""
        p, own = self.parameters[key], self._own[key]
        p._value, p._grad = (a if a.dtype == dtype else a.astype(dtype) for a in own)
        for member in self._members:  # a Layer gathers its flat vectors anew when asked
            vars(member).pop("_theta", None)
            vars(member).pop("_grad", None)

    def _checked(self, result: Any, dtype: np.dtype[Any]) -> tuple[Array, Backward]:
        if not (isinstance(result, tuple) and len(result) == 2 and callable(result[1])):
            raise ContractError(
                f"{self.name}: expected forward(x, train=...) to return the output and a "
                f"function, got {_what(result)}; write: return y, backward"
            )
        return output(result[0], f"{self.name}: expected forward's output"), result[1]


class LossSubject(Subject):
    """A function ``value, dlogits = loss(logits, y)``."""

    def __init__(self, loss: Any, logits: Array, y: Array) -> None:
        self.name = getattr(loss, "__name__", type(loss).__name__)
        if not callable(loss):
            raise TypeError(
                f"check_loss: expected a function value, dlogits = loss(logits, y), got {loss!r}"
            )
        self.loss, self.y = loss, y
        self.title = f"{_short(loss)}, logits {logits.shape} {logits.dtype}"
        self.tensors = {"logits": logits}

    def run(self, tensors: Tensors) -> Run:
        z, y = twin(tensors["logits"]), np.array(self.y)
        result = self.loss(z, y)
        if not (isinstance(result, tuple) and len(result) == 2 and np.ndim(result[0]) == 0):
            raise ContractError(
                f"{self.name}: expected loss(logits, y) to return a number and its gradient, "
                f"got {_what(result)}; write: return value, dlogits"
            )
        gradient = gradient_like(z, result[1], f"{self.name}: expected the loss to return dlogits")

        def pull(dy: Array) -> dict[str, Array]:
            return {"logits": gradient * float(dy)}

        return Run(np.asarray(result[0], np.float64), pull, {"logits": z, "y": y}, pull)


class MapSubject(Subject):
    """A simplex map: ``p = map(z, axis)``, ``dz = map.vjp(p, dp, axis)``."""

    def __init__(self, map: Any, z: Array, axis: int) -> None:
        self.name = _short(map)
        if not callable(map) or not callable(getattr(map, "vjp", None)):
            raise TypeError(
                f"check_simplex_map: expected map(z, axis=-1) with map.vjp(p, dp, axis=-1), "
                f"got {map!r}"
            )
        self.map, self.axis = map, axis
        self.title = f"{_short(map)}, z {z.shape} {z.dtype}, axis={axis}"
        self.tensors = {"z": z}

    def run(self, tensors: Tensors) -> Run:
        z = twin(tensors["z"])
        p = output(self.map(z, axis=self.axis), f"{self.name}: expected map(z)")

        given = {"z": z, "output": p}

        def pull(dp: Array) -> dict[str, Array]:
            given["cotangent"] = dp = twin(dp)
            dz = self.map.vjp(p, dp, axis=self.axis)
            return {"z": gradient_like(z, dz, f"{self.name}: expected vjp(p, dp) to return dz")}

        return Run(p.copy(), pull, given, self.map.vjp)


class FunctionSubject(Subject):
    """A pair: ``y = f(*inputs)`` and ``gradients = vjp(*inputs, dy)``."""

    def __init__(self, f: Any, vjp: Any, tensors: dict[str, Array]) -> None:
        for what, function in (("f", f), ("vjp", vjp)):
            if not callable(function):
                raise TypeError(
                    f"check_function: expected {what} to be a function, got {function!r}; "
                    "write: check_function(f, vjp, x) with y = f(x), dx = vjp(x, dy)"
                )
        self.name = getattr(f, "__name__", type(f).__name__).strip("<>")
        self.f, self.vjp, self.tensors = f, vjp, tensors
        shapes = ", ".join(f"{k} {v.shape} {v.dtype}" for k, v in tensors.items())
        self.title = f"{self.name}, {shapes}"

    def run(self, tensors: Tensors) -> Run:
        given = {key: twin(value) for key, value in tensors.items()}
        y = output(self.f(*given.values()), f"{self.name}: expected f's output")

        def pull(dy: Array) -> dict[str, Array]:
            inputs = [given[key] for key in self.tensors]
            given["cotangent"] = dy = twin(dy)
            got = self.vjp(*inputs, dy)
            got = got if isinstance(got, (tuple, list)) else (got,)
            if len(got) != len(inputs):
                raise ContractError(
                    f"{self.name}: expected vjp to return {len(inputs)} gradients, one for each "
                    f"of {', '.join(self.tensors)}, got {len(got)}"
                )
            return {
                key: gradient_like(x, d, f"{self.name}: expected vjp to return d{key}")
                for (key, x), d in zip(self.tensors.items(), got, strict=True)
            }

        return Run(y.copy(), pull, given, self.vjp)


def twin(x: Array) -> Array:
    """A copy with the same strides, so that what is checked is the layout that came."""
    if x.size == 0 or x.flags.c_contiguous:
        return x.copy()
    ends = [s * (n - 1) for s, n in zip(x.strides, x.shape, strict=True)]
    low, high = sum(min(e, 0) for e in ends), sum(max(e, 0) for e in ends)
    buffer = np.zeros(high - low + x.itemsize, np.uint8)
    copy: Array = np.ndarray(x.shape, x.dtype, buffer.data, -low, x.strides)
    copy[...] = x
    return copy


def float_array(owner: str, name: str, x: Any) -> Array:
    """``x`` if it is an array of floats; TypeError with the way to make it one otherwise."""
    if not isinstance(x, np.ndarray) or x.dtype.name not in FLOATS:
        raise TypeError(
            f"{owner}: expected {name} to be an array of float32 or float64, got {_what(x)}; "
            f"write: np.asarray({name}, np.float64)"
        )
    return x


def output(y: Any, expected: str) -> Array:
    """``y`` if it is an array of floats."""
    if not isinstance(y, (np.ndarray, np.floating)) or y.dtype.kind != "f":
        raise ContractError(f"{expected} to be an array of floats, got {_what(y)}")
    return np.asarray(y)


def gradient_like(x: Array, dx: Any, expected: str) -> Array:
    """A copy of ``dx`` if it is an array of the shape of ``x``."""
    if not isinstance(dx, (np.ndarray, np.floating)) or dx.dtype.kind != "f":
        raise ContractError(f"{expected}, an array of shape {x.shape}, got {_what(dx)}")
    if dx.shape != x.shape:
        hint = "; is a transpose missing?" if dx.shape == x.shape[::-1] else ""
        raise ContractError(f"{expected} of the shape {x.shape}, got {dx.shape}{hint}")
    return np.array(dx)


def _require_contract(layer: Any, name: str) -> None:
    how = "write: def forward(self, x, *, train=False): ...; return y, backward"
    if isinstance(layer, type):
        raise TypeError(f"expected a layer, got the class {layer.__name__}: make one of it first")
    if not is_layer(layer) or not hasattr(layer, "__dict__"):
        raise TypeError(
            f"{name}: expected an object with forward(x, train=...) -> y, backward, "
            f"got {_what(layer)}; {how}"
        )
    if not accepts(layer.forward, None, train=True):
        raise TypeError(f"{name}: expected forward to take x and train=; {how}")


def _what(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}, {value.dtype}"
    if isinstance(value, tuple):
        return f"a tuple ({', '.join(map(_what, value))})"
    return "None" if value is None else f"{type(value).__name__} {_short(value)}"


def _short(value: Any) -> str:
    text = getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= 70 and "\n" not in text else type(value).__name__


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"
