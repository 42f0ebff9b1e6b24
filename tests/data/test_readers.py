"""Data sets and their readers, on files that the tests write and on real files."""

import gzip
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minidl
from minidl.data import readers
from minidl.data.__main__ import as_images, class_name, describe, main, sheet_rows
from minidl.data.letters import load_letters
from minidl.data.readers import load_dataset, read_idx
from minidl.dataset import Dataset
from minidl.view.cli import run_main

KEYS = {
    "2025-26": ("X_train", "y_train", "X_valid", "y_valid", "X_test", "y_test"),
    "2024-25": ("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"),
    "2021-22": ("Xtrain", "ytrain", "Xdev", "ydev", "Xtest", "ytest"),
}  # fmt: skip
KERAS = ("x_train", "y_train", "x_test", "y_test")


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
    for split, key in ((data.train, "train"), (data.test, "test")):
        np.testing.assert_array_equal(split.x, content[f"X{key}"])
        np.testing.assert_array_equal(split.y, content[f"y{key}"][:, 0])


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
    for read, kind in (
        (load_dataset, "an .npz file"),
        (minidl.load, "a model or checkpoint"),
        (lambda path: minidl.Checkpoint(path).load(), "a model or checkpoint"),
    ):
        with pytest.raises(ValueError, match=rf"set.npz: cannot be read as {kind} \(") as error:
            read(path)
        assert str(error.value).count("cannot be read") == str(error.value).count("set.npz") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("y_valid"), r"missing y_valid \(the keys of 2025-26\); found X_train, y_train"),
        (lambda c: c.update(y_test=np.array([0.5] * 6)), r"y_test: expected integer labels of at most 1000, got y\[0\] = 0.5"),
        (lambda c: c.update(y_test=np.array(["a"] * 6)), r"y_test: expected integer labels, got dtype <U1"),
        (lambda c: c.update(y_train=np.full(12, np.nan)), r"train: expected finite targets, got y\[0\] = nan"),
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
        FileNotFoundError, match=r"leters: no such file .*; the one name is 'letters'"
    ):
        load_dataset("leters")
    with pytest.raises(FileNotFoundError, match=r"nothing.npz: no such file"):
        load_dataset(tmp_path / "nothing.npz")
    with pytest.raises(
        FileNotFoundError, match=r"missing emnist-letters-train-images-.*found nothing"
    ):
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
        (lambda raw: gzip.compress(raw)[:-20], r"idx3-ubyte: .*Compressed file ended before"),
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


SPLITS = {"letters": 26, "balanced": 47, "byclass": 62, "bymerge": 47, "digits": 10, "mnist": 10}


@pytest.mark.parametrize("name", sorted(SPLITS.keys() - {"letters"}))
@pytest.mark.parametrize("zipped", [False, True])
def test_the_other_splits_of_emnist(tmp_path, name, zipped):
    """Labels count from 0, also where the files lack some; the validation part is as the test's."""
    _, y, *_ = write_idx(tmp_path, f"emnist-{name}-", "test", (40, 8), zipped=zipped, base=1)
    data = load_dataset(tmp_path)
    assert (data.classes, data.transposed, data.name) == (SPLITS[name], True, f"emnist-{name}")
    assert [len(s) for s in data.splits.values()] == [32, 8, 8]
    np.testing.assert_array_equal(np.concatenate([data.train.y, data.valid.y]), y)
    labels = tmp_path / f"emnist-{name}-test-labels-idx1-ubyte{'.gz' if zipped else ''}"
    labels.write_bytes(idx_bytes(np.full(8, SPLITS[name])))
    with pytest.raises(ValueError, match=rf"test labels: expected labels in 0..{SPLITS[name] - 1}, got y\[0\] = {SPLITS[name]}"):  # fmt: skip
        load_dataset(tmp_path)


def test_the_path_of_one_idx_file_says_which_of_several(tmp_path):
    for name in ("balanced", "digits"):
        write_idx(tmp_path, f"emnist-{name}-", "test", (40, 8))
    with pytest.raises(FileNotFoundError, match=r"missing emnist-letters-.*; found emnist-balanced-"):  # fmt: skip
        load_dataset(tmp_path)
    write_idx(tmp_path, zipped=True)
    write_idx(tmp_path, "emnist-letters-", "test", (20_900, 8), base=1)
    assert load_dataset(tmp_path).name == "emnist-letters"
    for name in ("balanced", "digits"):
        for stem in ("train-images-idx3", "test-labels-idx1"):
            data = load_dataset(tmp_path / f"emnist-{name}-{stem}-ubyte")
            assert (data.name, data.classes) == (f"emnist-{name}", SPLITS[name])
    assert not load_dataset(tmp_path / "t10k-images-idx3-ubyte.gz").transposed
    (tmp_path / "emnist-digits-test-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing emnist-digits-test-labels.*; found emnist-bal"):  # fmt: skip
        load_dataset(tmp_path / "emnist-digits-train-images-idx3-ubyte")
    (tmp_path / "pixels.bin").write_bytes(idx_bytes(np.zeros((2, 3, 3))))
    with pytest.raises(ValueError, match=r"pixels.bin: .*an IDX file of another name; give its folder"):  # fmt: skip
        load_dataset(tmp_path / "pixels.bin")


