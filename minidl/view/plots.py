"""Plots, written to files with matplotlib (the ``examples`` extra); no display is needed."""

from __future__ import annotations

import io
import math
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minidl.checks import Array, require
from minidl.files import as_path, atomic

if TYPE_CHECKING:
    from minidl.history import History

DPI = 150
"""The dots per inch of pictures in PNG files."""


@dataclass(frozen=True)
class Panel:
    """One set of axes: a pair of x and y values for each label.

    ``xticks`` are the only ticks of the x axis, logarithmic if they span a factor of more than 10;
    then each point has a marker. On a logarithmic y axis, values that are not positive are left
    out. The curves of ``dashed`` labels are dashed, those of a pair share a colour, and ``mark`` is
    the x position of a vertical dotted line: the best epoch.
    """

    curves: Mapping[str, tuple[Sequence[float] | Array, Sequence[float] | Array]]
    xlabel: str
    ylabel: str
    title: str = ""
    xticks: Sequence[float] | None = None
    ylog: bool = False
    dashed: Sequence[str] = ()
    mark: float | None = None
    pairs: bool = False

    def __post_init__(self) -> None:
        try:
            right = all(len(x) == len(y) for x, y in self.curves.values())
        except (AttributeError, TypeError, ValueError):
            right = False
        if not right:
            want = "curves as {label: (x, y)}, with as many x as y"
            raise TypeError(f"Panel: expected {want}, got {self.curves!r:.80}")

    def __str__(self) -> str:
        """Return what the panel shows: each curve with its ends, or with up to eight points."""
        words = []
        for label, (x, y) in self.curves.items():
            points = [f"{b:.3g} at {a:g}" for a, b in zip(x, y, strict=True)]
            ends = f"from {points[0]} to {points[-1]}" if len(points) > 8 else ""
            words.append(f"{label} {ends or ', '.join(points)}")
        mark = f" The best {self.xlabel} is {self.mark:g}." if self.mark is not None else ""
        heading = f"{self.title.replace(chr(10), ', ')}: " if self.title else ""
        axes = f"{' '.join(self.ylabel.split())} against {self.xlabel}"
        return f"{heading}{axes}: {'; '.join(words)}.{mark}"


def figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure without a window; the sizes are in inches."""
    return require("matplotlib.figure", "examples").Figure((width, height), layout="constrained")


def save(picture: Any, path: str | os.PathLike[str], description: str) -> None:
    """Write a figure in the format of the file suffix, whole or not at all.

    Without a suffix it is written twice: as PNG, and as SVG. The description tells a reader who
    does not see the picture what it shows; it is in the file (``Description``, PDF: ``Subject``).
    """
    rc_context, path = require("matplotlib", "examples").rc_context, as_path(path)
    for text in picture.findobj(require("matplotlib.text", "examples").Text):
        text.set_text(plain(text.get_text()))  # ticks, which may be powers, get theirs when drawn
    for suffix in [path.suffix] if path.suffix else [".png", ".svg"]:
        metadata: dict[str, Any] = {"Subject" if suffix == ".pdf" else "Description": description}
        if suffix == ".svg":
            metadata["Date"] = None  # the same picture gives the same bytes
        with (
            atomic(path.with_suffix(suffix)) as temporary,
            temporary.open("wb") as file,  # opened by name, a text would get the system's line ends
            rc_context({"svg.hashsalt": "minidl"}),
        ):
            picture.savefig(file, format=suffix[1:], dpi=DPI, metadata=metadata)


@dataclass(frozen=True)
class Picture:
    """A figure that is not written to a file, with its description; a notebook shows it."""

    figure: Any
    description: str

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=DPI)
        return file.getvalue()

    def __repr__(self) -> str:
        return self.description


def line_plot(
    path: str | os.PathLike[str] | None, *panels: Panel, title: str = ""
) -> Picture | None:
    """Draw panels side by side, with a legend below each, or beside it for more than four curves.

    The path is that of `save`; without one the picture is returned. Panels with equal labels have
    one legend, below all. A legend never covers a curve. The label of an axis of accuracies says
    where the axis begins, if less than half of the height from 0 is shown.
    """
    if not isinstance(title, str):
        raise TypeError(f"line_plot: expected title to be a text, got {title!r:.80}")
    shared = len(panels) > 1 and len({(*p.curves, p.xlabel, p.mark) for p in panels}) == 1
    beside = [len(panel.curves) > 4 and not shared for panel in panels]
    width = 5.2 * len(panels) + 3.2 * sum(beside)
    picture = figure(width, 4.1)
    # Handles long enough to tell a dashed line from a solid one.
    look: dict[str, Any] = {"fontsize": "small", "handlelength": 3}
    every = picture.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel, is_beside in zip(every, panels, beside, strict=True):
        _draw(axes, panel)
        longest = max(map(len, panel.curves), default=0)
        # The distance is in sizes of type, so that it is below the label of a low panel too.
        place = {"bbox_to_anchor": (0.5, 0), "borderaxespad": 4.2, "ncols": 1 + (longest < 32)}
        if is_beside:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1), **look)
        elif not shared and len(panel.curves) + (panel.mark is not None) > 1:
            axes.legend(loc="upper center", **place, **look)
    handles, texts = every[0].get_legend_handles_labels()
    if shared and len(texts) > 1:
        columns = max(1, min(len(texts), int(10 * width / (8 + max(map(len, texts))))))
        picture.legend(handles, texts, loc="outside lower center", ncols=columns, **look)
    if title:
        picture.suptitle(_wrapped(title, width))
    description = described(title, *map(str, panels))
    if path is None:
        return Picture(picture, description)
    save(picture, path, description)
    return None


def _draw(axes: Any, panel: Panel) -> None:
    """Draw the curves of a panel, and all but its legend."""
    for i, (label, (x, y)) in enumerate(panel.curves.items()):
        style = ("--" if label in panel.dashed else "-") + ("o" if panel.xticks else "")
        colour = f"C{(i // 2 if panel.pairs else i) % 10}"
        axes.plot(x, y, style, color=colour, label=label, markersize=4)
    if panel.mark is not None:
        label = f"best {panel.xlabel} ({panel.mark:g})"
        axes.axvline(panel.mark, color="grey", linestyle=":", label=label)
    if panel.xticks:
        if min(panel.xticks) > 0 and max(panel.xticks) > 10 * min(panel.xticks):
            axes.set_xscale("log")
        axes.set_xticks(panel.xticks, [f"{tick:g}" for tick in panel.xticks])
        axes.minorticks_off()
    elif panel.xlabel == "epoch":
        axes.xaxis.get_major_locator().set_params(integer=True)
    heights = [float(v) for _, y in panel.curves.values() for v in y if v and 0 < v < math.inf]
    # On a log axis one height alone, up to rounding, has no range.
    if panel.ylog and max(heights, default=1) > (1 + 1e-9) * min(heights, default=1):
        axes.set_yscale("log", nonpositive="mask")
    low, high = axes.get_ylim()
    cut = f"\n(axis from {low:.2g})" if "accuracy" in panel.ylabel and 2 * low > high else ""
    axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel + cut, title=_wrapped(panel.title, 5.2))
    axes.grid(alpha=0.3)


def _wrapped(title: str, inches: float) -> str:
    """Return the title in lines that fit into a width at the usual size of type."""
    return "\n".join(textwrap.fill(line, int(7 * inches)) for line in title.split("\n"))


def plot_history(
    history: History, path: str | os.PathLike[str] | None, *, title: str, loss_unit: str | None
) -> Picture | None:
    """Draw the metrics of a history over the epochs, but those that an epoch did not measure."""
    mark = history.best.epoch if history.score(history.best) > -math.inf else None
    if loss_unit is None and "train_accuracy" in history[0].metrics:
        loss_unit = "nats"
    unit = {"loss": loss_unit, "accuracy": "share of examples"}
    labels = {"train": "training (after the epoch)", "valid": "validation"}
    curves: dict[str, dict[str, Any]] = {}
    for name in history.names:
        part, _, metric = name.partition("_")
        label = "training (during the epoch)" if name == "train_loss" else labels.get(part, part)
        if None not in (values := history.column(name)):
            curves.setdefault(metric, {})[label] = history.column("epoch"), values
    panels = []
    for metric, drawn in curves.items():
        ylabel = metric.replace("_", " ") + (f" ({unit[metric]})" if unit.get(metric) else "")
        panels.append(Panel(drawn, "epoch", ylabel, mark=mark))
    return line_plot(path, *panels, title=title)


def plain(text: str) -> str:
    """Return a text in which matplotlib reads no formula between dollar signs."""
    return re.sub(r"(?<!\\)\$", r"\\$", text)


def described(title: str, *shown: str) -> str:
    """Return the description of a picture: the title, if any, on one line, and what is shown."""
    return " ".join([*([f"{' '.join(title.split())}."] if title else []), *shown])
