"""Pages and examples as notebooks: valid, complete, and executed as a reader would."""

import ast
import os
import sys
from pathlib import Path

import numpy as np
import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra docs)")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs" / "tools"))
notebooks = pytest.importorskip("notebooks")

GRID = "--data set.npz --widths 4 --learning-rates 0.01 --dropouts 0 --l2s 0 --epochs 1"
QUICK = {
    "ames_regression": "--epochs 2",
    "cluster": f"{GRID} --out runs/cluster",
    "fashion": "--data set.npz --epochs 1",
    "grade_question1": "",
    "homework_2025": "--data set.npz --epochs 1 --only 3.2",
    "infinite_convergence": "--data set.npz --rows 50 --widths 16 32 --steps 1 --networks 1 2 --seeds 1",
    "infinite_width": "--data set.npz --rows 100",
    "landscapes": "q2.1 --epochs 1",
    "own_layer": "",
    "q1_features": "--data set.npz --component-counts 3 --epochs 1",
    "q1_grid": "--data set.npz --epochs 1",
    "q1_logistic": "--data set.npz --epochs 1",
    "q1_losses": "--samples 50 --segments 50 --epochs 2",
    "q1_mlp": "--data set.npz --epochs 1 --width 8",
    "q1_perceptron": "--data set.npz --epochs 1",
    "q2_depth": "--data set.npz --layers 1 2 --widths 4 --epochs 1",
    "q2_warmup": "-data_path set.npz -epochs 1",
    "q2_width": GRID,
    "q3_closed_forms": "",
    "q3_properties": "",
    "q3_train": "--data set.npz --widths 8 --learning-rates 0.01 --dropouts 0 --epochs 1",
    "quadratic_network": "--starts 1 --steps 50",
    "quickstart": "",
    "regression": "",
    "report": "",
    "resume": "",
    "sklearn_pipeline": "",
}  # fmt: skip
"""Arguments of an example that make it short; ``report`` comes after those that it reports."""


def test_all_are_valid_and_complete(tmp_path):
    files = notebooks.write_all(tmp_path)
    scripts = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert {path.stem for path in files} == scripts | set(notebooks.GUIDE)
    for path in files:
        made = nbformat.read(path, 4)
        nbformat.validate(made)
        cells = [cell.source for cell in made.cells if cell.cell_type == "code"]
        code = "\n".join(cells)
        assert [ast.parse(cell) for cell in cells]
        if path.stem in scripts - set(notebooks.GUIDE):
            source = (ROOT / "examples" / f"{path.stem}.py").read_text(encoding="utf-8")
            assert cells[-1] == "main()"
            source = source.partition('\nif __name__ == "__main__":')[0]
            lost = set(source.splitlines()) - set(code.splitlines())
            about = ast.get_docstring(ast.parse(source)) or ""
            assert {line.strip('"') for line in lost} <= {*about.splitlines(), ""}


def test_blocks_of_python_are_cells_and_no_other():
    made = notebooks.read_page("# A\n\n```python\nx = 1\n```\n\n```sh\nls\n```\n\nend\n")
    assert [(cell.cell_type, cell.source) for cell in made.cells] == [
        ("markdown", "# A"), ("code", "x = 1"), ("markdown", "```sh\nls\n```\n\nend"),
    ]  # fmt: skip


FORGET = """\
kept = {"In", "Out", "exit", "quit", "open", "get_ipython"}
for name in [name for name in globals() if name[0] != "_" and name not in kept]:
    del globals()[name]
"""


@pytest.mark.slow(seconds=25)
def test_every_example_runs_as_a_notebook(tmp_path, monkeypatch):
    """In one kernel, which forgets all names before each; the pages are executed by the site.

    MINIDL_WHOLE=1 takes all, a minute; here those of other kinds: processes, a report, ``__file__``.
    """
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra docs)")
    assert set(QUICK) == {path.stem for path in (ROOT / "examples").glob("*.py")}
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'examples'}")
    rng, content = np.random.default_rng(0), {}
    for part, n in (("train", 200), ("valid", 40), ("test", 40)):
        content[f"X_{part}"] = rng.integers(0, 256, (n, 784)).astype(np.uint8)
        content[f"y_{part}"] = np.resize(np.arange(10), n)
    np.savez(tmp_path / "set.npz", **content)
    cells, silent = [], []
    sample = "fashion", "homework_2025", "landscapes", "own_layer", "q2_width", "report", "resume"
    for name in sorted(QUICK) if os.environ.get("MINIDL_WHOLE") else sample:
        source = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
        made = notebooks.read_script(source, name, *QUICK[name].split())
        first = len(cells)
        cells += [nbformat.v4.new_code_cell(FORGET), *made.cells]
        silent.append((name, first, len(cells)))
    book = notebooks.notebook(cells)
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()  # fmt: skip
    for name, first, end in silent:
        assert any(cell.get("outputs") for cell in book.cells[first:end]), name
