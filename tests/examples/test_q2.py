"""The width and depth experiments as users run them: scripts, files, signals, memory."""

import csv
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

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = ["--widths", "4", "8", "--learning-rates", "0.01", "0.1", "--dropouts", "0", "0.3", "--l2s", "0", "--epochs", "3"]  # fmt: skip


def write_data(folder):
    """Write a small data set in the course's format."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 200, (4, 12))
    content = {}
    for part, n in (("train", 400), ("valid", 60), ("test", 60)):
        y = np.resize(np.arange(4), n)
        content[f"X_{part}"] = (centres[y] + rng.integers(0, 56, (n, 12))).astype(np.uint8)
        content[f"y_{part}"] = y + 1
    np.savez(folder / "set.npz", **content)


@pytest.fixture
def folder(tmp_path):
    """A working folder with a small data set."""
    write_data(tmp_path)
    return tmp_path


def command(*args, script="q2_width.py"):
    return [sys.executable, str(EXAMPLES / script), *map(str, args)]


def run(folder, *args, script="q2_width.py", pictures=False):
    return scripts.run(EXAMPLES / script, *args, cwd=folder, pictures=pictures)


def records(folder):
    lines = [json.loads(s) for s in (folder / "results.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"], line["crc32"]
        for epoch in line["values"].get("history", {"records": []})["records"]:
            del epoch["seconds"]
    return sorted(lines, key=lambda line: line["id"])


def table(folder):
    with (folder / "table.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_the_whole_experiment(folder):
    done = run(folder, "--data", "set.npz", *SMALL, "--jobs", 2, pictures=True)
    assert done.returncode == 0, done.stderr
    out = folder / "runs/q2_width"
    rows = table(out)
    assert [(r["width"], r["learning_rate"], r["dropout"]) for r in rows] == [(w, lr, d) for w in ("4", "8") for lr in ("0.01", "0.1") for d in ("0", "0.3")]  # fmt: skip
    for width in ("4", "8"):
        group = [r for r in rows if r["width"] == width]
        marked = [r for r in group if r["best"] == "1"]
        assert [r["valid"] for r in marked] == [max(r["valid"] for r in group)]
    assert "8/8 runs 100%" in done.stderr
    assert "EMNIST" not in done.stdout  # these are the user's data
    best = max(float(r["valid"]) for r in rows)
    assert re.search(rf"validation accuracy, best epoch +{best:.4f}", done.stdout)
    assert best > 0.9
    found = json.loads((out / "answers.json").read_text())
    assert found.keys() == {"accuracy-by-width", "best-curves"}
    assert all(sentence in done.stdout for name in found for sentence in found[name])
    for name in ("best-curves.png", "accuracy-by-width.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert len(list((out / "models").glob("*.npz"))) == 8
    assert (out / "table.md").read_text().count("\n| ") == 10
    once_more = run(folder, "--data", "set.npz", *SMALL, "--jobs", 2)
    assert once_more.returncode == 0
    assert table(out) == rows


LONG = ["--data", "set.npz", *SMALL, "--epochs", 150]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The records and the table of a run in one process that nobody stopped."""
    folder = tmp_path_factory.mktemp("straight")
    write_data(folder)
    assert run(folder, *LONG, "--jobs", 1, "--out", "out").returncode == 0
    return records(folder / "out"), table(folder / "out")


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_stopped_half_way_and_started_again(folder, how, straight):
    """The figures do not depend on that, nor on the number of processes."""
    args = [*LONG, "--jobs", 2]
    process = subprocess.Popen(command(*args, "--out", "stopped"), cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)  # fmt: skip
    results = folder / "stopped/results.jsonl"
    deadline = time.monotonic() + 60
    while not (results.exists() and results.read_bytes().count(b"\n") >= 2):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(getattr(signal, how))
    _, err = process.communicate(timeout=30)
    kept = results.read_text().count("\n")
    assert 2 <= kept < 8, "the run was over before it could be stopped"
    if how == "SIGINT":
        assert process.returncode == 130
        assert f"stopped: {kept} of 8 runs are kept in stopped/, the same command resumes" in err
        assert "Traceback" not in err
    assert run(folder, *LONG, "--jobs", 1, "--out", "stopped").returncode == 0
    assert (records(folder / "stopped"), table(folder / "stopped")) == straight


