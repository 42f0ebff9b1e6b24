"""The documentation: ``python -m sphinx -W docs site``, without a network.

Pages are Markdown (MyST), the API reference comes from the docstrings, formulas become MathML
(``tools/mathml.py``). Nothing on a page is loaded from another machine.
"""

import inspect
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "tools"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import minidl
import minidl.checks

project = "minidl"
version = release = minidl.__version__
html_title = f"minidl {version}"
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
exclude_patterns = ["tools"]
root_doc = "index"

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

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


def setup(app: Any) -> None:
    """Connect both."""
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-docstring", plain, priority=400)
