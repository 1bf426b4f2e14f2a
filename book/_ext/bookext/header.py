"""What every chapter says below its title, from its metadata and from the run itself."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from .benchmarks import on_device
from .book import Repository, chapter_number, minutes, notebook_path, read_plan
from .inline import parse_inline

logger = logging.getLogger(__name__)

REQUIRED = ("question", "goals", "prerequisites", "data", "hardware")


def book_metadata(env: BuildEnvironment, docname: str) -> dict[str, Any]:
    """The `book:` block of a chapter's header."""
    return json.loads(env.metadata.get(docname, {}).get("book", "{}"))


def runtime(env: BuildEnvironment, docname: str) -> float | None:
    """How long the chapter's cells took, from the run whose outputs the page shows."""
    data = getattr(env, "nb_metadata", {}).get(docname, {}).get("exec_data")
    return data["runtime"] if data else None


def _item(name: str, *content: nodes.Node) -> nodes.definition_list_item:
    body = content if isinstance(content[0], nodes.Body) else [nodes.paragraph("", "", *content)]
    return nodes.definition_list_item("", nodes.term(text=name), nodes.definition("", *body))


def _prerequisite(app: Sphinx, docname: str, text: str) -> list[nodes.Node]:
    """A chapter that exists is linked; a planned one and plain knowledge are words."""
    plan = {chapter.docname: chapter for chapter in read_plan(plan_path(app))}
    target = text if text.startswith("chapters/") else f"chapters/{text}"
    if target not in plan:
        return parse_inline(text)
    chapter = plan[target]
    name = f"{chapter.number}. {chapter.title}"
    if target not in app.env.found_docs:
        return [nodes.Text(f"{name} (planned)")]
    return [
        addnodes.pending_xref(
            "",
            nodes.inline(name, name),
            refdomain="std",
            reftype="doc",
            reftarget=f"/{target}",
            refdoc=docname,
            refexplicit=True,
            refwarn=True,
        )
    ]


def plan_path(app: Sphinx) -> Path:
    return Path(app.srcdir) / "book" / "plan.yml"


def _buttons(app: Sphinx, docname: str) -> nodes.Node:
    notebook = notebook_path(docname)
    links = nodes.paragraph(classes=["chapter-buttons"])
    for text, uri, attributes in (
        ("Download the notebook", f"../{notebook}", {"classes": ["button", "button-download"]}),
        (
            "Open in Colab",
            Repository.of(app.config).colab_url(notebook),
            {"classes": ["button", "button-colab"]},
        ),
    ):
        links += nodes.reference("", text, refuri=uri, internal=False, **attributes)
        links += nodes.Text(" ")
    only = addnodes.only(expr="html")
    only += links
    return only


def measured(app: Sphinx, docname: str) -> str:
    seconds = runtime(app.env, docname)
    if seconds is None:
        return "not run in this build"
    return f"{minutes(seconds)} on one CPU thread, measured when this page was built"


def header(app: Sphinx, docname: str) -> nodes.Node:
    """The block below the title."""
    book = book_metadata(app.env, docname)
    block = nodes.container(classes=["chapter-header"])
    question = nodes.paragraph(classes=["chapter-question"])
    question += parse_inline(book["question"])
    block += question
    goals = nodes.bullet_list(bullet="-")
    for goal in book["goals"]:
        goals += nodes.list_item("", nodes.paragraph("", "", *parse_inline(goal)))
    needs = nodes.bullet_list(bullet="-")
    for need in book["prerequisites"]:
        needs += nodes.list_item("", nodes.paragraph("", "", *_prerequisite(app, docname, need)))
    facts = nodes.definition_list(classes=["chapter-facts"])
    facts += _item("After it you can", goals)
    if book["prerequisites"]:
        facts += _item("You need", needs)
    facts += _item("Time to run", nodes.Text(measured(app, docname)))
    if on_gpu := on_device(Path(app.srcdir), docname):
        facts += _item("On a GPU", nodes.Text(on_gpu))
    facts += _item("Hardware", *parse_inline(book["hardware"]))
    facts += _item("Data", *parse_inline(book["data"]))
    block += facts
    block += _buttons(app, docname)
    return block


def insert(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.docname
    if chapter_number(docname) is None:
        return
    book = book_metadata(app.env, docname)
    if missing := [key for key in REQUIRED if key not in book]:
        logger.warning(
            "the chapter's header lacks %s below `jupyter: book:`",
            ", ".join(missing),
            location=docname,
            type="bookext",
            subtype="header",
        )
        return
    # What search engines and previews show: the question, without the marks of Markdown.
    question = re.sub(r"[$`*\\\\]", "", " ".join(book["question"].split()))
    app.env.metadata[docname]["og:description"] = question
    for section in doctree.findall(nodes.section):
        section.insert(1, header(app, docname))
        return


def describe(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """A chapter's meta description is its question; sphinxext-opengraph keeps what it finds."""
    if question := app.env.metadata.get(pagename, {}).get("og:description"):
        context["metatags"] += f'<meta name="description" content="{escape(question)}" />\n'


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", insert)
    app.connect("html-page-context", describe, priority=400)
