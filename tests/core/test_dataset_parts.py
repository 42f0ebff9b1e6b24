"""Data sets and their parts: batches, chunks, samples, scales, checksums, what is refused."""

import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl.dataset import Dataset, Split


def arrays(sizes=(12, 6, 6), features=9, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    for n in sizes:
        yield rng.integers(0, 256, (n, features), dtype=np.uint8)
        yield np.resize(np.arange(classes), n)


@given(n=st.integers(1, 40), size=st.integers(1, 50), seed=st.integers(0, 100))
def test_batches_are_a_permutation_that_changes(n, size, seed):
    x = np.arange(n, dtype=np.float32)[:, None]
    split = Dataset((x, np.zeros(n, int))).train
    rng = np.random.default_rng(seed)
    first, second = (np.concatenate([b[:, 0] for b, _ in split.batches(size, rng)]) for _ in "ab")
    assert sorted(first) == sorted(second) == list(range(n))
    sizes = [len(y) for _, y in split.batches(size, rng)]
    assert all(s == size for s in sizes[:-1])
    assert 0 < sizes[-1] <= size


def test_batches_mix_examples_anew_each_epoch():
    split = Dataset((np.arange(64.0)[:, None], np.zeros(64, int))).train
    rng = np.random.default_rng(0)
    first, second = ({frozenset(b[:, 0]) for b, _ in split.batches(8, rng)} for _ in "ab")
    assert not first & second  # other batches, not the same ones in another order


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pixels_are_scaled_exactly(dtype):
    x = np.arange(256, dtype=np.uint8)[:, None]
    split = Dataset((x, np.zeros(256, int))).train
    rows = split.rows(slice(None), dtype)
    assert rows.dtype == dtype
    np.testing.assert_array_equal(rows[:, 0] * 256, np.arange(256))
    own = Dataset((x, np.zeros(256, int)), scale=1 / 255).train.rows(np.array([255]))
    np.testing.assert_allclose(own, 1)
    floats = np.array([[0.5], [3.0]])
    np.testing.assert_array_equal(
        Dataset((floats, np.array([0, 1]))).train.rows(slice(None), dtype), floats
    )


def test_frozen_flattened_and_described():
    images = np.zeros((4, 3, 3), np.uint8)
    data = Dataset((images, np.array([0, 1, 2, 1])), name="toy")
    assert (data.features, data.classes, len(data.train), data.valid) == (9, 3, 4, None)
    assert repr(data) == "Dataset(toy: train 4; 9 features, 3 classes)"
    with pytest.raises(FrozenInstanceError, match="classes"):
        data.classes = 5
    with pytest.raises(FrozenInstanceError, match="scale"):
        data.train.scale = 5
    regression = Dataset((np.zeros((4, 2)), np.array([[0.5], [1], [2], [3]])))
    assert regression.classes == 0
    assert regression.train.y.shape == (4,)


def test_memory_maps_are_pickled_as_file_names(tmp_path):
    parts = list(arrays((500, 6, 6)))
    data = Dataset(tuple(parts[:2]), tuple(parts[2:4]), tuple(parts[4:]))
    mapped = minidl.data.mapped(data, tmp_path)
    assert isinstance(mapped.train.x, np.memmap)
    assert mapped.checksum() == data.checksum()
    sent = pickle.dumps(mapped)
    assert len(sent) < len(pickle.dumps(data)) - 4000  # the pixels are not in the pickle
    there = pickle.loads(sent)
    assert isinstance(there.train.x, np.memmap)
    assert there.checksum() == pickle.loads(pickle.dumps(data)).checksum() == data.checksum()


def test_sample_is_evenly_spaced():
    x, y = (
        np.arange(90, dtype=np.uint8)[:, None],
        np.repeat([0, 1, 2], 30),
    )  # sorted, as EMNIST's test
    sample = Dataset((x, y), (x, y)).sample(train=9, valid=1000)
    assert np.bincount(sample.train.y).tolist() == [3, 3, 3]
    assert len(sample.valid) == 90


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda p: p.update(valid=(np.zeros((2, 8), np.uint8), np.zeros(2, int))), ValueError, r"data: valid: expected 9 features as in train, got 8"),
        (lambda p: p.update(test=(np.zeros((0, 9), np.uint8), np.zeros(0, int))), ValueError, r"test: expected at least one example"),
        (lambda p: p.update(valid=(np.zeros((2, 9), np.uint8), np.array([0, 3])), classes=3), ValueError, r"valid: expected labels in 0..2, got y\[1\] = 3"),
        (lambda p: p.update(train=(np.zeros((2, 9), np.uint8), np.array([0, -1])), classes=3), ValueError, r"train: expected labels in 0..2, got y\[1\] = -1"),
        (lambda p: p.update(train=(np.eye(9), np.arange(9) % 3), valid=None, test=(np.array([[0.0] * 9, [0] * 8 + [np.nan]]), np.zeros(2, int))), ValueError, r"test: expected finite features, got x\[1, 8\] = nan"),
        (lambda p: p.update(test=(np.zeros((2, 9)), np.zeros(3, int))), ValueError, r"test: expected as many rows in x and y, got 2 and 3"),
        (lambda p: p.update(test=(np.zeros((2, 9), int), np.zeros(2, int))), TypeError, r"test: expected x of pixels and .* as in train, got x of floats"),
        (lambda p: p.update(test=(np.zeros((2, 9), np.uint8), np.zeros(2))), TypeError, r"test: expected x of pixels and y of integers .* as in train, got .* y of floats"),
        (lambda p: p.update(test=(np.zeros((2, 9)), np.array(["a", "b"]))), TypeError, r"got dtype <U1"),
        (lambda p: p.update(scale=float("nan")), ValueError, r"scale"),
        (lambda p: p.update(train=(np.zeros((2, 9)), np.array([np.inf, 0])), valid=None, test=None), ValueError, r"finite targets"),
    ],
)  # fmt: skip
def test_errors_name_the_part_and_the_entry(change, error, message):
    x1, y1, x2, y2, x3, y3 = arrays()
    parts = {"train": (x1, y1), "valid": (x2, y2), "test": (x3, y3)}
    change(parts)
    with pytest.raises(error, match=message):
        Dataset(**parts)


