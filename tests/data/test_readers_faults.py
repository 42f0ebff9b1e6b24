"""Readers and the cache under attack: bombs, false sizes, unknown methods, full disks."""

import dataclasses
import gzip
import io
import math
import os
import resource
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl.data import letters
from minidl.data.letters import load_letters
from minidl.data.readers import load_dataset, read_idx
from minidl.files import read_npz

HERE = Path(__file__).parents[1]


def draw(n, **options):
    parts = zip(*letters.LETTERS.blocks(n, **options), strict=True)
    return tuple(map(np.concatenate, parts))


def good():
    rng = np.random.default_rng(0)
    for part, n in (("train", 12), ("valid", 6), ("test", 6)):
        yield f"X_{part}", rng.integers(0, 256, (n, 9), dtype=np.uint8)
        yield f"y_{part}", np.resize(np.arange(3), n)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(shape, dtype="'|u1'", order=False, version=1):
    """The beginning of an .npy file, with any text as its shape."""
    text = f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text


def write(path, change=None, method=zipfile.ZIP_DEFLATED, **members):
    """Write a course file in which some members are other bytes."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in good():
            archive.writestr(f"{name}.npy", members.pop(name, None) or npy(array))
        for name, content in members.items():
            archive.writestr(name, content)
    return path


LOAD = """
import sys
from pathlib import Path
from minidl.view.cli import run_main
from minidl.data import load_dataset
import zipfile, gzip, numpy.random
def peak():
    return int(next(s for s in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in s).split()[1])
before = peak()
def main():
    try:
        load_dataset(sys.argv[1])
    finally:
        print(peak() - before)
run_main(main)
"""


def load_apart(path):
    """Load in another process; return its error and the kilobytes by which its memory grew."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run([sys.executable, "-c", LOAD, str(path)], env=environment, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr, int(done.stdout)


def bomb(gigabytes):
    """Zeros, compressed: gzip members of 64 MB, one after another."""
    return gzip.compress(bytes(1 << 26), 9) * (16 * gigabytes)


def idx(shape):
    return bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()


def idx_folder(folder, images):
    folder.mkdir()
    for stem in ("train-images-idx3", "t10k-images-idx3"):
        (folder / f"{stem}-ubyte.gz").write_bytes(images)
    for stem in ("train-labels-idx1", "t10k-labels-idx1"):
        (folder / f"{stem}-ubyte.gz").write_bytes(gzip.compress(idx((200,)) + bytes(200)))
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_bombs_cost_no_memory(tmp_path):
    images = gzip.compress(idx((200, 28, 28))) + bomb(2)
    assert len(images) < 2.2e6
    error, grown = load_apart(idx_folder(tmp_path / "idx", images))
    assert "expected 156800 values for shape (200, 28, 28), got more" in error
    assert grown < 20_000
    zeros = 1 << 26  # 64 MB declared by the archive, in 65 kB
    write(tmp_path / "set.npz", X_train=header("(12, 9)") + bytes(zeros))
    error, grown = load_apart(tmp_path / "set.npz")
    assert f"X_train.npy: expected 108 bytes for shape (12, 9) and dtype uint8, got {zeros}" in error  # fmt: skip
    assert grown < 20_000
    write(tmp_path / "long.npz", X_train=header("(12, 9)", version=2)[:8] + (zeros).to_bytes(4, "little") + bytes(zeros))  # fmt: skip
    error, grown = load_apart(tmp_path / "long.npz")
    assert "X_train.npy is not an .npy file of version 1.0" in error
    assert grown < 20_000


def test_honest_bombs_cost_no_memory(tmp_path):
    """Zeros as declared, which nobody has as data: refused before they are read."""
    shape = (100_000, 28, 28)
    zeros = gzip.compress(idx(shape) + bytes(math.prod(shape)), 9)
    assert len(zeros) < 1e5
    error, grown = load_apart(idx_folder(tmp_path / "idx", zeros))
    assert f"expected {math.prod(shape)} values for shape {shape}, got at most" in error
    assert grown < 20_000
    write(tmp_path / "set.npz", X_train=npy(np.zeros((*shape[:1], 784), np.uint8)))
    error, grown = load_apart(tmp_path / "set.npz")
    assert "X_train.npy: expected at most" in error
    assert grown < 20_000


