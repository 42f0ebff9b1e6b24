"""Rules for the library's source: what crosses a module boundary is public, docstrings are plain."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "minidl"
MODULES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}

# os._exit, and the processes of a ProcessPoolExecutor, which have no public name.
FOREIGN = {"_exit", "_processes"}


def private(name):
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def defined(tree):
    """Yield the names that a module defines: functions, classes, variables, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and own(node):
            yield node.attr


def own(attribute):
    """Whether an attribute is one of self, cls or super()."""
    value = attribute.value
    if isinstance(value, ast.Call):
        value = value.func
        return isinstance(value, ast.Name) and value.id == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def private_uses(source):
    """Yield each use of a private name of another module, with its line."""
    tree = ast.parse(source)
    here = set(defined(tree)) | FOREIGN
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if private(alias.name):
                    yield f"{node.lineno}: from {node.module} import {alias.name}"
        elif isinstance(node, ast.Attribute) and private(node.attr):
            known = own(node) or node.attr in here
            if not known:
                yield f"{node.lineno}: {ast.unparse(node)}"


def questions(source):
    """Yield each docstring that opens with a question word, with its line; also of attributes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = node.value.value
            if isinstance(text, str) and text.split()[:1] in (["What"], ["How"], ["Where"]):
                yield f"{node.lineno}: {text.splitlines()[0]}"


@pytest.mark.parametrize("name", MODULES)
def test_no_private_name_of_another_module(name):
    assert list(private_uses(MODULES[name].read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("name", MODULES)
def test_no_docstring_opens_as_a_question(name):
    assert list(questions(MODULES[name].read_text(encoding="utf-8"))) == []


def test_the_rules_see_what_breaks_them():
    source = '''
from a import _b, c
import d

def f(self, x):
    """Where it is."""
    self._mine = d._theirs
    return x._mine + self._inherited + super()._inherited + x._other + x.__dict__

y = 1
"""What y is."""
'''
    found = ["2: from a import _b", "7: d._theirs", "8: x._other"]
    assert sorted(private_uses(source)) == found
    assert sorted(questions(source)) == ["11: What y is.", "6: Where it is."]
    assert list(questions('"""Whatever is right."""\nx = "What"')) == []
