"""Every Python from 3.10 on that is found here, with the NumPy that it has: ``platform_check.py``."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[1] / "support/platform_check.py"
VERSIONS = [f"3.{minor}" for minor in range(10, 16)]


def interpreter(version):
    """``MINIDL_PYTHONS`` has more interpreters, separated as in ``PATH``."""
    more = os.environ.get("MINIDL_PYTHONS", "").split(os.pathsep)
    own = sys.executable if version == f"3.{sys.version_info.minor}" else None
    for path in [*more, shutil.which(f"python{version}"), own]:
        code = "import sys; print('%d.%d' % sys.version_info[:2]); import numpy"
        done = path and subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)  # fmt: skip
        if done and done.returncode == 0 and done.stdout.strip() == version:
            return path
    return None


@pytest.mark.parametrize("version", VERSIONS)
def test_this_python(version, tmp_path):
    path = interpreter(version)
    if path is None:
        pytest.skip(f"no Python {version} with NumPy here")
    done = subprocess.run([path, str(CHECK)], cwd=tmp_path, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["python"].startswith(version)
