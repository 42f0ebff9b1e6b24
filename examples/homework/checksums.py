"""Checksums of published data files: IDX and ``.npz`` files do not notice a changed pixel.

``python examples/homework/checksums.py PATH...`` prints those of files and of folders of IDX files.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from minidl.data.readers import read_idx
from minidl.files import as_path
from minidl.view.cli import run_main

# SHA-256 of the content, not compressed.
_SHA256 = {
    "MNIST": {
        "training images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "training labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "test images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "test labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "Fashion-MNIST": {
        "training images": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "training labels": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "test images": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "test labels": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}
# Names of git objects: the SHA-1 of "blob LENGTH", a zero byte and the content. No copy of EMNIST
# Letters was at hand; these are those of public repositories that hold its files.
_GIT = {
    "EMNIST Letters": {
        "training images": "0fa940439e983453f0480ef61aa3025f0979b2d3",
        "training labels": "dfaf78616a39a4974cd97aa394dcc593453b54cf",
        "test images": "993b7cb0a248976f80daf3ada442d95a6cbd51f1",
        "test labels": "170768b56b24d25258a262acda7fc996123b9f39",
        "the course's file": "4f3b704981b3eb4ec7042fdf18400eeed27af74d",
    },
}
KNOWN = {
    digest: f"{name}, {part}"
    for table in (_SHA256, _GIT)
    for name, parts in table.items()
    for part, digest in parts.items()
}
"""The name of a published file by the checksum of its content."""


def checksums(path: Path) -> Iterator[str]:
    """Yield for each data file its name, the SHA-256 of its content, and what it is published as.

    ``path`` is a file, or a folder of IDX files; the content of a ``.gz`` is what it unpacks to.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        found = re.search(r"[-.]idx([13])-ubyte(\.gz)?$", file.name)
        if found:
            x = read_idx(file, int(found[1]))
            head = bytes([0, 0, 8, x.ndim]) + np.array(x.shape, ">u4").tobytes()
            yield f"{file.name}: {_compared([head, x.tobytes()])}"
        elif not path.is_dir():
            yield f"{file.name}: {_compared([file.read_bytes()])}"


def _compared(parts: list[bytes]) -> str:
    sha256 = hashlib.sha256()
    git = hashlib.sha1(b"blob %d\0" % sum(map(len, parts)), usedforsecurity=False)
    for part in parts:
        sha256.update(part)
        git.update(part)
    name = KNOWN.get(sha256.hexdigest()) or KNOWN.get(git.hexdigest())
    unknown = "not a file of MNIST, Fashion-MNIST or EMNIST Letters"
    known = f"as published: {name}" if name else unknown
    return f"sha256 {sha256.hexdigest()}, {known}"


def main() -> None:
    for path in sys.argv[1:]:
        print(*checksums(as_path(path)), sep="\n")


if __name__ == "__main__":
    run_main(main)
