"""The architecture of a model as plain data: the class and the arguments of each layer.

A layer is described by its class name and, for each parameter of its constructor, the attribute of
that name, or the argument with which it was made. So a layer of one's own needs no code for this;
where the rule does not fit, it defines ``config()``, which returns the arguments. Generators,
dtypes and initialisers are left out: a file has the values themselves."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from minidl import activations, layer, layers
from minidl import maps as simplex
from minidl.files import to_json
from minidl.layer import Layer
from minidl.maps import SimplexMap
from minidl.parameter import Parameter, is_layer

_MAPS = {"softmax": simplex.softmax, "sparsemax": simplex.sparsemax, "entmax15": simplex.entmax15}
_REGISTERED: dict[str, type[Any]] = {}


def _built_in() -> dict[str, type[Any]]:
    found = [v for m in (layer, layers, activations) for v in vars(m).values()]
    kinds = {k.__name__: k for k in found if type(k) is type(Layer) and issubclass(k, Layer)}
    return {**kinds, "relumax": simplex.relumax}


def register_layer(cls: type[Any]) -> type[Any]:
    """Make ``minidl.load`` know a layer class of your own, by its name; use it as a decorator.

    Examples
    --------
    >>> @minidl.register_layer
    ... class Scale(minidl.Layer): ...
    """
    _REGISTERED[cls.__name__] = cls
    return cls


def describe(part: Any, *, lenient: bool = False) -> dict[str, Any]:
    """Return the class name and the arguments of a layer, map or feature, as JSON takes them.

    Parameters
    ----------
    part : object
    lenient : bool
        Whether a part with an argument that cannot be described counts by its class name alone.

    Raises
    ------
    TypeError
        If an argument is neither plain data nor a layer nor a map; the message names it.
    ValueError
        If the class has the name of another one of minidl.
    """
    kind = type(part)
    for name, value in _MAPS.items():
        if kind is type(value):
            return {"class": name, "arguments": {}}
    if _built_in().get(kind.__name__, kind) is not kind:
        raise ValueError(
            f"{kind.__module__}.{kind.__qualname__}: minidl has another class of this name, so a "
            "file could not tell them apart; rename it"
        )
    try:
        config = part.config() if callable(getattr(part, "config", None)) else _arguments(part)
        arguments = {
            name: _encode(f"{kind.__name__}: the argument {name!r}", value, lenient)
            for name, value in config.items()
        }
    except TypeError:
        if not lenient:
            raise
        return {"class": kind.__name__}
    return {"class": kind.__name__, "arguments": arguments}


def build(description: Mapping[str, Any], own: Iterable[type[Any]] = ()) -> Any:
    """Return a new object from what ``describe`` returned; its parameters have no values yet.

    Parameters
    ----------
    description : mapping
    own : iterable of classes
        Classes that are not minidl's, beside the registered ones.

    Raises
    ------
    ValueError
        If a class is not known, or does not take its arguments.
    """
    return _build(description, {**_built_in(), **_REGISTERED, **{c.__name__: c for c in own}})


def difference(here: Any, there: Any, place: str = "") -> str | None:
    """Return a sentence about the first difference of two descriptions, or None."""
    if here == there:
        return None
    if not (isinstance(here, dict) and isinstance(there, dict)):
        return f"expected {_text(here)}, the file has {_text(there)}"
    if here.get("class") == there.get("class"):
        ours, theirs = (_inner(d) for d in (here, there))
        for (name, a), (_, b) in zip(ours, theirs, strict=False):  # one may have more layers
            inner = difference(a, b, f"{place}.{name}" if place else name)
            if inner is not None:
                return inner
    where = f"layer {place}: " if place else ""
    return f"{where}expected {_text(here)}, the file has {_text(there)}"


def _inner(description: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the descriptions of layers among the arguments, with their positions."""
    found = []
    for name, value in description.get("arguments", {}).items():
        if isinstance(value, dict) and "class" in value:
            found.append((name, value))
        items = value.get("items", ()) if isinstance(value, dict) else ()
        for i, item in enumerate(items):
            if isinstance(item, dict) and "class" in item:
                found.append((str(i) if name == "layers" else f"{name}.{i}", item))
    return found


def _text(value: Any) -> str:
    """Return a description as the call that it stands for."""
    if isinstance(value, dict) and "class" in value:
        pairs = [(k, _text(v)) for k, v in value.get("arguments", {}).items()]
        texts = [text if name == "layers" else f"{name}={text}" for name, text in pairs]
        return f"{value['class']}({', '.join(texts)})"
    if isinstance(value, dict) and "items" in value:
        return ", ".join(map(_text, value["items"]))
    return repr(value)


_LEFT_OUT = ("rng", "dtype")


def _arguments(part: Any) -> dict[str, Any]:
    """Return the arguments that make an object like ``part``."""
    kind, recorded = type(part), getattr(part, "constructor_arguments", None)
    signature = inspect.signature(kind)
    args, options = recorded() if recorded is not None else ((), {})
    given = signature.bind_partial(*args, **options).arguments
    found: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if name in _LEFT_OUT or name.endswith("_init"):
            continue
        attribute = vars(part).get(name, inspect.Parameter.empty)
        variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if attribute is not inspect.Parameter.empty and is_plain(attribute, arrays=True):
            found[name] = attribute
        elif name in given and is_plain(given[name]):
            found[name] = given[name]
        elif isinstance(attribute, Parameter) and parameter.default is inspect.Parameter.empty:
            found[name] = attribute.value
        elif name not in given and (variable or is_plain(parameter.default)):
            found[name] = () if variable else parameter.default
        else:
            raise TypeError(
                f"{kind.__name__}: the argument {name!r} is not known, and there is no attribute "
                f"of that name that can be saved; keep it as self.{name}, or define "
                "config(), which returns the arguments as a dict"
            )
        if variable and not found[name]:
            del found[name]
    return found


