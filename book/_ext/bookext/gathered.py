"""Pages that are gathered from chapters: the map, the ledger, the folklore, the index.

Sphinx writes a page anew when its own source changed. What stands on these pages changes with
chapters, so each says what it shows, and is written anew when that is no longer the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def follow(
    app: Sphinx, node: type[nodes.Element], name: str, shown: Callable[[BuildEnvironment], Any]
) -> None:
    """Write pages that hold such a node anew whenever what is shown differs from the last build.

    name : under which the environment keeps the pages and what they showed
    shown : of the environment, once all chapters have been read; it is compared, and pickled
    """
    pages_key, state_key = f"bookext_{name}_pages", f"bookext_{name}_state"

    def note_page(app: Sphinx, doctree: nodes.document) -> None:
        pages = getattr(app.env, pages_key, set())
        if any(doctree.findall(node)):
            pages.add(app.env.docname)
        setattr(app.env, pages_key, pages)

    def pages_to_rewrite(app: Sphinx, env: BuildEnvironment) -> list[str]:
        state = shown(env)
        if getattr(env, state_key, None) == state:
            return []
        setattr(env, state_key, state)
        return sorted(getattr(env, pages_key, set()) & env.found_docs)

    app.connect("doctree-read", note_page)
    app.connect("env-updated", pages_to_rewrite)
