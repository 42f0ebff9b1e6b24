"""The contract of a map onto the probability simplex.

A map defines its probabilities and its derivatives for the rows of a matrix. The base class
checks the arrays, moves the axis of the classes to the end and shifts the logits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from minidl.special import quietly
from minidl.typing import Array
from minidl.validation import as_array, as_floats

Entries = tuple[Array, Array, Array | float]
"""The nonzero entries of a matrix of label distributions: row indices, column indices, values.

Indices are int64, so that arithmetic with them cannot overflow. For labels, where each row has
one entry and in order, the values are the float 1.0.
"""


def shift(z: Array) -> tuple[Array, Array]:
    """Return ``z`` (n, K) minus the largest entry of each row, and these entries (n, 1).

    Where the largest entry is infinite or NaN, all of the row becomes NaN.
    """
    # On short rows indexing is twice as fast as max; NaN counts as the largest here too.
    top = z[np.arange(len(z)), z.argmax(axis=-1)][:, None]
    return z - (top + (top - top)), top  # top - top is NaN where top is not finite


def row_sums(terms: Array, labels: Entries, n: int) -> Array:
    """Sum terms, one for each entry of ``labels``, over each of the ``n`` rows."""
    rows, _, values = labels
    if isinstance(values, float):  # one entry in each row
        return terms
    return np.bincount(rows, terms, minlength=n)


class SimplexMap(ABC):
    """A map from logits to probabilities along one axis, with its derivatives.

    To use a map, call it, or ``vjp``, ``jvp`` and ``jacobian``: they take float32 or float64
    arrays of any shape and any ``axis``, and keep the dtype. To write a map, derive from this
    class (or from ``RegularizedMap``) and define ``project_rows``, ``vjp_rows`` and ``jvp_rows``,
    which see checked matrices (n, K) of one row for each example. The layer ``Simplex(map)``,
    the losses and ``minidl.testing.check_simplex_map`` then work with it.
    """

    @abstractmethod
    def project_rows(self, z: Array) -> Array:
        """Return the probabilities (n, K) of logits whose largest is 0 in each row.

        A row of NaN stands for logits without a distribution; its probabilities are NaN.
        """

    @abstractmethod
    def vjp_rows(self, p: Array, dp: Array) -> Array:
        """Return ``J^T dp`` for each row, where ``p`` are the probabilities."""

    @abstractmethod
    def jvp_rows(self, p: Array, dz: Array) -> Array:
        """Return ``J dz`` for each row, where ``p`` are the probabilities."""

    @quietly
    def __call__(self, z: Array, axis: int = -1, *, check_finite: bool = True) -> Array:
        """Return the probabilities of the logits ``z``.

        For a temperature ``T``, write ``map(z / T)``.

        Parameters
        ----------
        z : array of float32 or float64
        axis : int
            The axis of the classes.
        check_finite : bool
            Whether a row whose largest logit is not finite is an error; if not, all of its
            probabilities are NaN.

        Raises
        ------
        TypeError
            If ``z`` is not float32 or float64, or is a masked array: write
            ``z.filled(-np.inf)``, so that a masked class has probability 0.
        ValueError
            If ``z`` has no axis ``axis`` or no entries along it, or if the largest logit of a
            row is not finite; the message names the row.
        """
        rows, _, shape = self.shifted_rows(z, axis, check_finite=check_finite)
        return np.moveaxis(self.project_rows(rows).reshape(shape), -1, axis)

    @quietly
    def vjp(self, p: Array, dp: Array, axis: int = -1) -> Array:
        """Return ``dz = J^T dp``, the cotangent of the logits, where ``p = map(z)``."""
        return self._derivative(self.vjp_rows, p, "dp", dp, axis)

    @quietly
    def jvp(self, p: Array, dz: Array, axis: int = -1) -> Array:
        """Return ``dp = J dz``, the change of the probabilities, where ``p = map(z)``."""
        return self._derivative(self.jvp_rows, p, "dz", dz, axis)

    @quietly
    def jacobian(self, z: Array, axis: int = -1) -> Array:
        """Return ``J[..., i, j] = dp_i / dz_j``, of shape (..., K, K).

        The other axes of ``z`` come first, in their order.
        """
        p = np.moveaxis(self(z, axis), axis, -1)
        *shape, k = p.shape
        # Row i of J is J^T e_i.
        repeated = np.broadcast_to(p[..., None, :], (*shape, k, k)).reshape(-1, k)
        units = np.broadcast_to(np.eye(k, dtype=p.dtype), (*shape, k, k)).reshape(-1, k)
        return self.vjp_rows(repeated, units).reshape(*shape, k, k)

    def support(self, p: Array) -> Array:
        """Return a mask that is True where the probability is not 0."""
        return np.asarray(as_array(self, "p", p) > 0)

    @quietly
    def shifted_rows(
        self, z: Array, axis: int = -1, *, check_finite: bool = True
    ) -> tuple[Array, Array, tuple[int, ...]]:
        """Check logits; return them as shifted rows, what was subtracted, and their shape.

        The shape is that of ``z`` with ``axis`` last. Parameters and errors as for a call.
        """
        moved = self._moved("z", z, axis)
        rows, top = shift(moved.reshape(-1, moved.shape[-1]))
        if check_finite and not np.isfinite(top).all():
            i = int(np.isfinite(top).argmin())
            at = ", ".join(map(str, np.unravel_index(i, moved.shape[:-1])))
            what = {-np.inf: "only -inf", np.inf: "+inf"}.get(float(top[i, 0]), "NaN")
            where = f" in row [{at}]" if at else ""
            raise ValueError(f"{self!r}: expected a finite largest logit, got {what}{where}")
        return rows, top, moved.shape

    def _derivative(
        self, of_rows: Callable[[Array, Array], Array], p: Array, name: str, d: Array, axis: int
    ) -> Array:
        """Apply a function of rows to ``p`` and ``d`` along ``axis``."""
        p, d = self._moved("p", p, axis), self._moved(name, d, axis)
        if p.shape != d.shape or p.dtype != d.dtype:
            raise ValueError(
                f"{self!r}: expected {name} of p's shape and dtype, got p {p.shape} {p.dtype} "
                f"and {name} {d.shape} {d.dtype}"
            )
        k = p.shape[-1]
        return np.moveaxis(of_rows(p.reshape(-1, k), d.reshape(-1, k)).reshape(p.shape), -1, axis)

    def _moved(self, name: str, a: Array, axis: int) -> Array:
        """Check ``a`` and return it with ``axis`` last."""
        a = as_floats(self, name, a)
        if not -a.ndim <= axis < a.ndim:
            raise ValueError(f"{self!r}: expected {name} with an axis {axis}, got shape {a.shape}")
        if a.shape[axis] == 0:
            raise ValueError(f"{self!r}: expected at least one class, got {name} {a.shape}")
        return np.moveaxis(a, axis, -1)

    def __repr__(self) -> str:
        return type(self).__name__.strip("_").lower()


class RegularizedMap(SimplexMap):
    """A map with a regulariser: ``map(z) = argmax_p <p, z> - omega(p)`` over the simplex.

    ``omega`` is convex. The map is the gradient of its conjugate
    ``omega*(z) = max_p <p, z> - omega(p)``, so the Jacobian is symmetric and ``jvp`` is ``vjp``.
    It has a Fenchel-Young loss.

    Examples
    --------
    Softmax at a fixed temperature, with ``T`` times softmax's regulariser:

    >>> class Tempered(RegularizedMap):
    ...     def __init__(self, temperature):
    ...         self.temperature = temperature
    ...
    ...     def project_rows(self, z):
    ...         return softmax.project_rows(z / self.temperature)
    ...
    ...     def vjp_rows(self, p, dp):
    ...         return softmax.vjp_rows(p, dp) / self.temperature
    ...
    ...     def omega(self, p, axis=-1):
    ...         return self.temperature * softmax.omega(p, axis)
    ...
    ...     def fenchel_young(self, z, labels):
    ...         values, dz = softmax.fenchel_young(z / self.temperature, labels)
    ...         return self.temperature * values, dz
    >>> layer, loss = Simplex(Tempered(2.0)), FenchelYoung(Tempered(2.0))
    """

    @abstractmethod
    def omega(self, p: Array, axis: int = -1) -> Array:
        """Return the regulariser: 0 at the corners of the simplex, negative elsewhere."""

    @abstractmethod
    def fenchel_young(self, z: Array, labels: Entries) -> tuple[Array, Array]:
        """Return the Fenchel-Young loss of each row, (n,), and its gradient ``p - y``, (n, K).

        The loss of a row is ``omega*(z) + omega(y) - <z, y>``. ``row_sums`` sums over the entries
        of the rows of ``y``.

        Parameters
        ----------
        z : array, shape (n, K)
            Logits, not shifted.
        labels : Entries
            The nonzero entries of ``y``, the label distributions (n, K).
        """

    def jvp_rows(self, p: Array, dz: Array) -> Array:
        """Return ``J dz``, which is ``J^T dz`` here."""
        return self.vjp_rows(p, dz)
