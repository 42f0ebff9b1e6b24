"""Optimizers with PyTorch's semantics: ``optimizer.step()`` after each backward pass."""

from minidl.optim.adam import Adam, AdamW
from minidl.optim.base import Optimizer, flush_weights
from minidl.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "flush_weights"]
