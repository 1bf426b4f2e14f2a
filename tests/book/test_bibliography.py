"""The bibliography: each source used, and to be read under an address that lasts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pybtex.database import parse_file

from book._ext.bookext.citations import author_year, source_url

ROOT = Path(__file__).parents[2]
SOURCES = parse_file(str(ROOT / "book" / "references.bib"), "bibtex").entries
# What has neither a DOI nor a page at arXiv: dissertations, reports, proceedings that give none.
# A source that has one must give it.
ADDRESS_ALONE = {
    "elhage2021",
    "gutmann2010",
    "hassibi1993",
    "hochreiter1991",
    "jozefowicz2015",
    "lecun1990",
    "nair2010",
    "radford2018",
    "radford2019",
    "srivastava2014",
    "watson1964",
}
each_source = pytest.mark.parametrize("key", list(SOURCES))


@each_source
def test_a_source_has_a_doi_or_a_page_at_arxiv_or_there_is_none(key):
    fields = SOURCES[key].fields
    url = source_url(SOURCES[key])
    assert url.startswith(("https://doi.org/10.", "https://arxiv.org/abs/")) == (
        key not in ADDRESS_ALONE
    )
    assert re.fullmatch(r"https://[!-~]+", url)
    assert re.fullmatch(r"10\.\d{4,9}/\S+", fields.get("doi", "10.1000/x"))
    assert re.fullmatch(r"\d{4}\.\d{4,5}|[a-z-]+/\d{7}", fields.get("eprint", "2001.00001"))


@each_source
def test_a_source_says_who_when_and_what(key):
    fields = SOURCES[key].fields
    assert fields["title"]
    assert re.fullmatch(r"(19|20)\d\d", fields["year"])
    label = author_year(SOURCES[key])
    assert not re.search(r"[\\{}\"]", label), label


def cited() -> set[str]:
    """Every key that a page or a model card cites."""
    pages = [*(ROOT / "chapters").glob("*.py"), *(ROOT / "book").rglob("*.md")]
    text = "\n".join(path.read_text("utf8") for path in pages)
    keys = {
        key.strip()
        for listed in re.findall(r"\{cite(?::[a-z]+)?\}`([^`]+)`", text)
        for key in re.sub(r"\{[^}]*\}", "", listed).split(",")
    }
    cards = (ROOT / "book" / "cards.yml").read_text("utf8")
    papers = re.findall(r"papers: \[([^\]]+)\]", cards)
    return keys | {key.strip() for listed in papers for key in listed.split(",")}


@each_source
def test_a_source_is_cited(key):
    assert key in cited()


def test_every_citation_has_its_source():
    assert cited() <= set(SOURCES)
    assert len(cited()) > 80


def test_sources_stand_in_the_order_of_their_keys():
    assert list(SOURCES) == sorted(SOURCES)
