"""Online SGD of a perceptron against a loop by hand, and runs that cannot go side by side."""

import numpy as np
import pytest

import minidl
from minidl import OnlineRun, fit_online, fit_side_by_side
from minidl.init import zeros

CLASSES, FEATURES = 4, 6


def examples(n=200):
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, n)
    x = rng.integers(0, 120, (n, FEATURES))
    x[np.arange(n), y] += 60
    return minidl.Dataset((x.astype(np.uint8), y), classes=CLASSES)


def by_hand(dataset, w, lr, epochs):
    """A mistake adds ``lr x`` to the right class and takes it from the predicted one."""
    losses = []
    for epoch in range(1, epochs + 1):
        total = 0
        for i in minidl.training.epoch_rng(0, epoch).permutation(len(dataset.train)):
            x, label = np.append(dataset.train.x[i] / 256, 1), dataset.train.y[i]
            z = w @ x
            predicted = int(z.argmax())
            total += z[predicted] - z[label]
            if predicted != label:
                w[label] += lr * x
                w[predicted] -= lr * x
        losses.append(total / len(dataset.train))
    return w, losses


@pytest.mark.parametrize("block", [1, 2, 64, 1000])
@pytest.mark.parametrize("lr", [1, 2, 0.3])
def test_a_perceptron_is_the_loop_by_hand(lr, block):
    """For every learning rate; from weights that are not 0, where it is no mere factor."""
    dataset = examples()
    model = minidl.Linear(FEATURES, CLASSES, rng=1, dtype="float64")
    start = np.vstack([model.weight.value, model.bias.value]).T.copy()
    options = {"lr": lr, "epochs": 2, "block_size": block, "rng": 0}
    history = fit_online(model, dataset, minidl.Perceptron(), **options)
    w, losses = by_hand(dataset, start, lr, epochs=2)
    assert losses[-1] > 0  # there are mistakes to the end
    np.testing.assert_allclose(model.weight.value, w[:, :-1].T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(model.bias.value, w[:, -1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(history.column("train_loss")[1:], losses, rtol=1e-12)


def test_runs_side_by_side_are_equally_far():
    dataset = examples()
    runs = [
        OnlineRun(minidl.Linear(FEATURES, CLASSES, weight_init=zeros, rng=0), 0.1) for _ in "ab"
    ]
    fit_online(runs[0].model, dataset, minidl.CrossEntropy(), lr=0.1, epochs=1, rng=0, history=runs[0].history)  # fmt: skip
    before = runs[1].model.theta.copy()
    with pytest.raises(ValueError, match="fit_side_by_side: expected histories of the same length"):
        fit_side_by_side(runs, dataset, minidl.CrossEntropy(), epochs=2, rng=0)
    np.testing.assert_array_equal(runs[1].model.theta, before)
