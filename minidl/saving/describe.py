"""Objects as plain data: what a file says of a model, and what runs are compared by.

``describe`` turns a value into what JSON takes. An object that knows its arguments
(``Configured``: layers, maps, losses, optimizers, features) becomes its class name and these
arguments, so a class of one's own needs no code for it; where the rule does not fit, it defines
``config()``. With ``strict`` the description is complete, and ``build`` makes the object again.
Without, it only changes with the value, so that two runs can be compared by ``difference``.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePath
from types import CodeType
from typing import Any

import numpy as np

from minidl import activations, layer, layers, maps
from minidl.checks import Array, Configured, as_array, is_layer
from minidl.layer import Layer
from minidl.parameter import places

_REGISTERED: dict[str, type[Any]] = {}


@functools.cache
def _built_in() -> dict[str, Any]:
    """Return minidl's layer classes and maps by name."""
    found = [v for m in (layer, layers, activations) for v in vars(m).values()]
    kinds = {k.__name__: k for k in found if type(k) is type(Layer) and issubclass(k, Layer)}
    known = {"softmax": maps.softmax, "sparsemax": maps.sparsemax, "entmax15": maps.entmax15}
    return {**kinds, **known, "relumax": maps.relumax}


def register_layer(cls: type[Any]) -> type[Any]:
    """Make ``minidl.load`` know a layer class of your own, by its name; use it as a decorator.

    Examples
    --------
    >>> @minidl.register_layer
    ... class Scale(minidl.Layer): ...
    """
    if not isinstance(cls, type):
        raise TypeError(f"register_layer: expected a class, got {cls!r}")
    _REGISTERED[cls.__name__] = cls
    return cls