def test_an_executor_of_another_kind_is_refused(folder):
    done = run(folder, "--data", "set.npz", *SMALL, "--executor", "spark")
    assert done.returncode == 2
    assert "expected the executor to be processes or dask://HOST:PORT, got 'spark'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_grid_of_which_all_runs_fail(folder):
    done = run(folder, "--data", "set.npz", *SMALL, "--optimizer", "sgd", "--learning-rates", "1e30", "--jobs", 1)  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "4 of 4 runs failed; the table says why" in done.stdout


def test_more_widths_in_the_same_folder(folder):
    args = ["--data", "set.npz", *SMALL, "--jobs", 1]
    assert run(folder, *args, "--widths", 4).returncode == 0
    before = records(folder / "runs/q2_width")
    assert run(folder, *args).returncode == 0
    assert [r for r in records(folder / "runs/q2_width") if r["point"]["width"] == 4] == before
    assert len(table(folder / "runs/q2_width")) == 8


def test_a_model_that_cannot_be_saved(folder):
    """Its figures are kept and shown; the run is repeated when the same command runs again."""
    only = ["--data", "set.npz", *SMALL, "--widths", 4, "--dropouts", 0, "--jobs", 1]
    out = folder / "runs/q2_width"
    name = "width-4,learning_rate-0.1,dropout-0.0,l2-0.0"
    (out / f"models/{name}.npz").mkdir(parents=True)
    done = run(folder, *only)
    assert done.returncode == 1, done.stderr
    assert "1 of 2 models could not be saved: IsADirectoryError: " in done.stdout
    rows = table(out)
    assert all(float(r["valid"]) > 0 for r in rows)
    (out / f"models/{name}.npz").rmdir()
    assert run(folder, *only).returncode == 0
    assert table(out) == rows
    assert len(list((out / "models").glob("*.npz"))) == 2


def test_workers_end_when_their_parent_is_killed(folder):
    args = ["--data", "set.npz", *SMALL, "--epochs", 2000, "--jobs", 2]
    process = subprocess.Popen(command(*args), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("no /proc with children here")
    deadline = time.monotonic() + 60
    workers = []
    while len(workers) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        pids = children.read_text().split()
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids}
        workers = [pid for pid, words in commands.items() if b"spawn_main" in words]
    time.sleep(1.0)  # past their imports
    process.kill()
    process.wait()
    while any(Path(f"/proc/{pid}").exists() and b"spawn" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in workers):  # fmt: skip
        assert time.monotonic() < deadline, "workers outlived their parent"
        time.sleep(0.05)


BAD_ARGUMENTS = [
    (["--learning-rates", "0"], "expected learning rate to be a finite number > 0, got '0'"),
    (["--learning-rates", "nan"], "got 'nan'"),
    (["--dropouts", "1.5"], "expected dropout to be a finite number >= 0 and <= 1, got '1.5'"),
    (["--l2s", "-1"], "l2"),
    (["--widths", "0"], "expected width to be a whole number >= 1, got '0'"),
    (["--widths", "4.5"], "got '4.5'"),
    (["--widths", "4", "4"], "axis width names 4 twice"),
    (["--epochs", "0"], "expected epochs"),
    (["--jobs", "-1"], "expected jobs"),
    (["--optimizer", "adagrad"], "invalid choice: 'adagrad'"),
    (["--compare", "nothing.csv"], "unrecognized arguments: --compare nothing.csv"),
    (["--backend", "torch"], "unrecognized arguments: --backend torch"),
    (["--shard", "1/2"], "unrecognized arguments: --shard 1/2"),
    (["--data", "nothing.npz"], "nothing.npz: no such file or folder"),
    (["--data", "leters"], "the one name is 'letters'"),
    (["--data", "text.npz"], "text.npz: cannot be read as an .npz file"),
    (["--data", "."], "missing emnist-letters-train-images-idx3-ubyte[.gz]"),
    (["--data", "cut"], "Compressed file ended before"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "message"), BAD_ARGUMENTS)
