"""Atomic writing: errors, leftovers of dead processes, syncing."""

import ast
import errno
import json
import math
import os
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import files
from minidl.view.plots import Panel, line_plot
from minidl.view.tables import Table


def test_a_file_is_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "new/folders/a.json"
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
    with pytest.raises(OSError, match=r"10 requested and 3 written: '.*/a.npz'"), files.atomic(tmp_path / "a.npz"):  # fmt: skip
        raise OSError("10 requested and 3 written")
    with pytest.raises(OSError, match=r"other"), files.atomic(tmp_path / "a.npz"):
        raise OSError(28, "No space left on device", "other")
    (tmp_path / "b").mkdir()
    with pytest.raises(OSError, match=r"'[^']*/b'$"):
        files.write_text(tmp_path / "b", "text")
    with pytest.raises(FileExistsError, match="c"):
        files.write_text(tmp_path / "c", "") or files.write_text(tmp_path / "c/d", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "c"]


def test_what_dead_processes_left_is_removed_after_a_day(tmp_path):
    """By its age alone, which is alike on every system; what is written now stays."""
    left = [tmp_path / f".{name}.0123456789abcdef.tmp{end}" for name, end in [("a", ".npz"), ("b", "")]]  # fmt: skip
    mine = [tmp_path / name for name in (".hidden", "a.tmp", ".a.tmp", ".x.tmp.npz", ".a.b-0123456789abcdef.tmp")]  # fmt: skip
    for path in (*left, *mine):
        path.write_text("")
        os.utime(path, (0, 0))
    with files.atomic(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
        assert {*tmp_path.iterdir()} == {*mine, temporary}
        left[0].write_text("")
        os.utime(left[0], (time.time() - files.LEFT + 100,) * 2)
        files.write_text(tmp_path / "b.txt", "")
    assert {*tmp_path.iterdir()} == {*mine, left[0], tmp_path / "a.txt", tmp_path / "b.txt"}
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_an_interrupt_between_making_and_closing_leaves_nothing(tmp_path):
    """At each line of ours that runs from the call to the block."""

    def trace(frame, event, arg):
        nonlocal left
        if frame.f_code.co_filename != files.__file__:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    for at in range(1, 100):
        left = at
        sys.settrace(trace)
        try:
            with files.atomic(tmp_path / "a.txt"):
                sys.settrace(None)
        except KeyboardInterrupt:
            assert list(tmp_path.iterdir()) == []
        else:
            break
        finally:
            sys.settrace(None)
    assert 10 < at < 99


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, ">f8"])
def test_mapped_rows_are_an_npy_file(tmp_path, dtype):
    x = np.asfortranarray(np.arange(60, dtype=np.uint8).reshape(12, 5).astype(dtype))
    minidl.data.mapped(minidl.Dataset((x, np.zeros(12, int))), tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "train.npy", mmap_mode="r"), x)


# ---------------------------------------------------------------- JSON

