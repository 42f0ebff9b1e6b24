"""Data sets and their readers, on files that the tests write and on real files."""

import gzip
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.data import Dataset, letters, load_dataset, load_letters, read_idx

KEYS = {
    "2025-26": ("X_train", "y_train", "X_valid", "y_valid", "X_test", "y_test"),
    "2024-25": ("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"),
    "2021-22": ("Xtrain", "ytrain", "Xdev", "ydev", "Xtest", "ytest"),
}  # fmt: skip


def arrays(sizes=(12, 6, 6), features=9, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    for n in sizes:
        yield rng.integers(0, 256, (n, features), dtype=np.uint8)
        yield np.resize(np.arange(classes), n)


def write_npz(path, year="2025-26", change=None, **more):
    content = dict(zip(KEYS[year], arrays(), strict=True))
    if change:
        change(content)
    np.savez(path, **content, **more)
    return path


# ---------------------------------------------------------------- Dataset


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
    mapped = data.mapped(tmp_path)
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
        (lambda p: p.update(valid=(np.zeros((2, 8)), np.zeros(2, int))), ValueError, r"data: valid: expected 9 features as in train, got 8"),
        (lambda p: p.update(test=(np.zeros((0, 9)), np.zeros(0, int))), ValueError, r"test: expected at least one example"),
        (lambda p: p.update(valid=(np.zeros((2, 9)), np.array([0, 3]))), ValueError, r"valid: expected labels in 0..2, got y\[1\] = 3"),
        (lambda p: p.update(train=(np.zeros((2, 9)), np.array([0, -1])), classes=3), ValueError, r"train: expected labels in 0..2, got y\[1\] = -1"),
        (lambda p: p.update(test=(np.array([[0.0] * 9, [0] * 8 + [np.nan]]), np.zeros(2, int))), ValueError, r"test: expected finite features, got x\[1, 8\] = nan"),
        (lambda p: p.update(test=(np.zeros((2, 9)), np.zeros(3, int))), ValueError, r"got x \(2, 9\) and y \(3,\)"),
        (lambda p: p.update(test=(np.zeros((2, 9), int), np.zeros(2, int))), TypeError, r"uint8, float32 or float64, got int64"),
        (lambda p: p.update(test=(np.zeros((2, 9)), np.zeros(2))), TypeError, r"test: expected integer labels as in train, got float64"),
        (lambda p: p.update(test=(np.zeros((2, 9)), np.array(["a", "b"]))), TypeError, r"got <U1"),
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


# ---------------------------------------------------------------- .npz


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("year", KEYS)
def test_course_files_of_every_year(tmp_path, year, base):
    def shift(content):
        for key in KEYS[year][1::2]:
            content[key] = content[key].astype(np.uint8) + np.uint8(base)

    data = load_dataset(write_npz(tmp_path / "set.npz", year, shift, unrelated=np.arange(3)))
    expected = list(arrays())
    for split, x, y in zip(data.splits.values(), expected[::2], expected[1::2], strict=True):
        np.testing.assert_array_equal(split.x, x)
        np.testing.assert_array_equal(split.y, y)
        assert split.scale == 1 / 256
    assert (data.name, data.classes) == ("set", 3)


def test_images_and_float_labels_in_a_column(tmp_path):
    def change(content):
        content["train_images"] = content["train_images"].reshape(-1, 3, 3)
        content["train_labels"] = content["train_labels"].astype(float)[:, None]

    data = load_dataset(write_npz(tmp_path / "set.npz", "2024-25", change))
    assert data.train.x.shape == (12, 9)
    assert data.train.y.dtype == np.int64


def test_regression_without_a_dev_part(tmp_path):
    rng = np.random.default_rng(0)
    content = {"Xtrain": rng.normal(size=(5, 3)), "ytrain": rng.normal(size=(5, 1)), "Xtest": rng.normal(size=(4, 3)), "ytest": rng.normal(size=(4, 1))}  # fmt: skip
    np.savez(tmp_path / "houses.npz", **content)
    data = load_dataset(tmp_path / "houses.npz")
    assert (data.classes, data.valid, len(data.test)) == (0, None, 4)


def test_real_course_files(shared):
    letters_ = load_dataset(shared / "data/nist-az-small/nist_az_small.npz")
    assert [len(s) for s in letters_.splits.values()] == [5154, 390, 390]
    assert np.bincount(letters_.valid.y).tolist() == [15] * 26
    houses = load_dataset(shared / "data/ames/ames.npz")
    assert (houses.classes, houses.features, houses.valid) == (0, 348, None)


def spoil(path, how):
    raw = path.read_bytes()
    path.write_bytes({"cut": raw[: len(raw) // 2], "empty": b"", "text": b"hello", "flip": raw[:200] + bytes(60) + raw[260:]}[how])  # fmt: skip


@pytest.mark.parametrize("how", ["cut", "empty", "text", "flip"])
def test_damaged_npz(tmp_path, how):
    path = tmp_path / "set.npz"
    np.savez_compressed(path, **dict(zip(KEYS["2025-26"], arrays((300, 30, 30)), strict=True)))
    spoil(path, how)
    with pytest.raises(ValueError, match=r"set.npz: cannot be read as an .npz file"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("y_valid"), r"missing y_valid \(the keys of 2025-26\); found X_train, y_train"),
        (lambda c: c.update(y_test=np.array([0.5] * 6)), r"expected integer labels in y_test, got 0.5"),
        (lambda c: c.update(y_test=np.array(["a"] * 6)), r"expected integer labels in y_test, got 'a'"),
        (lambda c: c.update(y_train=np.full(12, np.nan)), r"expected integer labels in y_train, got nan"),
        (lambda c: c.update(y_test=np.full(6, 7)), r"test: expected labels in 0..2, got y\[0\] = 7"),
        (lambda c: c.update(X_test=np.full((6, 9), np.inf)), r"test: expected finite features"),
        (lambda c: c.update(X_test=np.array([None])), r"cannot be read as an .npz file"),
    ],
)  # fmt: skip
def test_npz_with_wrong_content(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(write_npz(tmp_path / "set.npz", change=change))


def test_sources_that_are_not_data_sets(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"leters: no such file or folder, did you mean 'letters'"
    ):
        load_dataset("leters")
    with pytest.raises(FileNotFoundError, match=r"nothing.npz: no such file"):
        load_dataset(tmp_path / "nothing.npz")
    with pytest.raises(FileNotFoundError, match=r"no IDX files.*found nothing"):
        load_dataset(tmp_path)
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"a single array"):
        load_dataset(tmp_path / "a.npy")


# ---------------------------------------------------------------- IDX


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder, prefix="", test="t10k", sizes=(12, 6), zipped=False, dash="-", base=0):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    written = []
    for part, n in zip(("train", test), sizes, strict=True):
        x = rng.integers(0, 256, (n, 3, 3), dtype=np.uint8)
        y = np.resize(np.arange(4), n) + base
        written += [x, y]
        for stem, array in ((f"{part}-images", x), (f"{part}-labels", y)):
            name = f"{prefix}{stem}{dash}idx{array.ndim}-ubyte"
            raw = idx_bytes(array)
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
            else:
                (folder / name).write_bytes(raw)
    return written


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dash", ["-", "."])
def test_mnist_style_folder(tmp_path, zipped, dash):
    x, y, x_test, y_test = write_idx(tmp_path / "digits", zipped=zipped, dash=dash)
    data = load_dataset(tmp_path / "digits")
    assert [len(s) for s in data.splits.values()] == [
        10,
        2,
        6,
    ]  # the last sixth is the validation part
    np.testing.assert_array_equal(data.train.x, x[:10].reshape(10, 9))
    np.testing.assert_array_equal(data.valid.y, y[10:])
    np.testing.assert_array_equal(data.test.x, x_test.reshape(6, 9))
    np.testing.assert_array_equal(data.test.y, y_test)
    assert (data.name, data.transposed) == ("digits", False)


def test_emnist_folder(tmp_path):
    _, y, *_ = write_idx(tmp_path, "emnist-letters-", "test", (20_900, 8), zipped=True, base=1)
    write_idx(tmp_path)  # EMNIST's names come before MNIST's
    data = load_dataset(tmp_path)
    assert [len(s) for s in data.splits.values()] == [100, 20_800, 8]
    np.testing.assert_array_equal(data.valid.y, y[100:] - 1)
    assert (data.name, data.transposed, data.classes) == ("emnist-letters", True, 4)


def test_real_idx_files(shared):
    data = load_dataset(shared / "data/fashion-mnist")
    assert [len(s) for s in data.splits.values()] == [50_000, 10_000, 10_000]
    assert np.bincount(data.test.y).tolist() == [1000] * 10


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: gzip.compress(raw)[:-20], r"cannot be read"),
        (lambda raw: raw[:-1], r"expected 108 values for shape \(12, 3, 3\), got 107"),
        (lambda raw: b"\0\0\x0d" + raw[3:], r"IDX file of uint8 with 3 dimensions, got one that begins with 00 00 0d 03"),
        (lambda raw: b"", r"begins with nothing"),
        (lambda raw: raw[:6], r"IDX file of uint8"),
    ],
)  # fmt: skip
def test_damaged_idx(tmp_path, spoil, message):
    write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        load_dataset(tmp_path)


