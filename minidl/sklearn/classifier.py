"""``MLPClassifier``, and ``OnlineClassifier``, which trains on one example at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import multiclass
from sklearn.utils.metaestimators import available_if

from minidl import losses
from minidl.checks import Array, as_array, check_float
from minidl.dataset import Dataset, class_factors
from minidl.evaluation import predict, probabilities_of
from minidl.layer import Sequential
from minidl.layers import Linear
from minidl.losses import BinaryLogistic, CrossEntropy, FenchelYoung, Loss
from minidl.maps import entmax15, sparsemax
from minidl.online.fitting import fit_online
from minidl.sklearn.mlp import MLP, with_steps
from minidl.sklearn.network import Network

with_probabilities = available_if(lambda estimator: estimator.loss != "perceptron")


class Labels(ClassifierMixin, Network):  # type: ignore[misc]
    """Maps labels to the classes ``0..K-1`` and back; several labels (0 and 1) are kept."""

    class_weight: Any
    classes_: Array
    _shape: Any  # of the labels of one example: () of one

    def _labels(self, name: str, y: Any) -> Array:
        """Return labels in native byte order; objects that are all text as text."""
        labels = as_array(self._name, name, y)
        text = labels.dtype == object and all(isinstance(label, str) for label in labels.flat)
        return labels.astype(str) if text else labels

    def _encode(
        self, y: Any, classes: Any = None, *, first: bool = False, again: bool = False
    ) -> Array:
        """Return classes (n,) or labels (n, K); with ``first``, learn the classes."""
        y, kind = self._labels("y", y), "multiclass"
        if y.ndim != 1 or y.dtype.kind not in "biuU":  # others are classes; the question is slow
            multiclass.check_classification_targets(y)
            kind = multiclass.type_of_target(y)
        if y.ndim == 2 and kind != "multilabel-indicator":
            raise ValueError(f"{self._name}: expected one label, or labels 0 and 1, in each column")
        if first:
            self._shape = y.shape[1:]
            given = y if classes is None else self._labels("classes", classes)
            self.classes_ = np.arange(y.shape[1]) if y.ndim == 2 else np.unique(given)
        elif y.shape[1:] != tuple(self._shape):
            raise ValueError(f"{self._name}: expected y as in the first call, got shape {y.shape}")
        if y.ndim == 2:
            return np.asarray(y, np.int64)
        found = np.searchsorted(self.classes_, y)
        wrong = self.classes_[np.minimum(found, len(self.classes_) - 1)] != y
        if again and (wrong.any() or len(np.unique(y)) < len(self.classes_)):
            why = "warm_start can only be used where `y` has the same classes as in the previous"
            got = f"Previously got {self.classes_}, `y` has {np.unique(y)}"
            raise ValueError(f"{why} call to fit. {got}")
        if wrong.any():
            want = f"`self.classes_` has {self.classes_}, `y` has {np.unique(y[wrong])}."
            raise ValueError(f"`y` has classes not in `self.classes_`. {want}")
        return np.asarray(found)

    def _decoded(self, y: Array) -> Array:
        return y if self._shape else np.asarray(self.classes_[y])

    def _check_partial(self, classes: Any, y: Any) -> None:
        """Check the ``classes`` of ``partial_fit``, and that it need not know all labels."""
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            raise ValueError("class_weight 'balanced' is not supported for partial_fit")
        if classes is not None or np.ndim(y) == 1:
            multiclass._check_partial_fit_first_call(self, classes)

    def _weighted(self, y: Array, weight: Array | None) -> Array | None:
        """Return the weights of the examples times those of their classes."""
        if self.class_weight is None:
            return weight
        if self._shape:
            raise ValueError(f"{self._name}: class_weight is not for several labels")
        names = self.classes_.tolist()
        factors = class_factors(self._name, self.class_weight, names, y, weight)
        return np.asarray(factors[y] * (1.0 if weight is None else weight))

    def _predicted(self, outputs: Array) -> Array:
        predicted = predict(self.loss_function_, outputs)
        if self._shape:
            return predicted.reshape(outputs.shape)
        return np.asarray(self.classes_[np.maximum(predicted, 0)])  # the sign -1: the first

    @property
    def _label_binarizer(self) -> LabelBinarizer:
        """The kind of the targets, for readers of scikit-learn's networks."""
        several = np.eye(len(self.classes_), dtype=int)
        return LabelBinarizer().fit(several if self._shape else self.classes_)

    @with_probabilities  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, or of each of several labels, (n, K)."""
        outputs = self._outputs(X)
        if isinstance(self.loss_function_, BinaryLogistic):
            outputs = np.hstack([-outputs, outputs])
        return probabilities_of(self.loss_function_, outputs)

    @with_probabilities  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of the probabilities, minus infinity where one is 0."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))

    @with_probabilities  # type: ignore[untyped-decorator]
    def support(self, X: Any) -> Array:
        """Return a mask (n, K): the classes whose probability is not 0."""
        return np.asarray(self.predict_proba(X) > 0)


@dataclass(eq=False, repr=False, kw_only=True)
class MLPClassifier(Labels, MLP):
    """A network for classes, or for several labels (0 and 1) of each example.

    As ``sklearn.neural_network.MLPClassifier``; ``docs/sklearn.md`` lists what differs.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        ``()`` is logistic regression.
    activation : {"identity", "logistic", "tanh", "relu", "leaky_relu", "elu", "gelu", "silu", \
"softplus"}
    loss : {"log_loss", "sparsemax", "entmax15"}
        Softmax cross-entropy (of two classes the logistic loss of one output), or the Fenchel-Young
        loss of a sparse map, whose probabilities may be exactly 0. For several labels
        ``"log_loss"``, the binary cross-entropy, summed over the labels.
    class_weight : mapping or "balanced", optional
        Multiplies ``sample_weight``, with its full effect at every ``batch_size``.
    solver : {"adam", "adamw", "sgd", "lbfgs"}
        ``"lbfgs"`` is SciPy's L-BFGS-B on all rows at once, in float64, with ``max_iter``
        iterations and ``max_fun`` calls of the loss; ``tol`` bounds the gradient. It has no
        ``partial_fit``, dropout or batch normalization.
    alpha : float
        L2 penalty, divided by the weight of a batch; of ``"adamw"`` the decoupled weight decay, not
        divided. It spares biases, and the gains and offsets of normalization.
    schedule : {"cosine", "one_cycle"} or callable, optional
        In place of ``learning_rate``: called with the rate and the number of steps of ``fit``,
        returns the rate as a function of the step, as ``minidl.Cosine`` does.
    monitor : str or callable, optional
        What has to improve by ``tol`` within ``n_iter_no_change`` epochs: ``"train_loss"``; with
        early stopping the accuracy (of several labels: of all) on the validation part, with
        ``class_weight`` its loss. Any metric of ``minidl.fit``, as ``"valid_loss"``, or scorer of
        scikit-learn, a name as ``"f1_macro"`` or a function, of which the highest is the best.
    early_stopping : bool
        Whether to set ``validation_fraction`` of the examples aside (unless ``X_val`` is given),
        of each class its share, monitor them, and keep the weights of the best epoch.
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
    batch_size, learning_rate, learning_rate_init, power_t, max_iter, tol, n_iter_no_change, \
