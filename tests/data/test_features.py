"""Features: data set in, data set out; fitted on the training part alone; PCA beside an SVD."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import minidl
from minidl import PCA, AveragePool, Standardize


def dataset(n=120, features=16, pixels=False, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n + 40)
    if pixels:
        x = rng.integers(0, 256, (n + 40, features), dtype=np.uint8)
    else:
        x = rng.normal(size=(n + 40, features)) @ rng.normal(size=(features, features)) + 3
    parts = [(x[i:j], y[i:j]) for i, j in ((0, n), (n, n + 20), (n + 20, n + 40))]
    return minidl.Dataset(*parts, classes=3, name="some")


ALL = [
    pytest.param(lambda: PCA(5), id="PCA"),
    pytest.param(Standardize, id="Standardize"),
    pytest.param(AveragePool, id="AveragePool"),
]


@pytest.mark.parametrize("make", ALL)
def test_a_data_set_in_a_data_set_out(make):
    before = dataset()
    after = make().fit_transform(before)
    assert (after.name, after.classes, list(after.splits)) == ("some", 3, list(before.splits))
    for key, split in after.splits.items():
        assert (split.y == before.splits[key].y).all()
        assert split.x.shape == (len(split), after.features)
        assert split.x.dtype == np.float64
        assert split.scale == 1


@pytest.mark.parametrize("make", ALL)
def test_fitted_on_the_training_part_alone(make):
    """Other validation and test parts give the same bits; other training examples do not."""
    one = dataset()
    x, y = one.train.x, one.train.y
    wild = minidl.Dataset(one.train, (1e3 * x[:20], y[:20]), (1e6 * x[20:40] + 1e6, y[20:40]), classes=3)  # fmt: skip
    a, b = make().fit_transform(one), make().fit_transform(wild)
    assert (a.train.x == b.train.x).all()
    fitted = make().fit(wild)
    assert np.allclose(fitted.apply(one.valid.x), a.valid.x, rtol=1e-12)
    if not isinstance(fitted, AveragePool):
        everything = minidl.Dataset((np.vstack([x, one.valid.x]), np.append(y, one.valid.y)), classes=3)  # fmt: skip
        leaky = make().fit(everything)
        assert not np.allclose(leaky.apply(one.valid.x), a.valid.x, rtol=1e-6)


@pytest.mark.parametrize("make", ALL)
def test_pixels_become_floats_of_the_dtype_asked_for(make):
    before = dataset(pixels=True)
    assert make().fit_transform(before).train.x.dtype == np.float32
    exact = make().fit_transform(before, "float64").train.x
    assert exact.dtype == np.float64
    assert np.allclose(make().fit_transform(before).train.x, exact, rtol=1e-3, atol=1e-4)


# PCA.


@given(n=st.integers(2, 60), features=st.integers(1, 12), seed=st.integers(0, 2**16))
def test_pca_laws(n, features, seed):
    x = np.random.default_rng(seed).normal(size=(n, features)) + 5
    pca = PCA().fit(minidl.Dataset((x, np.zeros(n, int))))
    assert pca.ratios.sum() == pytest.approx(1, abs=1e-12)
    assert (np.diff(pca.variances) <= 0).all()
    assert (pca.variances >= 0).all()
    np.testing.assert_allclose(pca.components @ pca.components.T, np.eye(features), atol=1e-12)
    np.testing.assert_allclose(pca.reconstruct(pca.apply(x)), x, atol=1e-10)
    largest = pca.components[np.arange(features), np.abs(pca.components).argmax(axis=1)]
    assert (largest > 0).all()
    again = PCA().fit(minidl.Dataset((x[::-1].copy(), np.zeros(n, int))))
    np.testing.assert_allclose(again.variances, pca.variances, atol=1e-10)


def test_pca_agrees_with_an_svd():
    data = dataset(300)
    pca = PCA().fit(data)
    centred = data.train.x - data.train.x.mean(axis=0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(pca.variances, s**2 / 299, rtol=1e-10)
    signs = np.sign(np.sum(pca.components * vt, axis=1))
    np.testing.assert_allclose(pca.components, vt * signs[:, None], atol=1e-10)
    np.testing.assert_allclose(pca.apply(data.train.x), u * s * signs, atol=1e-10 * s[0])


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999, 1.0])
def test_pca_by_share_of_variance(share):
    data = dataset()
    ratios = PCA().fit(data).ratios
    pca = PCA(share).fit(data)
    assert pca.ratios.sum() >= share * (1 - 1e-9)
    assert pca.ratios[:-1].sum() < share
    assert (pca.ratios == ratios[: len(pca.ratios)]).all()


@pytest.mark.parametrize("k", [1, 2, 9, 15, 16, None])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pca_keeps_as_many_components_as_asked_for(k, dtype):
    """Shapes and values of all figures, and of the projection back to the features."""
    data, kept = dataset(), k or 16
    pca, everything = PCA(k).fit(data), PCA().fit(data)
    assert pca.components.shape == (kept, 16)
    assert pca.mean.shape == (16,)
    for name in ("components", "variances", "ratios"):
        assert len(getattr(pca, name)) == kept
        np.testing.assert_array_equal(getattr(pca, name), getattr(everything, name)[:kept])
    x = data.valid.x.astype(dtype)
    z = pca.apply(x)
    assert (z.shape, z.dtype) == ((20, kept), dtype)
    back = pca.reconstruct(z)
    assert (back.shape, back.dtype) == ((20, 16), dtype)
    tolerance = 1e-4 if dtype == "float32" else 1e-12
    expected = (x - pca.mean) @ pca.components.T @ pca.components + pca.mean
    np.testing.assert_allclose(back, expected, rtol=tolerance, atol=tolerance * 100)
    np.testing.assert_allclose(pca.apply(back), z, atol=tolerance * 100)
    # The mean of the rows is their projection on no component.
    origin = pca.reconstruct(np.zeros((1, kept), dtype))
    np.testing.assert_allclose(origin[0], pca.mean, rtol=1e-6)


@pytest.mark.parametrize("make", [lambda: PCA(3), PCA, Standardize])
@pytest.mark.parametrize("shape", [(4, 15), (4, 17), (4, 3), (4, 0), (4, 1), (16,), (16, 16, 1), (2, 4, 16)])  # fmt: skip
def test_rows_of_another_width_are_refused(make, shape):
    feature = make().fit(dataset())
    with pytest.raises(ValueError, match=r"expected x of shape \(n, 16\), got \("):
        feature.apply(np.ones(shape))
    assert feature.apply(np.ones((0, 16))).shape[0] == 0


@pytest.mark.parametrize("n", [17, 100, True, -1, "3", [2]])
def test_a_number_of_components_that_is_refused(n):
    with pytest.raises(ValueError, match="n_components"):
        PCA(n).fit(dataset())


def test_pca_loses_the_variance_of_the_components_that_it_drops():
    data = dataset()
    pca = PCA(4).fit(data)
    assert pca.transform(data).features == 4
    lost = np.square(data.train.x - pca.reconstruct(pca.apply(data.train.x))).sum() / 119
    assert lost == pytest.approx(PCA().fit(data).variances[4:].sum(), rel=1e-9)


def test_pca_of_constant_features():
    data = minidl.Dataset((np.ones((9, 3)), np.zeros(9, int)))
    pca = PCA(2).fit(data)
    assert (pca.apply(data.train.x) == 0).all()
    assert (pca.ratios == 0).all()


# The others.


def test_standardize():
    data = dataset()
    x = data.train.x.copy()
    x[:, 3] = 7
    data = minidl.Dataset((x, data.train.y), data.valid, classes=3)
    after = Standardize().fit_transform(data)
    varying = np.arange(16) != 3
    np.testing.assert_allclose(after.train.x.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(after.train.x.std(axis=0)[varying], 1, rtol=1e-12)
    np.testing.assert_array_equal(after.valid.x[:, 3], data.valid.x[:, 3] - 7)
    np.testing.assert_allclose(after.valid.x[:, 0], (data.valid.x[:, 0] - x[:, 0].mean()) / x[:, 0].std())  # fmt: skip


CONSTANTS = [0.1, 0.7, 1 / 3, 1e-300, -1e-9, 12345.678, 1e15 / 3, 1e300, 0.0, -0.0]


@given(
    constants=st.lists(st.sampled_from(CONSTANTS) | st.floats(-1e30, 1e30), min_size=1, max_size=6),
    n=st.sampled_from([1, 2, 3, 10, 97, 511, 512, 513, 4097]),
    dtype=st.sampled_from(["float32", "float64"]),
)
@example(constants=CONSTANTS, n=1000, dtype="float64")
def test_constant_features_become_0_exactly_and_are_divided_by_1(constants, n, dtype):
    """Whatever the constant and the number of rows; beside them a feature varies."""
    with np.errstate(over="ignore", under="ignore"):
        row = np.nan_to_num(np.append(constants, 0).astype(dtype), posinf=1)
    x = np.tile(row, (n, 1))
    x[:, -1] = np.random.default_rng(n).normal(size=n)
    valid = np.tile(row, (3, 1))
    valid[1] += 1
    y = np.zeros(n, int)
    data = minidl.Dataset((x, y), (valid, y[:3] if n > 2 else np.zeros(3, int)))
    feature = Standardize()
    after = feature.fit_transform(data)
    assert (after.train.x[:, :-1] == 0).all()
    np.testing.assert_array_equal(after.valid.x[:, :-1], (valid - row)[:, :-1])
    assert (feature.std[:-1] == 1).all()
    np.testing.assert_array_equal(feature.mean[:-1], row[:-1].astype(np.float64))
    if n > 2:
        np.testing.assert_allclose(after.train.x[:, -1].std(), 1, rtol=1e-5)
    pca = PCA().fit(data)
    assert pca.variances[0] == pytest.approx(x[:, -1].var(ddof=1 if n > 1 else 0), rel=1e-6)
    assert (pca.variances[1:] == 0).all()
    constant = minidl.Dataset((x[:, :-1].copy(), y))
    assert (PCA().fit(constant).ratios == 0).all()


@given(value=st.integers(0, 255), n=st.sampled_from([1, 7, 300, 5000]), scale=st.sampled_from([None, 1 / 255, 0.1, 1 / 3]))  # fmt: skip
def test_constant_pixels_become_0(value, n, scale):
    """Exactly where the scaled pixel is exact; else up to the rounding of a float32 row."""
    x = np.full((n, 4), value, np.uint8)
    data = minidl.Dataset((x, np.zeros(n, int)), scale=scale)
    for dtype in ("float32", "float64"):
        found = np.abs(Standardize().fit_transform(data, dtype).train.x)
        exact = scale is None or dtype == "float64"
        assert found.max() <= (0 if exact else np.finfo(dtype).eps * value * scale)


def test_a_feature_that_varies_in_one_row_is_not_constant():
    """The row may be the first, the last, or the first of a chunk."""
    for row in (0, 1, 511, 512, 8999):
        x = np.full((9000, 2), 0.1)
        x[row, 0] = 0.2
        after = Standardize().fit_transform(minidl.Dataset((x, np.zeros(9000, int)))).train.x
        assert after[:, 0].std() == pytest.approx(1)
        assert after[row, 0] > 90
        assert (after[:, 1] == 0).all()


def test_average_pool_on_a_small_image():
    image = np.arange(16, dtype=np.float64).reshape(1, 16)
    np.testing.assert_array_equal(AveragePool(2).apply(image), [[2.5, 4.5, 10.5, 12.5]])
    np.testing.assert_array_equal(AveragePool(4).apply(image), [[7.5]])
    np.testing.assert_array_equal(AveragePool(2, (2, 8)).apply(image), [[4.5, 6.5, 8.5, 10.5]])
    for pool, message in ((AveragePool(3), "square images"), (AveragePool(2, (4, 5)), "4x5 images")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            pool.apply(image)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PCA(0), "n_components to be a whole number >= 1, got 0"),
        (lambda: PCA(1.5), "a share n_components to be a finite number > 0 and <= 1, got 1.5"),
        (lambda: PCA(17).fit(dataset()), r"PCA\(17\): expected n_components to be at most 16"),
        (lambda: PCA(3).apply(np.ones((2, 16))), "not fitted yet"),
        (lambda: PCA(3).fit(dataset()).apply(np.ones((2, 5))), r"expected x of shape \(n, 16\), got \(2, 5\)"),
        (lambda: AveragePool(0), "size to be a whole number"),
    ],
)  # fmt: skip
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_standardize_counts_examples_by_their_weights():
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(9000, 3)), rng.integers(0, 4, 9000)
    x[:, 2] = 7
    weighted = Standardize().fit(minidl.Dataset((x, np.zeros(9000, int), weight)))
    repeated = Standardize().fit(
        minidl.Dataset((x.repeat(weight, axis=0), np.zeros(weight.sum(), int)))
    )
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-12)
    np.testing.assert_allclose(weighted.std, repeated.std, rtol=1e-12)
    assert weighted.mean[2] == 7
    assert weighted.std[2] == 1


@pytest.mark.parametrize(
    "shape",
    [(4.0, 4.0), ("4", "4"), "44", (4, None), (-4, -4), (0, 4), (True, 16), (4, (4, 4)), (16,), (), 4, np.ones(2)],
)  # fmt: skip
def test_a_shape_of_images_is_checked_when_the_feature_is_made(shape):
    with pytest.raises(ValueError, match=r"^AveragePool: expected .*shape to be "):
        AveragePool(1, shape)


@pytest.mark.parametrize("shape", [(2, 8), [2, 8], np.array([2, 8])])
def test_a_shape_of_images_of_any_kind(shape):
    pool = AveragePool(2, shape)
    assert (pool.apply(np.ones((1, 16))) == np.ones((1, 4))).all()
    assert pool.shape == (2, 8)
