"""The experiments on landscapes: generated scenes, the course's file format, tables, resumption."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import landscapes
import numpy as np
import pytest
import scripts
from homework import landscapes as course
from homework import scenes

import minidl
from minidl.grid.points import Result

pytestmark = pytest.mark.slow(seconds=20)

SCRIPT = Path(__file__).resolve().parents[2] / "examples/landscapes.py"
PICTURES = {
    "q1": ["accuracy.png", "norms.png", "weights.png"],
    "q2.1": ["curves.png"],
    "q2.2": ["batch.png", "dropout.png", "momentum.png"],
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A small file with the keys and shapes of the course's file of 2024-25."""
    rng = np.random.default_rng(0)
    centres = rng.integers(60, 140, (6, 48, 48, 3))
    content = {}
    for part, n in (("train", 96), ("val", 24), ("test", 24)):
        y = np.resize(np.arange(6), n)
        noise = rng.integers(0, 100, (n, 48, 48, 3))
        content[f"{part}_images"] = (centres[y] + noise).astype(np.uint8)
        content[f"{part}_labels"] = y[:, None]
    path = tmp_path_factory.mktemp("course") / "set.npz"
    np.savez(path, **content)
    return path


def command(*args):
    return [sys.executable, str(SCRIPT), *map(str, args)]


def run(folder, *args):
    return scripts.run(SCRIPT, *args, cwd=folder)


def table(folder):
    with (folder / "table.csv").open() as lines:
        return {row["run"]: row for row in csv.DictReader(lines)}


def plain_perceptron(file, epochs):
    """The course's loop; returns the test accuracy of the last model."""
    data = np.load(file)

    def part(name):
        x = data[f"{name}_images"].reshape(-1, 6912) / 256
        return np.hstack([x, np.ones((len(x), 1))]), data[f"{name}_labels"].squeeze()

    (x, y), (xt, yt) = part("train"), part("test")
    legacy, w = np.random.RandomState(42), np.zeros((6, 6913))
    for _ in range(epochs):
        order = legacy.permutation(len(x))
        x, y = x[order], y[order]
        for xi, yi in zip(x, y, strict=True):
            predicted = (w @ xi).argmax()
            if predicted != yi:
                w[yi] += xi
                w[predicted] -= xi
    return float(np.mean((xt @ w.T).argmax(axis=1) == yt)), float(np.linalg.norm(w))


def test_all_questions_on_a_file_in_the_course_s_format(file, tmp_path):
    done = run(tmp_path, "--data", file, "--epochs", 2, "--dtype", "float64", "--jobs", 1)
    assert done.returncode == 0, done.stderr
    assert "6912 features, 6 classes" in done.stdout
    assert "generated" not in done.stdout
    assert "published" not in done.stdout  # two epochs on other data are not comparable
    out = tmp_path / "runs/landscapes"
    for question, settings in landscapes.QUESTIONS.items():
        rows = table(out / question)
        assert list(rows) == list(settings)
        for name, row in rows.items():
            assert row["epochs"] == "2"
            assert 0 <= float(row["test"]) <= 1
            assert (out / question / "models" / f"{name.replace(chr(32), chr(45))}.npz").exists()
        for picture in PICTURES[question]:
            assert (out / question / picture).read_bytes().startswith(b"\x89PNG")
    accuracy, norm = plain_perceptron(file, 2)
    row = table(out / "q1")["perceptron"]
    assert (row["test"], row["norm"]) == (f"{accuracy:.4f}", f"{norm:.2f}")
    zeros = {name: float(row["zeros"]) for name, row in table(out / "q1").items()}
    assert zeros["logistic"] == zeros["logistic L2 0.01"] == 0 < zeros["logistic L1 0.01"]
    assert "L1" in done.stdout
    assert "exactly 0" in done.stdout
    # The tested model is the last one, not the best.
    model = minidl.Sequential(minidl.Linear(6912, 6), rng=0, dtype="float64")
    minidl.Checkpoint(out / "q2.1/models/lr-1e-1.npz").load(model=model)
    data = minidl.load_dataset(file)
    row = table(out / "q2.1")["lr 1e-1"]
    assert (
        f"{minidl.evaluate(model, data.test, minidl.CrossEntropy())['accuracy']:.4f}" == row["test"]
    )
    assert (
        f"{minidl.evaluate(model, data.valid, minidl.CrossEntropy())['accuracy']:.4f}"
        == row["valid"]
    )


def test_equal_weights_are_both_seen(tmp_path, monkeypatch):
    panels, names = [], ["logistic", "logistic L2 0.01", "logistic L1 0.01"]
    monkeypatch.setattr(course, "line_plot", lambda path, panel, **_: panels.append(panel))
    (tmp_path / "models").mkdir()
    for name in names:
        model = minidl.Sequential(minidl.Linear(3, 2), rng=0)
        minidl.save(course.model_file(tmp_path / "models", name), model.layers[0])
    result = SimpleNamespace(values={"norms": [1.0], "exact_zeros": 0.0})
    course.draw_penalties(dict.fromkeys(names, result), "title", tmp_path)
    assert list(panels[-1].dashed) == list(panels[-1].curves)[1:]


def test_finished_runs_are_kept(file, tmp_path):
    args = ("q2.1", "--data", file, "--epochs", 2, "--out", "out", "--jobs", 1)
    assert run(tmp_path, *args).returncode == 0
    results = tmp_path / "out/q2.1/results.jsonl"
    before, lines = table(tmp_path / "out/q2.1"), results.read_text().splitlines(keepends=True)
    results.write_text(lines[1])
    assert run(tmp_path, *args).returncode == 0
    assert results.read_text().startswith(lines[1])
    after = table(tmp_path / "out/q2.1")
    for name in before:
        assert {**before[name], "time": ""} == {**after[name], "time": ""}
    other = run(tmp_path, *args, "--seed", 1)
    assert other.returncode == 2
    assert "seed was 42, now it is 1" in other.stderr


