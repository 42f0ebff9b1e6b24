"""Networks from our layers to ``torch.nn`` modules and back, with their weights.

``COUNTERPARTS`` lists each layer class with the module class that computes the same. A new layer
adds an entry to it; a user's own layer joins by ``register``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn

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
from minidl.checks import Rng
from minidl.layer import Layer, Sequential
from minidl.layers import BatchNorm, Dropout, Flatten, Identity, LayerNorm, Linear, Residual
from minidl.parameter import named_layers, own_names
from minidl.parity import formulas as simplex
from minidl.saving.safetensors import load_torch_state, torch_state


class TorchQuadratic(nn.Module):  # type: ignore[misc]
    """``x (1 - x)``."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 - x)


class TorchResidual(nn.Module):  # type: ignore[misc]
    """``x + f(x)``."""

    def __init__(self, inner: nn.Sequential) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class SameMasks(nn.Module):  # type: ignore[misc]
    """Dropout that draws from a copy of our layer's stream, so that both drop the same entries.

    Only the draw is the same: the scaling is PyTorch's arithmetic.
    """

    def __init__(self, p: float, rng: np.random.Generator | None) -> None:
        super().__init__()
        self.p, self.rng = p, rng

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if self.rng is None:
            raise ValueError(f"Dropout({self.p:g}): needs rng= to train")
        keep = torch.from_numpy(self.rng.random(tuple(x.shape), dtype=np.float32) >= self.p)
        return x * keep / (1 - self.p) if self.p < 1 else x * 0


def _flatten(start_dim: int = 0, end_dim: int = -1) -> Layer:
    if (start_dim, end_dim) != (1, -1):
        raise TypeError("expected all axes but the first")
    return Flatten()


def _view(rows: Any, features: Any = None) -> Layer:
    sizes = rows if isinstance(rows, tuple) else (rows, features)
    # The rows are -1 or read off the shape of the input; the features are -1 or a number.
    if len(sizes) != 2 or not (sizes[0] == -1 or isinstance(sizes[0], fx.Node)):
        raise TypeError("expected a view of one row for each example")
    return Flatten()


def _softplus(beta: float = 1, threshold: float = 20) -> Layer:
    if beta != 1:
        raise TypeError("expected beta 1")
    return Softplus()


FUNCTIONS: dict[str, Callable[..., Layer]] = {
    "relu": lambda inplace=False: ReLU(),
    "tanh": Tanh,
    "sigmoid": Sigmoid,
    "silu": lambda inplace=False: SiLU(),
    "gelu": lambda approximate="none": GELU(approximate),
    "leaky_relu": lambda negative_slope=0.01, inplace=False: LeakyReLU(negative_slope),
    "elu": lambda alpha=1.0, inplace=False: ELU(alpha),
    "softplus": _softplus,
    "softmax": lambda dim, _stacklevel=3, dtype=None: Softmax(dim),
    "dropout": lambda p=0.5, training=True, inplace=False: Dropout(p),
    "contiguous": Identity,
    "flatten": _flatten,
    "view": _view,
    "reshape": _view,
}
"""Functions and methods of tensors by name, with the layers that compute the same."""


class _Tracer(fx.Tracer):  # type: ignore[misc]
    """Follows the modules of users; those with a counterpart are steps of the chain."""

    def __init__(self, has_counterpart: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.has_counterpart = has_counterpart

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self.has_counterpart(m) or type(m).__module__.startswith("torch.nn")


def trace(
    module: nn.Module, has_counterpart: Callable[[nn.Module], bool]
) -> Iterator[tuple[str, Any]]:
    """Yield the steps of a module's forward: a name, and an inner module or a layer of ours.

    Parameters
    ----------
    module : nn.Module
    has_counterpart : callable
        Whether a module is a step by itself.

    Raises
    ------
    TypeError
        If the forward pass is not such a chain; the message names the step.
    """
    try:
        graph = _Tracer(has_counterpart).trace(module)
    except Exception as error:  # torch.fx raises whatever the module's code does on a proxy
        raise TypeError(f"its forward cannot be traced ({error})") from error
    previous: Any = None
    for node in graph.nodes:
        if node.op == "placeholder":
            if previous is not None:
                raise TypeError(f"its forward takes more than one input, {node.name!r}")
            previous = node
            continue
        if _is_size(node):
            continue
        if node.op == "output":
            if node.args[0] is not previous:
                raise TypeError("its forward does not return the result of its last step")
            return
        inputs = [n for n in node.all_input_nodes if not _is_size(n)]
        if inputs != [previous] or node.args[:1] != (previous,):
            raise TypeError(f"its forward is not a chain at {node.format_node()!r}")
        previous = node
        if node.op == "call_module":
            yield node.target, module.get_submodule(node.target)
        else:
            yield node.name, _layer(node)


def _is_size(node: fx.Node) -> bool:
    """Return whether a node reads a size off the shape of a tensor, for a view."""
    name = node.target if isinstance(node.target, str) else node.target.__name__
    if name in ("size", "getattr"):
        return name == "size" or node.args[1] == "shape"
    return name == "getitem" and isinstance(node.args[0], fx.Node) and _is_size(node.args[0])


def _layer(node: fx.Node) -> Layer:
    name = node.target if isinstance(node.target, str) else node.target.__name__
    if node.op not in ("call_function", "call_method") or name not in FUNCTIONS:
        raise TypeError(f"its forward calls {name!r}, which has no counterpart")
    try:
        return FUNCTIONS[name](*node.args[1:], **node.kwargs)
    except TypeError as error:
        raise TypeError(
            f"its forward calls {name!r} with options that have no counterpart ({error})"
        ) from error


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
    Counterpart(Quadratic, TorchQuadratic),
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
    Counterpart(Dropout, SameMasks, from_torch=lambda module, _: Dropout(module.p)),
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
        TorchResidual,
        lambda layer, convert: TorchResidual(convert(layer.inner, "inner")),
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
    >>> minidl.parity.convert.register(Square, TorchSquare)  # neither has sizes
    >>> minidl.parity.convert.register(
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
        activation that ``torch.nn`` lacks, become small modules of ``minidl.parity.convert``.
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
            return SameMasks(layer.p, copy.deepcopy(layer.rng, streams))
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
