"""``python -m minidl``: the version, the environment, the extras, and where to look."""

from __future__ import annotations

import importlib.metadata
import re

import minidl
from minidl.cli import Parser, run_main
from minidl.environment import environment

DEVELOPMENT = {"benchmarks", "docs", "test"}
"""The extras that are not shown: those of people who change minidl."""

COMMANDS = {
    "python -m minidl.testing MODULE:LAYER --input 8x12": "check the gradients of a layer",
    "python -m minidl.data show PATH": "describe a data set and draw it",
    "python -m minidl.parity": "compare every part with PyTorch",
    "python -m minidl.report RUNS... --out FOLDER": "make a page of finished runs",
}

PAGES = """The documentation is in docs/ of the repository: docs/start.md first.
`python -m sphinx docs site` makes a site of it (extra docs). In Python: help(minidl.fit)."""


def main() -> None:
    Parser(prog="python -m minidl", description="Describe this installation.").parse_args()
    print(f"minidl {minidl.__version__}: {(minidl.__doc__ or '').splitlines()[0][8:]}")
    _print({name: str(value) for name, value in environment().items() if name != "minidl"})
    _print({f"extra {name}": ", ".join(map(version, names)) for name, names in extras().items()})
    _print(COMMANDS)
    print(f"\n{PAGES}")


def extras() -> dict[str, list[str]]:
    """Return the packages of each extra of the installed minidl; nothing if it is not installed."""
    found: dict[str, list[str]] = {}
    try:
        lines = importlib.metadata.requires("minidl") or []
    except importlib.metadata.PackageNotFoundError:
        return found
    for line in lines:
        extra = re.search(r"extra == [\"'](\w+)", line)
        package = re.split(r"[^\w.-]", line)[0]
        if extra and package != "minidl" and extra[1] not in DEVELOPMENT:
            found.setdefault(extra[1], []).append(package)
    return dict(sorted(found.items()))


def version(package: str) -> str:
    """Return a package with its version, or say that it is not installed."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} not installed"


def _print(lines: dict[str, str]) -> None:
    """Print names and values in two columns, after an empty line."""
    width = max(map(len, lines), default=0) + 2
    print()
    for name, value in lines.items():
        print(f"{name:<{width}}{value}")


if __name__ == "__main__":
    run_main(main)
