"""Outputs of `check`, `show_figure` and `grade`, turned from HTML strings into parts of the book.

lib.teaching writes plain HTML, which reads well in any notebook. Here the label in a check
becomes a link to its numbered equation, and a figure gets a number that prose can refer to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

from .inline import parse_inline

logger = logging.getLogger(__name__)

FIGURE = re.compile(
    r'\s*<figure class="book-figure" id="(?P<id>fig-[\w-]+)">(?P<image>.*)'
    r"<figcaption>(?P<caption>.*)</figcaption>\s*</figure>\s*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Check:
    """One executed check, as the ledger needs it."""

    label: str
    error: str | None
    allowed: str | None
    anchor: str
    docname: str


class _Paragraph(HTMLParser):
    """The attributes and the text of a single `<p>`."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.attributes: dict[str, str] = {}
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "p" and not self.attributes:
            self.attributes = {key: value or "" for key, value in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def checks_of(env: BuildEnvironment) -> dict[str, list[Check]]:
    """The checks that ran, by document."""
    if not hasattr(env, "bookext_checks"):
        env.bookext_checks = {}
    return env.bookext_checks


def html_outputs(document: nodes.document) -> Iterator[tuple[nodes.container, str]]:
    """Each output with an HTML form: its mime bundle and that HTML."""
    for bundle in list(document.findall(nodes.container)):
        if bundle.get("nb_element") != "mime_bundle":
            continue
        for part in bundle.children:
            if part.get("mime_type") == "text/html" and part.children:
                yield bundle, part.children[0].astext()


class UniqueContent(SphinxTransform):
    """sphinx-exercise gives every solution's content the same id; one page holds many."""

    default_priority = 20

    def apply(self, **_) -> None:
        for section in self.document.findall(nodes.section):
            if section["ids"] in (["exercise-content"], ["solution-content"]):
                owner = section.parent.get("label", "")
                section["ids"] = [nodes.make_id(f"{owner}-content")]


class Outputs(SphinxTransform):
    """Replace the HTML of checks, figures and grades by nodes.

    It runs before the standard domain collects labels (priority 850) and after sphinx-exercise
    has moved cells into their exercises (10).
    """

    default_priority = 400

    def apply(self, **_) -> None:
        docname = self.env.docname
        checks_of(self.env).pop(docname, None)
        for bundle, html in html_outputs(self.document):
            start = html.lstrip()
            if start.startswith('<p class="check"'):
                self.check(bundle, _Paragraph(start))
            elif start.startswith('<p class="grade'):
                self.grade(bundle, _Paragraph(start))
            elif start.startswith('<figure class="book-figure"'):
                self.figure(bundle, html)
        self.group()

    def check(self, bundle: nodes.container, html: _Paragraph) -> None:
        label = html.attributes["data-label"]
        checks = checks_of(self.env).setdefault(self.env.docname, [])
        anchor = nodes.make_id(f"check-{label}")
        if repeats := sum(check.label == label for check in checks):
            anchor = f"{anchor}-{repeats + 1}"
        checks.append(
            Check(
                label=label,
                error=html.attributes.get("data-error"),
                allowed=html.attributes.get("data-allowed"),
                anchor=anchor,
                docname=self.env.docname,
            )
        )
        paragraph = nodes.paragraph(classes=["check"], ids=[anchor])
        mark, _, rest = html.text.partition(label)
        paragraph += nodes.inline("", mark.strip(), classes=["check-mark"])
        if label.startswith(("eq-", "def-")):
            paragraph += nodes.Text(" Eq. ")
            paragraph += self.equation_link(label)
            paragraph += nodes.Text(rest)
        else:
            paragraph += nodes.Text(f" {label}{rest}")
        bundle.replace_self(paragraph)

    def equation_link(self, label: str) -> nodes.Node:
        # The ledger reports an unknown label, once and by name; a dangling link would say less.
        if label not in self.env.get_domain("math").equations:
            return nodes.literal(label, label)
        return addnodes.pending_xref(
            "",
            nodes.literal(label, label),
            refdomain="math",
            reftype="eq",
            reftarget=label,
            refdoc=self.env.docname,
            refwarn=True,
        )

    def grade(self, bundle: nodes.container, html: _Paragraph) -> None:
        label = html.attributes["data-label"]
        paragraph = nodes.paragraph(classes=html.attributes["class"].split())
        before, found, after = html.text.partition(label)
        paragraph += nodes.Text(before)
        if found:
            paragraph += addnodes.pending_xref(
                "",
                nodes.inline(label, label),
                refdomain="std",
                reftype="ref",
                reftarget=label,
                refdoc=self.env.docname,
                refexplicit=False,
                refwarn=True,
            )
        paragraph += nodes.Text(after)
        bundle.replace_self(paragraph)

    def figure(self, bundle: nodes.container, html: str) -> None:
        match = FIGURE.fullmatch(html)
        if match is None:
            logger.warning(
                "a figure output does not have the form that lib.teaching.show_figure writes",
                location=bundle,
                type="bookext",
                subtype="figure",
            )
            return
        name = match["id"]
        figure = nodes.figure(classes=["book-figure"], names=[name], align="default")
        figure.source, figure.line = bundle.source, bundle.line
        figure += nodes.raw("", match["image"].strip(), format="html")
        caption = nodes.caption("", "", *parse_inline(unescape(match["caption"].strip())))
        caption.source, caption.line = bundle.source, bundle.line
        figure += caption
        self.document.note_explicit_target(figure, figure)
        bundle.replace_self(figure)

    def group(self) -> None:
        """Checks that follow each other form one quiet block."""
        for output in self.document.findall(nodes.container):
            if output.get("nb_element") != "cell_code_output":
                continue
            children, block = [], None
            for child in output.children:
                if isinstance(child, nodes.paragraph) and "check" in child["classes"]:
                    if block is None:
                        block = nodes.container(classes=["checks"])
                        children.append(block)
                    block += child
                else:
                    block = None
                    children.append(child)
            output.children = []
            output += children


def purge(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    checks_of(env).pop(docname, None)


def merge(app: Sphinx, env: BuildEnvironment, docnames: set[str], other: BuildEnvironment) -> None:
    for docname in docnames:
        if docname in checks_of(other):
            checks_of(env)[docname] = checks_of(other)[docname]


def setup(app: Sphinx) -> None:
    app.add_transform(UniqueContent)
    app.add_transform(Outputs)
    app.connect("env-purge-doc", purge)
    app.connect("env-merge-info", merge)