def test_bad_input_is_one_line_and_loses_nothing(folder, args, message):
    good = ["--data", "set.npz", *SMALL, "--widths", "4", "--dropouts", "0", "--jobs", 1]
    (folder / "text.npz").write_text("hello")
    (folder / "cut").mkdir()
    (folder / "cut/train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b\x08\0\0\0")
    out = folder / "runs/q2_width"
    out.mkdir(parents=True)
    (out / "results.jsonl").write_text("")
    done = run(folder, *good, *args)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in out.iterdir()) == ["results.jsonl"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("y_test"), "missing y_test (the keys of 2025-26); found X_train"),
        (lambda c: c.update(X_valid=c["X_valid"][:, :5]), "set: valid: expected 12 features as in train, got 5"),
        (lambda c: c.update(X_train=np.full((400, 12), np.nan)), "set: train: expected finite features, got x[0, 0] = nan"),
        (lambda c: c.update(y_valid=c["y_valid"] + 3), "y_valid: expected labels in 1..4, got y[1] = 5"),
        (lambda c: c.update(y_valid=c["y_valid"] - 5), "y_valid: expected labels in 0..4, got y[0] = -4"),
        (lambda c: c.update(y_train=c["y_train"] + 0.5), "set: valid: expected x of pixels and y of floats"),
        (lambda c: c.update(X_test=c["X_test"][:0], y_test=c["y_test"][:0]), "set: test: expected at least one example"),
    ],
)  # fmt: skip
def test_bad_data_is_one_line(folder, change, message):
    content = dict(np.load(folder / "set.npz"))
    change(content)
    np.savez(folder / "set.npz", **content)
    done = run(folder, "--data", "set.npz", *SMALL)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_another_grid_or_data_set_in_the_same_folder_is_refused(folder):
    good = ["--data", "set.npz", *SMALL, "--jobs", 1]
    assert run(folder, *good).returncode == 0
    before = (folder / "runs/q2_width/results.jsonl").read_bytes()
    for args, message in (
        (["--optimizer", "sgd"], "optimizer was 'adam', now it is 'sgd'"),
        (["--widths", "4"], "width was [4, 8], now it is [4]"),
        (["--epochs", "2"], "epochs was 3, now it is 2"),
        (["--seed", "1"], "seed was 42, now it is 1"),
    ):
        done = run(folder, *good, *args)
        assert done.returncode == 2
        assert message in done.stderr
    content = dict(np.load(folder / "set.npz"))
    content["X_train"][0, 0] ^= 1
    np.savez(folder / "set.npz", **content)
    done = run(folder, *good)
    assert (done.returncode, "dataset was 'Dataset, sha256" in done.stderr) == (2, True)
    assert (folder / "runs/q2_width/results.jsonl").read_bytes() == before


def test_a_run_that_diverges_is_recorded_and_the_rest_go_on(folder):
    done = run(folder, "--data", "set.npz", *SMALL, "--optimizer", "sgd", "--learning-rates", "0.1", "1e30", "--jobs", 1, pictures=True)  # fmt: skip
    assert done.returncode == 1, done.stderr
    rows = table(folder / "runs/q2_width")
    assert sum("NonFiniteLossError: epoch 1, step" in r["valid"] for r in rows) == 4
    assert "4 of 8 runs failed; the table says why" in done.stdout


def test_wide(folder):
    only = ["--widths", 4, "--learning-rates", 0.01, "--dropouts", 0, "--l2s", 0, "--epochs", 1]
    done = run(folder, "--data", "set.npz", *only, "--wide", "--jobs", 1)
    assert done.returncode == 0, done.stderr
    rows = table(folder / "runs/q2_width")
    assert [r["width"] for r in rows] == ["4", "512", "1024"]
    assert all(float(r["train at last"]) >= 0 for r in rows)


def test_options(folder):
    options = ["--optimizer", "sgd", "--activation", "tanh", "--dtype", "float64", "--full", "--batch-size", 7]  # fmt: skip
    done = run(folder, "--data", "set.npz", *SMALL, "--widths", "4", "--jobs", 1, *options)
    assert done.returncode == 0, done.stderr
    model = np.load(next((folder / "runs/q2_width/models").glob("*.npz")))
    assert model["model/0.weight"].dtype == np.float64
    settings = json.loads((folder / "runs/q2_width/grid.json").read_text())["settings"]["settings"][
        "arguments"
    ]
    expected = {"optimizer": "sgd", "activation": "tanh", "batch_size": 7}
    assert {name: settings[name] for name in expected} == expected


