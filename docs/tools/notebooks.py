"""Pages and examples as notebooks: ``python docs/tools/notebooks.py OUT`` writes them.

The site reads its pages by ``read_page``, executes their code and shows what it prints and draws. A
page stays Markdown that any viewer shows: each block marked ``python`` is a cell.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import re
from pathlib import Path
from typing import Any

import nbformat as _nbformat

nbformat: Any = _nbformat  # it has no types
DOCS = Path(__file__).resolve().parents[1]
EXAMPLES = DOCS.parent / "examples"
GUIDE = (
    "index", "start", "training", "losses", "schedules", "progress", "plotting", "imbalance",
    "tables", "regression", "layers", "gradient-checks", "sparse", "online", "resume", "sklearn",
    "interchange", "reproducibility",
)  # fmt: skip
"""The pages whose output is shown, and that can be downloaded as notebooks."""

ARGUMENTS = {"ames_regression": ["linear"], "fashion": ["perceptron"], "report": ["runs"]}
"""What a script must be given; the others run without arguments."""

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
BLOCK = re.compile(r"^```python\n(.*?)^```\n?", re.M | re.S)


def notebook(cells: list[Any]) -> Any:
    """Return a notebook of cells that are not empty, numbered in order."""
    cells = [cell for cell in cells if cell.source.strip()]
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i}"
    return nbformat.v4.new_notebook(cells=cells, metadata=KERNEL)


def read_page(text: str) -> Any:
    """Return a page as a notebook: its blocks of Python are the cells of code."""
    parts = BLOCK.split(text)
    new = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    return notebook([new[i % 2](part.strip("\n")) for i, part in enumerate(parts)])


def read_script(text: str, name: str, *arguments: str) -> Any:
    """Return a script as a notebook: its docstring is the text, each definition a cell.

    The last cell calls ``main`` as the command with ``ARGUMENTS``, and more, in one process.
    """
    tree, lines = ast.parse(text), text.splitlines()
    starts = [
        min(node.lineno, *(d.lineno for d in getattr(node, "decorator_list", [])), 10**9) - 1
        for node in tree.body[1:]
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.If))
    ]
    bounds = [tree.body[0].end_lineno or 1, *starts, len(lines)]
    code = ["\n".join(lines[a:b]).strip("\n") for a, b in itertools.pairwise(bounds)]
    code[-1] = "main()"  # in place of the lines that only a command needs
    jobs = ["--jobs", "1"] if re.search(r'"--jobs"|(base|make)_parser\(', text) else []
    argv = [f"{name}.py", *ARGUMENTS.get(name, []), *jobs, *arguments]
    folder = "sys.path.append('examples')  # the folder of the scripts, for what they share"
    if "__file__" in text:  # which a notebook does not have
        folder += f"\nimport homework\n__file__ = homework.__path__[0] + '/../{name}.py'"
    code[0] = f"import sys\n\nsys.argv = {argv}\n{folder}\n\n{code[0]}"
    about = nbformat.v4.new_markdown_cell(ast.get_docstring(tree) or "")
    return notebook([about, *map(nbformat.v4.new_code_cell, code)])


def write_all(out: Path) -> list[Path]:
    """Write the pages of the guide and the examples; return the files."""
    out.mkdir(parents=True, exist_ok=True)
    found = {name: read_page((DOCS / f"{name}.md").read_text(encoding="utf-8")) for name in GUIDE}
    for path in sorted(EXAMPLES.glob("*.py")):
        found[path.stem] = read_script(path.read_text(encoding="utf-8"), path.stem)
    for name, made in found.items():
        nbformat.write(made, out / f"{name}.ipynb")
    return [out / f"{name}.ipynb" for name in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    files = write_all(parser.parse_args().out)
    print(f"wrote {len(files)} notebooks")


if __name__ == "__main__":
    main()
