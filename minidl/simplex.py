"""Maps onto the probability simplex: softmax, sparsemax, entmax-1.5 and relumax.

Each map takes logits along one axis to probabilities, and has its exact derivatives::

    p = sparsemax(z)                  # p >= 0, sum p = 1
    dz = sparsemax.vjp(p, dp)         # J^T dp, from p alone
    J = sparsemax.jacobian(z)         # J[i, j] = dp_i / dz_j

From a map come a layer (``minidl.Sparsemax()``) and losses (``minidl.FenchelYoung(sparsemax)``,
``minidl.SmoothedNLL(sparsemax, eps)``). ``docs/simplex.md`` derives every formula in here.

A logit of ``-inf`` (a masked class) has probability 0 and gradient 0. Where the largest logit
is not finite (a row of only ``-inf``, or one with ``+inf`` or NaN) there is no distribution: a
map that is called raises ValueError, a layer or a loss gives NaN, which stops ``fit``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from minidl.thresholds import row_thresholds
from minidl.typing import Array
from minidl.validation import check_float

Entries = tuple[Array, Array, Array | float]
"""Label distributions as the entries of a matrix that are not 0: rows, columns, weights."""


def shift(z: Array) -> tuple[Array, Array]:
    """``z`` minus the largest entry of its row, and that entry; NaN where it is infinite."""
    # On short rows twice as fast as max; NaN counts as the largest here too.
    top = z[np.arange(len(z)), z.argmax(axis=-1)][:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        return z - top, top


class SimplexMap(ABC):
    """A map from logits to probabilities along one axis, and its derivatives.

    All methods take float32 or float64 arrays of any shape and any ``axis``, and keep the dtype.
    A new map writes ``_project``, ``_vjp`` and ``_jvp``, for rows that are shifted already.
    """

    @abstractmethod
    def _project(self, z: Array) -> tuple[Array, Array]:
        """Probabilities (n, K) and thresholds (n, 1) of logits whose largest is 0 in each row."""

    @abstractmethod
    def _vjp(self, p: Array, dp: Array) -> Array:
        """``J^T dp`` for each row."""

    @abstractmethod
    def _jvp(self, p: Array, dz: Array) -> Array:
        """``J dz`` for each row."""

    def __call__(self, z: Array, axis: int = -1) -> Array:
        """The probabilities of the logits ``z``; ``map(z / T)`` for a temperature ``T``.

        Raises
        ------
        TypeError
            If ``z`` is not float32 or float64.
        ValueError
            If ``axis`` is not one of ``z`` or has no entries, or if the largest logit along it
            is not finite; says where.
        """
        return self._call(z, axis)

    def vjp(self, p: Array, dp: Array, axis: int = -1) -> Array:
        """``dz = J^T dp``: the cotangent of the logits, where ``p = map(z)``."""
        return self._derivative(self._vjp, p, "dp", dp, axis)

    def jvp(self, p: Array, dz: Array, axis: int = -1) -> Array:
        """``dp = J dz``: the change of the probabilities, where ``p = map(z)``."""
        return self._derivative(self._jvp, p, "dz", dz, axis)

    def jacobian(self, z: Array, axis: int = -1) -> Array:
        """All ``J[..., i, j] = dp_i / dz_j``, (..., K, K); ``axis`` is taken out of the front."""
        p = np.moveaxis(self(z, axis), axis, -1)
        *shape, k = p.shape
        # Row i of J is J^T e_i.
        repeated = np.broadcast_to(p[..., None, :], (*shape, k, k)).reshape(-1, k)
        units = np.broadcast_to(np.eye(k, dtype=p.dtype), (*shape, k, k)).reshape(-1, k)
        return self._vjp(repeated, units).reshape(*shape, k, k)

    def support(self, p: Array) -> Array:
        """Where the probability is not 0."""
        return np.asarray(p) > 0

    def _call(self, z: Array, axis: int, finite: bool = True) -> Array:
        """``self(z, axis)``; unless ``finite`` is asked for, NaN where it would raise."""
        shape, rows, _ = self._enter(z, axis, finite)
        return np.moveaxis(self._project(rows)[0].reshape(shape), -1, axis)

    def _enter(
        self, z: Array, axis: int, finite: bool = True
    ) -> tuple[tuple[int, ...], Array, Array]:
        """The shape with ``axis`` last, the shifted rows, and what they were shifted by."""
        moved = self._moved("z", z, axis)
        rows, top = shift(moved.reshape(-1, moved.shape[-1]))
        if finite and not np.isfinite(top).all():
            i = int(np.isfinite(top).argmin())
            at = ", ".join(map(str, np.unravel_index(i, moved.shape[:-1])))
            what = {-np.inf: "only -inf", np.inf: "+inf"}.get(float(top[i, 0]), "NaN")
            where = f" in row [{at}]" if at else ""
            raise ValueError(f"{self!r}: expected a finite largest logit, got {what}{where}")
        return moved.shape, rows, top

    def _derivative(
        self, of_rows: Callable[[Array, Array], Array], p: Array, name: str, d: Array, axis: int
    ) -> Array:
        p, d = self._moved("p", p, axis), self._moved(name, d, axis)
        if p.shape != d.shape or p.dtype != d.dtype:
            raise ValueError(
                f"{self!r}: expected {name} of p's shape and dtype, got p {p.shape} {p.dtype} "
                f"and {name} {d.shape} {d.dtype}"
            )
        k = p.shape[-1]
        return np.moveaxis(of_rows(p.reshape(-1, k), d.reshape(-1, k)).reshape(p.shape), -1, axis)

    def _moved(self, name: str, a: Array, axis: int) -> Array:
        """``a`` with ``axis`` last, checked."""
        a = np.asarray(a)
        if a.dtype not in (np.float32, np.float64):
            raise TypeError(f"{self!r}: expected {name} of dtype float32 or float64, got {a.dtype}")
        if not -a.ndim <= axis < a.ndim:
            raise ValueError(f"{self!r}: expected {name} with an axis {axis}, got shape {a.shape}")
        if a.shape[axis] == 0:
            raise ValueError(f"{self!r}: expected at least one class, got {name} {a.shape}")
        return np.moveaxis(a, axis, -1)

    def __repr__(self) -> str:
        return type(self).__name__.strip("_").lower()


class RegularizedMap(SimplexMap):
    """``map(z) = argmax_p <p, z> - omega(p)`` over the simplex, for a convex ``omega``.

    It is the gradient of ``omega``'s conjugate, so its Jacobian is symmetric.
    """

    @abstractmethod
    def omega(self, p: Array, axis: int = -1) -> Array:
        """The regulariser: 0 at the corners of the simplex, negative inside."""

    @abstractmethod
    def _loss(self, z: Array, labels: Entries) -> tuple[float, Array]:
        """The sum over rows (n, K) of ``omega*(z) + omega(y) - <z, y>``, and ``p - y``."""

    def _jvp(self, p: Array, dz: Array) -> Array:
        return self._vjp(p, dz)


def _shortfall(z: Array, tau: Array, labels: Entries) -> float:
    """``sum y (tau - z)_+``: by how much the logits of the labels miss the threshold."""
    rows, columns, weight = labels
    missing = tau.ravel()[rows] - z[rows, columns]
    np.maximum(missing, 0, out=missing)
    missing *= weight
    return float(missing.sum(dtype=np.float64))


class _Softmax(RegularizedMap):
    r"""Softmax.

    forward: ``p = exp(z - tau)``, ``tau = log sum_k exp z_k``

    vjp: ``dz = p (dp - <dp, p>)``; omega: ``sum p log p``, the negative entropy
    """

    def _project(self, z: Array) -> tuple[Array, Array]:
        p = np.exp(z)
        total = p.sum(axis=-1, keepdims=True)
        p /= total
        return p, np.log(total)

    def _vjp(self, p: Array, dp: Array) -> Array:
        dz: Array = p * (dp - np.einsum("nk,nk->n", dp, p)[:, None])
        return dz

    def omega(self, p: Array, axis: int = -1) -> Array:
        p = np.asarray(p)
        return np.asarray((p * np.log(np.where(p > 0, p, 1))).sum(axis=axis))

    def _loss(self, z: Array, labels: Entries) -> tuple[float, Array]:
        # Class by class where classes are few: the sums over classes then run along the batch,
        # and the training loop, which spends a sixth of a small network's step in here, is done
        # in two thirds of the time. Where they are many, row by row.
        rows, columns, weight = labels
        (n, k), few = z.shape, z.shape[1] <= 128
        p = z.T.copy(order="C" if few else "F")
        with np.errstate(invalid="ignore", over="ignore"):
            p -= p.max(axis=0)
        flat, at_label = p.ravel(order="K"), columns * n + rows if few else rows * k + columns
        label_logits = flat[at_label]
        np.exp(p, out=p)
        total = p.sum(axis=0)
        p /= total
        # log(total) >= 0 and label_logits <= 0: not negative, whatever the rounding.
        missing = np.log(total)[rows] - label_logits
        value = (missing * weight).sum(dtype=np.float64)
        if not isinstance(weight, float):
            # KL(y, p); at y = p two sums cancel and may leave a negative rounding error.
            value = np.maximum(value + (weight * np.log(weight)).sum(dtype=np.float64), 0)
        flat[at_label] -= weight
        return float(value), p.T


class _Sparsemax(RegularizedMap):
    r"""Sparsemax: the nearest point of the simplex (Martins and Astudillo 2016).

    forward: ``p = (z - tau)_+`` with ``tau`` such that ``sum p = 1``

    vjp: ``dz = dp - mean_S dp`` on the support ``S = {p > 0}``, else 0

    omega: ``1/2 sum (p^2 - p)``, which is ``(||p||^2 - 1) / 2``

    The threshold is the largest ``(z_(1) + ... + z_(k) - 1) / k`` over ``k``, with ``z_(1)``
    the largest logit, ``z_(2)`` the second, and so on. At a tie between an entry and the
    threshold the map has a kink; the entry counts as outside the support.
    """

    def _project(self, z: Array) -> tuple[Array, Array]:
        tau = row_thresholds(z, self._of_sorted)
        p = z - tau
        return np.maximum(p, 0, out=p), tau

    def _of_sorted(self, s: Array) -> Array:
        taus = np.cumsum(s, axis=-1, dtype=np.float64)
        taus -= 1
        taus /= np.arange(1.0, s.shape[1] + 1)
        return np.asarray(taus.max(axis=-1, keepdims=True))

    def _vjp(self, p: Array, dp: Array) -> Array:
        inside = p > 0
        dz = np.where(inside, dp, 0)
        with np.errstate(invalid="ignore"):  # a row of NaN has no support
            dz -= dz.sum(axis=-1, keepdims=True) / inside.sum(axis=-1, keepdims=True, dtype=p.dtype)
        dz *= inside
        return dz

    def omega(self, p: Array, axis: int = -1) -> Array:
        p = np.asarray(p)
        return np.asarray((p * (p - 1) / 2).sum(axis=axis))

    def _loss(self, z: Array, labels: Entries) -> tuple[float, Array]:
        z = shift(z)[0]
        p, tau = self._project(z)
        rows, columns, weight = labels
        p[rows, columns] -= weight
        divergence = np.einsum("nk,nk->n", p, p).sum(dtype=np.float64) / 2
        return float(divergence) + _shortfall(z, tau, labels), p


class _Entmax15(RegularizedMap):
    r"""Entmax with alpha = 1.5, halfway from softmax to sparsemax (Peters et al. 2019).

    forward: ``p = (z/2 - tau)_+^2`` with ``tau`` such that ``sum p = 1``

    vjp: ``dz = r (dp - <dp, r> / sum r)`` with ``r = sqrt p``

    omega: ``4/3 sum (p^1.5 - p)``

    Where the support has ``k`` entries, with mean ``m`` and sum of squared deviations ``d`` of
    their ``z/2``, ``tau = m - sqrt((1 - d) / k)``. The map has no kinks.
    """

    def _project(self, z: Array) -> tuple[Array, Array]:
        half = z / 2
        tau = row_thresholds(half, self._of_sorted)
        half -= tau
        np.maximum(half, 0, out=half)
        return np.square(half, out=half), 2 * tau

    def _of_sorted(self, s: Array) -> Array:
        k = np.arange(1.0, s.shape[1] + 1)
        taus = np.cumsum(s, axis=-1, dtype=np.float64)
        taus /= k
        square = np.cumsum(np.square(s, dtype=np.float64), axis=-1)
        square -= 1
        square /= k
        root = np.square(taus)
        root -= square
        taus -= np.sqrt(np.maximum(root, 0, out=root), out=root)
        # Of the thresholds that have their k entries above them, the last is the right one,
        # and the largest.
        taus[taus > s] = -1
        return np.asarray(taus.max(axis=-1, keepdims=True))

    def _vjp(self, p: Array, dp: Array) -> Array:
        r = np.sqrt(p)
        dz: Array = np.einsum("nk,nk->n", dp, r)[:, None] / r.sum(axis=-1, keepdims=True)
        dz = dp - dz
        dz *= r
        return dz

    def omega(self, p: Array, axis: int = -1) -> Array:
        p = np.asarray(p)
        return np.asarray((p * (np.sqrt(p) - 1) * (4 / 3)).sum(axis=axis))

    def _loss(self, z: Array, labels: Entries) -> tuple[float, Array]:
        z = shift(z)[0]
        p, tau = self._project(z)
        rows, columns, weight = labels
        # sum (sqrt y - sqrt p)^2 (2 sqrt y + sqrt p), apart for y > 0 and y = 0
        r, root = np.sqrt(p), np.sqrt(weight)
        at = r[rows, columns]
        r[rows, columns] = 0
        divergence = np.einsum("nk,nk->n", p, r).sum(dtype=np.float64)
        divergence += (np.square(root - at) * (2 * root + at)).sum(dtype=np.float64)
        p[rows, columns] -= weight
        return float(divergence) * 2 / 3 + _shortfall(z, tau, labels), p


class relumax(SimplexMap):  # noqa: N801 - stands beside softmax and sparsemax, as relumax(b)
    r"""ReLU of the logits' distance from a threshold ``b`` below the largest, normalised.

    forward: ``p = u / s`` with ``u = (z - max z + b)_+`` and ``s = sum u``

    vjp: ``dz = h - (sum h) e_m`` with ``h = 1_S (dp - <dp, p>) / s`` and ``m = argmax z``

    The support is ``S = {i: z_i > max z - b}``, so ``b`` is how far a logit may fall behind;
    ``relumax(relumax.b_for_sparsemax(z))(z)`` is ``sparsemax(z)``. ``p`` tells all that the
    derivatives need: ``S = {p > 0}``, ``s = b / max p``, ``m = argmax p``. At a tie for the
    largest logit the map has a kink; the first of the tied counts as the largest. An entry at
    ``max z - b`` counts as outside the support. The Jacobian is not symmetric, so there is no
    ``omega``.

    Parameters
    ----------
    b : float > 0
    """

    def __init__(self, b: float) -> None:
        self.b = check_float("relumax", "b", b, low=0, open_low=True)

    @staticmethod
    def b_for_sparsemax(z: Array, axis: int = -1) -> Array:
        """``max z - tau``: the ``b`` that makes relumax equal to sparsemax at ``z``."""
        shape, rows, _ = sparsemax._enter(z, axis)
        return -sparsemax._project(rows)[1].reshape(shape[:-1])[()]

    def _project(self, z: Array) -> tuple[Array, Array]:
        b, limits = self.b, np.finfo(z.dtype)
        if not limits.tiny <= b <= limits.max / z.shape[1]:
            raise ValueError(f"{self!r}: b is too small or too large for {z.dtype} logits")
        p = z + b
        np.maximum(p, 0, out=p)
        p /= p.sum(axis=-1, keepdims=True)
        return p, np.full((len(z), 1), -b, z.dtype)

    def _vjp(self, p: Array, dp: Array) -> Array:
        rows, m = np.arange(len(p)), p.argmax(axis=-1)
        h = self._centred(p, dp, np.einsum("nk,nk->n", dp, p), p[rows, m])
        h[rows, m] -= h.sum(axis=-1)
        return h

    def _jvp(self, p: Array, dz: Array) -> Array:
        rows, m = np.arange(len(p)), p.argmax(axis=-1)
        h = self._centred(p, dz, dz[rows, m], p[rows, m])
        h -= p * h.sum(axis=-1, keepdims=True)
        return h

    def _centred(self, p: Array, d: Array, centre: Array, largest: Array) -> Array:
        """``1_S (d - centre) / s``."""
        h: Array = (d - centre[:, None]) * (largest / self.b)[:, None]
        h *= p > 0
        return h

    def __repr__(self) -> str:
        return f"relumax({self.b:g})"


softmax = _Softmax()
sparsemax = _Sparsemax()
entmax15 = _Entmax15()


def threshold(z: Array, axis: int = -1) -> Array:
    """Sparsemax's ``tau``: ``sum (z - tau)_+ = 1`` along ``axis``, which it drops."""
    shape, rows, top = sparsemax._enter(z, axis)
    return np.asarray(sparsemax._project(rows)[1] + top).reshape(shape[:-1])[()]
