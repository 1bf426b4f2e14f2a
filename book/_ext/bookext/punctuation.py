"""Punctuation stays on the line of its formula.

A typeset formula is one box for a browser, which may break the line on either side of it. So a
full stop would now and then begin a line, and a bracket end one.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

OPENS = re.compile(r"[(\[“‘]+$")
CLOSES = re.compile(r"^[.,;:!?)\]”’…]+")


def keep_together(document: nodes.Element) -> None:
    """Put each inline formula and the punctuation that touches it into one part, `nobreak`.

    Texts are found by their place: two that read the same are equal to docutils.
    """
    for formula in list(document.findall(nodes.math)):
        parent = formula.parent
        place = parent.index(formula)
        before = parent[place - 1] if place else None
        after = parent[place + 1] if place + 1 < len(parent) else None
        opens = OPENS.search(before) if isinstance(before, nodes.Text) else None
        closes = CLOSES.search(after) if isinstance(after, nodes.Text) else None
        if not (opens or closes):
            continue
        whole = nodes.inline(classes=["nobreak"])
        parent[place] = whole
        if opens:
            whole += nodes.Text(opens[0])
            parent[place - 1] = nodes.Text(before[: opens.start()])
        whole += formula
        if closes:
            whole += nodes.Text(closes[0])
            parent[place + 1] = nodes.Text(after[closes.end() :])


class KeepTogether(SphinxPostTransform):
    """Last of all, when what a page gathers from others is in its place."""

    default_priority = 900
    formats = ("html",)

    def run(self, **_) -> None:
        keep_together(self.document)


def setup(app: Sphinx) -> None:
    app.add_post_transform(KeepTogether)
