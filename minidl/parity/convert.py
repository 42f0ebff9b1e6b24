"""Networks from our layers to ``torch.nn`` modules and back, with their weights.

A layer of the catalogue with the name and arguments of a class of ``torch.nn`` is known by itself,
and so is any layer whose ONNX operators PyTorch has too. Others are in ``COUNTERPARTS``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minidl.activations import Entmax15, LeakyReLU, Relumax, Simplex, Softmax, Sparsemax
from minidl.checks import Rng
from minidl.layer import Layer, Sequential
from minidl.layers import BatchNorm, Dropout, LayerNorm, Residual
from minidl.parity import formulas
from minidl.saving.onnx import NODES
from minidl.saving.safetensors import load_torch_state, torch_state
from minidl.testing.catalogue import LAYERS


class Operand(Tensor):  # type: ignore[misc]
    """A tensor that takes operators by their ONNX names, as ``minidl.saving.onnx.Value`` does."""

    def op(self, name: str, *others: Any) -> Any:
        """Return the result of an operator on this tensor and others, which may be numbers."""
        function = getattr(torch, {"Max": "maximum", "Min": "minimum"}.get(name, name.lower()))
        return function(self, *[torch.as_tensor(other, dtype=self.dtype) for other in others])


class Operators(nn.Module):  # type: ignore[misc]
    """The ONNX operators of a layer, computed and differentiated by PyTorch."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer)
        for name, ours in layer.named_parameters():
            self.register_parameter(name, nn.Parameter(torch.empty(ours.shape)))

    def forward(self, x: Tensor) -> Tensor:
        layer = copy.copy(self.layer)
        for name, theirs in self.named_parameters():
            vars(layer)[name] = SimpleNamespace(value=theirs.as_subclass(Operand))
        y: Tensor = NODES[type(layer).forward](layer, x.as_subclass(Operand))
        return y.as_subclass(Tensor)


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


Convert = Callable[[Any, str], Any]
"""``convert(child, name)`` converts a layer or module that is inside another one."""

Converter = Callable[[Any, Convert], Any]
COUNTERPARTS: dict[type[Any], Converter] = {}
"""For each class of layers what makes the module, and for each class of modules the layer."""


def register(
    ours: type[Any],
    theirs: type[Any],
    to_torch: Converter | None = None,
    from_torch: Converter | None = None,
) -> None:
    """Make ``to_torch``, ``from_torch`` and ``compare`` know a layer class of your own.

    The parameters and buffers of the layer and of the module have the same names and shapes; only
    the weight of a ``Linear`` is transposed. Their values are copied for you. A class that is known
    already gets the new converter.

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
        ``from_torch(module, convert)``: the reverse. By default ``ours()``.

    Examples
    --------
    >>> minidl.parity.convert.register(
    ...     Scale,
    ...     TorchScale,
    ...     to_torch=lambda layer, convert: TorchScale(layer.features),
    ...     from_torch=lambda module, convert: Scale(module.features),
    ... )
    """
    COUNTERPARTS[ours] = to_torch or (lambda layer, convert: theirs())
    COUNTERPARTS[theirs] = from_torch or (lambda module, convert: ours())


def _options(module: nn.Module) -> dict[str, Any]:
    """Return a module's arguments: a tensor stands for True, a shape of one axis for its length."""
    names = inspect.signature(type(module)).parameters.keys() - {"inplace"}
    found = {name: getattr(module, name) for name in names if hasattr(module, name)}
    found |= {name: True for name, value in found.items() if isinstance(value, Tensor)}
    return {k: v[0] if isinstance(v, tuple) and len(v) == 1 else v for k, v in found.items()}


