"""Maps from logits onto the probability simplex: softmax, sparsemax, entmax-1.5, relumax.

Each has its value, its products with the Jacobian, and with a regulariser the Fenchel-Young loss.
The entries of a row above its threshold are its support, with ``sum (z - tau)_+^power = 1``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from minidl.checks import Array, Configured, as_array, as_floats, check_float, quietly

Entries = tuple[Array, Array, Array | float]
"""The nonzero entries of label distributions: int64 indices of rows and columns, and values.

For labels, where each row has one entry and in order, the values are the float 1.0.
"""


def shift(z: Array) -> tuple[Array, Array]:
    """Return rows (n, K) minus their largest, and these (n, 1); NaN where it is not finite."""
    # On short rows indexing is twice as fast as max; NaN counts as the largest here too.
    top = z[np.arange(len(z)), z.argmax(axis=-1)][:, None]
    return z - (top + (top - top)), top  # top - top is NaN where top is not finite


def entries_of(y: Array) -> Entries:
    """Return the nonzero entries of checked labels, (n,), or distributions, (n, K)."""
    if y.ndim == 1:
        return np.arange(len(y)), y, 1.0
    rows, columns = np.nonzero(y)
    return rows, columns, y[rows, columns]


def row_sums(terms: Array, labels: Entries, n: int) -> Array:
    """Sum terms, one for each entry of ``labels``, over each of the ``n`` rows."""
    rows, _, values = labels
    if isinstance(values, float):  # one entry in each row
        return terms
    return np.bincount(rows, terms, minlength=n)


class SimplexMap(Configured, ABC):
    """A map from logits to probabilities along one axis, with its derivatives.

    To use a map, call it, or ``vjp``, ``jvp`` and ``jacobian``: they take float32 or float64
    arrays of any shape and any ``axis``, and keep the dtype. To write a map, derive from this
    class (or from ``RegularizedMap``) and define ``project_rows``, ``vjp_rows`` and ``jvp_rows``
    for checked matrices (n, K). The layer ``Simplex(map)`` and the losses then work with it.
    """

    _name: ClassVar[str] = ""

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
        """Return the probabilities of the logits ``z`` along an axis.

        TypeError if ``z`` is not float32 or float64, or is a masked array. ValueError if ``z`` has
        no such axis, or no entries along it, or if the largest logit of a row is not finite;
        without ``check_finite`` the probabilities of the row are NaN then.
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
        """Return ``J[..., i, j] = dp_i / dz_j``, (..., K, K), the other axes of ``z`` first."""
        p = np.moveaxis(self(z, axis), axis, -1)
        k = p.shape[-1]
        rows, units = np.broadcast_arrays(p[..., None, :], np.eye(k, dtype=p.dtype))
        # Row i of J is J^T e_i.
        return self.vjp_rows(rows.reshape(-1, k), units.reshape(-1, k)).reshape(rows.shape)

    def support(self, p: Array) -> Array:
        """Return a mask that is True where the probability is not 0."""
        return np.asarray(as_array(self, "p", p) > 0)

    @quietly
    def shifted_rows(
        self, z: Array, axis: int = -1, *, check_finite: bool = True
    ) -> tuple[Array, Array, tuple[int, ...]]:
        """Check logits; return them as shifted rows, what was subtracted, the shape, axis last."""
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
            want = f"{name} of p's shape and dtype, {p.shape} {p.dtype}"
            raise ValueError(f"{self!r}: expected {want}, got {d.shape} {d.dtype}")
        k = p.shape[-1]
        return np.moveaxis(of_rows(p.reshape(-1, k), d.reshape(-1, k)).reshape(p.shape), -1, axis)

    def _moved(self, name: str, a: Array, axis: int) -> Array:
        """Check ``a`` and return it with ``axis`` last."""
        a = as_floats(self, name, a)
        if not isinstance(axis, (int, np.integer)) or not -a.ndim <= axis < a.ndim:
            want = f"{name} with an axis {axis!r}"
            raise ValueError(f"{self!r}: expected {want}, got shape {a.shape}")
        if a.shape[axis] == 0:
            raise ValueError(f"{self!r}: expected at least one class, got {name} {a.shape}")
        return np.moveaxis(a, axis, -1)

    def __repr__(self) -> str:
        return self._name or super().__repr__()


