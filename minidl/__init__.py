"""minidl: deep learning in pure NumPy, with hand-derived, verified backward passes."""

from minidl import init
from minidl.activations import Quadratic, ReLU, Sigmoid, Tanh
from minidl.layer import Layer, Parameter, Sequential
from minidl.layers import Dropout, LayerNorm, Linear, Residual
from minidl.losses import CrossEntropy, SquaredError
from minidl.optim import SGD, Adam, AdamW, Cosine, StepDecay, WarmUp
