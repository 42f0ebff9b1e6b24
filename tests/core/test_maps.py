"""The maps onto the simplex: algebraic laws, derivatives, equality with independent code.

A law is a function of a map and logits, so that the tests can show that it fails on a wrong map.
"""

import re
from itertools import product

import entmax
import numeric
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidl import (
    FenchelYoung,
    Linear,
    Relumax,
    Sequential,
    Simplex,
    SmoothedNLL,
    Sparsemax,
    entmax15,
    relumax,
    softmax,
    sparsemax,
)
from minidl import maps as simplex
from minidl.maps import RegularizedMap, SimplexMap, threshold
from minidl.testing.checks import check_layer, check_loss, check_simplex_map

MAPS = {repr(m): m for m in (softmax, sparsemax, entmax15, relumax(0.3), relumax(1), relumax(5))}
every_map = pytest.mark.parametrize("map", MAPS.values(), ids=MAPS.keys())

# The lead of the largest logit from which a map is one-hot; softmax never is.
LEAD = {"sparsemax": 1.0, "entmax15": 2.0, "relumax(0.3)": 0.3, "relumax(1)": 1.0, "relumax(5)": 5.0}  # fmt: skip


@st.composite
def logits(draw, *, masked=True, scales=(1.0, 1e-300, 1e-8, 1e-3, 1e3, 1e8, 1e300)):
    """Draw logits with ties, one-hot rows, extreme scales and masked classes; at most 4 by 8."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 8)))
    kind = draw(st.sampled_from(["any", "ties", "one-hot"]))
    if kind == "one-hot":
        z = np.eye(shape[1])[draw(hnp.arrays(int, shape[0], elements=st.integers(0, shape[1] - 1)))]
    else:
        some = {"any": st.floats(-4, 4), "ties": st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0])}
        z = draw(hnp.arrays(np.float64, shape, elements=some[kind]))
    z = z * draw(st.sampled_from(scales))
    if masked:
        mask = draw(hnp.arrays(bool, shape))
        mask[:, draw(st.integers(0, shape[1] - 1))] = False
        z[mask] = -np.inf
    return z


def on_the_simplex(map, z):
    p = map(z)
    assert p.shape == z.shape
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=0, atol=1e-14)
    assert (p[z == -np.inf] == 0).all()


def invariant_to_a_constant(map, z):
    # Whole multiples of 1/1024 below 2^40: adding a whole number to them rounds nothing.
    z = np.clip(np.round(z * 1024) / 1024, -(2.0**39), 2.0**39)
    for constant in (1.0, -7.0, 2.0**39):
        np.testing.assert_array_equal(map(z + constant), map(z))


def equivariant_to_permutation(map, z):
    order = np.random.default_rng(0).permutation(z.shape[-1])
    for some in (order, slice(None, None, -1)):
        np.testing.assert_allclose(map(z[:, some]), map(z)[:, some], rtol=0, atol=1e-15)


def order_preserving_and_ties_equal(map, z):
    order = z.argsort(axis=-1)
    z, p = np.take_along_axis(z, order, -1), np.take_along_axis(map(z), order, -1)
    assert (p[:, 1:] >= p[:, :-1]).all()
    ties = z[:, 1:] == z[:, :-1]
    assert (p[:, 1:] == p[:, :-1])[ties].all()


def masked_classes_as_if_absent(map, z):
    for row in z:
        kept = row > -np.inf
        np.testing.assert_allclose(map(row[kept]), map(row)[kept], rtol=0, atol=1e-15)


def one_hot_at_low_temperature(map, z):
    for row in z:
        tied = row == row.max()
        gap = (row.max() - row[~tied]).min(initial=np.inf)
        # sparse maps: exactly, from a temperature of gap / LEAD; softmax: exp(-40) is left
        temperature = gap / (1.01 * LEAD.get(repr(map), 40.0))
        if not 1e-290 < gap < np.inf:
            continue  # all are tied, or gap / 40 is not an accurate number any more
        for t in (temperature, temperature / 10):
            with np.errstate(over="ignore"):
                p = map((row - row.max()) / t)
            np.testing.assert_allclose(p, tied / tied.sum(), rtol=0, atol=1e-15)


LAWS = (
    on_the_simplex,
    invariant_to_a_constant,
    equivariant_to_permutation,
    order_preserving_and_ties_equal,
    masked_classes_as_if_absent,
    one_hot_at_low_temperature,
)


@every_map
@given(z=logits())
def test_laws(map, z):
    for law in LAWS:
        law(map, z)


def unshifted(z):
    e = np.exp(np.minimum(z, 3))
    return e / e.sum(axis=-1, keepdims=True)


WRONG = {
    on_the_simplex: lambda z: 1.0001 * softmax(z),
    invariant_to_a_constant: unshifted,
    equivariant_to_permutation: lambda z: softmax(z + 0.01 * np.arange(z.shape[-1])),
    order_preserving_and_ties_equal: lambda z: np.eye(z.shape[-1])[z.argmax(axis=-1)],
    masked_classes_as_if_absent: lambda z: (softmax(z) + 0.01) / (1 + 0.01 * z.shape[-1]),
    one_hot_at_low_temperature: lambda z: softmax(z / 100),
}


def test_laws_see_a_wrong_map():
    for law in LAWS:
        z = np.array([[0.0, 1, 1, -1], [0.5, -np.inf, 0.25, 3]])
        law(softmax, z)
        with pytest.raises(AssertionError):
            law(WRONG[law], z)


def bisection(z, power):
    """Return ``p = (z - tau)_+^power`` with sum 1, by 200 bisections."""
    z = z - z.max(axis=-1, keepdims=True)
    low, high = np.full((len(z), 1), -1.0), np.zeros((len(z), 1))
    for _ in range(200):
        middle = (low + high) / 2
        above = (np.maximum(z - middle, 0) ** power).sum(axis=-1, keepdims=True) >= 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.maximum(z - low, 0) ** power


@given(z=logits())
def test_sparsemax_is_the_nearest_point_and_idempotent(z):
    p = sparsemax(z)
    np.testing.assert_allclose(p, bisection(z, 1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(sparsemax(p), p, rtol=0, atol=1e-15)
    tau = threshold(z)[:, None]
    if np.abs(z[z > -np.inf]).max() < 1e4:  # larger logits lose the digits of z - tau
        np.testing.assert_allclose(np.maximum(z - tau, 0), p, rtol=0, atol=1e-11)


@given(z=logits())
def test_entmax15_equals_bisection(z):
    np.testing.assert_allclose(entmax15(z), bisection(z / 2, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("power", "map"), [(1, sparsemax), (2, entmax15)])
def test_bisection_distinguishes_the_two(power, map):
    z = np.array([[0.3, 0, -0.2]])
    np.testing.assert_allclose(map(z), bisection(z / power, power), atol=1e-15)
    assert np.abs(map(z) - bisection(z * 1.0001 / power, power)).max() > 1e-6


@given(z=logits(), b=st.floats(1e-3, 1e3))
def test_the_support_of_relumax(z, b):
    p = relumax(b)(z)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(relumax(b).support(p), z - z.max(axis=-1, keepdims=True) > -b)


@given(z=logits())
def test_relumax_equals_sparsemax_at_the_stated_b(z):
    bs = relumax.b_for_sparsemax(z)
    for row, b in zip(z, bs, strict=True):
        assert relumax.b_for_sparsemax(row) == b
        np.testing.assert_allclose(relumax(b)(row), sparsemax(row), rtol=0, atol=1e-14)
    if np.abs(z[z > -np.inf]).max() < 1e4:
        np.testing.assert_allclose(bs, z.max(axis=-1) - threshold(z), rtol=0, atol=1e-11)
    z = np.array([0.0, 0.4, 0.6])
    b = float(relumax.b_for_sparsemax(z))
    assert np.abs(relumax(b + 1e-3)(z) - sparsemax(z)).max() > 1e-5  # and at no other


@every_map
@given(seed=st.integers(0, 2**31), n=st.integers(1, 3), k=st.integers(1, 7))
def test_derivatives_by_finite_differences(map, seed, n, k):
    rng = np.random.default_rng(seed)
    z, dp, dz = rng.normal(size=(3, n, k))
    p, jacobian = map(z), map.jacobian(z)
    vjp = map.vjp(p, dp)
    assert numeric.agree(vjp, numeric.gradient(lambda: float((map(z) * dp).sum()), z))
    np.testing.assert_allclose(np.einsum("nij,ni->nj", jacobian, dp), vjp, atol=1e-13)
    np.testing.assert_allclose(
        np.einsum("nij,nj->ni", jacobian, dz), map.jvp(p, dz), rtol=0, atol=1e-13
    )
    np.testing.assert_allclose(vjp.sum(axis=-1), 0, atol=1e-13)  # shift invariance
    np.testing.assert_allclose(jacobian.sum(axis=-2), 0, atol=1e-13)  # sum p = 1


@every_map
def test_the_check_above_sees_a_fault(map):
    rng = np.random.default_rng(3)
    z, dp = 0.1 * rng.normal(size=(2, 3, 5))
    p = map(z)
    expected = numeric.gradient(lambda: float((map(z) * dp).sum()), z)
    vjp = map.vjp(p, dp)
    assert numeric.agree(vjp, expected)
    for fault in (-vjp, 1.01 * vjp, map.vjp(p, np.ones_like(dp)), vjp[:, ::-1], p * dp):
        assert not numeric.agree(fault, expected)


def torch_relumax(b):
    def map(z):
        u = torch.relu(z - z.max(dim=-1, keepdim=True).values + b)
        return u / u.sum(dim=-1, keepdim=True)

    return map


REFERENCES = {
    "softmax": lambda z: torch.softmax(z, -1),
    "sparsemax": lambda z: entmax.sparsemax(z, -1),
    "entmax15": lambda z: entmax.entmax15(z, -1),
    **{f"relumax({b:g})": torch_relumax(b) for b in (0.3, 1, 5)},
}


@every_map
def test_equal_to_pytorch_and_entmax(map):
    for (n, k), scale in product([(1, 2), (5, 26), (300, 26), (4, 3000)], [0.01, 1, 30]):
        rng = np.random.default_rng(k)
        z, dp = scale * rng.normal(size=(n, k)), rng.normal(size=(n, k))
        t = torch.from_numpy(z).requires_grad_()
        theirs = REFERENCES[repr(map)](t)
        theirs.backward(torch.from_numpy(dp))
        p = map(z)
        np.testing.assert_allclose(p, theirs.detach().numpy(), rtol=0, atol=1e-12)
        grad = t.grad.numpy()
        np.testing.assert_allclose(
            map.vjp(p, dp), grad, rtol=0, atol=1e-12 * max(1, abs(grad).max())
        )


T = np.concatenate([np.linspace(-8, 8, 321), [-1e-9, 1e-9, 1e8, -1e8]])


def test_closed_forms_for_two_classes():
    z = np.stack([np.zeros_like(T), T], axis=-1)
    sigmoid = np.exp(np.minimum(T, 0)) / (1 + np.exp(-np.abs(T)))
    forms = {softmax: sigmoid, sparsemax: np.clip((T + 1) / 2, 0, 1)}
    for b in (0.25, 1.0, 2.0, 5.0):
        t = np.clip(T, -b, b)
        forms[relumax(b)] = np.where(t <= 0, (t + b) / (2 * b + t), b / (2 * b - t))
    for map, expected in forms.items():
        np.testing.assert_allclose(map(z)[:, 1], expected, rtol=0, atol=1e-15)


def test_derivatives_of_the_closed_forms_breaks_included():
    z = np.stack([np.zeros_like(T), T], axis=-1)
    sigmoid = 1 / (1 + np.exp(-np.abs(T)))
    forms = {softmax: sigmoid * (1 - sigmoid), sparsemax: np.where(np.abs(T) < 1, 0.5, 0)}
    for b in (0.25, 1.0, 2.0, 5.0):
        # At -b and b the entry at the threshold counts as outside: 0. At 0 both sides agree.
        t = np.clip(np.abs(T), 0, b)
        forms[relumax(b)] = np.where(t < b, b / (2 * b - t) ** 2, 0)
    for map, expected in forms.items():
        np.testing.assert_allclose(
            map.jacobian(z)[:, 1, 1], expected, rtol=0, atol=1e-15 * max(1, expected.max())
        )


def test_documented_subgradients_at_the_kinks():
    # sparsemax at t = 1: outside
    np.testing.assert_array_equal(sparsemax.jacobian(np.array([0.0, 1.0])), np.zeros((2, 2)))
    # relumax at a tie for the largest: the first counts as the largest
    j = relumax(1.0).jacobian(np.array([0.0, 0.0, -0.5]))
    before = relumax(1.0).jacobian(np.array([1e-9, 0.0, -0.5]))
    after = relumax(1.0).jacobian(np.array([0.0, 1e-9, -0.5]))
    np.testing.assert_allclose(j, before, atol=1e-8)
    assert np.abs(j - after).max() > 0.1


@every_map
def test_any_axis_any_shape_and_the_dtype(map):
    for dtype in ("float32", "float64"):
        z = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(dtype)
        d = np.random.default_rng(1).normal(size=z.shape).astype(dtype)
        before = z.copy()
        for axis in range(-4, 4):
            p = map(z, axis)
            last = np.moveaxis(z, axis, -1)
            each = np.array([map(row) for row in last.reshape(-1, last.shape[-1])])
            np.testing.assert_allclose(
                np.moveaxis(p, axis, -1).reshape(each.shape), each, rtol=1e-6
            )
            results = [p, map.vjp(p, d, axis), map.jvp(p, d, axis), map.jacobian(z, axis)]
            expected = [map(last), map.vjp(map(last), np.moveaxis(d, axis, -1))]
            np.testing.assert_array_equal(np.moveaxis(results[1], axis, -1), expected[1])
            np.testing.assert_array_equal(results[3], map.jacobian(last))
            if axis == -1:  # the default
                for got, want in zip([map(z), map.vjp(p, d), map.jvp(p, d), map.jacobian(z)], results, strict=False):  # fmt: skip
                    np.testing.assert_array_equal(got, want)
            if hasattr(map, "omega"):
                results.append(map.omega(p, axis))
                assert results[-1].shape == expected[0].shape[:-1]
            assert {r.dtype for r in results} == {np.dtype(dtype)}
        assert map(np.zeros((0, 3), dtype)).shape == (0, 3)
        np.testing.assert_array_equal(z, before)
        np.testing.assert_array_equal(map.support(p), p > 0)


@pytest.mark.parametrize("map", [sparsemax, entmax15])
@pytest.mark.parametrize(("n", "k", "spread"), [(200, 500, 3), (600, 140, 0.1), (600, 140, 3)])
def test_few_candidates_give_the_same_bits_as_sorting_all(map, n, k, spread):
    rng = np.random.default_rng(0)
    z = spread * rng.normal(size=(n, k))
    z[7] = 0.2  # one row with full support among sparse ones
    z[8, 1:] = -np.inf
    batch = map(z)
    np.testing.assert_array_equal(batch, [map(row) for row in z])
    assert batch[7].min() > 0
    assert batch[8, 0] == 1


@every_map
def test_a_hundred_thousand_classes(map):
    for spread in (1e-4, 1, 50):
        z = spread * np.random.default_rng(0).normal(size=(2, 100_000))
        p = map(z)
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-9)
        for other, power in ((sparsemax, 1), (entmax15, 2)):
            if map is other:
                np.testing.assert_allclose(p, bisection(z / power, power), rtol=0, atol=1e-12)
        small = map(z.astype(np.float32))
        assert small.dtype == np.float32
        np.testing.assert_allclose(small.sum(axis=1), 1, atol=2e-3)
        np.testing.assert_allclose(small, p, atol=1e-4)


def test_temperature():
    z = np.array([0.0, 0.5, 2.0])
    supports = [int(sparsemax(z / t).astype(bool).sum()) for t in (0.5, 2, 10)]
    assert supports == [1, 2, 3]


SIZES = [1, 2, 3, 127, 128, 129, 255, 256, 511, 512, 600, 1000, 5000, 20_000]
"""Numbers of classes on both sides of every change of algorithm, or of a possible one."""


def rows_without_a_distribution(k):
    """Rows whose largest logit is not finite, by what is wrong with them."""
    normal = np.random.default_rng(k).normal(size=k)
    others = 50 * normal, np.zeros(k), np.full(k, -np.inf)
    for i in {0, k // 2, k - 1}:
        for what, value in (("+inf", np.inf), ("NaN", np.nan)):
            for other in (normal, *(others if i == k // 2 else ())):
                row = other.copy()
                row[i] = value
                yield what, row
    yield "only -inf", np.full(k, -np.inf)
    yield "+inf", np.full(k, np.inf)
    yield "NaN", np.full(k, np.nan)


@every_map
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_without_a_distribution(map, dtype):
    for k in SIZES:
        good = np.random.default_rng(0).normal(size=k)
        for what, row in rows_without_a_distribution(k):
            z = np.array([[good, row, good]], dtype)
            with pytest.raises(ValueError, match=rf"got {what.replace('+', '.')} in row \[0, 1\]"):
                map(z)
            with pytest.raises(ValueError, match=rf"got {what.replace('+', '.')}$"):
                map(z[0, 1])
            # a layer passes NaN on, which stops fit with the layer's name
            y, backward = Simplex(map).forward(z)
            dx = backward(np.ones_like(y))
            assert np.isnan(y[0, 1]).all()
            assert np.isnan(dx[0, 1]).all()
            np.testing.assert_array_equal(y[0, [0, 2]], map(z[0, [0, 2]]))
            assert np.isfinite(dx[0, [0, 2]]).all()


@every_map
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_examples(map, dtype):
    for k in SIZES:
        z = np.zeros((0, k), dtype)
        for result in (
            map(z),
            map.vjp(z, z),
            map.jvp(z, z),
            map(z[:, None], -1)[:, 0],
            map(z.T, 0).T,
        ):
            assert (result.shape, result.dtype) == ((0, k), dtype)
        assert map.jacobian(z[:, :300]).shape == (0, min(k, 300), min(k, 300))
        assert Simplex(map).forward(z)[1](z).shape == (0, k)
        assert threshold(z).shape == relumax.b_for_sparsemax(z).shape == (0,)
        assert f"(n, {k})" in Sequential(Linear(2, k), Simplex(map), rng=0).summary()


@every_map
def test_errors_name_the_map_and_what_came(map):
    name = repr(map).replace("(", r"\(").replace(")", r"\)")
    z = np.zeros((2, 3))
    for call, error, message in (
        (lambda: map(np.zeros((2, 0))), ValueError, r"at least one class, got z \(2, 0\)"),
        (lambda: map(np.zeros(3, int)), TypeError, "float32 or float64, got int64"),
        (lambda: map(np.zeros(3, np.float16)), TypeError, "float32 or float64, got float16"),
        (lambda: map(z, 2), ValueError, r"an axis 2, got shape \(2, 3\)"),
        (lambda: map(np.float64(1)), ValueError, r"an axis -1, got shape \(\)"),
        (lambda: map.vjp(z, z[:1]), ValueError, r"dp of p's shape .* got \(1, 3\) float64"),
        (lambda: map.jvp(z, z.astype("f")), ValueError, r"dz of p's shape .* got \(2, 3\) float32"),
    ):
        with pytest.raises(error, match=f"{name}: expected .*{message}"):
            call()


def test_relumax_refuses_b():
    for b in (0, -1, np.nan, np.inf, "wide", None):
        with pytest.raises(ValueError, match="relumax: expected b to be a finite number > 0, got"):
            relumax(b)


def test_relumax_refuses_a_b_that_the_dtype_cannot_hold():
    for b in (1e-50, 1e38):
        assert relumax(b)(np.zeros((1, 26))).shape == (1, 26)
        with pytest.raises(ValueError, match="b is too small or too large for float32 logits"):
            relumax(b)(np.zeros((1, 26), np.float32))


def test_names():
    assert list(map(repr, (softmax, sparsemax, entmax15))) == ["softmax", "sparsemax", "entmax15"]
    assert repr(relumax(0.5)) == "relumax(0.5)"
    assert repr(Relumax(2, axis=1)) == "Relumax(2, axis=1)"
    assert repr(Sparsemax()) == "Sparsemax()"
    assert not hasattr(relumax(1), "omega")
    assert simplex.sparsemax is sparsemax


@pytest.mark.parametrize("map", [softmax, sparsemax, entmax15])
def test_omega_makes_the_map(map):
    """``p`` maximises ``<p, z> - omega(p)``: no point of the simplex does better."""
    rng = np.random.default_rng(0)
    z = 2 * rng.normal(size=(20, 5))
    p = map(z)
    best = (p * z).sum(axis=1) - map.omega(p)
    for other in (*rng.dirichlet(np.ones(5), 200), *np.eye(5)):
        assert ((other * z).sum(axis=1) - map.omega(other) <= best + 1e-14).all()
        near = 0.999 * p + 0.001 * other
        assert ((near * z).sum(axis=1) - map.omega(near) <= best + 1e-14).all()
    np.testing.assert_array_equal(map.omega(np.eye(5)), 0)
    wrong = map(1.1 * z)
    assert ((wrong * z).sum(axis=1) - map.omega(wrong) < best - 1e-9).any()


LONG = np.longdouble
extended = pytest.mark.skipif(
    np.finfo(LONG).eps > 1e-18, reason="long double has no more digits than double"
)


def exact(z, power):
    """``p = (z / power - tau)_+^power`` with sum 1, by Newton's method in long double."""
    x = (z.astype(LONG) - z.max(axis=-1, keepdims=True)) / power
    tau = np.full((len(x), 1), -1, LONG)
    for _ in range(200):  # from below, every step is up
        r = np.maximum(x - tau, 0)
        slope = power * (r ** (power - 1) * (r > 0)).sum(axis=-1, keepdims=True)
        step = ((r**power).sum(axis=-1, keepdims=True) - 1) / slope
        tau += step
        if (np.abs(step) <= 4 * np.finfo(LONG).eps * np.abs(tau)).all():
            return np.maximum(x - tau, 0) ** power
    raise AssertionError("no convergence")


