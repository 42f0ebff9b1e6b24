"""``python -m minidl.testing``, as a user runs it."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from minidl.testing.__main__ import main
from minidl.testing.survey import survey
from minidl.view.cli import run_main

MODULE = """
import numpy as np
import minidl
from minidl import softmax
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

class Fails(minidl.Layer):
    def forward(self, x, *, train=False):
        return {}["nothing"]

class Contract:
    def __init__(self, n):
        pass

    def forward(self, x, train=False):
        return 2 * x, lambda dy: 2 * dy

class Error:
    def __call__(self, logits, y, fault=1.0):
        return ((logits - y) ** 2).sum(), 2 * fault * (logits - y)

def wrong_error(logits, y):
    return Error()(logits, y, 1.1)

def affine(x, w, scale):
    return scale * x @ w, (x, w, scale)

def affine_backward(dy, cache, fault=1.0):
    x, w, scale = cache
    return scale * dy @ w.T, fault * scale * x.T @ dy

def wrong_backward(dy, cache):
    return affine_backward(dy, cache, 1.1)

def square(x):
    return x * x

def square_vjp(x, dy):
    return np.clip(2 * x * dy, -0.1, 0.1)

adapted = lambda: Cached(Plain(), W="dW")
made = Scale(3)
Affine = minidl.Linear
number = 3
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command in this process, in a folder with ``my_module``."""
    (tmp_path / "my_module.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["minidl.testing", *args])
        with pytest.raises(SystemExit) as ended:
            run_main(main)
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=int(ended.value.code), stdout=out, stderr=err)

    yield run
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_the_command_itself(tmp_path):
    (tmp_path / "my_module.py").write_text(MODULE, encoding="utf-8")
    command = [sys.executable, "-m", "minidl.testing", "my_module:made", "--input", "2x3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Scale(3), x (2, 3) float64, train=True: passed")


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
            ["my_module:Affine(4, 2, rng=0, dtype='float64')", "--input", "5x4"],
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


@pytest.mark.parametrize(
    ("args", "starts", "says"),
    [
        (["Error", "--input", "4x3", "--targets", "numbers"], "Error, logits (4, 3) float64: passed", ""),
        (["wrong_error", "--input", "4x3", "--targets", "numbers"], "wrong_error, logits", "wrong_error.logits["),
        (["Contract(3)", "--input", "4x3"], "Contract(3), x (4, 3) float64, train=True: passed", ""),
        (["softmax", "--input", "4x3"], "softmax, z (4, 3) float64, axis=-1: passed", ""),
        (["affine", "--backward", "my_module:affine_backward", "--input", "4x3", "--input", "3x2", "--fixed", "{'scale': 2.0}"], "affine, x (4, 3) float64, w (3, 2) float64: passed", ""),
        (["affine", "--backward", "my_module:wrong_backward", "--input", "4x3", "--input", "3x2", "--fixed", "{'scale': 2.0}"], "affine, x", "affine.w["),
        (["square", "--vjp", "my_module:square_vjp", "--input", "4x3"], "square, x", "square.x["),
        (["square", "--vjp", "my_module:square_vjp", "--input", "4x3", "--cotangent", "1e-3", "--skip", "jvp"], None, "check_function: expected skip 'shape' or"),
        (["square", "--vjp", "my_module:square_vjp", "--input", "4x3", "--cotangent", "1e-3"], "square, x (4, 3) float64: passed", ""),
        (["Scale(3)", "--input", "4x3", "--precision", "float32", "--skip", "any layout"], "Scale(3), x (4, 3) float64, train=True: passed", "both sides in float32 (as asked)"),
    ],
)  # fmt: skip
def test_losses_maps_and_functions(run, args, starts, says):
    done = run("my_module:" + args[0], *args[1:])
    assert (done.stdout if starts else done.stderr).startswith(starts or "error: ")
    assert done.returncode == (2 if starts is None else 0 if "passed" in starts else 1)
    assert says in done.stdout + done.stderr


def test_an_exception_is_one_line_with_its_place(run):
    done = run("my_module:Fails", "--input", "8x12")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"error: KeyError: 'nothing' \(my_module.py, line \d+, in forward\)\n", done.stderr
    )
    with pytest.raises(KeyError):
        run("my_module:Fails", "--input", "8x12", "--traceback")


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
    here = run("my_module:Cached(Plain(4), W='dW')", "--input", "8x4")
    assert (here.returncode, here.stderr) == (0, "")
    assert here.stdout.startswith("Cached(Plain), x (8, 4) float64, train=True: passed")


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
        ([], "the following arguments are required: name"),
        (["my_module:Scale"], "--input: expected the shape of the batch, as 8x12"),
        (["my_module:Scale", "--input", "8by12"], "expected a shape as 8x12, got '8by12'"),
        (["my_module:Scale", "--input", "0x4"], "expected a shape as 8x12, got '0x4'"),
        (["my_module:Scale", "--input", "4x0"], "expected a shape as 8x12, got '4x0'"),
        (["my_module:Affine", "--input", "8x12"], "missing 2 required positional arguments: 'in_f"),
        (["my_module:Scale(1, 2, 3)", "--input", "8x12"], "from 1 to 3 positional arguments"),
        (["my_module", "--input", "8x12"], "Layer(12, 5), got 'my_module'"),
        (["my_module:Scale(", "--input", "8x12"], "expected module:Layer or module:Layer(12, 5)"),
        (["my_module:Scale(nothing)", "--input", "8x12"], "name 'nothing' is not defined"),
        (
            ["my_module:Scail", "--input", "8x12"],
            "NameError: name 'Scail' is not defined (my_module:Scail, line 1",
        ),
        (["my_module:Plain", "--input", "8x12"], '; or adapt it: Cached(layer, W="dW")'),
        (["my_modul:Scale", "--input", "8x12"], "No module named 'my_modul'"),
        (["my_module:number", "--input", "8x12"], "expected an object with forward(x, train=...)"),
        (["my_module:Affine(4, 2)", "--input", "5x3"], "expected x of shape (n, 4), got (5, 3)"),
        (
            ["my_module:Scale", "--input", "8x12", "--eps", "0"],
            "expected eps to be a finite number > 0",
        ),
    ],
)
def test_bad_input_is_one_line(run, args, says):
    done = run(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


LAYERS = """
import numpy as np

