"""Networks with the activation g(z) = z (1 - z): from parameters to c'phi(x), and back.

A network with one hidden layer of K units and one output is a quadratic function of its input.
``docs/quadratic.md`` derives each function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl import Linear, Quadratic, Sequential
from minidl.checks import Array, check_int

RANK_TOLERANCE = 1e-10
"""Eigenvalues and parts of vectors that are smaller than the largest by this factor count as 0."""


def phi(x: Array) -> Array:
    """Return the features ``(1, x_i, x_i x_j)``, i <= j: (n, D) to (n, (D + 1)(D + 2) / 2)."""
    i, j = np.triu_indices(x.shape[1])
    return np.hstack([np.ones((len(x), 1)), x, x[:, i] * x[:, j]])


def coefficients(constant: Any, linear: Array, quadratic: Array) -> Array:
    """Return the c of ``constant + linear'x + x' quadratic x``; stacks of them give rows of c."""
    i, j = np.triu_indices(linear.shape[-1])
    products = np.where(i == j, 1, 2) * quadratic[..., i, j]
    return np.concatenate([np.asarray(constant)[..., None], linear, products], axis=-1)


def polynomial(c: Array) -> tuple[float, Array, Array]:
    """Return the constant, the linear part and the symmetric quadratic part of c."""
    d = round((np.sqrt(8 * len(c) + 1) - 3) / 2)
    if (d + 1) * (d + 2) // 2 != len(c) or d < 1:
        raise ValueError(f"polynomial: expected c of size (D + 1)(D + 2) / 2, got {len(c)}")
    quadratic = np.zeros((d, d))
    quadratic[np.triu_indices(d)] = c[1 + d :]
    return float(c[0]), c[1 : 1 + d], (quadratic + quadratic.T) / 2


def make_network(w: Array, b: Array, v: Array, v0: float) -> Sequential:
    """Return the network ``v0 + sum_k v_k g(w_k'x + b_k)``; ``w`` is (K, D)."""
    k, d = w.shape
    network = Sequential(Linear(d, k), Quadratic(), Linear(k, 1), rng=0, dtype="float64")
    values = w.T, b, v[:, None], np.array([v0])
    network.load_state_dict(dict(zip(network.state_dict(), values, strict=True)))
    return network


def parameters(network: Sequential) -> tuple[Array, Array, Array, float]:
    """Return w (K, D), b (K,), v (K,) and v0; the inverse of ``make_network``."""
    w, b, v, v0 = network.state_dict().values()
    return w.T, b, v[:, 0], float(v0[0])


def draw_starts(d: int, k: int, starts: int, rng: np.random.Generator) -> Sequence[Array]:
    """Return w (starts, d, k), b, v and v0, uniform within one over the root of the inputs."""
    shapes = (starts, d, k), (starts, 1, k), (starts, k, 1), (starts, 1, 1)
    roots = np.sqrt([d, d, k, k])
    return [rng.uniform(-1, 1, s) / root for s, root in zip(shapes, roots, strict=True)]


def hidden_matrix(network: Sequential) -> Array:
    """Return the matrix A, (K, (D + 1)(D + 2) / 2), with hidden units ``h = A phi(x)``.

    With ``z = w'x + b``: ``z (1 - z) = b - b^2 + (1 - 2 b) w'x - x' w w' x``.
    """
    w, b, _, _ = parameters(network)
    return coefficients(b - b**2, (1 - 2 * b)[:, None] * w, -w[:, :, None] * w[:, None, :])


def fold(network: Sequential) -> Array:
    """Return the c with ``network(x) = c'phi(x)``."""
    _, _, v, v0 = parameters(network)
    c = v @ hidden_matrix(network)
    c[0] += v0
    return c


def decompose(c: Array) -> tuple[float, Array, Array, Array, Array]:
    """Complete the square: ``c'phi(x) = r + sum_k e_k (q_k'x + m_k)^2 + n'x``.

    Returns r, the nonzero eigenvalues e of the quadratic part, their eigenvectors q as rows, the
    shifts m, and the part n of the linear part that is orthogonal to all of them.
    """
    constant, linear, quadratic = polynomial(c)
    e, q = np.linalg.eigh(quadratic)
    small = RANK_TOLERANCE * np.abs(c).max(initial=0)
    e, q = e[np.abs(e) > small], q[:, np.abs(e) > small].T
    m = q @ linear / (2 * e)
    rest = linear - q.T @ (q @ linear)
    return constant - float(e @ m**2), e, q, m, rest * (np.linalg.norm(rest) > small)


def units_needed(c: Array) -> int:
    """Return the smallest number of hidden units of a network that equals ``c'phi(x)``.

    It is the rank of the quadratic part, and 2 more if the linear part is outside its range.
    """
    _, e, _, _, rest = decompose(c)
    return len(e) + 2 * bool(rest.any())


def unfold(c: Array, units: int, epsilon: float = 0.0) -> Sequential:
    """Return a network with ``fold(network) = c``, or within ``epsilon`` of c if that is given.

    A ValueError says why there is none with so many units.
    """
    units = check_int("unfold", "units", units)
    r, e, q, m, rest = decompose(c)
    slope, rank = float(np.linalg.norm(rest)), len(e)
    if units < rank + bool(slope) * (1 if epsilon > 0 else 2):
        where, close = "in", ""
        if slope:
            where, close = "outside", f", or {rank + 1} and epsilon > 0 to come close"
        raise ValueError(
            f"unfold: the quadratic part of c has rank {rank}, the linear part is {where} its "
            f"range: expected {units_needed(c)} units for c itself{close}, got {units} and "
            f"epsilon {epsilon:g}"
        )
    if slope:  # for a unit vector n: 4 n'x = (n'x + 1)^2 - (n'x - 1)^2
        factors, shifts = [slope / 4, -slope / 4], [1.0, -1.0]
        if units == rank + 1:  # d (n'x + s)^2 - d s^2 = 2 d s n'x + d (n'x)^2, the error
            d = min(epsilon / 2, slope)
            factors, shifts = [d], [slope / (2 * d)]
            r -= d * shifts[0] ** 2
        e, m = np.append(e, factors), np.append(m, shifts)
        q = np.vstack([q, *[rest / slope for _ in factors]])
    # e (q'x + m)^2 = e / 4 - e g(q'x + m + 1/2); units that are not needed are 0.
    pad = (0, units - len(e))
    w, b, v = np.pad(q, [pad, (0, 0)]), np.pad(m + 0.5, pad), np.pad(-e, pad)
    return make_network(w, b, v, r + e.sum() / 4)


def least_squares(x: Array, y: Array) -> Array:
    """Return the shortest c that minimises ``|phi(x) c - y|``, whatever the rank of phi(x)."""
    c: Array = np.linalg.lstsq(phi(x), y, rcond=None)[0]
    return c


def random_c(features: int, rank: int, inside: bool, rng: np.random.Generator) -> Array:
    """Return a c whose quadratic part has this rank, and its range the linear part, or not."""
    q, _ = np.linalg.qr(rng.normal(size=(features, features)))
    e = np.zeros(features)
    e[:rank] = rng.choice([-1, 1], rank) * rng.uniform(0.5, 2, rank)
    linear = rng.normal(size=features)
    if inside:
        linear = q[:, :rank] @ (q[:, :rank].T @ linear)
    return coefficients(rng.normal(), linear, q * e @ q.T)


def distances(c: Array, units: int, starts: int, steps: int, seed: int) -> tuple[Array, Array]:
    """Return the distance from c to a network with ``units`` units, and its largest parameter.

    Of each start. The output bias fits the constant; up to it a network is
    ``sum_k s_k (w_k'x + m_k)^2`` with signs ``s_k``, which are drawn; Levenberg-Marquardt steps
    change u_k = (w_k, m_k), all starts at once.
    """
    rng, d = np.random.default_rng(seed), len(polynomial(c)[1])
    i, j = np.triu_indices(d)
    i, j = np.append(np.arange(d), i), np.append(np.full(d, d), j)  # u_i u_j: w m, then w w
    eye, double = np.eye(d + 1), np.where(i == j, 1.0, 2.0)
    factor = double * rng.choice([-1.0, 1.0], (starts, units, 1))
    u = rng.normal(size=(starts, units, d + 1))

    def residual(u: Array) -> Array:
        return np.asarray((factor * u[..., i] * u[..., j]).sum(1) - c[1:])

    r, damping = residual(u), np.ones((starts, 1, 1))
    for _ in range(steps):
        slopes = factor[..., None] * (u[..., j, None] * eye[i] + u[..., i, None] * eye[j])
        a = slopes.swapaxes(1, 2).reshape(starts, len(c) - 1, -1)
        normal = a.swapaxes(1, 2) @ a + damping * np.eye(a.shape[2])
        proposed = u - np.linalg.solve(normal, a.swapaxes(1, 2) @ r[..., None]).reshape(u.shape)
        r_new = residual(proposed)
        better = np.linalg.norm(r_new, axis=1) < np.linalg.norm(r, axis=1)
        u[better], r[better] = proposed[better], r_new[better]
        damping = np.clip(np.where(better[:, None, None], damping / 3, damping * 4), 1e-12, 1e12)
    return np.linalg.norm(r, axis=1), np.abs(u).max(axis=(1, 2), initial=0)
