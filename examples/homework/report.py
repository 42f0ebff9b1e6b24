"""Tables and pictures of a finished grid of networks."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from homework.backends import plot_parity, print_parity
from homework.figures import COLUMNS
from homework.published import tabulate_published
from minidl.dataset import Dataset
from minidl.files import to_json, write_text
from minidl.grid.points import Point, Result
from minidl.history import History
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

FIGURES = {
    "best_valid_accuracy": "validation accuracy, best epoch",
    "best_train_accuracy": "training accuracy, best epoch",
    "best_test_accuracy": "test accuracy, best epoch",
    "final_train_accuracy": "training accuracy, last epoch",
    "test_accuracy": "test accuracy, last epoch",
}
"""The figures of the best run that are printed."""
CURVES = {
    "final training accuracy": "final_train_accuracy",
    "best validation accuracy": "best_valid_accuracy",
}
"""The figures that are drawn against an axis, by their labels."""
PUBLISHED_AS = {
    "best_valid": "best_valid_accuracy",
    "train": "best_train_accuracy",
    "test": "best_test_accuracy",
    "last_train": "final_train_accuracy",
}
"""Figures by their names in ``published.py``."""


def best_of(results: Sequence[Result]) -> Result | None:
    """Return the run with the highest validation accuracy, the first of equals."""
    finished = [r for r in results if r.error is None]
    return max(finished, key=lambda r: float(r.values["best_valid_accuracy"]), default=None)


def best_of_each(axis: str, results: Sequence[Result]) -> list[Result]:
    """Return the best run of each value of an axis, where one has finished."""
    values = dict.fromkeys(r.point[axis] for r in results)
    best = [best_of([r for r in results if r.point[axis] == value]) for value in values]
    return [r for r in best if r is not None]


def tabulate(dataset: Dataset, results: Sequence[Result], *, axis: str, out: Path) -> None:
    """Print and write the table of all runs; mark the best run of each value of ``axis``.

    The first figure is the best validation accuracy; it shows the error of a run that failed.
    """
    table = Table([*results[0].point, *COLUMNS, "seconds"], f"{dataset.title}: accuracies")
    choice = len({r.point[axis] for r in results}) < len(results)
    best = best_of_each(axis, results) if choice else [best_of(results)]
    for value in dict.fromkeys(r.point[axis] for r in results):
        for r in (r for r in results if r.point[axis] == value):
            cells = [r.values.get(key) for key in COLUMNS.values()]
            setting = [v if isinstance(v, str) else f"{v:g}" for v in r.point.values()]
            cells = [r.error or cells[0], *cells[1:], f"{r.seconds:.1f}"]
            table.add(*setting, *cells, marked=r in best)
        table.end_group()
    table.show()
    print(f"* the best of each {axis}" if choice else "* the best validation accuracy")
    table.write(out / "table")
    failed = sum(r.error is not None for r in results)
    if failed:
        print(f"{failed} of {len(results)} runs failed; the table says why")
    unsaved = [r.unsaved for r in results if r.unsaved]
    if unsaved:
        print(f"{len(unsaved)} of {len(results)} models could not be saved: {unsaved[0]}")


def show_best(dataset: Dataset, results: Sequence[Result], out: Path) -> Result | None:
    """Print and write the figures of the best run of all, and draw its curves; return the run."""
    best = best_of(results)
    if best is None:
        return None
    name = describe(best.point)
    print(f"best on {dataset.title}: {name}")
    for key, words in FIGURES.items():
        print(f"  {words:<36}{best.values[key]:.4f}")
    figures = {key: best.values[key] for key in FIGURES}
    write_text(out / "scores.json", to_json({**best.point, **figures}, indent=1) + "\n")
    title = f"{dataset.title}\n{name}"
    History.from_dict(best.values["history"]).plot(out / "best-curves", title=title)
    if "beside" in best.values:
        plot_parity(out / "parity.png", *histories(best), title)
        print_parity([histories(r) for r in results if "beside" in r.values])
    return best


def describe(point: Point) -> str:
    """Return the values of a point in words, as ``width 256, learning rate 0.001``."""
    words = {k.replace("_", " "): v if isinstance(v, str) else f"{v:g}" for k, v in point.items()}
    return ", ".join(f"{k} {v}" for k, v in words.items())


def histories(result: Result) -> tuple[History, History]:
    """Return the histories of both libraries."""
    return (
        History.from_dict(result.values["history"]),
        History.from_dict(result.values["beside"]),
    )


def show_published(dataset: Dataset, results: Sequence[Result], args: argparse.Namespace) -> None:
    """Write a table of published figures beside ours, where the settings match."""
    runs = []
    for r in results:
        if r.error is None and r.point.get("network", "plain") == "plain":
            settings = {"layers": 1, "optimizer": args.optimizer, "batch_size": args.batch_size}
            settings |= {**r.point, "epochs": len(r.values["history"]["records"]) - 1}
            figures = {ours: r.values[key] for ours, key in PUBLISHED_AS.items()}
            runs.append((settings, figures))
    tabulate_published("network", runs, dataset, args.out)


def plot_by_axis(
    dataset: Dataset,
    results: Sequence[Result],
    *,
    axis: str,
    xlabel: str,
    out: Path,
    levels: Mapping[str, float] | None = None,
) -> None:
    """Draw the accuracies of the best run of each value of an axis; ``levels`` are lines."""
    best = best_of_each(axis, results)
    if not best:
        return
    ticks = [r.point[axis] for r in best]
    lines = {label: (ticks, [r.values[key] for r in best]) for label, key in CURVES.items()}
    levels = levels or {}
    lines |= {label: (ticks, [level] * len(ticks)) for label, level in levels.items()}
    title = f"{dataset.title}\nbest of each"
    label = "accuracy (share of examples)"
    panel = Panel(lines, xlabel, label, title, ticks, dashed=list(levels))
    line_plot(out / f"accuracy-by-{axis}", panel)