def is_plain(value: Any, *, arrays: bool = False) -> bool:
    """Return whether a value can be described: plain data, layers, maps, lists of them."""
    if isinstance(value, (list, tuple)):
        return all(is_plain(item, arrays=arrays) for item in value)
    if isinstance(value, np.ndarray):
        return arrays and value.dtype.kind in "biuf"
    if value is None or isinstance(value, (bool, int, float, str, np.bool_, np.number, SimplexMap)):
        return True
    return is_layer(value)


def _encode(owner: str, value: Any, lenient: bool) -> Any:
    if isinstance(value, (list, tuple)):
        return {
            "items": [_encode(owner, item, lenient) for item in value],
            "kind": "list" if isinstance(value, list) else "tuple",
        }
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.name}
    if isinstance(value, (np.bool_, np.number)):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, SimplexMap) or is_layer(value):
        return describe(value, lenient=lenient)
    raise TypeError(f"{owner} cannot be saved, since it is {value!r}")


def _build(value: Any, known: Mapping[str, type[Any]]) -> Any:
    if not isinstance(value, dict):
        return value
    if "items" in value:
        items = [_build(item, known) for item in value["items"]]
        return items if value["kind"] == "list" else tuple(items)
    if "array" in value:
        return np.array(value["array"], value["dtype"])
    name = value["class"]
    if name in _MAPS:
        return _MAPS[name]
    if name not in known:
        raise ValueError(
            f"the layer class {name!r} is not known; pass it: minidl.load(path, layers=[{name}]), "
            f"or register it: minidl.register_layer({name})"
        )
    if "arguments" not in value:
        raise ValueError(f"the file has no arguments for the layer {name!r}, which it cannot build")
    parameters = inspect.signature(known[name]).parameters
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = {}
    for key, encoded in value["arguments"].items():
        kind = parameters[key].kind if key in parameters else None
        if kind is inspect.Parameter.VAR_POSITIONAL:
            args += _build(encoded, known)
        else:
            options[key] = _build(encoded, known)
    if "rng" in parameters and parameters["rng"].default is inspect.Parameter.empty:
        options["rng"] = np.random.default_rng(0)
    # Parameters in front of *args are given by position.
    first = [key for key in parameters if key in options and args and _before(parameters[key])]
    try:
        return known[name](*(options.pop(key) for key in first), *args, **options)
    except TypeError as error:
        raise ValueError(f"the layer class {name!r} has another constructor ({error})") from error


def _before(parameter: inspect.Parameter) -> bool:
    return parameter.kind is not inspect.Parameter.KEYWORD_ONLY


def fingerprint_task(train: Callable[..., Any]) -> dict[str, Any]:
    """Return the name of a training function and the arguments of a ``functools.partial``."""
    description = fingerprint(train)
    return description if isinstance(description, dict) else {"function": description}


def fingerprint(value: object) -> Any:
    """Return a description that JSON can hold and that changes with the value.

    Functions are described by their name and a digest of their source without comments, arrays
    and data sets by a checksum, data classes by their fields. Paths say where, not what: all are
    the same. Other objects are described by their ``repr``, or by their class where that holds
    an address.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, PurePath):
        return "(path)"
    if isinstance(value, functools.partial):
        return {**fingerprint_task(value.func), **_all(_bound_arguments(value))}
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {value.dtype}, sha256 {_digest(value.tobytes())}"
    if callable(checksum := getattr(value, "checksum", None)) and not isinstance(value, type):
        return f"{type(value).__name__}, sha256 {checksum()}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _all({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return _all(value)
    if isinstance(value, (list, tuple)):
        return [fingerprint(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(fingerprint(item)) for item in value)
    if callable(value) and hasattr(value, "__qualname__"):
        return _function(value)
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else text


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    """Return the first name whose value differs, with both values; empty if there is none."""
    for name in {**old, **new}:
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found = first_difference(before, after, f"{prefix}{name}.")
            if found:
                return found
        elif before != after and to_json(before) != to_json(after):  # NaN is equal to NaN here
            return f"{prefix}{name} was {before!r}, now it is {after!r}"
    return ""


def _bound_arguments(task: functools.partial[Any]) -> dict[str, Any]:
    """Return the arguments of a partial by name; positional ones of a builtin by position."""
    try:
        return inspect.signature(task.func).bind_partial(*task.args, **task.keywords).arguments
    except ValueError:  # no signature
        return {**{str(i): value for i, value in enumerate(task.args)}, **task.keywords}


def _all(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): fingerprint(value) for name, value in values.items()}


def _function(function: Any) -> str:
    import ast  # slow to import, as all three
    import textwrap

    module = function.__module__
    if module == "__main__":  # a script: the name of its file
        module = Path(getattr(sys.modules["__main__"], "__file__", None) or module).stem
    name = f"{module}.{function.__qualname__}"
    try:
        source = ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, TypeError, SyntaxError):  # built in, or typed at a prompt
        return name
    return f"{name}, source {_digest(source.encode())[:8]}"


def _digest(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()