import minidl
from minidl import softmax

class Doubled(minidl.Layer):
    def forward(self, x, *, train=False):
        return 2 * x, lambda dy: dy

def softmax_loss(x, y):
    p = softmax(x)
    dx = p.copy()
    dx[np.arange(len(x)), y] -= 1
    return -np.log(p[np.arange(len(x)), y]).mean(), dx / len(x)

def affine_forward(x, w, b):
    return x @ w + b, (x, w)
def affine_backward(dout, cache):
    x, w = cache
    return dout @ w.T, x.T @ dout, dout.sum(axis=0)

class Base:
    def forward(self, x):
        raise NotImplementedError
    def backward(self, dy):
        raise NotImplementedError

class Dense(Base):
    def __init__(self, n_in, n_out):
        self.weights, self.bias = np.ones((n_in, n_out)), np.zeros(n_out)
        self.d_weights = np.zeros_like(self.weights)
    def forward(self, x):
        self.x = x
        return x @ self.weights + self.bias
    def backward(self, dy):
        self.d_weights += self.x.T @ dy
        self.d_bias = dy.mean(axis=0)
        self.dx = dy @ self.weights.T  # of what the pass keeps, no parameter
        return self.dx

class Tanh(Base):
    def forward(self, x):
        self.y = np.tanh(x)
        return self.y
    def backward(self, dy):
        return dy * (1 - self.y**2)

class Named(Base):
    def __init__(self, n_in, n_out, name):
        self.name = name

def sigmoid(x):
    return 1 / (1 + np.exp(-x))
def sigmoid_derivative(y):
    return y * (1 - y)

class Error:
    def loss(self, y_true, y_pred):
        return (y_true - y_pred) ** 2
    def gradient(self, y_true, y_pred):
        return y_pred - y_true
