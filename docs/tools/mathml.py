"""Sphinx extension: formulas as MathML, which browsers draw without a script or a font.

The converter is that of docutils. A command that it does not know is a warning, so a build with
``-W`` fails and names the formula.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def to_mathml(node: nodes.math | nodes.math_block, *, block: bool) -> str:
    """Return the MathML of a node; on an error, warn and return the LaTeX as text."""
    text = node.astext()
    try:
        return spaced(tex2mathml(text, as_block=block))
    except (MathError, IndexError, AttributeError) as error:
        logger.warning("formula %r: %s", text, error, location=node, type="mathml")
        return f"<code>{nodes.make_id(text)}</code>"


def spaced(formula: str) -> str:
    """Add the space after a function's name, the form of a prime, and leave out line breaks."""
    formula = re.sub(r"\n *", "", formula)
    formula = formula.replace("<mo>'</mo>", '<mo lspace="0" rspace="0">′</mo>')
    applied = "<mo>&ApplyFunction;</mo>"
    formula = re.sub(applied + r"(?!<mo[^>]*>\()", applied + '<mspace width="0.17em"/>', formula)
    return re.sub(r"<mo>(max|min)</mo>", r'<mo lspace="0.1em" rspace="0.17em">\1</mo>', formula)


def visit_inline(translator: Any, node: nodes.math) -> None:
    """Write an inline formula."""
    translator.body.append(to_mathml(node, block=False))
    raise nodes.SkipNode


def visit_block(translator: Any, node: nodes.math_block) -> None:
    """Write a displayed formula; a wide one scrolls by itself on a narrow screen."""
    formula = to_mathml(node, block=True)
    translator.body.append(f'<div class="math" tabindex="0">{formula}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer as ``html_math_renderer = "mathml"``."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
