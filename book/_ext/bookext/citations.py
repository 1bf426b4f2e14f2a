"""Author-year citations, and a bibliography in which each source links to its DOI or arXiv page."""

from __future__ import annotations

from dataclasses import dataclass, field

import sphinxcontrib.bibtex.plugin
from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.richtext import Text
from pybtex.style.formatting.unsrt import Style as UnsrtStyle
from pybtex.style.labels import BaseLabelStyle
from pybtex.style.sorting.author_year_title import SortingStyle
from sphinx.application import Sphinx
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle


def names(entry: Entry) -> str:
    """`Vaswani et al.`, `Jain and Wallace`."""
    last = [" ".join([*person.prelast_names, *person.last_names]) for person in authors(entry)]
    last = [str(Text.from_latex(name)) for name in last]
    if not last:
        return entry.fields.get("organization", entry.key)
    if len(last) > 2:
        return f"{last[0]} et al."
    return " and ".join(last)


def authors(entry: Entry):
    return entry.persons.get("author") or entry.persons.get("editor") or []


def author_year(entry: Entry) -> str:
    return f"{names(entry)}, {entry.fields.get('year', 'n.d.')}"


def source_url(entry: Entry) -> str | None:
    """Where a source can be read: its DOI, its arXiv page, or the address it names."""
    fields = entry.fields
    if "doi" in fields:
        return f"https://doi.org/{fields['doi']}"
    if fields.get("archiveprefix", "").lower() == "arxiv" or "eprint" in fields:
        return f"https://arxiv.org/abs/{fields['eprint']}"
    return fields.get("url")


class AuthorYearLabels(BaseLabelStyle):
    """`Vaswani et al., 2017`; two sources of one author and year get a and b."""

    def format_labels(self, sorted_entries):
        entries = list(sorted_entries)
        plain = [author_year(entry) for entry in entries]
        for index, label in enumerate(plain):
            if plain.count(label) == 1:
                yield label
            else:
                yield f"{label}{'abcdefghijklmnopqrstuvwxyz'[plain[:index].count(label)]}"


class BookStyle(UnsrtStyle):
    """Sorted by author and year; the label is what the text cites."""

    default_label_style = AuthorYearLabels
    default_sorting_style = SortingStyle


def round_brackets() -> BracketStyle:
    return BracketStyle(left="(", right=")")


@dataclass
class RoundAuthorYear(AuthorYearReferenceStyle):
    """(Vaswani et al., 2017), with round brackets."""

    bracket_parenthetical: BracketStyle = field(default_factory=round_brackets)
    bracket_textual: BracketStyle = field(default_factory=round_brackets)
    bracket_author: BracketStyle = field(default_factory=round_brackets)
    bracket_label: BracketStyle = field(default_factory=round_brackets)
    bracket_year: BracketStyle = field(default_factory=round_brackets)


def setup(app: Sphinx) -> None:
    register_plugin("pybtex.style.formatting", "bookext", BookStyle, force=True)
    sphinxcontrib.bibtex.plugin.register_plugin(
        "sphinxcontrib.bibtex.style.referencing", "bookext", RoundAuthorYear, force=True
    )
