"""scikit-learn estimators: ``MLPClassifier``, ``MLPRegressor`` and ``OnlineClassifier``.

They need scikit-learn 1.6 or later (the ``sklearn`` extra). ``network`` has what the three share:
the checks of arrays, one call of ``minidl.fit``, and the fitted attributes; ``stopping`` the rule
that ends training, ``layers`` and ``labels`` the names that users write, ``mlp`` the training in
mini-batches; ``classifier``, ``regressor`` and ``online`` the estimators. ``docs/sklearn.md``
compares them with ``sklearn.neural_network``.
"""

from minidl.checks import require

require("sklearn", "sklearn")

from minidl.sklearn.classifier import (
    MLPClassifier,  # noqa: E402
    OnlineClassifier,  # noqa: E402
)
from minidl.sklearn.regressor import MLPRegressor  # noqa: E402

__all__ = ["MLPClassifier", "MLPRegressor", "OnlineClassifier"]
