"""Gradient checks for layers, losses, simplex maps and functions, whoever wrote them.

For example::

    from minidl.testing import Cached, assert_gradients, check_layer, check_pair

    print(check_layer(MyLayer(12, 5), x))                  # a table, and the worst wrong entry
    print(check_layer(Cached(Affine(12, 5), W="dW"), x))   # an object that keeps its pass
    print(check_pair(conv_forward, conv_backward, (x, w)))  # (out, cache) pairs
    assert_gradients(MyLayer(12, 5), x)                    # in a test

See ``docs/gradient-checks.md``. ``minidl.testing.strategies`` has strategies for Hypothesis and
needs the extra ``testing``; all other modules need NumPy alone.
"""

from minidl.checks import ContractError
from minidl.testing.cached import AdaptedLoss, Cached, Step
from minidl.testing.checks import (
    assert_gradients,
    check_function,
    check_layer,
    check_loss,
    check_pair,
    check_simplex_map,
)
from minidl.testing.options import Options
from minidl.testing.report import GradientError, GradientReport

__all__ = [
    "AdaptedLoss",
    "Cached",
    "ContractError",
    "GradientError",
    "GradientReport",
    "Options",
    "Step",
    "assert_gradients",
    "check_function",
    "check_layer",
    "check_loss",
    "check_pair",
    "check_simplex_map",
]
