"""Infinite width: kernels beside sampled networks and closed forms, regression beside refits."""

import csv
import json
from pathlib import Path

import infinite_convergence as convergence
import numpy as np
import pytest
import scripts
from homework import kernels as infinite
from hypothesis import given, settings
from hypothesis import strategies as st
from infinite_width import measure

from minidl import Dataset
from minidl.testing import check_layer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CASES = {"layers": st.integers(1, 5), "sw2": st.floats(0.2, 3), "sb2": st.sampled_from([0.0, 0.3]), "seed": st.integers(0, 99)}  # fmt: skip


def points(seed, n=12, d=7):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_one_layer_equals_closed_forms():
    """The arc-cosine kernels of Cho and Saul (2009), by the angle from its tangent."""
    x, z = points(0), points(1)
    nngp, ntk = infinite.kernels(x, z, 1, 1.7, 0.4)
    a, b = (np.hstack([np.sqrt(1.7 / 7) * p, np.full((12, 1), np.sqrt(0.4))]) for p in (x, z))
    for i in range(12):
        for j in range(12):
            u, v = a[i], b[j]
            p, q = u / np.linalg.norm(u), v / np.linalg.norm(v)
            t = 2 * np.arctan2(np.linalg.norm(p - q), np.linalg.norm(p + q))
            j0, j1 = np.pi - t, np.sin(t) + (np.pi - t) * np.cos(t)
            first = np.linalg.norm(u) * np.linalg.norm(v) * j1 / (2 * np.pi)
            assert nngp[i, j] == pytest.approx(first, rel=1e-12)
            assert ntk[i, j] == pytest.approx(first + u @ v * j0 / (2 * np.pi), rel=1e-12)


def test_one_layer_equals_an_integral():
    """E[relu(u) relu(v)] by Gauss and Hermite's rule in polar form: exact in the radius."""
    x = points(2, 4)
    s = 2 / 7 * x @ x.T
    angles = 2 * np.pi * (np.arange(200_000) + 0.5) / 200_000
    for i in range(4):
        for j in range(4):
            root = np.linalg.cholesky(s[np.ix_([i, j], [i, j])] + 1e-15 * np.eye(2)) if i != j else np.full((2, 1), np.sqrt(s[i, i])) * [[1, 0]]  # fmt: skip
            u, v = root @ [np.cos(angles), np.sin(angles)]
            integral = 2 * np.mean(np.maximum(u, 0) * np.maximum(v, 0))  # the mean radius^2 is 2
            assert infinite.kernels(x, x)[0][i, j] == pytest.approx(integral, rel=1e-8)


@pytest.mark.parametrize(("layers", "sb2"), [(1, 0.0), (1, 1.0), (2, 0.0), (3, 1.0)])
def test_sampled_networks_have_the_kernels_in_the_mean(layers, sb2):
    """Exactly with one layer, where the error over N falls as 1 / sqrt(N); else up to 1 / width."""
    x = points(3, 4)
    exact = infinite.kernels(x, x, layers, 1.5, sb2)
    networks = [convergence.network(7, 128, 1, layers, 1.5, sb2, [layers, i]) for i in range(128)]
    sampled = np.array([convergence.sampled_kernels(model, x) for model in networks])
    for which in (0, 1):
        off = sampled[:, which] - exact[which]
        mean, spread = off.mean(axis=0), off.std(axis=0)
        beyond = np.abs(mean) - 4 * spread / np.sqrt(128)
        assert beyond.max() < (0 if layers == 1 else 0.01 * np.abs(exact[which]).max())
        if layers == 1:
            errors = [np.sqrt(np.mean(off.reshape(-1, n, 4, 4).mean(axis=1) ** 2)) for n in (1, 4, 16)]  # fmt: skip
            assert convergence.slope([1, 4, 16], errors) == pytest.approx(-0.5, abs=0.1)


