"""Draw softmax, sparsemax and relumax of two classes from their closed forms (Question 3).

K = 2 and z = (0, t): the probability of the second class and its derivative as functions of t,
with the library's values drawn over them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from homework.flags import add_axis, script_parser
from homework.runs import single_run

from minidl import relumax, softmax, sparsemax
from minidl.checks import Array
from minidl.maps import SimplexMap
from minidl.view.cli import run_main
from minidl.view.plots import figure, save
from minidl.view.tables import Table

T = np.linspace(-4, 4, 1601)


def closed_form(map: SimplexMap, t: Array) -> tuple[Array, Array]:
    """Return ``p_2`` and its derivative; 0 at a break beyond which a class has probability 0."""
    if map is softmax:
        p = np.exp(np.minimum(t, 0)) / (1 + np.exp(-np.abs(t)))
        return p, p * (1 - p)
    if isinstance(map, relumax):
        b, c = map.b, np.clip(t, -map.b, map.b)
        p = np.where(c <= 0, (c + b) / (2 * b + c), b / (2 * b - c))
        return p, np.where(np.abs(t) < b, b / (2 * b - np.abs(c)) ** 2, 0)
    return np.clip((t + 1) / 2, 0, 1), np.where(np.abs(t) < 1, 0.5, 0)


def main() -> None:
    parser = script_parser(__doc__, "runs/q3_closed_forms")
    add_axis(parser, "--b", [0.5, 1.0, 2.0], low=0, open_low=True)
    args = parser.parse_args()
    with single_run(args, names=()):
        draw(args.b, args.out)


def draw(bs: Sequence[float], out: Path) -> None:
    """Draw the maps for each b, and tabulate the largest differences."""
    table = Table(["b", "map", "function", "derivative"], "largest difference from the closed form")
    picture = figure(4.2 * len(bs), 6)
    rows = picture.subplots(2, len(bs), squeeze=False, sharex=True, sharey="row")
    for column, b in zip(rows.T, bs, strict=True):
        t = np.unique([*T, -b, 0, b])  # the breaks are among the points
        z = np.stack([np.zeros_like(t), t], axis=1)
        maps = {"softmax": softmax, "sparsemax": sparsemax, "relumax": relumax(b)}
        for i, (name, map) in enumerate(maps.items()):
            computed, cells = (map(z)[:, 1], map.jacobian(z)[:, 1, 1]), []
            for axes, form, ours in zip(column, closed_form(map, t), computed, strict=True):
                axes.plot(t, form, color=f"C{i}", label=f"{name}: closed form")
                axes.plot(t[::50], ours[::50], ".", color=f"C{i}", label="computed by the library")
                cells.append(f"{np.abs(form - ours).max():.1e}")
            table.add(f"{b:g}", name, *cells)
        for axes in column:
            for at in (-b, 0, b):
                axes.axvline(at, color="grey", linestyle=":", linewidth=1)
            axes.grid(alpha=0.3)
        column[0].set(title=f"b = {b:g}: breaks of relumax at -{b:g}, 0, {b:g}")
        column[1].set(xlabel="t, with z = (0, t)")
    rows[0, 0].legend(fontsize=7)
    rows[0, 0].set(ylabel="probability of the second class")
    rows[1, 0].set(ylabel="its derivative by t")
    description = (
        "The probability of the second class and its derivative against t, for softmax (smooth), "
        f"sparsemax (linear from -1 to 1) and relumax with b = {', '.join(f'{b:g}' for b in bs)} "
        "(0 up to -b, 1 from b); the values of the library lie on the closed forms."
    )
    for suffix in ("png", "pdf", "svg"):
        save(picture, out / f"closed-forms.{suffix}", description)
    table.show()
    table.write(out / "table")
    print(f"wrote the table and the picture, as PNG, PDF and SVG, to {out}/")


if __name__ == "__main__":
    run_main(main)
