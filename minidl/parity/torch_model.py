"""Our models, losses and optimizers with PyTorch's arithmetic, and ``fit`` with them.

They keep this library's contracts, so ``minidl.fit`` and the comparison take them in place of ours.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count, islice, repeat
from operator import mul
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim import lr_scheduler

from minidl import optim, training
from minidl.checks import Array, Backward
from minidl.dataset import Dataset
from minidl.history import History
from minidl.layer import Layer, name_probabilities
from minidl.losses import Loss
from minidl.optim import Optimizer, check_optimizer
from minidl.parameter import named_buffers, set_buffers
from minidl.parity.convert import to_torch
from minidl.parity.formulas import criterion
from minidl.saving.safetensors import transposed


def torch_counterparts(
    model: Layer, loss: Loss, optimizer: Optimizer
) -> tuple[TorchModel, TorchLoss, TorchOptimizer]:
    """Return a model, a loss and an optimizer that compute the same with PyTorch and autograd.

    They keep this library's contracts and the layout of its vectors, so ``fit`` and ``evaluate``
    take them too. The optimizer is the model's, new or after any number of steps. TypeError if a
    part has no counterpart in PyTorch, ValueError for the optimizer of another model.
    """
    check_optimizer("torch_counterparts", optimizer, model)
    theirs = TorchModel(model)
    return theirs, TorchLoss(loss), TorchOptimizer(theirs, optimizer)


class TorchModel(Layer):
    """A copy of a model that computes with PyTorch; it gives no gradient of the input.

    The tensors of ``module`` share the memory of ``theta``, ``grad`` and the buffers. Its Dropout
    draws the masks that the original model will draw.
    """

    skips_input_grad = True

    def __init__(self, model: Layer) -> None:
        vars(self).update(vars(copy.deepcopy(model)))  # its parameters, buffers and layers
        self.module = to_torch(model, same_masks=True)
        self._name, turned = f"TorchModel({model!r})", transposed(model)
        self._layout = [(p.shape, name in turned) for name, p in model.named_parameters()]
        set_buffers(self, {name: np.array(value) for name, value in named_buffers(self)})
        self.initialize()
        self.tensors = [self.module.get_parameter(name) for name, _ in self.named_parameters()]
        pieces = self.scatter(self.theta), self.scatter(self.grad)
        for tensor, value, grad in zip(self.tensors, *pieces, strict=True):
            tensor.data, tensor.grad = value, grad
        self._share_buffers()

    def _share_buffers(self) -> None:
        buffers = {name: torch.from_numpy(value) for name, value in named_buffers(self)}
        self.module.load_state_dict(buffers, strict=False, assign=True)

    def load_state_dict(self, state_dict: Mapping[str, Array]) -> None:
        """Set all parameters and buffers to the values of a state, or none on an error."""
        super().load_state_dict(state_dict)
        self._share_buffers()

    def forward(self, x: Array, *, train: bool = False) -> tuple[Array, Backward]:
        self.module.train(train)
        logits = self.module(torch.tensor(x))

        def backward(dy: Array, input_grad: bool = False) -> None:
            self.module.zero_grad(set_to_none=False)  # autograd adds to the memory of grad
            logits.backward(torch.tensor(dy))

        return logits.detach().numpy(), backward

    def __call__(self, x: Array) -> Array:
        with torch.no_grad():
            return self.forward(x)[0]

    def scatter(self, vector: Array) -> list[Tensor]:
        """Return views of a vector laid out as ``theta``: one tensor for each parameter."""
        ends = np.cumsum([math.prod(shape) for shape, _ in self._layout])
        pieces = zip(np.split(vector, ends)[:-1], self._layout, strict=True)
        views = [(piece.reshape(shape), turned) for piece, (shape, turned) in pieces]
        return [torch.from_numpy(view.T if turned else view) for view, turned in views]

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
        self._inner = _torch_optimizer(ours, model.tensors)
        self._clip_norm = ours.clip_norm
        self._rates = islice(_learning_rates(ours.lr), ours.steps, None)
        for name, vector in ours.torch_moments().items() if self.steps else ():
            for p, moment in zip(model.tensors, model.scatter(vector.copy()), strict=True):
                self._inner.state[p] |= {"step": torch.tensor(float(self.steps)), name: moment}

    def step(self) -> None:
        """Update the parameters from their gradients."""
        lr = next(self._rates)
        for group in self._inner.param_groups:
            group["lr"] = lr
        if self._clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.tensors, self._clip_norm)
        self._inner.step()
        self.steps += 1

    def torch_moments(self) -> dict[str, Array]:
        """Return the moments under PyTorch's names, each as one vector in our layout."""
        moments = {}
        for name in self._inner.state[self.model.tensors[0]].keys() - {"step"}:
            moments[name] = np.empty_like(self.model.theta)
            for view, p in zip(self.model.scatter(moments[name]), self.model.tensors, strict=True):
                view.copy_(self._inner.state[p][name])
        return moments


