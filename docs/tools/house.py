"""Draw the floors of the package as ``docs/house.svg``: ``python docs/tools/house.py``.

The floors are those of import-linter's first contract in ``pyproject.toml``, which the tests hold:
a module imports only from floors below its own.
"""

from pathlib import Path

import matplotlib
from importlinter.api import read_configuration
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "house.svg"
CORE = {
    "activations", "callbacks", "contract", "evaluation", "history", "init", "layer", "layers",
    "losses", "metrics", "optim", "parameter", "schedules", "simplex", "simplex_map", "state",
    "thresholds", "training", "vectors",
}  # fmt: skip
"""The modules that a reader of the training core meets."""


def floors() -> list[list[str]]:
    """Return the names of the modules of each floor, the top floor first."""
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    rows = [str(layer).split(" | ") for layer in contracts[0]["layers"]]
    return [[name.removeprefix("minidl.") for name in row] for row in rows]


def draw(path: Path) -> None:
    """Draw a row of boxes for each floor; the core is blue."""
    rows, width, height = floors(), 8.4, 0.42
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "house"}):
        picture = Figure((width, height * len(rows)))
        axes = picture.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 1), ylim=(-len(rows), 0))
        axes.axis("off")
        for i, row in enumerate(rows):
            letters = [len(name) + 3 for name in row]
            share = min(1.0, sum(letters) / 82)
            left = (1 - share) / 2
            for name, count in zip(row, letters, strict=True):
                box = share * count / sum(letters)
                color = "#cfe2f3" if name in CORE else "#eeeeee"
                corner = left + 0.003, -i - 0.9
                patch = Rectangle(corner, box - 0.006, 0.8, facecolor=color, edgecolor="#888888")
                axes.add_patch(patch)
                axes.text(left + box / 2, -i - 0.5, name, ha="center", va="center", fontsize=10)
                left += box
        picture.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    draw(PICTURE)