WORDS = ["NaN", "Infinity", "-Infinity", "\\NaN", "\\\\-Infinity", "nan", "-", "\\"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(WORDS),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def strict(text):
    """As a parser reads it that knows JSON alone (RFC 8259)."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@given(VALUES)
def test_json_is_read_as_it_was_written(value):
    text = files.to_json(value)
    strict(text)
    assert repr(files.from_json(text)) == repr(value)  # NaN is not equal to itself


def test_json_of_numpy():
    value = {"a": np.float32("nan"), "b": np.array([1, np.inf]), "c": (np.int64(3), np.True_)}
    assert strict(files.to_json(value)) == {"a": "NaN", "b": [1, "Infinity"], "c": [3, True]}
    with pytest.raises(TypeError):
        files.to_json(object())


def test_a_history_with_nan_and_infinity(tmp_path):
    records = [
        minidl.history.Epoch(0, 0.1, 0.1, {"train_loss": math.inf, "valid_f1": math.nan}),
        minidl.history.Epoch(1, 0.1, 0.1, {"train_loss": 0.5, "valid_f1": -math.inf}),
    ]
    history = minidl.History(monitor="train_loss")
    history.records = records
    history.to_json(tmp_path / "h.json")
    saved = strict((tmp_path / "h.json").read_text())["records"]
    assert [r["valid_f1"] for r in saved] == ["NaN", "-Infinity"]
    (tmp_path / "old.json").write_text(json.dumps(history.to_dict()))
    for name in ("h.json", "old.json"):
        again = minidl.History.from_json(tmp_path / name)
        assert repr(again.to_dict()) == repr(history.to_dict())


# ---------------------------------------------------------------- paths, and bytes on any system


def doors(tmp_path):
    """Everything that writes or reads a file that the user names."""
    model = minidl.Sequential(minidl.Linear(4, 3), rng=0)
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
    data = minidl.Dataset((x, y), (x, y))

    def fit(**more):
        one = model.copy()
        return minidl.fit(one, data, minidl.CrossEntropy(), minidl.Adam(one), epochs=1, rng=0, **more)  # fmt: skip

    history = fit()
    table = Table(["a"], [("1",)])
    yield "m.npz", lambda path: minidl.save(path, model), minidl.load
    yield "c.npz", lambda path: minidl.Checkpoint(path).save(model=model), lambda path: minidl.Checkpoint(path).load(model=model)  # fmt: skip
    yield "r.npz", lambda path: fit(checkpoint=minidl.Checkpoint(path)), lambda path: fit(checkpoint=minidl.Checkpoint(path, resume=True))  # fmt: skip
    yield "h.json", history.to_json, minidl.History.from_json
    yield "h.csv", history.to_csv, None
    yield "h.png", history.plot, None
    yield "p.svg", lambda path: line_plot(path, Panel({"a": ([0, 1], [0, 1])}, "x", "y")), None
    yield "t.csv", lambda path: table.write(path.removesuffix(".csv")), None
    yield "m.safetensors", lambda path: minidl.safetensors.save(path, model), lambda path: minidl.safetensors.load(path, model)  # fmt: skip
    yield "train.npy", lambda path: minidl.data.mapped(data, Path(path).parent), None
    yield "d.npz", lambda path: np.savez(Path(path).expanduser(), Xtrain=x, ytrain=y, Xtest=x, ytest=y), minidl.load_dataset  # fmt: skip
    yield "results.jsonl", lambda path: grid(Path(path).parent), None


def grid(folder):
    from minidl.grid.points import Grid
    from minidl.grid.runner import run

    return run(Grid(a=[1]), lambda a: {"v": a}, out=folder, progress=False)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    for name, write, read in doors(tmp_path):
        (home / "new").mkdir(parents=True, exist_ok=True)
        write(f"~/new/{name}")
        assert (home / "new" / name).stat().st_size > 0, name
        if read is not None:
            read(f"~/new/{name}")
        assert list(here.iterdir()) == [], name
    monkeypatch.setenv("MINIDL_CACHE", "~/letters")
    assert len(minidl.load_letters(20, 5, 5).train) == 20
    assert list(here.iterdir()) == []
    with pytest.raises(ValueError, match=r"~nobody-of-this-name/m.npz: ~ is not known here"):
        minidl.load("~nobody-of-this-name/m.npz")


@pytest.mark.parametrize("name", ["minidl", "examples", "benchmarks"])
def test_text_is_written_and_read_alike_on_all_systems(name):
    """Text names its encoding, and its line ends where it is written."""
    wrong = []
    for path in (Path(__file__).parents[2] / name).rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            what = getattr(call.func, "attr", getattr(call.func, "id", ""))
            options = {k.arg for k in call.keywords}
            strings = [a.value for a in call.args if isinstance(a, ast.Constant)]
            binary = any(set(s) <= set("rwxab+") and "b" in s for s in strings if isinstance(s, str))  # fmt: skip
            text = what in ("read_text", "write_text") or (what == "open" and not binary)
            ours = what == "write_text" and isinstance(call.func, ast.Name)  # files.write_text
            classes = what == "open" and getattr(getattr(call.func, "value", None), "id", "") in ("os", "gzip", "archive", "pillow")  # fmt: skip
            if text and not ours and not classes and "encoding" not in options:
                wrong.append(f"{path}:{call.lineno} encoding")
            if what == "write_text" and not ours and "newline" not in options:
                wrong.append(f"{path}:{call.lineno} newline")
    assert not wrong


def test_lines_end_alike_on_all_systems(tmp_path, monkeypatch):
    """With the line ends of Windows, which text files get where they are opened without care."""
    line_plot(tmp_path / "first.svg", Panel({}, "x", "y"))  # matplotlib reads its own files once
    monkeypatch.setattr("os.linesep", "\r\n")
    pictures = {}
    for newline in ("\r\n", None):
        original = open

        def windows(file, mode="r", buffering=-1, encoding=None, errors=None, newline=newline, *more, open=original, end=newline):  # fmt: skip
            if newline is None and "b" not in mode and "w" in mode:
                newline = end
            return open(file, mode, buffering, encoding, errors, newline, *more)

        monkeypatch.setattr("builtins.open", windows)
        monkeypatch.setattr("io.open", windows)
        path = tmp_path / f"{newline is None}.svg"
        line_plot(path, Panel({"a": ([0, 1], [0, 1])}, "x", "y"))
        files.write_text(path.with_suffix(".txt"), "a\nb\n")
        monkeypatch.undo()
        pictures[newline] = path.read_bytes()
        assert path.with_suffix(".txt").read_bytes() == b"a\nb\n"
    assert pictures["\r\n"] == pictures[None]
    assert b"\r" not in pictures[None]


@pytest.mark.parametrize("kind", ["folder", "device"])
def test_what_is_no_file_is_never_replaced(kind, tmp_path):
    """As ``/dev/null``, which a rename would turn into a file."""
    target = tmp_path / "target"
    target.mkdir() if kind == "folder" else os.mkfifo(target)
    with pytest.raises(OSError, match=f"expected a file to write, got a {kind}.*target"):
        files.write_text(target, "x")
    assert not target.is_file()
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch):
    """As under WebAssembly, where ``fsync`` of a folder is a bad file descriptor."""
    sound = os.fsync

    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        sound(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_text(tmp_path / "x", "whole")
    assert (tmp_path / "x").read_text() == "whole"


def test_windows_by_reading(tmp_path, monkeypatch):
    """There ``os.replace`` of an open file is a PermissionError: it names the target, which stays."""
    target = tmp_path / "x"
    files.write_text(target, "before\n")
    assert target.read_bytes() == b"before\n"  # no carriage return, on any system

    def replace(self, other):
        raise PermissionError(13, "The process cannot access the file", str(self))

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(PermissionError, match=r"cannot access the file.*x'"):
        files.write_text(target, "after")
    assert target.read_bytes() == b"before\n"
    assert list(tmp_path.iterdir()) == [target]


def test_what_does_not_fit_into_memory_is_a_value_error():
    with pytest.raises(ValueError, match=r"does not fit into memory \(7 TB\)"), files.reading("a"):
        raise MemoryError("7 TB")
