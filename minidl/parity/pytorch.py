"""A model, its loss and its optimizer in PyTorch, behind this library's contracts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minidl.layer import Layer
from minidl.losses import Loss
from minidl.optim import Optimizer
from minidl.parameter import Parameter
from minidl.parity.convert import to_torch
from minidl.parity.losses import criterion
from minidl.parity.optim import learning_rates, torch_optimizer
from minidl.safetensors import transposed
from minidl.state import Snapshot
from minidl.typing import Array, Backward


def torch_counterparts(
    model: Layer, loss: Loss, optimizer: Optimizer
) -> tuple[TorchModel, TorchLoss, TorchOptimizer]:
    """Return a model, a loss and an optimizer that compute the same with PyTorch and autograd.

    They keep this library's contracts and the layout of its vectors, so ``fit`` and ``evaluate``
    take them too.

    Parameters
    ----------
    model : Layer
    loss : Loss
    optimizer : Optimizer
        The model's optimizer, new or after any number of steps.

    Raises
    ------
    TypeError
        If a part has no counterpart in PyTorch.
    ValueError
        If the optimizer was made for another model.
    """
    if optimizer.model is not model:
        raise ValueError("torch_counterparts: the optimizer was made for another model")
    theirs = TorchModel(model)
    return theirs, TorchLoss(loss), TorchOptimizer(theirs, optimizer)


class TorchModel(Layer):
    """A PyTorch module with the contract of a layer; it gives no gradient of the input.

    Its Dropout draws the masks that the original model will draw.
    """

    skips_input_grad = True

    def __init__(self, model: Layer) -> None:
        self.module = to_torch(model, same_masks=True)
        self._transposed = transposed(model)
        self._shapes = {name: p.shape for name, p in model.named_parameters()}
        self._dtype = model.dtype
        self._name = f"TorchModel({model!r})"

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        self.module.train(train)
        logits = self.module(torch.tensor(x))

        def backward(dy: Array, input_grad: bool = False) -> None:
            self.module.zero_grad()
            logits.backward(torch.tensor(dy))

        return logits.detach().numpy(), backward

    def __call__(self, x: Array) -> Array:
        with torch.no_grad():
            return self.forward(x)[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the model that was converted: ``fit`` and ``outputs`` convert rows to it."""
        return self._dtype

    @property
    def theta(self) -> Array:
        """A read-only copy of all parameters, laid out as ``theta`` of our model."""
        return self.gather(p.detach() for p in self.module.parameters())

    @property
    def grad(self) -> Array:
        """A read-only copy of all gradients, laid out as ``grad`` of our model."""
        return self.gather(p.grad for p in self.module.parameters())

    def snapshot(self) -> Snapshot:
        """Return a copy of all parameters and buffers, in our layout."""
        buffers = {name: value.numpy().copy() for name, value in self.module.named_buffers()}
        return Snapshot(self.theta, buffers)

    def restore(self, snapshot: Snapshot) -> None:
        """Set all parameters and buffers to those of a snapshot in our layout."""
        with torch.no_grad():
            for p, tensor in zip(
                self.module.parameters(), self.scatter(snapshot.theta), strict=True
            ):
                p.copy_(tensor)
            for name, buffer in self.module.named_buffers():
                buffer.copy_(torch.from_numpy(np.asarray(snapshot.buffers[name])))

    def gather(self, tensors: Iterable[Tensor]) -> Array:
        """Join one of PyTorch's tensors for each parameter into one vector in our layout."""
        pieces = [
            (t.T if name in self._transposed else t).numpy().ravel()
            for name, t in zip(self._shapes, tensors, strict=True)
        ]
        vector = np.concatenate(pieces)
        vector.setflags(write=False)
        return vector

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield a copy of every parameter in our layout, with our names."""
        return ((name, Parameter(piece)) for name, piece in self._pieces(self.theta))

    def scatter(self, vector: Array) -> list[Tensor]:
        """Split a vector in our layout into PyTorch's tensors; the inverse of ``gather``."""
        return [
            torch.tensor(piece.T if name in self._transposed else piece)
            for name, piece in self._pieces(vector)
        ]

    def _pieces(self, vector: Array) -> Iterator[tuple[str, Array]]:
        """Yield the piece of a vector in our layout that belongs to each parameter."""
        ends = np.cumsum([np.prod(shape, dtype=int) for shape in self._shapes.values()])
        pieces = np.split(vector, ends[:-1])
        for piece, (name, shape) in zip(pieces, self._shapes.items(), strict=True):
            yield name, piece.reshape(shape)

    def __repr__(self) -> str:
        return self._name


class TorchLoss:
    """``value, dlogits = loss(logits, y)`` by PyTorch and autograd, or with weights (n,)."""

    def __init__(self, loss: Loss) -> None:
        self._criterion = criterion(loss)
        self.reduction = getattr(loss, "reduction", "mean")
        self.metrics = getattr(loss, "metrics", {})
        self.class_labels = getattr(loss, "class_labels", None)

    def __call__(self, logits: Array, y: Array, weight: Array | None = None) -> tuple[float, Array]:
        z = torch.tensor(logits, requires_grad=True)
        targets = torch.from_numpy(y.astype(np.int64 if y.dtype.kind in "iu" else logits.dtype))
        weights = [] if weight is None else [torch.from_numpy(weight.astype(logits.dtype))]
        value = self._criterion(z, targets, *weights)
        (dlogits,) = torch.autograd.grad(value, z)
        return value.item(), dlogits.numpy()


class TorchOptimizer:
    """``step()`` by PyTorch, starting from the state of our optimizer."""

    def __init__(self, model: TorchModel, ours: Optimizer) -> None:
        self.model, self.steps, self.lr_at = model, ours.steps, ours.lr_at
        self._parameters = list(model.module.parameters())
        self._inner: Any = torch_optimizer(ours, self._parameters)
        self._clip_norm = ours.clip_norm
        self._rates = islice(learning_rates(ours.lr), ours.steps, None)
        if self.steps:
            for name, vector in ours.torch_moments().items():
                for p, tensor in zip(self._parameters, model.scatter(vector), strict=True):
                    self._inner.state[p] |= {"step": torch.tensor(float(self.steps)), name: tensor}

    def step(self) -> None:
        """Update the parameters from their gradients."""
        lr = next(self._rates)
        for group in self._inner.param_groups:
            group["lr"] = lr
        if self._clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        self._inner.step()
        self.steps += 1

    def torch_moments(self) -> dict[str, Array]:
        """Return the moments under PyTorch's names, each as one vector in our layout."""
        names = self._inner.state[self._parameters[0]].keys() - {"step"}
        return {
            name: self.model.gather(self._inner.state[p][name] for p in self._parameters)
            for name in names
        }
