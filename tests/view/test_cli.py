"""Command-line helpers, and the checks of numbers that they share with the library."""

import math
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from minidl.checks import check_float, check_int, did_you_mean, require
from minidl.view.cli import Parser, float_argument, int_argument, run_main

ROOT = Path(__file__).resolve().parents[2]


def parse(kind, text, capsys):
    """Return the parsed number, or the one line of the error."""
    parser = Parser(prog="program")
    parser.add_argument("--flag", type=kind)
    try:
        return parser.parse_args([f"--flag={text}"]).flag
    except SystemExit as ended:
        shown = capsys.readouterr()
        if ended.code != 2:
            raise
        assert shown.out == ""
        assert shown.err.count("\n") == 1
        return shown.err.removeprefix("program: argument --flag: ").rstrip("\n")


@pytest.mark.parametrize(
    ("options", "text", "result"),
    [
        ({}, "1", 1),
        ({}, "250", 250),
        ({}, "0", "expected width to be a whole number >= 1, got '0'"),
        ({}, "-3", "expected width to be a whole number >= 1, got '-3'"),
        ({}, "1.5", "expected width to be a whole number >= 1, got '1.5'"),
        ({}, "wide", "expected width to be a whole number >= 1, got 'wide'"),
        ({"low": 0}, "0", 0),
        ({"low": 0}, "-1", "expected width to be a whole number >= 0, got '-1'"),
        ({"low": 2}, "2", 2),
        ({"low": 2}, "1", "expected width to be a whole number >= 2, got '1'"),
        ({"low": -5}, "-5", -5),
    ],
)
def test_whole_numbers_have_a_least_value(options, text, result, capsys):
    assert parse(int_argument("width", **options), text, capsys) == result


@pytest.mark.parametrize(
    ("bounds", "text", "result"),
    [
        ({}, "-1e9", -1e9),
        ({}, "inf", "expected lr to be a finite number, got 'inf'"),
        ({}, "fast", "expected lr to be a finite number, got 'fast'"),
        ({"low": 0}, "0", 0.0),
        ({"low": 0}, "-1e-9", "expected lr to be a finite number >= 0, got '-1e-9'"),
        ({"low": 0, "open_low": True}, "0", "expected lr to be a finite number > 0, got '0'"),
        ({"low": 0, "open_low": True}, "1e-9", 1e-9),
        ({"low": 0, "high": 1}, "1", 1.0),
        (
            {"low": 0, "high": 1},
            "1.5",
            "expected lr to be a finite number >= 0 and <= 1, got '1.5'",
        ),
        ({"high": 1, "open_high": True}, "1", "expected lr to be a finite number < 1, got '1'"),
        ({"high": 1, "open_high": True}, "0.999", 0.999),
    ],
)
def test_numbers_have_bounds(bounds, text, result, capsys):
    assert parse(float_argument("lr", **bounds), text, capsys) == result


@pytest.mark.parametrize(
    ("value", "low", "ok"),
    [
        (1, 1, True), (0, 1, False), (0, 0, True), (-1, 0, False), (np.int64(3), 1, True),
        (np.uint8(3), 1, True), (True, 1, False), (False, 0, False), (1.0, 1, False),
        ("1", 1, False), (None, 1, False), (float("nan"), 1, False), (2**62, 1, True),
    ],
)  # fmt: skip
def test_check_int(value, low, ok):
    if ok:
        number = check_int("owner", "n", value, low=low)
        assert type(number) is int
        assert number == value
    else:
        with pytest.raises(
            ValueError, match=rf"^owner: expected n to be a whole number >= {low}, got "
        ):
            check_int("owner", "n", value, low=low)


@pytest.mark.parametrize(
    "value", [None, "x", "0.5", b"1", 10**400, math.inf, -math.inf, math.nan, [1.0], 2.5]
)
def test_check_float_refuses(value):
    with pytest.raises(
        ValueError, match=r"^owner: expected x to be a finite number >= 0 and <= 2, got "
    ):
        check_float("owner", "x", value, low=0, high=2)


