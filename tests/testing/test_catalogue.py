"""Every layer, map and loss of the catalogue passes the gradient checks; none is missing from it."""

import inspect
import itertools

import numpy as np
import pytest

import minidl
from minidl import activations, layer, layers, losses
from minidl import maps as simplex
from minidl.layer import Layer
from minidl.maps import SimplexMap
from minidl.testing.catalogue import LAYERS, LOSSES, MAPS, TARGETS
from minidl.testing.checks import check_layer, check_loss, check_simplex_map
from minidl.testing.subjects import LAYOUTS

DTYPES = ["float32", "float64"]
PLACES = {
    "alone": lambda made: [made],
    "first in a chain": lambda made: [made, minidl.Tanh(), minidl.LayerNorm(5)],
    "second in a chain": lambda made: [minidl.Linear(5, 5), made],
}


def some(*axes):
    """Return all combinations of the first axes, each with one of the last, by turns."""
    *others, last = axes
    turns = zip(itertools.product(*others), itertools.cycle(last), strict=False)
    return [(*first, setting) for first, setting in turns]


def public(module, base):
    """Return the public, concrete classes that a module defines."""
    return {
        value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and issubclass(value, base)
        and not name.startswith("_")
        and not inspect.isabstract(value)
    }


def test_every_public_layer_is_in_the_catalogue():
    made = {type(make(5, 5)) for make in LAYERS.values()}
    assert public(layers, Layer) | public(activations, Layer) | public(layer, Layer) == made


def test_every_exported_layer_is_in_the_catalogue():
    exported = {getattr(minidl, name) for name in minidl.__all__}
    made = {type(make(5, 5)) for make in LAYERS.values()}
    assert {v for v in exported if inspect.isclass(v) and issubclass(v, Layer)} - {Layer} == made


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_the_catalogue_takes_features_and_gives_outputs(name):
    model = minidl.Sequential(LAYERS[name](5, 3), rng=0)
    y = model(np.ones((4, 5), np.float32))
    assert y.shape == (4, 3 if name.startswith(("Linear", "Sequential")) else 5)


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_every_row_of_distributions_has_one(classes):
    y = TARGETS["distributions"](np.random.default_rng(0), np.zeros((200, classes)))
    assert (y >= 0).all()
    np.testing.assert_allclose(y.sum(axis=1), 1)
    assert (y == 0).any() == (classes > 1)


def test_every_public_map_is_in_the_catalogue():
    instances = {v for n, v in vars(simplex).items() if isinstance(v, SimplexMap) and n[0] != "_"}
    assert {type(m) for m in MAPS.values()} == public(simplex, SimplexMap) | set(
        map(type, instances)
    )


def test_every_map_is_in_a_layer():
    layers = [make(5, 5) for make in LAYERS.values()]
    maps = {type(layer.map) for layer in layers if isinstance(layer, minidl.Simplex)}
    assert maps == {type(map) for map in MAPS.values()}


def test_every_public_loss_is_in_the_catalogue():
    bases = losses.Loss, losses.ReducedLoss
    classes = {c for c in public(losses, object) if c not in bases and callable_as_loss(c)}
    assert {type(entry.loss) for entry in LOSSES.values()} == classes
    exported = {v for n in minidl.__all__ if callable_as_loss(v := getattr(minidl, n))}
    assert exported - classes == {losses.Loss}


def callable_as_loss(value):
    call = vars(value).get("__call__") if inspect.isclass(value) else None
    inherited = inspect.isclass(value) and issubclass(value, losses.ReducedLoss)
    return inherited or (call is not None and "logits" in inspect.signature(call).parameters)


@pytest.mark.parametrize(("place", "dtype", "layout"), some(PLACES, DTYPES, LAYOUTS))
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, place, dtype, layout):
    # Simplex along axis 0 has nothing to map in an empty batch.
    if name == "Simplex, axis 0" and layout == "empty":
        pytest.skip("a map along the batch needs a batch")
    model = minidl.Sequential(*PLACES[place](LAYERS[name](5, 5)), rng=1, dtype=dtype)
    rng = np.random.default_rng(2)
    # LayerNorm starts at ones and zeros, which hide a missing factor.
    model.theta[:] += 0.3 * rng.standard_normal(model.theta.size)
    checked = model[0] if place == "alone" else model
    x = LAYOUTS[layout](rng.standard_normal((6, 5)).astype(dtype))
    for train in (True, False):
        report = check_layer(checked, x, train=train, rng=3)
        report.raise_if_failed()
        assert [t.name for t in report.tensors] == ["input", *dict(checked.named_parameters())]


@pytest.mark.parametrize(
    ("axis", "dtype", "layout"),
    some([-1, 0, 1], DTYPES, ["C", "Fortran", "strided", "reversed"]),
)
@pytest.mark.parametrize("name", MAPS)
def test_map(name, axis, dtype, layout):
    z = np.random.default_rng(4).standard_normal((4, 6, 3)).astype(dtype)
    check_simplex_map(MAPS[name], LAYOUTS[layout](z), axis=axis).raise_if_failed()


@pytest.mark.parametrize("name", MAPS)
def test_map_with_masked_logits(name):
    z = np.random.default_rng(5).standard_normal((4, 6))
    z[[0, 1, 1], [3, 0, 5]] = -np.inf
    check_simplex_map(MAPS[name], z).raise_if_failed()


@pytest.mark.parametrize(("layout", "dtype"), some(LAYOUTS, DTYPES))
@pytest.mark.parametrize("name", LOSSES)
def test_loss(name, dtype, layout):
    entry = LOSSES[name]
    rng = np.random.default_rng(6)
    logits = LAYOUTS[layout](2 * rng.standard_normal((7, entry.outputs or 5)).astype(dtype))
    report = check_loss(entry.loss, logits, entry.targets(rng, logits))
    report.raise_if_failed()
