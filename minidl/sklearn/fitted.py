"""Attributes of a fitted estimator: views of its weights, its curves, its predictor, its file."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from minidl.checks import Array, check_array
from minidl.data.features import Predictor, Standardize
from minidl.history import History
from minidl.layer import Sequential
from minidl.layers import Linear
from minidl.losses import BinaryLogistic, CrossEntropy, Loss

FITTED = ("n_features_in_", "n_iter_", "t_", "_shape")
"""The plain fitted attributes that a file keeps."""


class Fitted(BaseEstimator):  # type: ignore[misc]
    """The attributes of a fitted network, and the state that ``minidl.save`` writes."""

    model_: Sequential
    loss_function_: Loss
    scaler_: Standardize | None
    target_scaler_: Standardize | None = None
    early_stopping: bool

    @property
    def _name(self) -> str:
        return type(self).__name__

    @abstractmethod
    def _loss(self) -> tuple[Loss, str, int]:
        """Return the loss, the name of what follows the outputs, and their number."""

    def _tail(self) -> Linear | None:
        """Return a last layer after which the outputs are those of a ``Predictor``, or None."""
        return None

    def __sklearn_is_fitted__(self) -> bool:
        return "model_" in vars(self)

    @property
    def _records(self) -> History:
        check_is_fitted(self)
        found: History = self.history_
        return found

    @property
    def predictor_(self) -> Predictor:
        """The model with its standardisation, loss and classes, for ``minidl.save`` and ONNX.

        Two classes have two outputs there, and scaled targets their own scale.
        """
        check_is_fitted(self)
        model, loss, tail = self.model_, self.loss_function_, self._tail()
        if tail is not None:
            model = Sequential(*model.layers, tail)
            model.input_scale = self.model_.input_scale
            loss = CrossEntropy() if isinstance(loss, BinaryLogistic) else loss
        predictor = Predictor(model, [] if self.scaler_ is None else [self.scaler_], loss=loss)
        predictor.class_names = getattr(self, "classes_", None)
        return predictor

    def state_dict(self) -> dict[str, Any]:
        """Return what ``minidl.save`` writes beside ``predictor_``: settings, fitted attributes."""
        settings, target = self.get_params(deep=False), self.target_scaler_
        if isinstance(weights := settings.get("class_weight"), Mapping):
            settings["class_weight"] = [list(pair) for pair in weights.items()]
        state = {"settings": settings, "history": self.history_.to_dict()}
        state["fitted"] = {name: vars(self)[name] for name in FITTED if name in vars(self)}
        if hasattr(self, "feature_names_in_"):
            state["names"] = self.feature_names_in_.tolist()
        if target is not None:
            state["target"] = {"mean": target.mean, "std": target.std}
        return state

    @classmethod
    def from_state(cls, predictor: Predictor, state: Mapping[str, Any]) -> Any:
        """Return the estimator of which ``predictor_`` and ``state_dict`` were saved."""
        settings = dict(state["settings"])
        if isinstance(settings.get("class_weight"), list):
            settings["class_weight"] = dict(settings["class_weight"])
        made: Any = cls(**settings)
        vars(made).update(state["fitted"], history_=History.from_dict(state["history"]))
        if predictor.class_names is not None:
            made.classes_ = predictor.class_names
        if "names" in state:
            made.feature_names_in_ = np.array(state["names"], object)
        if "target" in state:
            made.target_scaler_ = Standardize()
            vars(made.target_scaler_).update(state["target"])
        made.scaler_ = next(iter(predictor.features), None)
        made.loss_function_, made.out_activation_, made.n_outputs_ = made._loss()
        made.model_ = model = predictor.model
        if made._tail() is not None:
            layers = model.layers[:-1]  # type: ignore[attr-defined]
            made.model_ = Sequential(*[layer.copy() for layer in layers])
            made.model_.input_scale = model.input_scale
        return made

    @property
    def coefs_(self) -> list[Array]:
        """The weights of the ``Linear`` layers, (in, out), as views of the model's parameters.

        Arrays assigned to an item or to the whole list are written into the model.
        """
        return self._views("coefs_", "weight")

    @coefs_.setter
    def coefs_(self, new: Any) -> None:
        self.coefs_[:] = new

    @property
    def intercepts_(self) -> list[Array]:
        """The biases of the ``Linear`` layers, as views; they can be assigned as ``coefs_``."""
        return self._views("intercepts_", "bias")

    @intercepts_.setter
    def intercepts_(self, new: Any) -> None:
        self.intercepts_[:] = new

    def _views(self, name: str, parameter: str) -> Weights:
        check_is_fitted(self)
        _ = self.model_.theta  # a copy or a pickle makes its vectors on first use
        layers = [layer for layer in self.model_ if isinstance(layer, Linear)]
        views = Weights(getattr(layer, parameter).value for layer in layers)
        views.owner, views.name = self._name, name
        return views

    @property
    def n_layers_(self) -> int:
        """The number of layers of units, those of input and output included."""
        return len(self.coefs_) + 1

    @property
    def loss_curve_(self) -> list[float]:
        """The training loss of each epoch."""
        return [record.train_loss for record in self._records.records[1:]]

    @property
    def loss_(self) -> float:
        """The training loss of the last epoch."""
        return self._records[-1].train_loss

    @property
    def best_loss_(self) -> float | None:
        """The lowest training loss of an epoch; None with early stopping."""
        curve = self.loss_curve_
        return None if self.early_stopping else min(curve)

    def _validation_metric(self, monitor: str = "") -> str:
        """Return ``monitor`` if it is of the validation part, or else accuracy, R2 or the loss.

        With class weights it is the loss: an accuracy is soon that of a few rows of large weight.
        """
        if monitor.startswith("valid_"):
            return monitor
        weighted = getattr(self, "class_weight", None) is not None
        metrics = () if weighted else getattr(self.loss_function_, "metrics", ())
        return f"valid_{next(iter(metrics), 'loss')}"

    @property
    def validation_scores_(self) -> list[float] | None:
        """The metric of each epoch on the validation part; None without one.

        It is the monitored metric if that is one of the validation part, or else the accuracy or R2
        (the loss where neither is defined).
        """
        history = self._records
        name = self._validation_metric(history.monitor)
        scores = [record.metrics.get(name, math.nan) for record in history.records[1:]]
        return scores if name in history.names else None

    @property
    def best_validation_score_(self) -> float | None:
        """The best of ``validation_scores_``, the lowest for a loss."""
        scores, history = self.validation_scores_, self._records
        name = self._validation_metric(history.monitor)
        lowest = history.mode == "min" if name == history.monitor else name.endswith("loss")
        return None if scores is None else float((np.nanmin if lowest else np.nanmax)(scores))


class Weights(list[Array]):
    """The weights or the biases of the ``Linear`` layers of a model, as views of its parameters.

    An array that is assigned to an item or a slice is written into the model. The list keeps its
    length. A copy or a pickle of it is a plain list, whose arrays are the caller's.
    """

    owner: str
    name: str

    def __setitem__(self, index: Any, new: Any) -> None:
        """Write one array, or those of a slice, into the model: all or, on an error, none.

        ValueError if their number or a shape differs, or an array has no finite real numbers.
        """
        places = range(len(self))[index]
        if isinstance(places, int):
            places, new = range(places, places + 1), [new]
        arrays = list(new) if isinstance(new, Iterable) else [new]
        if len(arrays) != len(places):
            want = f"{self.name} to be {len(places)} arrays, one for each layer"
            raise ValueError(f"{self.owner}: expected {want}, got {len(arrays)}")
        for i, place in enumerate(places):
            view, name = self[place], f"{self.name}[{place}]"
            arrays[i] = check_array(self.owner, name, arrays[i], view.shape, view.dtype)
            if not np.isfinite(arrays[i]).all():
                raise ValueError(f"{self.owner}: expected {name} to be finite")
        for place, array in zip(places, arrays, strict=True):
            self[place][...] = array

    def _fixed(self, *args: Any, **options: Any) -> NoReturn:
        raise TypeError(f"{self.owner}: the length of {self.name} is fixed")

    append = clear = extend = insert = pop = remove = reverse = sort = _fixed
    __delitem__ = __iadd__ = __imul__ = _fixed

    def __reduce_ex__(self, protocol: Any) -> tuple[type[list[Array]], tuple[list[Array]]]:
        return list, ([*self],)
