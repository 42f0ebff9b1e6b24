"""Training in mini-batches, or by L-BFGS: the base of ``MLPClassifier`` and ``MLPRegressor``."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from minidl.callbacks import Callback, Run
from minidl.checks import Array, check_choice, check_float, check_int, one_blas_thread, quiet
from minidl.dataset import Dataset
from minidl.evaluation import measure
from minidl.history import Epoch, History
from minidl.layer import Layer, write_gradients
from minidl.layers import BatchNorm, Dropout, LayerNorm
from minidl.optim import SGD, Adam, AdamW, Cosine, OneCycle, Optimizer, Schedule
from minidl.sklearn.network import Network, choose
from minidl.training import NonFiniteLossError, Objective, fit

NORMALIZATIONS: dict[str | None, Callable[[int], list[Layer]]] = {
    None: lambda width: [],
    "layer": lambda width: [LayerNorm(width)],
    "batch": lambda width: [BatchNorm(width)],
}
RATES = ("constant", "invscaling", "adaptive")
SLOW_ON_THREADS = range(2**18, 1_500_000)
"""Multiplications of a matrix product: with fewer OpenBLAS takes one thread by itself."""
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {"cosine": Cosine, "one_cycle": OneCycle}


def inverse_scaling(lr: float, power: float, examples: int, batches: int, step: int) -> float:
    """Return the rate of scikit-learn's "invscaling", by the examples of the epochs before."""
    return float(lr / (step // batches * examples + 1) ** power)


def in_batches(estimator: Any) -> bool:
    """Return whether the solver takes steps on batches, so that ``partial_fit`` exists."""
    return bool(estimator.solver != "lbfgs")


@dataclass(eq=False, repr=False, kw_only=True)
class MLP(Network):
    """The fields and the training of both estimators."""

    solver: str = "adam"
    alpha: float = 1e-4
    batch_size: Any = "auto"
    learning_rate: str = "constant"
    learning_rate_init: float = 1e-3
    power_t: float = 0.5
    schedule: Any = None
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    dropout: float = 0.0
    normalization: str | None = None
    clip_norm: float | None = None
    shuffle: bool = True
    max_fun: int = 15_000

    _sparse = True

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Any:
        """Train the network; return ``self``.

        Parameters
        ----------
        X : array-like, shape (n, features)
            Numbers: arrays, data frames of pandas or polars, sparse matrices (which stay sparse).
        y : array-like, shape (n,) or (n, outputs)
        sample_weight : array-like, shape (n,), optional
            A weight of 2 counts as much as the same example twice, of 0 as none.
        X_val, y_val, sample_weight_val : array-like, optional
            Validation data, in place of a part of ``X`` (see ``early_stopping``).
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val))

    def _hidden(self, width: int) -> list[Layer]:
        """Return normalization, activation and dropout, where asked for."""
        normalize = choose(self._name, "normalization", self.normalization, NORMALIZATIONS)
        p = check_float(self._name, "dropout", self.dropout, low=0, high=1, open_high=True)
        return [*normalize(width), *super()._hidden(width), *([Dropout(p)] if p else [])]

    def _train(self, dataset: Dataset, again: bool, **options: Any) -> None:
        if self.solver == "lbfgs":
            self._lbfgs(dataset, **options)
            return
        n, weight = len(dataset.train.counted), dataset.train.weight
        batch_size, mean_weight = self._batch_size(n), options["mean_weight"]
        if mean_weight is None:
            mean_weight = 1.0 if weight is None else float(weight[weight > 0].mean())
        if not (again and hasattr(self, "_optimizer")):
            self._optimizer = self._new_optimizer(n, batch_size, mean_weight)
        options |= {"batch_size": batch_size, "mean_weight": mean_weight}
        most = batch_size * max(p.size for _, p in self.model_.named_parameters())
        with one_blas_thread() if most in SLOW_ON_THREADS else nullcontext():
            fit(self.model_, dataset, self.loss_function_, self._optimizer, **options)

    def _lbfgs(
        self, dataset: Dataset, *, callbacks: list[Callback], history: History, monitor: str,
        parts: Sequence[str], restore_best: bool, epochs: int, metrics: Any = None,
        mode: Any = None, **_: Any,
    ) -> None:  # fmt: skip
        """Minimise the loss of all rows by SciPy's L-BFGS-B, a record of ``history_`` a step.

        ``theta`` is in float64. The L2 penalty spares biases. ``tol`` is the largest entry of a
        gradient that counts as 0; the rule of ``n_iter_no_change`` ends early stopping alone.
        """
        name, model, loss = self._name, self.model_, self.loss_function_
        if self.dropout or self.normalization == "batch":
            raise ValueError(f"{name}: solver='lbfgs' needs a function: no dropout, no batch norm")
        objective = Objective(name, loss, dataset)
        objective.look(model)
        x, targets = objective.train.rows(slice(None), model.dtype), objective.train.targets()
        total = len(x) if len(targets) == 1 else targets[1].sum()
        weights = [np.full(p.size, len(p.shape) > 1) for _, p in model.named_parameters()]
        decay = np.concatenate(weights) * check_float(name, "alpha", self.alpha, low=0) / total
        run = Run(model, SGD(model, 1.0), history, epochs, 1)
        history.follow(model, monitor, mode)
        value, since, stop = math.nan, time.perf_counter(), False

        def record() -> None:
            nonlocal since
            found, finite = {"train_loss": value}, math.isfinite(value)
            for part in parts:
                measured, are = measure(model, dataset.splits[part], loss, metrics)
                found = {**{f"{part}_{k}": v for k, v in measured.items()}, **found}
                finite &= are
            before, since = since, time.perf_counter()
            history.append(Epoch(len(history), since - before, 1.0, found, finite), model)

        def penalised(theta: Array) -> tuple[float, Array]:
            nonlocal value
            model.theta[:] = theta
            logits, backward = model.forward(x, train=True)
            value, dlogits = loss(logits, *targets)
            write_gradients(model, backward, dlogits)
            if not history.records:
                record()
            return value + 0.5 * float(decay @ np.square(theta)), model.grad + decay * theta

        def end_step(theta: Array) -> None:
            nonlocal stop
            record()
            asked = callbacks if self.early_stopping else callbacks[:-1]
            stop = any([callback.on_epoch(run) for callback in asked])  # noqa: C419 (all are called)
            if stop:
                raise StopIteration

        limits = {"maxiter": self.max_iter, "maxfun": check_int(name, "max_fun", self.max_fun)}
        with quiet():
            found = minimize(
                penalised, model.theta.copy(), jac=True, method="L-BFGS-B", callback=end_step,
                options={**limits, "gtol": self.tol},
            )  # fmt: skip
        model.theta[:] = found.x
        if not np.isfinite(model.theta).all():
            raise NonFiniteLossError(f"L-BFGS: the loss is {found.fun}")
        if restore_best:
            history.restore_best(model)
        self._convergence.converged = found.success or stop
        if not self._convergence.converged and found.nit < self.max_iter:
            warnings.warn(f"{name}: L-BFGS: {found.message}", ConvergenceWarning, stacklevel=5)

    def _input_dtype(self) -> Any:
        if self.solver != "lbfgs":
            return super()._input_dtype()
        if self.dtype is not None and np.dtype(self.dtype) != np.float64:
            raise ValueError(f"{self._name}: solver='lbfgs' is in float64, got {self.dtype!r}")
        return np.float64

    def _batch_size(self, n: int) -> int:
        """Return the number of examples in a batch; with batch norm, no batch has only one."""
        auto = isinstance(self.batch_size, str) and self.batch_size == "auto"
        size = min(200 if auto else check_int(self._name, "batch_size", self.batch_size), n)
        while self.normalization == "batch" and n % size == 1 and size < n:
            size += 1
        return size

    def _new_optimizer(self, n: int, batch_size: int, mean_weight: float) -> Optimizer:
        """Return the optimizer for ``n`` rows; its weight decay spares biases.

        scikit-learn divides ``alpha`` by the sum of the weights of a batch; here by its size times
        the mean weight, which is 1 in ``partial_fit``.
        """
        name, lr = self._name, self.learning_rate_init
        lr = check_float(name, "learning_rate_init", lr, low=0, open_low=True)
        alpha = check_float(name, "alpha", self.alpha, low=0)
        adam = {"betas": (self.beta_1, self.beta_2), "eps": self.epsilon, "weight_decay": alpha}
        share = {"weight_decay": alpha / (batch_size * mean_weight)}
        nesterov = bool(self.nesterovs_momentum and self.momentum > 0)
        known = {
            "adam": (Adam, {**adam, **share}),
            "adamw": (AdamW, adam),
            "sgd": (SGD, {"momentum": self.momentum, "nesterov": nesterov, **share}),
            "lbfgs": None,
        }
        kind, options = choose(name, "solver", self.solver, known)
        rate: float | Schedule = lr
        check_choice(name, "learning_rate", self.learning_rate, RATES)
        batches = -(-n // batch_size)
        if self.schedule is not None:
            make = self.schedule
            make = make if callable(make) else choose(name, "schedule", make, SCHEDULES)
            rate = make(lr, batches * self.max_iter)
        elif self.solver == "sgd" and self.learning_rate == "invscaling":
            rate = partial(inverse_scaling, lr, self.power_t, n, batches)
        options |= {"decay_biases": False, "clip_norm": self.clip_norm}
        made: Optimizer = kind(self.model_, rate, **options)
        return made
