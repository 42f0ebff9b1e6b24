"""Training in mini-batches: the base of ``MLPClassifier`` and ``MLPRegressor``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minidl.checks import check_float, check_int
from minidl.dataset import Dataset
from minidl.layer import Layer
from minidl.layers import BatchNorm, Dropout, LayerNorm
from minidl.optim import SGD, Adam, AdamW, Cosine, OneCycle, Optimizer, Schedule
from minidl.sklearn.network import Network, choose
from minidl.training import Objective, fit

NORMALIZATIONS: dict[str | None, Callable[[int], list[Layer]]] = {
    None: lambda width: [],
    "layer": lambda width: [LayerNorm(width)],
    "batch": lambda width: [BatchNorm(width)],
}
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {"cosine": Cosine, "one_cycle": OneCycle}


@dataclass(frozen=True)
class InverseScaling:
    """scikit-learn's ``learning_rate="invscaling"``: ``lr / (t + 1)^power``.

    ``t`` is the number of examples seen in the epochs that are complete.
    """

    lr: float
    power: float
    examples: int
    batches: int

    def __call__(self, t: int) -> float:
        return float(self.lr / (t // self.batches * self.examples + 1) ** self.power)


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

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Any:
        """Train the network.

        Parameters
        ----------
        X : array-like, shape (n, features)
            Dense numbers: arrays, or data frames of pandas or polars.
        y : array-like, shape (n,) or (n, outputs)
        sample_weight : array-like, shape (n,), optional
            A weight of 2 counts as much as the same example twice, of 0 as none.
        X_val, y_val, sample_weight_val : array-like, optional
            Validation data, in place of a part of ``X`` (see ``early_stopping``).

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val))

    def _hidden(self) -> Callable[[int], list[Layer]]:
        """Return normalization, activation and dropout, where asked for."""
        activation = super()._hidden()
        normalize = choose(self._name, "normalization", self.normalization, NORMALIZATIONS)
        p = check_float(self._name, "dropout", self.dropout, low=0, high=1, open_high=True)
        return lambda width: [*normalize(width), *activation(width), *([Dropout(p)] if p else [])]

    def _train(self, dataset: Dataset, again: bool, **options: Any) -> None:
        batch_size = self._batch_size(len(dataset.train.counted))
        if not again:
            self._optimizer = self._new_optimizer(dataset, batch_size, options["mean_weight"])
        fit(
            self.model_, dataset, self.loss_function_, self._optimizer, batch_size=batch_size,
            **options,
        )  # fmt: skip

    def _batch_size(self, n: int) -> int:
        """Return the number of examples in a batch; with batch norm, no batch has only one."""
        auto = isinstance(self.batch_size, str) and self.batch_size == "auto"
        size = min(200 if auto else check_int(self._name, "batch_size", self.batch_size), n)
        while self.normalization == "batch" and n % size == 1 and size < n:
            size += 1
        return size

    def _new_optimizer(
        self, dataset: Dataset, batch_size: int, mean_weight: float | None
    ) -> Optimizer:
        """Return the optimizer with its schedule and weight decay, which spares biases.

        scikit-learn divides ``alpha`` by the sum of the weights of a batch; here by its size times
        the mean weight, which is 1 in ``partial_fit``.
        """
        model = self.model_
        alpha = check_float(self._name, "alpha", self.alpha, low=0)
        objective = Objective(self._name, self.loss_function_, dataset, mean_weight)
        decay = alpha / (batch_size * objective.mean_weight)
        lr = self._rate(dataset, batch_size)
        clip, betas, eps = self.clip_norm, (self.beta_1, self.beta_2), self.epsilon
        if self.solver == "sgd":
            nesterov = bool(self.nesterovs_momentum) and self.momentum > 0
            return SGD(model, lr, momentum=self.momentum, nesterov=nesterov, weight_decay=decay,
                       decay_biases=False, clip_norm=clip)  # fmt: skip
        if self.solver == "adam":
            return Adam(model, lr, betas=betas, eps=eps, weight_decay=decay, decay_biases=False,
                        clip_norm=clip)  # fmt: skip
        if self.solver == "adamw":
            return AdamW(model, lr, betas=betas, eps=eps, weight_decay=alpha, decay_biases=False,
                         clip_norm=clip)  # fmt: skip
        raise ValueError(
            f"{self._name}: expected solver 'adam', 'adamw' or 'sgd', got {self.solver!r}"
        )

    def _rate(self, dataset: Dataset, batch_size: int) -> float | Schedule:
        """Return the learning rate or its schedule."""
        n = len(dataset.train.counted)
        lr = check_float(
            self._name, "learning_rate_init", self.learning_rate_init, low=0, open_low=True
        )
        batches = -(-n // batch_size)
        if self.learning_rate not in ("constant", "invscaling", "adaptive"):
            raise ValueError(
                f"{self._name}: expected learning_rate 'constant', 'invscaling' or 'adaptive', got "
                f"{self.learning_rate!r}"
            )
        if self.schedule is not None:
            make = self.schedule
            make = make if callable(make) else choose(self._name, "schedule", make, SCHEDULES)
            schedule: Schedule = make(lr, batches * self.max_iter)
            return schedule
        if self.solver == "sgd" and self.learning_rate == "invscaling":
            return InverseScaling(lr, self.power_t, n, batches)
        return lr

    def _adaptive(self) -> bool:
        return self.solver == "sgd" and self.learning_rate == "adaptive"
