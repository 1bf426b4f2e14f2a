"""The page of folklore: what is collected from a chapter, and what it complains of.

test_ext_build.py has it in a whole build.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from docutils import nodes
from docutils.utils import new_document
from sphinx import addnodes

from book._ext.bookext import folklore
from book._ext.bookext.folklore import Box, Caught, Collected, fix_of, read_boxes, read_sayings

CHAPTER = "chapters/02_attention"
CAUGHT = (
    '<div class="caught" data-label="{0}"><p class="caught-symptom">✗ {0}, broken: {1}</p>'
    '<p class="caught-test">✓ <code>{2}</code> catches it, and passes once fixed</p></div>'
)


def box(number: str = "D09", claim: str = "no scaling", *words: nodes.Node) -> nodes.admonition:
    title = nodes.title("", "", nodes.Text(f"Broken on purpose {number}: {claim}"), *words)
    return nodes.admonition("", title, nodes.paragraph(text="What goes wrong."))


def output(label: str, symptom: str, test: str) -> nodes.container:
    html = CAUGHT.format(label, symptom, test)
    part = nodes.container("", nodes.raw("", html, format="html"), mime_type="text/html")
    return nodes.container("", part, nb_element="mime_bundle")


def fix(*words: nodes.Node) -> nodes.paragraph:
    return nodes.paragraph("", "", nodes.strong("", "Fix:"), *words)


def cited(key: str) -> addnodes.pending_xref:
    return addnodes.pending_xref(
        "", nodes.inline("", key), refdomain="cite", reftype="p", reftarget=key, ids=["id7"]
    )


def document(*content: nodes.Node) -> nodes.document:
    result = new_document("test")
    result += nodes.section("", nodes.title(text="Broken on purpose"), *content, ids=["broken"])
    return result


def words(parts: list[nodes.Node]) -> str:
    return "".join(part.astext() for part in parts)


def table(head: list[str], *rows: list[str]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    for part, lines in ((nodes.thead(), [head]), (nodes.tbody(), rows)):
        for line in lines:
            part += nodes.row("", *[nodes.entry("", nodes.paragraph(text=c)) for c in line])
        group += part
    return nodes.table("", group)


def test_a_box_has_its_claim_its_fix_and_what_caught_it():
    shown = box("D09", "no scaling by ", nodes.math("", r"\sqrt{d}"))
    tree = document(
        shown,
        output("D09, wide", "a variance of 3 &lt; 4", "has_unit_variance"),
        fix(nodes.Text(" divide by "), nodes.math("", "d"), nodes.Text(". And test.")),
        nodes.paragraph(text="More on this."),
    )
    (found,) = read_boxes(tree, CHAPTER)
    assert (found.number, found.anchor, found.docname) == ("D09", "broken-d09", CHAPTER)
    assert words(found.claim) == r"no scaling by \sqrt{d}"
    assert isinstance(found.claim[1], nodes.math)
    assert words(found.fix) == "Divide by d. And test."
    assert found.caught == [Caught("D09, wide", "a variance of 3 < 4", "has_unit_variance")]
    assert shown["ids"] == ["broken-d09"]
    assert list(found.lacks()) == []


def test_a_box_ends_where_the_next_one_or_a_section_begins():
    first, second = box("D10", "one"), box("D10b", "two")
    tree = document(
        fix(nodes.Text(" of nothing")),
        first,
        output("D10", "a", "b"),
        second,
        fix(nodes.Text(" the second")),
        nodes.section("", fix(nodes.Text(" another section")), output("D10b", "c", "d")),
    )
    found = read_boxes(tree, CHAPTER)
    assert [(b.number, words(b.fix), len(b.caught)) for b in found] == [
        ("D10", "", 1),
        ("D10b", "The second", 0),
    ]
    assert list(found[0].lacks()) == ["has no paragraph with **Fix:**"]
    assert list(found[1].lacks()) == ["is caught by no test: call catches('D10b', …)"]


def test_other_boxes_and_outputs_are_left_alone():
    other = nodes.admonition("", nodes.title(text="Our remark"), nodes.paragraph(text="x"))
    (found,) = read_boxes(document(box(), other, output("D09b", "a", "b")), CHAPTER)
    assert other["ids"] == []
    assert found.caught == [Caught("D09b", "a", "b")]
    assert len(list(found.lacks())) == 2  # D09b is another mistake than D09


def test_a_test_of_the_repository_may_catch_it():
    text = nodes.paragraph(text="See tests/test_attention.py::TestX::test_y.")
    (found,) = read_boxes(document(box(), text, fix(nodes.Text(" so"))), CHAPTER)
    assert found.named == ["tests/test_attention.py::TestX::test_y"]
    assert list(found.lacks()) == []


def test_sources_are_named_once_and_carry_no_id():
    tree = document(box(), nodes.paragraph("", "", cited("a2017")), fix(cited("b2018")))
    tree[0] += nodes.paragraph("", "", cited("a2017"))
    (found,) = read_boxes(tree, CHAPTER)
    assert [source["reftarget"] for source in found.sources] == ["a2017", "b2018"]
    assert all(s["ids"] == [] and s["reftype"] == "t" for s in found.sources)
    assert next(tree.findall(addnodes.pending_xref))["ids"] == ["id7"]  # the chapter keeps its own


def test_no_fix_is_found_in_another_paragraph():
    assert fix_of(nodes.paragraph(text="Fix: nothing")) == []
    assert fix_of(nodes.paragraph("", "", nodes.strong("", "Fixed:"), nodes.Text(" x"))) == []
    bad, good = nodes.Text("Bad. "), nodes.Text(" this.")
    behind = nodes.paragraph("", "", bad, nodes.strong("", "Fix:"), good)
    assert words(fix_of(behind)) == "This."


@pytest.mark.parametrize(
    ("head", "row", "source"),
    [
        (["Said", "True", "Source"], ["a", "b", "c"], "c"),
        (["What one reads", "What is so"], ["a", "b"], ""),
    ],
)
def test_sayings_are_rows_of_a_table(head, row, source):
    shown = table(head, row, row)
    first, second = read_sayings(document(table(["Said", "Done"], ["x", "y"]), shown))
    assert (first.anchor, second.anchor) == ("said-1", "said-2")
    assert [words(part) for part in (first.claim, first.truth, first.source)] == ["a", "b", source]
    assert [line["ids"] for line in shown.findall(nodes.row)] == [[], ["said-1"], ["said-2"]]


def environment(*boxes: Box) -> SimpleNamespace:
    return SimpleNamespace(bookext_folklore={CHAPTER: Collected(list(boxes))})


def whole(number: str) -> Box:
    return Box(
        number,
        claim=[nodes.Text("claim")],
        docname=CHAPTER,
        line=3,
        anchor="x",
        fix=[nodes.Text("fix")],
        caught=[Caught(number, "symptom", "test")],
    )


def test_it_complains_of_what_is_missing_and_of_what_stands_twice(monkeypatch):
    said = []
    monkeypatch.setattr(
        folklore.logger, "warning", lambda text, *words, **_: said.append(text % words)
    )
    folklore.complain(None, environment(whole("D01"), whole("D02")))
    assert said == []
    bare = Box("D03", [], CHAPTER, 3, "x")
    folklore.complain(None, environment(whole("D01"), whole("D01"), bare))
    assert said == [
        "the box “Broken on purpose D01” stands in this chapter twice",
        "the box “Broken on purpose D03” has no paragraph with **Fix:**",
        "the box “Broken on purpose D03” is caught by no test: call catches('D03', …)",
    ]


@pytest.mark.parametrize("part", ["claim", "fix", "caught", "sources", "number"])
def test_the_page_is_written_anew_when_something_on_it_changed(part):
    one, other = Collected([whole("D01")]), Collected([whole("D01")])
    assert one.state() == other.state()
    changed = {"caught": [Caught("D01", "another", "test")], "number": "D02"}
    setattr(other.boxes[0], part, changed.get(part, [nodes.Text("another")]))
    assert one.state() != other.state()


def test_what_is_collected_can_be_kept_between_builds():
    import pickle

    tree = document(box(), fix(nodes.Text(" a "), cited("a2017")), output("D09", "s", "t"))
    for node in tree.findall():  # as in a document that was parsed
        node.document = tree
    found = read_boxes(tree, CHAPTER)
    assert all(n.document is None for n in (*found[0].fix, *found[0].sources, *found[0].claim))
    (again,) = pickle.loads(pickle.dumps(found))
    assert words(again.fix) == words(found[0].fix) and again.caught == found[0].caught
