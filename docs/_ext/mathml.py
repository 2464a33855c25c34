"""Mathematics as MathML, which browsers draw themselves: the pages load no script for it."""

from __future__ import annotations

from docutils.nodes import SkipNode
from latex2mathml.converter import convert


def inline(writer, node) -> None:
    """A formula in a line of text."""
    writer.body.append(convert(node.astext()))
    raise SkipNode


def display(writer, node) -> None:
    """A formula on a line of its own."""
    writer.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>\n')
    raise SkipNode


def setup(app) -> dict:
    """Register the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
