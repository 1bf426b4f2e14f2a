"""The index: which section a term leads to, in which order, and what is left out."""

from __future__ import annotations

import pytest
from docutils import nodes
from docutils.utils import new_document
from sphinx import addnodes

from book._ext.bookext.generalindex import Place, by_letter, find_marks, find_terms, shown, words_of
from book._ext.bookext.glossary import Term

DOCNAME = "chapters/02_attention"
MASK = Term("mask", 2, "")


def chapter(**sections: list[nodes.Node] | str) -> nodes.document:
    """A chapter whose sections have these ids, titles and contents."""
    document = new_document("chapter")
    title = nodes.section("", nodes.title("", "Attention"), ids=["attention"])
    document += title
    for name, content in sections.items():
        section = nodes.section("", nodes.title("", name.capitalize()), ids=[name])
        section += nodes.paragraph(text=content) if isinstance(content, str) else content
        title += section
    return document


OTHER = "chapters/03_multi_head"


def test_a_term_leads_to_the_section_that_uses_it_most():
    document = chapter(first="A mask.", second="Masks, a mask, the mask.", third="mask mask mask")
    assert list(find_terms(document, OTHER, [MASK, Term("cell", 2, "")])) == [
        Place("mask", OTHER, "second", "second")
    ]


def test_where_it_is_explained_a_term_leads_to_the_first_section_that_uses_it():
    document = chapter(zero="x", first="A mask.", second="Masks, a mask, the mask.")
    assert list(find_terms(document, DOCNAME, [MASK])) == [
        Place("mask", DOCNAME, "first", "first", main=True)
    ]


def test_a_chapter_that_only_mentions_a_term_is_left_out():
    assert list(find_terms(chapter(first="mask mask mask mask"), OTHER, [MASK])) == []
    assert list(find_terms(chapter(first="mask mask mask mask mask"), OTHER, [MASK])) == [
        Place("mask", OTHER, "first", "first")
    ]
    assert len(list(find_terms(chapter(first="mask"), DOCNAME, [MASK]))) == 1


def test_exercises_and_summary_say_it_again():
    document = chapter(first="mask", exercises="mask mask mask mask mask")
    assert next(find_terms(document, OTHER, [MASK])).section == "first"
    document = chapter(first="none", exercises="mask mask mask mask mask")
    assert next(find_terms(document, OTHER, [MASK])).section == "exercises"


def test_code_and_formulas_are_not_read():
    paragraph = nodes.paragraph("", "a ", nodes.literal("", "mask"), nodes.math("", "mask"))
    paragraph += nodes.emphasis("", "ma")
    paragraph += nodes.Text("sk")
    document = chapter(first=[paragraph, nodes.literal_block("", "mask"), nodes.raw("", "mask")])
    assert words_of(document).split() == ["Attention", "First", "a", "mask"]


def test_shown_code_and_marks_of_the_author_are_listed():
    shown = nodes.container("", ids=["source-lib-attention-causal-mask"])
    shown["lib_source"] = "lib.attention.causal_mask"
    marks = addnodes.index(
        entries=[
            ("single", "softmax; online", "index-0", "main", None),
            ("pair", "loop; turnstile", "index-1", "", None),
        ]
    )
    helper = nodes.container("", ids=["source-lib-attention-check"])
    helper["lib_source"] = "lib.attention._check"
    found = list(find_marks(chapter(first="x", second=[shown, helper, marks]), DOCNAME))
    anchor = "source-lib-attention-causal-mask"
    assert found == [
        Place("lib.attention.causal_mask", DOCNAME, "second", anchor, code=True),
        Place("softmax, online", DOCNAME, "second", "index-0", main=True),
        Place("loop, turnstile", DOCNAME, "second", "index-1"),
        Place("turnstile, loop", DOCNAME, "second", "index-1"),
    ]


def test_a_mark_of_another_kind_is_a_warning(caplog):
    marks = addnodes.index(entries=[("see", "a; b", "index-0", "", None)])
    assert list(find_marks(chapter(first=[marks]), DOCNAME)) == []
    assert "expected an entry of kind single or pair, got 'see'" in caplog.text


@pytest.mark.parametrize(
    ("entry", "code", "name"),
    [
        ("lib.attention.causal_mask", True, "causal_mask"),
        ("lib.layers.EncoderLayer.forward", True, "EncoderLayer.forward"),
        ("lib.layers.EncoderLayer", True, "EncoderLayer"),
        ("St. Petersburg", False, "St. Petersburg"),
    ],
)
def test_a_method_is_listed_with_its_class(entry, code, name):
    assert shown(Place(entry, DOCNAME, "s", "s", code=code)) == name


def test_entries_stand_in_the_order_of_the_alphabet_and_the_main_place_first():
    def place(entry: str, number: int = 2, **options: bool) -> Place:
        return Place(entry, f"chapters/{number:02d}_x", "s", "s", **options)

    places = [
        place("value"),
        place("KV cache", 3),
        place("KV cache", 4, main=True),
        place("lib.attention.causal_mask", code=True),
        place("causal mask"),
        place("key"),
        place("élan"),
        place("8-bit"),
    ]
    letters = by_letter(places)
    assert [(name, [entry[0].entry for entry in entries]) for name, entries in letters] == [
        ("0–9", ["8-bit"]),
        ("C", ["causal mask", "lib.attention.causal_mask"]),
        ("E", ["élan"]),
        ("K", ["key", "KV cache"]),
        ("V", ["value"]),
    ]
    assert [p.docname for p in letters[3][1][1]] == ["chapters/04_x", "chapters/03_x"]


def test_a_chapter_without_sections_has_no_places():
    assert list(find_marks(new_document("empty"), DOCNAME)) == []
    assert list(find_terms(new_document("empty"), DOCNAME, [MASK])) == []
