"""Rules for the library's source: what is public is listed and documented; docstrings are plain."""

import ast
import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
from names import resolve

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "minidl"
MODULES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
SOURCES = {name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}
LISTS = ["minidl", *(f"minidl.{p.parent.name}" for p in sorted(PACKAGE.glob("*/__init__.py")))]
"""The packages whose ``__all__`` says what is public: ``minidl`` and the wings."""

FOREIGN = {
    "_check_partial_fit_first_call",
    "_check_sample_weight",
    "_exit",
    "_getframe",
    "_modules",
    "_processes",
}
"""scikit-learn's check, ``os._exit``, ``sys._getframe``, the modules of a PyTorch module with those that occur twice, and
the processes of a ProcessPoolExecutor, which have no public name."""

EXTRAS = {"minidl.sklearn": "sklearn", "minidl.parity": "torch"}


def private(name):
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


# ---------------------------------------------------------------- what is listed


def listed(package):
    """Import a package; return the names in its ``__all__``, or skip."""
    if package in EXTRAS:
        pytest.importorskip(EXTRAS[package])
    return getattr(importlib.import_module(package), "__all__", [])


def documented():
    """The dotted names in ``docs/api``; those of ``automodule`` are modules."""
    text = "".join(p.read_text(encoding="utf-8") for p in sorted((ROOT / "docs/api").glob("*.rst")))
    return re.findall(r"^\.\. auto\w+:: (minidl[\w.]+)$", text, re.M)


@pytest.mark.parametrize("package", LISTS)
def test_what_is_listed_is_documented(package):
    """Each name has a docstring, no underscore, and a place in ``docs/api``."""
    module = importlib.import_module(package)
    reference = [resolve(name) for name in documented() if not needs_another_package(name)]
    for name in listed(package):
        value = getattr(module, name)
        assert not private(name), name
        assert inspect.getdoc(value), name
        if not isinstance(value, ModuleType):
            assert any(value is found for found in reference), f"{package}.{name}"


def needs_another_package(name):
    package = ".".join(name.split(".")[:2])
    return package in EXTRAS and importlib.util.find_spec(EXTRAS[package]) is None


def test_what_is_documented_exists():
    names = [name for name in documented() if not needs_another_package(name)]
    assert len(names) > 100
    assert [name for name in names if any(map(private, name.split(".")))] == []
    assert [name for name in names if not inspect.getdoc(resolve(name))] == []


# ---------------------------------------------------------------- what a helper is


def room(path):
    """The wing that a file belongs to, or the core."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else "the core"


def room_of_module(name):
    parts = name.split(".")
    path = PACKAGE.joinpath(*parts[1:2])
    return parts[1] if path.is_dir() and len(parts) > 1 else "the core"


def defined(tree):
    """Yield the names that a module defines: functions, classes, variables, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def private_uses(source, here="the core", known=frozenset()):
    """Yield each use of a private name of another room, with its line.

    ``known`` are the names that the files of the room define.
    """
    tree = ast.parse(source)
    known = set(defined(tree)) | known | FOREIGN
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            inside = room_of_module(node.module) == here
            for alias in node.names:
                if private(alias.name) and not inside and alias.name not in FOREIGN:
                    yield f"{node.lineno}: from {node.module} import {alias.name}"
        elif isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in known:
            value = node.value.func if isinstance(node.value, ast.Call) else node.value
            if not (isinstance(value, ast.Name) and value.id in ("self", "cls", "super")):
                yield f"{node.lineno}: {ast.unparse(node)}"


def test_an_underscore_stays_in_its_room():
    """A helper of one file or wing may have an underscore; what another room uses has none."""
    known, found = {}, {}
    for name, source in SOURCES.items():
        known.setdefault(room(MODULES[name]), set()).update(defined(ast.parse(source)))
    for name, source in SOURCES.items():
        here = room(MODULES[name])
        found[name] = list(private_uses(source, here, frozenset(known[here])))
    assert {name: uses for name, uses in found.items() if uses} == {}


# ---------------------------------------------------------------- docstrings


def questions(source):
    """Yield each docstring that opens with a question word, with its line; also of attributes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = node.value.value
            if isinstance(text, str) and text.split()[:1] in (["What"], ["How"], ["Where"]):
                yield f"{node.lineno}: {text.splitlines()[0]}"


def test_no_docstring_opens_as_a_question():
    found = {name: list(questions(source)) for name, source in SOURCES.items()}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_every_file_says_what_it_is():
    silent = [name for name, source in SOURCES.items() if not ast.get_docstring(ast.parse(source))]
    assert silent == []


def test_the_rules_see_what_breaks_them():
    source = '''
from minidl.grid.points import _b, c
from minidl.checks import _d
import d

def f(self, x):
    """Where it is."""
    self._mine = d._theirs
    return x._mine + self._inherited + super()._inherited + x._other + x.__dict__

y = 1
"""What y is."""
'''
    found = ["2: from minidl.grid.points import _b", "8: d._theirs", "9: x._other"]
    assert sorted(private_uses(source)) == found
    assert len(list(private_uses(source, "grid", frozenset({"_theirs", "_other"})))) == 1
    assert sorted(questions(source)) == ["12: What y is.", "7: Where it is."]
    assert list(questions('"""Whatever is right."""\nx = "What"')) == []