def test_one_number_for_the_bias_of_each_layer():
    x = points(4)
    same = infinite.kernels(x, x, 3, 1.5, [0.3] * 3)
    np.testing.assert_array_equal(same, infinite.kernels(x, x, 3, 1.5, 0.3))
    assert np.abs(infinite.kernels(x, x, 3, 1.5, [0.3, 0, 0])[1] - same[1]).max() > 0.01
    with pytest.raises(ValueError, match="broadcast"):
        infinite.kernels(x, x, 3, 1.5, [0.3, 0.1])


@given(**CASES, copies=st.booleans(), scale=st.sampled_from([1e-4, 1.0, 1e4]))
@settings(deadline=None, max_examples=30)
def test_symmetric_and_positive_definite(layers, sw2, sb2, seed, copies, scale):
    x = points(seed)
    x = scale * (np.vstack([x, x[:3]]) if copies else x)
    for kernel in infinite.kernels(x, x, layers, sw2, sb2):
        size = np.abs(kernel).max()
        assert np.abs(kernel - kernel.T).max() <= 1e-13 * size
        smallest = np.linalg.eigvalsh(kernel)[0]
        assert smallest > (-1e-13 if copies or layers > 1 or scale != 1 else 0) * size
    nngp, ntk = infinite.kernels(x, x, layers, sw2, sb2)
    assert np.linalg.eigvalsh(ntk - nngp)[0] > -1e-13 * np.abs(ntk).max()


