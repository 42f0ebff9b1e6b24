"""The table of a model's layers, as text and for notebooks."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from minidl.parameter import infer, named_parameters, walk

HEADER = ("", "layer", "output", "parameters")


def table(model: Any) -> tuple[list[tuple[str, str, str, str]], str]:
    """Return a row for each layer, under ``HEADER``, and a line about the whole model."""
    features = next((v.in_features for v in walk(model) if hasattr(v, "in_features")), None)
    x = None if features is None else np.zeros((0, features), model.dtype)
    rows = []
    for i, layer in enumerate(model.layers):
        x = None if x is None else infer(layer, x)
        shape = "" if x is None else f"(n, {', '.join(map(str, x.shape[1:]))})"
        count = sum(p.size for _, p in named_parameters(layer))
        rows.append((str(i), repr(layer), shape, f"{count:,}"))
    total = sum(p.size for _, p in model.named_parameters())
    size = total * model.dtype.itemsize / 1e6
    return rows, f"{total:,} parameters, {model.dtype}, {size:.2f} MB"


def text(model: Any) -> str:
    """Return the table with aligned columns."""
    rows, total = table(model)
    rows = [HEADER, *rows]
    w = [max(len(row[k]) for row in rows) for k in range(4)]
    lines = [f"{a:>{w[0]}}  {b:<{w[1]}}  {c:<{w[2]}}  {d:>{w[3]}}" for a, b, c, d in rows]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join([*lines, total])


def html(model: Any) -> str:
    """Return the table as HTML."""
    rows, total = table(model)
    align = ("right", "left", "left", "right")

    def line(tag: str, cells: tuple[str, ...]) -> str:
        styled = zip(align, map(escape, cells), strict=True)
        inner = "".join(f'<{tag} style="text-align:{a}">{c}</{tag}>' for a, c in styled)
        return f"<tr>{inner}</tr>"

    body = "".join(line("td", row) for row in rows)
    foot = f'<tr><td colspan="4" style="text-align:left">{escape(total)}</td></tr>'
    return (
        f"<table><thead>{line('th', HEADER)}</thead><tbody>{body}</tbody>"
        f"<tfoot>{foot}</tfoot></table>"
    )
