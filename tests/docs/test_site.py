"""The documentation as a site: it builds without a warning, is whole, and loads nothing."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock
from sitecheck import Page, dead_links, loaded_from_elsewhere, weight

import minidl

pytestmark = pytest.mark.slow(seconds=30)

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "tools"))
notebooks = pytest.importorskip("notebooks", reason="nbformat is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


EXECUTED = "training", "plotting"
"""Pages that are executed for the site of the tests; test_pages.py executes all."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site with warnings as errors, once for all workers."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "site"
    with FileLock(shared / "site.lock"):
        if not folder.exists():
            warned = shared / "warnings.txt"  # the standard error has words of the kernels, too
            command = [sys.executable, "-m", "sphinx", "-W", "-q", "-w", str(warned), "-d", str(shared / "doctrees"), "docs", str(folder)]  # fmt: skip
            paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
            done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths, "MINIDL_EXECUTED_PAGES": " ".join(EXECUTED)}, capture_output=True, text=True, check=False)  # fmt: skip
            if done.returncode:
                shutil.rmtree(folder, ignore_errors=True)  # for the other workers
            assert (done.returncode, warned.read_text(encoding="utf-8")) == (0, ""), done.stderr
    return folder


@pytest.mark.slow(seconds=120)  # it builds the site, before another worker needs it
def test_no_dead_link(site):
    assert dead_links(site) == []


def test_nothing_is_loaded_from_elsewhere(site):
    assert loaded_from_elsewhere(site) == []


def test_formulas_are_mathml_and_errors_are_seen(site):
    text = (site / "simplex.html").read_text(encoding="utf-8")
    assert text.count("<math") > 200
    assert not any("mathjax" in url.lower() for url in Page(site / "simplex.html").loaded)
    assert "$" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.S)


def test_words_before_a_colon_are_no_type(site):
    text = (site / "api/data.html").read_text(encoding="utf-8")
    about = inspect.getdoc(minidl.Split.counted)
    assert ": " in about
    assert about in re.sub(r"<[^>]+>", "", text)


