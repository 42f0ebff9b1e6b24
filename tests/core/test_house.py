"""The house: files are the core, folders are wings; how large each is, and what imports what."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs" / "tools"))
house = pytest.importorskip("house", reason="import-linter is not installed")

PACKAGE = ROOT / "minidl"
FILES = house.core()
WINGS = {path.name: path for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
MODULES = house.sources(PACKAGE, "minidl")

ENTRIES = 24
LIMITS = {"the core": 5_200, "the package": 14_000, "a file": 600}
"""The most lines, docstrings included."""

MISSED = {"the core": 5_400, "the package": 15_310}
"""The limits that are not met, and the most lines there are now."""


def test_the_entries():
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__", "py.typed"}
    assert len(entries) <= ENTRIES, sorted(entries)
    assert len(FILES) + 1 + len(WINGS) == len(entries)


@pytest.mark.parametrize(("name", "pattern"), [("the core", "*.py"), ("the package", "**/*.py")])
def test_the_lines_of_the_core_and_of_the_package(name, pattern):
    assert house.lines(*PACKAGE.glob(pattern)) <= MISSED.get(name, LIMITS[name])


def test_the_lines_of_each_file():
    sizes = {path.relative_to(PACKAGE).as_posix(): house.lines(path) for path in MODULES.values()}
    limit = LIMITS["a file"]
    assert {name: n for name, n in sizes.items() if n > MISSED.get(name, limit)} == {}


# ---------------------------------------------------------------- what imports what


@functools.cache
def arrows_of_the_package():
    return house.graph(MODULES)


def test_no_core_file_imports_a_wing():
    """Not even inside a function; and no core file imports ``minidl`` itself, which has them all."""
    found = set()
    for path in FILES:
        for name in house.imported(ast.parse(path.read_text(encoding="utf-8"))):
            parts = name.split(".")
            if parts == ["minidl"] or (parts[0] == "minidl" and parts[1] in WINGS):
                found.add((f"minidl.{path.stem}", name.rpartition(".")[0]))
    assert found == {house.EXCEPTION}


@pytest.mark.parametrize(("folder", "prefix"), [("minidl", "minidl"), ("examples", ""), ("benchmarks", "")])  # fmt: skip
def test_no_circle(folder, prefix):
    arrows = arrows_of_the_package() if prefix else house.graph(house.sources(ROOT / folder))
    assert sum(map(len, arrows.values())) > 20
    assert house.circles(arrows) == []


def test_every_import_goes_to_a_lower_floor():
    """As import-linter's contract says, which has every entry."""
    floor = {name: i for i, row in enumerate(house.floors()) for name in row}
    assert set(floor) == {path.stem for path in FILES} | set(WINGS)
    for module, others in arrows_of_the_package().items():
        room = module.partition(".")[2].partition(".")[0]
        for other in others if room else ():
            below = other.split(".")[1]
            assert below == room or floor[below] > floor[room] or (module, other) == house.EXCEPTION


def test_the_contracts_of_import_linter_hold():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def named_packages(path):
    """Yield the other packages that a file imports, or asks for by ``require``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from (name.partition(".")[0] for name in house.imported(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="require"), args=[ast.Constant(value=name), *_]):
                yield name.partition(".")[0]


PLACES = {
    "torch": "parity/",
    "hypothesis": "testing/strategies.py",
    "sklearn": "sklearn/",
    "scipy": "sklearn/",
    "onnx": "saving/onnx.py",
    "matplotlib": "view/",
    "rich": "view/",
}


def test_another_package_has_one_place():
    found = {(package, path) for path in MODULES.values() for package in named_packages(path)}
    users = {(p, path.relative_to(PACKAGE).as_posix()) for p, path in found if p in PLACES}
    assert {package for package, _ in users} >= set(PLACES) - {"scipy"}
    assert {user for user in users if not user[1].startswith(PLACES[user[0]])} == set()


# ---------------------------------------------------------------- what the pages say


def test_the_page_says_what_is_measured():
    """The files exactly, the lines within a twentieth: ``python docs/tools/house.py`` writes both."""
    stated = house.stated(house.PAGE.read_text(encoding="utf-8"))
    measured = house.measured()
    assert stated.keys() == measured.keys()
    for use, (files, lines) in measured.items():
        assert stated[use][0] == files, use
        assert abs(stated[use][1] - lines) <= lines / 20, use


def test_fit_reaches_the_core_alone():
    arrows = {m: o - {house.EXCEPTION[1]} for m, o in arrows_of_the_package().items()}
    reached = house.reached(arrows, "minidl.training")
    assert reached <= {f"minidl.{path.stem}" for path in FILES}
    readme = re.sub(r"\s+", " ", (ROOT / "README.md").read_text(encoding="utf-8"))
    sentence = (
        f"The core is {len(FILES)} files; `fit` reaches {len(reached)} of them and nothing else."
    )
    assert sentence in readme


def test_the_picture_has_every_entry():
    drawn = re.findall(r">([\w.]+[/y])</text>", house.PICTURE.read_text(encoding="utf-8"))
    assert sorted(drawn) == sorted([path.name for path in FILES] + [f"{name}/" for name in WINGS])


# ---------------------------------------------------------------- the rules see what breaks them


def test_imports_inside_functions_count_and_those_for_type_checkers_do_not():
    source = """
import a.b
from c import d
if TYPE_CHECKING:
    from e import f
else:
    from g import h
def inner():
    from i import j
    import k
"""
    assert list(house.imported(ast.parse(source))) == ["a.b", "c.d", "g.h", "i.j", "k"]


def test_a_circle_is_found():
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert house.circles(arrows) == [{"b", "c"}]
    assert house.circles({"a": {"b"}, "b": set()}) == []
    assert house.reached(arrows, "d") == set("abcd")
