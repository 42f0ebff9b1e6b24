"""Training in mini-batches, or by L-BFGS: the base of ``MLPClassifier``; and ``MLPRegressor``."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.base import RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if

from minidl.callbacks import Run
from minidl.checks import Array, check_float, check_int, one_blas_thread, quiet
from minidl.data.features import Standardize
from minidl.dataset import Dataset, Split
from minidl.evaluation import measure, predict
from minidl.history import Epoch
from minidl.layer import Layer, write_gradients
from minidl.layers import BatchNorm, Dropout, LayerNorm, Linear
from minidl.losses import AbsoluteError, Huber, Loss, Poisson, Quantile, SquaredError
from minidl.optim import SGD, Adam, AdamW, Cosine, OneCycle, Optimizer, Schedule
from minidl.sklearn.network import Network
from minidl.training import NonFiniteLossError, Objective, fit

NORMALIZATIONS: dict[str, Callable[[int], Layer]] = {"layer": LayerNorm, "batch": BatchNorm}
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {"cosine": Cosine, "one_cycle": OneCycle}
RATES = {"constant": False, "invscaling": True, "adaptive": False}
"""Whether the rate falls with the examples seen."""
SLOW_ON_THREADS = range(2**18, 1_500_000)
"""Multiplications of a matrix product: with fewer OpenBLAS takes one thread by itself."""

with_steps = available_if(lambda estimator: estimator.solver != "lbfgs")


def inverse_scaling(lr: float, power: float, examples: int, batches: int, step: int) -> float:
    """Return the rate of scikit-learn's "invscaling", by the examples of the epochs before."""
    return float(lr / (step // batches * examples + 1) ** power)


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

    _formats = "csr"

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
        layers = super()._hidden(width)
        if self.normalization is not None:
            layers.insert(0, self._chosen("normalization", NORMALIZATIONS)(width))
        p = check_float(self._name, "dropout", self.dropout, low=0, high=1, open_high=True)
        return [*layers, Dropout(p)] if p else layers

    def _train(self, dataset: Dataset, again: bool, **options: Any) -> None:
        if self.solver == "lbfgs":
            self._lbfgs(dataset, options)
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

    def _lbfgs(self, dataset: Dataset, options: dict[str, Any]) -> None:
        """Minimise the loss of all rows by SciPy's L-BFGS-B, a record of ``history_`` a step.

        ``theta`` is in float64. The L2 penalty spares biases. ``tol`` is the largest entry of a
        gradient that counts as 0; the rule of ``n_iter_no_change`` ends early stopping alone.
        """
        name, model, loss, history = self._name, self.model_, self.loss_function_, self.history_
        if self.dtype is not None and np.dtype(self.dtype) != np.float64:
            raise ValueError(f"{name}: solver='lbfgs' is in float64, got {self.dtype!r}")
        if self.dropout or self.normalization == "batch":
            raise ValueError(f"{name}: solver='lbfgs' needs a function: no dropout, no batch norm")
        objective = Objective(name, loss, dataset)
        objective.look(model)
        x, targets = objective.train.rows(slice(None), model.dtype), objective.train.targets()
        total = len(x) if len(targets) == 1 else targets[1].sum()
        weights = [np.full(p.size, len(p.shape) > 1) for _, p in model.named_parameters()]
        decay = np.concatenate(weights) * check_float(name, "alpha", self.alpha, low=0) / total
        run = Run(model, SGD(model, 1.0), history, options["epochs"], 1)
        history.follow(model, options["monitor"], options.get("mode"))
        asked = options["callbacks"][: None if self.early_stopping else -1]
        value, since, stopped = math.nan, time.perf_counter(), False

        def record() -> None:
            nonlocal since
            found, finite = {"train_loss": value}, math.isfinite(value)
            for part in options["parts"]:
                split, own = dataset.splits[part], options.get("metrics")
                measured, are = measure(model, split, loss, own)
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
            nonlocal stopped
            record()
            stopped = any([callback.on_epoch(run) for callback in asked])  # noqa: C419 (all are called)
            if stopped:
                raise StopIteration

        limits = {"maxiter": self.max_iter, "maxfun": check_int(name, "max_fun", self.max_fun)}
        with quiet():
            found = minimize(
                penalised, model.theta.copy(), jac=True, method="L-BFGS-B", callback=end_step,
                options={**limits, "gtol": self.tol},
            )  # fmt: skip
        model.theta[:] = found.x
        if not np.isfinite(found.x).all():
            raise NonFiniteLossError(f"L-BFGS: the loss is {found.fun}")
        if options["restore_best"]:
            history.restore_best(model)
        options["callbacks"][-1].converged = found.success or stopped
        if not (found.success or stopped) and found.nit < self.max_iter:
            warnings.warn(f"{name}: L-BFGS: {found.message}", ConvergenceWarning, stacklevel=5)

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
        decay = check_float(name, "alpha", self.alpha, low=0)
        known = {"adam": Adam, "adamw": AdamW, "sgd": SGD, "lbfgs": None}
        kind, batches = self._chosen("solver", known), -(-n // batch_size)
        if kind is not AdamW:
            decay /= batch_size * mean_weight
        options: dict[str, Any] = {"decay_biases": False, "clip_norm": self.clip_norm}
        if kind is SGD:
            nesterov = bool(self.nesterovs_momentum and self.momentum > 0)
            options |= {"momentum": self.momentum, "nesterov": nesterov}
        else:
            options |= {"betas": (self.beta_1, self.beta_2), "eps": self.epsilon}
        falls = self._chosen("learning_rate", RATES)
        rate: float | Schedule = lr
        if self.schedule is not None:
            own = callable(self.schedule)
            make = self.schedule if own else self._chosen("schedule", SCHEDULES)
            rate = make(lr, batches * self.max_iter)
        elif falls and kind is SGD:
            rate = partial(inverse_scaling, lr, self.power_t, n, batches)
        made: Optimizer = kind(self.model_, rate, weight_decay=decay, **options)
        return made


def as_columns(y: Array) -> Array:
    """Return numbers (n,) or (n, d) as (n, d), in float64."""
    return np.asarray(y, np.float64).reshape(len(y), -1)


@dataclass(eq=False, repr=False, kw_only=True)
class MLPRegressor(RegressorMixin, MLP):  # type: ignore[misc]
    """A network for one or several numbers.

    As ``sklearn.neural_network.MLPRegressor``; ``docs/sklearn.md`` lists what differs. The
    parameters that are not here are those of ``MLPClassifier``.

    Parameters
    ----------
    loss : {"squared_error", "absolute_error", "huber", "quantile", "poisson"}
        ``"poisson"`` is half the deviance of counts; it predicts ``exp(outputs)``.
    delta : float
        The error from which ``"huber"`` is linear; of scaled targets with ``standardize``.
    quantile : float
        The quantile of ``"quantile"``.
    monitor : str or callable, optional
        With early stopping by default R2 on the validation part, for ``"quantile"`` the loss.
    standardize : bool
        Scales the features, and the targets too (except for ``"poisson"``); ``predict`` gives the
        targets' own scale, losses are of the scaled ones.
    """

    loss: str = "squared_error"
    delta: float = 1.0
    quantile: float = 0.5

    @with_steps  # type: ignore[untyped-decorator]
    def partial_fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Any:
        """Train for one epoch over the given examples; as ``MLPClassifier.partial_fit``."""
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val), one_epoch=True)

    def _encode(
        self, y: Array, classes: Any = None, *, first: bool = False, again: bool = False
    ) -> Array:
        if first:
            self._shape = y.shape[1:]
        elif y.shape[1:] != tuple(self._shape):
            want = f"y of shape (n, ...) {self._shape} as before"
            raise ValueError(f"{self._name}: expected {want}, got {y.shape}")
        return y

    def _loss(self) -> tuple[Loss, str, int]:
        known: dict[str, Callable[[], Loss]] = {
            "squared_error": SquaredError,
            "absolute_error": AbsoluteError,
            "huber": lambda: Huber(self.delta),
            "quantile": lambda: Quantile(self.quantile),
            "poisson": Poisson,
        }
        activation = "exp" if self.loss == "poisson" else "identity"
        return self._chosen("loss", known)(), activation, math.prod(self._shape)

    def _start(self, X: Any, y: Array, weight: Array | None, seed: int) -> None:
        super()._start(X, y, weight, seed)
        self.target_scaler_ = None
        if self.standardize and self.loss != "poisson":
            self.target_scaler_ = Standardize()
            self.target_scaler_.learn(Split(as_columns(y), y, 1.0, weight=weight))

    def _targets(self, y: Array) -> Array:
        scaler = self.target_scaler_
        return y if scaler is None else scaler.apply(as_columns(y)).reshape(y.shape)

    def _tail(self) -> Linear | None:
        scaler = self.target_scaler_
        if scaler is None:
            return None
        tail = Linear(self.n_outputs_, self.n_outputs_, rng=0, dtype=self.model_.dtype)
        tail.load_state_dict({"weight": np.diag(scaler.std), "bias": scaler.mean})
        return tail

    def _predicted(self, outputs: Array) -> Array:
        if self.target_scaler_ is not None:
            outputs = outputs * self.target_scaler_.std + self.target_scaler_.mean
        return predict(self.loss_function_, outputs.astype(self.model_.dtype, copy=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.positive_only = self.loss == "poisson"
        return tags
