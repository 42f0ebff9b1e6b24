"""Generated letters, also the scenes of the homework: the same bytes everywhere, and their cache."""

import ast
import inspect
import os
import pickle
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from homework import scenes
from hypothesis import given
from hypothesis import strategies as st

from minidl.data import cache, exact, letters
from minidl.data.letters import load_letters

ROOT = Path(__file__).parents[2]
SHA256 = {
    "letters": "cea70d388f5d3d23f7eb30416f4133aabbd79db223e7c6ffc79ee38bafac2ba7",
    "scenes": "8a288d0205f81770e1e1dedef971dd933c2e34dd02c1dd1f9252fa08c302e26d",
}
"""Of the first block of seed 0, its pixels and then its labels. Never to change without the version."""

DIGESTS = """
import hashlib
from homework.scenes import SCENES
from minidl.data.letters import LETTERS
for generator, n in ((LETTERS, 1040), (SCENES, 480)):
    (pixels, labels), = generator.blocks(n)
    digest = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    print(generator.name, generator.version, digest)
"""


def features():
    """Return the instruction sets that NumPy chooses between at run time, least first."""
    core = np._core if hasattr(np, "_core") else np.core
    module = core._multiarray_umath
    return [name for name in module.__cpu_dispatch__ if module.__cpu_features__[name]]


