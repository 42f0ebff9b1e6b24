"""Step time of minidl against width, depth, batch and classes, beside its matrix products alone.

    python benchmarks/growth.py

Writes growth.json and growth.png, log-log, with the time of the same matrix products (forward and
backward) measured on this machine, and prints the share of their rate that a step reaches. One
thread, Adam, float32; the base point has batch 64, one hidden layer of 256, 26 classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.commands import ROOT
from harness.environment import environment, load
from harness.results import write_json
from harness.timing import Budget
from harness.workers import Case, Workers, play, workers
from workloads import step

from minidl.checks import require
from minidl.files import as_path
from minidl.view.cli import Parser, float_argument, int_argument, run_main
from minidl.view.plots import figure, save
from minidl.view.tables import Table

Axes = dict[str, tuple[int, ...]]

AXES: Axes = {
    "width": (16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
    "depth": (1, 2, 3, 5, 9),
    "batch": (1, 4, 16, 64, 256, 1024, 4096),
    "classes": (2, 10, 26, 100, 1000, 10_000, 32_000),
}
QUICK: Axes = {"width": (16, 256), "depth": (1, 3), "batch": (16, 64), "classes": (2, 100)}
BOUND = "matrix products"


def cases(axes: Axes) -> list[tuple[str, Case]]:
    """Return the points of each axis."""
    return [
        (axis, step.point(**{"width": 256, "classes": step.CLASSES, axis: value}))
        for axis, values in axes.items()
        for value in values
    ]


def measure(axis: str, case: Case, budget: Budget, pool: Workers) -> dict[str, Any]:
    """Return the times of a step and of its matrix products, and the share that is reached."""
    found = play(pool, "step", case, ["minidl", BOUND], budget)
    if found["refused"]:
        raise ValueError(f"refused: {found['refused']}")
    ours, bound = (found["contestants"][name] for name in ("minidl", BOUND))
    return {
        "axis": axis, "case": case, "step": ours["median"], "products": bound["median"],
        "share": 1 / bound["ratio"], "rounds": ours["rounds"], "values": ours["values"],
    }  # fmt: skip


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw a panel for each axis: the step, and the bound by its matrix products."""
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    picture = figure(4.2 * len(axes), 4.2)
    for panel, axis in zip(picture.subplots(1, len(axes), squeeze=False)[0], axes, strict=True):
        here = [row for row in rows if row["axis"] == axis]
        x = [row["case"][axis] for row in here]
        panel.loglog(x, [1e6 * row["step"] for row in here], "-o", label="step of minidl")
        panel.loglog(x, [1e6 * row["products"] for row in here], "--o", label=f"its {BOUND}")
        panel.set(xlabel=axis, ylabel="microseconds")
        panel.grid(alpha=0.3, which="both")
    handles, labels = panel.get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=2)
    picture.suptitle(
        "One training step: Adam, float32, one thread; batch 64, 256 units, 26 classes"
    )
    save(picture, path, describe(rows))


def describe(rows: list[dict[str, Any]]) -> str:
    """Return the contents of the picture as text."""
    shares = [row["share"] for row in rows]
    axes = ", ".join(dict.fromkeys(row["axis"] for row in rows))
    return (
        f"Time of one training step and of its {BOUND} against {axes}; "
        f"the share that is reached is {min(shares):.2f} to {max(shares):.2f}."
    )


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="two points on each axis")
    kind = float_argument("seconds", low=0, open_low=True)
    parser.add_argument("--seconds", type=kind, default=2.0, help="time box of a point (2)")
    parser.add_argument("--rounds", type=int_argument("rounds"), default=5, help="at least (5)")
    parser.add_argument("--out", type=as_path, default=ROOT / "runs" / "benchmarks")
    args = parser.parse_args()
    points = cases(QUICK if args.quick else AXES)
    table = Table(["axis", "value", "step", BOUND, "share"], "microseconds, one thread")
    rows, before = [], load()
    with workers(1) as pool:
        for axis, case in require("tqdm", "examples").tqdm(points, unit="point"):
            row = measure(axis, case, Budget(args.seconds, least=args.rounds), pool)
            rows.append(row)
            micros = [f"{1e6 * row[name]:.0f}" for name in ("step", "products")]
            table.add(axis, case[axis], *micros, f"{row['share']:.2f}")
    content = {"environment": environment(), "load": [before, load()], "rows": rows}
    write_json(args.out / "growth.json", content)
    draw(args.out / "growth.png", rows)
    table.show()
    print(f"wrote {args.out / 'growth.json'}, {args.out / 'growth.png'}")


if __name__ == "__main__":
    run_main(main)
