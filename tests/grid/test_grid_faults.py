"""Grids under attack: other processes, results of any kind, full disks, damaged files."""

import datetime
import functools
import io
import itertools
import json
import linecache
import operator
import os
import re
import subprocess
import sys
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import work

import minidl
from minidl.grid import folder
from minidl.grid.points import Grid, Result, exit_status, keeping
from minidl.grid.runner import run
from minidl.saving import describe as settings

HERE = Path(__file__).parents[1]


def python(code, cwd, *more, input=None):
    paths = os.pathsep.join([str(HERE.parent), str(HERE / "support"), str(cwd)])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run([sys.executable, *more, code], cwd=cwd, env=environment, input=input, capture_output=True, text=True, check=False)  # fmt: skip


def names(out):
    return sorted(p.name for p in out.iterdir() if not p.name.startswith("."))


# ---------------------------------------------------------------- one result


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("what", "values"),
    [
        ("scalar", {"x": 0.5, "n": 3, "yes": True}),
        ("array", {"x": [0, 1, 2], "nested": [[[0], [0]]]}),
        ("tuple", {"x": [1, None, "a"], "7": 2}),
    ],
)
def test_results_are_numbers_of_any_library(tmp_path, what, values, jobs):
    train = functools.partial(work.anything, what=what)
    results = run(Grid(a=[1]), train, out=tmp_path, jobs=jobs, progress=False)
    assert [r.values for r in results] == [values]
    assert run(Grid(a=[1]), train, out=tmp_path, progress=False) == results  # as read from the file


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("nothing", "TypeError: expected a dict of results, got None"),
        ("object", "TypeError: expected numbers, strings, lists and dicts, got builtins.object"),
        ("complex", "TypeError: expected numbers, strings, lists and dicts, got builtins.complex"),
        ("loop", "ValueError: Circular reference detected"),
        ("exit", "SystemExit: 3"),
    ],
)
def test_a_result_that_cannot_be_kept_does_not_end_the_grid(tmp_path, what, error):
    train = functools.partial(work.anything, what=what)
    all_fail = what == "exit"
    with pytest.warns(UserWarning, match="all of 2 runs failed") if all_fail else nullcontext():
        results = run(Grid(a=[1, 2]), train, out=tmp_path, progress=False)
    assert results[0].error == error
    assert results[1].error == (error if all_fail else None)


def nested(depth):
    made = {}
    for _ in range(depth):
        made = {"a": [made]}
    return made


class Mute(Exception):
    def __str__(self):
        raise RuntimeError


def odd(a):
    if a == "unsaved":
        with keeping(nested(350)):
            raise OSError("no")
    if a == "mute":
        raise Mute
    return nested(a)


def test_results_nested_too_deeply_are_errors_of_their_runs(tmp_path):
    depths = [1, 40, 350, 100_000, "unsaved", "mute"]
    results = run(Grid(a=depths), odd, out=tmp_path, progress=False)
    errors = [r.error for r in results]
    assert errors[:2] == [None, None]
    assert errors[2] == errors[4] == "ValueError: expected results nested at most 100 deep"
    assert errors[3].startswith("RecursionError: ")
    assert errors[5] == "Mute"
    assert "raise Mute" in results[5].traceback
    assert [r.error for r in folder.kept(tmp_path).values()] == [None, None]
    again = run(Grid(a=depths), odd, out=tmp_path, progress=False)
    assert [r.error for r in again] == errors


def fail(a):
    raise ArithmeticError(f"{a} is broken")


def test_a_grid_whose_runs_all_fail_says_so(tmp_path):
    """Once with the first error; its traceback is kept, and the exit status is not 0."""
    with pytest.warns(UserWarning, match="runs failed") as said:
        results = run(Grid(a=[1, 2]), fail, out=tmp_path, progress=False)
    (warning,) = said
    assert str(warning.message) == (
        "run: all of 2 runs failed; the first one, a-1: ArithmeticError: 1 is broken; "
        f"{tmp_path / 'results.jsonl'} has the tracebacks"
    )
    assert warning.filename == __file__
    assert exit_status(results) == 2
    kept = [r.traceback for r in folder.read(tmp_path / "results.jsonl")]
    assert kept == [r.traceback for r in results]
    assert all('raise ArithmeticError(f"{a} is broken")' in text for text in kept)


