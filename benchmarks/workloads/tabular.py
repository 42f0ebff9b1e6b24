"""Tables of rows and labels, real and generated, for the estimators."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import minidl
from minidl.checks import Array

Table4 = tuple[Array, Array, Array, Array]
"""Training rows and labels, validation rows and labels."""


def one_hot(rng: np.random.Generator, n: int, values: int) -> Array:
    """Return n rows of a category, the first values the most frequent."""
    share = 1 / np.arange(1, values + 1)
    return np.eye(values)[rng.choice(values, n, p=share / share.sum())]


def generated(rng: np.random.Generator, n: int, numbers: int, categories: list[int], k: int) -> Any:
    """Return a table of correlated numbers and one-hot categories with k classes of unequal size.

    A random network with noise draws the classes.
    """
    latent = rng.normal(size=(n, 4))
    numeric = latent @ rng.normal(size=(4, numbers)) + rng.normal(size=(n, numbers))
    x = np.hstack([numeric / 2, *(one_hot(rng, n, values) for values in categories)])
    hidden = np.tanh(x @ rng.normal(size=(x.shape[1], 24)) / 2)
    scores = hidden @ rng.normal(size=(24, k)) - np.arange(k) * 0.7 + 0.5 * rng.gumbel(size=(n, k))
    return x, scores.argmax(axis=1)


@lru_cache(maxsize=1)
def table(name: str, rows: int, dtype: str) -> Table4:
    """Return a data set with a fifth of its rows for validation."""
    rng = np.random.default_rng(0)
    if name == "digits":
        x, y = load_digits(return_X_y=True)
        x = x / 16
    elif name == "covertype":
        x, y = generated(rng, rows, 10, [4, 40], 7)
    elif name == "adult":
        x, y = generated(rng, rows, 6, [8, 16, 7, 14, 6, 5, 2, 40], 2)
    else:
        split = minidl.load_dataset(name).train
        x, y = split.rows(slice(0, rows)), split.y[:rows]
    order, cut = rng.permutation(len(x)), len(x) // 5
    x, y = x[order].astype(dtype), y[order]
    return x[cut:], y[cut:], x[:cut], y[:cut]
