"""The base of all estimators: checked arrays, one call of ``fit``, fitted attributes.

A subclass says which targets it takes, which loss it has and how it trains.
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike
from sklearn.base import BaseEstimator, is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from minidl.activations import ELU, GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from minidl.callbacks import Callback, Run
from minidl.checks import Array, check_array, check_float, check_int, did_you_mean, refuse_mask
from minidl.data.features import Predictor, Standardize
from minidl.dataset import Dataset, Split
from minidl.history import History
from minidl.init import glorot
from minidl.layer import Layer, Sequential
from minidl.layers import Identity, Linear
from minidl.losses import Loss
from minidl.parameter import Parameter

ACTIVATIONS: dict[str, Callable[[], Layer]] = {
    "identity": Identity,
    "logistic": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "elu": ELU,
    "gelu": GELU,
    "silu": SiLU,
    "softplus": Softplus,
}


def choose(owner: str, name: str, value: Any, known: Mapping[Any, Any]) -> Any:
    """Return the entry of a table; ValueError that names the known ones."""
    if isinstance(value, (str, type(None))) and value in known:
        return known[value]
    hint = did_you_mean(str(value), [str(word) for word in known])
    raise ValueError(f"{owner}: no {name} {value!r}{hint}")


def _linear(features: int, width: int) -> Linear:
    return Linear(features, width, weight_init=glorot, bias_init=glorot)


Rows = tuple[Array, Array, Array | None]
"""Checked rows, encoded targets, weights."""

Valid = tuple[Any, Any, Any]
"""``X_val, y_val, sample_weight_val``; None where they are not given."""


@dataclass(eq=False, repr=False)
class Network(BaseEstimator):  # type: ignore[misc]
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
    monitor: str | None = None
    dtype: DTypeLike | None = None
    callbacks: Any = None
    standardize: bool = False

    @property
    def _name(self) -> str:
        return type(self).__name__

    @abstractmethod
    def _encode(self, y: Array, classes: Any = None, *, first: bool = False) -> Array:
        """Return checked targets as the loss takes them; with ``first``, learn the classes."""

    @abstractmethod
    def _loss(self) -> Loss:
        """Return the loss; ValueError for an unknown name."""

    def _hidden(self) -> Callable[[int], list[Layer]]:
        """Return the function from the width of a hidden ``Linear`` to the layers after it."""
        make = choose(self._name, "activation", self.activation, ACTIVATIONS)
        return lambda width: [make()]

    def _build(self, features: int, outputs: int, seed: int, dtype: DTypeLike) -> Sequential:
        """Return an untrained model, with scikit-learn's first values (Glorot and Bengio 2010)."""
        hidden, layers = self._hidden(), []
        for size in np.atleast_1d(np.asarray(self.hidden_layer_sizes, dtype=object)).tolist():
            width = check_int(self._name, "hidden_layer_sizes", size)
            layers += [_linear(features, width), *hidden(width)]
            features = width
        return Sequential(*layers, _linear(features, outputs), rng=seed, dtype=dtype)

    @abstractmethod
    def _train(self, dataset: Dataset, again: bool, **options: Any) -> None:
        """Train ``model_`` with the options of ``fit``; ``again`` goes on with the optimizer."""

    def _strata(self, y: Array) -> Array | None:
        """Return the classes that a split keeps in proportion; None where there are none."""
        return None

    def _weighted(self, y: Array, weight: Array | None) -> Array | None:
        """Return the weights of the training rows, with those of their classes."""
        return weight

    def _fit(
        self, X: Any, y: Any, weight: Any, valid: Valid, *, one_epoch: bool = False,
        classes: Any = None,
    ) -> Any:  # fmt: skip
        """Train for ``max_iter`` epochs (fit), or for one more (partial_fit)."""
        first = not hasattr(self, "model_") or not (one_epoch or self.warm_start)
        max_iter = check_int(self._name, "max_iter", self.max_iter)
        if one_epoch and self.early_stopping and valid[0] is None:
            raise ValueError(
                f"{self._name}: partial_fit with early_stopping=True needs X_val and y_val"
            )
        if first or not one_epoch:
            self._convergence: Convergence = self._new_convergence()
        elif self._convergence.converged:
            return self
        seed = check_seed(self.random_state)
        X, y = self._validated(X, y, reset=first)
        train = X, self._encode(y, classes, first=first), check_weights(weight, X)
        train, *rest = self._parts(train, valid, seed)
        if first:
            self._start(*train, seed)
        parts = (*train[:2], self._weighted(*train[1:])), *rest
        done = len(self.history_)
        dataset = Dataset(*map(self._scaled, parts), classes=self._classes())
        monitor = self.monitor
        if monitor is None:
            monitor = self._validation_metric() if self.early_stopping else "train_loss"
        measured = monitor.startswith("train_") and monitor != "train_loss"
        try:
            self._train(
                dataset,
                again=one_epoch and not first,
                rng=seed,
                epochs=max(done, 1) if one_epoch else max(done - 1, 0) + max_iter,
                callbacks=[*(self.callbacks or ()), self._convergence],
                restore_best=bool(self.early_stopping) and not one_epoch,
                history=self.history_,
                mean_weight=1.0 if one_epoch else None,
                monitor=monitor,
                parts=("train", "valid") if measured else ("valid",),
            )
        except KeyboardInterrupt:  # the epochs so far are kept, as scikit-learn does
            warnings.warn("Training interrupted by user.", stacklevel=3)
        self.n_iter_ = len(self.history_) - max(done, 1)
        converged = self._convergence.converged
        if one_epoch and self.early_stopping and converged:
            self.history_.restore_best(self.model_)
        elif one_epoch:
            self._convergence.converged = False
        elif self.n_iter_ == max_iter and not converged:
            warnings.warn(
                f"{self._name}: max_iter={max_iter} epochs were not enough to converge",
                ConvergenceWarning,
                stacklevel=3,
            )
        if not one_epoch:  # partial_fit after fit goes on
            self._convergence = self._new_convergence()
        return self

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Array, Array]:
        """Return checked rows and targets; with ``reset``, learn the number of features."""
        refuse_mask(self._name, "X", X)
        refuse_mask(self._name, "y", y)
        X, y = validate_data(
            self, X, y, reset=reset, dtype=self._input_dtype(), multi_output=True,
            y_numeric=is_regressor(self),
        )  # fmt: skip
        return X, y

    def _input_dtype(self) -> Any:
        """Return the dtype, or the dtypes, that rows may have."""
        if self.dtype is None:
            return [np.float64, np.float32]
        if np.dtype(self.dtype) not in (np.float32, np.float64):
            raise ValueError(f"{self._name}: expected dtype float32 or float64, got {self.dtype!r}")
        return np.dtype(self.dtype)

    def _start(self, X: Array, y: Array, weight: Array | None, seed: int) -> None:
        """Build the model, and learn the scale of the features."""
        outputs = self._classes() or (1 if y.ndim == 1 else y.shape[1])
        loss, scaler = self._loss(), Standardize() if self.standardize else None
        model = self._build(X.shape[1], outputs, seed, X.dtype)
        if scaler is not None:
            scaler.learn(Split(X, y, 1.0, weight=weight))
        self.n_outputs_, self.loss_function_, self.scaler_ = outputs, loss, scaler
        self.model_, self.history_ = model, History()

    def _new_convergence(self) -> Convergence:
        patience = self.n_iter_no_change
        if patience != np.inf:
            patience = check_int(self._name, "n_iter_no_change", patience)
        tol = check_float(self._name, "tol", self.tol, low=0)
        return Convergence(tol, patience, adaptive=self._adaptive(), verbose=bool(self.verbose))

    def _adaptive(self) -> bool:
        """Return whether the learning rate falls where training would stop."""
        return False

    def _validation_metric(self, monitor: str = "") -> str:
        """Return ``monitor`` if it is of the validation part, or else accuracy, R2 or the loss."""
        if monitor.startswith("valid_"):
            return monitor
        return f"valid_{next(iter(getattr(self.loss_function_, 'metrics', {})), 'loss')}"

    def _parts(self, train: Rows, valid: Valid, seed: int) -> list[Rows]:
        """Return the training part and any validation part, without the rows of weight 0."""
        parts = [train]
        X, y, weight = valid
        if X is not None:
            if y is None:
                raise ValueError(f"{self._name}: X_val needs y_val")
            X, y = self._validated(X, y, reset=False)
            parts = [train, (X, self._encode(y), check_weights(weight, X))]
        elif self.early_stopping:
            parts = self._halves(train, seed)
        for i, (X, y, weight) in enumerate(parts):
            if weight is None or weight.all():
                continue
            used = weight > 0  # rows of weight 0 would take part in batch statistics
            if not used.any():
                part = ("training", "validation")[i]
                raise ValueError(
                    f"{self._name}: expected sample weights above 0 in the {part} part, got only "
                    "zeros"
                )
            parts[i] = X[used], y[used], weight[used]
        return parts

    def _halves(self, rows: Rows, seed: int) -> list[Rows]:
        """Set ``validation_fraction`` of the rows aside, stratified by class."""
        X, y, weight = rows
        parts = train_test_split(
            np.arange(len(X)),
            test_size=self.validation_fraction,
            random_state=seed,
            stratify=self._strata(y),
        )
        if len(parts[1]) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        return [(X[i], y[i], None if weight is None else weight[i]) for i in parts]

    def _scaled(self, rows: Rows) -> Split:
        """Return rows as a part of a data set, standardised where asked for."""
        X, y, weight = rows
        return Split(X if self.scaler_ is None else self.scaler_.apply(X), y, 1.0, weight=weight)

    def _classes(self) -> int:
        """Return the number of classes, 0 for numbers."""
        return len(getattr(self, "classes_", ()))

    @property
    def predictor_(self) -> Predictor:
        """The model with its standardisation, loss and classes, for ``minidl.save`` and ONNX."""
        check_is_fitted(self)
        features = [] if self.scaler_ is None else [self.scaler_]
        predictor = Predictor(self.model_, features, loss=self.loss_function_)
        predictor.class_names = getattr(self, "classes_", None)
        return predictor

    def _outputs(self, X: Any) -> Array:
        """Return the outputs of the model for checked rows."""
        check_is_fitted(self)
        refuse_mask(self._name, "X", X)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return self.predictor_.outputs(X)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    @property
    def coefs_(self) -> list[Array]:
        """The weights of the ``Linear`` layers, (in, out), as views of the model's parameters.

        Arrays assigned to an item or to the whole list are written into the model.
        """
        layers = self._linear()
        return Weights(self._name, "coefs_", [(one, one.weight) for one in layers])

    @coefs_.setter
    def coefs_(self, new: Any) -> None:
        self.coefs_[:] = new

    @property
    def intercepts_(self) -> list[Array]:
        """The biases of the ``Linear`` layers, as views; they can be assigned as ``coefs_``."""
        found = [(one, one.bias) for one in self._linear() if one.bias is not None]
        return Weights(self._name, "intercepts_", found)

    @intercepts_.setter
    def intercepts_(self, new: Any) -> None:
        self.intercepts_[:] = new

    def _linear(self) -> list[Linear]:
        """Return the ``Linear`` layers of the model."""
        check_is_fitted(self)
        _ = self.model_.theta  # a copy or a pickle makes its vectors on first use
        return [layer for layer in self.model_ if isinstance(layer, Linear)]

    @property
    def n_layers_(self) -> int:
        """The number of layers of units, those of input and output included."""
        return len(self.coefs_) + 1

    @property
    def loss_curve_(self) -> list[float]:
        """The training loss of each epoch."""
        check_is_fitted(self)
        return [record.metrics["train_loss"] for record in self.history_.records[1:]]

    @property
    def loss_(self) -> float:
        """The training loss of the last epoch."""
        return self.loss_curve_[-1]

    @property
    def best_loss_(self) -> float:
        """The lowest training loss of an epoch."""
        return min(self.loss_curve_)

    @property
    def validation_scores_(self) -> list[float] | None:
        """The metric of each epoch on the validation part; None without one.

        It is the monitored metric if that is one of the validation part, or else the accuracy or R2
        (the loss where neither is defined).
        """
        check_is_fitted(self)
        name = self._validation_metric(self.history_.monitor)
        if not any(name in record.metrics for record in self.history_):
            return None
        return [record.metrics.get(name, np.nan) for record in self.history_.records[1:]]

    @property
    def best_validation_score_(self) -> float | None:
        """The best of ``validation_scores_``, the lowest for a loss."""
        scores = self.validation_scores_
        if scores is None:
            return None
        monitor = self.history_.monitor
        name = self._validation_metric(monitor)
        lowest = self.history_.mode == "min" if name == monitor else name.endswith("loss")
        return float((np.nanmin if lowest else np.nanmax)(scores))