def test_a_clock_that_jumps_back(tmp_path, monkeypatch):
    hours = itertools.count(0, -3600)
    for name in ("time.time", "time.perf_counter", "tqdm.std.time"):
        monkeypatch.setattr(name, lambda: float(next(hours)))
    results = run(Grid(a=[1, 2, 3]), dict, out=tmp_path)
    assert [(r.error, r.seconds) for r in results] == [(None, 0.0)] * 3


def test_ctrl_c_in_a_script_of_one_s_own_is_one_line(tmp_path):
    script = """
import os, signal
from minidl.grid import Grid, interruptible, run
def train(a):
    if a == 2:
        os.kill(os.getpid(), signal.SIGINT)
    return {}
with interruptible():
    run(Grid(a=[1, 2, 3]), train, out="out", progress=False)
"""
    done = python(script, tmp_path, "-c")
    assert done.returncode == 130
    assert done.stderr == "\nstopped: 1 of 3 runs are kept in out/, the same command resumes\n"


# ---------------------------------------------------------------- what a stored result is of

CODE = """
RATE, LOG = {rate}, []
def deep(a):
    return {factor} * a
def helper(a):
    return deep(a)
def unused(a):
    return {unused}
def train(a):
    LOG.append(a)  # {comment}
    return {{"value": RATE * helper(a)}}
"""


def written(file, **change):
    values = {"rate": 0.1, "factor": 2, "unused": 1, "comment": "", **change}
    file.write_text(CODE.format(**values))
    linecache.clearcache()
    module = ModuleType("written")  # not imported: bytecode of the same second would count
    exec(compile(file.read_text(), file, "exec"), vars(module))
    return module.train


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unused": 2, "comment": "x"}, None),
        ({"rate": 0.2}, "what it uses.RATE was 0.1, now it is 0.2"),
        ({"factor": 3}, "what it uses.deep was 'written.deep, source "),
    ],
)
def test_helper_functions_and_constants_are_compared(tmp_path, change, message):
    grid, file = Grid(a=[1, 2]), tmp_path / "written.py"
    options = {"out": tmp_path / "out", "progress": False}
    run(grid, written(file), **options)
    train = written(file, **change)
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        run(grid, train, **options)


METHOD = "class K:\n    {}\n    def __call__(self, lr=1, wd=1): return {{'a': lr * wd}}\n"
CODE_CHANGES = {
    "set": ("def train(lr, wd): return {'a': 1 if lr in {1, 3} else 2}", "{1, 3}", "{2, 3}"),
    "set of texts": ("def train(lr, wd): return {'a': str(lr) in {'1', '3'}}", "'1'", "'2'"),
    "names": ("def train(lr, wd): return {'a': lr - wd}", "lr, wd", "wd, lr"),
    "names of keywords": (
        "def train(*, lr=1, wd=1): return {'a': lr - wd}",
        "lr=1, wd",
        "wd=1, lr",
    ),
    "what is tried": (
        "def train(lr, wd):\n a = b = 0\n try:\n  a = 1 // (lr - 1)\n  b = 1\n except ArithmeticError:\n  a = 2\n return {'a': a + b}",
        "  b = 1\n except ArithmeticError:\n  a = 2\n",
        " except ArithmeticError:\n  a = 2\n else:\n  b = 1\n",
    ),
    "object": (METHOD.format("") + "train = K()", "lr * wd", "lr + wd"),
    "object's constant": (
        METHOD.format("rate = [1]")
        + "train = functools.partial(lambda kind, lr, wd: {'a': kind.rate[0]}, K)",
        "[1]",
        "[2]",
    ),
}
for what, end in {
    "class": "train = lambda lr, wd, kind=K: kind()(lr, wd)",
    "partial": "train = functools.partial(lambda kind, lr, wd: kind()(lr, wd), K)",
    "closure": "def make(kind): return lambda lr, wd: kind()(lr, wd)\ntrain = make(K)",
    "subclass": "class L(K): pass\ntrain = lambda lr, wd, kind=L: kind()(lr, wd)",
    "class method": "class L(K):\n    @classmethod\n    def of(cls, lr, wd): return cls()(lr, wd)\ntrain = L.of",
}.items():
    CODE_CHANGES[what] = (METHOD.format("") + end, "lr * wd", "lr + wd")
