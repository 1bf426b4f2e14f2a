"""`{terms}`: the glossary, written in book/glossary.yml, of the chapters that this book has."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from .book import chapter_number, read_plan

GLOSSARY = "book/glossary.yml"


@dataclass(frozen=True)
class Term:
    """A term of the field, and the chapter that explains it."""

    term: str
    chapter: int
    text: str
    forms: tuple[str, ...] = ()  # other words for it

    @property
    def pattern(self) -> re.Pattern[str]:
        """What counts as the term in a text: it or another form, its plural, at any line break."""
        forms = [r"[\s-]+".join(map(re.escape, re.split(r"[ -]", f))) for f in self.words]
        return re.compile(rf"(?<![\w[-])(?:{'|'.join(forms)})(?:s|es)?(?!\w)", re.IGNORECASE)

    @property
    def words(self) -> tuple[str, ...]:
        return (self.term, *self.forms)


def read_terms(root: Path) -> list[Term]:
    """The terms of glossary.yml, in its order."""
    content = yaml.safe_load((root / GLOSSARY).read_text("utf8"))
    return [Term(**{**entry, "forms": tuple(entry.get("forms", ()))}) for entry in content]


def documents(root: Path) -> dict[int, str]:
    """The document of each planned chapter: 2 -> chapters/02_attention."""
    return {entry.number: entry.docname for entry in read_plan(root / "book" / "plan.yml")}


def glossary_text(root: Path, found: Collection[str]) -> str:
    """The glossary as MyST, without the terms whose chapter is not among these documents."""
    lines = ["```{glossary}"]
    planned = documents(root)
    for entry in read_terms(root):
        document = planned[entry.chapter]
        if document in found:
            text = " ".join(entry.text.split())
            lines += [entry.term, f"  {text} [Chapter {entry.chapter}](/{document}.py).", ""]
    return "\n".join([*lines, "```", ""])


def note_listing(env: BuildEnvironment) -> None:
    """The page that is being read lists what the whole chapters have."""
    env.bookext_listings = {*getattr(env, "bookext_listings", ()), env.docname}


def reread_listings(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """When a chapter joins or leaves the book, pages that list what chapters have are read anew."""
    moved = any(chapter_number(name) is not None for name in added | removed)
    return sorted(getattr(env, "bookext_listings", set()) & env.found_docs) if moved else []


class Terms(SphinxDirective):
    """The glossary."""

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.app.srcdir)
        self.env.note_dependency(GLOSSARY)
        self.env.note_dependency("book/plan.yml")
        note_listing(self.env)
        return self.parse_text_to_nodes(glossary_text(root, self.env.found_docs))


def setup(app: Sphinx) -> None:
    app.add_directive("terms", Terms)
    app.connect("env-get-outdated", reread_listings)
