"""Pages and examples as notebooks: valid, complete, and executed as a reader would."""

import ast
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra docs)")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs" / "tools"))
notebooks = pytest.importorskip("notebooks")

EXECUTED = ("own_layer", "quickstart", "regression", "q3_properties", "resume")
"""Examples that take seconds; the pages of the guide are executed when the site is built."""


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


@pytest.mark.slow
@pytest.mark.parametrize("name", EXECUTED)
def test_an_example_runs_as_a_notebook(name, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra docs)")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'examples'}")
    source = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    made = notebooks.read_script(source, f"{name}.py")
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(made, timeout=300, resources=where).execute()
    assert any(cell.get("outputs") for cell in made.cells)
