"""Networks from our layers to ``torch.nn`` modules and back, with their weights.

``COUNTERPARTS`` lists each layer class with the module class that computes the same. A new layer
adds an entry to it; a user's own layer joins by ``register``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from minidl.activations import (
    ELU,
    GELU,
    Entmax15,
    LeakyReLU,
    Quadratic,
    ReLU,
    Relumax,
    Sigmoid,
    SiLU,
    Simplex,
    Softmax,
    Softplus,
    Sparsemax,
    Tanh,
)
from minidl.layer import Layer, Sequential
from minidl.layers import BatchNorm, Dropout, Flatten, Identity, LayerNorm, Linear, Residual
from minidl.parameter import named_layers
from minidl.parity import modules, simplex
from minidl.parity.tracing import trace
from minidl.safetensors import load_torch_state, torch_state
from minidl.state import own_names
from minidl.typing import Rng


@dataclass(frozen=True)
class Convert:
    """``convert(child, name)`` converts a layer or module that is inside another one."""

    convert_part: Callable[[Any, Convert], Any]
    path: tuple[str, ...] = ()

    def __call__(self, child: Any, name: str) -> Any:
        return self.convert_part(child, Convert(self.convert_part, (*self.path, name)))

    def __str__(self) -> str:
        """The position in the whole network, for messages."""
        return f"module {'.'.join(self.path)}, " if self.path else ""


ToTorch = Callable[[Any, Convert], nn.Module]
FromTorch = Callable[[Any, Convert], Layer]


@dataclass(frozen=True)
class Counterpart:
    """A layer class and the module class that computes the same.

    Attributes
    ----------
    ours : class of layers
    theirs : class of modules
    to_torch : callable, optional
        ``to_torch(layer, convert)`` makes the module; by default ``theirs()``.
    from_torch : callable, optional
        ``from_torch(module, convert)`` makes the layer, with any values; by default ``ours()``.
    """

    ours: type[Any]
    theirs: type[Any]
    to_torch: ToTorch | None = None
    from_torch: FromTorch | None = None


def _torch_sequential(layer: Sequential, convert: Convert) -> nn.Module:
    return nn.Sequential(*[convert(inner, str(i)) for i, inner in enumerate(layer)])


def _children(module: nn.Sequential, convert: Convert, prefix: str = "") -> list[Layer]:
    return [convert(child, prefix + name) for name, child in module.named_children()]


def _torch_linear(layer: Linear, convert: Convert) -> nn.Module:
    return nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)


def _our_linear(module: nn.Linear, convert: Convert) -> Layer:
    bias = module.bias is not None
    return Linear(module.in_features, module.out_features, bias=bias, rng=0)


def _our_layer_norm(module: nn.LayerNorm, convert: Convert) -> Layer:
    if len(module.normalized_shape) > 1 or module.weight is None or module.bias is None:
        raise ValueError(
            "from_torch: expected a LayerNorm over one axis with weight and bias, "
            f"got {convert}{module!r}"
        )
    return LayerNorm(module.normalized_shape[0], eps=module.eps)


def _our_batch_norm(module: nn.BatchNorm1d, convert: Convert) -> Layer:
    if not (module.affine and module.track_running_stats):
        raise ValueError(
            "from_torch: expected a BatchNorm1d with weight, bias and running statistics, "
            f"got {convert}{module!r}"
        )
    return BatchNorm(module.num_features, momentum=module.momentum, eps=module.eps)


def _our_softplus(module: nn.Softplus, convert: Convert) -> Layer:
    if module.beta != 1:
        raise ValueError(f"from_torch: expected a Softplus of beta 1, got {convert}{module!r}")
    return Softplus()


def _our_flatten(module: nn.Flatten, convert: Convert) -> Layer:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise ValueError(
            f"from_torch: expected a Flatten of all axes but the first, got {convert}{module!r}"
        )
    return Flatten()


def _torch_simplex(layer: Simplex, convert: Convert) -> nn.Module:
    return simplex.Simplex(layer.map, layer.axis)


COUNTERPARTS: list[Counterpart] = [
    Counterpart(ReLU, nn.ReLU),
    Counterpart(Tanh, nn.Tanh),
    Counterpart(Sigmoid, nn.Sigmoid),
    Counterpart(SiLU, nn.SiLU),
    Counterpart(Softplus, nn.Softplus, from_torch=_our_softplus),
    Counterpart(
        GELU,
        nn.GELU,
        lambda layer, _: nn.GELU(layer.approximate),
        lambda module, _: GELU(module.approximate),
    ),
    Counterpart(
        LeakyReLU,
        nn.LeakyReLU,
        lambda layer, _: nn.LeakyReLU(layer.slope),
        lambda module, _: LeakyReLU(module.negative_slope),
    ),
    Counterpart(
        ELU, nn.ELU, lambda layer, _: nn.ELU(layer.alpha), lambda module, _: ELU(module.alpha)
    ),
    Counterpart(Identity, nn.Identity),
    Counterpart(Flatten, nn.Flatten, from_torch=_our_flatten),
    Counterpart(Quadratic, modules.Quadratic),
    Counterpart(Linear, nn.Linear, _torch_linear, _our_linear),
    Counterpart(
        LayerNorm,
        nn.LayerNorm,
        lambda layer, _: nn.LayerNorm(layer.in_features, eps=layer.eps),
        _our_layer_norm,
    ),
    Counterpart(
        BatchNorm,
        nn.BatchNorm1d,
        lambda layer, _: nn.BatchNorm1d(layer.in_features, eps=layer.eps, momentum=layer.momentum),
        _our_batch_norm,
    ),
    Counterpart(
        Dropout,
        nn.Dropout,
        lambda layer, _: nn.Dropout(layer.p),
        lambda module, _: Dropout(module.p),
    ),
    Counterpart(Dropout, modules.SameMasks, from_torch=lambda module, _: Dropout(module.p)),
    Counterpart(
        Softmax,
        nn.Softmax,
        lambda layer, _: nn.Softmax(layer.axis),
        lambda module, _: Softmax(-1 if module.dim is None else module.dim),
    ),
    Counterpart(
        Simplex,
        simplex.Simplex,
        _torch_simplex,
        lambda module, _: Simplex(module.map, module.dim),
    ),
    Counterpart(Sparsemax, simplex.Simplex, _torch_simplex),
    Counterpart(Entmax15, simplex.Simplex, _torch_simplex),
    Counterpart(Relumax, simplex.Simplex, _torch_simplex),
    Counterpart(
        Sequential,
        nn.Sequential,
        _torch_sequential,
        lambda module, convert: Sequential(*_children(module, convert)),
    ),
    Counterpart(
        Residual,
        modules.Residual,
        lambda layer, convert: modules.Residual(convert(layer.inner, "inner")),
        lambda module, convert: Residual(*_children(module.inner, convert, "inner.")),
    ),
]
"""An entry for each layer class. The first entry with a class converts that class."""


def register(
    ours: type[Any],
    theirs: type[Any],
    to_torch: ToTorch | None = None,
    from_torch: FromTorch | None = None,
) -> None:
    """Make ``to_torch``, ``from_torch`` and ``compare`` know a layer class of your own.

    The parameters of the layer and of the module have the same names, order and shapes; only the
    weight of a ``Linear`` is transposed. Their values are copied for you. An entry for a class
    that has one already takes precedence over it.

    Parameters
    ----------
    ours : class of layers
    theirs : class of modules
        Computes the same as ``ours``; autograd gives its gradients.
    to_torch : callable, optional
        ``to_torch(layer, convert)`` makes a module of the layer's sizes; ``convert(inner, name)``
        converts a layer inside it, which becomes the module's attribute ``name``. By default
        ``theirs()``.
    from_torch : callable, optional
        ``from_torch(module, convert)``: the reverse. The layer's parameters have values, of any
        kind. By default ``ours()``.

    Examples
    --------
    >>> minidl.parity.register(Square, TorchSquare)  # neither has sizes
    >>> minidl.parity.register(
    ...     Scale,
    ...     TorchScale,
    ...     to_torch=lambda layer, convert: TorchScale(layer.features),
    ...     from_torch=lambda module, convert: Scale(module.features),
    ... )
    """
    COUNTERPARTS.insert(0, Counterpart(ours, theirs, to_torch, from_torch))


def to_torch(model: Layer, *, same_masks: bool = False) -> nn.Module:
    """Return the PyTorch module that computes what ``model`` does, with a copy of its weights.

    Parameters
    ----------
    model : Layer
        Any network made of this library's layers and of registered ones. A Residual, and an
        activation that ``torch.nn`` lacks, become small modules of ``minidl.parity.modules``.
    same_masks : bool
        Whether Dropout becomes a module that draws the masks that ours will draw, instead of
        ``nn.Dropout``.

    Raises
    ------
    TypeError
        If a layer has no counterpart; the message names it and its position.
    """
    streams: dict[int, Any] = {}  # a stream that several layers share is shared in the copy too

    def part(layer: Any, convert: Convert) -> nn.Module:
        if same_masks and type(layer) is Dropout:
            return modules.SameMasks(layer.p, copy.deepcopy(layer.rng, streams))
        for entry in COUNTERPARTS:
            if entry.ours is type(layer):
                return entry.to_torch(layer, convert) if entry.to_torch else entry.theirs()
        raise TypeError(f"to_torch: no PyTorch counterpart of {convert}{layer!r}")

    with torch.device("meta"):  # draws no random numbers and allocates no memory
        module = part(model, Convert(part))
    state = {name: torch.from_numpy(value) for name, value in torch_state(model).items()}
    module.load_state_dict(state, assign=True)
    return module


_DTYPES = {torch.float32: "float32", torch.float64: "float64"}


def from_torch(module: nn.Module, *, rng: Rng | None = None) -> Layer:
    """Return the network of our layers that computes what ``module`` does, with its weights.

    Parameters
    ----------
    module : nn.Module
        In float32 or float64: a module that has a counterpart, a ``nn.Sequential`` of such modules,
        the result of ``to_torch``, or a module of your own whose ``forward`` calls such modules
        and common functions (``F.relu``, ``torch.flatten``, ...) one after another, which becomes a
        ``Sequential`` in the order of the calls.
    rng : int or Generator, optional
        For the streams of Dropout layers; without it they cannot train.

    Raises
    ------
    TypeError, ValueError
        If a module has no counterpart, or only with other options; if the parameters are of
        another dtype, or of several. The message names the module and its position.
    """
    values = [value for _, value in module.named_parameters(remove_duplicate=False)]
    dtypes = {value.dtype for value in values} or {torch.float32}
    if len(dtypes) > 1 or not dtypes <= _DTYPES.keys():
        raise ValueError(
            "from_torch: expected parameters of dtype float32 or float64, the same for all, "
            f"got {', '.join(sorted(map(str, dtypes)))}"
        )
    if len({id(value) for value in values}) < len(values):
        raise ValueError("from_torch: a module occurs twice; shared parameters are not supported")
    entries = {entry.theirs: entry for entry in reversed(COUNTERPARTS)}  # the first one counts
    tensors: dict[tuple[int, str], torch.Tensor] = {}  # by layer and name
    used: set[int] = set()

    def part(module: Any, convert: Convert) -> Layer:
        entry = entries.get(type(module))
        if entry is not None:
            made = entry.from_torch(module, convert) if entry.from_torch else entry.ours()
            # In order, the tensors that no inner part has taken yet are those of this layer.
            theirs = [t for t in module.state_dict(keep_vars=True).values() if id(t) not in used]
            names = [(id(m), n) for _, m in named_layers(made) for n in own_names(m)]
            ours = [name for name in names if name not in tensors]
            if len(ours) != len(theirs):
                raise ValueError(
                    f"from_torch: {convert}{type(module).__name__} has {len(theirs)} tensors that "
                    f"are not used yet, and {made!r} needs {len(ours)}; does a module occur twice?"
                )
            tensors.update(zip(ours, theirs, strict=True))
            used.update(map(id, theirs))
            return cast(Layer, made)
        if type(module).__module__.startswith("torch.nn"):
            raise TypeError(f"from_torch: no counterpart of {convert}{module!r}")
        try:
            steps = list(trace(module, lambda inner: type(inner) in entries))
        except TypeError as error:
            name = type(module).__name__
            raise TypeError(f"from_torch: no counterpart of {convert}{name}: {error}") from error
        return Sequential(*[s if isinstance(s, Layer) else convert(s, name) for name, s in steps])

    model, dtype = part(module, Convert(part)), np.dtype(_DTYPES[dtypes.pop()])
    for _, parameter in model.named_parameters():
        parameter.initialize(np.random.default_rng(0), dtype)  # to be replaced
    model.initialize(dtype=dtype)
    state = {
        prefix + name: tensors[id(layer), name].detach().cpu().numpy()
        for prefix, layer in named_layers(model)
        for name in own_names(layer)
    }
    load_torch_state(model, state)
    return model.initialize(rng)