# ---------------------------------------------------------------- labels of .npz files

KINDS = ["uint8", "int64", "float32", "float64", ">i4"]


@pytest.mark.parametrize("year", KEYS)
def test_booleans_are_labels_and_fractions_are_a_regression(tmp_path, year):
    """Whatever the keys of the file."""
    for make, classes in ((lambda y: y == 1, 2), (lambda y: y / 2, 0)):

        def change(content, make=make):
            for key in KEYS[year][1::2]:
                content[key] = make(content[key])

        data = load_dataset(write_npz(tmp_path / "set.npz", year, change))
        assert data.classes == classes
        np.testing.assert_array_equal(data.train.y, make(np.arange(12) % 3))


@given(classes=st.integers(2, 40), kind=st.sampled_from([*KINDS, "bool"]), seed=st.integers(0, 99))
def test_one_hot_labels_are_classes(classes, kind, seed):
    labels = [np.random.default_rng(seed + i).integers(0, classes, n) for i, n in enumerate((12, 6, 6))]  # fmt: skip
    found, k = readers._labels(
        Path("set.npz"), dict(zip("abc", (np.eye(classes, dtype=kind)[y] for y in labels), strict=True))
    )  # fmt: skip
    assert k == classes
    for y, expected in zip(found.values(), labels, strict=True):
        assert y.dtype == np.int64
        np.testing.assert_array_equal(y, expected)


@given(
    labels=st.integers(2, 20),
    kind=st.sampled_from([*KINDS, "bool"]),
    part=st.sampled_from("abc"),
    row=st.sampled_from([(0, 0), (1, 1), (2, 0), (1, 2)]),
)
def test_columns_that_are_not_one_hot_are_kept(labels, kind, part, row):
    """One row of one part, which does not have a single 1 beside zeros, is enough to know."""
    assume(kind != "bool" or row != (2, 0))
    ys = {key: np.eye(labels, dtype=kind)[[0, 1, 0]] for key in "abc"}
    ys[part][1, :2] = row
    found, classes = readers._labels(Path("set.npz"), ys)
    assert classes is None
    for key, y in ys.items():
        assert found[key].dtype == np.int64
        np.testing.assert_array_equal(found[key], y)


@given(
    low=st.integers(0, 1),
    seen=st.sets(st.integers(0, 8), min_size=1),
    others=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    kind=st.sampled_from(KINDS),
    column=st.booleans(),
)
def test_labels_of_all_parts_say_where_counting_begins(low, seen, others, kind, column):
    train, valid = np.array(sorted(seen)) + low, np.array(others) + low
    shape = (-1, 1) if column else (-1,)
    ys = {k: y.astype(kind).reshape(shape) for k, y in {"y_train": train, "y_valid": valid}.items()}
    base = int(min(train.min(), valid.min()) == 1)
    if valid.max() > train.max():
        i = int((valid > train.max()).argmax())
        message = (
            rf"y_valid: expected labels in {base}..{train.max()}, got y\[{i}\] = {valid[i]}(\.0)?$"
        )
        with pytest.raises(ValueError, match=message):
            readers._labels(Path("set.npz"), ys)
        return
    found, classes = readers._labels(Path("set.npz"), ys)
    assert classes == train.max() + 1 - base
    np.testing.assert_array_equal(found["y_train"], train - base)
    np.testing.assert_array_equal(found["y_valid"], valid - base)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((6, 3, 2), int), r"test: expected y of shape \(n,\) or \(n, d\), got \(6, 3, 2\)"),
        (np.full((6, 3), 1 / 3), r"y_test: expected integer labels of at most 1000, got y\[0, 0\] = 0.33"),
        (np.where(np.eye(3)[[0, 1, 2, 0, 1, 2]], np.inf, 0), r"y_test: expected integer labels .*, got y\[0, 0\] = inf"),
        (np.eye(4, dtype=int)[[0, 1, 2, 3, 0, 1]], r"test: expected .* integers \(n, ...\) \(3,\) as in train, got .* \(4,\)"),
        (np.arange(6) % 3, r"test: expected .* integers \(n, ...\) \(3,\) as in train, got .* \(\)"),
        (np.zeros((6, 0), int), r"test: expected .* integers \(n, ...\) \(3,\) as in train, got .* \(0,\)"),
    ],
)  # fmt: skip
def test_columns_that_are_no_labels_are_named(tmp_path, y, message):
    def change(content):
        for key in ("y_train", "y_valid", "y_test"):
            content[key] = np.eye(3, dtype=int)[content[key]]
        content["y_test"] = y

    with pytest.raises((ValueError, TypeError), match=message):
        load_dataset(write_npz(tmp_path / "set.npz", change=change))


