"""The file of results: one row for each case, written as it goes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minidl.files import from_json, to_json, write_text

Row = dict[str, Any]
"""Workload, case, threads, and what was measured."""


def write_json(path: Path, content: Any) -> None:
    """Write JSON that people can read, completely or not at all."""
    write_text(path, to_json(content, indent=1) + "\n")


def key(row: Row) -> str:
    """Return what makes a row unique."""
    return json.dumps([row["workload"], row["case"], row["threads"]], sort_keys=True)


@dataclass
class Results:
    """The rows of a run, and the settings and the environment that they belong to."""

    path: Path
    settings: dict[str, Any]
    environment: dict[str, Any]
    rows: dict[str, Row] = field(default_factory=dict)

    @classmethod
    def open(
        cls, path: Path, settings: dict[str, Any], environment: dict[str, Any], *, again: bool
    ) -> Results:
        """Return the results in a file, to go on with them.

        With ``again``, results that do not belong together with new ones are left out.

        Raises
        ------
        ValueError
            If the file has results of other settings, another machine or other versions, also of
            minidl; names the first difference.
        """
        made = cls(path, settings, environment)
        if not path.exists():
            return made
        try:
            content = from_json(path.read_bytes())
            before = {**content["settings"], **content["environment"]}
            made.rows = {key(row): row for row in content["rows"]}
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(f"{path} is not a file of results ({error}); remove it") from error
        for name, value in {**settings, **environment}.items():
            if before.get(name) != value and again:
                made.rows.clear()
            elif before.get(name) != value:
                raise ValueError(
                    f"{path} has results with {name} = {before.get(name)!r}, not {value!r}: "
                    "--again measures anew, --out keeps them"
                )
        return made

    def drop(self, rows: Iterable[Row]) -> None:
        """Forget rows, which are to be measured anew."""
        for row in rows:
            self.rows.pop(key(row), None)

    def add(self, row: Row) -> None:
        """Add a row, and write the file."""
        self.rows[key(row)] = row
        content = {
            "settings": self.settings,
            "environment": self.environment,
            "rows": list(self.rows.values()),
        }
        write_json(self.path, content)

    def of(self, workload: str, threads: int | None = None) -> Iterator[Row]:
        """Yield the rows of a workload, on all or on some number of threads."""
        for row in self.rows.values():
            if row["workload"] == workload and threads in (None, row["threads"]):
                yield row

    def find(self, workload: str, threads: int, case: dict[str, Any]) -> Row | None:
        """Return the first row whose case has these values."""
        for row in self.of(workload, threads):
            if all(row["case"].get(name) == value for name, value in case.items()):
                return row
        return None