random_state, shuffle, verbose, warm_start, momentum, nesterovs_momentum, beta_1, beta_2, epsilon
        As in scikit-learn.

    Attributes
    ----------
    model_ : Sequential
    history_ : History
        All metrics of all epochs.
    coefs_, intercepts_ : list of array
        Views of the model's parameters; arrays that are assigned are written into the model.
    predictor_ : Predictor
        For ``minidl.save`` and ``minidl.onnx.export``.
    classes_, loss_, loss_curve_, best_loss_, validation_scores_, best_validation_score_, n_iter_, \
t_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn.

    Examples
    --------
    >>> model = MLPClassifier((64,), dropout=0.2, early_stopping=True, random_state=0)
    >>> model.fit(X, y).predict_proba(X)
    """

    loss: str = "log_loss"
    class_weight: Any = None

    @with_steps  # type: ignore[untyped-decorator]
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
        """Train for one epoch over the given examples; return ``self``.

        Parameters
        ----------
        X, y, sample_weight, X_val, y_val, sample_weight_val
            As for ``fit``. With ``early_stopping=True`` validation data are needed; when their
            metric no longer improves, the best weights are restored and further calls do nothing.
        classes : array-like, optional
            All classes; needed in the first call, except for several labels.
        """
        valid = X_val, y_val, sample_weight_val
        self._check_partial(classes, y)
        return self._fit(X, y, sample_weight, valid, one_epoch=True, classes=classes)

    def _loss(self) -> tuple[Loss, str, int]:
        known: dict[str, Callable[[], Loss]] = {
            "log_loss": CrossEntropy,
            "sparsemax": lambda: FenchelYoung(sparsemax),
            "entmax15": lambda: FenchelYoung(entmax15),
        }
        make, k = self._chosen("loss", known), len(self.classes_)
        if self.loss != "log_loss":
            if self._shape:
                raise ValueError(f"{self._name}: several labels need loss='log_loss'")
            return make(), self.loss, k
        if self._shape:
            return losses.BinaryCrossEntropy(label_reduction="sum"), "logistic", k
        if k == 2:  # the second's logit, as in scikit-learn
            return BinaryLogistic(), "logistic", 1
        return make(), "softmax", k

    def _targets(self, y: Array) -> Array:
        return 2 * y - 1 if isinstance(self.loss_function_, BinaryLogistic) else y

    def _tail(self) -> Linear | None:
        if not isinstance(self.loss_function_, BinaryLogistic):
            return None
        tail = Linear(1, 2, bias=False, rng=0, dtype=self.model_.dtype)
        tail.load_state_dict({"weight": np.array([[0.0, 1.0]])})
        return tail

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        several = self.loss == "log_loss" and self.class_weight is None
        tags.classifier_tags.multi_label = several
        return tags


@dataclass(eq=False, repr=False, kw_only=True)
class OnlineClassifier(Labels, Network):
    """The perceptron, logistic regression or a network, trained on one example at a time.

    Every step is ``w -= learning_rate_init (gradient + alpha w)`` for one example; the steps are
    computed in blocks, in about a tenth of the time of a plain loop. Linear models start at zero.
    Parameters and attributes that are not here are those of ``MLPClassifier``.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        ``()``, the default, is a linear model.
    loss : {"log_loss", "perceptron"}
        ``"perceptron"`` has no probabilities.
    class_weight : mapping or "balanced", optional
        The gradient of an example is multiplied by the weight of its class, divided by the mean
        weight. There is no ``sample_weight``: a weight of 2 is one step of twice the length, an
        example twice is two steps.
    alpha, l1 : float
        L2 and L1 penalty of all parameters, biases too, as in ``minidl.fit_online``.
    learning_rate_init : float
        Constant. (The perceptron's predictions do not depend on it.)
    block_size : int
        The number of examples that are computed together; with ``l1=0`` it changes the result by
        rounding alone.
    """

    hidden_layer_sizes: Any = field(default=(), kw_only=False)  # the first, as in Network
    max_iter: int = 100
    n_iter_no_change: float = 5
    loss: str = "log_loss"
    class_weight: Any = None
    alpha: float = 0.0
    l1: float = 0.0
    learning_rate_init: float = 0.01
    block_size: int = 64

    def fit(self, X: Any, y: Any, X_val: Any = None, y_val: Any = None) -> Any:
        """Train the model; arguments as of ``MLPClassifier.fit``."""
        return self._fit(X, y, None, (X_val, y_val, None))

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, X_val: Any = None, y_val: Any = None
    ) -> Any:
        """Train once on each example; arguments as of ``MLPClassifier.partial_fit``."""
        self._check_partial(classes, y)
        return self._fit(X, y, None, (X_val, y_val, None), one_epoch=True, classes=classes)

    def _loss(self) -> tuple[Loss, str, int]:
        if self._shape:
            raise ValueError(f"{self._name}: expected one label for each example, got several")
        loss: Loss = self._chosen(
            "loss", {"log_loss": CrossEntropy, "perceptron": losses.Perceptron}
        )()
        return loss, "softmax" if self.loss == "log_loss" else "identity", len(self.classes_)

    def _build(self, features: int, outputs: int, seed: int, dtype: DTypeLike) -> Sequential:
        model = super()._build(features, outputs, seed, dtype)
        if len(model) == 1:
            model.theta[:] = 0
        return model

    def _train(self, dataset: Dataset, again: bool, **options: Any) -> None:
        asked = ("learning_rate_init", "alpha", "l1")
        lr, decay, l1 = (check_float(self._name, a, getattr(self, a), low=0) for a in asked)
        options |= {"lr": lr, "weight_decay": decay, "l1": l1, "block_size": self.block_size}
        fit_online(self.model_, dataset, self.loss_function_, **options)

    def decision_function(self, X: Any) -> Array:
        """Return the outputs (n, K); of two classes the second minus the first, (n,)."""
        outputs = self._outputs(X)
        return outputs[:, 1] - outputs[:, 0] if outputs.shape[1] == 2 else outputs