for what, member in {
    "property": "@property\n    def x(self): return 1.5",
    "static method": "@staticmethod\n    def x(): return 1.5",
    "inner class": "class X: x = 1.5",
    "constant": "x = 1.5",
    "constant beside what has an address": "x = {'a': 1.5, 'b': lambda: 0}",
}.items():
    CODE_CHANGES[what] = (
        METHOD.format(member) + "train = lambda lr, wd, kind=K: kind()(lr, wd)",
        "1.5",
        "2.5",
    )


@pytest.mark.parametrize("what", CODE_CHANGES)
def test_a_changed_function_or_class_is_noticed(tmp_path, what):
    code, old, new = CODE_CHANGES[what]
    assert code.count(old) == 1

    def made(code):
        space = {"functools": functools, "__name__": "written"}
        exec(code, space)
        return space["train"]

    grid, options = Grid(lr=[1, 2], wd=[3]), {"out": tmp_path, "progress": False}
    first = run(grid, made(code), **options)
    assert run(grid, made("# a comment\n" + code), **options) == first
    with pytest.raises(ValueError, match=r"holds other results"):
        run(grid, made(code.replace(old, new)), **options)


COMPARED = [
    (b"x", b"y"), ((b"x",), (b"y",)), (bytearray(b"x"), bytearray(b"y")),
    (datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)),
    (datetime.datetime(2020, 1, 1, 1), datetime.datetime(2020, 1, 1, 2)),
    (datetime.timedelta(1), datetime.timedelta(2)), (datetime.timezone.utc, None),
    (np.datetime64("2020-01-01"), np.datetime64("2020-01-02")),
    (np.datetime64("2020-01-01T00:00:01"), np.datetime64("2020-01-01T00:00:02")),
    (operator.itemgetter(0), operator.itemgetter(1)), (operator.attrgetter("a"), operator.attrgetter("b")),
    (operator.methodcaller("a", 1), operator.methodcaller("a", 2)),
    (re.compile("a"), re.compile("b")), (re.compile("a"), re.compile("a", re.I)),
    (int | str, int | None), ({1: 2}.keys(), {2: 2}.keys()),
    (range(3), range(4)), (slice(3), slice(4)), (1j, 2j), (..., None), (deque([1]), deque([2])),
    (Fraction(1, 2), Fraction(1, 3)), (Decimal("1"), Decimal("2")), (int.__add__, int.__sub__),
    ("a".upper, "a".lower), (np.add, np.subtract), (np.dtype("f4"), np.dtype("f8")),
]  # fmt: skip


@pytest.mark.parametrize("values", COMPARED)
def test_values_of_any_kind_are_compared(values):
    def closure(value):
        return lambda: value

    described = [
        [settings.describe(made(value), strict=False) for made in (closure, lambda v: v)]
        for value in (values[0], *values)
    ]
    assert settings.difference(described[0], described[1]) is None
    assert settings.difference(described[0][0], described[2][0]) is not None
    assert settings.difference(described[0][1:], described[2][1:]) is not None


# ---------------------------------------------------------------- training functions


