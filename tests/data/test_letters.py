"""Generated letters, and the scenes of the homework, have the same bytes on every processor."""

import ast
import inspect
import os
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

from minidl.data import exact, letters

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
