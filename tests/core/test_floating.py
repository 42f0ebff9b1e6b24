"""Floating-point errors: no ``np.seterr`` and no warning filter of the user changes a result."""

import contextlib
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import checks, metrics
from minidl.testing.catalogue import LAYERS, LOSSES, MAPS

EXTREMES = [0, 1, -1, 1e3, -1e3, 88.8, -104, 1e-30, -1e-38, 1e-45, 1e19, -3e38]


def extreme(rng, shape, dtype):
    """Numbers of all magnitudes; each row has a finite spread."""
    limits = np.finfo(dtype)
    values = np.array([*EXTREMES, limits.max / 4, limits.tiny, limits.smallest_subnormal], dtype)
    return np.where(rng.random(shape) < 0.7, rng.choice(values, shape), rng.normal(size=shape)).astype(dtype)  # fmt: skip


def alike(function):
    """Compare the bits of all arrays under NumPy's defaults and where everything raises."""
    found = []
    for mode in ("ignore", "raise"):
        with np.errstate(all=mode), warnings.catch_warnings():
            warnings.simplefilter("error")
            found.append([np.array(a, copy=True) for a in function()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.tobytes() == b.tobytes()


def drawn(make, dtype, shape=(8, 6)):
    with np.errstate(all="ignore"):
        return make(np.random.default_rng(0), shape, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, dtype):
    x, dy = drawn(extreme, dtype), None

    def passes():
        nonlocal dy
        layer = LAYERS[name](6, 5).initialize(0, dtype)
        inference = layer(x)
        y, backward = layer.forward(x, train=True)
        dy = drawn(extreme, dtype, y.shape) if dy is None else dy
        return inference, y, backward(dy), layer.grad

    alike(passes)
    model = minidl.Sequential(LAYERS[name](6, 5), rng=0, dtype=dtype)

    def model_passes():
        y, backward = model.forward(x)
        return model(x), y, backward(dy), model.grad

    alike(model_passes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MAPS)
def test_maps(name, dtype):
    map, z, d = MAPS[name], drawn(extreme, dtype), drawn(extreme, dtype)[::-1].copy()

    def derivatives():
        p = map(z)
        yield from (p, map.vjp(p, d), map.jvp(p, d), map.jacobian(z), map.support(p))
        if hasattr(map, "omega"):
            yield map.omega(p)

    alike(derivatives)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, dtype):
    entry = LOSSES[name]
    z = drawn(extreme, dtype, (8, entry.outputs or 6))
    y, weight = entry.targets(np.random.default_rng(0), z), np.geomspace(1e-300, 1e300, 8)
    loss = entry.loss

    def values():
        yield from (*loss(z, y), *loss(z, y, weight))
        yield loss.predict(z)
        with contextlib.suppress(TypeError):  # no classes
            yield loss.probabilities(z)
        if hasattr(loss, "hessian_vector_product"):
            yield loss.hessian_vector_product(z, y, z)
        for metric in minidl.evaluation.metrics_of(loss).values():
            yield from (metric(z, y), metric(z, y, weight))

    alike(values)


@pytest.mark.parametrize("optimizer", [minidl.SGD, minidl.Adam, minidl.AdamW])
def test_training_and_what_follows(tmp_path, optimizer):
    """Rows of all magnitudes that are finite in float32; the same bits as under the defaults."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(90, 5)) * 10.0 ** rng.integers(-38, 3, (90, 5))).astype(np.float32)
    y = np.arange(90) % 3

    def run():
        data = minidl.Dataset((x[:60], y[:60]), (x[60:], y[60:]))
        features = [minidl.Standardize(), minidl.PCA(4)]
        rows = data
        for feature in features:
            rows = feature.fit_transform(rows)
        layers = minidl.Linear(4, 6), minidl.GELU(), minidl.BatchNorm(6), minidl.Linear(6, 3)
        model = minidl.Sequential(*layers, rng=0)
        steps = optimizer(model, lr=0.1, weight_decay=1e-4, clip_norm=1.0)
        loss = minidl.CrossEntropy()
        history = minidl.fit(model, rows, loss, steps, epochs=3, batch_size=20, rng=0)
        predictor = minidl.Predictor(model, features, loss=loss, dataset=data)
        minidl.save(tmp_path / "m.npz", predictor)
        again = minidl.load(tmp_path / "m.npz")
        yield model.theta
        yield from (again.predict(x), again.probabilities(x), minidl.outputs(model, rows.train))
        yield np.array(list(minidl.evaluate(model, rows.valid, loss).values()))
        yield np.array([history.column(name) for name in history.names])
        twin = minidl.Sequential(minidl.Linear(4, 3), rng=0)
        minidl.fit_online(twin, rows, loss, lr=0.1, epochs=2, rng=0)
        yield twin.theta
        yield metrics.r2(x, x[::-1])

    alike(run)


def test_the_setting_of_the_user_is_left_as_it_was():
    with np.errstate(all="raise"):
        before = np.geterr()
        y, backward = minidl.Sigmoid().forward(np.array([-1e3]))
        backward(y)
        with pytest.raises(ValueError, match="finite largest logit"):
            minidl.softmax(np.array([np.nan]))
        assert np.geterr() == before
        with pytest.raises(FloatingPointError):
            np.exp(np.array([-1e3]))
        with checks.quiet():
            assert np.exp(np.array([-1e3])) == 0


def test_importing_computes_nothing(tmp_path):
    """All modules, where every floating-point error raises and every warning is an error."""
    code = """
import numpy as np
np.seterr(all="raise")
import minidl
from minidl.data import letters
from minidl import grid, online, optim, parity, saving, testing
from minidl.parity import torch_random
from minidl.testing import catalogue
assert len(minidl.load_letters(20, 5, 5).train) == 20
"""
    root = str(Path(__file__).parents[2])
    environment = {"PYTHONPATH": root, "MINIDL_CACHE": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.stderr == ""
