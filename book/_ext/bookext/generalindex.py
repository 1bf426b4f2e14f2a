"""`{general-index}`: where the chapters speak of each term, by the numbers of their sections.

A chapter writes nothing for it. A term of the glossary is listed with one section of each chapter:
of the chapter that explains it the first that uses it, of others the one that uses it most. A
function of lib is listed with the section that shows its code. What a chapter marks with Sphinx's
own `{index}` comes on top.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from .book import chapter_number
from .gathered import follow
from .glossary import GLOSSARY, Term, read_terms

logger = logging.getLogger(__name__)

ENOUGH = 5  # a chapter that uses a term fewer times only mentions it
REPEATS = ("Exercises", "Summary", "Sources")  # sections that say again what others have said
SILENT = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)
SILENT = (*SILENT, nodes.comment, nodes.pending, addnodes.pending_xref)
SILENT = (*SILENT, nodes.problematic, nodes.system_message)


@dataclass(frozen=True)
class Place:
    """One place of one entry of the index."""

    entry: str
    docname: str
    section: str  # the anchor of the numbered section, for its number
    anchor: str
    code: bool = False
    main: bool = False


class index_node(nodes.General, nodes.Element):
    """Stands where the index will be, once all chapters are read."""


class GeneralIndex(SphinxDirective):
    """The index of the book."""

    def run(self) -> list[nodes.Node]:
        return [index_node()]


def places_of(env: BuildEnvironment) -> dict[str, list[Place]]:
    if not hasattr(env, "bookext_places"):
        env.bookext_places = {}
    return env.bookext_places


def sections_of(doctree: nodes.document) -> list[nodes.section]:
    """The numbered sections of a chapter."""
    for title in doctree.findall(nodes.section):
        return [child for child in title.children if isinstance(child, nodes.section)]
    return []


def words_of(node: nodes.Node) -> str:
    """What a node says in words: no code, no formula, no name of another page."""
    parts: list[str] = []

    def collect(element: nodes.Node) -> None:
        if isinstance(element, nodes.Text):
            parts.append(element.astext())
        elif not isinstance(element, SILENT):
            for child in element.children:
                collect(child)
            if not isinstance(element, nodes.Inline):
                parts.append("\n")

    collect(node)
    return "".join(parts)


def find_terms(doctree: nodes.document, docname: str, terms: list[Term]) -> Iterator[Place]:
    """For each term that the chapter uses, the section that it leads to."""
    sections = sections_of(doctree)
    texts = [words_of(section) for section in sections]
    again = [section.next_node(nodes.title).astext().startswith(REPEATS) for section in sections]
    for term in terms:
        counts = [len(term.pattern.findall(text)) for text in texts]
        main = chapter_number(docname) == term.chapter
        if sum(counts) < (1 if main else ENOUGH):
            continue
        first = [0 if skip and any(counts) else n for n, skip in zip(counts, again, strict=True)]
        counts = first if any(first) else counts
        best = next(i for i, n in enumerate(counts) if n) if main else counts.index(max(counts))
        anchor = sections[best]["ids"][0]
        yield Place(term.term, docname, anchor, anchor, main=main)


def find_marks(doctree: nodes.document, docname: str) -> Iterator[Place]:
    """The functions whose code a chapter shows, and what it marks with `{index}`."""
    for section in sections_of(doctree):
        anchor = section["ids"][0]
        for node in section.findall():
            if isinstance(node, nodes.container) and "lib_source" in node:
                if node["lib_source"].rpartition(".")[2].startswith("_"):
                    continue  # a helper, of no use to a caller
                yield Place(node["lib_source"], docname, anchor, node["ids"][0], code=True)
            elif isinstance(node, addnodes.index):
                for kind, value, target, main, _ in node["entries"]:
                    if kind not in ("single", "pair"):
                        logger.warning(
                            "index: expected an entry of kind single or pair, got %r",
                            kind,
                            location=docname,
                            type="bookext",
                            subtype="index",
                        )
                        continue
                    names = [part.strip() for part in value.split(";")]
                    turned = [names, names[::-1]] if kind == "pair" else [names]
                    for parts in turned:
                        place = anchor if target is None else target
                        yield Place(", ".join(parts), docname, anchor, place, main=main == "main")


def collect(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.docname
    if chapter_number(docname) is None:
        return
    app.env.note_dependency(GLOSSARY)
    terms = read_terms(Path(app.srcdir))
    found = [*find_terms(doctree, docname, terms), *find_marks(doctree, docname)]
    places_of(app.env)[docname] = list(dict.fromkeys(found))


def purge(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    places_of(env).pop(docname, None)


def merge(app: Sphinx, env: BuildEnvironment, docnames: set[str], other: BuildEnvironment) -> None:
    for docname in docnames:
        if docname in places_of(other):
            places_of(env)[docname] = places_of(other)[docname]


def shown(place: Place) -> str:
    """How an entry is called: a function without its module, a method with its class."""
    if not place.code:
        return place.entry
    *_, owner, name = ["", *place.entry.split(".")]
    return f"{owner}.{name}" if owner[:1].isupper() else name


def order(place: Place) -> tuple[str, bool, str]:
    plain = unicodedata.normalize("NFKD", shown(place)).casefold()
    return re.sub(r"[^\w]", " ", plain.replace("_", " ")), place.code, place.entry


def letter(place: Place) -> str:
    first = order(place)[0].lstrip()[:1].upper()
    return first if first.isalpha() else "0–9"


def by_letter(places: list[Place]) -> list[tuple[str, list[list[Place]]]]:
    """The entries in the order of the alphabet, below their letters; each is a list of places."""
    result = []
    ordered = sorted(places, key=lambda p: (order(p), not p.main, p.docname))
    for name, below in groupby(ordered, key=letter):
        entries = [list(same) for _, same in groupby(below, key=lambda p: (p.entry, p.code))]
        result.append((name, entries))
    return result


class WriteIndex(SphinxPostTransform):
    """Fill the index when all chapters have been read."""

    default_priority = 5

    def run(self, **_) -> None:
        for node in list(self.document.findall(index_node)):
            places = [p for doc in sorted(places_of(self.env)) for p in places_of(self.env)[doc]]
            node.replace_self(self.content(by_letter(places)))

    def content(self, letters: list[tuple[str, list[list[Place]]]]) -> list[nodes.Node]:
        if not letters:
            return [nodes.paragraph(text="No chapter is whole yet.")]
        links = nodes.paragraph(classes=["index-letters"])
        sections: list[nodes.Node] = []
        for name, entries in letters:
            anchor = nodes.make_id(f"letter-{name}")
            link = nodes.reference("", name, refid=anchor, internal=True)
            links += [link, nodes.Text(" ")]
            section = nodes.section("", nodes.title("", name), ids=[anchor], names=[anchor])
            listing = nodes.bullet_list(bullet="-", classes=["general-index"])
            for places in entries:
                listing += nodes.list_item("", self.line(places))
            section += listing
            sections.append(section)
        return [links, *sections]

    def line(self, places: list[Place]) -> nodes.paragraph:
        line = nodes.paragraph()
        line += self.name(places[0])
        for place in places:
            line += nodes.Text(" ")
            link = make_refnode(
                self.app.builder,
                self.env.docname,
                place.docname,
                place.anchor,
                nodes.Text(self.number(place)),
            )
            link["classes"].append("index-place")
            link["reftitle"] = self.env.titles[place.docname].astext()
            line += nodes.strong("", "", link) if place.main else link
        return line

    def name(self, place: Place) -> nodes.Node:
        """The entry's name, leading to the glossary if it is there."""
        if place.code:
            return nodes.literal("", shown(place))
        known = self.env.get_domain("std").objects.get(("term", place.entry))
        if known is None:
            return nodes.inline("", place.entry)
        return make_refnode(
            self.app.builder, self.env.docname, known[0], known[1], nodes.Text(place.entry)
        )

    def number(self, place: Place) -> str:
        """The section's number, or its chapter's where sections have none."""
        numbers = self.env.toc_secnumbers.get(place.docname, {})
        number = numbers.get(f"#{place.section}") or numbers.get("")
        return ".".join(map(str, number or (chapter_number(place.docname),)))


def contents(env: BuildEnvironment) -> list:
    """What the chapters speak of."""
    return [place for doc in sorted(places_of(env)) for place in places_of(env)[doc]]


def setup(app: Sphinx) -> None:
    app.add_node(index_node)
    app.add_directive("general-index", GeneralIndex)
    app.add_post_transform(WriteIndex)
    app.connect("doctree-read", collect)
    app.connect("env-purge-doc", purge)
    app.connect("env-merge-info", merge)
    follow(app, index_node, "index", contents)
