"""skorch: PyTorch's networks as scikit-learn estimators."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from skorch import NeuralNetClassifier

from minidl.checks import Array


def classifier(width: int, batch: int, epochs: int) -> Any:
    """Return a network with one hidden layer, which learns its sizes from the data."""

    class Network(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, features: int, classes: int) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(features, width), torch.nn.ReLU(), torch.nn.Linear(width, classes)
            )

        def forward(self, x: Any) -> Any:
            return self.layers(x)

    class Sized(NeuralNetClassifier):  # type: ignore[misc]
        """Learns the sizes of its layers from the data."""

        def fit(self, X: Array, y: Array) -> Any:
            dtype = torch.float64 if X.dtype == np.float64 else torch.float32
            sizes = {"module__features": X.shape[1], "module__classes": int(y.max()) + 1}
            self.set_params(**sizes)
            self.initialize()
            self.module_.to(dtype)
            self.initialize_criterion()
            self.initialize_optimizer()
            return self.partial_fit(X, y)

    return Sized(
        Network, criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=1e-3,
        optimizer__weight_decay=1e-4 / batch, batch_size=batch, max_epochs=epochs, verbose=0,
        iterator_train__shuffle=True, train_split=None, module__features=1, module__classes=1,
    )  # fmt: skip