@pytest.mark.parametrize("program", ["-c", "-"])
def test_a_function_that_workers_cannot_import_is_explained(tmp_path, program):
    """Before any worker starts: ``python -c``, and ``python - <<EOF``."""
    with pytest.raises(TypeError, match=r"cannot import the training function .*or use jobs=1"):
        run(Grid(a=[1]), lambda a: {}, out=tmp_path, jobs=2, progress=False)
    notebook = """
from minidl.grid import Grid, run
def train(a):
    return {"value": a}
class Train:
    def __call__(self, a):
        return train(a)
import functools, multiprocessing, os
multiprocessing.get_context = None
for task in (train, functools.partial(train, a=1), Train()):
    try:
        run(Grid(a=[1, 2]), task, out="out", jobs=2, progress=False)
    except TypeError as error:
        assert "put it and its arguments into a file" in str(error)
        print(error)
assert not os.path.exists("out")
print([r.values for r in run(Grid(a=[1, 2]), train, out="out", progress=False)])
"""
    code, text = (notebook, None) if program == "-c" else ("-", notebook)
    done = python(code, tmp_path, *([program] if text is None else []), input=text)
    assert done.stdout.count("cannot import the training function (") == 3
    assert done.stdout.endswith("[{'value': 1}, {'value': 2}]\n")
    assert done.stderr == ""


def test_a_script_without_a_main_guard_is_explained(tmp_path):
    (tmp_path / "script.py").write_text("""
import work
from minidl.view.cli import run_main
from minidl.grid import Grid, run
def main():
    run(Grid(a=[1, 2]), work.slow, out="out", jobs=2, progress=False)
run_main(main)
""")
    done = python("script.py", tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: the workers run the script again: call run() under "
        'if __name__ == "__main__":; 0 of 2 runs are kept in out/, the same command resumes\n'
    )


def test_a_function_s_description(tmp_path):
    def one(a, b=3):
        return {}  # a comment

    def other(a, b=3):
        return {"a": a}

    other.__qualname__ = one.__qualname__
    described = settings.describe(functools.partial(one, 5, b=np.float32(2)), strict=False)
    assert (described["0"], described["b"]) == (5, 2.0)
    assert ".test_a_function_s_description.<locals>.one, source " in described["function"]
    describe = functools.partial(settings.describe, strict=False)
    assert describe(one) != describe(other)
    # Where files are does not matter, nor do addresses; what arrays hold does.
    assert describe(tmp_path) == describe(HERE)
    assert describe(object()) == describe(object())
    x = np.arange(6.0)
    assert describe(x) == describe(x.copy()) != describe(x + 1)
    assert describe({"x": (1, [None])}) == {"x": [1, [None]]}
    assert describe({"b", "a"}) == ["a", "b"]
    assert describe(functools.partial(dict, [], c=1)) == {"function": "builtins.dict", "0": [], "c": 1}  # fmt: skip
    nested = settings.difference({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}})
    assert nested == "a.b.c was 1, now it is 2"


# ---------------------------------------------------------------- axes


def test_values_of_every_kind_are_one_point_each(tmp_path):
    values = [
        (1, 2), [1, [2, "x"]], None, True, "1", 1.5, "true", "", "a,b=2", "../../up", "/etc/x",
        "C:\\x", "nul\0", "[1;2]", "ü", "\ud800", "x" * 300, "x" * 299 + "y", np.int64(7),
    ]  # fmt: skip
    grid = Grid(a=values, b=[2])
    results = run(grid, work.point, out=tmp_path / "out", progress=False)
    assert [r.point for r in results] == list(grid)
    assert results[0].values["types"][0] == "tuple"
    assert [r.point for r in run(grid, work.point, out=tmp_path / "out", progress=False)] == list(grid)  # fmt: skip
    identifiers = [r.id for r in results]
    assert len(set(identifiers)) == len(values)
    for name in identifiers:
        (tmp_path / name).write_text("")  # is the name of a file in this folder
        assert (tmp_path / name).parent.resolve() == tmp_path.resolve()
    assert len(names(tmp_path)) == len(values) + 1
    assert grid.identifier({"a": (1, 2), "b": "a,b"}) == "a-[1;2],b-a%2Cb"
    assert grid.identifier({"../x": 1}) == "..%2Fx-1"  # an axis is no path either


def moves(a, *, where):
    os.chdir(where)
    return {"value": a}


