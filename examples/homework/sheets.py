"""Sheets of images: with captions, and of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from minidl.checks import Array
from minidl.view.plots import described, figure, save


def captioned_sheet(
    path: Path,
    groups: Mapping[str, tuple[Array, Sequence[str]]],
    *,
    columns: int = 8,
    title: str = "",
) -> None:
    """Draw groups of images, each with a caption below: ``groups[title] = images, captions``.

    In grey images, larger values are darker.
    """
    heights, shown = [-(-len(captions) // columns) for _, captions in groups.values()], []
    picture = figure(1.15 * columns, 1.45 * sum(heights) + 0.35 * len(groups) + 0.3)
    parts = picture.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, rows, (name, (images, captions)) in zip(parts, heights, groups.items(), strict=True):
        part.suptitle(name, fontsize=9)
        grid = part.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid:
            axes.axis("off")
        for axes, image, caption in zip(grid, images, captions, strict=False):
            axes.imshow(image, cmap="gray_r", interpolation="nearest", vmin=0, vmax=255)
            axes.set_title(caption, fontsize=7, y=-0.06, va="top", pad=0)
        words = "; ".join(" ".join(caption.split()) for caption in captions)
        shown.append(f"Images, {name}: {words}.")
    if title:
        picture.suptitle(title, fontsize=10)
    save(picture, path, described(title, *shown))


def weight_sheet(path: Path, weights: Array, labels: Sequence[str], *, title: str = "") -> None:
    """Draw weights of shape ``(n, height, width)``: 0 white, negative blue, positive red."""
    across = math.ceil(math.sqrt(1.6 * len(weights)))
    down = -(-len(weights) // across)
    picture = figure(0.9 * across + 1.2, 1.05 * down + 0.6)
    grid = picture.subplots(down, across, squeeze=False).ravel()
    limit = max(float(np.abs(weights).max()), 1e-12)
    for axes in grid:
        axes.set_axis_off()
    for axes, image, label in zip(grid, weights, labels, strict=False):
        drawn = axes.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(label, fontsize=8, pad=2)
    picture.colorbar(drawn, ax=list(grid), label="weight", shrink=0.8)
    if title:
        picture.suptitle(title, fontsize=10)
    ends = f"from {weights.min():.3g} to {weights.max():.3g}"
    shown = f"{len(weights)} images of weights {ends}: below 0 blue, above red."
    save(picture, path, described(title, shown))