def test_many_arrays_are_bounded_together(tmp_path):
    arrays = {f"a{i}": np.zeros(1 << 23, np.uint8) for i in range(8)}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=r"a4.npy: expected at most 0 bytes, got 8388608"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_devices_and_pipes_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    folder = idx_folder(tmp_path / "idx", gzip.compress(idx((200, 28, 28)) + bytes(200 * 784)))
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    os.mkfifo(folder / "t10k-images-idx3-ubyte.gz")
    for read, path in [
        *(
            (load_dataset, p)
            for p in ("/dev/zero", "/dev/full", "/dev/null", tmp_path / "pipe.npz")
        ),
        (load_dataset, folder),
        (minidl.load, "/dev/zero"),
        (minidl.load, tmp_path / "pipe.npz"),
    ]:
        with pytest.raises(ValueError, match="a device or pipe, not a file"):
            read(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"X_train": header("(1000000000000,)")}, "expected 1000000000000 bytes for shape (1000000000000,) and dtype uint8, got 0"),
        ({"X_train": header(f"({2**64}, 9)")}, f"for shape ({2**64}, 9)"),
        ({"X_train": header(f"(0, {2**64})")}, "cannot be read as an .npz file"),
        ({"X_train": header("(-12, -9)") + bytes(108)}, "negative dimensions"),
        ({"X_train": header("(12, 9)", "'|O'") + bytes(108 * 8)}, "expected numbers, text or bytes, got dtype object"),
        ({"X_train": header("(1000000000000,)", "'|S0'")}, "got dtype |S0"),
        ({"X_train": header("(12,)", "[('a', '<f4')]") + bytes(48)}, "got dtype [('a', '<f4')]"),
        ({"X_train": header("(12,)", "'<M8[s]'") + bytes(96)}, "got dtype datetime64[s]"),
        ({"X_train": header("[12, 9]") + bytes(108)}, "cannot be read as an .npz file"),
        ({"X_train": header("(" * 3000)}, "cannot be read as an .npz file"),
        ({"X_train": header("12 if 1 else 2")}, "cannot be read as an .npz file"),
        ({"X_train": b"\x93NUMPY\x01\0"}, "cannot be read as an .npz file"),
        ({"X_train": b"text"}, "cannot be read as an .npz file"),
        ({"X_train": npy(np.zeros((12, 9)) * 1j)}, "expected x of real numbers, got dtype complex128"),
        ({"y_train": npy(np.resize([True, False], 12))}, "y_valid: expected labels in 0..1, got y[2] = 2"),
        ({"y_train": npy(np.zeros(12, "c8"))}, "y_train: expected integer labels, got dtype complex64"),
        ({"y_test": npy(np.array(["a"] * 6))}, "y_test: expected integer labels, got dtype <U1"),
        ({"y_train": npy(np.array([10**9] + [0] * 11))}, "y_train: expected integer labels of at most 1000, got y[0] = 1000000000"),
        ({"y_train": npy(np.array([2**64 - 1] + [0] * 11, "u8"))}, f"y_train: expected integer labels of at most 1000, got y[0] = {2**64 - 1}"),
        ({"y_valid": npy(np.array([-(2**63)] + [0] * 5))}, f"y_valid: expected labels in 0..2, got y[0] = {-(2**63)}"),
        ({"y_valid": npy(np.array([1e300] + [0] * 5))}, "y_valid: expected integer labels of at most 1000, got y[0] = 1e+300"),
        ({"y_train": npy(np.zeros((0,), int))}, "y_valid: expected labels in 0..0, got y[1] = 1"),
        ({"y_train": npy(np.zeros((0,), "U1"))}, "y_train: expected integer labels, got dtype <U1"),
    ],
)  # fmt: skip
def test_false_sizes_and_dtypes(tmp_path, members, message):
    with pytest.raises((ValueError, TypeError)) as error:
        load_dataset(write(tmp_path / "set.npz", **members))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_are_refused(tmp_path, method):
    """Their expansion is not bounded by a ratio that rules out bombs."""
    with pytest.raises(ValueError, match=rf"X_train.npy is compressed by method {method}, not by deflate"):  # fmt: skip
        load_dataset(write(tmp_path / "set.npz", method=method))


