"""Least squares and ridge regression in closed form, the way of SGD to them, and houses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from homework import answers
from homework.figures import over_epochs
from minidl import Dataset
from minidl.checks import Array, as_array, as_floats, check_float
from minidl.view.plots import line_plot


def ridge(x: Array, y: Array, l2: float) -> Array:
    r"""Return the w with the least ``||x w - y||^2 + l2 ||w||^2``: (n, d), (n[, k]) to (d[, k]).

    With the singular value decomposition ``x = U diag(s) V^T`` the solution is
    ``w = V diag(s / (s^2 + l2)) U^T y``. Singular values below ``max(x.shape) * eps * max(s)``
    count as 0, so ``l2=0`` gives the solution of least squares with the smallest norm. ``x^T x``,
    whose condition number is the square of that of ``x``, is never formed. There is no intercept:
    append a column of ones for one, whose weight is penalised too. The dtype is that of ``x``,
    float32 or float64.
    """
    l2 = check_float("ridge", "l2", l2, low=0)
    x, y = as_floats("ridge", "x", x), as_array("ridge", "y", y, numbers=True)
    if x.ndim != 2 or y.ndim not in (1, 2) or len(x) != len(y) or x.size == 0:
        raise ValueError(
            f"ridge: expected x (n, features) and y (n,) or (n, outputs), not empty, "
            f"got x {x.shape} and y {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("ridge: expected finite x and y, got NaN or infinity")
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    kept = s > max(x.shape) * np.finfo(x.dtype).eps * s[0]
    u, vt, s = u[:, kept], vt[kept], s[kept].astype(np.float64)
    # s / (s^2 + l2), in a form in which s^2 can neither overflow nor underflow.
    factors = (1 / (s + l2 / s)).astype(x.dtype)
    projections = u.T @ y.astype(x.dtype, copy=False)
    weights: Array = vt.T @ (projections.T * factors).T
    return weights


class Directions:
    """The training part with a column of ones, by its singular directions, and the closed forms."""

    def __init__(self, dataset: Dataset, l2: float) -> None:
        pairs = {}
        for part in ("train", "test"):
            x = dataset.splits[part].rows(slice(None), np.float64)
            pairs[part] = np.column_stack([x, np.ones(len(x))]), dataset.splits[part].y
        x, y = pairs["train"]
        _, s, self.vt = np.linalg.svd(x)
        self.s = s[s > max(x.shape) * np.finfo(x.dtype).eps * s[0]]
        columns = f"{x.shape[1]} columns with the column of ones"
        print(f"closed forms: X has {columns}, rank {len(self.s)}")
        for name, penalty in (("least squares of minimum norm", 0), (f"ridge, lambda {l2:g}", l2)):
            w = self.ridge = ridge(x, y, penalty)
            errors = {part: np.sqrt(np.mean((a @ w - b) ** 2)) for part, (a, b) in pairs.items()}
            words = ", ".join(f"{part} {error:.4f}" for part, error in errors.items())
            print(f"  {name:<30}RMSE {words}; norm of the weights {np.linalg.norm(w):.4f}")

    def distances(self, weights: Array, title: str, out: Path, *, near: float) -> list[str]:
        """Print and draw the distance of the weights of each epoch to the ridge solution.

        SGD's updates are multiples of rows of X, so from w = 0 the component in the null space
        stays 0, as that of the ridge solution: the solutions of least squares differ only there.
        """
        rank, distance = len(self.s), np.linalg.norm(weights - self.ridge, axis=1)
        gaps = np.abs((weights - self.ridge) @ self.vt[:rank].T)  # (epochs, directions)
        slow = int(np.sum(gaps[-1] > 0.5 * gaps[0]))
        print(f"  {slow} of {rank} directions have kept more than half of their distance")
        groups = {}
        for group in np.array_split(np.arange(rank), min(5, rank)):
            first, last = group[0], group[-1]
            label = f"{first + 1} to {last + 1}, s {self.s[first]:.3g} to {self.s[last]:.3g}"
            groups[label] = np.linalg.norm(gaps[:, group], axis=1)
        words = "distance (norm)"
        all_of_them = over_epochs({"SGD": distance}, words, title="all directions")
        by_direction = over_epochs(groups, words, title="by singular directions", ylog=True)
        line_plot(out / "distance.png", all_of_them, by_direction, title=title)
        null = float(np.abs(weights @ self.vt[rank:].T).max(initial=0))
        share = float(np.square(gaps[-1, rank // 2 :]).sum() / np.square(distance[-1]))
        return [
            answers.approach("The distance to the ridge solution", list(distance), near=near),
            f"SGD has at most {null:.1e} in the null space, where alone the solutions of least "
            "squares differ; the half of the directions with the smaller singular values has "
            f"{share:.2%} of it.",
        ]


def generated_houses(seed: int = 0, n: int = 1465) -> Dataset:
    """Return generated houses of the same form: 37 numbers, 311 indicators, singular.

    Each indicator belongs to a group, of which one is 1; some values never occur in the training
    part. The indicators of a group sum to 1, so the columns are linearly dependent.
    """
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(2 * n, 6))
    numbers = np.tanh(latent @ rng.normal(size=(6, 37))) + 0.5 * rng.standard_t(4, (2 * n, 37))
    columns, sizes = [numbers], rng.multinomial(311 - 2 * 60, np.ones(60) / 60) + 2
    for size in sizes:
        scores = latent @ rng.normal(size=(6, size)) - 1.2 * np.arange(size)
        choice = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
        columns.append(np.eye(size)[choice])
    x = np.concatenate(columns, axis=1)
    x[:, :37] = (x[:, :37] - x[:n, :37].mean(axis=0)) / x[:n, :37].std(axis=0)
    weights = rng.normal(size=x.shape[1]) * np.where(np.arange(x.shape[1]) < 37, 0.05, 0.06)
    y = 12 + x @ weights + 0.1 * rng.standard_t(4, 2 * n)
    return Dataset((x[:n], y[:n]), None, (x[n:], y[n:]), name="generated houses", generated=True)
