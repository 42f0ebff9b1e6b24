"""Random networks that are right, half of them on kinks: none must raise a false alarm.

``python tests/support/random_networks.py 2000 [first seed]`` checks so many.
"""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
from numpy.typing import DTypeLike

from minidl.checks import Array
from minidl.layer import Layer, Sequential
from minidl.layers import BatchNorm
from minidl.parameter import walk
from minidl.testing.catalogue import LAYERS
from minidl.testing.checks import check_layer
from minidl.testing.report import GradientReport


def random_layer(rng: np.random.Generator, features: int, max_out: int = 8) -> Layer:
    """Return any layer of the catalogue on ``features``, without values."""
    name = str(rng.choice(sorted(LAYERS)))
    return LAYERS[name](features, int(rng.integers(1, max_out + 1)))


def random_network(
    rng: np.random.Generator,
    features: int,
    *,
    depth: int = 6,
    dtype: DTypeLike = np.float32,
    kinks: bool = False,
) -> Sequential:
    """Return a chain of at most ``depth`` random layers.

    With ``kinks``, biases are 0 and weights are small multiples of a half, so that on a batch
    with zeros and repeated rows units sit on their kinks and logits are tied.
    """
    layers: list[Layer] = []
    for _ in range(int(rng.integers(1, depth + 1))):
        layers.append(random_layer(rng, features))
        widths = [
            inner.out_features for inner in walk(layers[-1]) if hasattr(inner, "out_features")
        ]
        features = widths[-1] if widths else features
    network = Sequential(*layers, rng=int(rng.integers(2**32)), dtype=dtype)
    if not kinks:  # LayerNorm starts at ones and zeros, which hide a missing factor
        network.theta[:] += 0.3 * rng.standard_normal(network.theta.size)
        return network
    for name, p in network.named_parameters():
        p.value = np.zeros(p.shape) if name.endswith("bias") else rng.integers(-2, 3, p.shape) / 2
    return network


def random_batch(
    rng: np.random.Generator, n: int, features: int, dtype: DTypeLike, *, kinks: bool = False
) -> Array:
    """Return normal numbers; with ``kinks``, small whole ones, a row of zeros and a row twice."""
    if not kinks:
        return np.asarray(rng.standard_normal((n, features)), dtype)
    x = rng.integers(-2, 3, (n, features)).astype(dtype)
    if n > 2:
        x[0], x[1] = 0, x[2]
    return x


def check_random_network(seed: int) -> GradientReport:
    """Check the network of this seed, which decides its sizes, dtype, mode and kinks."""
    rng = np.random.default_rng(seed)
    dtype = np.float32 if rng.random() < 0.5 else np.float64
    kinks, train = bool(rng.random() < 0.5), bool(rng.random() < 0.75)
    features, n = int(rng.integers(1, 9)), int(rng.integers(1, 7))
    network = random_network(rng, features, dtype=dtype, kinks=kinks)
    if any(isinstance(layer, BatchNorm) for layer in walk(network)):
        n = max(n, 2)  # it does not train on one example
    x = random_batch(rng, n, features, dtype, kinks=kinks)
    return check_layer(network, x, train=train, rng=rng)


def check_networks(seeds: range) -> bool:
    """Check random networks that are right; return whether none raised a false alarm."""
    verdicts: Counter[str] = Counter()
    alarms = 0
    for seed in seeds:
        report = check_random_network(seed)
        verdicts.update(tensor.verdict for tensor in report.tensors)
        if report.failures:
            alarms += 1
            print(f"network {seed}:\n{report}\n")
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(verdicts.items()))
    print(f"{len(seeds):,} random networks, {alarms} false alarms; tensors: {counts}")
    return not alarms


if __name__ == "__main__":
    number, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    sys.exit(not check_networks(range(first, first + number)))