"""


def test_a_whole_package(run, tmp_path):
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "__init__.py").touch()
    (tmp_path / "toys" / "layers.py").write_text(LAYERS, encoding="utf-8")
    (tmp_path / "toys" / "broken.py").write_text("import nothing_of_this_name", encoding="utf-8")
    done = run("toys", "--all")
    assert (done.returncode, done.stderr) == (1, "")
    head, *rest = done.stdout.splitlines()
    assert head == "toys: 9 found: 4 right, 0 side condition only, 3 wrong, 0 cannot tell, 2 not checked"  # fmt: skip
    wrong, missing, right = (part.splitlines() for part in "\n".join(rest).strip().split("\n\n"))
    assert (wrong[0], missing[0], right[0]) == ("wrong", "not checked", "right")
    assert wrong[1].startswith("  toys.layers:Doubled as Doubled(), x (4, 5) float64")
    del wrong[1:3]
    assert wrong[1].startswith("  toys.layers:Dense as Cached(Dense), x (4, 5) float64")
    assert "all 4 are 0.25 times" in wrong[2]  # the bias; the weights are right and added to
    assert wrong[3].startswith("  toys.layers:Error as Error.loss")
    assert [line.strip() for line in missing[1:]] == [
        "toys.broken",
        "toys.broken cannot be imported: ModuleNotFoundError(\"No module named 'nothing_of_this_name'\")",
        "toys.layers:Named",
        "needs the arguments n_in, n_out, name",
    ]
    assert [line.split()[0] for line in right[1:]] == [
        "toys.layers:softmax_loss",
        "toys.layers:Tanh",
        "toys.layers:affine_forward,",
        "toys.layers:sigmoid,",
    ]
    found = json.loads(run("toys", "--all", "--json").stdout)
    assert (found["passed"], len(found["findings"])) == (False, 9)
    assert run("no_package", "--all").stderr.startswith("error: no_package cannot be imported")


DRAWN = """
import numpy as np


class Wrong:
    def __init__(self, inputs, outputs):
        self.W = np.random.randn(inputs, outputs)

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dy):
        self.dW = self.x.T @ dy
        return 2 * dy @ self.W.T
"""


def test_the_objects_of_a_package_are_the_same_in_every_survey(tmp_path, monkeypatch):
    """Their weights may come from the global generators, which stay as they were."""
    (tmp_path / "drawn.py").write_text(DRAWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002 - only read
        found.append(str(survey("drawn")))
        np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert found[0] == found[1]
    assert "1 wrong" in found[0]


STYLES = """
import numpy as np

def right_relu(Z):
    return np.maximum(Z, 0)
def right_relu_backward(dA, Z):
    return dA * (Z > 0)

def right_leaky_forward(x):
    return np.where(x > 0, x, 0.1 * x)
def right_leaky_backward(dout, x):
    return dout * np.where(x > 0, 1, 0.1)

def right_tanh_forward(x):
    return np.tanh(x)
def right_tanh_backward(x, dout):
    return dout * (1 - np.tanh(x) ** 2)

def right_product(x, w):
    return x @ w
def right_product_backward(dout, x, w):
    return dout @ w.T, x.T @ dout

def right_softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
def right_softmax_derivative(x):
    p = right_softmax(x)
    return p[:, :, None] * np.eye(p.shape[1]) - p[:, :, None] * p[:, None, :]

M = np.arange(25.0).reshape(5, 5)

def right_linear(x):
    return x @ M.T
def right_linear_derivative(x):
    return np.broadcast_to(M, (len(x), 5, 5))

def wrong_linear(x):
    return x @ M
def wrong_linear_derivative(x):
    return np.broadcast_to(M, (len(x), 5, 5))

class wrong_Cleared:
    factor = 2
    def __init__(self, inputs, outputs):
        self.W, self.b = np.random.randn(inputs, outputs), np.zeros(outputs)
    def forward(self, x):
        self.x, self.dW, self.db = x, None, None
        return x @ self.W + self.b
    def backward(self, dy):
        self.dW, self.db = self.factor * self.x.T @ dy, dy.sum(axis=0)
        return dy @ self.W.T

class right_Cleared(wrong_Cleared):
    factor = 1

class wrong_Stepping(wrong_Cleared):
    def backward(self, dy):
        dx = super().backward(dy)
        self.W -= 0.01 * self.dW
        return dx
"""


def test_the_styles_of_courses(tmp_path, monkeypatch):
    """The cotangent first, Jacobians of rows, gradients that forward clears, steps in backward."""
    (tmp_path / "styles.py").write_text(STYLES, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = survey("styles", locate_seconds=0, traceback=False).findings
    assert len(found) == 10
    for one in found:
        assert one["name"].startswith(f"styles:{one['verdict']}_")
        assert "not checked" not in "".join(one["why"])
        if "Cached(wrong" in one["name"]:
            assert one["why"][0].startswith("W: wrong along a direction")