@pytest.mark.parametrize("n", [12, 60, 61, 65])
def test_the_keys_of_keras(tmp_path, n):
    """The last sixth of the training images is the validation part, as of IDX files."""
    x, y, x_test, y_test = arrays((n, 6))
    path = tmp_path / "mnist.npz"
    np.savez(
        path, **dict(zip(KERAS, (x.reshape(n, 3, 3), y[:, None], x_test, y_test), strict=True))
    )
    data = load_dataset(path)
    assert [len(s) for s in data.splits.values()] == [n - n // 6, n // 6, 6]
    np.testing.assert_array_equal(np.concatenate([data.train.x, data.valid.x]), x)
    np.testing.assert_array_equal(np.concatenate([data.train.y, data.valid.y]), y)
    assert (data.classes, data.transposed, data.name) == (3, False, "mnist")
    np.savez(path, **dict(zip(KERAS[:3], (x, y, x_test), strict=True)))
    with pytest.raises(ValueError, match=r"missing y_test \(the keys of Keras\)"):
        load_dataset(path)


SHOWN = {
    "labels": (lambda n: (np.arange(n)[:, None] >> np.arange(3)) % 2, "y int64 (3,)", "0 .. 1\n"),
    "one-hot": (lambda n: np.eye(3)[np.arange(n) % 3], "3 classes", "0 .. 2, 4 to 4 of each"),
    "lacking": (lambda n: np.arange(n) % 2 if n == 6 else np.full(n, 1), "2 classes", "1 .. 1, 0 to 12 of each"),
    "numbers": (lambda n: np.arange(n) / 7, "y float64", "y float64 0 .. 1.57143\n"),
    "columns": (lambda n: np.arange(2 * n).reshape(n, 2) / 7, "y float64 (2,)", "y float64 0 .. 3.28571\n"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SHOWN)
@pytest.mark.parametrize("x", ["pixels", "floats", "bools"])
def test_show_describes_whatever_is_read(tmp_path, capsys, monkeypatch, kind, x):
    make, *expected = SHOWN[kind]
    rows = {"pixels": np.uint8(3), "floats": 0.3, "bools": True}[x]
    parts = [(np.full((n, 3, 3), rows), make(n)) for n in (12, 6, 6)]
    np.savez(tmp_path / "a.npz", **dict(zip(KEYS["2021-22"], sum(parts, ()), strict=True)))
    monkeypatch.setattr(sys, "argv", ["minidl.data", "show", str(tmp_path / "a.npz"), "--out", str(tmp_path / "a.png")])  # fmt: skip
    main()
    shown = capsys.readouterr().out
    for words in expected:
        assert words in shown


def test_incomplete_idx_folders(tmp_path):
    write_idx(tmp_path)
    with pytest.raises(ValueError, match="expected an IDX file of uint8 with 1 dim"):
        read_idx(tmp_path / "t10k-images-idx3-ubyte", 1)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"missing t10k-labels-idx1-ubyte\[.gz\] in .*; found"
    ):
        load_dataset(tmp_path)
    write_idx(tmp_path, "emnist-letters-", "test")
    with pytest.raises(ValueError, match=r"more than 20800 training images"):
        load_dataset(tmp_path)


# ---------------------------------------------------------------- python -m minidl.data


@pytest.fixture
def show(tmp_path, monkeypatch, capsys):
    """Run ``python -m minidl.data show`` in the folder of the test, without a process of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minidl.view.cli.signal.signal", lambda *args: None)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["python -m minidl.data", "show", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            run_main(main)
        return end.value.code, *capsys.readouterr()

    return run


def test_show(tmp_path):
    write_npz(tmp_path / "set.npz")
    command = [sys.executable, "-m", "minidl.data", "show", "set.npz"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Dataset(set: train 12, valid 6, test 6; 9 features, 3 classes)"
    assert lines[1].startswith("train x uint8 ")
    assert lines[1].endswith("y int64 0 .. 2, 4 to 4 of each")
    assert lines[4] == f"sha256 {load_dataset(tmp_path / 'set.npz').checksum()}"
    assert (tmp_path / "set.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nothing.npz"], "no such file"),
        (["bad.npz"], "cannot be read as an .npz file"),
        (["set.npz", "--split", "dev"], "unrecognized arguments: --split dev"),
    ],
)
def test_show_with_bad_input(tmp_path, show, args, message):
    write_npz(tmp_path / "set.npz")
    (tmp_path / "bad.npz").write_text("hello")
    status, _, error = show(*args)
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("*.png"))


# ---------------------------------------------------------------- counting, validation part, bytes


@pytest.mark.parametrize(
    ("train", "expected", "classes"),
    [
        ([0, 1, 2], [0, 1, 2], 3),
        ([1, 2, 3], [0, 1, 2], 3),  # labels from 1
        ([2, 3, 4], [2, 3, 4], 5),  # from 0, without the first two classes
        ([5, 5, 5], [5, 5, 5], 6),
        ([1, 1, 1], [0, 0, 0], 1),
    ],
)
def test_labels_count_from_1_only_if_the_least_is_1(tmp_path, train, expected, classes):
    def change(content):
        for key in KEYS["2025-26"][1::2]:
            content[key] = np.resize(train, len(content[key]))

    data = load_dataset(write_npz(tmp_path / "set.npz", change=change))
    for split in data.splits.values():
        np.testing.assert_array_equal(split.y, np.resize(expected, len(split)))
    assert data.classes == classes


@pytest.mark.parametrize(("n", "valid"), [(6, 1), (11, 1), (17, 2), (60, 10), (65, 10)])
def test_the_last_sixth_of_mnist_is_the_validation_part(tmp_path, n, valid):
    x, y, *_ = write_idx(tmp_path, sizes=(n, 6))
    data = load_dataset(tmp_path)
    assert [len(s) for s in data.splits.values()] == [n - valid, valid, 6]
    np.testing.assert_array_equal(data.valid.x, x[n - valid :].reshape(valid, 9))
    np.testing.assert_array_equal(data.train.y, y[: n - valid])


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_bytes_after_an_idx_array(tmp_path, name, zipped):
    write_idx(tmp_path)
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(raw + b"\0") if zipped else raw + b"\0")
    n, shape = (108, r"\(12, 3, 3\)") if "images" in name else (12, r"\(12,\)")
    with pytest.raises(
        ValueError, match=rf"{name}: expected {n} values for shape {shape}, got more"
    ):
        load_dataset(tmp_path)


def test_idx_files_that_do_not_belong_together(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(11) % 4))
    with pytest.raises(ValueError, match="valid: expected as many rows in x and y, got 2 and 1"):
        load_dataset(tmp_path)
    array = read_idx(tmp_path / "train-images-idx3-ubyte", 3)
    assert (array.shape, array.dtype) == ((12, 3, 3), np.uint8)


def test_emnist_needs_more_than_its_validation_part(tmp_path):
    write_idx(tmp_path, "emnist-letters-", "test", (20_800, 8), base=1)
    with pytest.raises(ValueError, match=r"more than 20800 training images.*got 20800"):
        load_dataset(tmp_path)
    write_idx(tmp_path, "emnist-letters-", "test", (20_826, 8), base=1)
    assert [len(s) for s in load_dataset(tmp_path).splits.values()] == [26, 20_800, 8]


# ---------------------------------------------------------------- images


def test_rows_as_images():
    x = np.arange(2 * 6, dtype=np.float64).reshape(3, 4) * 3 - 7
    data = Dataset((x, np.array([0, 1, 0])))
    grey = as_images(data, data.train, np.array([2, 0]))
    expected = np.round(255 * (x - x.min()) / (x.max() - x.min())).astype(np.uint8).reshape(3, 2, 2)
    assert grey.dtype == np.uint8
    assert (grey.min(), grey.max()) == (0, 255)  # black and white for the whole part
    np.testing.assert_array_equal(grey, expected[[2, 0]])
    stored = Dataset((x, np.array([0, 1, 0])), transposed=True)
    by_column = as_images(stored, stored.train, np.array([2, 0]))
    np.testing.assert_array_equal(by_column, expected[[2, 0]].transpose(0, 2, 1))


def test_colour_images_and_constant_images():
    x = np.arange(2 * 12, dtype=np.uint8).reshape(2, 2, 2, 3)
    data = Dataset((x, np.array([0, 1])))
    colour = as_images(data, data.train, np.arange(2))
    assert colour.shape == (2, 2, 2, 3)
    np.testing.assert_array_equal(colour, np.round(255 * (x / 23.0)).astype(np.uint8))
    stored = Dataset((x, np.array([0, 1])), transposed=True)
    swapped = as_images(stored, stored.train, np.arange(2))
    np.testing.assert_array_equal(swapped, colour.transpose(0, 2, 1, 3))
    flat = Dataset((np.full((2, 4), 7, np.uint8), np.array([0, 1])))
    assert (as_images(flat, flat.train, np.arange(2)) == 0).all()


@pytest.mark.parametrize(
    ("features", "shape"),
    [(1, None), (2, None), (3, None), (4, (2, 2)), (12, (2, 2, 3)), (13, None), (27, (3, 3, 3)), (49, (7, 7))],
)  # fmt: skip
def test_features_that_are_square_images(features, shape):
    data = Dataset((np.zeros((3, features)), np.arange(3)))
    images = as_images(data, data.train, np.arange(2))
    assert (images if shape is None else images.shape) == (None if shape is None else (2, *shape))
    regression = Dataset((np.zeros((3, features)), np.zeros(3)))
    assert as_images(regression, regression.train, np.arange(2)) is None


@pytest.mark.parametrize(("classes", "name"), [(26, "C"), (25, "2"), (27, "2"), (10, "2")])
def test_names_of_classes(classes, name):
    assert class_name(Dataset((np.zeros((3, 4)), np.arange(3)), classes=classes), 2) == name


# ---------------------------------------------------------------- python -m minidl.data


def test_the_contact_sheet_shows_the_first_examples_of_each_class():
    x = np.arange(12 * 4, dtype=np.uint8).reshape(12, 4)
    data = Dataset((x, np.resize([0, 1, 2], 12)), classes=4)
    rows = sheet_rows(data, 3)
    assert list(rows) == ["0", "1", "2", "3"]
    assert [len(images) for images in rows.values()] == [3, 3, 3, 0]
    every = as_images(data, data.train, np.arange(12))
    np.testing.assert_array_equal(rows["1"], every[[1, 4, 7]])
    table = Dataset((np.zeros((3, 5)), np.arange(3)))
    assert sheet_rows(table, 3) == {}


def test_descriptions():
    x, y = np.array([[0, 255], [3, 4], [5, 6]], np.uint8), np.array([0, 1, 1])
    data = Dataset((x, y), (x[1:], y[1:]), name="some", generated=True)
    assert describe(data).splitlines() == [
        "Dataset(some: train 3, valid 2; 2 features, 2 classes)",
        "some (generated)",
        "train x uint8 0 .. 255, scaled by 0.00390625; y int64 0 .. 1, 1 to 2 of each",
        "valid x uint8 3 .. 6, scaled by 0.00390625; y int64 1 .. 1, 0 to 2 of each",
        f"sha256 {data.checksum()}",
    ]
    regression = Dataset((np.array([[0.5], [2]]), np.array([-1.5, 3])), name="houses")
    assert describe(regression).splitlines()[:2] == [
        "Dataset(houses: train 2; 1 features, y float64)",
        "train x float64 0.5 .. 2, scaled by 1; y float64 -1.5 .. 3",
    ]


def test_show_has_a_bar_while_letters_are_drawn(tmp_path, show, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    monkeypatch.setattr("minidl.data.readers.load_letters", partial(load_letters, 30, 20, 20))
    status, shown, error = show("letters", "--out", "a.png")
    assert status == 0, error
    assert shown.splitlines()[-1] == "wrote a.png"
    assert "drawing train letters: 100%" in error


def test_show_in_another_file(tmp_path, show):
    write_npz(tmp_path / "set.npz")
    status, shown, error = show("set.npz", "--out", "sheets/test.png")
    assert status == 0, error
    assert shown.splitlines()[-1] == "wrote sheets/test.png"
    png = (tmp_path / "sheets/test.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert b"one row a class. Rows of images: " in png
    content = {
        "Xtrain": np.zeros((5, 3)),
        "ytrain": np.arange(5) + 0.5,
        "Xtest": np.zeros((4, 3)),
        "ytest": np.ones(4),
    }
    np.savez(tmp_path / "houses.npz", **content)
    status, shown, error = show("houses.npz")
    assert (status, error) == (0, "")
    last = "no picture: 3 features, no square images with class labels"
    assert shown.splitlines()[-1] == last
    assert [p.name for p in tmp_path.glob("*.png")] == []
