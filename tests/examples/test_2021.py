"""The scripts of 2021-22 as users run them, and the course's split of Fashion-MNIST."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import scripts
from homework.fashion import OneChange, load_fashion, running_means
from homework.ridge import generated_houses

import minidl

pytestmark = pytest.mark.slow(seconds=20)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(folder, script, *args):
    return scripts.run(EXAMPLES / script, *args, cwd=folder)


def pictures(folder):
    return sorted(p.name for p in folder.rglob("*.png") if p.read_bytes().startswith(b"\x89PNG"))


@pytest.fixture
def small(tmp_path):
    """Eight-by-eight images of four classes, in the course's format of 2021-22."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 200, (4, 64))
    content = {}
    for part, n in (("train", 200), ("dev", 60), ("test", 60)):
        y = np.resize(np.arange(4), n)
        content[f"X{part}"] = (centres[y] + rng.integers(0, 56, (n, 64))) / 256
        content[f"y{part}"] = y
    np.savez(tmp_path / "set.npz", **content)
    return tmp_path


def test_losses(tmp_path):
    done = run(tmp_path, "q1_losses.py", "--segments", 300, "--epochs", 5)
    assert done.returncode == 0, done.stderr
    (smallest,) = re.findall(r"multinomial logistic +\S+ +\S+ +(\S+) +\S+ *\n", done.stdout)
    assert -1e-12 <= float(smallest) < 1e-12
    verdicts = re.findall(r"of (W x \+ b|sin x) +\S+ +(yes|no)", done.stdout)
    assert verdicts == [("W x + b", "yes"), ("W x + b", "yes"), ("sin x", "no")]
    gap = re.search(r"outputs of the first two: (\S+)", done.stdout)[1]
    assert float(gap) < 1e-12
    names = ["collapse.png", "sigmoid-and-logistic.png", "sine-surface.png"]
    assert pictures(tmp_path) == names


def test_ames_linear_without_a_file(tmp_path):
    done = run(tmp_path, "ames_regression.py", "linear", "--epochs", 3)
    assert done.returncode == 0, done.stderr
    assert "These are generated houses" in done.stdout
    assert "falling at every step" in done.stdout
    null = re.search(r"at most (\S+) in the null space", done.stdout)[1]
    assert float(null) < 1e-12
    out = tmp_path / "runs/ames/linear"
    assert pictures(out) == ["distance.png", "errors.png"]
    with (out / "table.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2", "3"]


def test_ames_mlp_without_a_file(tmp_path):
    done = run(tmp_path, "ames_regression.py", "mlp", "--epochs", 2, "--width", 8)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "runs/ames/mlp/scores.json").read_text())
    assert scores["epochs"] == 2
    assert scores["train"] > 0


def test_generated_houses_are_singular_and_linear():
    data = generated_houses()
    x, y = data.train.x, data.train.y
    assert x.shape == (1465, 348)
    assert np.linalg.matrix_rank(x) < 300
    assert 0.1 < np.std(y) < 1.5


def test_the_figures_on_the_ames_data(shared, tmp_path):
    """SGD's figures are those of a plain loop, in the course's order, with seed 42."""
    file = shared / "data/ames/ames.npz"
    done = run(tmp_path, "ames_regression.py", "linear", "--data", file)
    assert done.returncode == 0, done.stderr
    assert "349 columns with the column of ones, rank 245" in done.stdout
    assert re.search(r"least squares of minimum norm +RMSE train 0.0964, test 0.3310", done.stdout)
    assert "epoch 150  train 0.1105  test 0.2382" in done.stdout
    assert "epoch 71   train 0.1279  test 0.1946" in done.stdout
    assert "falling at every step" in done.stdout


@pytest.mark.parametrize("model", ["perceptron", "mlp"])
def test_plain_models_of_fashion(small, model):
    done = run(small, "fashion.py", model, "--data", "set.npz", "--epochs", 2, "--width", 10)
    assert done.returncode == 0, done.stderr
    out = small / "runs/fashion" / model
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    scores = json.loads((out / "scores.json").read_text())
    assert f"{scores['test']:.4f}" == rows[-1]["test"]  # the last model is tested
    assert pictures(out) == ["curves.png"]


