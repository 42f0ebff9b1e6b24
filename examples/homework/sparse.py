"""Losses of Question 3 by name, and figures and pictures of sparse predictions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from minidl import (
    Dataset,
    FenchelYoung,
    Layer,
    Loss,
    SmoothedNLL,
    Split,
    entmax15,
    outputs,
    relumax,
    softmax,
    sparsemax,
)
from minidl.checks import Array, did_you_mean
from minidl.data.__main__ import as_images, class_name
from minidl.grid.points import Result
from minidl.maps import RegularizedMap, SimplexMap
from minidl.view.plots import described, figure, save

REGULARIZED: dict[str, RegularizedMap] = {"softmax": softmax, "sparsemax": sparsemax}
REGULARIZED["entmax15"] = entmax15
SHOWN = 16  # examples of a kind on the contact sheet


def relumax_loss(b: float, eps: float) -> str:
    """Return the name of a smoothed relumax loss, for ``map_and_loss``."""
    return f"relumax b={b:g} eps={eps:g}"


def map_and_loss(name: str) -> tuple[SimplexMap, Loss]:
    """Return a map and its loss: softmax, sparsemax, entmax15, or ``relumax b=10 eps=0.1``."""
    word, *settings = name.split()
    if word in REGULARIZED and not settings:
        return REGULARIZED[word], FenchelYoung(REGULARIZED[word])
    values = dict(setting.split("=") for setting in settings)
    if word != "relumax" or set(values) != {"b", "eps"}:
        hint = did_you_mean(name, [*REGULARIZED, "relumax b=10 eps=0.1"])
        raise ValueError(f"no loss {name!r}{hint}")
    map = relumax(float(values["b"]))
    return map, SmoothedNLL(map, float(values["eps"]))


def calibration_error(p: Array, y: Array, bins: int = 15) -> float:
    """Return the expected calibration error (Naeini et al. 2015).

    The mean over examples of ``|accuracy - confidence|`` in the example's bin, where confidence is
    the largest probability and the bins cut [0, 1] into equal parts.
    """
    confidence, right = p.max(axis=1).astype(np.float64), p.argmax(axis=1) == y
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, right - confidence, bins)
    return float(np.abs(gaps).sum() / len(y))


def support_size(model: Layer, map: SimplexMap, split: Split) -> dict[str, float]:
    """Return the mean number of classes with a probability above 0."""
    return {"size": float(map.support(map(outputs(model, split))).sum(axis=1).mean())}


def fastest_microseconds(loss: Loss, logits: Array, y: Array) -> float:
    """Return the time for the value and gradient of one batch: the shortest of 200."""
    seconds = []
    for _ in range(200):
        start = time.perf_counter()
        loss(logits, y)
        seconds.append(time.perf_counter() - start)
    return 1e6 * min(seconds)


def candidates(support: Array, p: Array) -> dict[str, list[tuple[int, dict[int, float]]]]:
    """Return the rows with the largest supports, and those with two nearly equal classes.

    Each row comes with the probabilities of its classes, the most probable first.
    """
    size, largest = support.sum(axis=1), p.max(axis=1)
    order, found = np.lexsort((largest, -size)), {}
    pairs = order[size[order] == 2]
    kinds = {"the largest supports": order, "two candidates, nearest to even": pairs}
    for kind, rows in kinds.items():
        ranked = {int(i): np.argsort(-p[i], kind="stable")[: size[i]] for i in rows[:SHOWN]}
        found[kind] = [(i, {int(k): float(p[i, k]) for k in best}) for i, best in ranked.items()]
    return found


def draw_candidates(dataset: Dataset, result: Result, title: str, path: Path) -> bool:
    """Draw the images of a result's candidates; return whether there is anything to draw."""
    test, groups = dataset.splits["test"], {}
    for kind, examples in result.values["candidates"].items():
        images = as_images(dataset, test, np.array([row for row, _ in examples], int))
        if images is None or result.point["loss"] == "softmax":
            return False
        captions = []
        for row, classes in examples:
            ranked = [f"{class_name(dataset, int(k))} {p:.2f}" for k, p in classes.items()]
            more = f"and {len(ranked) - 3} more; " if len(ranked) > 3 else ""
            first = " ".join(ranked[:3]).replace(" 0.", " .")
            captions.append(f"{first}\n{more}is {class_name(dataset, int(test.y[row]))}")
        if captions:
            groups[kind] = images, captions
    if groups:
        captioned_sheet(path, groups, title=title)
    return bool(groups)


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
