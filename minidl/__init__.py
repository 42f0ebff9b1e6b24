"""minidl: deep learning in pure NumPy, with hand-derived, verified backward passes.

For example::

    layers = minidl.Linear(784, 256), minidl.ReLU(), minidl.Linear(256, 26)
    model = minidl.Sequential(*layers, rng=42)
    optimizer = minidl.Adam(model, lr=1e-3)
    dataset = minidl.load_dataset("letters")
    history = minidl.fit(model, dataset, minidl.CrossEntropy(), optimizer, epochs=10, rng=0)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from minidl import evaluation as metrics
from minidl import init
from minidl.activations import (
    ELU,
    GELU,
    Entmax15,
    LeakyReLU,
    Quadratic,
    ReLU,
    Relumax,
    Sigmoid,
    SiLU,
    Simplex,
    Softmax,
    Softplus,
    Sparsemax,
    Tanh,
)
from minidl.callbacks import Callback, EarlyStopping, Progress, ReduceOnPlateau
from minidl.dataset import Dataset, Split
from minidl.evaluation import evaluate, outputs, probabilities
from minidl.history import History
from minidl.layer import Layer, Sequential
from minidl.layers import BatchNorm, Dropout, Flatten, Identity, LayerNorm, Linear, Residual
from minidl.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryLogistic,
    CrossEntropy,
    FenchelYoung,
    Huber,
    Loss,
    Perceptron,
    Poisson,
    Quantile,
    SmoothedNLL,
    SquaredError,
)
from minidl.maps import entmax15, relumax, softmax, sparsemax
from minidl.optim import SGD, Adam, AdamW, Cosine, OneCycle, Optimizer, StepDecay, WarmUp
from minidl.parameter import Parameter
from minidl.training import NonFiniteLossError, fit

# Wings are imported when one of their names is first used (PEP 562). The two lists say the same, to
# type checkers and to Python.
if TYPE_CHECKING:
    from minidl import data, grid, parity, testing
    from minidl import sklearn as sklearn
    from minidl.data.features import PCA, AveragePool, Predictor, Standardize
    from minidl.data.letters import load_letters
    from minidl.data.readers import load_dataset
    from minidl.online.fitting import fit_online, fit_side_by_side
    from minidl.online.runs import OnlineRun, compounding
    from minidl.parity.torch_random import TorchRandom
    from minidl.saving import onnx, safetensors
    from minidl.saving.describe import register_layer
    from minidl.saving.models import load, save
    from minidl.saving.runs import Checkpoint
else:
    _MODULES = {name: name for name in ("data", "grid", "parity", "sklearn", "testing")}
    _MODULES |= {name: f"saving.{name}" for name in ("onnx", "safetensors")}
    _NAMES = {
        "data.features": ("PCA", "AveragePool", "Predictor", "Standardize"),
        "data.letters": ("load_letters",),
        "data.readers": ("load_dataset",),
        "online.fitting": ("fit_online", "fit_side_by_side"),
        "online.runs": ("OnlineRun", "compounding"),
        "parity.torch_random": ("TorchRandom",),
        "saving.describe": ("register_layer",),
        "saving.models": ("load", "save"),
        "saving.runs": ("Checkpoint",),
    }

    _GONE = {
        "checkpoint": "; write minidl.Checkpoint(path)",
        "load_scenes": "; scenes are drawn by examples/homework/scenes.py",
        "WriteHistory": "; write history.to_json(path), or fit(checkpoint=minidl.Checkpoint(path))",
    }

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(f"minidl.{_MODULES[name]}")
        for module, names in _NAMES.items():
            if name in names:
                return getattr(importlib.import_module(f"minidl.{module}"), name)
        raise AttributeError(f"module 'minidl' has no attribute {name!r}{_GONE.get(name, '')}")


def __dir__() -> list[str]:
    """The public names alone."""
    return __all__


__version__ = "0.1.0"

__all__ = [
    "ELU", "GELU", "PCA", "SGD", "AbsoluteError", "Adam", "AdamW", "AveragePool", "BatchNorm",
    "BinaryCrossEntropy", "BinaryLogistic", "Callback", "Checkpoint", "Cosine", "CrossEntropy",
    "Dataset", "Dropout", "EarlyStopping", "Entmax15", "FenchelYoung", "Flatten", "History",
    "Huber", "Identity", "Layer", "LayerNorm", "LeakyReLU", "Linear", "Loss", "NonFiniteLossError",
    "OneCycle", "OnlineRun", "Optimizer", "Parameter", "Perceptron", "Poisson", "Predictor",
    "Progress", "Quadratic", "Quantile", "ReLU", "ReduceOnPlateau", "Relumax", "Residual",
    "Sequential", "SiLU", "Sigmoid", "Simplex", "SmoothedNLL", "Softmax", "Softplus", "Sparsemax",
    "Split", "SquaredError", "Standardize", "StepDecay", "Tanh", "TorchRandom", "WarmUp",
    "compounding", "data", "entmax15", "evaluate", "fit", "fit_online", "fit_side_by_side", "grid",
    "init", "load", "load_dataset", "load_letters", "metrics", "onnx", "outputs", "parity",
    "probabilities", "register_layer", "relumax", "safetensors", "save", "softmax", "sparsemax",
    "testing",
]  # fmt: skip
