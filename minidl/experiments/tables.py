"""A table: on the terminal with rich, on disk as CSV and Markdown."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minidl.errors import require
from minidl.files import write_text

MARK = "best"


@dataclass
class Table:
    """Rows of text under named columns; some are marked, and groups are set apart."""

    columns: Sequence[str]
    title: str = ""
    rows: list[tuple[str, ...]] = field(default_factory=list)
    marked: set[int] = field(default_factory=set)
    breaks: set[int] = field(default_factory=set)
    """Rows that end a group."""

    def add(self, *cells: object, marked: bool = False) -> None:
        """Add a row; floats are shown with four decimals, None as nothing."""
        if marked:
            self.marked.add(len(self.rows))
        self.rows.append(tuple(map(_text, cells)))

    def end_group(self) -> None:
        """Set the rows so far apart from those to come."""
        self.breaks.add(len(self.rows) - 1)

    def _all(self) -> list[tuple[str, ...]]:
        """Header and rows, with a last column that marks."""
        rows = [(*row, MARK if i in self.marked else "") for i, row in enumerate(self.rows)]
        return [(*self.columns, ""), *rows]

    def show(self) -> None:
        """Print to the terminal (needs rich)."""
        box = require("rich.box", "examples").SIMPLE_HEAD
        table = require("rich.table", "examples").Table(
            title=self.title, box=box, padding=(0, 1, 0, 0)
        )
        header, *rows = self._all()
        for column in header:
            table.add_column(column.replace("_", " "), justify="right")
        for i, row in enumerate(rows):
            style = "bold green" if i in self.marked else None
            table.add_row(*row, style=style, end_section=i in self.breaks)
        # In a file or a pipe, a table is as wide as it needs to be.
        width = None if sys.stdout.isatty() else 200
        require("rich.console", "examples").Console(width=width).print(table)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write as CSV."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            [
                (*self.columns, MARK),
                *[(*row[:-1], "1" if row[-1] else "0") for row in self._all()[1:]],
            ]
        )
        write_text(path, text.getvalue())

    def to_markdown(self, path: str | os.PathLike[str]) -> None:
        """Write as Markdown."""
        header, *rows = self._all()
        lines = [header, ("---:",) * len(header), *rows]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        write_text(path, f"{'# ' + self.title + chr(10) * 2 if self.title else ''}{text}\n")

    def write(self, stem: str | os.PathLike[str]) -> None:
        """Write ``stem.csv`` and ``stem.md``."""
        self.to_csv(Path(f"{stem}.csv"))
        self.to_markdown(Path(f"{stem}.md"))


def _text(cell: object) -> str:
    if cell is None:
        return ""
    return f"{cell:.4f}" if isinstance(cell, float) else str(cell)