def test_logistic_from_zeros_and_from_pytorch_values(small):
    args = "--data", "set.npz", "--epochs", 2, "--learning-rates", 0.1, 0.01, "--jobs", 1
    done = run(small, "fashion.py", "logistic", *args)
    assert done.returncode == 0, done.stderr
    out = small / "runs/fashion/logistic"
    assert pictures(out) == ["curves.png", "curves.png"]
    out /= "pytorch"
    assert pictures(out) == ["curves.png"]
    lines = [json.loads(s) for s in (out / "results.jsonl").read_text().splitlines()]
    assert [line["point"] for line in lines] == [{"learning_rate": 0.1}, {"learning_rate": 0.01}]
    assert all(len(line["values"]["test"]) == 3 for line in lines)


def test_networks_resume(small):
    args = ["--data", "set.npz", "--epochs", 2, "--widths", 6, "--dropouts", 0.3, "--learning-rates", 0.01, "--layers", 1, 2, "--jobs", 1]  # fmt: skip
    done = run(small, "fashion.py", "ffn", *args)
    assert done.returncode == 0, done.stderr
    out = small / "runs/fashion/ffn"
    with (out / "table-of-runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = [(r["activation"], r["optimizer"], r["layers"]) for r in rows]
    assert found == [("relu", "sgd", "1"), ("relu", "adam", "1"), ("tanh", "sgd", "1"), ("relu", "sgd", "2")]  # fmt: skip
    assert "Optimizer: " in done.stdout
    before = (out / "results.jsonl").read_bytes()
    assert run(small, "fashion.py", "ffn", *args, "--all").returncode == 0
    assert (out / "results.jsonl").read_bytes().startswith(before)
    assert len((out / "results.jsonl").read_text().splitlines()) == 5


def test_48_settings_of_one_layer():
    axes = {"learning_rate": [1e-3, 1e-2, 1e-1], "width": [200, 100], "dropout": [0.3, 0.5], "activation": ["relu", "tanh"], "optimizer": ["sgd", "adam"], "layers": [1, 2, 3]}  # fmt: skip
    assert len(OneChange(False, 1e-2, **axes)) == 9
    assert len(OneChange(True, 1e-2, **axes)) == 48 + 2


def test_the_course_s_running_mean_of_the_losses():
    history = minidl.History()
    for epoch, loss in enumerate((9.0, 3.0, 1.0, 2.0)):
        figures = {"train_loss": loss, "valid_accuracy": 0.5}
        history.append(minidl.history.Epoch(epoch, 0, 0.1, figures), minidl.Linear(1, 1, rng=0))
    assert running_means(history) == [3.0, 2.0, 2.0]


def test_the_course_s_split(shared):
    data = load_fashion(shared / "data/fashion-mnist", full=True, sizes={})
    raw = minidl.load_dataset(shared / "data/fashion-mnist")
    y = np.concatenate([raw.train.y, raw.valid.y])
    order = np.random.RandomState(42).permutation(60_000)
    assert (data.valid.y == y[order[:10_000]]).all()
    assert (data.train.y == y[order[10_000:]]).all()
    where = order[-1] - 50_000
    assert (data.train.x[-1] == (raw.valid.x[where] if where >= 0 else raw.train.x[where])).all()


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        ("q1_losses.py", ["--samples", "0"], "expected samples to be a whole number >= 1"),
        ("ames_regression.py", ["linear", "--data", "no.npz"], "no.npz: no such file"),
        ("ames_regression.py", ["linear", "--data", "set.npz"], "expected a regression"),
        ("ames_regression.py", ["mlp", "--lr", "100"], "the loss is"),
        ("ames_regression.py", ["ridge"], "invalid choice: 'ridge'"),
        ("fashion.py", ["cnn"], "invalid choice: 'cnn'"),
        ("fashion.py", ["mlp", "--data", "no"], "no such file or folder"),
        ("fashion.py", ["ffn", "--dropouts", "2"], "expected dropout"),
    ],
)
def test_bad_input_is_one_line(small, script, args, message):
    done = run(small, script, *args)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
