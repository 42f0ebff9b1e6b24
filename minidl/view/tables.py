"""Tables: on the terminal with rich, in files as CSV and Markdown."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from minidl.checks import require
from minidl.files import write_text


@dataclass
class Table:
    """Rows of text under column names, some of them marked, in groups."""

    columns: Sequence[str]
    title: str = ""
    rows: list[tuple[str, ...]] = field(default_factory=list)
    marked: set[int] = field(default_factory=set)
    breaks: set[int] = field(default_factory=set)
    """The indices of the rows that end a group."""

    def add(self, *cells: object, marked: bool = False) -> None:
        """Add a row; floats have four decimals, None and cells that are left out are empty."""
        if marked:
            self.marked.add(len(self.rows))
        blank = [None] * (len(self.columns) - len(cells))
        shown = ["" if cell is None else cell for cell in (*cells, *blank)]
        self.rows.append(tuple(f"{c:.4f}" if isinstance(c, float) else str(c) for c in shown))

    def end_group(self) -> None:
        """End a group: leave space between the last row and the next one."""
        self.breaks.add(len(self.rows) - 1)

    def show(self) -> None:
        """Print to the terminal (needs rich)."""
        box = require("rich.box", "examples").SIMPLE_HEAD
        table = require("rich.table", "examples").Table(
            title=self.title, box=box, show_edge=False, padding=(0, 1, 0, 0)
        )
        for column in self.columns:
            table.add_column(column.replace("_", " "), justify="right")
        for i, row in enumerate(self.rows):
            # A star for output without colours.
            star, style = ("* ", "bold green") if i in self.marked else ("", None)
            table.add_row(f"{star}{row[0]}", *row[1:], style=style, end_section=i in self.breaks)
        # In a file or a pipe, long rows are not wrapped at the width of a terminal.
        width = None if sys.stdout.isatty() else 200
        require("rich.console", "examples").Console(width=width).print(table)

    def _repr_html_(self) -> str:
        lines = [f"<table><caption>{escape(self.title)}</caption>"]
        for tag, row in [("th", self.columns), *(("td", row) for row in self.rows)]:
            lines.append(f"<tr>{''.join(f'<{tag}>{escape(text)}</{tag}>' for text in row)}</tr>")
        return "".join([*lines, "</table>"])

    def write(self, stem: str | os.PathLike[str]) -> None:
        """Write ``stem.csv`` and ``stem.md``.

        A last column ``best`` of the CSV is 1 in marked rows, else 0; in Markdown they are bold.
        """
        text, lines = io.StringIO(), [self.columns, ("---:",) * len(self.columns)]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((*self.columns, "best"))
        for i, row in enumerate(self.rows):
            writer.writerow((*row, int(i in self.marked)))
            lines.append([f"**{c}**" if c and i in self.marked else c for c in row])
        write_text(f"{os.fspath(stem)}.csv", text.getvalue())
        heading = f"# {self.title}\n\n" if self.title else ""
        markdown = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        write_text(f"{os.fspath(stem)}.md", heading + markdown)
