"""Pictures of a run: PNG files, with the descriptions that ``minidl.view.plots.save`` wrote."""

from __future__ import annotations

import base64
import io
import os
from dataclasses import dataclass
from pathlib import Path

from minidl.checks import require
from minidl.files import open_to_read
from minidl.view.plots import DPI

LARGEST = 20_000_000
"""The size of a file, in bytes, and the number of its pixels, at most."""


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
    """Read size and description of a PNG file; its pixels are not decompressed.

    Raises
    ------
    ValueError
        If the file is too large, is no PNG picture, or a part of it is missing or was changed;
        names it.
    """
    pillow = require("PIL.Image", "plot")  # matplotlib has it
    with open_to_read(file) as stream:
        content = stream.read(LARGEST + 1)
    try:
        with pillow.open(io.BytesIO(content), formats=["PNG"]) as picture:
            width, height = picture.size
            description = str(picture.info.get("Description", ""))
            picture.verify()
        if max(len(content), width * height) > LARGEST:
            raise ValueError(f"more than {LARGEST:,} bytes or pixels")
    except Exception as error:  # of many kinds, some of them Pillow's own
        raise ValueError(f"{file}: expected a PNG picture ({error})") from error
    return Picture(file, description, round(width * 96 / DPI), round(height * 96 / DPI))
