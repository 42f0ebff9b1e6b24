"""``coefs_`` and ``intercepts_``: lists of a model's weights that can be assigned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np

from minidl.checks import Array, check_array
from minidl.layers import Linear
from minidl.parameter import Parameter


class Weights(list[Array]):
    """The weights or the biases of the ``Linear`` layers of a model, as views of its parameters.

    An array that is assigned to an item or a slice is written into the model. The list keeps its
    length. A copy or a pickle of it is a plain list, whose arrays are the caller's.

    Parameters
    ----------
    owner : str
        The estimator.
    name : str
        ``"coefs_"`` or ``"intercepts_"``.
    parameters : sequence of (Linear, Parameter)
    """

    def __init__(
        self, owner: str, name: str, parameters: Sequence[tuple[Linear, Parameter]]
    ) -> None:
        super().__init__(parameter.value for _, parameter in parameters)
        self._owner, self._name, self._parameters = owner, name, parameters

    def __setitem__(self, index: Any, new: Any) -> None:
        """Write one array, or those of a slice, into the model: all or, on an error, none.

        Raises
        ------
        ValueError
            If the number of arrays or a shape differs, or an array has no finite real numbers.
        """
        places = range(len(self))[index]
        if isinstance(places, int):
            places, new = range(places, places + 1), [new]
        arrays = list(new) if isinstance(new, Iterable) else [new]
        if len(arrays) != len(places):
            raise ValueError(
                f"{self._owner}: expected {self._name} to be {len(places)} arrays, one for each "
                f"layer, got {len(arrays)}"
            )
        checked = [self._checked(i, array) for i, array in zip(places, arrays, strict=True)]
        for i, array in zip(places, checked, strict=True):
            self._parameters[i][1].value = array

    def _checked(self, i: int, array: Any) -> Array:
        layer, parameter = self._parameters[i]
        name = f"{self._name}[{i}], of layer {i + 1}, {layer!r},"
        new = check_array(self._owner, name, array, parameter.shape, parameter.value.dtype)
        if not np.isfinite(new).all():
            raise ValueError(f"{self._owner}: expected {name} to be finite")
        return new

    def _fixed(self, *args: Any, **options: Any) -> NoReturn:
        raise TypeError(
            f"{self._owner}: the length of {self._name} is fixed by hidden_layer_sizes; assign "
            f"arrays to its items, or a list of {len(self)} arrays"
        )

    append = clear = extend = insert = pop = remove = reverse = sort = _fixed
    __delitem__ = __iadd__ = __imul__ = _fixed

    def __reduce_ex__(self, protocol: Any) -> tuple[type[list[Array]], tuple[list[Array]]]:
        return list, ([*self],)
