"""Short runs of Markdown that reach us outside a Markdown cell: captions, goals, questions."""

from __future__ import annotations

import re

from docutils import nodes

_TOKEN = re.compile(r"\$(?P<math>[^$]+)\$|`(?P<code>[^`]+)`|\*(?P<emph>[^*\s][^*]*)\*")


def parse_inline(text: str) -> list[nodes.Node]:
    """Plain text with `$…$`, `` `…` `` and `*…*` as docutils nodes."""
    result: list[nodes.Node] = []
    position = 0
    for match in _TOKEN.finditer(text):
        if match.start() > position:
            result.append(nodes.Text(text[position : match.start()]))
        position = match.end()
        if match["math"] is not None:
            result.append(nodes.math(match["math"], match["math"]))
        elif match["code"] is not None:
            result.append(nodes.literal(match["code"], match["code"]))
        else:
            result.append(nodes.emphasis("", match["emph"]))
    if position < len(text):
        result.append(nodes.Text(text[position:]))
    return result