def test_depth(folder):
    done = run(folder, "--data", "set.npz", "--layers", "1", "3", "--widths", "6", "--epochs", "3", "--jobs", 1, script="q2_depth.py", pictures=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = folder / "runs/q2_depth"
    assert [r["layers"] for r in table(out)] == ["1", "3"]
    assert sum(r["best"] == "1" for r in table(out)) == 1
    assert (out / "accuracy-by-layers.png").exists()
    assert (out / "flatness.png").exists()
    (he,) = re.findall(r"1 - cos t of two examples.*He's: ([\d.]+), ([\d.]+)", done.stdout)
    assert 1 > float(he[0]) > float(he[1]) > 0
    for layers, last in ((1, "model/3.weight"), (3, "model/9.weight")):
        (file,) = (out / "models").glob(f"layers-{layers},*")
        weights = [
            n for n in np.load(file).files if n.startswith("model/") and n.endswith("weight")
        ]
        assert (len(weights), weights[-1]) == (layers + 1, last)


DEPTH = ["--data", "set.npz", "--layers", 1, 3, "--epochs", 2, "--jobs", 1]


@pytest.mark.parametrize("flags", [["--init", "he"], ["--norm", "layer", "--residual"], ["--norm", "batch"]])  # fmt: skip
def test_remedies_for_depth(folder, flags):
    done = run(folder, *DEPTH, "--widths", 6, *flags, script="q2_depth.py")
    assert done.returncode == 0, done.stderr
    name = "+".join(f for f in ("he", "layer", "batch", "residual") if f in " ".join(flags))
    rows = table(folder / f"runs/q2_depth-{name}")
    assert [(r["layers"], r["network"]) for r in rows] == [("1", "plain"), ("1", name), ("3", "plain"), ("3", name)]  # fmt: skip
    assert all(float(r["valid"]) > 0 for r in rows)


def test_why_deep_networks_do_not_train(folder):
    done = run(folder, *DEPTH, "--widths", 6, "--why", script="q2_depth.py", pictures=True)
    assert done.returncode == 0, done.stderr
    out = folder / "runs/q2_depth-why"
    assert len(list(out.glob("why-*.png"))) == 4
    for line in (out / "results.jsonl").read_text().splitlines():
        result = json.loads(line)
        values, layers = result["values"], result["point"]["layers"]
        assert np.shape(values["gradients"]) == (3, layers + 1)
        assert np.shape(values["dead"]) == (3,)
        assert all(0 <= share <= 1 for share in values["dead"])
    other = run(folder, *DEPTH, "--why", "--parity", script="q2_depth.py")
    assert (other.returncode, "--why takes no --parity" in other.stderr) == (2, True)


def test_the_best_setting_of_a_finished_run(folder):
    options = ["--widths", 6, 7, "--optimizer", "sgd", "--activation", "tanh", "--jobs", 1]
    assert run(folder, "--data", "set.npz", *SMALL, *options).returncode == 0
    best = max((r for r in table(folder / "runs/q2_width") if r["width"] == "6"), key=lambda r: float(r["valid"]))  # fmt: skip
    depth = ["--data", "set.npz", "--layers", 1, "--jobs", 1, "--from", "runs/q2_width"]
    done = run(folder, *depth, "--widths", 6, script="q2_depth.py")
    assert done.returncode == 0, done.stderr
    (row,) = table(folder / "runs/q2_depth")
    assert all(row[k] == best[k] for k in ("learning_rate", "dropout", "l2", "valid", "epoch"))
    settings = json.loads((folder / "runs/q2_depth/grid.json").read_text())["settings"]
    settings = settings["settings"]["arguments"]
    assert (settings["optimizer"], settings["activation"], settings["epochs"]) == ("sgd", "tanh", 3)
    for flags, message in (
        (["--from", "nowhere"], "expected the folder of a run of q2_width.py"),
        (["--from", "runs/q2_width", "--widths", 5], "no finished run of width 5"),
    ):
        done = run(folder, "--data", "set.npz", *flags, script="q2_depth.py")
        assert (done.returncode, message in done.stderr) == (2, True)


def high_water_mark(pid):
    """Peak resident bytes so far. (A child's ru_maxrss would count its parent before the exec.)"""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


@pytest.mark.slow(seconds=40)
def test_letters_say_that_they_are_generated_and_fit_in_memory(folder):
    """The full-size run: 104,000 letters, an epoch; below 400 MB resident."""
    only = ["--widths", "32", "--learning-rates", "0.001", "--dropouts", "0", "--l2s", "0"]
    args = command("--full", *only, "--epochs", 1, "--jobs", 1)
    peak = 0
    with (folder / "shown").open("w+") as shown_file:
        process = subprocess.Popen(args, cwd=folder, stdout=shown_file, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, high_water_mark(process.pid))
            time.sleep(0.02)
    shown = (folder / "shown").read_text()
    assert process.returncode == 0, shown
    assert "These are generated letters, not EMNIST; the real thing: --full --data PATH" in shown
    assert "letters (generated, not EMNIST): accuracies" in shown
    assert peak < 400e6
    assert peak > 100e6 or not Path("/proc/self/status").exists()
    (row,) = table(folder / "runs/q2_width")
    assert float(row["test at last"]) > 0.7
