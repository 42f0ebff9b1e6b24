"""Pictures of a run: their sizes, and the descriptions that ``minidl.view.plots.save`` wrote."""

from __future__ import annotations

import base64
import html
import re
from dataclasses import dataclass
from pathlib import Path

from minidl.checks import require
from minidl.view.plots import DPI

_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Picture:
    """A picture, with its size on the page in CSS pixels."""

    file: Path
    description: str
    width: int
    height: int

    @property
    def uri(self) -> str:
        """The picture as a ``data:`` address."""
        content = base64.b64encode(self.file.read_bytes()).decode("ascii")
        return f"data:{_TYPES[self.file.suffix]};base64,{content}"

    @property
    def weight(self) -> int:
        """The length of ``uri`` and of what stands around it on the page, at most."""
        around = 500 + 2 * len(self.file.name.encode())
        return self.file.stat().st_size * 4 // 3 + around


def read_pictures(folder: Path) -> list[Picture]:
    """Return the PNG and SVG pictures of a folder by name; of two with one stem, the smaller.

    Raises
    ------
    ValueError
        If a file is no picture of its kind; names it.
    """
    smallest: dict[str, Path] = {}
    files = [file for kind in _TYPES for file in folder.glob(f"*{kind}")]
    for file in sorted(files, key=lambda file: file.stat().st_size, reverse=True):
        if not file.name.startswith("."):
            smallest[file.name.removesuffix(file.suffix)] = file
    chosen = sorted(smallest.values())
    return [_svg(file) if file.suffix == ".svg" else _png(file) for file in chosen]


def _svg(file: Path) -> Picture:
    text = file.read_text(encoding="utf-8", errors="replace")
    root = re.search(r"<svg\b[^>]*>", text)
    box = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)"', root[0]) if root else None
    if not box:
        raise ValueError(f"{file}: expected an SVG picture with a viewBox")
    found = re.search(r"<dc:description>(.*?)</dc:description>", text, re.S)
    # matplotlib's unit is the point, 1/72 inch; the page's is 1/96 inch
    width, height = (round(float(number) * 96 / 72) for number in box.groups())
    return Picture(file, html.unescape(found[1]).strip() if found else "", width, height)


def _png(file: Path) -> Picture:
    image_module = require("PIL.Image", "examples")
    try:  # reads no pixel, and no text of more than a megabyte
        with image_module.open(file, formats=["PNG"]) as image:
            width, height = (round(n * 96 / DPI) for n in image.size)
            return Picture(file, str(image.info.get("Description", "")), width, height)
    except Exception as error:  # damaged files raise many kinds
        raise ValueError(f"{file}: expected a PNG picture ({error})") from error
