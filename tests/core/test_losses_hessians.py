"""Hessians of the losses: finite differences of the gradient, eigenvalues, symmetry."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidl import (
    BinaryCrossEntropy,
    BinaryLogistic,
    CrossEntropy,
    FenchelYoung,
    Huber,
    SquaredError,
    entmax15,
    softmax,
)
from minidl.losses import hessian

LOGITS = hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 7)), elements=st.floats(-30, 30))  # fmt: skip


def case(name, reduction, z, seed):
    rng = np.random.default_rng(seed)
    n, k = z.shape
    if name == "binary":
        return BinaryLogistic(reduction), z[:, :1], rng.choice([-1, 1], n)
    if name == "squared":
        return SquaredError(reduction), z, rng.normal(size=z.shape)
    if name == "labels":
        return BinaryCrossEntropy(reduction), z, rng.uniform(size=z.shape).round(rng.integers(3))
    loss = FenchelYoung(entmax15, reduction) if name == "entmax" else CrossEntropy(reduction)
    return loss, z, rng.integers(0, k, n)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", ["multinomial", "binary", "squared", "labels"])
@given(z=LOGITS, seed=st.integers(0, 2**31))
def test_equals_differences_of_the_gradient_and_is_positive_semidefinite(name, reduction, z, seed):
    loss, z, y = case(name, reduction, z, seed)
    H = hessian(loss, z, y)
    steps = 1e-5 * np.eye(z.shape[1])
    numeric = np.stack([(loss(z + d, y)[1] - loss(z - d, y)[1]) / 2e-5 for d in steps], axis=-1)
    np.testing.assert_allclose(H, numeric, atol=1e-8)
    np.testing.assert_allclose(H, np.swapaxes(H, 1, 2), atol=1e-15)
    assert np.linalg.eigvalsh(H).min() >= -1e-12
    v = np.random.default_rng(seed).normal(size=z.shape)
    np.testing.assert_allclose(loss.hessian_vector_product(z, y, v), np.einsum("nij,nj->ni", H, v), atol=1e-12)  # fmt: skip


def test_the_multinomial_hessian_is_diag_p_minus_pp():
    z = np.random.default_rng(0).normal(size=(2000, 6)) * 5
    p, y = softmax(z), np.zeros(2000, int)
    H = hessian(CrossEntropy("sum"), z, y)
    np.testing.assert_allclose(H, p[:, :, None] * np.eye(6) - p[:, :, None] * p[:, None], atol=1e-15)  # fmt: skip
    assert -1e-12 <= np.linalg.eigvalsh(H).min() <= 1e-12  # the ones are in the null space
    wrong = p[:, :, None] * np.eye(6) - 1.1 * p[:, :, None] * p[:, None]
    assert np.linalg.eigvalsh(wrong).min() < -1e-3  # the bound can fail


def test_entmax_away_from_kinks_and_dtypes():
    z = np.array([[0.3, 0.1, -0.2, -5]])
    loss, y = FenchelYoung(entmax15), np.array([1])
    steps = 1e-6 * np.eye(4)
    numeric = np.stack([(loss(z + d, y)[1] - loss(z - d, y)[1])[0] / 2e-6 for d in steps], axis=-1)
    np.testing.assert_allclose(hessian(loss, z, y)[0], numeric, atol=1e-8)
    for loss in (CrossEntropy(), SquaredError()):
        labels = y if isinstance(loss, CrossEntropy) else z.astype("float32")
        assert hessian(loss, z.astype("float32"), labels).dtype == np.float32


def test_huber_is_quadratic_up_to_delta_and_linear_beyond():
    loss, z = Huber(2, "sum"), np.array([[-3.0, -2.0, 0.0, 1.9, 2.0, 2.1]])
    H = hessian(loss, z, np.zeros((1, 6)))
    np.testing.assert_array_equal(H[0], np.diag([0, 1, 1, 1, 1, 0]))
    away = z != np.round(z)
    difference = (loss(z + 1e-6, np.zeros((1, 6)))[1] - loss(z - 1e-6, np.zeros((1, 6)))[1]) / 2e-6
    np.testing.assert_allclose(difference[away], [1, 0], atol=1e-9)


def test_labels_are_checked():
    with pytest.raises(ValueError, match=r"labels in 0..3"):
        CrossEntropy().hessian_vector_product(np.zeros((1, 4)), np.array([4]), np.ones((1, 4)))
