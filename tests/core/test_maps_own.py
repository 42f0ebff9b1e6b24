"""A map that a user writes: with public methods alone it has a layer, losses and checks."""

import doctest
import re

import numpy as np
import pytest

from minidl import FenchelYoung, Simplex, SmoothedNLL, softmax
from minidl.maps import RegularizedMap, SimplexMap
from minidl.testing.checks import check_layer, check_loss, check_simplex_map


def from_docstring():
    """Execute the example in the docstring of RegularizedMap; return its class."""
    names = {
        "RegularizedMap": RegularizedMap,
        "softmax": softmax,
        "Simplex": Simplex,
        "FenchelYoung": FenchelYoung,
    }
    for example in doctest.DocTestParser().get_examples(RegularizedMap.__doc__):
        exec(example.source, names)
    return names["Tempered"]


class Cauchy(SimplexMap):
    """``p = u / sum u`` with ``u = 1 / (1 + max z - z)``; it has no regulariser."""

    def project_rows(self, z):
        u = 1 / (1 - z)
        return u / u.sum(axis=-1, keepdims=True)

    def vjp_rows(self, p, dp):
        weight, m = self._weight(p)
        h = weight * (dp - (dp * p).sum(axis=-1, keepdims=True))
        return h - m * h.sum(axis=-1, keepdims=True)

    def jvp_rows(self, p, dz):
        weight, m = self._weight(p)
        h = weight * (dz - (dz * m).sum(axis=-1, keepdims=True))
        return h - p * h.sum(axis=-1, keepdims=True)

    def _weight(self, p):
        m = np.arange(p.shape[1]) == p.argmax(axis=-1)[:, None]
        return p * p / p.max(axis=-1, keepdims=True), m


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [from_docstring, lambda: lambda T: Cauchy()])
def test_a_map_of_ones_own(make, dtype):
    map = make()(2.0)
    rng = np.random.default_rng(0)
    z, y = 3 * rng.normal(size=(4, 6)).astype(dtype), rng.integers(0, 6, 4)
    for axis in (0, 1):
        check_simplex_map(map, z, axis=axis).raise_if_failed()
        check_layer(Simplex(map, axis), z).raise_if_failed()
    check_loss(SmoothedNLL(map, 0.01), z, y).raise_if_failed()
    with pytest.raises(
        ValueError, match=re.escape(f"{map!r}") + ": expected a finite largest logit, got NaN"
    ):
        map(np.full((1, 3), np.nan))


def test_the_map_of_the_docstring():
    map = from_docstring()(2.0)
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(5, 4)), rng.dirichlet(np.ones(4), 5)
    np.testing.assert_array_equal(map(z), softmax(z / 2))
    value, dz = FenchelYoung(map, "sum")(z, y)
    check_loss(FenchelYoung(map), z, y).raise_if_failed()
    p = map(z)
    raw = (p * z).sum() - map.omega(p).sum() + map.omega(y).sum() - (y * z).sum()
    assert value == pytest.approx(raw, rel=1e-12)
    np.testing.assert_allclose(dz, p - y, atol=1e-15)
    with pytest.raises(TypeError, match="expected a map with a regulariser omega, got Cauchy"):
        FenchelYoung(Cauchy())


@pytest.mark.parametrize("fault", ["vjp_rows", "jvp_rows", "project_rows"])
def test_a_wrong_map_of_ones_own_is_caught(fault, monkeypatch):
    right = getattr(Cauchy, fault)
    monkeypatch.setattr(Cauchy, fault, lambda *args: 1.01 * right(*args))
    assert not check_simplex_map(Cauchy(), np.random.default_rng(0).normal(size=(4, 6)))