def check_seed(random_state: Any) -> int:
    """Return a seed from an int, a RandomState, None (NumPy's global state) or a Generator."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    return int(check_random_state(random_state).randint(2**31 - 1))


def check_weights(weight: Any, X: Array) -> Array | None:
    """Return the weights of the rows as float64, with the errors of scikit-learn."""
    if weight is None:
        return None
    refuse_mask("the estimator", "sample_weight", weight)
    weight = _check_sample_weight(weight, X, dtype=np.float64, ensure_non_negative=True)
    if not weight.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return np.asarray(weight)


class Convergence(Callback):
    """Stop when the monitored metric has not improved for more than ``patience`` epochs.

    An epoch without an improvement is one whose score is not better by ``tol`` than the best score
    of all epochs before it, as in ``sklearn.neural_network``. (``minidl.EarlyStopping`` compares
    with the last epoch that was such an improvement.)

    Parameters
    ----------
    tol : float
    patience : int or inf
    adaptive : bool
        Whether to divide the learning rate by 5 in place of stopping, until it is 1e-6.
    verbose : bool
        Whether to print a line for each epoch.

    Attributes
    ----------
    converged : bool
        Whether this rule ended the training.
    """

    def __init__(self, tol: float, patience: float, *, adaptive: bool, verbose: bool) -> None:
        self.tol, self.patience = tol, patience
        self.adaptive, self.verbose = adaptive, verbose
        self.best, self.without, self.converged = -math.inf, 0, False

    def on_epoch(self, run: Run) -> bool:
        record = run.history[-1]
        score = run.history.score(record)
        self.without = self.without + 1 if score < self.best + self.tol else 0
        self.best = max(self.best, score)
        if self.verbose:
            shown = dict.fromkeys(("train_loss", run.history.monitor))
            values = (f"{n} = {record.metrics[n]:.8f}" for n in shown if n in record.metrics)
            print(f"Iteration {record.epoch}, {', '.join(values)}", flush=True)
        if self.without <= self.patience:
            return False
        lr = run.optimizer.lr
        if self.adaptive and not callable(lr) and lr > 1e-6:
            run.optimizer.lr, self.without = lr / 5, 0
            return False
        self.converged = True
        return True


class Weights(list[Array]):
    """The weights or the biases of the ``Linear`` layers of a model, as views of its parameters.

    An array that is assigned to an item or a slice is written into the model. The list keeps its
    length. A copy or a pickle of it is a plain list, whose arrays are the caller's.

    Parameters
    ----------
    owner : str
        The estimator.
    name : str
        ``"coefs_"`` or ``"intercepts_"``.
    parameters : sequence of (Linear, Parameter)
    """

    def __init__(
        self, owner: str, name: str, parameters: Sequence[tuple[Linear, Parameter]]
    ) -> None:
        super().__init__(parameter.value for _, parameter in parameters)
        self._owner, self._name, self._parameters = owner, name, parameters

    def __setitem__(self, index: Any, new: Any) -> None:
        """Write one array, or those of a slice, into the model: all or, on an error, none.

        Raises
        ------
        ValueError
            If the number of arrays or a shape differs, or an array has no finite real numbers.
        """
        places = range(len(self))[index]
        if isinstance(places, int):
            places, new = range(places, places + 1), [new]
        arrays = list(new) if isinstance(new, Iterable) else [new]
        if len(arrays) != len(places):
            raise ValueError(
                f"{self._owner}: expected {self._name} to be {len(places)} arrays, one for each "
                f"layer, got {len(arrays)}"
            )
        checked = [self._checked(i, array) for i, array in zip(places, arrays, strict=True)]
        for i, array in zip(places, checked, strict=True):
            self._parameters[i][1].value = array

    def _checked(self, i: int, array: Any) -> Array:
        layer, parameter = self._parameters[i]
        name = f"{self._name}[{i}], of layer {i + 1}, {layer!r},"
        new = check_array(self._owner, name, array, parameter.shape, parameter.value.dtype)
        if not np.isfinite(new).all():
            raise ValueError(f"{self._owner}: expected {name} to be finite")
        return new

    def _fixed(self, *args: Any, **options: Any) -> NoReturn:
        raise TypeError(
            f"{self._owner}: the length of {self._name} is fixed by hidden_layer_sizes; assign "
            f"arrays to its items, or a list of {len(self)} arrays"
        )

    append = clear = extend = insert = pop = remove = reverse = sort = _fixed
    __delitem__ = __iadd__ = __imul__ = _fixed

    def __reduce_ex__(self, protocol: Any) -> tuple[type[list[Array]], tuple[list[Array]]]:
        return list, ([*self],)