@pytest.mark.parametrize(
    ("core", "features_left", "threads"),
    [
        ("", 1.0, 1),
        ("Prescott", 0.0, 1),
        ("Nehalem", 1.0, 1),
        ("Sandybridge", 0.5, 1),
        ("Haswell", 0.0, 1),
        ("Zen", 1.0, 2),
        ("SkylakeX", 1.0, 1),
    ],
)
def test_the_same_bytes_on_every_processor(core, features_left, threads):
    """OpenBLAS takes the products of another processor, NumPy leaves out instructions of this one.

    Settings for which the code before had nine different sums.
    """
    found = features()
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")]),
        "NPY_DISABLE_CPU_FEATURES": " ".join(found[round(features_left * len(found)) :]),
        "OPENBLAS_NUM_THREADS": str(threads),
        **({"OPENBLAS_CORETYPE": core} if core else {}),
    }
    command = [sys.executable, "-c", DIGESTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == -getattr(signal, "SIGILL", 0):
        pytest.skip(f"this processor cannot run the code for {core}")
    assert done.stdout.split() == [
        *("letters", "2", SHA256["letters"]),
        *("scenes", "2", SHA256["scenes"]),
    ], done.stderr


@pytest.mark.parametrize("module", [letters, scenes])
def test_only_operations_that_are_rounded_correctly(module):
    """No test sees all processors, so whatever is not known to be exact is not called at all."""
    tree = ast.parse(inspect.getsource(module))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    used = {
        owner: {node.attr for node in attributes if ast.unparse(node.value) == owner}
        for owner in ("np", "rng", "math")
    }
    assert used["rng"] <= {"integers", "permutation", "random"}
    assert used["math"] <= {"fsum", "pi", "sqrt"}
    assert used["np"] <= {
        *("abs", "clip", "cumsum", "floor", "maximum", "rint", "sqrt"),
        *("arange", "array", "asarray", "broadcast_to", "delete", "diff", "empty", "meshgrid"),
        *("outer", "repeat", "stack", "take_along_axis", "where", "zeros", "zeros_like"),
        *("float32", "float64", "int64", "uint8", "random"),
    }
    assert not {node.attr for node in attributes} & {"dot", "mean", "prod", "std", "sum", "var"}
    operators = {type(node.op) for node in ast.walk(tree) if isinstance(node, ast.BinOp)}
    assert not operators & {ast.MatMult, ast.Pow}


@given(st.integers(0, 2**32), st.integers(1, 100), st.sampled_from(["float32", "float64"]))
def test_products_are_exact(seed, k, dtype):
    """Whole numbers of any size give the same, and so does any order of the terms."""
    rng = np.random.default_rng(seed)
    a, b = (4 * rng.standard_normal(shape).astype(dtype) for shape in ((2, 3, k), (2, k, 4)))
    left, right = (np.rint(f.astype(float) * 2**20).astype(int).astype(object) for f in (a, b))
    product = exact.matmul(a, b)
    assert product.dtype == np.float64
    expected = [
        [Fraction(int(z), 2**40) for z in (x @ y).ravel()] for x, y in zip(left, right, strict=True)
    ]
    assert [[Fraction(z) for z in rows.ravel()] for rows in product] == expected
    order = rng.permutation(k)
    np.testing.assert_array_equal(exact.matmul(a[..., order], b[:, order]), product)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_exponential(dtype):
    x = np.linspace(-12, 4, 2001).astype(dtype)
    y = exact.exp(x)
    assert y.dtype == dtype
    bound = np.abs(x.astype(float)) ** 3 / 24_000 * 1.2 + 1e-5
    assert (np.abs(y / np.exp(x.astype(float)) - 1) <= bound).all()
    assert (np.diff(y) > 0).all()
    with np.errstate(all="raise"):  # no denormal number: some libraries switch them off
        smallest = exact.exp(np.array([-64, -65, -1e30, -np.inf], dtype))
    assert (smallest == 0.5**64).all()


def test_normal_numbers():
    x = exact.normal(np.random.default_rng(0), 1000, 1000)
    assert (x.dtype, x.shape) == (np.float32, (1000, 1000))
    x = x.astype(float)
    # Four standard errors of a million draws.
    assert abs(x.mean()) < 0.004
    assert abs(x.var() - 1) < 0.006
    assert abs((x**3).mean()) < 0.016
    assert abs((x**4).mean() - 2.85) < 0.04
    assert abs((x[:, 1:] * x[:, :-1]).mean()) < 0.004


def test_waves_are_an_orthonormal_basis():
    """And those of the real Fourier transform."""
    waves = scenes._waves()
    np.testing.assert_allclose(waves @ waves.T, np.eye(48), atol=1e-14)
    power = np.abs(np.fft.rfft(waves)) ** 2
    assert power.argmax(axis=1).tolist() == [(row + 1) // 2 for row in range(48)]
    np.testing.assert_allclose(power.max(axis=1) / power.sum(axis=1), 1, atol=1e-14)


# ---------------------------------------------------------------- what is drawn, and its cache


def draw(n, **options):
    parts = zip(*letters.LETTERS.blocks(n, **options), strict=True)
    return tuple(map(np.concatenate, parts))


def test_letters_are_reproducible_and_a_prefix_of_a_larger_set():
    x, y = draw(1500, seed=3)
    again = draw(1500, seed=3)
    np.testing.assert_array_equal(x, again[0])
    fewer = draw(1100, seed=3)
    np.testing.assert_array_equal(x[:1100], fewer[0])
    np.testing.assert_array_equal(y[:1100], fewer[1])
    assert (x.dtype, x.shape) == (np.uint8, (1500, 784))
    assert (draw(100, seed=4)[0] != x[:100]).any()
    assert (draw(100, seed=3, split=1)[0] != x[:100]).any()
    assert len(np.unique(x, axis=0)) == 1500
    assert np.bincount(draw(1040)[1]).tolist() == [40] * 26


def test_letters_can_be_classified():
    """Nearest class mean over 2,600 letters is far better than chance."""
    (x, y), (x_test, y_test) = draw(2600), draw(1040, split=1)
    means = np.array([x[y == k].mean(axis=0) for k in range(26)])
    distance = ((x_test[:, None] / 1.0 - means) ** 2).sum(axis=2)
    assert (distance.argmin(axis=1) == y_test).mean() > 0.35


def test_letters_are_cached_mapped_and_shared(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    large = load_letters(train=60, valid=30, test=30)
    files = sorted(p.name for p in tmp_path.iterdir())
    assert len(files) == 3
    small = load_letters(train=40, valid=30, test=20)
    assert sorted(p.name for p in tmp_path.iterdir()) == files  # drawn once
    assert isinstance(small.train.x, np.memmap)
    np.testing.assert_array_equal(small.train.x, large.train.x[:40])
    np.testing.assert_array_equal(small.train.x, draw(40)[0])
    np.testing.assert_array_equal(small.test.y, draw(20, split=2)[1])
    assert small.title == "letters (generated, not EMNIST)"
    sent = pickle.loads(pickle.dumps(small))
    assert len(sent.train) == 40
    assert sent.checksum() == small.checksum()
    with pytest.raises(
        ValueError, match=r"letters: expected train to be a whole number >= 1, got 0"
    ):
        load_letters(train=0)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MINIDL_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/minidl"),
        ({"HOME": "/home/me"}, "/home/me/.cache/minidl"),
    ],
)
def test_the_folder_of_the_cache(monkeypatch, variables, expected):
    for name in ("MINIDL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache.cache_folder().as_posix() == expected


def test_the_smallest_cached_file_is_used_and_half_written_ones_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    for n in (20, 30):
        load_letters(n, 10, 10)
    assert load_letters(15, 10, 10).train.file.name.endswith("-20.npy")
    assert load_letters(20, 10, 10).train.file.name.endswith("-20.npy")
    assert load_letters(21, 10, 10).train.file.name.endswith("-30.npy")
    assert load_letters(5, 10, 10, seed=1).train.file.name.endswith("seed1-train-5.npy")
    letters_ = load_letters(15, 10, 10)
    assert (letters_.classes, letters_.train.scale, letters_.generated) == (
        26,
        1 / 256,
        "not EMNIST",
    )
    for i, split in enumerate(letters_.splits.values()):
        pixels, labels = draw(len(split), split=i)
        np.testing.assert_array_equal(split.x, pixels)
        np.testing.assert_array_equal(split.y, labels)


def test_another_seed_draws_other_letters(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    for seed in (1, 0):
        for i, split in enumerate(load_letters(20, 10, 10, seed=seed).splits.values()):
            pixels, labels = draw(len(split), seed=seed, split=i)
            np.testing.assert_array_equal(split.x, pixels)
            np.testing.assert_array_equal(split.y, labels)


def test_the_default_sizes_are_those_of_the_course(monkeypatch):
    """EMNIST Letters has 4,000, 800 and 800 letters of each class; docs/homework.md."""
    asked = []
    monkeypatch.setattr(cache.ImageGenerator, "load", lambda *args: asked.append(args))
    load_letters()
    scenes.load_scenes()
    assert [tuple(sizes.values()) for _, sizes, _, _ in asked] == [
        (26 * 4000, 26 * 800, 26 * 800),
        (12_630, 1_404, 3_000),
    ]
    assert [args[2:] for args in asked] == [(0, False)] * 2
    assert [tuple(sizes) for _, sizes, _, _ in asked] == [("train", "valid", "test")] * 2


@pytest.mark.parametrize("n", [10**9 + 1, 10**10, 2**63, 10**400, 10**9000], ids=int.bit_length)
@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_a_size_that_no_disk_holds_is_refused_at_the_door(part, n):
    with pytest.raises(ValueError, match=rf"^letters: expected {part} to be at most 1000000000, got "):  # fmt: skip
        load_letters(**{"train": 5, "valid": 5, "test": 5, part: n})
    for generator in (letters.LETTERS, scenes.SCENES):
        with pytest.raises(ValueError, match=rf"^{generator.name}: expected n to be at most"):
            generator.blocks(n)


def test_the_bar_counts_the_letters_that_are_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    load_letters(1500, 30, 20, progress=True)
    shown = capsys.readouterr().err
    for text in (
        "drawing train letters: 100%",
        "1500/1500",
        "drawing valid letters: 100%",
        "30/30",
        "20/20",
    ):
        assert text in shown
    load_letters(1500, 30, 20, progress=True)
    assert capsys.readouterr().err == ""