def _torch_optimizer(ours: Optimizer, tensors: list[Tensor]) -> Any:
    """Return PyTorch's optimizer with the settings of ours; TypeError if there is none."""
    if type(ours) not in (optim.SGD, optim.Adam, optim.AdamW):
        raise TypeError(f"minidl.parity: no PyTorch counterpart of the optimizer {ours!r}")
    decayed = [p for p in tensors if ours.decay_biases or p.ndim >= 2]
    others = [p for p in tensors if not ours.decay_biases and p.ndim < 2]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0}]
    elsewhere = ("lr", "decay_biases", "clip_norm")
    options = {name: value for name, value in ours.config().items() if name not in elsewhere}
    return getattr(torch.optim, type(ours).__name__)(groups, **options)


def _learning_rates(lr: Any) -> Iterator[float]:
    """Yield the learning rate of each step, from PyTorch's scheduler if it has this one."""
    if isinstance(lr, optim.WarmUp):
        first, last = 1 / lr.steps, lr.steps - 1
        rise = _scheduled(1.0, lambda o: lr_scheduler.LinearLR(o, first, total_iters=last))
        return map(mul, rise, _learning_rates(lr.lr))
    if isinstance(lr, optim.StepDecay):
        return _scheduled(lr.lr, lambda o: lr_scheduler.StepLR(o, lr.every, lr.factor))
    if isinstance(lr, optim.Cosine):
        curve = _scheduled(lr.lr, lambda o: lr_scheduler.CosineAnnealingLR(o, lr.steps, lr.final))
        rates = list(islice(curve, lr.steps + 1))
    elif isinstance(lr, optim.OneCycle):
        options = {
            name: getattr(lr, name) for name in ("pct_start", "div_factor", "final_div_factor")
        }
        options["cycle_momentum"] = False
        curve = _scheduled(lr.lr, lambda o: lr_scheduler.OneCycleLR(o, lr.lr, lr.steps, **options))
        rates = list(islice(curve, lr.steps))
    else:
        return map(lr, count()) if callable(lr) else repeat(lr)
    return chain(rates, repeat(rates[-1]))  # PyTorch's rate rises again, or it refuses a step


def _scheduled(lr: float, scheduler: Callable[[Any], Any]) -> Iterator[float]:
    """Yield the learning rates that a scheduler sets on an optimizer."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)
    driver = scheduler(optimizer)
    while True:
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        driver.step()


def fit(
    model: Layer, dataset: Dataset, loss: Loss, optimizer: Optimizer, **options: Any
) -> History:
    """Train as ``minidl.fit`` does, with all arithmetic done by PyTorch on one thread.

    Initial weights, batches, dropout masks and the arguments are those of ``minidl.fit``. The model
    gets the trained weights; its optimizer is not changed.
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
