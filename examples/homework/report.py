"""Tables and pictures of a finished grid of networks."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from homework.backends import plot_parity, print_parity
from minidl.data import Dataset
from minidl.grid import Point, Result
from minidl.history import History
from minidl.plots import Panel, line_plot
from minidl.tables import Table

Published = Mapping[tuple[float, ...], float]
"""Published validation accuracies by the values of a point."""


def best_of(results: Sequence[Result]) -> Result | None:
    """Return the run with the highest validation accuracy, the first of equals."""
    finished = [r for r in results if r.error is None]
    return max(finished, key=lambda r: float(r.values["best_valid_accuracy"]), default=None)


def best_of_each(axis: str, results: Sequence[Result]) -> list[Result]:
    """Return the best run of each value of an axis, where one has finished."""
    values = dict.fromkeys(r.point[axis] for r in results)
    best = [best_of([r for r in results if r.point[axis] == value]) for value in values]
    return [r for r in best if r is not None]


def tabulate(
    dataset: Dataset,
    results: Sequence[Result],
    columns: Mapping[str, str],
    *,
    axis: str,
    out: Path,
    published: Published | None = None,
) -> None:
    """Print and write the table of all runs; mark the best run of each value of ``axis``.

    ``columns`` gives for each heading the figure that it shows. The first must be the best
    validation accuracy; it shows the error of a run that failed.
    """
    headings = [*results[0].point, *columns, "seconds", *(["published"] if published else [])]
    table = Table(headings, f"{dataset.title}: accuracies")
    choice = len({r.point[axis] for r in results}) < len(results)
    best = best_of_each(axis, results)
    for value in dict.fromkeys(r.point[axis] for r in results):
        for r in results:
            if r.point[axis] == value:
                cells = [r.values.get(key) for key in columns.values()]
                cells = [r.error or cells[0], *cells[1:], f"{r.seconds:.1f}"]
                if published:
                    cells.append(published.get(tuple(r.point.values())))
                setting = [f"{v:g}" for v in r.point.values()]
                table.add(*setting, *cells, marked=r in best and choice)
        table.end_group()
    table.show()
    if choice:
        print(f"* the best of each {axis}")
    table.write(out / "table")
    failed = sum(r.error is not None for r in results)
    if failed:
        print(f"{failed} of {len(results)} runs failed; the table says why")
    if published:
        _print_difference(results, published)


def _print_difference(results: Sequence[Result], published: Published) -> None:
    gaps = [
        abs(published[key] - r.values["best_valid_accuracy"])
        for r in results
        if (key := tuple(r.point.values())) in published and not r.error
    ]
    mean = f"{np.mean(gaps):.4f}" if gaps else "no run in common"
    print(f"mean absolute difference from the published accuracies: {mean} ({len(gaps)} runs)")


def show_best(dataset: Dataset, results: Sequence[Result], out: Path) -> None:
    """Print the figures of the best run of all and draw its curves."""
    best = best_of(results)
    if best is None:
        return
    name = describe(best.point)
    print(f"best on {dataset.title}: {name}")
    for key in ("best_valid_accuracy", "test_accuracy", "final_train_accuracy"):
        print(f"  {key.replace('_', ' '):<22}{best.values[key]:.4f}")
    title = f"{dataset.title}: {name}"
    History.from_dict(best.values["history"]).plot(out / "best-curves.png", title=title)
    if "beside" in best.values:
        plot_parity(out / "parity.png", *histories(best), title)
        print_parity([histories(r) for r in results if "beside" in r.values])


def describe(point: Point) -> str:
    """Return the values of a point in words, as ``width 256, learning rate 0.001``."""
    return ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in point.items())


def histories(result: Result) -> tuple[History, History]:
    """Return the histories of both libraries."""
    return (
        History.from_dict(result.values["history"]),
        History.from_dict(result.values["beside"]),
    )


def plot_by_axis(
    dataset: Dataset,
    results: Sequence[Result],
    curves: Mapping[str, str],
    *,
    axis: str,
    xlabel: str,
    out: Path,
) -> None:
    """Draw figures of the best run of each value of an axis.

    ``curves`` gives for each label the figure that it shows.
    """
    best = best_of_each(axis, results)
    if not best:
        return
    ticks = [r.point[axis] for r in best]
    lines = {label: (ticks, [r.values[key] for r in best]) for label, key in curves.items()}
    title = f"{dataset.title}\nbest of each"
    panel = Panel(lines, xlabel, "accuracy (share of examples)", title, ticks)
    line_plot(out / f"accuracy-by-{axis}.png", panel)


def read_published(path: Path) -> Published:
    """Read accuracies by (width, learning rate, dropout, L2) from the CSV of a report."""
    keys = ("hidden_size", "learning_rate", "dropout", "l2")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [k for k in (*keys, "best_valid_acc") if k not in (reader.fieldnames or ())]
        if missing:
            found = ", ".join(reader.fieldnames or ()) or "nothing"
            raise ValueError(f"{path}: missing columns {', '.join(missing)}; found {found}")
        return {
            tuple(float(row[key]) for key in keys): float(row["best_valid_acc"]) for row in reader
        }
