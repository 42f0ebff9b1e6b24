"""Objects as plain data: what a file says of a model, and what runs are compared by.

``describe`` turns a value into what JSON takes. An object that knows its arguments
(``Configured``: layers, maps, losses, optimizers, features) becomes its class name and these
arguments, so a class of one's own needs no code for it; where the rule does not fit, it defines
``config()``. With ``strict`` the description is complete, and ``build`` makes the object again.
Without, it only changes with the value, so that two runs can be compared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from types import CodeType
from typing import Any

import numpy as np

from minidl import activations, layer, layers, maps
from minidl.checks import Array, Configured, arguments_of, is_layer
from minidl.layer import Layer
from minidl.parameter import Parameter, own_names

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


def describe(value: object, *, strict: bool = True, owner: str = "") -> Any:
    """Return a description of a value, as JSON takes it.

    With ``strict``, ``build`` can make the value again: plain data, arrays, layers, maps, losses,
    optimizers, features, and lists of them. Without, also functions, by their name and a digest of
    their source without comments; arrays and data sets, by a checksum; any other object, by its
    fields. A path is "(path)", since where a file lies changes no result.

    Raises
    ------
    TypeError
        If a value cannot be described; the message names it, with ``strict`` after its ``owner``.
    ValueError
        If a class has the name of another one of minidl.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    inner = functools.partial(describe, strict=strict, owner=owner)
    if isinstance(value, (list, tuple)):
        items = [inner(item) for item in value]
        return {"items": items, "kind": type(value).__name__} if strict else items
    if isinstance(value, Configured) or is_layer(value):
        return _describe_object(value, strict)
    if strict:
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            return {"array": value.tolist(), "dtype": value.dtype.name}
        raise TypeError(f"{owner} cannot be saved, since it is {value!r}")
    if isinstance(value, PurePath):
        return "(path)"
    if isinstance(value, functools.partial):
        return describe_task(value, strict=True)
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return inner(value.tolist())
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {value.dtype}, sha256 {_digest(value.tobytes())}"
    if isinstance(value, np.random.Generator):
        return _generator(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return _function(value)
    if inspect.ismodule(value):
        return value.__name__
    name = type(value).__qualname__
    if hasattr(value, "checksum"):
        return f"{type(value).__name__}, sha256 {value.checksum()}"
    if hasattr(value, "config"):
        return {"class": name, "arguments": inner(value.config())}
    if dataclasses.is_dataclass(value):
        fields = {f.name: inner(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": name, "arguments": fields} if callable(value) else fields  # or settings
    if isinstance(value, Mapping):
        return {str(name): inner(item) for name, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(str(inner(item)) for item in value)
    plain = not (hasattr(value, "__dict__") or hasattr(value, "__array__"))
    if plain and " at 0x" not in (text := repr(value)):
        return text
    return _parts(value)


def describe_task(task: Callable[..., Any], *, strict: bool = False) -> dict[str, Any]:
    """Return the name of a function and the arguments of a ``functools.partial``, to compare.

    Without ``strict``, lists and dicts that it uses are left out: it may keep its log there.
    """
    if isinstance(task, functools.partial):
        try:
            bound = inspect.signature(task.func).bind_partial(*task.args, **task.keywords).arguments
        except ValueError:  # built in, without a signature
            bound = {**{str(i): value for i, value in enumerate(task.args)}, **task.keywords}
        return {**describe_task(task.func, strict=strict), **describe(bound, strict=False)}
    own = inspect.isfunction(task)
    described = _function(task, strict=strict) if own else describe(task, strict=False)
    return described if isinstance(described, dict) else {"function": described}


def _describe_object(value: Any, strict: bool) -> dict[str, Any]:
    """Describe an object that knows its arguments by its class name and these."""
    kind = type(value)
    name = getattr(value, "_name", "") or kind.__name__
    if strict and _built_in().get(name, kind) not in (kind, value):
        raise ValueError(
            f"{kind.__module__}.{kind.__qualname__}: minidl has another class of this name, so a "
            "file could not tell them apart; rename it"
        )
    config = value.config() if callable(getattr(value, "config", None)) else arguments_of(value)
    unknown = [argument for argument, given in config.items() if given is ...]
    if unknown and strict:
        raise TypeError(
            f"{name}: the argument {unknown[0]!r} is not known, and there is no attribute of "
            f"that name that can be saved; keep it as self.{unknown[0]}, or define config(), "
            "which returns the arguments as a dict"
        )
    if not strict and (unknown or (_is_own(kind) and not _has_state(kind))):
        config = {k: v for k, v in config.items() if v is not ...} | _attributes(value, config)
    owner = f"{name}: the argument "
    arguments = {k: describe(v, strict=strict, owner=f"{owner}{k!r}") for k, v in config.items()}
    return {"class": name, "arguments": arguments}


_OF_LAYERS = {"_theta", "_grad", "_training", "input_scale", "rng", "dtype"}
_OF_OPTIMIZERS = {"_theta", "_state", "_blocks", "model"}


def _attributes(value: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an object holds beside its arguments and what a checkpoint has of it."""
    left_out = {"_given", *config}
    if is_layer(value):
        left_out |= {*_OF_LAYERS, *own_names(value)}
    elif _has_state(type(value)):
        left_out |= {*_OF_OPTIMIZERS, *value.state_dict()}
    return {
        name: held
        for name, held in vars(value).items()
        if not (name in left_out or name.endswith("_init") or isinstance(held, Parameter))
    }


def _is_own(kind: type[Any]) -> bool:
    """Return whether a class is not minidl's and has no ``config`` of its own."""
    modules = kind.__module__, getattr(getattr(kind, "config", None), "__module__", "minidl.")
    return not modules[0].startswith("minidl.") and modules[1].startswith("minidl.")


def _has_state(kind: type[Any]) -> bool:
    """Return whether objects of a class, but for layers, keep what changes in a state."""
    base = "minidl.callbacks"  # whose Callback has a method without a state
    method = getattr(kind, "state_dict", None)
    return not issubclass(kind, Layer) and getattr(method, "__module__", base) != base


_SMALL, _OBJECT = 1_000_000, 100


def check_size(description: Any, arrays: Mapping[str, Array]) -> None:
    """Raise ValueError if the arrays of a file cannot be those of the objects that it describes.

    Every width of a layer is a side of an array, so all widths together are at most twice as many
    as all values; a million more may belong to layers without parameters. An object counts as 100.
    """
    widths, kinds, rest = 0, _built_in(), [description]
    while rest:
        value = rest.pop()
        if isinstance(value, Mapping):
            widths += _OBJECT * ("class" in value)
            if value.get("class") in kinds:
                widths += sum(n for n in value["arguments"].values() if type(n) is int and n > 0)
            rest += value.values()
        elif isinstance(value, list):
            rest += value
    values = sum(array.size for array in arrays.values())
    if widths > 2 * values + _SMALL:
        raise ValueError(f"expected layers for {values} saved values, got widths of {widths:.3g}")


def build(description: Any, own: Iterable[type[Any]] = ()) -> Any:
    """Return a new object from what ``describe`` returned; its parameters have no values yet.

    ``own`` are classes that are not minidl's, beside the registered ones. ValueError if a class is
    not known, or does not take its arguments.
    """
    return _build(description, {**_built_in(), **_REGISTERED, **{c.__name__: c for c in own}})


def _build(value: Any, known: Mapping[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    if "items" in value:
        items = [_build(item, known) for item in value["items"]]
        return items if value["kind"] == "list" else tuple(items)
    if "array" in value:
        if np.dtype(value["dtype"]).kind not in "biuf":
            raise ValueError(f"expected an array of numbers, got dtype {value['dtype']}")
        return np.array(value["array"], value["dtype"])
    name = value["class"]
    if name not in known:
        raise ValueError(
            f"the layer class {name!r} is not known; pass it: minidl.load(path, layers=[{name}]), "
            f"or register it: minidl.register_layer({name})"
        )
    if not isinstance(known[name], type):  # one of the maps
        return known[name]
    if "arguments" not in value or "compared" in value:
        raise ValueError(f"the file has no arguments to build {_text(value):.200}")
    signature = inspect.signature(known[name])
    options = {key: _build(encoded, known) for key, encoded in value["arguments"].items()}
    rng = signature.parameters.get("rng")
    if rng is not None and rng.default is rng.empty:
        options["rng"] = np.random.default_rng(0)
    given = inspect.BoundArguments(signature, options)
    try:
        if unknown := options.keys() - signature.parameters.keys():
            raise TypeError(f"no argument {min(unknown)!r}")
        return known[name](*given.args, **given.kwargs)
    except TypeError as error:
        raise ValueError(f"the layer class {name!r} has another constructor ({error})") from error


def difference(saved: Any, now: Any, place: str = "") -> str | None:
    """Return a sentence about the first difference of two descriptions, or None.

    It is named by its path, in which the layers of a model are numbered: "model.2.bias".
    """
    if saved == now or repr(saved) == repr(now):  # NaN is equal to NaN here
        return None
    (kind, old), (other, new) = _parts_of(saved), _parts_of(now)
    if kind is None or kind != other:
        return f"{place} was {_text(saved):.300}, now it is {_text(now):.300}"
    for name in {**old, **new}:
        if name == USES and name not in old:  # an older file
            continue
        found = difference(old.get(name), new.get(name), f"{place}.{name}".removeprefix("."))
        if found is not None:
            return found
    return None


def _parts_of(description: Any) -> tuple[Any, dict[str, Any]]:
    """Return the kind of a description, None for a value, and what is in it by name."""
    if isinstance(description, dict) and "class" in description:
        arguments = dict(description.get("arguments", {}))
        return description["class"], {**_parts_of(arguments.pop("layers", None))[1], **arguments}
    if isinstance(description, dict) and "items" in description:
        description = description["items"]
    if isinstance(description, list) and any(isinstance(item, dict) for item in description):
        return len(description), {str(i): item for i, item in enumerate(description)}
    return (dict, description) if isinstance(description, dict) else (None, {})


def _text(value: Any) -> str:
    """Return a description as the call that it stands for."""
    if isinstance(value, dict) and "class" in value:
        pairs = [(k, _text(v)) for k, v in value.get("arguments", {}).items()]
        texts = [text if name == "layers" else f"{name}={text}" for name, text in pairs]
        return f"{value['class']}({', '.join(texts)})"
    if isinstance(value, dict) and "items" in value:
        return ", ".join(map(_text, value["items"]))
    return f"[{', '.join(map(_text, value))}]" if isinstance(value, list) else repr(value)


def _parts(value: Any) -> Any:
    """Describe any other object by its class, and by what a copy of it would be made with."""
    kind = type(value)
    try:
        if hasattr(value, "__array__"):  # of another library
            values = describe(np.asarray(value), strict=False)
            return {"class": kind.__qualname__, "arguments": {"values": values}}
        made = value.__reduce_ex__(2)
    except Exception as error:  # pickle raises many kinds
        raise TypeError(
            f"{value!r:.80} cannot be compared with that of another run ({error}); define config() "
            "in its class, which returns what it was made with as a dict"
        ) from error
    _, args, state, *items = (made, (), None) if isinstance(made, str) else made + (None,) * 3
    held = state if isinstance(state, dict) else {} if state is None else {"state": state}
    args = [arg for arg in args if arg not in (kind, object, None)]
    items = [list(each) for each in items if each is not None]
    held = {**held, **({"made": args} if args else {}), **({"items": items} if items else {})}
    if callable(value):
        held["()"] = kind.__call__
    arguments = describe(held, strict=False)
    return {"class": kind.__qualname__, "arguments": arguments} if held else kind.__qualname__


def _generator(rng: np.random.Generator) -> str:
    """Return the kind of a generator, and its seed where one was given."""
    seeds: Any = rng.bit_generator.seed_seq
    entropy = getattr(seeds, "entropy", None)
    by_system = entropy is None or (isinstance(entropy, int) and entropy >> 96)
    if by_system or str(rng).endswith(f"({entropy})"):
        return str(rng)
    return f"{rng}, seed {entropy} {seeds.spawn_key or ''}".strip()


USES = "what it uses"


def _function(function: Any, *, strict: bool = True) -> Any:
    """Return the name of a function or class with a digest of its source, and what it uses.

    ``_used`` says what that is, of it and of the functions of its module that it uses. Without
    ``strict``, lists and dicts and what cannot be described are left out.
    """
    of = getattr(function, "__self__", None)
    if of is not None and not inspect.ismodule(of):  # a method
        method: Any = getattr(function, "__func__", _named(function))
        return {**describe_task(method, strict=True), "of": describe(of, strict=False)}
    if not hasattr(function, "__code__"):  # a class, or built in, or as those of functools.cache
        wrapped = getattr(function, "__wrapped__", None)
        return _named(function) if wrapped is None else describe(wrapped, strict=False)
    used: dict[str, Any] = {}
    seen, rest = {function}, [function]
    while rest:
        one = rest.pop()
        for name, value in _used(one):
            path = name if one is function else f"{one.__qualname__}.{name}"
            if inspect.isfunction(value):
                used[value.__qualname__] = _named(value)
                rest += {value} - seen
                seen.add(value)
            elif strict or not isinstance(value, (list, dict, set)):
                with contextlib.suppress(*(() if strict else (TypeError, RecursionError))):
                    used[path] = describe(value, strict=False)
    used.pop(function.__qualname__, None)
    return {"function": _named(function), USES: used} if used else _named(function)


def _used(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of what a function uses.

    Its closure and defaults, and of its module functions and constants: numbers, text, tuples.
    """
    code, module = function.__code__, function.__module__ or ""
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a cell that is not filled
            yield name, cell.cell_contents
    arguments = code.co_varnames[: code.co_argcount]
    yield from zip(reversed(arguments), reversed(function.__defaults__ or ()), strict=False)
    yield from (function.__kwdefaults__ or {}).items()
    if module.startswith("minidl.") or "site-packages" in code.co_filename:
        return
    names = {name for each in _codes(code) for name in each.co_names}
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        own = inspect.isfunction(value) and value.__module__ == module
        if own or isinstance(value, (bool, int, float, complex, str, tuple)):
            yield name, value


def _named(function: Any) -> str:
    """Return the module and name of a function or class, with a digest of its source."""
    module = function.__module__
    if module == "__main__":  # a script: the name of its file
        module = Path(getattr(sys.modules["__main__"], "__file__", None) or module).stem
    name = f"{module}.{function.__qualname__}"
    source = _source(function)
    return f"{name}, source {_digest(source.encode())[:8]}" if source else name


def _source(function: Any) -> str:
    """Return the source of a function or class without comments, else what Python made of it."""
    import ast  # slow to import, as textwrap
    import textwrap

    source, code = "", getattr(function, "__code__", None)
    with contextlib.suppress(OSError, TypeError, SyntaxError):  # built in, or typed at a prompt
        source = ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(code or function))))
    if code is not None and (not source or source.count("lambda") > 1):  # which of a line's?
        source += str([(each.co_code, each.co_names, _constants(each)) for each in _codes(code)])
    return source


def _codes(code: CodeType) -> list[CodeType]:
    """Return a code object and those in it."""
    return [code, *(c for k in code.co_consts if isinstance(k, CodeType) for c in _codes(k))]


def _constants(code: CodeType) -> list[str]:
    return [repr(k) for k in code.co_consts if not isinstance(k, (CodeType, frozenset))]


def _digest(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()
