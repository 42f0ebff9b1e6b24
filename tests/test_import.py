"""What ``import minidl`` needs, and what is said when something optional is missing."""

import subprocess
import sys

BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(f"no {{name}} here")

sys.meta_path.insert(0, Blocker())
"""
OPTIONAL = {"matplotlib", "tqdm", "rich", "threadpoolctl", "torch", "hypothesis", "dask", "scipy"}


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
            "from minidl.plots import Panel, line_plot; line_plot('x.png', Panel({}, 'x', 'y'))",
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
        ("from minidl.tables import Table; Table(['a']).show()", "rich"),
    ):
        done = python(f"import minidl\ntry:\n    {code}\nexcept ImportError as e:\n    print(e)")
        assert f"{package} is needed for this: pip install 'minidl[examples]'" in done.stdout, code
