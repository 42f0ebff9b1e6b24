"""Published data files are recognised by their checksums."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from homework.checksums import KNOWN, checksums
from homework.published import COURSE_FILE

SCRIPT = Path(__file__).parents[2] / "examples/homework/checksums.py"


def write(path, shape, last=0):
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
    path.write_bytes(header + bytes(int(np.prod(shape)) - 1) + bytes([last]))


def test_published_files_are_recognised(shared):
    for name, title in (("mnist", "MNIST"), ("fashion-mnist", "Fashion-MNIST")):
        lines = list(checksums(shared / "data" / name))
        assert [line.partition("as published: ")[2] for line in lines] == [
            f"{title}, {part}" for part in ("test images", "test labels", "training images", "training labels")
        ]  # fmt: skip


def test_a_changed_pixel_is_seen(tmp_path):
    for part in ("train", "t10k"):
        write(tmp_path / f"{part}-images-idx3-ubyte", (200, 2, 2))
        write(tmp_path / f"{part}-labels-idx1-ubyte", (200,))
    before = list(checksums(tmp_path))
    assert len(before) == 4
    assert all("not a file of MNIST, Fashion-MNIST or EMNIST Letters" in line for line in before)
    write(tmp_path / "train-images-idx3-ubyte", (200, 2, 2), last=1)
    after = list(checksums(tmp_path))
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, True]
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(SCRIPT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [*after, *checksums(SCRIPT)]


def test_the_course_s_file_is_among_the_published_ones():
    assert KNOWN[COURSE_FILE] == "EMNIST Letters, the course's file"
