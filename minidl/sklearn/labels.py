"""The part that classifiers share: classes, probabilities, class weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from minidl.losses.base import predict, probabilities
from minidl.typing import Array
from minidl.validation import as_array


class Labels(ClassifierMixin):  # type: ignore[misc]
    """Maps labels to the classes ``0..K-1`` and back; several labels (0 and 1) are kept."""

    class_weight: Any
    classes_: Array
    multilabel_: bool

    def _encode(self, y: Any, classes: Any = None, *, first: bool = False) -> Array:
        """Return classes (n,) or labels (n, K); with ``first``, learn the classes."""
        if hasattr(y, "toarray"):
            y = y.toarray()
        y = as_array(self._name, "y", y)  # in native byte order, as the classes
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        multilabel = type_of_target(y) == "multilabel-indicator"
        if y.ndim == 2 and not multilabel:
            raise ValueError(f"{self._name}: expected one label, or labels 0 and 1, in each column")
        if first:
            self.multilabel_ = multilabel
            if multilabel:
                self.classes_ = np.arange(y.shape[1])
            else:
                self.classes_ = np.unique(
                    y if classes is None else as_array(self._name, "classes", classes)
                )
        if multilabel != self.multilabel_ or (multilabel and y.shape[1] != len(self.classes_)):
            raise ValueError(f"{self._name}: expected y as in the first call, got shape {y.shape}")
        return y.astype(np.int64) if multilabel else self._numbers(y)

    def _numbers(self, y: Array) -> Array:
        """Return the number of each label in ``classes_``."""
        known = np.isin(y, self.classes_)
        if not known.all():
            unknown = np.unique(y[~known])
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}, "
                f"`y` has {unknown}."
            )
        return np.searchsorted(self.classes_, y)

    def _strata(self, y: Array) -> Array | None:
        """Return the labels, each of which needs two rows; None for several labels."""
        if self.multilabel_:
            return None
        labels: Array = self.classes_[y]
        names, counts = np.unique(labels, return_counts=True)
        if counts.min() < 2:
            raise ValueError(
                f"{self._name}: early_stopping sets validation_fraction of each class aside, so "
                f"each needs 2 rows, but there is only 1 of {names[counts < 2].tolist()}"
            )
        return labels

    def _check_partial(self, classes: Any, y: Any) -> None:
        """Check the ``classes`` of ``partial_fit``, and that it need not know all labels."""
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            raise ValueError("class_weight 'balanced' is not supported for partial_fit")
        if not hasattr(self, "classes_"):
            if classes is None and np.ndim(y) == 1:
                raise ValueError("classes must be passed on the first call to partial_fit.")
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: "
                f"{self.classes_!r}"
            )

    def _weighted(self, y: Array, weight: Array | None) -> Array | None:
        """Return the weights of the examples times those of their classes."""
        given = self.class_weight
        if given is None:
            return weight
        if self.multilabel_:
            raise ValueError(f"{self._name}: class_weight is not for several labels")
        factors = np.ones(len(self.classes_))
        if isinstance(given, str) and given == "balanced":
            counts = np.bincount(y, weight, len(factors))
            factors = counts.sum() / (np.maximum(counts, 1e-300) * np.count_nonzero(counts))
        elif isinstance(given, Mapping):
            unknown = [key for key in given if key not in self.classes_]
            if unknown:
                raise ValueError(f"The classes, {unknown}, are not in class_weight")
            factors = np.array([given.get(label, 1.0) for label in self.classes_.tolist()], float)
        else:
            raise ValueError(
                f"{self._name}: expected class_weight 'balanced' or a mapping, got {given!r}"
            )
        return np.asarray(factors[y] * (1.0 if weight is None else weight))

    @property
    def _name(self) -> str:
        return type(self).__name__

    def predict(self, X: Any) -> Array:
        """Return the most probable class of each row; of several labels 0 and 1, (n, K)."""
        outputs = self._outputs(X)  # says so if the estimator is not fitted
        predicted = predict(self.loss_function_, outputs)
        return predicted if self.multilabel_ else np.asarray(self.classes_[predicted])

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, or of each of several labels, (n, K)."""
        outputs = self._outputs(X)
        return probabilities(self.loss_function_, outputs)

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of the probabilities, minus infinity where one is 0."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))

    def support(self, X: Any) -> Array:
        """Return a mask (n, K): the classes whose probability is not 0."""
        return np.asarray(self.predict_proba(X) > 0)
