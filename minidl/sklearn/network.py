"""The base of all estimators: checked arrays, one call of ``fit``, what ends training.

A subclass says which targets it takes, which loss it has and how it trains.
"""

from __future__ import annotations

import copy
import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike
from scipy.sparse import issparse
from sklearn.base import RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, validation

from minidl.activations import ELU, GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from minidl.callbacks import Callback, Run
from minidl.checks import FLOATS, Array, as_dtype, check_choice, check_float, check_int, refuse_mask
from minidl.data.features import Standardize
from minidl.dataset import Dataset, Split
from minidl.history import Epoch, History
from minidl.init import glorot
from minidl.layer import Layer, Sequential
from minidl.layers import Identity, Linear
from minidl.sklearn.fitted import Fitted
from minidl.sklearn.rows import Checked, Examples, answers, sparse_first
from minidl.training import NonFiniteLossError

ACTIVATIONS: dict[str, Callable[[], Layer]] = {
    "identity": Identity, "logistic": Sigmoid, "tanh": Tanh, "relu": ReLU, "leaky_relu": LeakyReLU,
    "elu": ELU, "gelu": GELU, "silu": SiLU, "softplus": Softplus,
}  # fmt: skip

Rows = tuple[Any, Any, Any]
"""Checked rows, encoded targets, weights or None; of the user's validation part as given."""