def describe(value: Any, *, strict: bool = True, owner: str = "") -> Any:
    """Return a description of a value, as JSON takes it.

    With ``strict`` of plain data, arrays, ``Configured`` objects, and lists of them; else of all
    that can be compared. TypeError for another value names it after its ``owner``.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        items = [describe(item, strict=strict, owner=owner) for item in value]
        return {"items": items, "kind": type(value).__name__} if strict else items
    if isinstance(value, Configured) or is_layer(value):
        return _describe_object(value, strict)
    if not strict:
        return _describe_to_compare(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"array": value.tolist(), "dtype": value.dtype.name}
    hint = "is not known; keep it as an attribute of its name, or define config()"
    raise TypeError(
        f"{owner} {hint if value is ... else f'cannot be saved, since it is {value!r}'}"
    )


_OF_MODELS = {"theta", "grad", "_training", "input_scale", "rng", "dtype"}
"""Attributes of layers that a checkpoint has, or that change no result."""


def _describe_object(value: Any, strict: bool) -> dict[str, Any]:
    """Describe an object by its class and arguments; to compare, one of your own by all it has."""
    kind = type(value)
    name = getattr(value, "_name", "") or kind.__name__
    if strict and _built_in().get(name, kind) not in (kind, value):
        path = f"{kind.__module__}.{kind.__qualname__}"
        raise ValueError(f"{path}: minidl has another class of this name; rename it")
    has_config = callable(getattr(value, "config", None))
    config = value.config() if has_config else Configured.config(value)
    if not strict:
        known = {argument: given for argument, given in config.items() if given is not ...}
        own = _is_own(kind) and not _is_own(getattr(kind, "config", Configured))
        changes = not is_layer(value) and bool(getattr(value, "state_dict", dict)())
        if len(known) < len(config) or (own and not changes):
            of_model = {*_OF_MODELS, *(path for path, _, _ in places(value))}
            left_out = {"_given", *(of_model if is_layer(value) else ())}
            held = {k: v for k, v in vars(value).items() if k not in left_out}
            known = {k: v for k, v in held.items() if not k.endswith("_init")} | known
        config = known
    owner = f"{name}: the argument "
    arguments = {k: describe(v, strict=strict, owner=f"{owner}{k!r}") for k, v in config.items()}
    return {"class": name, "arguments": arguments}


def _is_own(made: Any) -> bool:
    return not made.__module__.startswith("minidl.")


def _describe_to_compare(value: Any) -> Any:
    """Describe a value of any kind so that another value has another description."""
    kind = type(value).__qualname__
    if isinstance(value, PurePath):  # where a file lies changes no result
        return "(path)"
    if isinstance(value, functools.partial):
        arguments = {**{str(i): arg for i, arg in enumerate(value.args)}, **value.keywords}
        return {**_compared(value.func), **_compared(arguments)}
    if isinstance(value, np.random.Generator):
        return _describe_generator(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return _describe_function(value)
    if inspect.ismodule(value):
        return value.__name__
    if hasattr(value, "checksum"):
        return f"{kind}, sha256 {value.checksum()}"
    if hasattr(value, "config"):
        return {"class": kind, "arguments": _compared(value.config())}
    if isinstance(value, Mapping):
        return {str(key): _compared(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(str(_compared(item)) for item in value)
    if hasattr(value, "__array__"):
        array = as_array(kind, "its values", value)
        if array.dtype.hasobject:
            return _compared(array.tolist())
        return f"array {array.shape} {array.dtype}, sha256 {_digest(array.tobytes())}"
    if isinstance(value, bytes):  # of which a copy of a date is made
        return repr(value)
    try:  # what a copy would be made with
        made = value.__reduce_ex__(2)
    except Exception as error:  # pickle raises many kinds
        if not hasattr(value, "__dict__") and " at 0x" not in (text := repr(value)):
            return text
        what = "cannot be compared with that of another run"
        raise TypeError(f"{value!r:.80} {what} ({error})") from error
    if isinstance(made, str):  # the name of a global
        return made
    args, state = made[1], made[2] if len(made) > 2 else None
    held: dict[str, Any] = dict(state) if isinstance(state, dict) else {"state": state}
    held["made"] = [arg for arg in args if arg is not type(value)]
    held["items"] = [list(each) for each in made[3:] if each is not None]
    if callable(value):
        held["()"] = type(value).__call__
    return {"class": kind, "arguments": _compared(held)}


_compared = functools.partial(describe, strict=False)


def _describe_generator(rng: np.random.Generator) -> str:
    """Return the kind of a generator, and its seed unless the system drew it."""
    seeds: Any = rng.bit_generator.seed_seq
    entropy = getattr(seeds, "entropy", None)
    drawn = entropy is None or (isinstance(entropy, int) and entropy >> 96)
    return str(rng) if drawn else f"{rng}, seed {entropy} {seeds.spawn_key or ''}".strip()


def _describe_function(function: Any) -> dict[str, Any]:
    """Return the name of a function or class with a digest of its code, and what it uses."""
    is_function, of = inspect.isfunction(function), getattr(function, "__self__", None)
    inner = None if is_function else getattr(function, "__func__", None)  # of a method
    if not is_function and hasattr(function, "__wrapped__"):  # as those of functools.cache
        inner = function.__wrapped__
    described = {"function": _named(function)} if inner is None else _compared(inner)
    if of is not None and not inspect.ismodule(of):
        described["of"] = _compared(of)
    used: dict[str, Any] = {}
    seen, rest = {function}, [function] if is_function else []
    while rest:
        one = rest.pop()
        for name, value in _used(one).items():
            path = name if one is function else f"{one.__qualname__}.{name}"
            if not inspect.isfunction(value):
                used[path] = _compared(value)
            elif value not in seen:
                used[value.__qualname__] = _named(value)
                seen.add(value)
                rest.append(value)
    return {**described, "what it uses": used} if used else described


def _used(function: Any) -> dict[str, Any]:
    """Return its defaults, its closure, and functions and plain constants of its module."""
    code, module = function.__code__, function.__module__ or ""
    parameters = inspect.signature(function).parameters.values()
    used = {p.name: p.default for p in parameters if p.default is not p.empty}
    used |= inspect.getclosurevars(function).nonlocals
    names = {name for each in _codes(code) for name in each.co_names}
    if module.startswith("minidl.") or "site-packages" in code.co_filename:
        names = set()
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        own = inspect.isfunction(value) and value.__module__ == module
        if own or isinstance(value, (bool, int, float, complex, str, tuple)):
            used[name] = value
    return used


def _named(made: Any) -> str:
    """Return the module and name of a function or class, with a digest of its code."""
    module = getattr(made, "__module__", None)
    if module == "__main__":  # a script: the name of its file
        module = Path(getattr(sys.modules["__main__"], "__file__", None) or module).stem
    name, source = f"{module}.{made.__qualname__}", "".join(_source(made))
    return f"{name}, source {_digest(source.encode())[:8]}" if source else name


_PLAIN = (bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, np.ndarray)
_WRAPPERS = (property, functools.cached_property, staticmethod, classmethod)


def _source(made: Any) -> Iterator[str]:
    """Yield texts that change with the code of a function, or with what is in a class."""
    if isinstance(made, type):
        bases, nested = made.__mro__, f"{made.__qualname__}."
        own = [vars(base).items() for base in bases if base is made or _is_own(base)]
        for name, value in (item for items in own for item in items):
            if isinstance(value, _PLAIN) and not name.startswith("__"):
                yield f"{name}={_constant(value)}"
            elif not isinstance(value, type) or value.__qualname__.startswith(nested):
                yield from (f"{name}: {text}" for text in _source(value))
    if isinstance(made, _WRAPPERS) or inspect.isroutine(made):
        for inner in ("__wrapped__", "fget", "fset", "func"):
            yield from _source(getattr(made, inner, None))
    for code in _codes(made.__code__) if inspect.isfunction(made) else ():
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        constants = [_constant(k) for k in code.co_consts if not isinstance(k, CodeType)]
        handlers = getattr(code, "co_exceptiontable", "")  # from Python 3.11
        yield f"{code.co_code!r} {handlers!r} {code.co_names} {arguments} {constants}"


def _constant(value: Any) -> str:
    """Return the text of a constant, which is the same in another process."""
    text = repr(sorted(map(repr, value)) if isinstance(value, (set, frozenset)) else value)
    return re.sub(" at 0x[0-9a-fA-F]+", "", text)


def _codes(code: CodeType) -> list[CodeType]:
    """Return a code object and those in it."""
    return [code, *(c for k in code.co_consts if isinstance(k, CodeType) for c in _codes(k))]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def difference(saved: Any, now: Any) -> str | None:
    """Return a sentence about the first difference of two descriptions, or None.

    It is named by its path, as "model.2.bias", in which layers are numbered.
    """
    old, new = dict(_leaves(saved)), dict(_leaves(now))
    for path in {**old, **new}:
        was, given = old.get(path), new.get(path)
        if was != given and repr(was) != repr(given):  # NaN is equal to NaN here
            shown = re.sub(r"\.arguments|(\.layers|\.items)+(?=\.\d)", "", path)[1:]
            return f"{shown} was {was!r:.300}, now it is {given!r:.300}"
    return None


def _leaves(description: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values in a description with their paths; a list of values alone is one."""
    if isinstance(description, list) and any(isinstance(v, (dict, list)) for v in description):
        description = dict(enumerate(description))
    if not isinstance(description, dict):
        yield path, description
        return
    for name, inner in description.items():
        named = name in ("class", "function") and isinstance(inner, str) and path
        yield from _leaves(inner, path if named else f"{path}.{name}")


