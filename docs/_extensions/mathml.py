"""Mathematics as MathML, by docutils' own converter from TeX: no script, no font and no network is needed to read it."""

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml


def inline(writer, node) -> None:
    writer.body.append(tex2mathml(node.astext()))
    raise SkipNode


def block(writer, node) -> None:
    writer.body.append(f'<div class="formula">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
