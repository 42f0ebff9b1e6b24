"""Our optimizers and schedules as PyTorch's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, count, islice, repeat
from operator import mul
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim import lr_scheduler

from minidl import training
from minidl.checks import Array, Backward
from minidl.dataset import Dataset
from minidl.history import History
from minidl.layer import Layer, name_probabilities
from minidl.losses import Loss
from minidl.optim import SGD, Adam, AdamW, Cosine, OneCycle, Optimizer, Schedule, StepDecay, WarmUp
from minidl.parameter import Parameter
from minidl.parity.convert import to_torch
from minidl.parity.formulas import criterion
from minidl.saving.safetensors import transposed


def torch_optimizer(ours: Optimizer, parameters: Iterable[Any]) -> Any:
    """Return PyTorch's optimizer with the settings of ours.

    With ``decay_biases=False`` the parameters are in two groups, the second without weight decay.

    Raises
    ------
    TypeError
        If the optimizer has no counterpart.
    """
    kind = type(ours)
    options: dict[str, Any] = {"weight_decay": ours.weight_decay}
    if not ours.decay_biases:
        parameters = list(parameters)
        parameters = [
            {"params": [p for p in parameters if p.ndim >= 2]},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
    if isinstance(ours, SGD) and kind is SGD:
        options |= {"momentum": ours.momentum, "dampening": ours.dampening}
        return torch.optim.SGD(parameters, nesterov=ours.nesterov, **options)
    if isinstance(ours, Adam) and kind in (Adam, AdamW):
        theirs = torch.optim.Adam if kind is Adam else torch.optim.AdamW
        return theirs(parameters, betas=ours.betas, eps=ours.eps, **options)
    raise TypeError(f"minidl.parity: no PyTorch counterpart of the optimizer {ours!r}")


def learning_rates(lr: float | Schedule) -> Iterator[float]:
    """Yield the learning rate of each step, from PyTorch's scheduler if it has this one."""
    if isinstance(lr, StepDecay):
        return _scheduled(lr.lr, lambda o: lr_scheduler.StepLR(o, lr.every, lr.factor))
    if isinstance(lr, Cosine):
        curve = _scheduled(lr.lr, lambda o: lr_scheduler.CosineAnnealingLR(o, lr.steps, lr.final))
        # After the last step PyTorch's rate rises again; ours stays.
        return chain(islice(curve, lr.steps), repeat(lr.final))
    if isinstance(lr, OneCycle):
        curve = _scheduled(
            lr.lr,
            lambda o: lr_scheduler.OneCycleLR(
                o,
                lr.lr,
                lr.steps,
                pct_start=lr.pct_start,
                div_factor=lr.div_factor,
                final_div_factor=lr.final_div_factor,
                cycle_momentum=False,
            ),
        )
        rates = list(islice(curve, lr.steps))  # PyTorch's scheduler refuses a further step
        return chain(rates, repeat(rates[-1]))
    if isinstance(lr, WarmUp):
        first, last = 1 / lr.steps, lr.steps - 1
        rise = _scheduled(1.0, lambda o: lr_scheduler.LinearLR(o, first, total_iters=last))
        return map(mul, rise, learning_rates(lr.lr))
    return map(lr, count()) if callable(lr) else repeat(lr)


def _scheduled(lr: float, scheduler: Callable[[Any], Any]) -> Iterator[float]:
    """Yield the learning rates that a scheduler sets on an optimizer."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)
    driver = scheduler(optimizer)
    while True:
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        driver.step()


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

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of all parameters and buffers, in our layout, with our names."""
        buffers = {name: value.numpy().copy() for name, value in self.module.named_buffers()}
        return {**{name: piece.copy() for name, piece in self._pieces(self.theta)}, **buffers}

    def load_state_dict(self, state_dict: Mapping[str, Array]) -> None:
        """Set all parameters and buffers to those of a state in our layout."""
        with torch.no_grad():
            for p, name in zip(self.module.parameters(), self._shapes, strict=True):
                value = state_dict[name]
                p.copy_(torch.tensor(value.T if name in self._transposed else value))
            for name, buffer in self.module.named_buffers():
                buffer.copy_(torch.from_numpy(np.asarray(state_dict[name])))

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


def fit(
    model: Layer,
    dataset: Dataset,
    loss: Loss,
    optimizer: Optimizer,
    **options: Any,
) -> History:
    """Train as ``minidl.fit`` does, with all arithmetic done by PyTorch on one thread.

    Initial weights, batches and dropout masks are those of ``minidl.fit``, and so are the
    parameters of this function. The model gets the trained weights; its optimizer is not changed.
    """
    theirs, criterion, method = torch_counterparts(model, loss, optimizer)
    name_probabilities("parity.fit", model, loss)
    try:
        with one_thread():
            return training.fit(theirs, dataset, criterion, cast(Optimizer, method), **options)
    finally:
        model.load_state_dict(theirs.state_dict())


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within this context PyTorch uses one thread: faster at these sizes, and reproducible."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
