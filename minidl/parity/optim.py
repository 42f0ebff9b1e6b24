"""Our optimizers and schedules as PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, islice, repeat
from operator import mul
from typing import Any

import torch
from torch.optim import lr_scheduler

from minidl.optim import SGD, Adam, AdamW, Optimizer
from minidl.schedules import Cosine, OneCycle, Schedule, StepDecay, WarmUp


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