def check_size(description: Any, arrays: Mapping[str, Array]) -> None:
    """Raise ValueError if the arrays of a file cannot be those of the objects that it describes.

    Every width of a layer is a side of an array: together they are at most twice as many as all
    values, and a million for layers without parameters. An object counts as 100.
    """
    values, widths, rest = sum(array.size for array in arrays.values()), 0, [description]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            rest += one.values()
            widths += 100 if "class" in one else 0
            known = one["arguments"].values() if one.get("class") in _built_in() else ()
            widths += sum(n for n in known if type(n) is int and n > 0)
        elif isinstance(one, list):
            rest += one
    if widths > 2 * values + 1_000_000:
        raise ValueError(f"expected layers for {values} saved values, got widths of {widths:.3g}")


def build(description: Any, own: Collection[type[Any]] = ()) -> Any:
    """Return a new object from what ``describe`` returned; its parameters have no values yet.

    ``own`` are classes that are not minidl's; ValueError for one that is not known or has changed.
    """
    if not isinstance(description, dict):
        return description
    if "items" in description:
        items = [build(item, own) for item in description["items"]]
        return items if description["kind"] == "list" else tuple(items)
    if "array" in description:
        if np.dtype(description["dtype"]).kind not in "biuf":
            raise ValueError(f"expected an array of numbers, got dtype {description['dtype']}")
        return np.array(description["array"], description["dtype"])
    name = description["class"]
    if "compared" in description:
        raise ValueError(f"{name} or a layer in it has an argument that cannot be saved")
    made = {**_built_in(), **_REGISTERED, **{cls.__name__: cls for cls in own}}.get(name)
    if made is None:
        hint = f"write minidl.load(path, layers=[{name}]), or register_layer"
        raise ValueError(f"the layer class {name!r} is not known; {hint}")
    if not isinstance(made, type):  # one of the maps
        return made
    options = {key: build(value, own) for key, value in description["arguments"].items()}
    signature = inspect.signature(made)
    rng = signature.parameters.get("rng")
    if rng is not None and rng.default is rng.empty:
        options["rng"] = np.random.default_rng(0)
    given = inspect.BoundArguments(signature, options)
    try:
        if unknown := options.keys() - signature.parameters.keys():
            raise TypeError(f"no argument {min(unknown)!r}")
        return made(*given.args, **given.kwargs)
    except TypeError as error:
        raise ValueError(f"the layer class {name!r} has another constructor ({error})") from error
