"""Results of runs, and the folder that keeps them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minidl.files import write_text
from minidl.grid.axes import Point


@dataclass(frozen=True)
class Result:
    """One finished run: its ``values``, or the ``error`` that ended it."""

    id: str
    point: Point
    values: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0


def claim(out: Path, contents: dict[str, Any]) -> None:
    """Record the axes and settings of the runs in ``out/grid.json``.

    Raises
    ------
    ValueError
        If the folder holds runs of other axes or settings; names the difference.
    """
    file = out / "grid.json"
    if not file.exists():
        write_text(file, json.dumps(contents, indent=1) + "\n")
        return
    try:
        recorded = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: cannot be read ({error})") from error
    contents = json.loads(json.dumps(contents))
    for part in ("axes", "settings"):
        for name in {**recorded[part], **contents[part]}:
            old, new = recorded[part].get(name), contents[part].get(name)
            if old != new:
                raise ValueError(
                    f"{out} holds other results: {name} was {old!r}, now it is {new!r}; "
                    "choose another folder or delete this one"
                )


def append(file: Path, result: Result) -> None:
    """Write one result as a line of JSON at the end of the file."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(asdict(result)) + "\n")


def read(file: Path) -> Iterator[Result]:
    """Yield the recorded runs; remove a last line that was not written completely."""
    if not file.exists():
        return
    text = file.read_bytes()
    complete = text[: text.rfind(b"\n") + 1]
    if complete != text:
        os.truncate(file, len(complete))
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            yield Result(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file}, line {number}: not a result ({error})") from error