@pytest.mark.parametrize("classes", [-1, 2.5, "3"])
def test_a_wrong_number_of_classes_is_named_with_its_data_set(classes):
    x1, y1, *_ = arrays()
    with pytest.raises(ValueError, match=f"^mine: expected classes to be .* got {classes!r}$"):
        Dataset((x1, y1), name="mine", classes=classes)


@pytest.mark.parametrize("scale", [-1.0, 1 / 1024, 0.5, 1.0, 2.0, 255.0])
def test_every_scale_is_applied(scale):
    x = np.arange(12, dtype=np.uint8).reshape(6, 2)
    split = Dataset((x, np.zeros(6, int)), scale=scale).train
    for dtype in ("float32", "float64"):
        np.testing.assert_array_equal(
            split.rows(np.array([4, 1]), dtype), scale * x[[4, 1]].astype(dtype)
        )
        out = np.empty((2, 2), dtype)
        assert split.rows(np.array([4, 1]), out=out) is out
        np.testing.assert_array_equal(out, scale * x[[4, 1]].astype(dtype))
    np.testing.assert_array_equal(
        np.concatenate(list(split.chunks("float64"))), scale * x.astype(float)
    )
    assert (x == np.arange(12).reshape(6, 2)).all()  # the data on disk stay as they are


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint16", "bool"])
@pytest.mark.parametrize("scale", [1 / 255, 2.0])
def test_only_pixels_are_scaled(dtype, scale):
    x, y = np.ones((6, 2), dtype), np.zeros(6, int)
    with pytest.raises(
        ValueError, match=r"train: scale is the factor of uint8 rows, got rows of fl"
    ):
        Dataset((x, y), scale=scale)
    with pytest.raises(ValueError, match=f"multiply them by {scale:g} before"):
        Dataset(Split(x.astype("float32"), y, scale))
    assert Dataset((x, y), scale=1).train.scale == 1


@pytest.mark.parametrize("row", [0, 511, 512, 5000, 1023, 1024, 9999])
def test_the_position_of_a_value_that_is_not_finite(row):
    x, y = np.zeros((10_000, 3)), np.zeros(10_000, int)
    x[row, 1] = x[9999, 2] = np.inf
    with pytest.raises(
        ValueError, match=rf"train: expected finite features, got x\[{row}, 1\] = inf"
    ):
        Dataset((x, y))


@pytest.mark.parametrize("n", [1, 511, 512, 513, 1024, 10_000])
def test_chunks_are_all_rows_in_order(n):
    x = np.arange(n, dtype=np.float64)[:, None]
    split = Dataset((x, np.zeros(n, int))).train
    chunks = list(split.chunks("float64"))
    assert max(map(len, chunks)) <= 512
    np.testing.assert_array_equal(np.concatenate(chunks), x)
    mapped = Dataset((x, np.zeros(n, int)), classes=1).map(lambda rows: rows + 1)
    np.testing.assert_array_equal(mapped.train.x, x + 1)


def test_the_checksum_sees_every_change():
    x, y = np.arange(30_000, dtype=np.uint8).reshape(10_000, 3), np.arange(10_000) % 3
    other_x, late_x, other_y = x.copy(), x.copy(), y.copy()
    other_x[0, 0] ^= 1
    late_x[-1, -1] ^= 1
    other_y[-1] = 1
    sets = [
        Dataset((x, y)),
        Dataset((other_x, y)),
        Dataset((late_x, y)),
        Dataset((x, other_y), classes=3),
        Dataset((x.astype(np.float32), y)),
        Dataset((x.astype(np.float64), y)),
        Dataset((x.reshape(5_000, 6), y[:5_000])),
        Dataset((x, y), scale=1 / 255),
        Dataset((x, y), (x, y)),
        Dataset((x, y), None, (x, y)),
        Dataset((x, y), (x, y), (x, y)),
    ]
    sums = [data.checksum() for data in sets]
    assert len(set(sums)) == len(sets)
    assert all(len(s) == 64 for s in sums)
    assert Dataset((x.copy(), y.copy()), name="another name").checksum() == sums[0]


@given(n=st.integers(1, 60), size=st.integers(1, 80))
def test_a_sample_is_evenly_spaced_over_all_rows(n, size):
    x = np.arange(n, dtype=np.float64)[:, None]
    sample = Dataset((x, np.arange(n) % 2), classes=2).sample(train=size).train
    rows = sample.x[:, 0].astype(int)
    assert len(rows) == min(n, size)
    assert (sample.y == rows % 2).all()
    assert rows[0] == 0
    gaps = np.diff([*rows, n])  # the last gap reaches the end
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


def test_a_sample_keeps_the_scale_and_the_other_parts():
    x, y = np.arange(8, dtype=np.uint8)[:, None], np.zeros(8, int)
    sample = Dataset((x, y), (x, y), (x, y), classes=4, name="some").sample(train=2, test=4)
    assert [len(s) for s in sample.splits.values()] == [2, 8, 4]
    assert (sample.name, sample.classes, sample.train.scale) == ("some", 4, 1 / 256)
    with pytest.raises(ValueError, match=r"some: expected train to be a whole number >= 1, got 0"):
        sample.sample(train=0)