def test_incomplete_idx_folders(tmp_path):
    write_idx(tmp_path)
    with pytest.raises(ValueError, match="expected an IDX file of uint8 with 1 dim"):
        read_idx(tmp_path / "t10k-images-idx3-ubyte", 1)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing t10k-labels-idx1-ubyte\[.gz\]; found"):
        load_dataset(tmp_path)
    write_idx(tmp_path, "emnist-letters-", "test")
    with pytest.raises(ValueError, match=r"more than 20800 training images"):
        load_dataset(tmp_path)


# ---------------------------------------------------------------- letters


def test_letters_are_reproducible_and_a_prefix_of_a_larger_set():
    x, y = letters.draw(1500, seed=3)
    again = letters.draw(1500, seed=3)
    np.testing.assert_array_equal(x, again[0])
    fewer = letters.draw(1100, seed=3)
    np.testing.assert_array_equal(x[:1100], fewer[0])
    np.testing.assert_array_equal(y[:1100], fewer[1])
    assert (x.dtype, x.shape) == (np.uint8, (1500, 784))
    assert (letters.draw(100, seed=4)[0] != x[:100]).any()
    assert (letters.draw(100, seed=3, split=1)[0] != x[:100]).any()
    assert len(np.unique(x, axis=0)) == 1500
    assert np.bincount(letters.draw(1040)[1]).tolist() == [40] * 26


