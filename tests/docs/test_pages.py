"""Every Python block in README.md and docs/ runs, page by page, and its assertions hold."""

import json
import re
from pathlib import Path

import pytest
from names import resolve
from pages import blocks

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
DERIVATIONS = ("derivations", "simplex", "quadratic", "convexity", "online", "infinite_width")
FENCES = {"python", "sh", "text", "{toctree}", "{include}"}
"""The kinds of blocks; Python is executed, and no other kind holds Python."""


def not_executed(text):
    """Yield what a page has that may be Python and that ``blocks`` does not find."""
    fences = re.findall(r"^( *)(`{3,}|~{3,})(.*)\n", text, re.M)
    for i, (indent, marks, kind) in enumerate(fences):
        if marks != "```" or indent:
            yield f"a block with the fence {indent + marks + kind!r}"
        elif i % 2 == 0 and kind.partition(" ")[0] not in FENCES:
            yield f"a block of the kind {kind!r}"
        elif i % 2 and kind:
            yield f"a fence {kind!r} inside a block"
    outside = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    yield from re.findall(r"^(?:>>>| {4,}(?:import|from|def|class|assert)\b).*", outside, re.M)
    for block in re.findall(r"^```(?:sh|text)\n(.*?)^```", text, re.M | re.S):
        yield from re.findall(r"^(?:>>>|import |from \w+ import|def |class ).*", block, re.M)


def formulas_without_code(text):
    """Yield the sections that display a formula and have no block of code."""
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        if "$$\n" in section and not blocks(section):
            yield section.partition("\n")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_page(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert list(not_executed(text)) == []
    namespace = {"__name__": "page"}
    for i, block in enumerate(blocks(text), start=1):
        exec(compile(block, f"{page.name}, block {i}", "exec"), namespace)


@pytest.mark.parametrize("name", DERIVATIONS)
def test_every_formula_has_code(name):
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert "$" in text
    assert blocks(text)
    assert list(formulas_without_code(text)) == []


def pictures_without_command(text):
    """Yield the pictures that no command near them is said to make."""
    for found in re.finditer(r"^!\[.*?\]\((.*?)\)", text, re.M):
        near = text[max(found.start() - 1000, 0) : found.end() + 400]
        if not re.search(
            r"`python (?:-m minidl|benchmarks/|examples/|docs/tools/)|first command above", near
        ):
            yield found[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_picture_names_its_script(page):
    assert list(pictures_without_command(page.read_text(encoding="utf-8"))) == []


def not_printed(text, records):
    """Yield the figures and sentences of the homework's page that their command did not print."""
    for section in re.split(r"^### ", text, flags=re.M)[1:]:
        command = re.search(r"^`python examples/(.*)`$", section, re.M)
        if command is None or "--data" in command[1]:
            continue  # a proof, or a run on data that are not here
        lines = records[command[1]]
        flat = " ".join(" ".join(lines).split())
        table = section.partition("| --- |\n")[2]
        row = re.match(r"\|(?: !\[.*?\]\(.*?\) \|)? (.*?) \| .* \|$", table, re.M)
        figures = re.findall(r"\d+\.\d{3,}|\d\.\de-\d+", row[1]) if row else []
        sentences = [line[2:] for line in section.splitlines() if line.startswith("> ")]
        yield from (figure for figure in figures if figure not in flat)
        yield from (sentence for sentence in sentences if sentence not in lines)


def test_the_figures_of_the_homework_are_those_of_its_commands():
    record = json.loads((ROOT / "docs/gallery.json").read_text(encoding="utf-8"))
    printed = {one["command"]: one["output"] for one in record.values()}
    text = (ROOT / "docs/homework.md").read_text(encoding="utf-8")
    assert list(not_printed(text, printed)) == []
    assert text.count("\n> ") > 50
    figure = re.search(r"valid (0\.\d+) at epoch", text)[1]
    wrong = text.replace(figure, "0.9999", 1).replace("it has not settled", "it has settled", 1)
    assert len(list(not_printed(wrong, printed))) == 2


def test_the_rules_see_what_breaks_them():
    right = "```python\nx = 1\n```\n\n```sh\nls\n```\n"
    assert list(not_executed(right)) == []
    for wrong in (
        "```py\nx = 1\n```\n",
        "```\nx = 1\n```\n",
        "  ```python\n  x = 1\n  ```\n",
        "~~~python\nx = 1\n~~~\n",
        "````python\nx = 1\n````\n",
        "```{code-block} python\nx = 1\n```\n",
        ">>> 1 + 1\n",
        "    import minidl\n",
        "```text\nimport minidl\n```\n",
        "```sh\n>>> x\n```\n",
    ):
        assert list(not_executed(right + wrong)), wrong
    assert list(pictures_without_command("![x](x.png)\n")) == ["x.png"]
    assert list(pictures_without_command("![x](x.png)\n`python examples/x.py`")) == []
    assert list(formulas_without_code("# A\n## B\n$$\nx\n$$\n## C\n$$\ny\n$$\n" + right)) == ["B"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_files_and_modules_on_a_page_exist(page):
    """Paths from the root of the repository, and ``minidl.x`` in code and commands."""
    text = page.read_text(encoding="utf-8")
    for path in re.findall(
        r"(?<![\w/.])((?:docs|examples|benchmarks|minidl|tests)/[\w./-]*\w/?)", text
    ):
        assert "NAME" in path or (ROOT / path).exists(), path
    for name in re.findall(r"(?<![\w.])minidl(?:\.\w+)+", text):
        assert resolve(name) is not None, name


def renamed():
    """The rows (old, new) of the changelog's table of modules; ``.x`` is beside the name before."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("| old module |")[2]
    for old, new in re.findall(r"^\| (`.*) \| (.*) \|$", text, re.M):
        names = re.findall(r"`(minidl[\w.]+|\.\w+)", old)
        first = names[0].rpartition(".")[0]
        for name in names:
            yield (
                first + name if name[0] == "." else name,
                re.findall(r"`((?:minidl|homework)\.[\w.]+)", new),
            )


@pytest.mark.parametrize(("old", "new"), list(renamed()))
def test_the_changelog_has_names_that_went_and_names_that_exist(old, new):
    assert resolve(old) is None or old in ("minidl.metrics", "minidl.onnx", "minidl.safetensors")
    assert all(resolve(name) is not None for name in new)
