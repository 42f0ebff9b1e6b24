"""Tables and pictures of a finished grid of networks."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from homework.figures import HEADINGS, WORDS
from homework.networks import show_parity
from homework.published import in_words, tabulate_published
from minidl import Dataset, History
from minidl.files import to_json, write_text
from minidl.grid.points import Result
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table

XLABELS = {"width": "width (hidden units)", "layers": "depth (hidden layers)"}


class ByAxis(NamedTuple):
    """The best run of each value of the first axis, where one has finished, and its accuracies."""

    runs: list[Result]
    x: list[int]
    train: list[float]  # of the last epoch
    valid: list[float]  # of the best epoch


def best_of(results: Sequence[Result]) -> Result | None:
    """Return the run with the highest validation accuracy, the first of equals."""
    finished = [r for r in results if r.error is None]
    return max(finished, key=lambda r: float(r.values["best_valid"]), default=None)


def by_axis(results: Sequence[Result]) -> ByAxis:
    """Return the best runs along the first axis of their grid."""
    groups: dict[int, list[Result]] = {}
    for r in results:
        groups.setdefault(next(iter(r.point.values())), []).append(r)
    best = {value: run for value, group in groups.items() if (run := best_of(group))}
    train, valid = (
        [float(r.values[k]) for r in best.values()] for k in ("last_train", "best_valid")
    )
    return ByAxis(list(best.values()), list(best), train, valid)


def tabulate(dataset: Dataset, results: Sequence[Result], args: argparse.Namespace) -> None:
    """Print and write the table of all runs, and that of published figures.

    The best run of each value of the first axis is marked; the error of one that failed is shown.
    """
    axis, published = next(iter(results[0].point)), []
    table = Table([*results[0].point, *HEADINGS, "seconds"], f"{dataset.title}: accuracies")
    choice = len({r.point[axis] for r in results}) < len(results)
    best = by_axis(results).runs if choice else [best_of(results)]
    known = {"layers": 1, "optimizer": args.optimizer, "batch_size": args.batch_size}
    for r, following in zip_longest(results, results[1:]):
        setting = [v if isinstance(v, str) else f"{v:g}" for v in r.point.values()]
        first, *others = (r.values.get(key) for key in WORDS)
        table.add(*setting, r.error or first, *others, f"{r.seconds:.1f}", marked=r in best)
        if following is None or following.point[axis] != r.point[axis]:
            table.end_group()
        if r.error is None and r.point.get("network", "plain") == "plain":
            epochs = len(r.values["history"]["records"]) - 1
            published.append(({**known, **r.point, "epochs": epochs}, r.values))
    table.show()
    print(f"* the best of each {axis}" if choice else "* the best validation accuracy")
    table.write(args.out / "table")
    tabulate_published("network", published, dataset, args.out)
    failed, n = sum(r.error is not None for r in results), len(results)
    if failed:
        print(f"{failed} of {n} runs failed; the table says why")
    if unsaved := [r.unsaved for r in results if r.unsaved]:
        print(f"{len(unsaved)} of {n} models could not be saved: {unsaved[0]}")


def show_best(dataset: Dataset, results: Sequence[Result], out: Path) -> Result | None:
    """Print and write the figures of the best run of all, and draw its curves; return the run."""
    best = best_of(results)
    if best is None:
        return None
    name = in_words(best.point)
    print(f"best on {dataset.title}: {name}")
    figures = {key: best.values[key] for key in WORDS if key != "selected_epoch"}
    for key, value in figures.items():
        print(f"  {WORDS[key]:<36}{value:.4f}")
    write_text(out / "scores.json", to_json({**best.point, **figures}, indent=1) + "\n")
    title = f"{dataset.title}\n{name}"
    History.from_dict(best.values["history"]).plot(out / "best-curves", title=title)
    if "beside" in best.values:
        others = [r for r in results if "beside" in r.values and r is not best]
        show_parity(out / "parity.png", [histories(r) for r in (best, *others)], title)
    return best


def histories(result: Result) -> tuple[History, History]:
    """Return the histories of both libraries."""
    ours, theirs = (History.from_dict(result.values[key]) for key in ("history", "beside"))
    return ours, theirs


def plot_by_axis(
    dataset: Dataset,
    kinds: Mapping[str, ByAxis],
    out: Path,
    levels: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Draw the accuracies along an axis for each kind of network; ``levels`` are lines."""
    lines: dict[str, tuple[list[int], list[float]]] = {}
    ticks = sorted({tick for best in kinds.values() for tick in best.x})
    if not ticks:
        return
    for kind, best in kinds.items():
        before = f"{kind}: " if kind else ""
        lines[f"{before}final training accuracy"] = best.x, best.train
        lines[f"{before}best validation accuracy"] = best.x, best.valid
        axis = next(iter(best.runs[0].point))
    pairs = len(kinds) > 1
    dashed = [label for label in lines if pairs and "training" in label] + list(levels)
    lines |= {label: (ticks, [level] * len(ticks)) for label, level in levels.items()}
    title, label = f"{dataset.title}\nbest of each", "accuracy (share of examples)"
    panel = Panel(lines, XLABELS[axis], label, title, ticks, dashed=dashed, pairs=pairs)
    line_plot(out / f"accuracy-by-{axis}", panel)