def test_letters_can_be_classified():
    """Nearest class mean over 2,600 letters is far better than chance."""
    (x, y), (x_test, y_test) = letters.draw(2600), letters.draw(1040, split=1)
    means = np.array([x[y == k].mean(axis=0) for k in range(26)])
    distance = ((x_test[:, None] / 1.0 - means) ** 2).sum(axis=2)
    assert (distance.argmin(axis=1) == y_test).mean() > 0.35


def test_letters_are_cached_mapped_and_shared(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    large = load_letters(train=60, valid=30, test=30)
    files = sorted(p.name for p in tmp_path.iterdir())
    assert len(files) == 6
    small = load_letters(train=40, valid=30, test=20)
    assert sorted(p.name for p in tmp_path.iterdir()) == files  # drawn once
    assert isinstance(small.train.x, np.memmap)
    np.testing.assert_array_equal(small.train.x, large.train.x[:40])
    np.testing.assert_array_equal(small.train.x, letters.draw(40)[0])
    np.testing.assert_array_equal(small.test.y, letters.draw(20, split=2)[1])
    assert small.title == "letters (generated, not EMNIST)"
    sent = pickle.loads(pickle.dumps(small))
    assert len(sent.train) == 40
    assert sent.checksum() == small.checksum()
    with pytest.raises(
        ValueError, match=r"letters: expected train to be a whole number >= 1, got 0"
    ):
        load_letters(train=0)


# ---------------------------------------------------------------- python -m minidl.data


def show(*args, cwd):
    command = [sys.executable, "-m", "minidl.data", "show", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_show(tmp_path):
    write_npz(tmp_path / "set.npz")
    done = show("set.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "set: 3 classes, 9 features"
    assert lines[1].startswith("train       12 examples; uint8 ")
    assert "labels 0 .. 2, 4 to 4 a class" in lines[1]
    assert lines[4] == f"sha256 {load_dataset(tmp_path / 'set.npz').checksum()}"
    assert (tmp_path / "set.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nothing.npz"], "no such file"),
        (["bad.npz"], "cannot be read as an .npz file"),
        (["set.npz", "--columns", "0"], "expected at least 1, got 0"),
        (["set.npz", "--split", "dev"], "invalid choice"),
    ],
)
def test_show_with_bad_input(tmp_path, args, message):
    write_npz(tmp_path / "set.npz")
    (tmp_path / "bad.npz").write_text("hello")
    done = show(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.png"))