class RegularizedMap(SimplexMap):
    """A map with a regulariser: ``map(z) = argmax_p <p, z> - omega(p)`` over the simplex.

    ``omega`` is convex. The map is the gradient of its conjugate
    ``omega*(z) = max_p <p, z> - omega(p)``, so the Jacobian is symmetric and ``jvp`` is ``vjp``.
    It has a Fenchel-Young loss.
    """

    @abstractmethod
    def omega(self, p: Array, axis: int = -1) -> Array:
        """Return the regulariser: 0 at the corners of the simplex, negative elsewhere."""

    @abstractmethod
    def fenchel_young(self, z: Array, labels: Entries) -> tuple[Array, Array]:
        """Return the Fenchel-Young loss of each row, (n,), and its gradient ``p - y``, (n, K).

        The loss of a row is ``omega*(z) + omega(y) - <z, y>``. Logits ``z`` (n, K) are not shifted;
        ``labels`` are the nonzero entries of the distributions ``y`` (n, K).
        """

    def jvp_rows(self, p: Array, dz: Array) -> Array:
        """Return ``J dz``, which is ``J^T dz`` here."""
        return self.vjp_rows(p, dz)


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

    _name = "softmax"

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

    The threshold is the largest ``(z_(1) + ... + z_(k) - 1) / k`` over ``k``, with ``z_(k)`` the
    k-th largest logit. An entry that ties with it, at a kink, counts as outside the support.
    """

    _name = "sparsemax"

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

    _name = "entmax15"

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
    ``m = argmax p``. At kinks the first of the largest logits counts as the largest, and a logit
    equal to ``max z - b`` as outside. The Jacobian is not symmetric, so there is no ``omega``.
    ``b > 0`` is the distance below the largest logit at which probabilities become 0.
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


softmax = _Softmax()
sparsemax = _Sparsemax()
entmax15 = _Entmax15()


@quietly
def threshold(z: Array, axis: int = -1) -> Array:
    """Return sparsemax's ``tau``, with ``sum (z - tau)_+ = 1`` along ``axis``, which it drops."""
    rows, top, shape = sparsemax.shifted_rows(z, axis)
    return np.asarray(sparsemax.project_with_threshold(rows)[1] + top).reshape(shape[:-1])[()]


def row_thresholds(z: Array, threshold_of_sorted: Callable[[Array], Array], power: int) -> Array:
    """Return the thresholds (n, 1) of rows whose largest entry is 0; any for a row of NaN.

    The threshold is at least -1, since a probability is at most 1, and at least that of any subset
    of the row, as the maxima of 128 groups. If few entries are above such a bound, only these are
    sorted.
    """
    candidates = None
    if z.shape[1] >= 128:
        candidates = entries_above(z, -1)
        if candidates is None and (length := z.shape[1] // 128) > 3:
            maxima = z[:, : 128 * length].reshape(len(z), length, 128).max(axis=1)
            bound = thresholds_by_sorting(maxima, threshold_of_sorted)
            bound *= 1 + 1e-6  # lower, by more than its rounding error
            candidates = entries_above(z, bound.astype(z.dtype))
    candidates = z if candidates is None else candidates
    # The formula's error, in eps of float64, grows as K or K^2; float32 has digits to spare.
    long = z.dtype == np.float64 and z.shape[1] >= 128
    tau = thresholds_by_sorting(candidates, threshold_of_sorted, power if long else None)
    return tau.astype(z.dtype)


def thresholds_by_sorting(
    z: Array, threshold_of_sorted: Callable[[Array], Array], power: int | None = None
) -> Array:
    """Return the float64 thresholds (n, 1) of rows, refined with a ``power``."""
    rows = max(1, 2**15 // z.shape[1])  # a block whose intermediate results fit in the cache
    blocks = []
    for i in range(0, max(len(z), 1), rows):
        s = np.sort(np.maximum(z[i : i + rows], -1), axis=-1)[:, ::-1]
        tau = threshold_of_sorted(s)
        blocks.append(tau if power is None else refined(s, tau, power))
    return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]


def refined(s: Array, tau: Array, power: int) -> Array:
    """Return float64 thresholds of rows in descending order, correct to some eps.

    ``tau`` comes from prefix sums of ``k`` terms, which lose ``k^2 eps``. Newton's method solves
    ``sum (s - tau)_+^power = 1``. A step that is not above the rounding error is not taken, so that
    a row's result does not depend on the other rows.
    """
    for _ in range(20):  # mostly 2
        inside = ~(s <= tau)  # a prefix of each row; the whole of a row of NaN
        counts = np.count_nonzero(inside, axis=1)
        starts = np.cumsum(counts) - counts
        excess = s[inside] - np.repeat(tau, counts)
        if power == 1:
            total, slope = np.add.reduceat(excess, starts), counts
        else:
            total = np.add.reduceat(np.square(excess), starts)
            slope = 2 * np.add.reduceat(excess, starts)
        step = ((total - 1) / slope)[:, None]
        large = np.abs(step) > 4 * np.finfo(np.float64).eps * np.abs(tau)
        if not large.any():
            break
        tau = np.where(large, tau + step, tau)
    return tau


def entries_above(z: Array, bound: Array | float) -> Array | None:
    """Return each row's entries above ``bound``, padded with -1; None if more than a quarter."""
    inside = z > bound
    count = np.count_nonzero(inside)
    if 4 * count > z.size:
        return None
    flat = np.flatnonzero(inside)
    rows = flat // z.shape[1]
    counts = np.bincount(rows, minlength=len(z))
    columns = np.arange(count) - (np.cumsum(counts) - counts)[rows]
    entries = np.full((len(z), counts.max(initial=1)), -1, z.dtype)
    entries[rows, columns] = z.ravel()[flat]
    return entries
