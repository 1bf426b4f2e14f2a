"""`{folklore}`: every mistake that a chapter makes on purpose, and every saying that it sets right.

Nothing is written here by hand. A mistake is a box `Broken on purpose Dnn: …` of a chapter, with
the `**Fix:**` behind it and the tests that caught it when the chapter ran. A saying is a row of a
table `Said | True | Source`, or `What one reads | What is so`. A box without a fix, or one that no
test caught, is a warning, and so fails the build.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import unescape
from itertools import groupby

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
from .ledger import note_formulas
from .outputs import html_outputs

logger = logging.getLogger(__name__)

TITLE = re.compile(r"Broken on purpose (?P<id>D\d\d[a-z]?): ")
TEST = re.compile(r"tests/[\w/]+\.py(?:::\w+)+")
HEADS = (["Said", "True", "Source"], ["What one reads", "What is so"])
CAUGHT = re.compile(
    r'\s*<div class="caught" data-label="(?P<label>[^"]*)">'
    r'<p class="caught-symptom">✗ (?P=label), broken: (?P<symptom>.*?)</p>'
    r'<p class="caught-test">✓ <code>(?P<test>.*?)</code>.*',
    re.DOTALL,
)


@dataclass(frozen=True)
class Caught:
    """What one call of `catches` wrote when it ran."""

    label: str
    symptom: str
    test: str


@dataclass
class Box:
    """A mistake made on purpose: its box, and what follows up to the next one."""

    number: str
    claim: list[nodes.Node]
    docname: str
    line: int | None
    anchor: str
    fix: list[nodes.Node] = field(default_factory=list)
    caught: list[Caught] = field(default_factory=list)
    named: list[str] = field(default_factory=list)  # tests of the repository
    sources: list[nodes.Node] = field(default_factory=list)

    def lacks(self) -> Iterator[str]:
        if not self.fix:
            yield "has no paragraph with **Fix:**"
        mine = re.compile(rf"{self.number}\b")
        if not self.named and not any(mine.match(caught.label) for caught in self.caught):
            yield f"is caught by no test: call catches({self.number!r}, …)"


@dataclass
class Saying:
    """A row of a table `Said | True | Source`."""

    anchor: str
    claim: list[nodes.Node]
    truth: list[nodes.Node]
    source: list[nodes.Node] = field(default_factory=list)


@dataclass
class Collected:
    """What one chapter has."""

    boxes: list[Box] = field(default_factory=list)
    sayings: list[Saying] = field(default_factory=list)

    def state(self) -> str:
        """All that the page shows, as text, to see whether it changed."""
        parts = []
        for box in self.boxes:
            parts += [box.number, box.anchor, repr(box.caught), *box.named]
            parts += [part.pformat() for part in (*box.claim, *box.fix, *box.sources)]
        for row in self.sayings:
            parts += [part.pformat() for part in (*row.claim, *row.truth, *row.source)]
        return "\n".join(parts)


class folklore_node(nodes.General, nodes.Element):
    """Stands where the page will be, once all chapters have been read."""


class Folklore(SphinxDirective):
    """All mistakes and sayings, by chapter."""

    def run(self) -> list[nodes.Node]:
        return [folklore_node()]


def folklore_of(env: BuildEnvironment) -> dict[str, Collected]:
    """What was collected, by document."""
    if not hasattr(env, "bookext_folklore"):
        env.bookext_folklore = {}
    return env.bookext_folklore


def detached(parts: Sequence[nodes.Node]) -> list[nodes.Node]:
    """Copies that carry no name or id of the document that they come from.

    They do not hold on to it either, as Sphinx has `copy` leave it out.
    """
    copies = [part.deepcopy() for part in parts]
    for copy in copies:
        for node in copy.findall(nodes.Element):
            for key in ("ids", "names", "dupnames", "backrefs"):
                node.attributes[key] = []
    return copies


def _first(parts: list[nodes.Node], change) -> list[nodes.Node]:
    """The parts with their first one changed, where it is text."""
    if parts and isinstance(parts[0], nodes.Text):
        text = change(parts[0].astext())
        return [nodes.Text(text), *parts[1:]] if text else parts[1:]
    return parts


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def fix_of(paragraph: nodes.paragraph) -> list[nodes.Node]:
    """What stands behind `**Fix:**` in a paragraph; nothing if it has none."""
    for index, part in enumerate(paragraph.children):
        if isinstance(part, nodes.strong) and part.astext() == "Fix:":
            rest = detached(paragraph.children[index + 1 :])
            return _first(_first(rest, str.lstrip), _capital)
    return []


def read_boxes(document: nodes.document, docname: str) -> list[Box]:
    """The boxes in their order, each with what follows it up to the next box or section.

    Every box gets an id, to which the page links.
    """
    boxes: list[Box] = []
    box: Box | None = None
    outputs = dict(html_outputs(document))
    for node in list(document.findall()):
        if isinstance(node, nodes.admonition) and isinstance(node[0], nodes.title):
            if match := TITLE.match(node[0].astext()):
                claim = _first(detached(node[0].children), lambda text: TITLE.sub("", text))
                anchor = f"broken-{match['id'].lower()}"
                node["ids"] = [anchor]
                box = Box(match["id"], claim, docname, node.line, anchor)
                boxes.append(box)
        elif isinstance(node, nodes.section):
            box = None
        elif box is None:
            continue
        elif isinstance(node, nodes.paragraph):
            box.fix += fix_of(node)
            box.named += TEST.findall(node.astext())
        elif isinstance(node, addnodes.pending_xref) and node.get("refdomain") == "cite":
            if all(node["reftarget"] != known["reftarget"] for known in box.sources):
                box.sources += detached([node])
                box.sources[-1]["reftype"] = "t"  # without brackets
        elif node in outputs and (match := CAUGHT.fullmatch(outputs[node])):
            box.caught.append(Caught(*map(unescape, match.groups())))
    return boxes


def read_sayings(document: nodes.document) -> list[Saying]:
    """The rows of every table with such a head, in their order; each row gets an id."""
    sayings: list[Saying] = []
    for table in document.findall(nodes.table):
        head, *rows = table.findall(nodes.row)
        if [cell.astext() for cell in head] not in HEADS:
            continue
        for row in rows:
            anchor = f"said-{len(sayings) + 1}"
            row["ids"] = [anchor]
            cells = [[part for block in cell for part in block.children] for cell in row]
            sayings.append(Saying(anchor, *map(detached, cells)))
    return sayings


def collect(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.docname
    if chapter_number(docname) is None:
        return
    found = Collected(read_boxes(doctree, docname), read_sayings(doctree))
    if found.boxes or found.sayings:
        folklore_of(app.env)[docname] = found


def purge(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    folklore_of(env).pop(docname, None)


def merge(app: Sphinx, env: BuildEnvironment, docnames: set[str], other: BuildEnvironment) -> None:
    for docname in docnames:
        if docname in folklore_of(other):
            folklore_of(env)[docname] = folklore_of(other)[docname]


def complain(app: Sphinx, env: BuildEnvironment) -> None:
    """A mistake without its fix, one that nothing catches and one shown twice are warnings."""
    for docname, found in sorted(folklore_of(env).items()):
        known = set()
        for box in found.boxes:
            problems = list(box.lacks())
            if box.number in known:
                problems.append("stands in this chapter twice")
            known.add(box.number)
            for problem in problems:
                logger.warning(
                    "the box “Broken on purpose %s” %s",
                    box.number,
                    problem,
                    location=(docname, box.line),
                    type="bookext",
                    subtype="folklore",
                )


class WriteFolklore(SphinxPostTransform):
    """Fill the page, late, when every chapter has been read."""

    default_priority = 5  # before pending references are resolved (10)

    def run(self, **_) -> None:
        for node in list(self.document.findall(folklore_node)):
            node.replace_self(self.content())
            for reference in self.document.findall(addnodes.pending_xref):
                reference["refdoc"] = self.env.docname
            note_formulas(self.env, self.document)

    def content(self) -> list[nodes.Node]:
        chapters = sorted(folklore_of(self.env).items())
        if not chapters:
            return [nodes.paragraph(text="No chapter with a mistake in it is whole yet.")]
        boxes = sum(len(found.boxes) for _, found in chapters)
        sayings = sum(len(found.sayings) for _, found in chapters)
        total = f"Mistakes made on purpose: {boxes}. Sayings set right: {sayings}. Chapters: "
        contents = nodes.paragraph("", total, classes=["folklore-contents"])
        parts: list[nodes.Node] = [contents]
        for docname, found in chapters:
            number = f"{chapter_number(docname)}"
            section = nodes.section(ids=[f"chapter-{number}"], classes=["folklore-chapter"])
            title = f"{number}. {self.env.titles[docname].astext()}"
            section += nodes.title("", "", self.link(docname, "", [nodes.Text(title)]))
            section += [self.box(docname, box) for box in found.boxes]
            section += [self.saying(docname, saying) for saying in found.sayings]
            parts.append(section)
            jump = nodes.reference("", number, internal=True, refid=f"chapter-{number}")
            jump["reftitle"] = title
            contents += [jump, nodes.Text(" ")]
        return parts

    def link(self, docname: str, anchor: str, content: list[nodes.Node]) -> nodes.reference:
        """A link over all of the content; a link within it is its words."""
        content = [
            nodes.Text(part.astext()) if isinstance(part, addnodes.pending_xref) else part
            for part in detached(content)
        ]
        return make_refnode(self.app.builder, self.env.docname, docname, anchor, content)

    def box(self, docname: str, box: Box) -> nodes.Node:
        claim = [nodes.strong("", box.number), nodes.Text(" "), *box.claim]
        facts = []
        for test, caught in groupby(box.caught, key=lambda caught: caught.test):
            symptoms = [nodes.paragraph("", c.symptom, classes=["caught-symptom"]) for c in caught]
            facts.append(("Symptom", symptoms))
            facts.append(("Test", [nodes.paragraph("", "", nodes.literal("", test))]))
        for test in box.named:
            facts.append(("Test", [nodes.paragraph("", "", nodes.literal("", test))]))
        facts.append(("Fix", [nodes.paragraph("", "", *detached(box.fix))]))
        if box.sources:
            cited = nodes.paragraph()
            for source in detached(box.sources):
                cited += [nodes.Text("; ")] if cited.children else []
                cited += source
            facts.append(("Source", [cited]))
        return self.entry("folklore-box", self.link(docname, box.anchor, claim), facts)

    def saying(self, docname: str, saying: Saying) -> nodes.Node:
        facts = [("True", [nodes.paragraph("", "", *detached(saying.truth))])]
        if saying.source:
            facts.append(("Source", [nodes.paragraph("", "", *detached(saying.source))]))
        claim = [nodes.strong("", "Said"), nodes.Text(" "), *saying.claim]
        return self.entry("folklore-saying", self.link(docname, saying.anchor, claim), facts)

    @staticmethod
    def entry(
        name: str, claim: nodes.Node, facts: list[tuple[str, list[nodes.Node]]]
    ) -> nodes.Node:
        listing = nodes.definition_list(classes=["folklore-facts"])
        for term, body in facts:
            listing += nodes.definition_list_item(
                "", nodes.term(text=term), nodes.definition("", *body)
            )
        entry = nodes.container(classes=["folklore-entry", name])
        entry += nodes.paragraph("", "", claim, classes=["folklore-claim"])
        entry += listing
        return entry


def shown(env: BuildEnvironment) -> dict:
    """The chapters' names, and their mistakes and sayings."""
    return {
        docname: (env.titles[docname].astext(), found.state())
        for docname, found in folklore_of(env).items()
    }


def setup(app: Sphinx) -> None:
    app.add_node(folklore_node)
    app.add_directive("folklore", Folklore)
    app.add_post_transform(WriteFolklore)
    app.connect("doctree-read", collect)
    app.connect("env-purge-doc", purge)
    app.connect("env-merge-info", merge)
    app.connect("env-check-consistency", complain)
    follow(app, folklore_node, "folklore", shown)
