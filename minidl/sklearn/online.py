"""``OnlineClassifier``: SGD on one example at a time, trained by ``minidl.fit_online``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import DTypeLike
from sklearn.utils.metaestimators import available_if

from minidl.data.dataset import Dataset
from minidl.init import glorot, zeros
from minidl.layer import Sequential
from minidl.layers import Linear
from minidl.losses import CrossEntropy, Loss, Perceptron
from minidl.online import fit_online
from minidl.sklearn.labels import Labels
from minidl.sklearn.layers import choose, hidden_layers
from minidl.sklearn.network import Network
from minidl.typing import Array
from minidl.validation import check_float


def has_probabilities(estimator: Any) -> bool:
    """Return whether the loss has probabilities."""
    return bool(estimator.loss != "perceptron")


@dataclass(eq=False, repr=False, kw_only=True)
class OnlineClassifier(Labels, Network):
    """The perceptron, logistic regression or a network, trained on one example at a time.

    Every step is ``w -= learning_rate_init (gradient + alpha w)`` for one example; the steps are
    computed in blocks, in about a tenth of the time of a plain loop. Linear models start at zero.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        ``()``, the default, is a linear model.
    activation : str
        As of ``MLPClassifier``.
    loss : {"log_loss", "perceptron"}
        ``"perceptron"`` has no probabilities.
    class_weight : mapping or "balanced", optional
        As of ``MLPClassifier``: the gradient of an example is multiplied by the weight of its
        class, divided by the mean weight. There is no ``sample_weight``: a weight of 2 is one step
        of twice the length, an example twice is two steps.
    alpha, l1 : float
        L2 and L1 penalty of all parameters, biases too, as in ``minidl.fit_online``.
    learning_rate_init : float
        Constant. (The perceptron's predictions do not depend on it.)
    block_size : int
        The number of examples that are computed together; with ``l1=0`` it changes the result by
        rounding alone.
    max_iter, random_state, tol, n_iter_no_change, verbose, warm_start, early_stopping, \
validation_fraction, monitor, dtype, callbacks, standardize
        As of ``MLPClassifier``.

    Attributes
    ----------
    classes_, model_, history_, loss_curve_, validation_scores_, n_iter_, coefs_, intercepts_
        As of ``MLPClassifier``.
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

    def _loss(self) -> Loss:
        if self.multilabel_:
            raise ValueError("OnlineClassifier: expected one label for each example, got several")
        known: dict[str, Loss] = {"log_loss": CrossEntropy(), "perceptron": Perceptron()}
        loss: Loss = choose("OnlineClassifier", "loss", self.loss, known)
        return loss

    def _build(self, features: int, outputs: int, seed: int, dtype: DTypeLike) -> Sequential:
        layers, width = hidden_layers(
            "OnlineClassifier", features, self.hidden_layer_sizes, self.activation, None, 0.0
        )
        init = glorot if layers else zeros
        last = Linear(width, outputs, weight_init=init, bias_init=init)
        return Sequential(*layers, last, rng=seed, dtype=dtype)

    def _train(self, dataset: Dataset, again: bool, **options: Any) -> None:
        owner = "OnlineClassifier"
        fit_online(
            self.model_,
            dataset,
            self.loss_function_,
            lr=check_float(owner, "learning_rate_init", self.learning_rate_init, low=0),
            weight_decay=check_float(owner, "alpha", self.alpha, low=0),
            l1=check_float(owner, "l1", self.l1, low=0),
            block_size=self.block_size,
            **options,
        )

    def decision_function(self, X: Any) -> Array:
        """Return the outputs (n, K); of two classes the second minus the first, (n,)."""
        outputs = self._outputs(X)
        return outputs[:, 1] - outputs[:, 0] if outputs.shape[1] == 2 else outputs

    @available_if(has_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, (n, K)."""
        return super().predict_proba(X)

    @available_if(has_probabilities)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of the probabilities."""
        return super().predict_log_proba(X)

    @available_if(has_probabilities)  # type: ignore[untyped-decorator]
    def support(self, X: Any) -> Array:
        """Return a mask (n, K): the classes whose probability is not 0."""
        return super().support(X)
