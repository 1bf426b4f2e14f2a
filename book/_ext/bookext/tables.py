"""Tables that the extension makes."""

from __future__ import annotations

from collections.abc import Sequence

from docutils import nodes


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[nodes.Node]],
    *,
    classes: Sequence[str] = (),
) -> nodes.table:
    """A docutils table with one line of headings."""
    result = nodes.table(classes=list(classes))
    group = nodes.tgroup(cols=len(head))
    result += group
    group += [nodes.colspec(colwidth=1) for _ in head]
    header = nodes.thead()
    group += header
    header += nodes.row("", *[nodes.entry("", nodes.paragraph(text=title)) for title in head])
    body = nodes.tbody()
    group += body
    for row in rows:
        body += nodes.row("", *[nodes.entry("", cell) for cell in row])
    return result
