"""``python -m minidl.data show PATH``: describe a data set and draw examples of each class."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minidl.checks import Array
from minidl.data.readers import load_dataset
from minidl.dataset import Dataset, Split
from minidl.files import as_path
from minidl.view.cli import Parser, run_main
from minidl.view.plots import described, figure, plain, save


def as_images(dataset: Dataset, split: Split, rows: Array) -> Array | None:
    """Return rows as uint8 images ``(n, side, side[, 3])``; None if there are no square images."""
    side = math.isqrt(dataset.features)
    shape: tuple[int, ...] = (side, side)
    if side**2 != dataset.features:
        side = math.isqrt(dataset.features // 3)
        shape = (side, side, 3)
    if math.prod(shape) != dataset.features or side < 2 or not dataset.classes:
        return None
    low, high = float(split.x.min()), float(split.x.max())
    x = np.asarray(split.x[rows], np.float64)
    grey = np.round(255 * (x - low) / max(high - low, 1e-300)).astype(np.uint8)
    images = grey.reshape(-1, *shape)
    return images.swapaxes(1, 2) if dataset.transposed else images


def class_name(dataset: Dataset, k: int) -> str:
    """Return the name of class ``k``; without names its letter if there are 26, else ``k``."""
    if dataset.class_names is not None:
        return str(dataset.class_names[k])
    return string.ascii_uppercase[k] if dataset.classes == 26 else str(k)


def main() -> None:
    parser = Parser(prog="python -m minidl.data", description=__doc__.partition(": ")[2])
    parser.add_argument("command", choices=["show"])
    parser.add_argument("path", help='an .npz of the course or Keras, IDX files, or "letters"')
    parser.add_argument("--out", type=as_path, help="the file of the picture (default: NAME.png)")
    args = parser.parse_args()
    dataset = load_dataset(args.path, progress=True)
    print(describe(dataset))
    if rows := sheet_rows(dataset, 16):
        out = args.out or Path(f"{dataset.name}.png")
        contact_sheet(out, rows, title=f"{dataset.title}, training part, one row a class")
        print(f"wrote {out}")
    else:
        print(f"no picture: {dataset.features} features, no square images with class labels")


def describe(dataset: Dataset) -> str:
    """Return the data set in a line, the ranges of each part, and the checksum."""
    lines = [repr(dataset), *([dataset.title] if dataset.generated else [])]
    for key, split in dataset.splits.items():
        x, y = split.x, split.y
        ranges = f"x {x.dtype} {x.min():g} .. {x.max():g}, scaled by {split.scale:g}"
        line = f"{key:<6}{ranges}; y {y.dtype} {y.min():g} .. {y.max():g}"
        if dataset.classes:
            counts = np.bincount(y, minlength=dataset.classes)
            line += f", {counts.min():,} to {counts.max():,} of each"
        lines.append(line)
    return "\n".join([*lines, f"sha256 {dataset.checksum()}"])


def sheet_rows(dataset: Dataset, columns: int) -> dict[str, Array]:
    """Return the first training examples of each class as images, if they are images."""
    rows = {}
    for k in range(dataset.classes):
        first = np.flatnonzero(dataset.train.y == k)[:columns]
        if (images := as_images(dataset, dataset.train, first)) is not None:
            rows[class_name(dataset, k)] = images
    return rows


def contact_sheet(path: Path, rows: Mapping[str, Array], *, title: str = "") -> None:
    """Draw rows of images, ``rows[label]`` (n, height, width[, 3]); grey: larger is darker."""
    widest = max(map(len, rows.values()))
    height, width, *colour = next(iter(rows.values())).shape[1:]
    cells = np.zeros((len(rows), height + 1, widest, width + 1, *colour), np.uint8)
    for row, images in zip(cells, rows.values(), strict=True):
        row[:height, : len(images), :width] = images.swapaxes(0, 1)
    beside = max(0.6, 0.1 * max(map(len, rows)))  # the labels
    picture = figure(beside + 0.45 * widest, 0.5 + 0.45 * len(rows))
    picture.set_layout_engine("compressed")  # room for the labels of axes with a fixed aspect
    axes = picture.subplots()
    sheet = cells.reshape(len(rows) * (height + 1), widest * (width + 1), *colour)
    axes.imshow(sheet, cmap="gray_r", interpolation="nearest")
    axes.set_yticks((np.arange(len(rows)) + 0.5) * (height + 1), map(plain, rows))
    axes.set_xticks([])
    axes.set_title(title, fontsize=9)
    save(picture, path, described(title, f"Rows of images: {', '.join(rows)}."))


if __name__ == "__main__":
    run_main(main)
