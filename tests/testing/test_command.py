"""``python -m minidl.testing``, as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
import numpy as np
import minidl
from minidl.testing import Cached

class Scale(minidl.Layer):
    def __init__(self, features=12, factor=1.0):
        self.weight, self.factor = minidl.Parameter(np.linspace(1, 2, features)), factor

    def forward(self, x, *, train=False):
        def backward(dy):
            self.weight.grad = (dy * x).sum(axis=0)
            return self.factor * dy * self.weight.value
        return x * self.weight.value, backward

class Turned(minidl.Layer):
    def forward(self, x, *, train=False):
        return 2 * x, lambda dy: 2 * dy.T

class Plain:
    def __init__(self, features=12):
        self.W = np.ones((features, 2))

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dy):
        self.dW = self.x.T @ dy
        return dy @ self.W.T

adapted = lambda: Cached(Plain(), W="dW")
made = Scale(3)
Affine = minidl.Linear
number = 3
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "my_module.py").write_text(MODULE, encoding="utf-8")

    def run(*args):
        command = [sys.executable, "-m", "minidl.testing", *args]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    ("args", "starts"),
    [
        (
            ["my_module:Scale", "--input", "8x12"],
            "Scale(), x (8, 12) float64, train=True: passed",
        ),
        (["my_module:Scale(4)", "--input", "8x4"], "Scale(4), x (8, 4) float64"),
        (
            ["my_module:made", "--input", "2x3", "--inference"],
            "Scale(3), x (2, 3) float64, train=False",
        ),
        (
            ["my_module:Affine(4, out_features=2)", "--input", "5x4"],
            "Linear(4, 2), x (5, 4) float32",
        ),
        (
            ["my_module:Affine(4, 2)", "--input", "5x4", "--dtype", "float64"],
            "Linear(4, 2), x (5, 4) float64",
        ),
    ],
)
def test_a_right_layer(run, args, starts):
    done = run(*args)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(starts)


@pytest.mark.parametrize("source", ["import sys; sys.exit(0)", "import sys; sys.exit(1)", "1 / 0", "import nothing_of_this_name"])  # fmt: skip
def test_a_module_that_does_not_load_is_no_verdict(run, tmp_path, source):
    (tmp_path / "broken.py").write_text(source, encoding="utf-8")
    done = run("broken:Layer", "--input", "8x12")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: broken cannot be imported: ")
    assert done.stderr.count("\n") == 1


def test_a_wrong_layer(run):
    done = run("my_module:Scale(factor=-1.0)", "--input", "8x12")
    assert (done.returncode, done.stderr) == (1, "")
    assert "Scale.input[" in done.stdout


def test_json(run):
    done = run("my_module:Scale(factor=-1.0)", "--input", "8x12", "--json", "--sweep")
    assert (done.returncode, done.stderr) == (1, "")
    found = json.loads(done.stdout)
    assert not found["passed"]
    assert found["tensors"][0]["worst"]["wrong"] == 96
    assert "one row" in [c["name"] for c in found["conditions"]]
    turned = run("my_module:Turned", "--input", "8x12", "--json")
    assert turned.returncode == 1
    assert "expected backward(dy) to return dx" in json.loads(turned.stdout)["failures"][0]


def test_an_adapted_class(run):
    done = run("my_module:adapted", "--input", "8x12")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Cached(Plain), x (8, 12) float64, train=True: passed")


def test_a_wrong_shape(run):
    done = run("my_module:Turned", "--input", "8x12")
    assert (done.returncode, done.stderr) == (1, "")
    expected = (
        "expected backward(dy) to return dx, an array of shape (8, 12), got an array of shape"
    )
    assert f"{expected} (12, 8)" in done.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "expected a layer as module:Layer, or --networks N"),
        (["my_module:Scale"], "--input: expected the shape of the batch, as 8x12"),
        (["my_module:Scale", "--input", "8by12"], "expected a shape as 8x12, got '8by12'"),
        (["my_module:Scale", "--input", "0x4"], "expected a shape as 8x12, got '0x4'"),
        (["my_module:Scale", "--input", "4x0"], "expected a shape as 8x12, got '4x0'"),
        (["my_module:Affine", "--input", "8x12"], "my_module:Affine: missing a required argument"),
        (["my_module:Affine", "--input", "8x12"], 'as "my_module:Affine(12, 5)"'),
        (["my_module:Scale(1, 2, 3)", "--input", "8x12"], "too many positional arguments"),
        (["my_module", "--input", "8x12"], "expected module:Layer, got 'my_module'"),
        (["my_module:Scale(", "--input", "8x12"], "expected module:Layer or module:Layer(12, 5)"),
        (["my_module:Scale(open(1))", "--input", "8x12"], "expected module:Layer or"),
        (["my_module:Scail", "--input", "8x12"], "my_module has no 'Scail', did you mean 'Scale'?"),
        (["my_module:Plain", "--input", "8x12"], '; or adapt it: Cached(layer, W="dW")'),
        (["my_modul:Scale", "--input", "8x12"], "No module named 'my_modul'"),
        (["my_module:number", "--input", "8x12"], "number"),
        (["my_module:Affine(4, 2)", "--input", "5x3"], "expected x of shape (n, 4), got (5, 3)"),
        (
            ["my_module:Scale", "--input", "8x12", "--eps", "0"],
            "expected eps to be a finite number > 0",
        ),
        (["--networks", "-1"], "--networks"),
    ],
)
def test_bad_input_is_one_line(run, args, says):
    done = run(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


def test_the_table_of_faults():
    command = [sys.executable, str(Path(__file__).parents[1] / "support" / "faults.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    count = done.stdout.count("  yes  ")
    assert f"{count} of {count} faults caught, each with the right tensor named" in done.stdout


def test_random_networks(run):
    done = run("--networks", "20", "--seed", "7")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("20 random networks, 0 false alarms; tensors: ")
