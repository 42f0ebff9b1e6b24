"""Gradient checks for layers, losses, simplex maps and functions, whoever wrote them.

For example::

    from minidl.testing import assert_gradients, check_layer

    print(check_layer(MyLayer(12, 5), x))      # a table, and the worst wrong entry
    assert_gradients(MyLayer(12, 5), x)        # in a test

See ``docs/gradient-checks.md``. ``minidl.testing.strategies`` has strategies for Hypothesis and
needs the extra ``testing``; all other modules need NumPy alone.
"""

from minidl.testing.adapters import Cached
from minidl.testing.checks import (
    assert_gradients,
    check_function,
    check_layer,
    check_loss,
    check_simplex_map,
)
from minidl.testing.report import ContractError, GradientError, GradientReport

__all__ = [
    "Cached",
    "ContractError",
    "GradientError",
    "GradientReport",
    "assert_gradients",
    "check_function",
    "check_layer",
    "check_loss",
    "check_simplex_map",
]
