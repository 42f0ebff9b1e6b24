"""Losses of Question 3 by name, and figures of sparse predictions."""

from __future__ import annotations

import time

import numpy as np

import minidl
from minidl.checks import Array
from minidl.maps import RegularizedMap, SimplexMap

REGULARIZED: dict[str, RegularizedMap] = {
    "softmax": minidl.softmax,
    "sparsemax": minidl.sparsemax,
    "entmax15": minidl.entmax15,
}


def relumax_loss(b: float, eps: float) -> str:
    """Return the name of a smoothed relumax loss, for ``map_and_loss``."""
    return f"relumax b={b:g} eps={eps:g}"


def map_and_loss(name: str) -> tuple[SimplexMap, minidl.Loss]:
    """Return a map and its loss: softmax, sparsemax, entmax15, or ``relumax b=10 eps=0.1``."""
    word, *settings = name.split()
    if word in REGULARIZED:
        return REGULARIZED[word], minidl.FenchelYoung(REGULARIZED[word])
    b, eps = (float(setting.partition("=")[2]) for setting in settings)
    map = minidl.relumax(b)
    return map, minidl.SmoothedNLL(map, eps)


def calibration_error(p: Array, y: Array, bins: int = 15) -> float:
    """Return the expected calibration error (Naeini et al. 2015).

    The mean over examples of ``|accuracy - confidence|`` in the example's bin, where confidence is
    the largest probability and the bins cut [0, 1] into equal parts.
    """
    confidence, right = p.max(axis=1).astype(np.float64), p.argmax(axis=1) == y
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, right - confidence, bins)
    return float(np.abs(gaps).sum() / len(y))


def support_size(model: minidl.Layer, map: SimplexMap, split: minidl.Split) -> dict[str, float]:
    """Return the mean number of classes with a probability above 0."""
    return {"size": float(map.support(map(minidl.outputs(model, split))).sum(axis=1).mean())}


def fastest_microseconds(loss: minidl.Loss, logits: Array, y: Array) -> float:
    """Return the time for the value and gradient of one batch: the shortest of 200."""
    seconds = []
    for _ in range(200):
        start = time.perf_counter()
        loss(logits, y)
        seconds.append(time.perf_counter() - start)
    return 1e6 * min(seconds)
