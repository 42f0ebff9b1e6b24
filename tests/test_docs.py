"""Every Python block in README.md and docs/ runs, page by page, and its assertions hold."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_page(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = blocks(page)
    assert found, f"{page.name} has no Python block"
    namespace = {"__name__": "page"}
    for i, block in enumerate(found, start=1):
        exec(compile(block, f"{page.name}, block {i}", "exec"), namespace)


def test_names_in_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"(?:examples|benchmarks|docs)/[\w./-]+", text):
        assert (ROOT / path).exists(), path