@dataclass(eq=False, repr=False)
class Network(Fitted):
    """A network as an estimator. A subclass says which targets, layers, loss and training.

    The fields of a dataclass are its constructor's arguments, so each is written once.
    """

    hidden_layer_sizes: Any = (100,)
    activation: str = "relu"
    _: KW_ONLY
    max_iter: int = 200
    random_state: Any = None
    tol: float = 1e-4
    verbose: bool = False
    warm_start: bool = False
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: float = 10
    monitor: Any = None
    dtype: DTypeLike | None = None
    callbacks: Any = None
    standardize: bool = False

    _formats: ClassVar[Any] = False  # of sparse rows

    @abstractmethod
    def _encode(
        self, y: Array, classes: Any = None, *, first: bool = False, again: bool = False
    ) -> Array:
        """Return checked targets: classes, labels or numbers.

        With ``first``, learn their kind; with ``again``, check that all classes are there.
        """

    def _targets(self, y: Array) -> Array:
        """Return encoded targets as the loss takes them."""
        return y

    def _decoded(self, y: Array) -> Array:
        """Return encoded targets as the user wrote them."""
        return y

    @abstractmethod
    def _predicted(self, outputs: Array) -> Array:
        """Return what outputs of the model predict, as the user wrote it."""

    def _weighted(self, y: Array, weight: Array | None) -> Array | None:
        """Return the weights of the training rows, with those of their classes."""
        return weight

    @abstractmethod
    def _train(self, dataset: Dataset, again: bool, **options: Any) -> None:
        """Train ``model_`` with the options of ``fit``; ``again`` goes on with the optimizer."""

    def _chosen(self, name: str, known: Mapping[str, Any]) -> Any:
        """Return what a setting names; ValueError with the known names for others."""
        return known[check_choice(self._name, name, getattr(self, name), tuple(known))]

    def _hidden(self, width: int) -> list[Layer]:
        """Return the layers after a hidden ``Linear``."""
        return [self._chosen("activation", ACTIVATIONS)()]

    def _build(self, features: int, outputs: int, seed: int, dtype: DTypeLike) -> Sequential:
        """Return an untrained model, with scikit-learn's first values (Glorot and Bengio 2010)."""
        linear, layers = partial(Linear, weight_init=glorot, bias_init=glorot), list[Layer]()
        sizes = np.atleast_1d(np.asarray(self.hidden_layer_sizes, dtype=object)).tolist()
        if not sizes:
            self._hidden(1)  # names a wrong setting also where it has no effect
        for size in sizes:
            width = check_int(self._name, "hidden_layer_sizes", size)
            layers += [linear(features, width), *self._hidden(width)]
            features = width
        return Sequential(*layers, linear(features, outputs), rng=seed, dtype=dtype)

    def _start(self, X: Any, y: Array, weight: Array | None, seed: int) -> None:
        """Build the model, and learn the scale of the features."""
        loss, activation, outputs = self._loss()
        self.model_ = self._build(X.shape[1], outputs, seed, X.dtype)
        self.loss_function_, self.out_activation_, self.n_outputs_ = loss, activation, outputs
        self.history_ = History()
        self.scaler_ = None
        if self.standardize:
            self.scaler_ = Standardize()
            self.scaler_.learn(Split(X, y, 1.0, weight=weight))

    def _fit(
        self, X: Any, y: Any, weight: Any, valid: Rows, *, one_epoch: bool = False,
        classes: Any = None,
    ) -> Any:  # fmt: skip
        """Train for ``max_iter`` epochs (fit), or for one more (partial_fit)."""
        name, max_iter = self._name, check_int(self._name, "max_iter", self.max_iter)
        first = "model_" not in vars(self) or not (one_epoch or self.warm_start)
        if one_epoch and self.early_stopping and valid[0] is None:
            why = "partial_fit does not support early_stopping=True without validation data"
            raise ValueError(f"{name}: {why}; it needs X_val and y_val")
        rule = None if first or not one_epoch else vars(self).get("_rule")
        rule = Convergence(self) if rule is None else rule
        if rule.converged and self.early_stopping:
            return self
        seed = check_seed(self.random_state)
        X, y = self._validated(X, y, reset=first)
        y = self._encode(y, classes, first=first, again=not (first or one_epoch))
        parts = self._parts((X, y, weight), valid, seed)
        if first:
            self._start(*parts[0], seed)
        done, history = len(self.history_), self.history_
        dataset = Checked(*map(self._part, parts), classes=0)
        try:
            with sparse_first(self.model_, X):
                self._train(
                    dataset,
                    again=one_epoch and not first,
                    rng=seed,
                    epochs=max(done, 1) if one_epoch else max(done - 1, 0) + max_iter,
                    callbacks=[*(self.callbacks or ()), rule],
                    restore_best=bool(self.early_stopping) and not one_epoch,
                    history=history,
                    mean_weight=1.0 if one_epoch else None,
                    **self._watched(parts[-1], len(parts) > 1),
                )
        except KeyboardInterrupt:  # the epochs so far are kept, as scikit-learn does
            warnings.warn("Training interrupted by user.", stacklevel=3)
        except NonFiniteLossError as error:
            if one_epoch or not self.early_stopping or len(history) < 2:
                why = "Solver produced non-finite parameter weights. The input data may contain"
                hint = "large values and need to be preprocessed"
                raise NonFiniteLossError(f"{name}: {why} {hint}. ({error})") from error
            # As scikit-learn, which has NaN as the score of an epoch that did not end well.
            metrics = dict.fromkeys(["train_loss", history.monitor], math.nan)
            history.append(Epoch(len(history), 0.0, history[-1].lr, metrics, False), self.model_)
            history.restore_best(self.model_)
            best = f"the weights are those of epoch {history.best.epoch}"
            warnings.warn(f"{name}: {error}; {best}", ConvergenceWarning, stacklevel=3)
        self.n_iter_ = len(history) - max(done, 1)
        self.t_: int = (0 if first else self.t_) + self.n_iter_ * len(dataset.train)
        self._rule = rule if one_epoch else None
        if one_epoch and self.early_stopping and rule.converged:
            history.restore_best(self.model_)
        elif not (one_epoch or rule.converged) and self.n_iter_ >= max_iter:
            why = f"max_iter={max_iter} epochs were not enough to converge"
            warnings.warn(f"{name}: {why}", ConvergenceWarning, stacklevel=3)
        return self

    def _watched(self, part: Rows, validated: bool) -> dict[str, Any]:
        """Return the options of ``fit`` that say what is measured and monitored.

        ``monitor`` is a metric of ``fit``, or a scorer of scikit-learn, which sees the last part.
        """
        default = self._validation_metric() if self.early_stopping else "train_loss"
        monitor = default if self.monitor is None else self.monitor
        parts = ["valid"] if validated else []
        if monitor == "train_loss":
            return {"monitor": monitor, "mode": "min", "parts": parts}
        if isinstance(monitor, str) and monitor.startswith(("train_", "valid_")):
            return {"monitor": monitor, "parts": [*parts, *["train"] * (monitor[0] == "t")]}
        scorer, twin = get_scorer(monitor), copy.copy(self)
        twin.__dict__["_outputs"] = lambda outputs: outputs
        name = monitor if isinstance(monitor, str) else getattr(monitor, "__name__", "score")
        y, weights = self._decoded(part[1]), {} if part[2] is None else {"sample_weight": part[2]}

        def metric(outputs: Array, targets: Array) -> float:
            finite = np.isfinite(outputs).all()
            return float(scorer(twin, outputs, y, **weights)) if finite else math.nan

        parts = parts or ["train"]
        watched = {"monitor": f"{parts[0]}_{name}", "mode": "max", "parts": parts}
        return {**watched, "metrics": {name: metric}}

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Array]:
        """Return checked rows and targets; with ``reset``, learn the number of features."""
        name = self._name
        refuse_mask(name, "X", X)
        refuse_mask(name, "y", y)
        kinds = [np.float64, np.float32] if self.dtype is None else as_dtype(name, self.dtype)
        in_float64 = vars(self).get("solver") == "lbfgs"
        X, y = validation.validate_data(
            self, X, y, reset=reset, dtype=np.float64 if in_float64 else kinds, multi_output=True,
            y_numeric=isinstance(self, RegressorMixin), accept_sparse=self._formats,
        )  # fmt: skip
        if self.standardize and issparse(X):
            hint = "scale them before, with MaxAbsScaler or StandardScaler(with_mean=False)"
            raise TypeError(f"{name}: standardize=True would make sparse rows dense; {hint}")
        y = y.toarray() if issparse(y) else y
        return X, validation.column_or_1d(y, warn=True) if y.shape[1:] == (1,) else y

    def _parts(self, train: Rows, valid: Rows, seed: int) -> list[Rows]:
        """Return the weighted training part and any validation part, without rows of weight 0."""
        X, y, weight = counted(*train)
        train = X, y, self._weighted(y, weight)
        X, y, weight = valid
        if X is None:
            return self._halves(train, seed) if self.early_stopping else [train]
        if y is None:
            raise ValueError(f"{self._name}: X_val needs y_val")
        X, y = self._validated(X, y, reset=False)
        return [train, counted(X, self._encode(y), weight)]

    def _halves(self, rows: Rows, seed: int) -> list[Rows]:
        """Set ``validation_fraction`` of the rows aside, at least two and one of each class."""
        (X, y, weight), n = rows, len(rows[1])
        one_label = "classes_" in vars(self) and y.ndim == 1
        classes, counts = np.unique(y if one_label else [], return_counts=True)
        name = "validation_fraction"
        share = check_float(
            self._name, name, self.validation_fraction, low=0, high=1, open_low=True, open_high=True
        )
        size = max(math.ceil(share * n), len(classes), 2)
        if size >= n:
            why = f"Increase {name!r} or the size of your dataset."
            raise ValueError(f"The validation set is too small. {why} (n_samples={n})")
        # Of two classes as scikit-learn, which splits by the column of the second.
        pair = len(classes) == 2
        strata = None if not one_label else y[:, None] == classes[1] if pair else y
        options = {"test_size": size, "random_state": seed, "stratify": strata}
        try:
            found = train_test_split(np.arange(n), **options)
        except ValueError as error:
            rare = self._decoded(classes[counts == 1]).tolist()
            why = f"{error}; there is only 1 of {rare}" if rare else f"{error}"
            raise ValueError(
                f"{self._name}: early_stopping sets {name} of each class aside, so each needs "
                f"2 rows, or give X_val and y_val (n_samples={n}): {why}"
            ) from error
        return [(X[i], y[i], None if weight is None else weight[i]) for i in found]

    def _part(self, rows: Rows) -> Split:
        """Return rows as a part of a data set, standardised where asked for."""
        X, y, weight = rows
        X = X if self.scaler_ is None else self.scaler_.apply(X)
        return Examples(X, self._targets(y), 1.0, weight, getattr(self, "shuffle", True))

    def _outputs(self, X: Any) -> Array:
        """Return the outputs of the model for checked rows."""
        if not self._plain(X):
            validation.check_is_fitted(self)
            refuse_mask(self._name, "X", X)
            kinds = [np.float64, np.float32]
            X = validation.validate_data(
                self, X, reset=False, dtype=kinds, accept_sparse=self._formats
            )
        return answers(self.model_, X if self.scaler_ is None else self.scaler_.apply(X))

    def _plain(self, X: Any) -> bool:
        """Return whether rows need no conversion, which scikit-learn finds slowly for one row."""
        known = vars(self)
        sparse = self._formats and getattr(X, "format", "") == "csr"
        if not (sparse or type(X) is np.ndarray) or "feature_names_in_" in known:
            return False
        if X.ndim != 2 or X.shape[1] != known.get("n_features_in_") or "model_" not in known:
            return False
        values = X.data if sparse else X
        with np.errstate(all="ignore"):
            return values.dtype in FLOATS and len(values) > 0 and math.isfinite(values.sum())

    def predict(self, X: Any) -> Array:
        """Return the class or number of each row, (n,); several of them as (n, K)."""
        return self._predicted(self._outputs(X))  # says so if the estimator is not fitted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = bool(self._formats) and not self.standardize
        return tags


