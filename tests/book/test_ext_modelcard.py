"""The model cards: one a family, read from the code, and true of it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
import yaml

from book._ext.bookext import modelcard
from book._ext.bookext.book import read_plan
from book._ext.bookext.modelcard import Card, card_text, cards_text, paragraphs, read_cards

ROOT = Path(__file__).parents[2]
CARDS = read_cards(ROOT)
CHAPTERS = [f"chapters/{card.chapter}" for card in CARDS.values()]
each_card = pytest.mark.parametrize("card", CARDS.values(), ids=lambda card: card.family)


def cells(text: str, first: str) -> list[str]:
    """The cells of the table row that begins with this cell."""
    rows = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("|")]
    found = [row for row in rows if row[0] == first]
    assert len(found) == 1, f"{len(found)} rows begin with {first!r}"
    return found[0]


def test_every_family_has_a_card_and_a_page():
    families = {
        path.stem
        for path in (ROOT / "lib" / "models").glob("*.py")
        if path.stem not in ("__init__", "layouts", "attention_only")
    }
    assert families == set(CARDS)
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text("utf8"))
    (part,) = [part for part in toc["parts"] if part["caption"] == "Model cards"]
    want = ["book/cards", *(f"book/cards/{family}" for family in CARDS)]
    assert [page["file"] for page in part["chapters"]] == want
    for family, card in CARDS.items():
        page = (ROOT / "book" / "cards" / f"{family}.md").read_text("utf8")
        assert page == f"# {card.title}\n\n```{{model-card}} {family}\n```\n"


@each_card
def test_a_card_names_a_chapter_of_the_plan_and_papers_of_the_bibliography(card):
    plan = {chapter.docname: chapter for chapter in read_plan(ROOT / "book" / "plan.yml")}
    assert f"chapters/{card.chapter}" in plan
    bibliography = (ROOT / "book" / "references.bib").read_text("utf8")
    keys = re.findall(r"^@\w+\{(\w+),", bibliography, re.MULTILINE)
    assert set(card.papers) <= set(keys)
    # the docstring of the model names the same chapter
    assert card.chapter in (ROOT / card.path).read_text("utf8")


# Published counts: of the papers (GPT-2's are those of its release, as the paper's are wrong), of
# the Hub for the rest.
PUBLISHED = {
    "gpt2": 124_439_808,
    "bert": 110_106_428,  # with both heads
    "distilbert": 66_985_530,
    "t5": 60_506_624,
    "vit": 86_567_656,
    "longformer": 148_711_257,
}


@pytest.mark.parametrize("family", PUBLISHED)
def test_parameters_are_those_of_the_release(family):
    card = CARDS[family]
    count = modelcard.count_parameters(card.model, tuple(card.config.items()))
    assert count == PUBLISHED[family]
    assert cells(card_text(ROOT, card, CHAPTERS), "How many parameters?")[1].startswith(
        f"{count:,} ("
    )


def test_tied_parameters_are_counted_once_and_nothing_is_allocated():
    options = (("vocab_size", 50), ("d_model", 12), ("num_layers", 1), ("num_heads", 3))
    count = modelcard.count_parameters("lib.models.gpt2.GPT2", options)
    module = CARDS["gpt2"].model_class
    model = module(module.config_class(**dict(options)))
    assert count == len(torch.nn.utils.parameters_to_vector(model.parameters()))
    # a model of a hundred billion would not fit
    huge = (("d_model", 12288), ("num_layers", 96), ("num_heads", 96))
    assert modelcard.count_parameters("lib.models.gpt2.GPT2", huge) > 1.7e11


@each_card
def test_a_card_shows_every_option_with_its_official_name(card):
    text = card_text(ROOT, card, CHAPTERS)
    layout = card.model_class.layout
    for entry in dataclasses.fields(card.model_class.config_class):
        name = cells(text, f"`{entry.name}`")[-1]
        assert name == (f"`{layout.options[entry.name]}`" if entry.name in layout.options else "–")
    assert card.path in cells(text, "Where is it?")[1]


@each_card
def test_a_card_shows_the_recorded_errors(card):
    text = card_text(ROOT, card, CHAPTERS)
    record = modelcard.read_parity(ROOT)
    rows = record["results"]["families"][card.family]
    assert rows
    for row in rows:
        assert 0 < row["float32"] <= 1e-5
        exact = row["float64, mended"] if "operation" in row else row["float64"]
        assert 0 < exact <= 1e-10
        assert modelcard.error(row["float32"]) in text
        assert modelcard.error(exact) in text
        assert ("operation" in row) == ("*Mended*" in text)
        if "operation" in row:
            assert row["operation"] in text
    assert record["settings"]["transformers"] in text


@pytest.mark.parametrize(
    ("value", "shown"), [(1.73e-7, r"$1.7 \times 10^{-7}$"), (9.96e-16, r"$1.0 \times 10^{-15}$")]
)
def test_an_error_is_shown_with_two_digits(value, shown):
    assert modelcard.error(value) == shown


@each_card
def test_a_card_says_how_the_code_deviates_from_the_paper(card):
    said = list(paragraphs(ROOT, card.path))
    assert said[0].startswith("Source: ")
    assert not any(text.startswith("Derived") for text in said)
    text = card_text(ROOT, card, CHAPTERS)
    assert all(paragraph in text for paragraph in said)


def test_paragraphs_are_told_apart(tmp_path):
    (tmp_path / "m.py").write_text(
        '"""First line.\n\nSource: a paper,\nsection 2.\nDerived in chapter 1.\n\n'
        'Deviations: none.\n"""\n\n\nclass A:\n    """One.\n\n    Deviation: a sign,\n    turned.\n'
        '\n    More.\n    """\n\n\nclass B:\n    pass\n'
    )
    assert list(paragraphs(tmp_path, "m.py")) == [
        "Source: a paper, section 2.",
        "Deviations: none.",
        "`A`. Deviation: a sign, turned.",
    ]


def test_all_families_stand_in_one_table():
    text = cards_text(ROOT, CHAPTERS)
    families = modelcard.read_parity(ROOT)["results"]["families"]
    for card in CARDS.values():
        row = cells(text, f"[{card.title}](/book/cards/{card.family}.md)")
        assert row[1] == f"`{card.model_class.__name__}`"
        assert row[3] == modelcard.error(max(r["float32"] for r in families[card.family]))
        exact = max(r.get("float64, mended", r["float64"]) for r in families[card.family])
        assert row[4] == modelcard.error(exact)
        assert card.chapter in row[5]


def test_an_unknown_entry_of_the_file_is_refused(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "cards.yml").write_text("a: {title: A, colour: red}\n")
    with pytest.raises(TypeError, match="colour"):
        read_cards(tmp_path)
    assert isinstance(CARDS["bert"], Card)


def test_only_a_chapter_of_the_book_is_linked():
    card = CARDS["gpt2"]
    assert modelcard.chapter_link(card, CHAPTERS) == "[chapter 10](/chapters/10_gpt.py)"
    assert modelcard.chapter_link(card, []) == "chapter 10, planned"
    assert "[chapter 10](/chapters/10_gpt.py)" in card_text(ROOT, card, CHAPTERS)
    assert "chapter 10, planned" in card_text(ROOT, card, [])
    assert "chapter 10, planned" in cards_text(ROOT, [])
