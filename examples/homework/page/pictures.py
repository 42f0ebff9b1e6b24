"""Pictures of a run: their sizes, and the descriptions that ``minidl.view.plots.save`` wrote."""

from __future__ import annotations

import base64
import html
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from minidl.view.plots import DPI

LONGEST = 100_000
"""The largest description that is unpacked, in bytes."""
_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
_PNG = b"\x89PNG\r\n\x1a\n"


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
    content = file.read_bytes()
    if content[:8] != _PNG or content[12:16] != b"IHDR":
        raise ValueError(f"{file}: expected a PNG picture")
    try:
        width, height = (round(n * 96 / DPI) for n in struct.unpack(">II", content[16:24]))
        return Picture(file, _description(content), width, height)
    except (struct.error, zlib.error, IndexError) as error:
        raise ValueError(f"{file}: a damaged PNG picture ({error})") from error


def _description(content: bytes) -> str:
    """Return the text ``Description`` of a PNG file; empty if there is none."""
    start = len(_PNG)
    while start + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[start : start + 8])
        data = content[start + 8 : start + 8 + length]
        name, _, text = data.partition(b"\0")
        if name == b"Description" and kind == b"tEXt":
            return text.decode("latin-1")
        if name == b"Description" and kind == b"iTXt":
            packed, value = text[0], text[2:].split(b"\0", 2)[2]
            if packed:
                value = zlib.decompressobj().decompress(value, LONGEST)
            return value.decode("utf-8", "replace")
        start += length + 12
    return ""