def check_seed(random_state: Any) -> int:
    """Return a seed from an int, a RandomState, None (NumPy's global state) or a Generator."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    if type(random_state) is int:
        return first_number(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


@lru_cache(256)
def first_number(seed: int) -> int:
    """Return the first number of a RandomState: to make one takes as long as a small epoch."""
    return int(np.random.RandomState(seed).randint(2**31 - 1))


def counted(X: Any, y: Array, weight: Any) -> Rows:
    """Return the rows of weight above 0: others would take part in batch statistics.

    Weights are checked with the errors of scikit-learn, and are float64.
    """
    if weight is None:
        return X, y, None
    refuse_mask("the estimator", "sample_weight", weight)
    weight = validation._check_sample_weight(weight, X, dtype=np.float64, ensure_non_negative=True)
    if not weight.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    used = weight > 0
    return (X, y, weight) if used.all() else (X[used], y[used], weight[used])


class Convergence(Callback):
    """Stop when the monitored metric has not improved for more than ``n_iter_no_change`` epochs.

    An improvement is a score better by ``tol`` than all before it, as in scikit-learn, and not than
    the last improvement, as in ``EarlyStopping``. An adaptive learning rate is divided by 5 in
    place of stopping, until it is 1e-6. ``converged``: whether this rule ended training.
    """

    def __init__(self, estimator: Any) -> None:
        owner, asked = type(estimator).__name__, vars(estimator)
        self.patience = asked["n_iter_no_change"]
        if self.patience != math.inf:
            check_int(owner, "n_iter_no_change", self.patience)
        self.tol = check_float(owner, "tol", asked["tol"], low=0)
        self.adaptive = asked.get("solver") == "sgd" and asked["learning_rate"] == "adaptive"
        self.verbose = asked["verbose"]
        self.best, self.without, self.converged = -math.inf, 0, False

    def on_epoch(self, run: Run) -> bool:
        record = run.history[-1]
        score = run.history.score(record)
        self.without = self.without + 1 if score < self.best + self.tol else 0
        self.best = max(self.best, score)
        if self.verbose:
            shown = {"loss": record.train_loss, **record.metrics}
            del shown["train_loss"]
            values = ", ".join(f"{name} = {value:.8f}" for name, value in shown.items())
            print(f"Iteration {record.epoch}, {values}", flush=True)
        lr, stops = run.optimizer.lr, self.without > self.patience
        if stops and self.adaptive and not callable(lr) and lr > 1e-6:
            run.optimizer.lr, self.without = lr / 5, 0
            return False
        self.converged |= stops
        return bool(stops)
