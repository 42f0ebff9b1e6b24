"""scikit-learn estimators: ``MLPClassifier``, ``MLPRegressor`` and ``OnlineClassifier``.

They need scikit-learn 1.6 or later (the ``sklearn`` extra). ``network`` has what the three share,
``mlp`` the training in mini-batches. ``docs/sklearn.md`` compares them with
``sklearn.neural_network``.
"""

# ruff: noqa: E402
from minidl.checks import require

require("sklearn", "sklearn")

from minidl.sklearn.classifier import MLPClassifier, OnlineClassifier
from minidl.sklearn.mlp import MLPRegressor

ESTIMATORS = {kind.__name__: kind for kind in (MLPClassifier, MLPRegressor, OnlineClassifier)}
"""The classes that a file may name."""

__all__ = ["MLPClassifier", "MLPRegressor", "OnlineClassifier"]
