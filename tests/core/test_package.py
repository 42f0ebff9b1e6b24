"""The package as it is distributed: an sdist and a wheel that build, are whole, and install."""

import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pages import blocks

import minidl

pytestmark = pytest.mark.slow(seconds=30)

ROOT = Path(__file__).resolve().parents[2]
KEPT = ("minidl", "tests", "docs", "examples", "benchmarks", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "pyproject.toml", "setup.cfg")  # fmt: skip


def run(*command, cwd=None):
    """Run a command of Python in a process of its own; return what it prints."""
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Build both files in a copy of the tree, without a network."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in KEPT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        skip = {"ignore": shutil.ignore_patterns("__pycache__")} if copy is shutil.copytree else {}
        copy(ROOT / name, tree / name, **skip)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, tree)
    return out


@pytest.fixture
def sdist(dist):
    return next(dist.glob("*.tar.gz"))


@pytest.fixture
def wheel(dist):
    return next(dist.glob("*.whl"))


def test_both_pass_twine(sdist, wheel):
    out = run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    assert out.count("PASSED") == 2


def test_the_sdist_has_everything(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("minidl", "tests", "docs", "examples", "benchmarks"):
        files = {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip
        assert files <= names
    assert set(KEPT) <= names


def test_the_wheel_has_the_library_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        meta = next(name for name in names if name.endswith("/METADATA"))
        text = archive.read(meta).decode()
    ours = {name for name in names if ".dist-info/" not in name}
    source = {str(path.relative_to(ROOT)) for path in (ROOT / "minidl").rglob("*.py")}
    others = {str(path.relative_to(ROOT)) for path in (ROOT / "minidl").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}  # fmt: skip
    assert ours == source | others
    assert "minidl/py.typed" in ours
    assert re.search(rf"^Version: {re.escape(minidl.__version__)}$", text, re.M)


@pytest.fixture
def bare(tmp_path, wheel, monkeypatch):
    """Return the Python of a new environment with the wheel and NumPy, and nothing else.

    NumPy is linked from this environment, so that no network is needed.
    """
    monkeypatch.delenv("PYTHONPATH", raising=False)
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare/bin/python"
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())  # fmt: skip
    here = Path(np.__file__).parents[1]
    for path in (here / "numpy", here / "numpy.libs", *here.glob("numpy-*.dist-info")):
        if path.exists():
            (packages / path.name).symlink_to(path)
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--quiet")
    run(*pip, "--disable-pip-version-check", wheel)
    return python


def test_it_installs_on_a_bare_machine_and_the_first_page_works(bare, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    lines = "import minidl, numpy; print(minidl.__version__, numpy.__version__, minidl.__file__)"
    version, numpy_version, place = run(bare, "-c", lines, cwd=empty).split(maxsplit=2)
    assert (version, numpy_version) == (minidl.__version__, np.__version__)
    assert str(tmp_path) in place
    page = "\n".join(blocks((ROOT / "docs/start.md").read_text(encoding="utf-8")))
    (empty / "page.py").write_text(page, encoding="utf-8")
    out = run(bare, "-W", "error", "page.py", cwd=empty)
    assert "Scale(3), x (8, 3) float32, train=True: passed" in out
    assert (empty / "flowers.npz").exists()


def test_the_citation_is_valid():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"]
    assert citation["title"] == "minidl"
    assert citation["type"] == "software"
    assert str(citation["version"]) == minidl.__version__
    assert all(author.get("name") or author.get("family-names") for author in citation["authors"])
    allowed = {"abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license", "license-url", "message", "preferred-citation", "references", "repository", "repository-artifact", "repository-code", "title", "type", "url", "version"}  # fmt: skip
    assert set(citation) <= allowed
