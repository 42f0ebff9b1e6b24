"""``MLPClassifier`` and ``MLPRegressor``: networks in mini-batches, trained by ``minidl.fit``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import DTypeLike
from sklearn.base import RegressorMixin
from sklearn.utils.validation import column_or_1d

from minidl.data.dataset import Dataset
from minidl.init import glorot
from minidl.layer import Sequential
from minidl.layers import Linear
from minidl.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    CrossEntropy,
    FenchelYoung,
    Huber,
    Loss,
    Quantile,
    SquaredError,
)
from minidl.optim import SGD, Adam, AdamW, Optimizer
from minidl.schedules import Schedule
from minidl.simplex import entmax15, sparsemax
from minidl.sklearn.labels import Labels
from minidl.sklearn.layers import SCHEDULES, InverseScaling, choose, hidden_layers
from minidl.sklearn.network import Network
from minidl.training import fit
from minidl.typing import Array
from minidl.validation import check_float, check_int


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

    def _build(self, features: int, outputs: int, seed: int, dtype: DTypeLike) -> Sequential:
        layers, width = hidden_layers(
            type(self).__name__, features, self.hidden_layer_sizes, self.activation,
            self.normalization, self.dropout,
        )  # fmt: skip
        last = Linear(width, outputs, weight_init=glorot, bias_init=glorot)
        return Sequential(*layers, last, rng=seed, dtype=dtype)

    def _train(self, dataset: Dataset, again: bool, **options: Any) -> None:
        batch_size = self._batch_size(len(dataset.train))
        if not again:
            self._optimizer = self._new_optimizer(dataset, batch_size)
        fit(
            self.model_, dataset, self.loss_function_, self._optimizer, batch_size=batch_size,
            **options,
        )  # fmt: skip

    def _batch_size(self, n: int) -> int:
        """Return the number of examples in a batch; with batch norm, no batch has only one."""
        owner = type(self).__name__
        auto = isinstance(self.batch_size, str) and self.batch_size == "auto"
        size = min(200 if auto else check_int(owner, "batch_size", self.batch_size), n)
        while self.normalization == "batch" and n % size == 1 and size < n:
            size += 1
        return size

    def _new_optimizer(self, dataset: Dataset, batch_size: int) -> Optimizer:
        """Return the optimizer with its schedule and weight decay.

        scikit-learn divides ``alpha`` by the sum of the weights of a batch; here by their mean
        over all batches.
        """
        owner, model = type(self).__name__, self.model_
        alpha = check_float(owner, "alpha", self.alpha, low=0)
        weight = dataset.train.weight
        decay = alpha / (batch_size * (1.0 if weight is None else float(weight.mean())))
        lr = self._rate(dataset, batch_size)
        clip, betas, eps = self.clip_norm, (self.beta_1, self.beta_2), self.epsilon
        if self.solver == "sgd":
            nesterov = bool(self.nesterovs_momentum) and self.momentum > 0
            return SGD(model, lr, momentum=self.momentum, nesterov=nesterov, weight_decay=decay,
                       clip_norm=clip)  # fmt: skip
        if self.solver == "adam":
            return Adam(model, lr, betas=betas, eps=eps, weight_decay=decay, clip_norm=clip)
        if self.solver == "adamw":
            return AdamW(model, lr, betas=betas, eps=eps, weight_decay=alpha, clip_norm=clip)
        raise ValueError(f"{owner}: expected solver 'adam', 'adamw' or 'sgd', got {self.solver!r}")

    def _rate(self, dataset: Dataset, batch_size: int) -> float | Schedule:
        """Return the learning rate or its schedule."""
        owner, n = type(self).__name__, len(dataset.train)
        lr = check_float(owner, "learning_rate_init", self.learning_rate_init, low=0, open_low=True)
        batches = -(-n // batch_size)
        if self.learning_rate not in ("constant", "invscaling", "adaptive"):
            raise ValueError(
                f"{owner}: expected learning_rate 'constant', 'invscaling' or 'adaptive', got "
                f"{self.learning_rate!r}"
            )
        if self.schedule is not None:
            make = self.schedule
            make = make if callable(make) else choose(owner, "schedule", make, SCHEDULES)
            schedule: Schedule = make(lr, batches * self.max_iter)
            return schedule
        if self.solver == "sgd" and self.learning_rate == "invscaling":
            return InverseScaling(lr, self.power_t, n, batches)
        return lr

    def _adaptive(self) -> bool:
        return self.solver == "sgd" and self.learning_rate == "adaptive"


@dataclass(eq=False, repr=False, kw_only=True)
class MLPClassifier(Labels, MLP):
    """A network for classes, or for several labels (0 and 1) of each example.

    As ``sklearn.neural_network.MLPClassifier``; ``docs/sklearn.md`` lists what differs.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        The widths of the hidden layers; ``()`` is logistic regression.
    activation : str
        ``"identity"``, ``"logistic"``, ``"tanh"``, ``"relu"``, ``"leaky_relu"``, ``"elu"``,
        ``"gelu"``, ``"silu"`` or ``"softplus"``.
    loss : {"log_loss", "sparsemax", "entmax15"}
        Softmax cross-entropy, or the Fenchel-Young loss of a sparse map, whose probabilities may
        be exactly 0. For several labels ``"log_loss"``, the binary cross-entropy.
    class_weight : mapping or "balanced", optional
        As in scikit-learn; multiplies ``sample_weight``.
    solver : {"adam", "adamw", "sgd"}
    alpha : float
        L2 penalty, divided by the weight of a batch. With ``"adamw"`` the decoupled weight decay,
        not divided.
    batch_size : int or "auto"
        ``"auto"`` is 200. At most all examples.
    learning_rate : {"constant", "invscaling", "adaptive"}
        For ``"sgd"``; with ``power_t`` as in scikit-learn.
    learning_rate_init : float
    schedule : {"cosine", "one_cycle"} or callable, optional
        In place of ``learning_rate``: called with the rate and the number of steps of ``fit``,
        returns the rate as a function of the step, as ``minidl.Cosine`` does.
    max_iter : int
        The largest number of epochs.
    random_state : int, RandomState, Generator or None
    tol, n_iter_no_change : float, int
        Training ends when the monitored figure has not improved by ``tol`` for more than
        ``n_iter_no_change`` epochs.
    monitor : str, optional
        By default ``"train_loss"``; with early stopping the accuracy (of several labels: of all)
        on the validation part. Any figure of ``minidl.fit``, as ``"valid_loss"``.
    early_stopping : bool
        Whether to set ``validation_fraction`` of the examples aside (unless ``X_val`` is given),
        monitor them, and keep the weights of the best epoch.
    warm_start : bool
        Whether ``fit`` goes on from the last weights.
    dropout : float in [0, 1)
        After each hidden layer.
    normalization : {None, "layer", "batch"}
        Before each activation.
    clip_norm : float, optional
        The largest norm of the gradient.
    dtype : {None, "float32", "float64"}
        By default that of ``X``, float64 unless it is float32. float32 takes about half the time.
    callbacks : list of minidl.Callback, optional
    standardize : bool
        Whether to subtract the mean of each feature and divide by its standard deviation.
        ``partial_fit`` keeps those of its first call.
    verbose : bool
        Whether to print a line for each epoch.
    momentum, nesterovs_momentum, beta_1, beta_2, epsilon : float, bool
        As in scikit-learn.

    Attributes
    ----------
    classes_ : array, shape (n_classes,)
    model_ : Sequential
    history_ : History
        All figures of all epochs.
    loss_curve_, validation_scores_, best_loss_, best_validation_score_, n_iter_
    coefs_, intercepts_ : list of array
        Views of the model's parameters.
    predictor_ : Predictor
        For ``minidl.save`` and ``minidl.onnx.export``.

    Examples
    --------
    >>> model = MLPClassifier((64,), dropout=0.2, early_stopping=True, random_state=0)
    >>> model.fit(X, y).predict_proba(X)
    """

    loss: str = "log_loss"
    class_weight: Any = None

    def _loss(self) -> Loss:
        known: dict[str, Loss] = {
            "log_loss": CrossEntropy(),
            "sparsemax": FenchelYoung(sparsemax),
            "entmax15": FenchelYoung(entmax15),
        }
        loss: Loss = choose(type(self).__name__, "loss", self.loss, known)
        if not self.multilabel_:
            return loss
        if self.loss != "log_loss":
            raise ValueError(
                f"MLPClassifier: several labels need loss='log_loss', got {self.loss!r}"
            )
        return BinaryCrossEntropy()

    def _weighted(self, y: Array, weight: Array | None) -> Array | None:
        return self._class_weighted(self.class_weight, y, weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        several = self.loss == "log_loss" and self.class_weight is None
        tags.classifier_tags.multi_label = several
        return tags

    def partial_fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        classes: Any = None,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Any:
        """Train for one epoch over the given examples.

        Parameters
        ----------
        X, y, sample_weight, X_val, y_val, sample_weight_val
            As for ``fit``. With ``early_stopping=True`` validation data are needed; when their
            figure no longer improves, the best weights are restored and further calls do nothing.
        classes : array-like, optional
            All classes; needed in the first call, except for several labels.

        Returns
        -------
        self
        """
        valid = X_val, y_val, sample_weight_val
        self._check_partial(classes, y)
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            raise ValueError("class_weight 'balanced' is not supported for partial_fit")
        return self._fit(X, y, sample_weight, valid, one_epoch=True, classes=classes)


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
                f"MLPRegressor: expected y of shape (n, ...) {self._shape} as before, got {y.shape}"
            )
        return y

    def _loss(self) -> Loss:
        known: dict[str, Callable[[], Loss]] = {
            "squared_error": SquaredError,
            "absolute_error": AbsoluteError,
            "huber": lambda: Huber(self.delta),
            "quantile": lambda: Quantile(self.quantile),
        }
        loss: Loss = choose("MLPRegressor", "loss", self.loss, known)()
        return loss

    def predict(self, X: Any) -> Array:
        """Return the predicted numbers, (n,) or (n, outputs)."""
        outputs = self._outputs(X)
        return outputs if self._shape else outputs[:, 0]

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
