"""``MLPClassifier``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minidl.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    FenchelYoung,
    Loss,
)
from minidl.simplex import entmax15, sparsemax
from minidl.sklearn.labels import Labels
from minidl.sklearn.layers import choose
from minidl.sklearn.mlp import MLP


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
        be exactly 0. For several labels ``"log_loss"``, the binary cross-entropy, summed over the
        labels.
    class_weight : mapping or "balanced", optional
        As in scikit-learn; multiplies ``sample_weight``. It has its full effect at every
        ``batch_size``.
    solver : {"adam", "adamw", "sgd"}
    alpha : float
        L2 penalty, divided by the weight of a batch. With ``"adamw"`` the decoupled weight decay,
        not divided. It spares biases, and the gains and offsets of normalization.
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
        Views of the model's parameters. Arrays that are assigned to an item, or a list of them
        to the attribute, are written into the model.
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
        return BinaryCrossEntropy(label_reduction="sum")

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
        return self._fit(X, y, sample_weight, valid, one_epoch=True, classes=classes)