def test_classes_show_their_arguments(site):
    """Also those that record them, whose ``__new__`` takes any."""
    text = "".join(path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html"))
    shown = re.sub(r"<[^>]+>|\s", "", text)
    assert "classminidl.Adam(model,lr=" in shown
    assert "classminidl.ReLU[source]¶" in shown
    assert re.findall(r"class(minidl[\w.]+)\(\*args", shown) == []


def test_an_unknown_command_in_a_formula_is_a_warning(tmp_path):
    (tmp_path / "index.md").write_text("# A\n\n$\\nosuchcommand x$\n", encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-c", str(DOCS), str(tmp_path), str(tmp_path / "out")]  # fmt: skip
    paths = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=paths, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "nosuchcommand" in done.stderr


PICTURES = "gallery.html", "homework.html"


def test_pages_are_light(site):
    """A page with all that it loads; the gallery and the homework have the pictures."""
    for path in site.rglob("*.html"):
        name = str(path.relative_to(site))
        size, requests = weight(site, name)
        pictures = sum(url.endswith(".png") for url in Page(path).loaded)
        assert size < (2_000_000 if name in PICTURES else 600_000), name
        assert requests - pictures <= 16, name


def test_the_page_that_runs_in_a_browser(site, tmp_path):
    """As far as it goes without a network: its code runs with the package that it loads."""
    page = (site / "_static" / "browser.html").read_text(encoding="utf-8")
    code = re.search(r"<textarea[^>]*>(.*?)</textarea>", page, re.S)[1]
    with zipfile.ZipFile(site / "_static" / "minidl.zip") as archive:
        archive.extractall(tmp_path)
    paths = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", f"import minidl; print(minidl.__file__)\n{code}"]
    done = subprocess.run(
        command, env=paths, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout
    assert "History(epochs 0 to 20" in done.stdout
    assert 'href="_static/browser.html"' in (site / "anywhere.html").read_text(encoding="utf-8")


def test_the_guide_shows_its_output_and_can_be_downloaded(site):
    for name in notebooks.GUIDE:
        text = (site / f"{name}.html").read_text(encoding="utf-8")
        page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        assert ("cell_output" in text) >= ("\nprint(" in page and name in EXECUTED), name
        assert f'href="notebooks/{name}.ipynb"' in text, name
        assert (site / "notebooks" / f"{name}.ipynb").exists()
    assert text.count("widget") == 0
    plotted = re.findall(
        r'src="_images/[0-9a-f]{20,}\.png"', (site / "plotting.html").read_text(encoding="utf-8")
    )
    assert len(plotted) >= 3


TYPED = {
    "class imbalance": "imbalance", "unbalanced": "imbalance", "oversampling": "glossary", "overfitting": "glossary",
    "regularization": "glossary", "regularisation": "glossary", "xavier": "glossary", "kaiming initialization": "glossary",
    "missing values": "tables", "pandas": "tables", "learning rate scheduler": "schedules", "warmup": "schedules",
    "early stopping": "progress", "callback": "progress", "custom loss": "glossary", "custom layer": "glossary",
    "binary classification": "glossary", "multi-output": "regression", "deterministic": "reproducibility",
    "random state": "glossary", "deploy": "glossary", "jupyter notebook": "glossary", "raspberry pi": "anywhere",
    "wasm": "anywhere", "gpu": "glossary", "cnn": "glossary", "vanishing gradient": "glossary", "backprop": "glossary",
    "confusion matrix": "glossary", "cross validation": "sklearn", "hyperparameter search": "glossary",
    "multiprocessing": "scaling", "finite differences": "gradient-checks", "save model": "training",
}  # fmt: skip
"""What users type, and a page that the search must find."""


def test_the_search_finds_the_words_that_users_type(site):
    """As the page of the search does: all words of the query, stemmed, in one page."""
    from sphinx.search.en import SearchEnglish

    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").rstrip(")"))
    language = SearchEnglish({})

    def pages(word):
        stem = language.stem(word.lower())
        found = [index[kind].get(stem, []) for kind in ("terms", "titleterms")]
        return {i for one in found for i in ([one] if isinstance(one, int) else one)}

    missed = {
        query: page
        for query, page in TYPED.items()
        if index["docnames"].index(page) not in set.intersection(*map(pages, query.replace("-", " ").split()))
    }  # fmt: skip
    assert missed == {}
    assert pages("nosuchword") == set()


PLANTED = {
    "a page": '<a href="missing.html">x</a>',
    "an anchor": '<a href="#missing">x</a>',
    "an anchor of another page": '<a href="other.html#missing">x</a>',
    "a picture": '<img src="missing.png">',
    "a style": '<link rel="stylesheet" href="missing.css">',
    "outside": '<a href="../outside.html">x</a>',
}


@pytest.mark.parametrize("html", PLANTED.values(), ids=PLANTED)
def test_a_dead_link_is_found(tmp_path, html):
    folder = tmp_path / "site"
    folder.mkdir()
    (tmp_path / "outside.html").write_text("")
    (folder / "other.html").write_text('<p id="there"></p>')
    good = '<a href="other.html#there">x</a><a href="https://example.org/x">x</a>'
    (folder / "index.html").write_text(good)
    assert dead_links(folder) == []
    (folder / "index.html").write_text(good + html)
    assert len(dead_links(folder)) == 1


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://example.org/x.js"></script>',
        '<link rel="stylesheet" href="//example.org/x.css">',
        '<img src="http://example.org/badge.svg">',
        "<style>@font-face {src: url('https://example.org/f.woff2')}</style>",
        '<p style="background: url(https://example.org/x.png)">',
        '<img src="x.png" srcset="https://example.org/x.png 2x">',
    ],
)
def test_a_remote_file_is_found(tmp_path, html):
    (tmp_path / "index.html").write_text('<a href="https://example.org">x</a><img src="x.png">')
    assert loaded_from_elsewhere(tmp_path) == []
    (tmp_path / "index.html").write_text(html)
    assert len(loaded_from_elsewhere(tmp_path)) == 1


def console(page):
    """Return what a page prints to the console of Chromium, and its failed requests."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom", "--virtual-time-budget=3000", page.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "</html>" in done.stdout
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("name", ["index", "simplex", "api/testing"])
def test_a_page_opens_without_an_error(site, name):
    assert console(site / f"{name}.html") == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_an_error_on_a_page_is_seen(tmp_path):
    (tmp_path / "x.html").write_text("<html><script>nosuchname.x</script></html>")
    assert any("nosuchname" in line for line in console(tmp_path / "x.html"))


def test_the_gallery_has_every_example_and_is_that_of_its_script():
    import gallery

    entries = [entry for group in gallery.ENTRIES.values() for entry in group]
    scripts = {entry.command.split()[0] for entry in entries}
    examples = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert scripts == examples - gallery.LEFT_OUT
    records = json.loads(gallery.RECORD.read_text(encoding="utf-8"))
    assert list(records) == [entry.name for entry in entries]
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    assert page == gallery.page(records)
    for entry in entries:
        record = records[entry.name]
        assert record["seconds"] > 0
        assert record["pictures"] if entry.pictures else record["output"]
    kept = {name for record in records.values() for name in record["pictures"]}
    assert {path.name for path in (DOCS / "pictures").iterdir()} == kept
