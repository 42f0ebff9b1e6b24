"""Draw the house, and measure it: ``python docs/tools/house.py``.

The floors are those of the first contract of import-linter in ``pyproject.toml``: a file of the
core, or a wing, imports only from floors below its own. The picture is ``docs/house.svg``. The
table of ``docs/house.md`` says how many files and lines of the package a use reaches: by all
imports, also inside functions, except those for type checkers and the one of ``History.plot``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from importlinter.api import read_configuration
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "minidl"
PICTURE = ROOT / "docs" / "house.svg"
PAGE = ROOT / "docs" / "house.md"

EXCEPTION = "minidl.history", "minidl.view.plots"
"""The one import from the core into a wing: ``History.plot``, when it is called."""

USES = {
    "train a model: `fit`": "minidl.training",
    "save and load it: `save`, `load`": "minidl.saving.models",
    "go on after a kill: `Checkpoint`": "minidl.saving.runs",
    "check a layer: `check_layer`": "minidl.testing.checks",
    "train on one example at a time: `fit_online`": "minidl.online.fitting",
    "run a grid: `run`": "minidl.grid.runner",
}
"""What a user does, and the file where it begins."""

HEAD = "| to | files | lines |\n| --- | ---: | ---: |\n"


def core() -> list[Path]:
    """Return the files of the core."""
    return [path for path in sorted(PACKAGE.glob("*.py")) if path.name != "__init__.py"]


def lines(*paths: Path) -> int:
    """Count the lines of files, docstrings and empty lines included."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


# ---------------------------------------------------------------- imports


def sources(folder: Path, prefix: str = "") -> dict[str, Path]:
    """Return the modules below a folder by the names under which they are imported."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        found[".".join([prefix, *parts]).strip(".").removesuffix(".__init__")] = path
    return found


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the dotted names that a module imports, those for type checkers left out."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for other in node.orelse:
            yield from imported(other)
    else:
        for inner in ast.iter_child_nodes(node):
            yield from imported(inner)


def graph(modules: dict[str, Path]) -> dict[str, set[str]]:
    """Return the modules that each module imports, of those that are given."""
    arrows: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = set(imported(ast.parse(path.read_text(encoding="utf-8"))))
        known = {name if name in modules else name.rpartition(".")[0] for name in names}
        arrows[module] = known & set(modules) - {module}
    return arrows


def reached(arrows: dict[str, set[str]], start: str) -> set[str]:
    """Return the modules that a module needs: itself, what it imports, and what these import."""
    found, ahead = {start}, [start]
    while ahead:
        new = arrows[ahead.pop()] - found
        found |= new
        ahead.extend(new)
    return found


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Return the sets of modules that import one another, directly or through others."""
    ahead = {name: reached(arrows, name) for name in arrows}
    sets = [{other for other in ahead[name] if name in ahead[other]} for name in arrows]
    return [found for i, found in enumerate(sets) if len(found) > 1 and found not in sets[:i]]


# ---------------------------------------------------------------- the page


def measured() -> dict[str, tuple[int, int]]:
    """Return the files and lines that each use reaches, and those of the core."""
    modules = sources(PACKAGE, "minidl")
    arrows = graph(modules)
    arrows[EXCEPTION[0]].discard(EXCEPTION[1])
    rows = {"read the whole core": (len(core()), lines(*core()))}
    for use, start in USES.items():
        paths = [modules[name] for name in reached(arrows, start)]
        rows[use] = len(paths), lines(*paths)
    return rows


def table() -> str:
    """Return the table of the page; lines are rounded to hundreds."""
    rows = measured().items()
    return HEAD + "".join(f"| {use} | {n} | {round(m, -2):,} |\n" for use, (n, m) in rows)


def stated(page: str) -> dict[str, tuple[int, int]]:
    """Return what a page with the table says."""
    rows = re.findall(r"^\| (.+) \| (\d+) \| ([\d,]+) \|$", page, re.M)
    return {use: (int(n), int(m.replace(",", ""))) for use, n, m in rows}


# ---------------------------------------------------------------- the picture


def floors() -> list[list[str]]:
    """Return the names of each floor, the top floor first."""
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    return [str(layer).split(" | ") for layer in contracts[0]["layers"]]


def draw(path: Path) -> None:
    """Draw a row of boxes for each floor: the core on the ground, the wings above it."""
    names = {file.stem for file in core()}
    rows, width, height = floors(), 7.4, 0.42
    wings = sum(not names.intersection(row) for row in rows)
    top, ground = -0.7, -wings - 1.4
    """The upper edges of the first row of wings and of the first row of the core."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "house"}):
        bottom = ground - (len(rows) - wings) - 0.15
        picture = Figure((width, -height * bottom))
        axes = picture.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 1), ylim=(bottom, 0))
        axes.axis("off")
        band = Rectangle((0, bottom), 1, ground + 0.7 - bottom, facecolor="#eaf2fb", linewidth=0)
        axes.add_patch(band)
        for edge, title in (
            (top, "the wings: folders, each for one use"),
            (ground, "the core: plain files; begin at the bottom"),
        ):
            axes.text(0.012, edge + 0.33, title, va="center", fontsize=10, style="italic")
        for i, row in enumerate(rows):
            edge, inside = (top - i, False) if i < wings else (ground - i + wings, True)
            share = 0.98 / max(len(row), 4)
            left = 0.5 - share * len(row) / 2
            for j, name in enumerate(row):
                corner = left + j * share + 0.006, edge - 0.9
                patch = Rectangle(corner, share - 0.012, 0.8, edgecolor="#888888")
                patch.set_facecolor("#bcd6f0" if inside else "#f4f4f4")
                axes.add_patch(patch)
                word = f"{name}.py" if inside else f"{name}/"
                axes.text(
                    left + (j + 0.5) * share, edge - 0.5, word,
                    ha="center", va="center", fontsize=10,
                )  # fmt: skip
        picture.savefig(path, metadata={"Date": None})


def main() -> None:
    """Draw the picture, and write the table of the page."""
    draw(PICTURE)
    page = PAGE.read_text(encoding="utf-8")
    before, _, after = page.partition(HEAD)
    rest = after.split("\n\n", 1)[1]
    PAGE.write_text(f"{before}{table()}\n{rest}", encoding="utf-8")
    print(table(), end="")


if __name__ == "__main__":
    main()