def patched(path, at_local, at_central, value):
    """Change a field of the headers of all members of a zip archive."""
    raw = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", at_local), (b"PK\x01\x02", at_central)):
        start = raw.find(mark)
        while start >= 0:
            raw[start + at : start + at + len(value)] = value
            start = raw.find(mark, start + 4)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        ((6, 8), b"\x01\0", "is encrypted"),
        ((8, 10), b"\x63\0", "is compressed by method 99, not by deflate"),
        ((22, 24), b"\xff\xff\xff\x7f", "dtype uint8, got 2147483519"),
        ((14, 16), b"\0\0\0\0", "Bad CRC-32 for file 'X_train.npy'"),
        ((4, 6), b"\xff\xff", "cannot be read as an .npz file"),
    ],
)
def test_archives_that_lie(tmp_path, at, value, message):
    path = patched(write(tmp_path / "set.npz"), *at, value)
    with pytest.raises(ValueError, match=r"cannot be read as an .npz file") as error:
        load_dataset(path)
    assert message in str(error.value)


def test_arrays_of_every_kind_are_read_as_numpy_reads_them(tmp_path):
    arrays = {
        "c": np.arange(24.0).reshape(2, 3, 4),
        "f": np.asfortranarray(np.arange(24, dtype=">i2").reshape(2, 3, 4)),
        "scalar": np.array(3.5),
        "empty": np.zeros((0, 5), np.float32),
        "text": np.array("{}"),
        "bool": np.array([True, False]),
        "zeros": np.zeros((600, 1000)),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        read, names = read_npz(tmp_path / "a.npz")
        assert names == list(arrays)
        for name, x in arrays.items():
            assert (read[name].dtype, read[name].shape) == (x.dtype, x.shape)
            np.testing.assert_array_equal(read[name], x)
    assert list(read_npz(tmp_path / "a.npz", {"c"}.__contains__)[0]) == ["c"]
    with pytest.raises(ValueError, match="a folder"):
        read_npz(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx((2**32 - 1,) * 3) + bytes(50), r"expected \d{29} values .*, got at most 66"),
        (gzip.compress(idx((2**32 - 1,) * 3), mtime=0), r"expected \d{29} values .*, got at most \d{5}"),
        (gzip.compress(idx((4, 2, 2)) + bytes(15), mtime=0), r"expected 16 values for shape \(4, 2, 2\), got 15"),
        (gzip.compress(idx((4, 2, 2)) + bytes(16), mtime=0)[:-5], "Compressed file ended before"),
        (gzip.compress(idx((4, 2, 2)) + bytes(16), mtime=0)[:-8] + bytes(8), "CRC check failed"),
        (b"\x1f\x8b", "Compressed file ended before"),
        (b"\x1f\x8b\x07" + bytes(40), "Unknown compression method"),
    ],
)  # fmt: skip
def test_idx_files_that_lie(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_idx(tmp_path / "x", 3)
    assert str(error.value).startswith(f"{tmp_path / 'x'}: ")


# ---------------------------------------------------------------- the cache


def spoil_zero(file):
    file.write_bytes(b"")


def spoil_cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def spoil_long(file):
    file.write_bytes(file.read_bytes() + b"\0")


def spoil_other(file):
    np.save(file, np.zeros((3, 784)))


def spoil_text(file):
    file.write_text("hello")


def spoil_archive(file):
    with file.open("wb") as target:
        np.savez(target, a=np.zeros(3))


@pytest.mark.parametrize("spoil", [spoil_zero, spoil_cut, spoil_other, spoil_text, spoil_long, spoil_archive])  # fmt: skip
def test_a_damaged_file_of_the_cache_is_drawn_again(tmp_path, monkeypatch, spoil):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    load_letters(30, 10, 10)
    spoil(tmp_path / "letters-v2-seed0-train-30.npy")
    again = load_letters(30, 10, 10)
    np.testing.assert_array_equal(again.train.x, draw(30)[0])
    np.testing.assert_array_equal(again.train.y, draw(30)[1])
    assert len(list(tmp_path.iterdir())) == 3


def test_foreign_files_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    for name in ("train-abc.npy", "train-.npy", "train-40.labels.npy", "train--5.npy"):
        (tmp_path / f"letters-v2-seed0-{name}").write_text("hello")
    (tmp_path / "letters-v2-seed0-train-50.npy").mkdir()
    np.testing.assert_array_equal(load_letters(20, 5, 5).train.y, draw(20)[1])
    with pytest.warns(UserWarning, match=r"letters-v2-seed0-train-50.npy'.* MINIDL_CACHE"):
        load_letters(50, 5, 5)


@pytest.mark.parametrize(
    "folder", ["file", "file/folder", "/proc/minidl", "~nobody-of-this-name/cache"]
)
def test_without_a_cache_examples_are_drawn_and_one_warning_says_so(tmp_path, monkeypatch, folder):
    """A file in place of the folder; a file system that refuses to write; no home folder."""
    (tmp_path / "file").write_text("hello")
    folder = folder if folder.startswith("~") else tmp_path / folder
    monkeypatch.setenv("MINIDL_CACHE", str(folder))
    with pytest.warns(UserWarning, match="environment variable MINIDL_CACHE") as told:
        data = load_letters(1050, 5, 5)
    assert [w.filename for w in told] == [__file__]
    for i, split in enumerate(data.splits.values()):
        x, y = draw(len(split), split=i)
        np.testing.assert_array_equal(split.x, x)
        np.testing.assert_array_equal(split.y, y)
        assert (split.y.dtype, split.scale) == (np.int64, 1 / 256)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_without_a_home_folder(tmp_path, monkeypatch):
    def unknown(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.expanduser", unknown)
    for name in ("MINIDL_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    with pytest.warns(UserWarning, match="home directory.*MINIDL_CACHE"):
        assert len(load_letters(20, 5, 5).train) == 20


def test_on_a_full_disk_examples_are_drawn_into_memory(tmp_path):
    """A limit on the size of files fails a write as a full disk does; a mapped store would die."""
    code = """
import resource, signal
from minidl.view.cli import run_main
from minidl.data import load_letters
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
run_main(lambda: print(load_letters(1000, 10, 10)))
"""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "MINIDL_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done
    assert done.stderr.count("MINIDL_CACHE") == 1
    assert list(tmp_path.iterdir()) == []


def fast_letters():
    """A generator of noise, and the list of the blocks that it drew."""
    drawn = []

    def draw(rng, labels):
        drawn.append(labels)
        return rng.integers(256, size=(len(labels), 784), dtype=np.uint8)

    return dataclasses.replace(letters.LETTERS, draw=draw), drawn


@pytest.mark.parametrize("size", [10, 500, 900_000, 1_640_000, 2_300_000, None])
def test_what_was_drawn_is_kept_when_the_cache_cannot_be_written(tmp_path, monkeypatch, size):
    """Full at the header, in each block, or when the system writes its buffers (None)."""
    generator, drawn = fast_letters()
    sizes = {"train": 5, "valid": 3000, "test": 1041}
    expected = [[*generator.blocks(n, split=i)] for i, n in enumerate(sizes.values())]
    blocks = len(drawn)
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if size is None:
        monkeypatch.setattr("os.fsync", lambda handle: os.close(-1))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.warns(UserWarning, match="drawn without a cache"):
            data = generator.load(sizes, 0, False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(drawn) == 2 * blocks
    for split, parts in zip(data.splits.values(), expected, strict=True):
        np.testing.assert_array_equal(split.x, np.concatenate([x for x, _ in parts]))


def test_letters_are_written_as_they_are_drawn(tmp_path, monkeypatch):
    """They take the memory of a block or two, not of a part."""
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    generator, _ = fast_letters()
    tracemalloc.start()
    generator.load({"train": 30_000, "valid": 5, "test": 5}, 0, False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000 * 784 / 4