def hard_rows(k):
    """Supports of every size; leads just below that at which all others leave the support."""
    rng, few = np.random.default_rng(k), k > 20_000
    for spread in (1e-4, 0.1) if few else (0, 1e-8, 1e-4, 1e-2, 0.1, 1, 50):
        yield spread * rng.normal(size=k)
        yield spread * rng.random(k)
    for lead in (0.9, 1.999) if few else (0.5, 0.9, 0.99, 1, 1.9, 1.99, 1.999, 2):
        for noise in (0, 1 / k) if few else (0, 1 / k, 0.01):
            z = noise * rng.random(k) - lead
            z[k // 2] = 0
            yield z


def slow(k):
    return pytest.param(k, marks=pytest.mark.slow)


@extended
@pytest.mark.parametrize("k", [2, 26, 100, 127, 128, 129, 1000, 16_384, slow(200_000)])
@pytest.mark.parametrize(("map", "power"), [(sparsemax, 1), (entmax15, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_accuracy_of_probabilities(map, power, k, dtype):
    z = np.array(list(hard_rows(k)), dtype)
    bound = 16.0
    if dtype == "float64" and k < 128:
        bound = k / 4 + 4 if map is sparsemax else k * k / 4 + 16
    for row in z[:, None]:
        p, expected = map(row), exact(row, power)
        error = np.abs(p - expected).max() / expected.max() / np.finfo(dtype).eps
        assert error <= bound


@extended
@pytest.mark.parametrize("k", [2, 127, 511, 1000, 1023, 1024, 1025, 20_000, slow(200_000)])
def test_accuracy_of_derivatives_of_relumax(k):
    for b, mean, dtype in product([0.5, 5], [0, 1, -30], ["float32", "float64"]):
        rng, rows, map = np.random.default_rng(k), np.arange(3), relumax(b)
        z, d = rng.normal(size=(2, 3, k)).astype(dtype)
        d += np.array(mean, dtype)
        p = map(z)
        m, inside, s = p.argmax(axis=1), p > 0, LONG(b) / p.max(axis=1, keepdims=True)
        P, D = p.astype(LONG), d.astype(LONG)  # exact from the given p, whose sum is rounded
        h = inside * (D - (D * P).sum(axis=1, keepdims=True)) / s
        vjp = h.copy()
        vjp[rows, m] -= h.sum(axis=1)
        q = inside * (D - D[rows, m][:, None]) / s
        jvp = q - P * q.sum(axis=1, keepdims=True)
        for got, expected, terms in ((map.vjp(p, d), vjp, h), (map.jvp(p, d), jvp, q)):
            size = (np.abs(terms) + inside * np.abs(D) / s).sum(axis=1)
            error = np.abs(got - expected).max(axis=1) / size / np.finfo(dtype).eps
            assert error.max() <= 8


@pytest.mark.parametrize("map", [sparsemax, entmax15])
def test_a_row_has_the_same_bits_in_any_batch(map):
    for dtype, k in product(["float32", "float64"], [127, 128, 300, 70_000]):
        z = np.array(list(hard_rows(k)), dtype)
        np.testing.assert_array_equal(map(z), [map(row) for row in z])


# ---------------------------------------------------------------- a map that a user writes, with public methods alone


class Tempered(RegularizedMap):
    """Softmax at a fixed temperature, as docs/sparse.md has it."""

    def __init__(self, temperature):
        self.temperature = temperature

    def project_rows(self, z):
        return softmax.project_rows(z / self.temperature)

    def vjp_rows(self, p, dp):
        return softmax.vjp_rows(p, dp) / self.temperature

    def omega(self, p, axis=-1):
        return self.temperature * softmax.omega(p, axis)

    def fenchel_young(self, z, labels):
        values, dz = softmax.fenchel_young(z / self.temperature, labels)
        return self.temperature * values, dz


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
@pytest.mark.parametrize("make", [lambda: Tempered(2.0), lambda: Cauchy()])
def test_a_map_of_ones_own(make, dtype):
    map = make()
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


def test_a_regularised_map_of_ones_own():
    map = Tempered(2.0)
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(5, 4)), rng.dirichlet(np.ones(4), 5)
    np.testing.assert_array_equal(map(z), softmax(z / 2))
    value, dz = FenchelYoung(map, "sum")(z, y)
    check_loss(FenchelYoung(map), z, y).raise_if_failed()
    p = map(z)
    raw = (p * z).sum() - map.omega(p).sum() + map.omega(y).sum() - (y * z).sum()
    assert value == pytest.approx(raw, rel=1e-12)
    np.testing.assert_allclose(dz, p - y, atol=1e-15)
    with pytest.raises(TypeError, match=r"expected a map with a regulariser omega .*, got Cauchy"):
        FenchelYoung(Cauchy())


def test_a_wrong_map_of_ones_own_is_caught(monkeypatch):
    for fault in ("vjp_rows", "jvp_rows", "project_rows"):
        right = getattr(Cauchy, fault)
        with monkeypatch.context() as patch:
            patch.setattr(Cauchy, fault, lambda *args, f=right: 1.01 * f(*args))
            assert not check_simplex_map(Cauchy(), np.random.default_rng(0).normal(size=(4, 6)))