def test_check_float_accepts_what_is_a_number():
    for value in (1, 1.5, np.float32(0.25), np.float64(2)):
        number = check_float("owner", "x", value, low=0, high=2)
        assert type(number) is float
        assert number == float(value)


def test_hints_for_unknown_names():
    assert did_you_mean("rellu", ["tanh", "relu"]) == ", did you mean 'relu'?"
    assert did_you_mean("zzz", iter(["tanh", "relu"])) == ", expected one of tanh, relu"


def test_a_missing_package_is_named_with_its_extra():
    assert require("os.path", "examples") is os.path
    with pytest.raises(
        ImportError, match=r"^nowhere is needed for this: pip install 'minidl\[some\]' \(No module"
    ):
        require("nowhere.at_all", "some")


def ended(main, capsys):
    with pytest.raises(SystemExit) as end:
        run_main(main)
    shown = capsys.readouterr()
    assert shown.out == ""
    return end.value.code, shown.err


def test_a_program_that_succeeds_exits_with_0(capsys):
    assert ended(lambda: None, capsys) == (0, "")


@pytest.mark.parametrize("kind", [ValueError, TypeError, OSError, FileNotFoundError, ImportError, FloatingPointError])  # fmt: skip
def test_an_error_is_one_line(kind, capsys):
    def main():
        raise kind("set.npz: cannot be read\n  (its end is\tmissing)\n\n")

    assert ended(main, capsys) == (2, "error: set.npz: cannot be read (its end is missing)\n")


def test_ctrl_c_exits_with_130(capsys):
    def main():
        raise KeyboardInterrupt

    assert ended(main, capsys) == (130, "\ninterrupted\n")

    def stopped():
        raise KeyboardInterrupt("stopped: 3 of 8 runs are kept")

    assert ended(stopped, capsys) == (130, "\nstopped: 3 of 8 runs are kept\n")


def test_sigterm_is_ctrl_c(capsys):
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert ended(lambda: os.kill(os.getpid(), signal.SIGTERM), capsys) == (130, "\ninterrupted\n")  # fmt: skip
    finally:
        signal.signal(signal.SIGTERM, before)
    # In a thread no handler can be set.
    with ThreadPoolExecutor(1) as pool, pytest.raises(SystemExit) as end:
        pool.submit(run_main, lambda: 3).result()
    assert end.value.code == 3


def test_a_fault_of_the_program_is_not_hidden(capsys):
    def main():
        raise KeyError("a fault")

    with pytest.raises(KeyError):
        run_main(main)


def test_a_parser_s_error_is_one_line(capsys):
    parser = Parser(prog="program")
    parser.add_argument("--width", type=int, required=True)
    with pytest.raises(SystemExit) as end:
        parser.parse_args([])
    assert end.value.code == 2
    assert capsys.readouterr().err == "program: the following arguments are required: --width\n"


PROGRAM = """
import sys, time, minidl
from minidl.view.cli import run_main

def main():
    with minidl.checks.progress_bar(total=1000, unit="step") as bar:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            bar.update()
            bar.set_postfix({"loss": "0.5"}, refresh=False)
    print("name \\udcff")
    open("file", "w").write(str([sys.stdout is None, sys.stderr is None]))

run_main(main)
"""


@pytest.mark.skipif(os.name == "nt", reason="a shell closes the streams")
@pytest.mark.parametrize("closing", ["", "2>&-", ">&-", ">&- 2>&-"])
def test_closed_streams_and_odd_names(tmp_path, closing):
    """The program does its work; a bar that no terminal shows is written once a minute."""
    (tmp_path / "program.py").write_text(PROGRAM)
    command = f'"{sys.executable}" program.py {closing}'
    shown = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert (tmp_path / "file").read_text() == "[False, False]"
    assert shown.stdout == ("" if ">&-" in closing.split() else "name \\udcff\n")
    if "2>&-" in closing:
        assert shown.stderr == ""
    else:
        assert shown.stderr.count("[00:") == 2  # the first and the last state
