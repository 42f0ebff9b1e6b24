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

import numpy as np

from minidl.checks import Array, require
from minidl.files import as_path, atomic

if TYPE_CHECKING:
    from minidl.history import History

DPI = 150
"""The dots per inch of pictures in PNG files."""


@dataclass(frozen=True)
class Panel:
    """One set of axes: a pair of x and y values for each label."""

    curves: Mapping[str, tuple[Sequence[float] | Array, Sequence[float] | Array]]
    xlabel: str
    ylabel: str
    title: str = ""
    xticks: Sequence[float] | None = None
    """If given, the x axis has these ticks only, and each point has a marker.

    The axis is logarithmic if they span a factor of more than 10.
    """
    ylog: bool = False
    """Whether the y axis is logarithmic; values that are not positive are left out."""
    dashed: Sequence[str] = ()
    """Labels of the curves with a dashed line."""
    mark: float | None = None
    """The x position of a vertical dotted line: the best epoch."""
    pairs: bool = False
    """Whether each curve and the next one share a colour."""

    def __post_init__(self) -> None:
        for name in ("xlabel", "ylabel", "title"):
            _check("Panel", f"{name} to be a text", str, getattr(self, name))
        _check("Panel", "curves as {label: (x, y)}", Mapping, self.curves)
        for label, curve in self.curves.items():
            if not isinstance(curve, (tuple, list)) or len(curve) != 2:
                raise TypeError(f"Panel: expected x and y of curve {label!r}, got {curve!r:.80}")

    def __str__(self) -> str:
        """Return what the panel shows: each curve with its ends, or with up to eight points."""
        words = []
        for label, (x, y) in self.curves.items():
            points = [f"{b:.3g} at {a:g}" for a, b in zip(x, y, strict=True)]
            ends = f"from {points[0]} to {points[-1]}" if len(points) > 8 else ""
            words.append(f"{label} {ends or ', '.join(points)}")
        mark = f" The best {self.xlabel} is {self.mark:g}." if self.mark is not None else ""
        ylabel = self.ylabel.replace("\n", " ")
        heading = f"{self.title.replace(chr(10), ', ')}: " if self.title else ""
        return f"{heading}{ylabel} against {self.xlabel}: {'; '.join(words)}.{mark}"


def figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure without a window; the sizes are in inches."""
    return require("matplotlib.figure", "examples").Figure((width, height), layout="constrained")


def save(picture: Any, path: str | os.PathLike[str], description: str) -> None:
    """Write a figure in the format of the file suffix, whole or not at all.

    Without a suffix it is written twice: as PNG, and as SVG.

    Parameters
    ----------
    picture : matplotlib.figure.Figure
    path : path
    description : str
        Tells a reader who does not see the picture what it shows. The file holds it, as
        ``Description`` (in a PDF as ``Subject``).
    """
    rc_context = require("matplotlib", "examples").rc_context
    path, known = as_path(path), picture.canvas.get_supported_filetypes()
    if path.suffix and path.suffix[1:].lower() not in known:
        raise ValueError(f"{path}: expected a picture's suffix, as .png, got {path.suffix}")
    for text in picture.findobj(require("matplotlib.text", "examples").Text):
        text.set_text(_plain(text.get_text()))  # ticks, which may be powers, get theirs when drawn
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
    labels = {(*panel.curves, panel.xlabel, panel.mark) for panel in panels}
    once = len(panels) > 1 and len(labels) == 1
    _check("line_plot", "title to be a text", str, title)
    beside = [len(panel.curves) > 4 and not once for panel in panels]
    width = 5.2 * len(panels) + 3.2 * sum(beside)
    picture = figure(width, 4.1)
    for axes, panel in zip(picture.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
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
        # Handles long enough to tell a dashed line from a solid one.
        look: dict[str, Any] = {"fontsize": "small", "handlelength": 3}
        if len(panel.curves) > 4 and not once:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1), **look)
        elif not once and (len(panel.curves) > 1 or panel.mark is not None):
            columns = 2 if max(map(len, panel.curves)) < 32 else 1
            # a distance in sizes of type, so that it is below the label of a low panel too
            below = {"bbox_to_anchor": (0.5, 0), "borderaxespad": 4.2}
            axes.legend(loc="upper center", ncols=columns, **below, **look)
    handles, texts = axes.get_legend_handles_labels()
    if once and len(texts) > 1:
        columns = max(1, min(len(texts), int(10 * width / (8 + max(map(len, texts))))))
        picture.legend(handles, texts, loc="outside lower center", ncols=columns, **look)
    if title:
        picture.suptitle(_wrapped(title, width))
    description = described(title, *map(str, panels))
    if path is None:
        return Picture(picture, description)
    save(picture, path, description)
    return None


def _wrapped(title: str, inches: float) -> str:
    """Return the title in lines that fit into a width at the usual size of type."""
    return "\n".join(textwrap.fill(line, int(7 * inches)) for line in title.split("\n"))


def plot_history(
    history: History, path: str | os.PathLike[str] | None, *, title: str, loss_unit: str | None
) -> Picture | None:
    """Draw the metrics of a history over the epochs; the arguments are those of ``History.plot``.

    A metric that an epoch did not measure is left out.
    """
    if not len(history):
        raise ValueError("History: no epoch is recorded yet")
    if loss_unit is None and "train_accuracy" in history[0].metrics:
        loss_unit = "nats"
    unit = {"loss": loss_unit, "accuracy": "share of examples"}
    labels = {"train": "training (after the epoch)", "valid": "validation"}
    curves: dict[str, dict[str, Any]] = {}
    for name in history.names:
        part, _, metric = name.partition("_")
        values = history.column(name)
        if None not in values:
            label = labels.get(part, part)
            label = "training (during the epoch)" if name == "train_loss" else label
            curves.setdefault(metric, {})[label] = history.column("epoch"), values
    mark = history.best.epoch if history.score(history.best) > -math.inf else None
    panels = []
    for metric, drawn in curves.items():
        ylabel = metric.replace("_", " ") + (f" ({unit[metric]})" if unit.get(metric) else "")
        panels.append(Panel(drawn, "epoch", ylabel, mark=mark))
    return line_plot(path, *panels, title=title)


def contact_sheet(
    path: str | os.PathLike[str], rows: Mapping[str, Array], *, title: str = ""
) -> None:
    """Draw rows of images with labels: ``rows[label]`` is ``(n, height, width[, 3])``.

    In grey images, larger values are darker.
    """
    _check("contact_sheet", "title to be a text", str, title)
    _check("contact_sheet", "rows as {label: images}", Mapping, rows)
    widest = max(len(images) for images in rows.values())
    height, width, *colour = next(iter(rows.values())).shape[1:]
    cells = np.zeros((len(rows), height + 1, widest, width + 1, *colour), np.uint8)
    for row, images in zip(cells, rows.values(), strict=True):
        row[:height, : len(images), :width] = images.swapaxes(0, 1)
    sheet = cells.reshape(len(rows) * (height + 1), widest * (width + 1), *colour)
    beside = max(0.6, 0.1 * max(map(len, rows)))  # the labels
    picture = figure(beside + 0.45 * widest, 0.5 + 0.45 * len(rows))
    picture.set_layout_engine("compressed")  # room for the labels of axes with a fixed aspect
    axes = picture.subplots()
    axes.imshow(sheet, cmap="gray_r", interpolation="nearest")
    axes.set_yticks((np.arange(len(rows)) + 0.5) * (height + 1), [_plain(name) for name in rows])
    axes.set_xticks([])
    axes.set_title(title, fontsize=9)
    save(picture, path, described(title, f"Rows of images: {', '.join(rows)}."))


def _check(owner: str, expected: str, kind: type[Any], value: object) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{owner}: expected {expected}, got {value!r:.80}")


def _plain(text: str) -> str:
    """Return a text in which matplotlib reads no formula between dollar signs."""
    return re.sub(r"(?<!\\)\$", r"\\$", text)


def described(title: str, *shown: str) -> str:
    """Return the description of a picture: the title, if any, on one line, and what is shown."""
    return " ".join([*([f"{' '.join(title.split())}."] if title else []), *shown])
