"""What the command-line tools share: one line on stderr and exit 2 for bad input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a line that says what was kept and how to go on."""


def run_main(main: Callable[[], None]) -> NoReturn:
    """Run a script: exit 2 with one line for bad input, 130 after Ctrl-C."""
    try:
        main()
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        print(f"\n{interrupt or 'interrupted'}", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