def _register_namesakes(ours: type[Any], theirs: type[Any], **names: str) -> None:
    """Register two classes with the same arguments; ``names`` has theirs by ours."""

    def there(layer: Any, convert: Convert) -> nn.Module:
        return theirs(**{names.get(name, name): x for name, x in layer.config().items()})

    def back(module: Any, convert: Any) -> Layer:
        given, known = _options(module), inspect.signature(ours).parameters
        options = {n: given[names.get(n, n)] for n in known if names.get(n, n) in given}
        refused = f"from_torch: no counterpart of {convert.where}{module!r}"
        try:
            layer: Layer = ours(**options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{refused} ({error})") from error
        nearest = there(layer, convert)
        if _options(nearest) != given:
            raise ValueError(f"{refused}, only of {nearest!r}")
        return layer

    register(ours, theirs, there, back)


for kind in {type(make(1, 1)) for make in LAYERS.values()}:
    if hasattr(nn, kind.__name__):
        _register_namesakes(kind, getattr(nn, kind.__name__))
_register_namesakes(LeakyReLU, nn.LeakyReLU, slope="negative_slope")
_register_namesakes(LayerNorm, nn.LayerNorm, features="normalized_shape")
_register_namesakes(BatchNorm, nn.BatchNorm1d, features="num_features")
_register_namesakes(Softmax, nn.Softmax, axis="dim")
for kind in (Simplex, Sparsemax, Entmax15, Relumax):
    register(
        kind,
        formulas.Simplex,
        lambda layer, _: formulas.Simplex(layer.map, layer.axis),
        lambda module, _: Simplex(module.map, module.dim),
    )
register(
    Sequential,
    nn.Sequential,
    lambda layer, convert: nn.Sequential(*[convert(f, str(i)) for i, f in enumerate(layer)]),
    # Not named_children(), which leaves out a module that occurs again.
    lambda module, convert: Sequential(*[convert(f, n) for n, f in module._modules.items()]),
)
register(
    Residual,
    TorchResidual,
    lambda layer, convert: TorchResidual(convert(layer.inner, "inner")),
    lambda module, convert: Residual(*convert(module.inner, "inner")),
)
COUNTERPARTS[Operators] = lambda module, _: copy.deepcopy(module.layer)


def _has_operators(layer: Any) -> bool:
    """Whether its ONNX operators, those of inference, are all that a layer does."""
    if vars(type(layer)).get("forward") not in NODES or layer.buffers or hasattr(layer, "rng"):
        return False
    return not any("." in name for name, _ in layer.named_parameters())  # no layers inside


class _Conversion:
    """``convert(child, name)`` at a position in a network; ``part(whole, convert)`` converts."""

    def __init__(self, part: Callable[[Any, Any], Any], path: str = "") -> None:
        self.part, self.path, self.where = part, path, f"module {path}, " if path else ""

    def __call__(self, child: Any, name: str = "") -> Any:
        inner = _Conversion(self.part, f"{self.path}.{name}".strip("."))
        with torch.device("meta"):  # draws no random numbers and allocates no memory
            return self.part(child, inner)


def to_torch(model: Layer, *, same_masks: bool = False) -> nn.Module:
    """Return the PyTorch module that computes what ``model`` does, with a copy of its weights.

    TypeError if a layer has no counterpart, with its name and position.

    Parameters
    ----------
    model : Layer
        Made of this library's layers and of registered ones. What ``torch.nn`` lacks becomes a
        small module of ``minidl.parity.convert``.
    same_masks : bool
        Whether Dropout draws the masks that ours will draw, instead of ``nn.Dropout``'s.
    """
    streams: dict[int, Any] = {}  # a stream that several layers share is shared in the copy too

    def part(layer: Any, convert: _Conversion) -> nn.Module:
        if same_masks and type(layer) is Dropout:
            return SameMasks(layer.p, copy.deepcopy(layer.rng, streams))
        if type(layer) in COUNTERPARTS:
            module: nn.Module = COUNTERPARTS[type(layer)](layer, convert)
            return module
        if _has_operators(layer):
            return Operators(layer)
        raise TypeError(f"to_torch: no PyTorch counterpart of {convert.where}{layer!r}")

    module: nn.Module = _Conversion(part)(model)
    state = {name: torch.from_numpy(value) for name, value in torch_state(model).items()}
    module.load_state_dict(state, assign=True)
    return module


def from_torch(module: nn.Module, *, rng: Rng | None = None) -> Layer:
    """Return the network of our layers that computes what ``module`` does, with its weights.

    TypeError or ValueError, with the position, for a module that has no counterpart, or none with
    these options; ValueError for parameters of another dtype, or of several.

    Parameters
    ----------
    module : nn.Module
        In float32 or float64: one that has a counterpart, or ``nn.Sequential``s of such modules. A
        module with a ``forward`` of its own needs an entry by ``register``.
    rng : int or Generator, optional
        For the streams of Dropout layers; without it they cannot train.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"from_torch: expected a module of PyTorch, got {module!r:.80}")
    values = [value for _, value in module.named_parameters(remove_duplicate=False)]
    dtypes = sorted({str(value.dtype) for value in values}) or ["torch.float32"]
    if dtypes not in (["torch.float32"], ["torch.float64"]):
        want = "parameters of dtype float32 or float64, the same for all"
        raise ValueError(f"from_torch: expected {want}, got {', '.join(dtypes)}")
    if len({id(value) for value in values}) < len(values):
        raise ValueError("from_torch: a module occurs twice; shared parameters are not supported")

    def part(module: Any, convert: _Conversion) -> Layer:
        kind = type(module)
        if kind not in COUNTERPARTS and kind.forward is nn.Sequential.forward:
            kind = nn.Sequential  # a subclass that only builds its modules
        if kind not in COUNTERPARTS:
            what = kind.__name__ if any(module.children()) else repr(module)
            raise TypeError(
                f"from_torch: no counterpart of {convert.where}{what}; build the network as a "
                "nn.Sequential, or give the class a counterpart by minidl.parity.register"
            )
        layer: Layer = COUNTERPARTS[kind](module, convert)
        return layer

    model: Layer = _Conversion(part)(module)
    dtype = np.dtype(dtypes.pop().removeprefix("torch."))
    for _, parameter in model.named_parameters():
        parameter.initialize(np.random.default_rng(0), dtype)  # to be replaced
    model.initialize(dtype=dtype)
    numbered = copy.deepcopy(module)  # with the names of ours
    for chain in numbered.modules():
        if isinstance(chain, nn.Sequential):
            chain._modules = {str(i): part for i, part in enumerate(chain._modules.values())}
    load_torch_state(model, {k: v.numpy(force=True) for k, v in numbered.state_dict().items()})
    return model.initialize(rng)
