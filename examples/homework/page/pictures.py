"""Pictures of a run: PNG files, with the descriptions that ``minidl.view.plots.save`` wrote."""

from __future__ import annotations

import base64
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from minidl.files import open_to_read
from minidl.view.plots import DPI

LARGEST = 20_000_000
"""The size of a file, in bytes, and the number of its pixels, at most."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


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
        return f"data:image/png;base64,{content}"

    @property
    def weight(self) -> int:
        """The length of ``uri`` and of what stands around it on the page, at most."""
        around = 500 + 2 * len(os.fsencode(self.file.name))
        return self.file.stat().st_size * 4 // 3 + around


def read_picture(file: Path) -> Picture:
    """Read size and description of a PNG file; nothing in it is decompressed.

    Raises
    ------
    ValueError
        If the file is too large, is no PNG picture, or a part of it is missing or was changed;
        names it.
    """
    try:
        with open_to_read(file) as stream:
            content = stream.read(LARGEST + 1)
        width, height, description = _parts(content)
    except (ValueError, struct.error) as error:
        raise ValueError(f"{file}: expected a PNG picture ({error})") from error
    return Picture(file, description, round(width * 96 / DPI), round(height * 96 / DPI))


def _parts(content: bytes) -> tuple[int, int, str]:
    """Return the width and height in pixels, and the description."""
    if not content.startswith(_SIGNATURE):
        raise ValueError("it begins as another file")
    if len(content) > LARGEST:
        raise ValueError(f"more than {LARGEST:,} bytes")
    at, kind, description = len(_SIGNATURE), b"", ""
    width, height = struct.unpack_from(">II", content, at + 8)
    if not 0 < width * height <= LARGEST:
        raise ValueError(f"{width} x {height} pixels")
    while kind != b"IEND":
        (length,) = struct.unpack_from(">I", content, at)
        kind, end = content[at + 4 : at + 8], at + 8 + length
        (checksum,) = struct.unpack_from(">I", content, end)
        if checksum != zlib.crc32(memoryview(content)[at + 4 : end]):
            raise ValueError("another checksum")
        name, _, text = content[at + 8 : min(end, at + 100_000)].partition(b"\0")
        if kind == b"tEXt" and name == b"Description":
            description = text.decode("latin-1")
        elif kind == b"iTXt" and name == b"Description" and text[:1] == b"\0":  # not compressed
            description = text[2:].split(b"\0", 2)[-1].decode(errors="replace")
        at = end + 4
    return width, height, description
