"""Maps onto the probability simplex: softmax, sparsemax, entmax-1.5 and relumax.

Each map takes logits along one axis to probabilities, and has its exact derivatives::

    p = sparsemax(z)                  # p >= 0, sum p = 1
    dz = sparsemax.vjp(p, dp)         # J^T dp, from p alone
    J = sparsemax.jacobian(z)         # J[i, j] = dp_i / dz_j

From a map come a layer (``minidl.Sparsemax()``) and losses (``minidl.FenchelYoung(sparsemax)``,
``minidl.SmoothedNLL(sparsemax, eps)``). ``docs/simplex.md`` derives every formula of this module;
``minidl.simplex_map`` says how to write a map.

A logit of ``-inf`` (a masked class) has probability 0 and gradient 0. Where the largest logit
is not finite (a row of only ``-inf``, or one with ``+inf`` or NaN) there is no distribution: a
call of a map raises ValueError; a layer gives a row of NaN and a loss NaN, which stops ``fit``.
This holds for every number of classes.

Accuracy: the probabilities of sparsemax and entmax15 are correct to 16 eps of the row's largest,
in both dtypes (tested up to ``K = 200,000`` classes). The exception is float64 below 128 classes,
where it would cost time: sparsemax is correct to ``K/4 + 4`` eps and entmax15 to ``K^2/4 + 16``
eps, but near these only where the largest logit leads by almost 1 or 2 and all others are equal.
relumax's vjp and jvp contain a sum over the support; they are correct to 8 eps of the sum of
``abs(h) + abs(dp) / s`` over it.
"""

from __future__ import annotations

import numpy as np

from minidl.simplex_map import Entries, RegularizedMap, SimplexMap, row_sums, shift
from minidl.special import quietly
from minidl.thresholds import row_thresholds
from minidl.typing import Array
from minidl.validation import as_floats, check_float

__all__ = [
    "RegularizedMap",
    "SimplexMap",
    "entmax15",
    "relumax",
    "softmax",
    "sparsemax",
    "threshold",
]


