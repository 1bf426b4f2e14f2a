"""`{chapter-map}`: the plan of the book, and what of it is whole."""

from __future__ import annotations

import re
from itertools import groupby
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from .book import Planned, minutes, read_plan
from .gathered import follow
from .header import book_metadata, plan_path, runtime
from .inline import parse_inline
from .ledger import note_formulas


class map_node(nodes.General, nodes.Element):
    """Stands where the map will be, once it is known how long the chapters ran."""


class ChapterMap(SphinxDirective):
    """All planned chapters; those that are whole are links."""

    option_spec: ClassVar = {"details": directives.flag}

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency("book/plan.yml")
        return [map_node(details="details" in self.options)]


class WriteMap(SphinxPostTransform):
    """Fill the map when all chapters have been read."""

    default_priority = 5

    def run(self, **_) -> None:
        for node in list(self.document.findall(map_node)):
            node.replace_self(self.parts(details=node["details"]))
            note_formulas(self.env, self.document)

    def parts(self, *, details: bool) -> nodes.Node:
        plan = read_plan(plan_path(self.app))
        result = nodes.container(classes=[] if details else ["map-parts"])
        for part, chapters in groupby(plan, key=lambda chapter: chapter.part):
            block = nodes.container(classes=["map-part"])
            block += nodes.paragraph("", part, classes=["map-title"])
            listing = nodes.bullet_list(bullet="-", classes=["chapter-map"])
            for chapter in chapters:
                listing += self.entry(chapter, details=details)
            block += listing
            result += block
        return result

    def entry(self, chapter: Planned, *, details: bool) -> nodes.list_item:
        whole = chapter.docname in self.env.found_docs
        item = nodes.list_item(classes=["chapter-whole" if whole else "chapter-planned"])
        line = nodes.paragraph()
        name = f"{chapter.number}. {chapter.title}"
        if whole:
            line += make_refnode(
                self.app.builder, self.env.docname, chapter.docname, "", nodes.Text(name)
            )
        else:
            line += nodes.inline("", name)
            line += nodes.Text(" ")
            line += nodes.inline("", "planned", classes=["map-status"])
        item += line
        if details or whole:
            item += nodes.paragraph(
                "",
                "",
                *parse_inline(chapter.question),
                classes=["map-question"],
            )
        if whole and (seconds := runtime(self.env, chapter.docname)) is not None:
            header = book_metadata(self.env, chapter.docname)
            needs = builds_on(header.get("prerequisites", []))
            facts = [minutes(seconds), *([f"after {needs}"] if needs else [])]
            if details:
                facts.append(header.get("hardware", ""))
            item += nodes.paragraph(
                "", "", *parse_inline(" · ".join(facts)), classes=["map-facts"]
            )
        return item


def builds_on(prerequisites: list[str]) -> str:
    """The chapters that a header's prerequisites name, as "2 and 3"; "" if they name none."""
    found = re.findall(r"\bchapter (\d+)|^(?:chapters/)?(\d\d)_", "\n".join(prerequisites), re.M)
    numbers = [str(n) for n in sorted({int(spoken or named) for spoken, named in found})]
    if len(numbers) < 2:
        return "".join(numbers)
    return f"{', '.join(numbers[:-1])} and {numbers[-1]}"


def shown(env: BuildEnvironment) -> dict:
    """Which chapters are whole, how long they ran, and what their headers say."""
    return {doc: (runtime(env, doc), book_metadata(env, doc)) for doc in env.found_docs}


def setup(app: Sphinx) -> None:
    app.add_node(map_node)
    app.add_directive("chapter-map", ChapterMap)
    app.add_post_transform(WriteMap)
    follow(app, map_node, "map", shown)