@given(**CASES, factor=st.floats(0.1, 10))
@settings(deadline=None, max_examples=20)
def test_rotated_scaled_and_in_parts(layers, sw2, sb2, seed, factor):
    """Kernels depend on inner products; without biases, a factor of x is one of the kernel."""
    x, z = points(seed), points(seed + 1, 5)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(7, 7)))[0]
    whole = infinite.kernels(x, z, layers, sw2, sb2)
    for a, b in zip(infinite.kernels(x @ rotation, z @ rotation, layers, sw2, sb2), whole, strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    for a, b in zip(infinite.kernels(x[3:5], z[1:], layers, sw2, sb2), whole, strict=True):
        np.testing.assert_allclose(a, b[3:5, 1:], rtol=1e-9, atol=1e-12)
    for a, b in zip(infinite.kernels(factor * x, z, layers, sw2), infinite.kernels(x, z, layers, sw2), strict=True):  # fmt: skip
        np.testing.assert_allclose(a, factor * b, rtol=1e-9, atol=1e-12)


def test_a_blank_row_without_biases_has_the_kernel_0():
    x = points(5)
    x[3] = 0
    for kernel in infinite.kernels(x, x, 3):
        assert (kernel[3] == 0).all()
        assert np.isfinite(kernel).all()


@pytest.mark.parametrize("n", [1, 7, 31, 32, 33, 100])
@pytest.mark.parametrize("which", [0, 1])
def test_regression_and_leave_one_out_equal_refits(monkeypatch, n, which):
    monkeypatch.setattr(infinite, "BLOCK", 32)
    x, y = points(n, n, 10), np.random.default_rng(n).normal(size=(n, 3))

    def kernel(a, b):
        return infinite.kernels(a, b, 1, 2.0, 0.1)[which]

    found = infinite.solve(kernel, x, y)
    k = kernel(x, x)
    assert found.jitter == 0
    np.testing.assert_allclose(found.alpha, np.linalg.solve(k, y), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.fitted, y, atol=1e-9)
    for i in range(min(n, 20)):
        rest = np.delete(np.arange(n), i)
        refit = k[i, rest] @ np.linalg.solve(k[np.ix_(rest, rest)], y[rest])
        assert np.abs(found.alone[i] - refit).max() < 1e-6 * max(np.abs(refit).max(), 1)


def test_jitter_is_reported_and_part_of_leave_one_out():
    x = np.vstack([points(0, 20, 5)] * 2)
    y = np.random.default_rng(0).normal(size=(40, 2))

    def kernel(a, b):
        return a @ b.T  # of rank 5

    found = infinite.solve(kernel, x, y)
    k = kernel(x, x)
    assert 0 < found.jitter <= 1e-6 * np.mean(k.diagonal())
    np.testing.assert_allclose(found.fitted, k @ found.alpha, atol=1e-6)
    with pytest.raises(ValueError, match="the kernel is not positive definite, even with"):
        infinite.solve(lambda a, b: -kernel(a, b), x, y)


def data(equal):
    """Sixty examples in three classes; with ``equal`` some rows twice, some with another label."""
    rng = np.random.default_rng(0)
    parts = []
    for n in (60, 20, 20):
        y = np.resize(np.arange(3), n)
        parts.append((rng.normal(size=(n, 9)) + y[:, None], y))
    x, y = parts[0]
    if equal:
        x[40:50] = x[:10]
        y[40:46], y[46:50] = y[:6], (y[6:10] + 1) % 3
    return Dataset(*parts, classes=3)


def test_equal_rows_with_different_labels_bound_the_training_accuracy():
    assert measure(data(False), 1)["train"] == 1
    dataset = data(True)
    x, y = dataset.train.x, dataset.train.y
    rows, group, counts = infinite.merge(x, y, 3)
    assert len(rows) == 50
    np.testing.assert_array_equal(rows[group], x)
    assert counts.max(axis=1).sum() == 56
    for which in (0, 1):
        found = measure(dataset, which, 1, 2.0, 0.1)
        assert found["train"] == pytest.approx(56 / 60)

        # By hand: of equal rows, the limit of gradient descent is the mean of the labels.
        pinv = np.linalg.pinv(infinite.kernels(x, x, 1, 2.0, 0.1)[which], rcond=1e-9, hermitian=True)  # fmt: skip
        for part in ("valid", "test"):
            split = dataset.splits[part]
            outputs = infinite.kernels(split.x, x, 1, 2.0, 0.1)[which] @ pinv @ np.eye(3)[y]
            assert found[part] == np.mean(outputs.argmax(axis=1) == split.y)
        alone = []
        for i in range(60):
            rest = np.delete(np.arange(60), i)
            k = infinite.kernels(x, x[rest], 1, 2.0, 0.1)[which]
            alpha = np.linalg.pinv(k[rest], rcond=1e-9, hermitian=True) @ np.eye(3)[y[rest]]
            alone.append((k[i] @ alpha).argmax() == y[i])
        assert found["leave_one_out"] == np.mean(alone)


@pytest.mark.parametrize("sb2", [0.0, 0.3])
def test_the_layer_of_the_networks(sb2):
    layer = infinite.Scaled(4, 3, 1.5, sb2, np.random.default_rng(0))
    check_layer(layer, points(0, 5, 4)).raise_if_failed()


def test_gradient_descent_on_a_kernel_is_the_formula():
    x, y, z = points(0), np.random.default_rng(1).normal(size=(12, 2)), points(2, 5)
    exact = convergence.Exact(x, y, 2, 2.0, 0.1)
    k, new = (infinite.kernels(a, x, 2, 2.0, 0.1)[1] for a in (x, z))
    f, g = np.zeros((12, 2)), np.zeros((5, 2))
    for step in range(30):
        assert exact.loss(step) == pytest.approx(np.sum((f - y) ** 2) / 24, rel=1e-10)
        np.testing.assert_allclose(exact.outputs(z, step), g, atol=1e-10)
        f, g = f - exact.rate / 12 * k @ (f - y), g - exact.rate / 12 * new @ (f - y)
    np.testing.assert_allclose(exact.outputs(z, 10**9), new @ np.linalg.solve(k, y), atol=1e-6)


def test_the_distance_to_infinite_width_falls_as_one_over_the_root():
    x, z = points(0, 20, 7), points(1, 20, 7)
    y = np.eye(3)[np.resize(np.arange(3), 20)]
    exact = convergence.Exact(x, y, 1, 2.0, 0.0)
    widths, squares = [128, 512, 2048], []
    for width in widths:
        found = []
        for seed in range(8):
            model = convergence.network(7, width, 3, 1, 2.0, 0.0, [width, seed])
            (_, outputs), losses = convergence.train(model, x, y, z, exact.rate, [3, 20])
            assert len(losses) == 20
            found.append(convergence.distance(outputs, exact.outputs(z, 20)) ** 2)
            assert losses[0] == pytest.approx(exact.loss(0))
        squares.append(np.mean(found))
    assert convergence.slope(widths, np.sqrt(squares)) == pytest.approx(-0.5, abs=0.1)


def run(folder, *args, script="infinite_width.py", pictures=True):
    return scripts.run(EXAMPLES / script, *args, cwd=folder, pictures=pictures)


@pytest.fixture
def folder(tmp_path):
    content = {}
    for part, split in data(True).splits.items():
        content |= {f"X_{part}": split.x, f"y_{part}": split.y}
    np.savez(tmp_path / "set.npz", **content)
    return tmp_path


def test_the_script(folder):
    done = run(folder, "--data", "set.npz", "--full", "--layers", 1, 3)
    assert done.returncode == 0, done.stderr
    assert "equal rows with different labels keep 4 examples from being fitted" in done.stdout
    out = folder / "runs/infinite_width"
    rows = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    assert [(r["layers"], r["kernel"]) for r in rows] == [("1", "NNGP"), ("1", "NTK"), ("3", "NNGP"), ("3", "NTK")]  # fmt: skip
    assert {r["train"] for r in rows} == {"0.9333"}
    results = json.loads((out / "infinite.json").read_text())["results"]
    assert [f"{r['test']:.4f}" for r in results] == [r["test"] for r in rows]
    assert (out / "accuracy-by-layers.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_by_width_has_infinite_width(folder):
    assert run(folder, "--data", "set.npz", "--full", pictures=False).returncode == 0
    options = ["--data", "set.npz", "--widths", 4, "--learning-rates", 0.01, "--dropouts", 0, "--l2s", 0, "--epochs", 1, "--jobs", 1]  # fmt: skip
    results = folder / "runs/infinite_width/infinite.json"
    test = json.loads(results.read_text())["results"][1]["test"]
    assert run(folder, *options, script="q2_width.py").returncode == 0
    picture = (folder / "runs/q2_width/accuracy-by-width.svg").read_text()
    assert "infinite width: training accuracy 0.933 at 4" in picture
    assert f"infinite width: test accuracy {test:.3g} at 4" in picture
    words = "has no results of infinite_width.py on these training examples"
    known = json.loads(results.read_text())
    for content in ("{", json.dumps({**known, "examples": "others"})):
        results.write_text(content)
        done = run(folder, *options, script="q2_width.py")
        assert (done.returncode, words in done.stdout) == (0, True)
        picture = (folder / "runs/q2_width/accuracy-by-width.svg").read_text()
        assert "infinite width" not in picture


def test_too_many_rows_are_refused_with_the_memory(folder):
    many = np.full((20_001, 2), 7, np.uint8)
    few = {f"{k}_{part}": v for part in ("valid", "test") for k, v in (("X", many[:2]), ("y", np.arange(2)))}  # fmt: skip
    np.savez(folder / "many.npz", X_train=many, y_train=np.arange(20_001) % 2, **few)
    done = run(folder, "--data", "many.npz", "--full")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "20,001 training examples need four matrices of 3.2 GB; expected at most 20,000 (3.2 GB): --rows 20000 takes a sample" in done.stderr  # fmt: skip
    assert run(folder, "--data", "many.npz", "--rows", 9, pictures=False).returncode == 0
