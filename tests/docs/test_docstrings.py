"""Every example of the docstrings runs: the lines after ``>>>``, with the names that they take."""

import ast
import doctest
import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minidl
from minidl.testing.checks import check_layer, check_loss, check_pair

PACKAGE = Path(minidl.__file__).parent


def docstrings(path):
    """Yield the module of a file, the name of each docstring in it, and its text."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    module = ".".join(parts).removesuffix(".__init__")

    def walk(node, name):
        yield module, name, ast.get_docstring(node) or ""
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, (ast.ClassDef, ast.FunctionDef)):
                yield from walk(inner, f"{name}.{inner.name}")

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), module)


EXAMPLES = {
    name.removeprefix("minidl."): (module, text)
    for path in sorted(PACKAGE.rglob("*.py"))
    for module, name, text in docstrings(path)
    if ">>>" in text
}
"""The module and the text, by the name of the docstring."""


class Affine:
    """A layer of another style: it keeps its pass and its gradients."""

    def __init__(self, features, out):
        self.W, self.b = np.full((features, out), 0.5), np.zeros(out)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dy):
        self.dW, self.db = self.x.T @ dy, dy.sum(axis=0)
        return dy @ self.W.T


class Dense:
    """The same with dictionaries."""

    def __init__(self, features, out):
        self.params = {"W": np.full((features, out), 0.5), "b": np.zeros(out)}
        self.grads = {}

    def forward(self, x):
        self.x = x
        return x @ self.params["W"] + self.params["b"]

    def backward(self, dy):
        self.grads.update(W=self.x.T @ dy, b=dy.sum(axis=0))
        return dy @ self.params["W"].T


class Head:
    """The squared error in two calls."""

    def forward(self, x, y):
        self.error = x - y
        return np.sum(self.error**2) / 2

    def backward(self):
        return self.error


class Square(minidl.Layer):
    def forward(self, x, *, train=False):
        return x * x, lambda dy: 2 * dy * x


class Scale(minidl.Layer):
    def __init__(self, features):
        self.features = features


rng = np.random.default_rng(0)
x, logits = rng.normal(size=(10, 12)), rng.normal(size=(10, 5))


def conv(x, w, b, conv_param):
    return conv_param["stride"] * (x * w + b), (x, w, conv_param)


def conv_backward(dy, cache):
    x, w, conv_param = cache
    dy = conv_param["stride"] * dy
    return dy * w, dy * x, dy


def affine_model():
    return minidl.Sequential(minidl.Linear(12, 5), minidl.ReLU(), rng=0, dtype="float64")


def modules_of_torch():
    torch = pytest.importorskip("torch")
    kinds = {name: type(name, (torch.nn.Module,), {}) for name in ("TorchSquare", "TorchScale")}
    return {"Square": Square, "Scale": Scale, **kinds}


def training():
    model = affine_model()
    y = np.arange(10) % 5
    data = minidl.Dataset((x, y), (x, y))
    return {"model": model, "data": data, "loss": minidl.CrossEntropy(), "optimizer": minidl.Adam(model)}  # fmt: skip


GIVEN = {
    "dataset.Dataset.from_labels": lambda: {"x": np.zeros((3, 2))},
    "grid.points.keeping": lambda: {"path": "model.npz", "model": affine_model(), "metrics": {}},
    "layer.Sequential": lambda: {"x": np.zeros((2, 784), np.float32)},
    "saving.onnx.register": lambda: {"Scale": Scale},
    "parity.convert.register": modules_of_torch,
    "data.features.Predictor": training,
    "saving.runs.Checkpoint": training,
    "saving.safetensors": lambda: {
        "model": affine_model(),
        "safetensors": pytest.importorskip("safetensors.torch") and importlib.import_module("safetensors"),
    },
    "sklearn.classifier.MLPClassifier": lambda: {"X": np.repeat(x, 9, axis=0), "y": np.arange(90) % 2},
    "testing.cached.AdaptedLoss": lambda: {
        "mse": SimpleNamespace(loss=lambda y, x: np.sum((x - y) ** 2), gradient=lambda y, x: 2 * (x - y)),
        "head": Head(),
        "y": rng.normal(size=(10, 12)),
    },
    "parity.torch_random.TorchRandom": training,
    "testing.checks.check_pair": lambda: {"conv_forward": conv, "conv_backward": conv_backward, "settings": {"stride": 2}, "w": np.array(x), "b": np.array(x)},
}  # fmt: skip
"""The names that an example takes as given, beside those below; by the name of its docstring."""

COMMON = {
    **{name: getattr(minidl, name) for name in minidl.__all__},
    "minidl": minidl, "np": np, "check_layer": check_layer, "check_loss": check_loss,
    "check_pair": check_pair, "Affine": Affine, "Dense": Dense, "x": x, "logits": logits,
    "y": np.arange(10) % 5, "weight": np.ones(10),
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module, text = EXAMPLES[name]
    if "parity" in name:
        convert = pytest.importorskip("minidl.parity.convert")
        monkeypatch.setattr(convert, "COUNTERPARTS", dict(convert.COUNTERPARTS))
    if "onnx" in name:
        monkeypatch.setattr(minidl.onnx, "NODES", {**minidl.onnx.NODES})
    if "sklearn" in name:
        pytest.importorskip("sklearn")
    monkeypatch.setattr("minidl.saving.describe._REGISTERED", {})
    names = {**vars(importlib.import_module(module)), **COMMON, **GIVEN.get(name, dict)()}
    for example in doctest.DocTestParser().get_examples(text):
        if example.want:  # where an example shows no output, any output is right
            result = eval(compile(example.source, name, "eval"), names)
            assert repr(result) == example.want.rstrip("\n")
        else:
            exec(compile(example.source, name, "exec"), names)


def test_the_names_that_are_given_are_those_of_examples():
    assert len(EXAMPLES) > 10
    assert set(GIVEN) <= set(EXAMPLES)
