"""``import minidl``: what it needs, loads and exports; messages for missing extras."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minidl

BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(f"no {{name}} here")

sys.meta_path.insert(0, Blocker())
"""
OPTIONAL = {
    "matplotlib",
    "tqdm",
    "rich",
    "threadpoolctl",
    "torch",
    "hypothesis",
    "dask",
    "scipy",
    "sklearn",
    "onnx",
}


def python(code, blocked=OPTIONAL):
    command = [sys.executable, "-c", BLOCK.format(blocked=set(blocked)) + code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_numpy_is_all_that_import_minidl_needs():
    done = python(
        "import minidl, sys\n"
        "third = {m.partition('.')[0] for m in sys.modules if 'site-packages' in str(getattr(sys.modules[m], '__file__', ''))}\n"
        "print(sorted(third - {'minidl', 'numpy'}))"
    )
    assert done.stderr == ""
    assert [m for m in eval(done.stdout) if not m.startswith("_")] == []


def test_rarely_used_modules_are_not_loaded():
    done = python(
        "import sys, numpy; numpy.linalg; before = set(sys.modules)\n"
        "import minidl; print(set(sys.modules) - before)"
    )
    loaded = eval(done.stdout)
    assert "minidl.training" in loaded
    slow = {"hashlib", "numpy.random", "tempfile", "urllib.request", "zipfile"}
    wings = {"data", "grid", "online", "parity", "saving", "sklearn", "testing", "view"}
    assert not loaded & (slow | {f"minidl.{name}" for name in wings})


def test_type_checkers_and_python_see_the_same_names():
    """The imports, those under ``TYPE_CHECKING``, the table of lazy names, and ``__all__``."""

    def imported(nodes):
        found = [
            n for n in nodes if isinstance(n, ast.ImportFrom) and n.module.startswith("minidl")
        ]
        return {a.asname or a.name: f"{n.module}.{a.name}" for n in found for a in n.names}

    tree = ast.parse(Path(minidl.__file__).read_text(encoding="utf-8"))
    lazy = imported(next(node for node in tree.body if isinstance(node, ast.If)).body)
    table = {name: f"minidl.{module}" for name, module in minidl._MODULES.items()}
    for module, names in minidl._NAMES.items():
        table |= {name: f"minidl.{module}.{name}" for name in names}
    assert lazy == table
    assert {*imported(tree.body), *lazy} - {"sklearn"} == set(minidl.__all__)
    assert len(set(minidl.__all__)) == len(minidl.__all__)
    for name, message in minidl._GONE.items():
        with pytest.raises(AttributeError, match=f"no attribute '{name}'{re.escape(message)}"):
            getattr(minidl, name)


def test_every_public_name_is_reachable():
    """Without any optional package, and in a process where nothing else was imported."""
    done = python(
        "import minidl\n"
        "print(sorted(type(getattr(minidl, name)).__name__ for name in minidl.__all__) != [])\n"
        "print(dir(minidl) == sorted(minidl.__all__), hasattr(minidl, 'Lienar'))\n"
        "print(minidl.PCA(2), minidl.grid.runner.run.__name__, minidl.testing.checks.check_layer.__name__)\n"
        "print(minidl.Checkpoint.__name__, minidl.safetensors.load.__name__)\n"
        "from minidl import *\n"
        "print(Optimizer.__name__, Loss.__name__, Split.__name__, TorchRandom(3), Cosine(1, 2))"
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "True",
        "True False",
        "PCA(2) run check_layer",
        "Checkpoint load",
        "Optimizer Loss Split TorchRandom(3) Cosine(lr=1, steps=2, final=0.0)",
    ]


def test_training_needs_nothing_else():
    done = python(
        "import minidl, numpy as np\n"
        "x, y = np.eye(4), np.arange(4)\n"
        "model = minidl.Sequential(minidl.Linear(4, 4), rng=0, dtype='float64')\n"
        "data = minidl.Dataset((x, y), (x, y))\n"
        "h = minidl.fit(model, data, minidl.CrossEntropy(), minidl.Adam(model, 0.1), epochs=50, rng=0)\n"
        "print(h.best.valid_accuracy)"
    )
    assert (done.stdout, done.stderr) == ("1.0\n", "")


def test_a_missing_extra_is_named():
    for code, package in (
        (
            "from minidl.view.plots import Panel, line_plot; line_plot('x.png', Panel({}, 'x', 'y'))",
            "matplotlib",
        ),
        (
            "minidl.Progress().on_start(type('R', (), {'history': [], 'batches': 1, 'epochs': 1}))",
            "tqdm",
        ),
        (
            "from minidl.grid import Grid, run; run(Grid(a=[1]), dict, out='/nonexistent')",
            "threadpoolctl",
        ),
        ("from minidl.view.tables import Table; Table(['a']).show()", "rich"),
    ):
        done = python(f"import minidl\ntry:\n    {code}\nexcept ImportError as e:\n    print(e)")
        assert f"{package} is needed for this: pip install 'minidl[examples]'" in done.stdout, code


def test_a_missing_extra_has_its_own_name():
    model = "minidl.Sequential(minidl.Linear(1, 1), rng=0)"
    for code, package in (
        ("minidl.sklearn.classifier.MLPClassifier", "sklearn"),
        (f"minidl.onnx.export('x.onnx', {model})", "onnx"),
    ):
        done = python(f"import minidl\ntry:\n    {code}\nexcept ImportError as e:\n    print(e)")
        assert f"{package} is needed for this: pip install 'minidl[{package}]'" in done.stdout