def _row_dots(a: Array, b: Array) -> Array:
    """Return ``sum_k a_nk b_nk``; long rows are summed in blocks, which round less."""
    if a.shape[1] >= 1024:
        whole = a.shape[1] // 128 * 128
        rest = a[:, whole:], b[:, whole:]
        a, b = (x[:, :whole].reshape(len(x), whole // 128, 128) for x in (a, b))
        return np.asarray(_row_dots(*rest) + np.einsum("nmk,nmk->nm", a, b).sum(axis=-1))
    return np.asarray(np.einsum("nk,nk->n", a, b))


def _shortfall(z: Array, tau: Array, labels: Entries) -> Array:
    """Return ``sum_k y_k (tau - z_k)_+`` for each row: how far labels are below the threshold."""
    rows, columns, weight = labels
    missing = tau.ravel()[rows] - z[rows, columns]
    np.maximum(missing, 0, out=missing)
    missing *= weight
    return row_sums(missing, labels, len(z))


class _Softmax(RegularizedMap):
    r"""Softmax: exponentials, normalised to sum 1.

    forward: ``p = exp(z - tau)``, ``tau = log sum_k exp z_k``

    vjp: ``dz = p (dp - <dp, p>)``; omega: ``sum p log p``, the negative entropy
    """

    def project_rows(self, z: Array) -> Array:
        p = np.exp(z)
        p /= p.sum(axis=-1, keepdims=True)
        return p

    def vjp_rows(self, p: Array, dp: Array) -> Array:
        dz: Array = p * (dp - _row_dots(dp, p)[:, None])
        return dz

    @quietly
    def omega(self, p: Array, axis: int = -1) -> Array:
        p = as_floats(self, "p", p)
        return np.asarray((p * np.log(np.where(p > 0, p, 1))).sum(axis=axis))

    @quietly
    def fenchel_young(self, z: Array, labels: Entries) -> tuple[Array, Array]:
        # Few classes: keep the batch contiguous, so that sums over classes are sums of long
        # vectors. That takes two thirds of the time, and this function is a sixth of a small
        # network's training step. Many classes: keep rows contiguous.
        rows, columns, weight = labels
        (n, k), few = z.shape, z.shape[1] <= 128
        p = z.T.copy(order="C" if few else "F")
        p -= p.max(axis=0)
        flat, at_label = p.ravel(order="K"), columns * n + rows if few else rows * k + columns
        label_logits = flat[at_label]
        np.exp(p, out=p)
        total = p.sum(axis=0)
        p /= total
        # log(total) >= 0 and label_logits <= 0: not negative, whatever the rounding.
        values = np.log(total)[rows] - label_logits
        if not isinstance(weight, float):
            # KL(y, p): at y = p two terms cancel and may leave a negative rounding error.
            values = np.maximum(row_sums(weight * (values + np.log(weight)), labels, n), 0)
        flat[at_label] -= weight
        return values, p.T


class _Sparsemax(RegularizedMap):
    r"""Sparsemax: the nearest point of the simplex (Martins and Astudillo 2016).

    forward: ``p = (z - tau)_+`` with ``tau`` such that ``sum p = 1``

    vjp: ``dz = dp - mean_S dp`` on the support ``S = {p > 0}``, else 0

    omega: ``1/2 sum (p^2 - p)``, which is ``(||p||^2 - 1) / 2``

    The threshold is the largest ``(z_(1) + ... + z_(k) - 1) / k`` over ``k``, with ``z_(1)``
    the largest logit, ``z_(2)`` the second, and so on. At a tie between an entry and the
    threshold the map has a kink; the entry counts as outside the support.
    """

    def project_rows(self, z: Array) -> Array:
        return self.project_with_threshold(z)[0]

    def project_with_threshold(self, z: Array) -> tuple[Array, Array]:
        """Return the probabilities and ``tau`` (n, 1)."""
        tau = row_thresholds(z, self._threshold_of_sorted, power=1)
        p = z - tau
        return np.maximum(p, 0, out=p), tau

    def _threshold_of_sorted(self, s: Array) -> Array:
        taus = np.cumsum(s, axis=-1, dtype=np.float64)
        taus -= 1
        taus /= np.arange(1.0, s.shape[1] + 1)
        return np.asarray(taus.max(axis=-1, keepdims=True))

    def vjp_rows(self, p: Array, dp: Array) -> Array:
        inside = p > 0
        dz = np.where(inside, dp, 0)
        # A row of NaN has no support: 0 / 0.
        dz -= dz.sum(axis=-1, keepdims=True) / inside.sum(axis=-1, keepdims=True, dtype=p.dtype)
        dz *= inside
        return dz

    @quietly
    def omega(self, p: Array, axis: int = -1) -> Array:
        p = as_floats(self, "p", p)
        return np.asarray((p * (p - 1) / 2).sum(axis=axis))

    @quietly
    def fenchel_young(self, z: Array, labels: Entries) -> tuple[Array, Array]:
        z = shift(z)[0]
        p, tau = self.project_with_threshold(z)
        rows, columns, weight = labels
        p[rows, columns] -= weight
        values = _row_dots(p, p) / 2
        values += _shortfall(z, tau, labels)
        return values, p


class _Entmax15(RegularizedMap):
    r"""Entmax with alpha = 1.5, halfway from softmax to sparsemax (Peters et al. 2019).

    forward: ``p = (z/2 - tau)_+^2`` with ``tau`` such that ``sum p = 1``

    vjp: ``dz = r (dp - <dp, r> / sum r)`` with ``r = sqrt p``

    omega: ``4/3 sum (p^1.5 - p)``

    Where the support has ``k`` entries, with mean ``m`` and sum of squared deviations ``d`` of
    their ``z/2``, ``tau = m - sqrt((1 - d) / k)``. The map has no kinks.
    """

    def project_rows(self, z: Array) -> Array:
        return self.project_with_threshold(z)[0]

    def project_with_threshold(self, z: Array) -> tuple[Array, Array]:
        """Return the probabilities and ``2 tau`` (n, 1), the threshold of the logits."""
        half = z / 2
        tau = row_thresholds(half, self._threshold_of_sorted, power=2)
        half -= tau
        np.maximum(half, 0, out=half)
        return np.square(half, out=half), 2 * tau

    def _threshold_of_sorted(self, s: Array) -> Array:
        k = np.arange(1.0, s.shape[1] + 1)
        taus = np.cumsum(s, axis=-1, dtype=np.float64)
        taus /= k
        square = np.cumsum(np.square(s, dtype=np.float64), axis=-1)
        square -= 1
        square /= k
        root = np.square(taus)
        root -= square
        taus -= np.sqrt(np.maximum(root, 0, out=root), out=root)
        # The threshold is the largest of those that are below their k entries.
        taus[taus > s] = -1
        return np.asarray(taus.max(axis=-1, keepdims=True))

    def vjp_rows(self, p: Array, dp: Array) -> Array:
        r = np.sqrt(p)
        dz: Array = _row_dots(dp, r)[:, None] / r.sum(axis=-1, keepdims=True)
        dz = dp - dz
        dz *= r
        return dz

    @quietly
    def omega(self, p: Array, axis: int = -1) -> Array:
        p = as_floats(self, "p", p)
        return np.asarray((p * (np.sqrt(p) - 1) * (4 / 3)).sum(axis=axis))

    @quietly
    def fenchel_young(self, z: Array, labels: Entries) -> tuple[Array, Array]:
        z = shift(z)[0]
        p, tau = self.project_with_threshold(z)
        rows, columns, weight = labels
        # sum (sqrt y - sqrt p)^2 (2 sqrt y + sqrt p): the terms with y = 0, then those with y > 0
        r, root = np.sqrt(p), np.sqrt(weight)
        at = r[rows, columns]
        r[rows, columns] = 0
        values = _row_dots(p, r)
        values += row_sums(np.square(root - at) * (2 * root + at), labels, len(z))
        values *= 2 / 3
        values += _shortfall(z, tau, labels)
        p[rows, columns] -= weight
        return values, p


class relumax(SimplexMap):  # noqa: N801 - lower case as softmax and sparsemax
    r"""Relumax: the ReLU of each logit's lead over ``max z - b``, normalised to sum 1.

    forward: ``p = u / s`` with ``u = (z - max z + b)_+`` and ``s = sum u``

    vjp: ``dz = h - (sum h) e_m`` with ``h = 1_S (dp - <dp, p>) / s`` and ``m = argmax z``

    The support is ``S = {i: z_i > max z - b}``. ``relumax(relumax.b_for_sparsemax(z))(z)`` is
    ``sparsemax(z)``. The derivatives need ``p`` alone: ``S = {p > 0}``, ``s = b / max p``,
    ``m = argmax p``. At a tie for the largest logit the map has a kink; the first of the tied
    logits counts as the largest. A logit equal to ``max z - b`` counts as outside the support.
    The Jacobian is not symmetric, so there is no ``omega``.

    Parameters
    ----------
    b : float > 0
        The distance below the largest logit at which probabilities become 0.
    """

    def __init__(self, b: float) -> None:
        self.b = check_float("relumax", "b", b, low=0, open_low=True)

    @staticmethod
    @quietly
    def b_for_sparsemax(z: Array, axis: int = -1) -> Array:
        """Return the ``b`` that makes relumax equal to sparsemax at ``z``: ``max z - tau``."""
        rows, _, shape = sparsemax.shifted_rows(z, axis)
        return -sparsemax.project_with_threshold(rows)[1].reshape(shape[:-1])[()]

    def project_rows(self, z: Array) -> Array:
        b, limits = self.b, np.finfo(z.dtype)
        if not limits.tiny <= b <= limits.max / z.shape[1]:
            raise ValueError(f"{self!r}: b is too small or too large for {z.dtype} logits")
        p = z + b
        np.maximum(p, 0, out=p)
        p /= p.sum(axis=-1, keepdims=True)
        return p

    def vjp_rows(self, p: Array, dp: Array) -> Array:
        rows, m = np.arange(len(p)), p.argmax(axis=-1)
        h = self._centred(p, dp, _row_dots(dp, p), p[rows, m])
        h[rows, m] -= h.sum(axis=-1)
        return h

    def jvp_rows(self, p: Array, dz: Array) -> Array:
        rows, m = np.arange(len(p)), p.argmax(axis=-1)
        h = self._centred(p, dz, dz[rows, m], p[rows, m])
        h -= p * h.sum(axis=-1, keepdims=True)
        return h

    def _centred(self, p: Array, d: Array, centre: Array, largest: Array) -> Array:
        """Return ``1_S (d - centre) / s``."""
        h: Array = (d - centre[:, None]) * (largest / self.b)[:, None]
        h *= p > 0
        return h

    def __repr__(self) -> str:
        return f"relumax({self.b:g})"


softmax = _Softmax()
sparsemax = _Sparsemax()
entmax15 = _Entmax15()


@quietly
def threshold(z: Array, axis: int = -1) -> Array:
    """Return sparsemax's ``tau``, with ``sum (z - tau)_+ = 1`` along ``axis``, which it drops."""
    rows, top, shape = sparsemax.shifted_rows(z, axis)
    return np.asarray(sparsemax.project_with_threshold(rows)[1] + top).reshape(shape[:-1])[()]
