"""Run a script, and end it as by SIGTERM when the process that began it has died.

``python child.py SCRIPT ARGS...`` with a pipe as the standard input, which that process holds open.
"""

import os
import runpy
import signal
import sys
import threading
from pathlib import Path


def end_with_parent() -> None:
    """Wait until the pipe is closed, then stop this process: what it has computed is kept."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
