"""The examples for newcomers run as scripts, without a data file; their output is checked."""

import re
from pathlib import Path

import pytest
import scripts

import minidl

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run(tmp_path):
    """Run an example in an empty folder; return what it prints."""

    def run(name):
        done = scripts.run(EXAMPLES / name, cwd=tmp_path, strict=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    return run


def figure(text, before):
    """Return the number that follows ``before``."""
    return float(re.search(re.escape(before) + r"\s*([\d.]+)", text).group(1))


def test_quickstart(run, tmp_path):
    out = run("quickstart.py")
    assert figure(out, "validation accuracy") > 0.92
    assert figure(out, "test accuracy") > 0.92
    assert "the loaded model has the same weights: True" in out
    assert len(minidl.load(tmp_path / "runs/quickstart.npz")) == 5
    assert (tmp_path / "runs/quickstart.png").read_bytes().startswith(b"\x89PNG")


def test_own_layer(run):
    out = run("own_layer.py")
    assert "Conv2d(6, 3, 3), x (4, 36) float64, train=True: passed" in out
    assert figure(out, "\nvalidation accuracy") > 0.95


@pytest.mark.parametrize(
    ("right", "wrong", "tensor"),
    [
        ("weight.value[:, ::-1, ::-1]", "weight.value", "input"),
        ('"ncij,nijab->cab", dy, patches', '"ncij,nijab->cab", dy, patches[:, :, ::-1]', "weight"),
        ("dy.sum(axis=(0, 2, 3))", "dy.mean(axis=(0, 2, 3))", "bias"),
    ],
)
def test_the_check_of_own_layer_finds_a_fault(tmp_path, right, wrong, tensor):
    text = (EXAMPLES / "own_layer.py").read_text(encoding="utf-8")
    assert text.count(right) == 1
    (tmp_path / "faulty.py").write_text(text.replace(right, wrong), encoding="utf-8")
    done = scripts.run(tmp_path / "faulty.py", cwd=tmp_path)
    assert done.returncode != 0
    assert "GradientError" in done.stderr
    assert re.search(rf"^{tensor} .*(FAILED|failed|wrong)", done.stderr, re.M), done.stderr


def test_resume(run):
    out = run("resume.py")
    assert "interrupted in epoch 4; the checkpoint has epoch 3" in out
    assert figure(out, "epoch 8: validation accuracy") > 0.7
    assert "same bits as without the interruption: True" in out


def test_regression(run):
    out = run("regression.py")
    assert figure(out, "best epoch") < figure(out, "stopped after epoch") < 300
    network = figure(out, "network: root mean squared test error")
    linear = figure(out, "least squares: root mean squared test error")
    assert 0.95 < network < 1.2 < 2.3 < linear


def test_sklearn_pipeline(run, tmp_path):
    for package in ("sklearn", "pandas", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    out = run("sklearn_pipeline.py")
    assert figure(out, "test accuracy:") > 0.77
    plain, balanced = (figure(out, f"Brier score, {name}:") for name in ("plain", "balanced"))
    calibrated = figure(out, "Brier score, balanced, calibrated:")
    assert max(plain, calibrated) < 0.14 < balanced
    assert "onnxruntime: same labels: True, probabilities within 1e-6: True" in out
    names = {path.name for path in (tmp_path / "runs/sklearn_pipeline").iterdir()}
    assert names == {"curves.png", "displays.png", "model.onnx"}
