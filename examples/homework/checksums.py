"""Checksums of published data files: IDX and ``.npz`` files do not notice a changed pixel.

``python examples/homework/checksums.py PATH...`` prints those of files and of folders of IDX files.
"""

from __future__ import annotations

import gzip
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from minidl.files import as_path
from minidl.view.cli import run_main

KNOWN = {
    "bbce27659e0fc2b7ed2a64c127849380a477099b": "MNIST, training images",
    "d6b4c5db3b52063d543fb397aede09aba0dc5234": "MNIST, training labels",
    "1170b2cae98de7a524b163fcc379ac8f00925b12": "MNIST, test images",
    "d1c3a970612bbd2df47a3c0697f82bd394abc450": "MNIST, test labels",
    "ff2f5a96367a3c1656f09c93649f07143ff8b11e": "Fashion-MNIST, training images",
    "30424ca2ea876655f5bba14f9f07132769687975": "Fashion-MNIST, training labels",
    "37bac79bc6f002d965f363e0b20514904504a4d9": "Fashion-MNIST, test images",
    "2195a4d0957e013db98d03e51697e2315816cce2": "Fashion-MNIST, test labels",
    # No copy of EMNIST Letters was at hand; these are the names in public repositories.
    "0fa940439e983453f0480ef61aa3025f0979b2d3": "EMNIST Letters, training images",
    "dfaf78616a39a4974cd97aa394dcc593453b54cf": "EMNIST Letters, training labels",
    "993b7cb0a248976f80daf3ada442d95a6cbd51f1": "EMNIST Letters, test images",
    "170768b56b24d25258a262acda7fc996123b9f39": "EMNIST Letters, test labels",
    "4f3b704981b3eb4ec7042fdf18400eeed27af74d": "EMNIST Letters, the course's file",
}
"""Published files by ``git_name`` of their content."""
PUBLISHED = "MNIST, Fashion-MNIST or EMNIST Letters"


def git_name(content: bytes) -> str:
    """Return the name that git gives to a file: the SHA-1 of its length and its content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def checksums(path: Path) -> Iterator[str]:
    """Yield name, SHA-256 and published name of a file, or of the IDX files in a folder."""
    for file in sorted(path.glob("*-ubyte*")) if path.is_dir() else [path]:
        content = file.read_bytes()
        content = gzip.decompress(content) if file.suffix == ".gz" else content
        name = KNOWN.get(git_name(content))
        known = f"as published: {name}" if name else f"not a file of {PUBLISHED}"
        yield f"{file.name}: sha256 {hashlib.sha256(content).hexdigest()}, {known}"


def main() -> None:
    for path in sys.argv[1:]:
        print(*checksums(as_path(path)), sep="\n")


if __name__ == "__main__":
    run_main(main)
