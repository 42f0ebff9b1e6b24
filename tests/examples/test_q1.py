"""Question 1 as users run it: scripts, their files, and the comparison with published digits."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scripts
from homework import models, published

import minidl
from minidl.grid.folder import claimed

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def folder(tmp_path):
    """A working folder with a small data set in the course's format: 26 classes, 28x28 pixels."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 200, (26, 784))
    content = {}
    for part, n in (("train", 520), ("valid", 130), ("test", 130)):
        y = np.resize(np.arange(26), n)
        content[f"X_{part}"] = (centres[y] + rng.integers(0, 56, (n, 784))).astype(np.uint8)
        content[f"y_{part}"] = y + 1
    np.savez(tmp_path / "set.npz", **content)
    return tmp_path


def run(folder, script, *args, pictures=False):
    flags = "--data", "set.npz", *args
    return scripts.run(EXAMPLES / script, *flags, cwd=folder, pictures=pictures)


def plain_perceptron(file, epochs, seed, ties):
    """The course's script: rows of W for classes, arrays that are permuted again and again."""
    data = np.load(file)
    x, xv, xt = (np.hstack([data[f"X_{p}"] / 256, np.ones((len(data[f"X_{p}"]), 1))]) for p in ("train", "valid", "test"))  # fmt: skip
    y, yv, yt = (data[f"y_{p}"] - 1 for p in ("train", "valid", "test"))
    legacy = np.random.RandomState(seed)  # the stream of the global np.random.seed
    w, best = np.zeros((26, 785)), (-1.0, 0, 0.0)
    for epoch in range(1, epochs + 1):
        order = legacy.permutation(len(x))
        x, y = x[order], y[order]
        for xi, yi in zip(x, y, strict=True):
            predicted = (w @ xi).argmax()
            if predicted != yi:
                w[yi] += xi
                w[predicted] -= xi
        valid = float(np.mean((xv @ w.T).argmax(axis=1) == yv))
        if valid > best[0] or (valid == best[0] and ties == "last"):
            best = valid, epoch, float(np.mean((xt @ w.T).argmax(axis=1) == yt))
    return best


