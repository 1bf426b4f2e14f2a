"""One way to make a table: it scrolls in a box of its own, which the keyboard reaches."""

from __future__ import annotations

from collections.abc import Sequence

from docutils import nodes


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[nodes.Node]],
    *,
    label: str,
    classes: Sequence[str] = (),
) -> nodes.table:
    """A docutils table; `label` names it for those who cannot see it."""
    result = nodes.table(classes=list(classes))
    result["bookext_label"] = label
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
