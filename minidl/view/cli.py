"""Helpers for command-line programs: bad input gives one line on stderr and exit status 2."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from minidl.checks import check_float, check_int


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _argument(
    kind: type, check: Callable[..., Any], name: str, **bounds: Any
) -> Callable[[str], Any]:
    """Return an argparse type: a number within the bounds of ``check``, whose message names it."""

    def parse(text: str) -> Any:
        number: object = text
        with contextlib.suppress(ValueError):
            number = kind(text)
        try:
            return check("argument", name, number, **bounds)
        except ValueError as error:
            expected = str(error).removeprefix("argument: ").rpartition(", got")[0]
            raise argparse.ArgumentTypeError(f"{expected}, got {text!r}") from None

    return parse


int_argument = partial(_argument, int, check_int)
float_argument = partial(_argument, float, check_float)


@contextlib.contextmanager
def handling(number: int, handler: Any) -> Iterator[None]:
    """Handle a signal in this context; only the main thread can, others get no signals."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(number, handler) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(number, before)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """End the program in one line and with exit status 130 on Ctrl-C in this context.

    The signal SIGTERM, which clusters send before the time limit, is treated as Ctrl-C. The line
    is the text of the KeyboardInterrupt: of `minidl.grid.run`, what was kept. Also a decorator.
    """
    try:
        with handling(signal.SIGTERM, signal.default_int_handler):
            yield
    except KeyboardInterrupt as interrupt:
        print(f"\n{str(interrupt) or 'interrupted'}", file=sys.stderr)
        sys.exit(130)


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run a script; exit with 0 or the status that ``main`` returns.

    The status is 2, with one line, for bad input or a lack of memory, and 130 after Ctrl-C.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: output is lost, and no file gets its number
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that is not UTF-8
    try:
        with interruptible():
            status = main()
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError) as error:
        kind = "out of memory: " if isinstance(error, MemoryError) else ""
        print(f"error: {kind}{' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    sys.exit(status or 0)