def test_ctrl_c_keeps_what_is_finished(file, tmp_path):
    args = command("q2.1", "--data", file, "--epochs", 500, "--out", "out", "--jobs", 1)
    process = subprocess.Popen(args, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)  # fmt: skip
    results = tmp_path / "out/q2.1/results.jsonl"
    deadline = time.monotonic() + 120
    while not (results.exists() and results.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    kept = len(results.read_text().splitlines())
    assert f"stopped: {kept} of 3 runs are kept in out/q2.1/, the same command resumes" in err  # fmt: skip


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["q3"], "expected q1, q2.1, q2.2, got 'q3'"),
        (["--epochs", "0"], "expected epochs to be a whole number >= 1"),
        (["--data", "nothing.npz"], "nothing.npz: no such file or folder"),
        (["--data", "scene"], "scene: no such file or folder"),
        (["--data", "text.npz"], "text.npz: cannot be read as an .npz file"),
        (["--data", "half.npz"], "half.npz: missing val_images, val_labels (the keys of 2024-25)"),
    ],
)
def test_bad_input_is_one_line(tmp_path, args, message):
    (tmp_path / "text.npz").write_text("hello")
    parts = {f"{part}_{kind}": np.zeros((2, 3), np.uint8) for part in ("train", "test") for kind in ("images", "labels")}  # fmt: skip
    np.savez(tmp_path / "half.npz", **parts)
    done = run(tmp_path, *args)
    assert done.returncode == 2, done.stdout
    assert done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_table_of_runs_has_their_durations_and_errors(tmp_path):
    values = {"test_accuracy": 0.6, "valid_accuracy": 0.61, "best_valid_accuracy": 0.62, "norms": [1.0, 2.0], "exact_zeros": 0.0}  # fmt: skip
    settings = landscapes.QUESTIONS["q2.2"]
    results = [Result(name, {"run": name}, values, None, 165.0) for name in settings]
    results[1] = Result("batch 512", {"run": "batch 512"}, {}, "NonFiniteLossError: nan", 3.0)
    course.tabulate("networks", results, settings, tmp_path)
    assert table(tmp_path)["batch 64"]["time"] == "2:45.0"
    assert table(tmp_path)["batch 512"]["test"] == "NonFiniteLossError: nan"


# ---------------------------------------------------------------- generated scenes


def draw(n, **options):
    pixels, labels = zip(*scenes.SCENES.blocks(n, **options), strict=True)
    return np.concatenate(pixels), np.concatenate(labels)


def test_scenes_do_not_depend_on_how_many_are_drawn():
    x, y = draw(500, seed=3)
    fewer, labels = draw(50, seed=3)
    np.testing.assert_array_equal(x[:50], fewer)
    np.testing.assert_array_equal(y[:50], labels)
    assert (x.dtype, x.shape) == (np.uint8, (500, 6912))
    assert np.bincount(y[:480]).tolist() == [80] * 6
    assert (draw(50, seed=4)[0] != fewer).any()
    assert (draw(50, seed=3, split=1)[0] != fewer).any()
    with pytest.raises(ValueError, match="scenes: expected n to be a whole number >= 1, got 0"):
        scenes.SCENES.blocks(0)


def test_colours_and_layout_tell_the_classes_apart_but_not_all():
    """The nearest class mean is right more often than chance, and far from always."""
    (x, y), (xt, yt) = draw(1440), draw(480, split=1)
    x, xt = x.astype(np.float32), xt.astype(np.float32)
    means = np.array([x[y == k].mean(axis=0) for k in range(6)])
    distance = ((xt[:, None] - means) ** 2).sum(axis=2)
    assert 0.3 < (distance.argmin(axis=1) == yt).mean() < 0.65
    assert 100 < x.mean() < 150  # the mean and the spread of daylight photographs
    assert 50 < x.std() < 80


def test_scenes_are_cached_and_say_that_they_are_generated(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    data = scenes.load_scenes(train=30, valid=20, test=10)
    assert data.title == "scenes (generated, not photographs)"
    assert (data.features, data.classes, len(data.test)) == (6912, 6, 10)
    files = sorted(p.name for p in tmp_path.iterdir())
    assert len(files) == 3
    np.testing.assert_array_equal(
        scenes.load_scenes(train=20, valid=20, test=10).train.x, data.train.x[:20]
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == files  # drawn once
    assert isinstance(data.train.x, np.memmap)
    with pytest.raises(ValueError, match=r"scenes: expected test to be a whole number >= 1, got 0"):
        scenes.load_scenes(train=5, valid=5, test=0)


def test_generated_scenes_are_named_wherever_a_figure_is_printed(tmp_path, monkeypatch):
    monkeypatch.setattr(landscapes, "QUICK", {"train": 24, "valid": 12, "test": 12})
    monkeypatch.chdir(tmp_path)
    args = ["landscapes.py", "q2.1", "--epochs", "1", "--jobs", "1", "--out", "out"]
    monkeypatch.setattr(sys, "argv", args)
    landscapes.main()
    assert (tmp_path / "out/q2.1/table.md").read_text().splitlines()[0].endswith(", scenes (generated, not photographs)")  # fmt: skip
    recorded = json.loads((tmp_path / "out/q2.1/grid.json").read_text())
    assert recorded["settings"]["data"] == "scenes"
