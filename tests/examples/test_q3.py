"""The question 3 scripts as users run them, and the figures that they report."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import scripts
from homework.sparse import calibration_error, map_and_loss, relumax_loss

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(folder, script, *args, pictures=True):
    return scripts.run(EXAMPLES / script, *args, cwd=folder, pictures=pictures)


def rows(file):
    with file.open() as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def folder(tmp_path):
    """A working folder with images of 4 x 4 pixels in the course's format, 4 classes."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 120, (4, 16))
    content = {}
    for part, n in (("train", 400), ("valid", 80), ("test", 80)):
        y = np.resize(np.arange(4), n)
        content[f"X_{part}"] = (centres[y] + rng.integers(0, 130, (n, 16))).astype(np.uint8)
        content[f"y_{part}"] = y
    np.savez(tmp_path / "set.npz", **content)
    return tmp_path


def test_closed_forms(tmp_path):
    done = run(tmp_path, "q3_closed_forms.py", "--b", 0.5, 3)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "runs/q3_closed_forms"
    assert (out / "closed-forms.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "closed-forms.pdf").read_bytes().startswith(b"%PDF")
    table = rows(out / "table.csv")
    assert [r["map"] for r in table] == ["softmax", "sparsemax", "relumax"] * 2
    assert [r["b"] for r in table] == ["0.5"] * 3 + ["3"] * 3
    for row in table:
        assert float(row["function"]) <= 1e-15
        assert float(row["derivative"]) <= 1e-15


def test_properties(tmp_path):
    done = run(tmp_path, "q3_properties.py", "--rows", 20)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "runs/q3_properties"
    for row in rows(out / "constant.csv"):
        largest = {"1": 1e-14, "-100": 1e-12, "1e+06": 1e-8}[row["constant"]]
        assert all(float(row[f"K = {k}"]) < largest for k in (2, 5, 26, 1000))
    limit = rows(out / "limit.csv")
    assert all(float(r["K = 26"]) == 0 for r in limit if r["temperature"] == "1e-08")
    assert all(float(r["K = 26"]) > 0.3 for r in limit if r["temperature"] == "1")
    right, wrong = rows(out / "equality.csv")
    assert float(right["K = 1000"]) < 1e-14
    assert float(wrong["K = 1000"]) > 1e-3


def test_training(folder):
    args = ["--data", "set.npz", "--widths", 16, "--learning-rates", 0.02, "--dropouts", 0, "--epochs", 6, "--jobs", 1, "--b", 1, 2]  # fmt: skip
    done = run(folder, "q3_train.py", *args)
    assert done.returncode == 0, done.stderr
    out = folder / "runs/q3_train"
    table = rows(out / "table.csv")
    assert [r["loss"] for r in table] == [
        "softmax",
        "sparsemax",
        "entmax15",
        "relumax b=1 eps=0.1",
        "relumax b=2 eps=0.1",
    ]
    softmax, *sparse = table
    assert softmax["support"] == "4.0000"
    assert softmax["covered"] == "1.0000"
    for row in sparse:
        assert float(row["test"]) > 0.8
        assert 1 <= float(row["support"]) < 3.5
        assert 0 < float(row["certain"]) < 1
    pictures = {p.name for p in out.glob("*.png")}
    assert pictures == {"training.png"}
    for line in (out / "results.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert len(record["values"]["supports"]) == len(record["values"]["history"]["records"]) == 7
    again = run(
        folder, "q3_train.py", *args, pictures=False
    )  # finished runs are read, not repeated
    assert rows(out / "table.csv") == table, again.stderr


def test_bad_input_is_one_line(folder):
    for args, message in (
        (("q3_train.py", "--b", 0), "expected b to be a finite number > 0, got '0'"),
        (("q3_train.py", "--eps", -1), "expected eps to be a finite number >= 0, got '-1'"),
        (("q3_closed_forms.py", "--b", -1), "expected b to be a finite number > 0, got '-1'"),
        (("q3_properties.py", "--rows", 0), "expected rows to be a whole number >= 1, got '0'"),
    ):
        done = run(folder, *args)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_loss_by_its_name():
    map, loss = map_and_loss(relumax_loss(2.5, 0.01))
    assert repr(map) == "relumax(2.5)"
    assert repr(loss) == "SmoothedNLL(relumax(2.5))"
    assert repr(map_and_loss("sparsemax")[1]) == "FenchelYoung(sparsemax)"


def test_calibration_error():
    certain = np.eye(3)[[0, 1, 2, 0]]
    assert calibration_error(certain, np.array([0, 1, 2, 0])) == 0
    assert calibration_error(certain, np.array([0, 1, 2, 1])) == pytest.approx(0.25)
    # two bins: 0.6 right half the time, 0.9 always right
    p = np.array([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1]])
    expected = (2 * abs(0.5 - 0.6) + 2 * abs(1 - 0.9)) / 4
    assert calibration_error(p, np.array([0, 1, 0, 0])) == pytest.approx(expected)
