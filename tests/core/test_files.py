"""Atomic writing: errors, leftovers of dead processes, syncing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minidl import files


def test_a_file_is_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "new/a.json"
    files.write_text(path, "one")

    def fail():
        with files.atomic(path) as temporary:
            temporary.write_text("two")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    assert path.stat().st_mode & 0o444 == 0o444 & ~current_umask()


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_file_has_the_rights_that_the_user_wants(tmp_path, umask):
    """Those of a file that ``open`` makes, and the mask of the process stays as it was."""
    before = os.umask(umask)
    try:
        files.write_text(tmp_path / "a.txt", "a")
        (tmp_path / "b.txt").write_text("b")
        assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode
        assert current_umask() == umask
    finally:
        os.umask(before)


def current_umask():
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_file_and_folder_are_synced_before_and_after_the_rename(tmp_path, monkeypatch):
    path, done = tmp_path / "a.txt", []
    fsync, replace = os.fsync, Path.replace

    def note(handle):
        target = Path(f"/proc/self/fd/{handle}").readlink()
        done.append("folder" if target == tmp_path else target.read_text())
        fsync(handle)

    def rename(self, target):
        done.append("renamed")
        return replace(self, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc here")
    monkeypatch.setattr(files.os, "fsync", note)
    monkeypatch.setattr(Path, "replace", rename)
    files.write_text(path, "text")
    assert done == ["text", "renamed", "folder"]


def test_an_error_names_the_file(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: '.*/a.npz'"), files.atomic(tmp_path / "a.npz"):  # fmt: skip
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match=r"a.npz: 10 requested and 3 written"), files.atomic(tmp_path / "a.npz"):  # fmt: skip
        raise OSError("10 requested and 3 written")
    with pytest.raises(OSError, match=r"other"), files.atomic(tmp_path / "a.npz"):
        raise OSError(28, "No space left on device", "other")
    (tmp_path / "b").mkdir()
    with pytest.raises(OSError, match=r"'[^']*/b'$"):
        files.write_text(tmp_path / "b", "text")
    with pytest.raises(FileExistsError, match="c"):
        files.write_text(tmp_path / "c", "") or files.write_text(tmp_path / "c/d", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "c"]


CODE = """
import os, sys
from minidl import files
with files.temporary_folder(files.Path(".")) as folder, files.atomic("a.npz") as temporary:
    (folder / "train.npy").write_text("x")
    temporary.write_text("half")
    print(flush=True)
    sys.stdin.read() if len(sys.argv) > 1 else os._exit(1)
"""


def test_what_dead_processes_left_is_removed(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", CODE]
    subprocess.run(command, cwd=tmp_path, env=environment, check=False)
    with subprocess.Popen([*command, "live"], cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as live:  # fmt: skip
        live.stdout.readline()
        left = {p.name for p in tmp_path.iterdir()}
        assert len(left) == 2  # those of the dead process went when the second one began
        assert all(f"-{live.pid}." in name for name in left)
        other = [tmp_path / f".a.elsewhere-1.abc.tmp{s}" for s in ("", ".npz")]
        mine = [tmp_path / name for name in (".hidden", ".git", "a.tmp", ".a.tmp", ".x.tmp.npz")]
        for file in (*other, *mine):
            file.write_text("")
        day_old = time.time() - 90_000
        os.utime(other[0], (day_old, day_old))
        files.remove_leftovers(tmp_path)
        assert {p.name for p in tmp_path.iterdir()} == left | {p.name for p in (other[1], *mine)}
        live.stdin.close()
    files.remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in (other[1], *mine)} | {"a.npz"}


def test_the_first_file_of_a_folder_removes_leftovers(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with files.atomic(tmp_path / "a.txt") as temporary:
        left = tmp_path / temporary.name.replace(f"-{os.getpid()}.", f"-{dead.pid}.")
    (tmp_path / "next").mkdir()
    left = tmp_path / "next" / left.name
    left.write_text("half")
    files.write_text(tmp_path / "next/b.txt", "whole")
    assert [p.name for p in (tmp_path / "next").iterdir()] == ["b.txt"]


def test_rows_are_an_npy_file(tmp_path):
    x = np.arange(60, dtype=np.uint8).reshape(12, 5)
    for dtype in (np.uint8, np.float32, ">f8"):
        rows = np.asfortranarray(x.astype(dtype))
        files.write_rows(tmp_path / "x.npy", rows.shape, (rows[i : i + 5] for i in (0, 5, 10)))
        read = np.load(tmp_path / "x.npy")
        assert read.dtype == rows.dtype
        np.testing.assert_array_equal(read, x)