def test_the_perceptron_has_the_digits_of_the_course_s_loop(folder):
    done = run(
        folder, "q1_perceptron.py", "--epochs", 6, "--seed", 7, "--out", "out", pictures=True
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads((folder / "out/scores.json").read_text())
    valid, epoch, test = plain_perceptron(folder / "set.npz", 6, 7, "first")
    assert (scores["best_valid"], scores["selected_epoch"], scores["test"]) == (valid, epoch, test)
    other = plain_perceptron(folder / "set.npz", 6, 7, "last")
    assert other[1] != epoch, "no tie: this test cannot tell the two rules apart"
    assert 0 < scores["time"] < 60
    assert {"train", "last_train", "last_test"} <= set(scores)
    assert "last epoch 6" in done.stdout
    for name in ("curves.png", "weights.png", "history.csv", "best.npz"):
        assert (folder / "out" / name).stat().st_size > 0
    assert "published" not in done.stdout
    model = minidl.Linear(784, 26, rng=0, dtype="float64")
    minidl.Checkpoint(folder / "out/best.npz").load(model=model)
    data = minidl.load_dataset(folder / "set.npz")
    assert minidl.evaluate(model, data.test, minidl.Perceptron())["accuracy"] == test


def test_logistic_regression_with_l1(folder):
    done = run(folder, "q1_logistic.py", "--epochs", 2, "--features", "pool", "--l1", 0.05, "--lr", 0.001, pictures=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    zeros = [float(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("L1 ")]
    assert zeros[0] < 0.01 < 0.1 < zeros[1]
    assert (folder / "runs/q1_logistic/norm.png").exists()


def test_the_grid_of_twelve_resumes(folder):
    args = ("--epochs", 2, "--jobs", 2, "--features", "pca")
    done = run(folder, "q1_grid.py", *args, pictures=True)
    assert done.returncode == 0, done.stderr
    out = folder / "runs/q1_grid"
    rows = (out / "table.csv").read_text().splitlines()
    assert (
        rows[0]
        == "features,learning_rate,l2,valid,epoch,train at best,test at best,train at last,test at last,norm,share of seconds,best"
    )
    assert len(rows) == 13
    assert sum(row.endswith(",1") for row in rows) == 1
    assert "PCA: 90 components hold" in done.stdout
    lines = (out / "results.jsonl").read_text().splitlines(keepends=True)
    for result in map(json.loads, lines):  # the six runs of a group share its time evenly
        times = [row["share_of_seconds"] for row in result["values"]["runs"]]
        assert len(times) == 6
        assert times == [times[0]] * 6
        assert 0 < sum(times) <= result["seconds"]
    (out / "results.jsonl").write_text(lines[0])
    again = run(folder, "q1_grid.py", *args)
    assert again.returncode == 0, again.stderr
    assert (out / "results.jsonl").read_text().splitlines(keepends=True)[0] == lines[0]
    strip = [",".join(row.split(",")[:9]) for row in rows]
    assert [",".join(r.split(",")[:9]) for r in (out / "table.csv").read_text().splitlines()] == strip  # fmt: skip
    other = run(folder, "q1_grid.py", *args[:2], "--seed", 1)
    assert other.returncode == 2
    assert "holds other results" in other.stderr


def test_the_mlp(folder):
    done = run(folder, "q1_mlp.py", "--epochs", 2, "--width", 8, "--out", "out", pictures=True)
    assert done.returncode == 0, done.stderr
    scores = json.loads((folder / "out/scores.json").read_text())
    assert {"best_valid", "selected_epoch", "test", "time"} <= set(scores)
    assert (folder / "out/weights.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        ("q1_perceptron.py", ["--epochs", "0"], "expected epochs to be a whole number >= 1"),
        ("q1_logistic.py", ["--lr", "0"], "expected lr to be a finite number > 0"),
        ("q1_logistic.py", ["--features", "ica"], "invalid choice: 'ica'"),
        ("q1_grid.py", ["--executor", "dask://h:1"], "unrecognized arguments: --executor"),
        ("q1_grid.py", ["--compare", "a.csv"], "unrecognized arguments: --compare"),
        ("q1_logistic.py", ["--features", "pca", "--components", "785"], "at most 784"),
        ("q1_mlp.py", ["--lr", "1e30"], "the loss is nan"),
        ("q1_mlp.py", ["--data", "nowhere.npz"], "no such file"),
    ],
)
def test_bad_input_is_one_line(folder, script, args, message):
    done = run(folder, script, *args)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_initial_weights_of_the_mlp_come_from_the_course_s_stream():
    data = minidl.load_letters(50, 20, 20)
    model = models.mlp(data, 100, np.random.RandomState(42), "float64")
    legacy = np.random.RandomState(42)
    assert (model[0].weight.value == legacy.normal(0.1, 0.1, (100, 784)).T).all()
    assert (model[2].weight.value == legacy.normal(0.1, 0.1, (26, 100)).T).all()
    assert not model[0].bias.value.any()


def test_published_digits_stand_beside_runs_of_their_settings(folder):
    data = minidl.load_dataset(folder / "set.npz")
    figures = dict.fromkeys(published.WORDS, 0.5)

    def told(name, settings):
        published.tabulate_published(name, [(settings, figures)], data, folder)
        file = folder / "published.csv"
        return file.read_text().splitlines() if file.exists() else []

    header, *rows = told("perceptron", {"epochs": 20})
    assert header == "settings,figure,ours,group a,group b,best"
    assert 'epochs 20,"test accuracy, best epoch",0.5000,0.6110,0.6111,0' in rows
    assert told("perceptron", {"epochs": 19}) == []
    logistic = {"epochs": 20, "features": "pool", "lr": 1e-4, "l2": 1e-5, "l1": 0.0}
    header, *rows = told("logistic regression", logistic)
    assert header == "settings,figure,ours,group b,best"
    assert [row.split(",")[-2] for row in rows] == ["0.6544", "0.6521"]
    for change in ({"features": "pca"}, {"lr": 1e-3}, {"l2": 0}, {"l1": 0.1}):
        assert told("logistic regression", {**logistic, **change}) == []
    mlp = {"epochs": 20, "width": 100, "lr": 1e-3, "l2": 0.0}
    assert any("0.8803365" in row for row in told("MLP", mlp))
    assert told("MLP", {**mlp, "width": 101}) == []


def test_the_course_s_file_is_known_by_its_name_in_git(folder, monkeypatch):
    file = folder / "set.npz"
    assert not published.is_course_file(file)
    monkeypatch.setattr(published, "COURSE_FILE", blob_sha1(file))
    assert published.is_course_file(file)
    with file.open("ab") as end:
        end.write(b"\0")
    assert not published.is_course_file(file)
    assert not published.is_course_file("letters")


def test_the_answers_follow_the_data(folder):
    """Letters that a line separates, and labels that say nothing: the opposite sentences."""
    file = dict(np.load(folder / "set.npz"))
    done = run(folder, "q1_mlp.py", "--epochs", 12, "--width", 16, "--lr", 0.01, "--out", "easy")
    assert done.returncode == 0, done.stderr
    rng = np.random.default_rng(1)
    file["y_train"] = rng.permutation(file["y_train"])
    np.savez(folder / "set.npz", **file)
    done = run(folder, "q1_mlp.py", "--epochs", 12, "--width", 16, "--lr", 0.01, "--out", "hard")
    assert done.returncode == 0, done.stderr
    easy, hard = (json.loads((folder / o / "answers.json").read_text())["curves"] for o in ("easy", "hard"))  # fmt: skip
    assert "it overfits" in hard[1], hard
    assert "it overfits" not in easy[1], easy


def test_the_table_of_features(folder):
    args = ("--component-counts", 3, 20, "--epochs", 1, "--jobs", 1)
    done = run(folder, "q1_features.py", *args, pictures=True)
    assert done.returncode == 0, done.stderr
    out = folder / "runs/q1_features"
    rows = [row.split(",") for row in (out / "table.csv").read_text().splitlines()]
    assert [row[:2] for row in rows[1:]] == [["raw", "784"], ["pool", "196"], ["pca 3", "3"], ["pca 20", "20"]]  # fmt: skip
    assert 0 < float(rows[3][2]) < float(rows[4][2]) < 1
    assert (out / "features.png").stat().st_size > 0
    done = run(folder, "q1_logistic.py", "--features", "pca", "--components", 5, "--epochs", 1)
    assert "5 components hold" in done.stdout


def blob_sha1(file):
    """By git itself."""
    done = subprocess.run(["git", "hash-object", str(file)], capture_output=True, text=True, check=True)  # fmt: skip
    return done.stdout.strip()


def results(out):
    """The results of a run without its durations."""
    scores = json.loads((out / "scores.json").read_text())
    rows = [row.split(",") for row in (out / "history.csv").read_text().splitlines()]
    keep = [i for i, name in enumerate(rows[0]) if name != "seconds"]
    with np.load(out / "best.npz") as archive:
        arrays = {k: v.tobytes() for k, v in archive.items() if k != "meta"}
    figures = {k: v for k, v in scores.items() if k != "time"}
    return figures, [[row[i] for i in keep] for row in rows], arrays


SINGLE = {
    "q1_perceptron.py": [],
    "q1_logistic.py": ["--l1", "0.01", "--lr", "0.001"],
    "q1_mlp.py": ["--width", "8"],
}


@pytest.mark.parametrize(
    ("script", "how"),
    [("q1_perceptron.py", "SIGINT"), ("q1_logistic.py", "SIGTERM"), ("q1_mlp.py", "SIGKILL")],
)
def test_a_stopped_run_goes_on(folder, script, how):
    command = [sys.executable, str(EXAMPLES / script), "--data", "set.npz", *SINGLE[script], "--epochs", "100000", "--out", "out"]  # fmt: skip
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
        try:
            while not list((folder / "out").glob("checkpoint*.npz")):  # the first epoch has ended
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.01)
            process.send_signal(getattr(signal, how))
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert not (folder / "out/scores.json").exists()
    if how != "SIGKILL":
        assert process.returncode == 130, err
        assert re.search(r"stopped: the epochs that ended are kept in out\S+; the same command resumes", err)  # fmt: skip
    (file,) = (folder / "out").glob("checkpoint*.npz")
    with np.load(file) as archive:
        ended = len(json.loads(str(archive["meta"]))["parts"]["history"]["records"]) - 1
    assert ended >= 1
    for out in ("out", "straight"):  # more epochs, since those of the command would take too long
        done = run(folder, script, *SINGLE[script], "--epochs", ended + 2, "--out", out)
        assert done.returncode == 0, done.stderr
    assert results(folder / "out") == results(folder / "straight")


def test_a_finished_run_is_not_replaced_by_another(folder):
    done = run(folder, "q1_logistic.py", "--epochs", 3, "--out", "p")
    assert done.returncode == 0, done.stderr
    before = results(folder / "p")
    other = run(folder, "q1_logistic.py", "--epochs", 3, "--lr", 0.01, "--out", "p")
    assert other.returncode == 2
    assert "p holds other results: lr was 0.0001, now it is 0.01; choose another folder" in other.stderr  # fmt: skip
    shorter = run(folder, "q1_logistic.py", "--epochs", 1, "--out", "p")
    assert shorter.returncode == 2
    assert "holds 3 epochs, and epochs=1 asks for fewer" in shorter.stderr
    assert results(folder / "p") == before
    assert run(folder, "q1_logistic.py", "--epochs", 4, "--out", "p").returncode == 0
    assert len(results(folder / "p")[1]) == 6


def test_a_grid_and_a_single_run_do_not_share_a_folder(folder):
    small = ("--epochs", 1, "--features", "pool", "--jobs", 1)
    axes = ("--learning-rates", 0.01, "--l2s", 0)
    assert run(folder, "q1_logistic.py", *small, "--out", "p").returncode == 0
    assert run(folder, "q1_grid.py", *small, *axes, "--out", "g").returncode == 0
    before = [(folder / out / "scores.json").read_bytes() for out in "pg"]
    for args in (("q1_logistic.py", *small, "--out", "g"), ("q1_grid.py", *small, *axes, "--out", "p")):  # fmt: skip
        done = run(folder, *args)
        assert done.returncode == 2
        assert "holds other results: those of a" in done.stderr
    assert [(folder / out / "scores.json").read_bytes() for out in "pg"] == before


def test_two_single_runs_in_one_folder(folder):
    with claimed(folder / "out/run.json", {}, {}, lambda: False):
        done = run(folder, "q1_mlp.py", "--epochs", 1, "--out", "out")
    assert done.returncode == 2
    assert "is being written by another process" in done.stderr
    assert not (folder / "out/scores.json").exists()
