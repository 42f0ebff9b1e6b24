"""The documentation: ``python -m sphinx -W docs site``, without a network.

Pages are Markdown (MyST), the API reference comes from the docstrings, formulas become MathML
(``tools/mathml.py``). Nothing on a page is loaded from another machine.
"""

import inspect
import logging
import os
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "tools"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import notebooks

import minidl
import minidl.checks

logging.getLogger("traitlets").setLevel(logging.WARNING)  # each page that is executed

project = "minidl"
version = release = minidl.__version__
html_title = f"minidl {version}"
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "mathml",
]
exclude_patterns = ["tools"]
root_doc = "index"

myst_enable_extensions = ["attrs_inline", "dollarmath", "deflist"]
myst_heading_anchors = 3

# The code of the guide is executed when the site is built, and a block that fails fails the build.
# A test, which executes every block elsewhere, names the pages that are enough for it.
executed = os.environ.get("MINIDL_EXECUTED_PAGES", "").split() or notebooks.GUIDE
nb_custom_formats = {".md": ["notebooks.read_page", {}, False]}
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True
nb_execution_excludepatterns = [
    path.name for path in Path(__file__).parent.glob("*.md") if path.stem not in executed
]

html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["minidl.css"]
html_copy_source = False
html_show_sphinx = True
html_show_copyright = False

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the sections "Parameters" say it in words
autodoc_inherit_docstrings = False
napoleon_google_docstring = False
napoleon_use_rtype = False
maximum_signature_line_length = 88
nitpicky = False


def signature(
    app: object, what: str, name: str, value: object, options: object, found: str, returned: str
) -> tuple[str, str] | None:
    """Show the arguments of a class that records them, whose ``__new__`` takes any."""
    if what != "class" or not isinstance(value, type):
        return None
    if issubclass(value, minidl.checks.Configured):
        parameters = list(inspect.signature(value.__init__).parameters.values())[1:]
        bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
        found = str(inspect.Signature(bare))
    return ("()" if found.startswith("(*args, **") else found), returned


def plain(
    app: object, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Keep napoleon from reading the words before a colon as the type of an attribute.

    It looks at the first line alone, which becomes an empty comment.
    """
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]


def summary(text: str) -> str:
    """Return a table with a line for each entry of a page of the reference."""
    entries = re.findall(r"^\.\. auto(?:class|function|exception):: (\S+)", text, re.M)
    rows = "\n".join(f"   ~{entry}" for entry in entries)
    return f".. autosummary::\n   :nosignatures:\n\n{rows}\n" if entries else ""


def summarised(app: object, name: str, source: list[str]) -> None:
    """Begin a page of the reference with its summary, its index with all; link the notebooks."""
    if name in notebooks.GUIDE:
        source[0] += f'\n\n<a href="notebooks/{name}.ipynb" download>This page as a notebook</a>\n'
    if name == "api/index":
        for page in re.findall(r"^[a-z]+$", source[0], re.M):
            text = Path(__file__).parent.joinpath("api", f"{page}.rst").read_text(encoding="utf-8")
            title = text.split("\n", 1)[0]
            source[0] += f"\n## [{title}]({page})\n\n```{{eval-rst}}\n{summary(text)}```\n"
    elif name.startswith("api/"):
        title, line, rest = source[0].split("\n", 2)
        source[0] = f"{title}\n{line}\n\n{summary(source[0])}\n{rest}"


def without_way_back(
    app: object, page: str, template: str, context: dict[str, Any], tree: object
) -> None:
    """Leave out the links from the sources to the reference, which has other names for some."""
    if page.startswith("_modules/"):
        context["body"] = re.sub(
            r'<a class="viewcode-back".*?</a>|<li><a href="builtins.html">.*?</li>',
            "",
            context["body"],
        )


def written(app: Any, error: Exception | None) -> None:
    """Write the notebooks, and the package for the page that runs it in the browser."""
    if error is None:
        notebooks.write_all(Path(app.outdir, "notebooks"))
        root = Path(minidl.__file__).parents[1]
        with zipfile.ZipFile(Path(app.outdir, "_static", "minidl.zip"), "w") as archive:
            for path in sorted((root / "minidl").rglob("*.py")):
                archive.write(path, path.relative_to(root))


def setup(app: Any) -> None:
    """Connect all of them."""
    app.connect("source-read", summarised)
    app.connect("html-page-context", without_way_back)
    app.connect("build-finished", written)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-docstring", plain, priority=400)
