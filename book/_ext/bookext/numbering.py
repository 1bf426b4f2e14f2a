"""A chapter's number is the number in its file's name, in titles, equations and figures alike.

Sphinx counts chapters in the order of the table of contents. The book grows out of order
(02 before 01) and readers cite equations by number, so the numbers must not move.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector
from sphinx_external_toc.collectors import TocTreeCollectorWithStyles

from .book import chapter_number


def _renumber(env: BuildEnvironment, docname: str, chapter: int) -> None:
    secnumbers = env.toc_secnumbers[docname]
    for anchor, number in secnumbers.items():
        if number:
            secnumbers[anchor] = (chapter, *number[1:])
    for reference in env.tocs[docname].findall(nodes.reference):
        if number := reference.get("secnumber"):
            reference["secnumber"] = [chapter, *number[1:]]
    title = env.titles[docname]
    if number := title.get("secnumber"):
        title["secnumber"] = [chapter, *number[1:]]


def assign_section_numbers(self: TocTreeCollector, env: BuildEnvironment) -> list[str]:
    """Sphinx's own numbering, then every chapter moved to the number of its file.

    It stands in for the method of sphinx_external_toc's collector, which counts chapters in
    styles (Roman, letters) that the book does not use, and would undo these numbers.
    """
    old = env.toc_secnumbers
    TocTreeCollector.assign_section_numbers(self, env)
    for docname in env.toc_secnumbers:
        chapter = chapter_number(docname)
        if chapter is not None:
            _renumber(env, docname, chapter)
    return [name for name, numbers in env.toc_secnumbers.items() if old.get(name) != numbers]


def _numbers(env: BuildEnvironment) -> bytes:
    state: Any = (
        sorted(env.toc_secnumbers.items()),
        sorted((doc, sorted(kinds.items())) for doc, kinds in env.toc_fignumbers.items()),
        sorted(env.get_domain("math").equations),
    )
    return pickle.dumps(state)


def rewrite_when_numbers_move(app: Sphinx, env: BuildEnvironment) -> Iterable[str]:
    """Other pages print these numbers; Sphinx alone would leave the old ones standing there."""
    numbers = _numbers(env)
    if getattr(env, "bookext_numbers", None) == numbers:
        return []
    env.bookext_numbers = numbers
    return sorted(env.found_docs)


def setup(app: Sphinx) -> None:
    TocTreeCollectorWithStyles.assign_section_numbers = assign_section_numbers
    # After the collector's own handler of this event, which assigns the numbers.
    app.connect("env-get-updated", rewrite_when_numbers_move, priority=900)
