"""``MLPRegressor``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import column_or_1d

from minidl.checks import Array
from minidl.data.features import Standardize
from minidl.dataset import Split
from minidl.evaluation import predict
from minidl.layers import Linear
from minidl.losses import AbsoluteError, Huber, Loss, Poisson, Quantile, SquaredError
from minidl.sklearn.mlp import MLP, in_batches
from minidl.sklearn.network import choose


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
    monitor : str, optional
        By default ``"train_loss"``; with early stopping R2 on the validation part, for
        ``"quantile"`` the loss.
    standardize : bool
        Scales the features, and the targets too (except for ``"poisson"``); ``predict`` gives the
        targets' own scale, losses are of the scaled ones.
    """

    loss: str = "squared_error"
    delta: float = 1.0
    quantile: float = 0.5

    def _encode(
        self, y: Array, classes: Any = None, *, first: bool = False, again: bool = False
    ) -> Array:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if first:
            self._shape = y.shape[1:]
        elif y.shape[1:] != tuple(self._shape):
            want = f"y of shape (n, ...) {self._shape} as before"
            raise ValueError(f"{self._name}: expected {want}, got {y.shape}")
        return y

    def _width(self, y: Array) -> int:
        return 1 if y.ndim == 1 else int(y.shape[1])

    def _loss(self) -> tuple[Loss, str]:
        known: dict[str, Callable[[], Loss]] = {
            "squared_error": SquaredError,
            "absolute_error": AbsoluteError,
            "huber": lambda: Huber(self.delta),
            "quantile": lambda: Quantile(self.quantile),
            "poisson": Poisson,
        }
        loss: Loss = choose(self._name, "loss", self.loss, known)()
        return loss, "exp" if self.loss == "poisson" else "identity"

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
        scaler, dtype = self.target_scaler_, self.model_.dtype
        if scaler is None:
            return None
        tail = Linear(len(scaler.mean), len(scaler.mean), rng=0, dtype=dtype)
        tail.weight.value, tail.bias.value = np.diag(scaler.std), scaler.mean  # type: ignore[union-attr]
        return tail

    def _predicted(self, outputs: Array) -> Array:
        if self.target_scaler_ is not None:
            outputs = outputs * self.target_scaler_.std + self.target_scaler_.mean
        return predict(self.loss_function_, outputs.astype(self.model_.dtype, copy=False))

    @available_if(in_batches)  # type: ignore[untyped-decorator]
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
        valid = X_val, y_val, sample_weight_val
        return self._fit(X, y, sample_weight, valid, one_epoch=True)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.positive_only = self.loss == "poisson"
        return tags