def test_a_training_that_changes_the_folder(tmp_path, monkeypatch):
    """The results stay where they were begun, for a relative ``out`` too."""
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    task = functools.partial(moves, where=elsewhere)
    run(Grid(a=[1, 2]), task, out="out", progress=False)
    assert len(folder.kept(tmp_path / "out")) == 2
    assert not list(elsewhere.iterdir())
    file = minidl.Checkpoint("run.npz")
    os.chdir(tmp_path)
    file.save(model=minidl.Sequential(minidl.Linear(2, 2), rng=0))
    assert (elsewhere / "run.npz").is_file()


# ---------------------------------------------------------------- two processes


def test_a_folder_is_written_by_one_process(tmp_path):
    code = f"""
import work

from minidl.grid import Grid, run
run(Grid(a=list(range(100))), work.slow, out={str(tmp_path)!r}, progress=False)
"""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE / "support")]),
    }
    first = subprocess.Popen([sys.executable, "-c", code], env=environment)
    while not (tmp_path / "results.jsonl").exists():
        assert first.poll() is None
        time.sleep(0.01)
    grid = Grid(a=list(range(100)))
    options = {"out": tmp_path, "progress": False}
    try:
        with pytest.raises(OSError, match="is being written by another process"):
            run(grid, work.slow, **options)
        with pytest.raises(ValueError, match=r"seed was None, now it is 7"):
            run(grid, work.slow, **options, settings={"seed": 7})
    finally:
        first.kill()
        first.wait()
    contents = json.loads((tmp_path / "grid.json").read_text())
    with folder.claimed(tmp_path / "grid.json", **contents, begun=lambda: True):
        pass  # a dead process holds no lock


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(37, "No locks available"), r"cannot be locked \(No locks available\): '.*\.grid\.lock'"),
        (BlockingIOError(11, "held"), r"is being written by another process: .* \(its lock is \.grid\.lock\)"),
    ],
)  # fmt: skip
def test_a_lock_that_fails_or_is_never_free_is_named_at_once(tmp_path, monkeypatch, error, message):
    fcntl = pytest.importorskip("fcntl")

    def fail(handle, how):
        raise error

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match=message):
        run(Grid(a=[1]), work.slow, out=tmp_path, progress=False)
    assert not (tmp_path / "results.jsonl").exists()


