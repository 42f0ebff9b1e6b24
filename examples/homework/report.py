"""Tables and pictures of a finished grid of networks."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from homework.figures import HEADINGS, WORDS
from homework.networks import show_parity
from homework.published import in_words, tabulate_published
from minidl import Dataset, History
from minidl.files import to_json, write_text
from minidl.grid.points import Result
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table


def best_of(results: Sequence[Result]) -> Result | None:
    """Return the run with the highest validation accuracy, the first of equals."""
    finished = [r for r in results if r.error is None]
    return max(finished, key=lambda r: float(r.values["best_valid"]), default=None)


def best_of_each(axis: str, results: Sequence[Result]) -> list[Result]:
    """Return the best run of each value of an axis, where one has finished."""
    values = dict.fromkeys(r.point[axis] for r in results)
    best = [best_of([r for r in results if r.point[axis] == value]) for value in values]
    return [r for r in best if r is not None]


def tabulate(
    dataset: Dataset, results: Sequence[Result], args: argparse.Namespace, *, axis: str
) -> None:
    """Print and write the table of all runs; mark the best run of each value of ``axis``.

    The first figure is the best validation accuracy; it shows the error of a run that failed. The
    table of published figures is written too.
    """
    table = Table([*results[0].point, *HEADINGS, "seconds"], f"{dataset.title}: accuracies")
    values = dict.fromkeys(r.point[axis] for r in results)
    choice, published = len(values) < len(results), []
    best = best_of_each(axis, results) if choice else [best_of(results)]
    known = {"layers": 1, "optimizer": args.optimizer, "batch_size": args.batch_size}
    for value in values:
        for r in (r for r in results if r.point[axis] == value):
            setting = [v if isinstance(v, str) else f"{v:g}" for v in r.point.values()]
            first, *others = (r.values.get(key) for key in WORDS)
            table.add(*setting, r.error or first, *others, f"{r.seconds:.1f}", marked=r in best)
            if r.error is None and r.point.get("network", "plain") == "plain":
                epochs = len(r.values["history"]["records"]) - 1
                published.append(({**known, **r.point, "epochs": epochs}, r.values))
        table.end_group()
    table.show()
    print(f"* the best of each {axis}" if choice else "* the best validation accuracy")
    table.write(args.out / "table")
    tabulate_published("network", published, dataset, args.out)
    failed, n = sum(r.error is not None for r in results), len(results)
    if failed:
        print(f"{failed} of {n} runs failed; the table says why")
    unsaved = [r.unsaved for r in results if r.unsaved]
    if unsaved:
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
    pairs = [histories(r) for r in results if "beside" in r.values and r is not best]
    if "beside" in best.values:
        show_parity(out / "parity.png", [histories(best), *pairs], title)
    return best


def histories(result: Result) -> tuple[History, History]:
    """Return the histories of both libraries."""
    ours, theirs = (History.from_dict(result.values[key]) for key in ("history", "beside"))
    return ours, theirs


def plot_by_axis(
    dataset: Dataset,
    kinds: Mapping[str, Sequence[Result]],
    axis: str,
    xlabel: str,
    out: Path,
    levels: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Draw the accuracies of the best run of each value of an axis, for each kind of network.

    The name of a kind may be empty; ``levels`` are lines.
    """
    drawn = {"final training accuracy": "last_train", "best validation accuracy": "best_valid"}
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for kind, results in kinds.items():
        best = best_of_each(axis, results)
        ticks = [r.point[axis] for r in best]
        for label, key in drawn.items():
            values = [float(r.values[key]) for r in best]
            lines[f"{kind}: {label}" if kind else label] = ticks, values
    ticks = sorted({tick for of_kind, _ in lines.values() for tick in of_kind})
    if not ticks:
        return
    pairs = len(kinds) > 1
    dashed = [label for label in lines if pairs and "training" in label] + list(levels)
    lines |= {label: (ticks, [level] * len(ticks)) for label, level in levels.items()}
    title, label = f"{dataset.title}\nbest of each", "accuracy (share of examples)"
    panel = Panel(lines, xlabel, label, title, ticks, dashed=dashed, pairs=pairs)
    line_plot(out / f"accuracy-by-{axis}", panel)
