"""minidl: deep learning in pure NumPy, with hand-derived, verified backward passes.

For example::

    layers = minidl.Linear(784, 256), minidl.ReLU(), minidl.Linear(256, 26)
    model = minidl.Sequential(*layers, rng=42)
    optimizer = minidl.Adam(model, lr=1e-3)
    dataset = minidl.load_dataset("letters")
    history = minidl.fit(model, dataset, minidl.CrossEntropy(), optimizer, epochs=10, rng=0)
"""

from minidl import checkpoint, init
from minidl.activations import (
    Entmax15,
    Quadratic,
    ReLU,
    Relumax,
    Sigmoid,
    Simplex,
    Softmax,
    Sparsemax,
    Tanh,
)
from minidl.data import Dataset, load_dataset, load_letters
from minidl.history import History
from minidl.layer import Layer, Sequential
from minidl.layers import Dropout, LayerNorm, Linear, Residual
from minidl.losses import (
    BinaryLogistic,
    CrossEntropy,
    FenchelYoung,
    Perceptron,
    SmoothedNLL,
    SquaredError,
)
from minidl.online import OnlineRun, compounding, fit_online, fit_side_by_side
from minidl.optim import SGD, Adam, AdamW
from minidl.parameter import Parameter
from minidl.rng import TorchRandom
from minidl.schedules import Cosine, StepDecay, WarmUp
from minidl.simplex import entmax15, relumax, softmax, sparsemax
from minidl.training import (
    Callback,
    EarlyStopping,
    NonFiniteLossError,
    Progress,
    WriteHistory,
    evaluate,
    fit,
    outputs,
)

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "BinaryLogistic",
    "Callback",
    "Cosine",
    "CrossEntropy",
    "Dataset",
    "Dropout",
    "EarlyStopping",
    "Entmax15",
    "FenchelYoung",
    "History",
    "Layer",
    "LayerNorm",
    "Linear",
    "NonFiniteLossError",
    "OnlineRun",
    "Parameter",
    "Perceptron",
    "Progress",
    "Quadratic",
    "ReLU",
    "Relumax",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Simplex",
    "SmoothedNLL",
    "Softmax",
    "Sparsemax",
    "SquaredError",
    "StepDecay",
    "Tanh",
    "TorchRandom",
    "WarmUp",
    "WriteHistory",
    "checkpoint",
    "compounding",
    "entmax15",
    "evaluate",
    "fit",
    "fit_online",
    "fit_side_by_side",
    "init",
    "load_dataset",
    "load_letters",
    "outputs",
    "relumax",
    "softmax",
    "sparsemax",
]
