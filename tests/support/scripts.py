"""Run scripts as a user does, but without importing NumPy and the plots anew for each.

A process that has imported them forks one process for each script, which has its own folder,
arguments, output and exit code. For signals and memory start a process in the test.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

IMPORTED = (
    "numpy", "filelock", "jinja2", "threadpoolctl", "tqdm", "rich.table", "concurrent.futures.process",
    "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg",
    "minidl", "minidl.data", "minidl.grid", "minidl.saving.runs", "minidl.online", "minidl.view.plots",
    "minidl.view.tables", "minidl.view.cli",
)  # fmt: skip


def run(
    script: Path,
    *args: object,
    cwd: Path,
    pictures: bool = True,
    without: str = "",
    strict: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Return what ``python SCRIPT ARGS`` prints in the folder ``cwd``, and its exit code.

    Without ``pictures`` their files are empty: to draw them takes most of the time of a small run.
    The package ``without`` cannot be imported. If ``strict``, a warning is an error.
    """
    words = [str(script), *map(str, args)]
    if not hasattr(os, "fork"):
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        task = {
            "cwd": str(cwd),
            "argv": words,
            "out": str(out),
            "err": str(err),
            "env": {**os.environ},
            "pictures": pictures,
            "without": without,
            "strict": strict,
        }
        server = _server()
        server.stdin.write(json.dumps(task) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())


@cache
def _server() -> Any:
    """Start the process that forks; it ends when its input is closed."""
    command = [sys.executable, __file__]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)
    return server


def _serve() -> None:
    import contextlib
    import importlib
    import warnings

    sys.path.pop(0)  # tests/support
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    replies = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            replies.close()
            _be_the_script(**json.loads(line))
        replies.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        replies.flush()


def _be_the_script(
    cwd: str,
    argv: list[str],
    out: str,
    err: str,
    env: dict[str, str],
    *,
    pictures: bool,
    without: str,
    strict: bool,
) -> None:
    """Become ``python ARGV`` in the folder ``cwd``; does not return."""
    import multiprocessing.process
    import runpy
    import threading
    import traceback
    import warnings

    for number, path in enumerate((os.devnull, out, err)):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT
        os.dup2(os.open(path, flags), number)
    code: Any = 0
    try:
        os.chdir(cwd)
        multiprocessing.process.ORIGINAL_DIR = cwd
        os.environ.clear()
        os.environ.update(env)
        if not pictures:
            sys.modules["matplotlib.figure"].Figure.savefig = lambda *_, **__: None
        if without:
            sys.modules[without] = None  # type: ignore[assignment]
        if strict:
            warnings.resetwarnings()
            warnings.simplefilter("error")
        sys.argv = argv
        sys.path.insert(0, str(Path(argv[0]).parent))
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    _serve()