def test_without_locks_a_grid_is_refused(tmp_path, monkeypatch):
    """As under WebAssembly, which has no ``fcntl``: two runs might write one folder."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(OSError, match=r"no locks on this platform: '.*\.grid\.lock'"):
        run(Grid(a=[1]), work.slow, out=tmp_path, progress=False)


# ---------------------------------------------------------------- a full disk


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_ends_the_grid_and_keeps_the_figures(tmp_path, jobs):
    grid = Grid(a=list(range(1, 60)))
    train = functools.partial(work.full, at=2, marks=tmp_path)
    out = tmp_path / "out"
    with pytest.raises(OSError, match=r"no space left to write models/it.npz; \d+ of 59 runs are kept in .*, the same command resumes"):  # fmt: skip
        run(grid, train, out=out, jobs=jobs, progress=False)
    recorded = {r.id: r for r in folder.read(out / "results.jsonl")}
    unsaved = recorded["a-2"]
    assert (unsaved.values, unsaved.error) == ({"value": 2}, None)
    assert unsaved.unsaved.endswith("No space left on device: 'models/it.npz'")
    assert len(recorded) < 59
    with pytest.raises(OSError, match="no space left"):  # its files are still missing: tried again
        run(grid, train, out=out, jobs=jobs, progress=False)
    assert len(list(tmp_path.glob("2-*"))) == 2


def test_files_that_cannot_be_written_for_another_reason_do_not_end_the_grid(tmp_path):
    with pytest.warns(UserWarning, match="all of 2 runs failed; .*Permission denied"):
        results = run(Grid(a=[1, 2]), work.shut, out=tmp_path / "o", progress=False)
    assert [r.values for r in results] == [{"value": 1}, {"value": 2}]
    assert all("Permission denied" in r.unsaved for r in results)
    assert exit_status(results) == 2


def test_a_line_is_written_completely_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "results.jsonl"
    folder.append(file, Result("a-1", {"a": 1}))
    before = file.read_bytes()

    class Full(io.FileIO):
        def write(self, content):
            if len(content) < 100:
                raise OSError(28, "No space left on device")
            return super().write(content[:60])

    monkeypatch.setattr(Path, "open", lambda path, mode, **options: Full(path, mode))
    with pytest.raises(OSError, match=r"No space left on device: '.*results.jsonl'"):
        folder.append(file, Result("a-2", {"a": 2}))
    assert file.read_bytes() == before


# ---------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("grid.json", b"{}", "expected axes and settings"),
        ("grid.json", b"[]", "expected axes and settings"),
        ("grid.json", b"", "expected axes and settings"),
        ("grid.json", b"\xff\xfe", "expected axes and settings"),
        ("grid.json", b"[" * 100_000, "expected axes and settings"),
        ("grid.json", b'{"axes": {"a": 3}, "settings": {}}', "expected axes and settings"),
        ("grid.json", b'{"axes": [], "settings": {}}', "expected axes and settings"),
        ("results.jsonl", b"{}\n", "line 1: not a result, or changed"),
        ("results.jsonl", b"\n", "line 1: not a result"),
        ("results.jsonl", b"3\n", "line 1: not a result"),
        ("results.jsonl", b"\xff\n", "line 1: not a result"),
        ("results.jsonl", b"[" * 100_000 + b"\n", "line 1: not a result"),
        ("results.jsonl", b'{"id": "a-1", "point": {"a": 1}}\n', "line 1: not a result"),
    ],
)
def test_damaged_files_are_named(tmp_path, file, content, message):
    run(Grid(a=[1]), work.slow, out=tmp_path, progress=False)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{file}.*{message}"):
        run(Grid(a=[1, 2]), work.slow, out=tmp_path, progress=False)


def test_every_change_of_a_line_is_seen(tmp_path):
    run(Grid(a=[1, 2, 3]), work.slow, out=tmp_path, progress=False)
    file = tmp_path / "results.jsonl"
    good = file.read_bytes()
    first = good.index(b"\n")
    assert good[first - 20 : first].count(b'"crc32"') == 1
    lines = good.splitlines(keepends=True)
    for changed in (
        good.replace(b'"value": 2', b'"value": 3'),
        good.replace(b'"id": "a-2"', b'"id": "a-4"'),
        lines[0] + lines[1][:40] + lines[2],  # cut in the middle
        lines[0] + lines[1][:40] + b"\n" + lines[2],
    ):
        assert changed != good
        file.write_bytes(changed)
        with pytest.raises(ValueError, match=r"results.jsonl, line 2: not a result, or changed \(.*\); delete the line"):  # fmt: skip
            run(Grid(a=[1, 2, 3]), work.slow, out=tmp_path, progress=False)
    file.write_bytes(lines[0] + lines[2])  # a line that is deleted is trained again
    assert [r.values["value"] for r in run(Grid(a=[1, 2, 3]), work.slow, out=tmp_path, progress=False)] == [1, 2, 3]  # fmt: skip


def test_a_reader_does_not_cut_a_line_that_is_being_written(tmp_path):
    run(Grid(a=[1, 2]), work.slow, out=tmp_path, progress=False)
    file = tmp_path / "results.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert len(list(folder.read(file))) == 1
    assert file.read_bytes() == whole[:-20]
    assert len(list(folder.read(file, repair=True))) == 1
    assert file.read_bytes() == whole[: whole.index(b"\n") + 1]


# ---------------------------------------------------------------- executors


def test_an_executor_that_is_closed_ends_the_grid_in_one_line(tmp_path):
    class Closed(ThreadPoolExecutor):
        def submit(self, fn, /, *args):
            future = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    for executor in (Closed(), ThreadPoolExecutor(1)):
        executor.shutdown()
        with pytest.raises(OSError, match=r"the executor was closed \(.*\); 0 of 2 runs are kept"):
            run(Grid(a=[1, 2]), work.slow, out=tmp_path, executor=executor, progress=False)
