"""``MLPRegressor``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sklearn.base import RegressorMixin
from sklearn.utils.validation import column_or_1d

from minidl.checks import Array
from minidl.losses import AbsoluteError, Huber, Loss, Quantile, SquaredError, predict
from minidl.sklearn.mlp import MLP
from minidl.sklearn.network import choose


@dataclass(eq=False, repr=False, kw_only=True)
class MLPRegressor(RegressorMixin, MLP):  # type: ignore[misc]
    """A network for one or several numbers.

    As ``sklearn.neural_network.MLPRegressor``; ``docs/sklearn.md`` lists what differs. The
    parameters that are not here are those of ``MLPClassifier``.

    Parameters
    ----------
    loss : {"squared_error", "absolute_error", "huber", "quantile"}
    delta : float
        The error from which ``"huber"`` is linear.
    quantile : float
        The quantile of ``"quantile"``.
    monitor : str, optional
        By default ``"train_loss"``; with early stopping R2 on the validation part, for
        ``"quantile"`` the loss.
    """

    loss: str = "squared_error"
    delta: float = 1.0
    quantile: float = 0.5

    def _encode(self, y: Array, classes: Any = None, *, first: bool = False) -> Array:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if first:
            self._shape = y.shape[1:]
        elif y.shape[1:] != self._shape:
            raise ValueError(
                f"{self._name}: expected y of shape (n, ...) {self._shape} as before, got {y.shape}"
            )
        return y

    def _loss(self) -> Loss:
        known: dict[str, Callable[[], Loss]] = {
            "squared_error": SquaredError,
            "absolute_error": AbsoluteError,
            "huber": lambda: Huber(self.delta),
            "quantile": lambda: Quantile(self.quantile),
        }
        loss: Loss = choose(self._name, "loss", self.loss, known)()
        return loss

    def predict(self, X: Any) -> Array:
        """Return the predicted numbers, (n,) or (n, outputs)."""
        outputs = self._outputs(X)  # says so if the estimator is not fitted
        return predict(self.loss_function_, outputs)

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
        return tags
