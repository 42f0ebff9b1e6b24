"""Generated houses, where the course's file of Ames is not at hand."""

from __future__ import annotations

import numpy as np

from minidl.dataset import Dataset


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
