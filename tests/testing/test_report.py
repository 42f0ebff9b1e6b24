"""A report where people read it: notebooks, JSON, Gradescope, pytest, and errors that name the adapters."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import strangers

from minidl import Tanh
from minidl.testing.cached import AdaptedLoss, Cached
from minidl.testing.checks import check_function, check_layer, check_loss

X = np.random.default_rng(0).standard_normal((3, 5))
WRONG = check_layer(Cached(strangers.Affine(1.1), W="dW", b="db"), X)
RIGHT = check_layer(Cached(strangers.Affine(1), W="dW", b="db"), X)


def test_html_is_well_formed_and_shows_the_wrong_entry():
    page = ElementTree.fromstring(WRONG._repr_html_())
    assert "".join(page.itertext()) == str(WRONG)
    red = [part.text for part in page if "#b00020" in part.get("style", "")]
    assert [line.split()[0] for line in red] == ["Cached(Affine(1.1)),", "W", "Affine.W[4,"]
    assert "#b00020" not in RIGHT._repr_html_()


def test_html_escapes_names():
    report = check_function(np.sin, lambda x, dy: dy, X, name="<b>")
    assert "&lt;b&gt;" in report._repr_html_()
    ElementTree.fromstring(report._repr_html_())


def test_json():
    found = json.loads(json.dumps(WRONG.to_json(), allow_nan=False))
    assert not found["passed"]
    tensors = {t["name"]: t for t in found["tensors"]}
    assert tensors["W"]["worst"]["index"] == [4, 2]
    assert tensors["input"]["worst"] is None
    assert found["failures"] == list(WRONG.failures)
    linear = json.loads(json.dumps(check_layer(Tanh(), X).to_json(), allow_nan=False))
    assert linear["passed"]


def test_score(capsys):
    assert RIGHT.score(6) == 6
    assert capsys.readouterr().out == ""
    assert WRONG.score(8) == 6  # input, W, b and the side conditions; W is wrong
    assert "Affine.W[4, 2]: analytic" in capsys.readouterr().out
    noisy = check_function(lambda x: x * np.random.random(), lambda x, dy: dy, X)  # noqa: NPY002
    assert noisy.score(3) == 0


@pytest.mark.parametrize(("n", "error"), [(1, "0.02"), (15, "0.077"), (25, "0.1"), (400, "0.4")])
def test_float32_says_which_error_shows(n, error):
    notes = check_layer(Tanh(), np.ones((1, n), np.float32)).notes
    assert notes == (
        f"float32 shows an error of {error} % in one of {n} entries of input; check in float64 too",
    )


def test_names():
    report = check_function(np.sin, lambda x, dy: dy, X, name="wave")
    assert str(report).startswith("wave, x (3, 5) float64: FAILED")
    assert "wave.x[" in str(report)
    unnamed = check_function(lambda x: 2 * x, lambda x, dy: dy, X)
    assert "f.x[" in str(unnamed)


TEST = """
import numpy as np
from minidl.testing import assert_gradients

def test_wave():
    assert_gradients(np.sin, lambda x, dy: dy * np.cos(x) * [1, 1, 2], np.ones((2, 3)))
"""


def test_pytest_shows_the_table(tmp_path):
    (tmp_path / "test_wave.py").write_text(TEST, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "tensor  shape" in done.stdout
    assert "E       sin.x[" in done.stdout
    assert "report.raise_if_failed()" not in done.stdout  # the kit's own lines are hidden
    assert ">       assert_gradients" in done.stdout or ">   assert_gradients" in done.stdout


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: check_layer(Cached(strangers.Affine(1), W="dV"), X), r"write the gradient of W to 'dV', an array of shape \(5, 3\), got None"),
        (lambda: check_layer(Cached(strangers.Dense(1), params="params"), X), "expected grads= with params="),
        (lambda: Cached(strangers.Dense(1), params="weights", grads="grads"), "Dense has no dictionary or list 'weights'"),
        (lambda: Cached(strangers.Affine(1), train="frozen"), "Affine has no flag 'frozen'"),
        (lambda: Cached(strangers.Affine(1), backward="back"), "which has no back"),
        (lambda: check_loss(strangers.ByExample(1), X, X), "write: return value, dlogits"),
        (lambda: check_loss(AdaptedLoss(strangers.ByExample(1), strangers.ByExample(1).grad), X, X + 1), "a value for each example: AdaptedLoss"),
        (lambda: check_layer(Cached(strangers.MaxPool(1)), np.ones((1, 1, 2, 2), int)), "or pass fixed="),
        (lambda: check_layer(strangers.Dense(1), X), r'or adapt it: Cached\(layer, W="dW"\), AdaptedLoss'),
        (lambda: check_layer(strangers.TrueFirst(1), X), r"AdaptedLoss\(loss.value, loss.gradient\)"),
        (lambda: check_layer(Cached(strangers.Affine(1))), "nothing to check|expected forward to take"),
    ],
)  # fmt: skip
def test_errors_say_how_to_write_it(call, says):
    with pytest.raises((TypeError, ValueError), match=says):
        call()
