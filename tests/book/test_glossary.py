"""The glossary: in order, exact to a chapter, and of words that the chapters use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from book._ext.bookext import glossary
from book._ext.bookext.glossary import Term, documents, glossary_text, read_terms

ROOT = Path(__file__).parents[2]
TERMS = read_terms(ROOT)
DOCUMENTS = documents(ROOT)


def prose(text: str) -> str:
    """What the Markdown cells of a chapter say, without code, formulas and roles."""
    cells = re.split(r"^# %%", text, flags=re.MULTILINE)
    cells = [cell.partition("\n")[2] for cell in cells if cell.startswith(" [markdown]")]
    words = "\n".join(re.sub(r"^# ?", "", cell, flags=re.MULTILINE) for cell in cells)
    words = re.sub(r"^\$\$.*?^\$\$.*?$", "", words, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(\{[\w:]+\})?`[^`]*`|\$[^$]*\$|^:::.*$", "", words, flags=re.MULTILINE)


def occurrences(term: Term) -> int:
    path = ROOT / f"{DOCUMENTS[term.chapter]}.py"
    return len(term.pattern.findall(prose(path.read_text("utf8"))))


def test_the_terms_stand_in_alphabetical_order_and_each_once():
    names = [term.term.casefold() for term in TERMS]
    assert names == sorted(names)
    assert len(names) == len(set(names)) >= 80


def test_no_word_is_two_terms():
    words = [word.casefold() for term in TERMS for word in term.words]
    assert sorted({word for word in words if words.count(word) > 1}) == []


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.term)
def test_a_term_has_a_chapter_and_a_sentence_or_two(term):
    assert term.chapter in DOCUMENTS
    sentences = re.findall(r"[.?](?= |$)", " ".join(term.text.split()))
    assert 1 <= len(sentences) <= 3
    assert term.text.rstrip().endswith(".")
    assert 25 <= len(term.text) <= 260


@pytest.mark.parametrize(
    "term",
    [term for term in TERMS if (ROOT / f"{DOCUMENTS[term.chapter]}.py").exists()],
    ids=lambda term: term.term,
)
def test_the_chapter_that_a_term_names_speaks_of_it(term):
    assert occurrences(term) >= 1


def test_most_terms_can_be_looked_up_now():
    whole = [term for term in TERMS if (ROOT / f"{DOCUMENTS[term.chapter]}.py").exists()]
    assert len(whole) >= 80


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a causal mask", 1),
        ("Causal\nmasks and the causal-mask", 2),
        ("acausal mask, causal masking", 0),
        ("look-ahead masks", 1),
        ("un-causal mask", 0),
        ("[Causal mask] is a token", 0),
    ],
)
def test_a_term_is_found_with_its_plural_and_its_other_forms(text, found):
    term = Term("causal mask", 2, "", ("look-ahead mask",))
    assert len(term.pattern.findall(text)) == found


def test_code_formulas_and_cells_are_no_prose():
    text = "# %% [markdown]\n# one `two` $three$ {eq}`four`\n# $$\n# five\n# $$ (six)\n# seven\n"
    text += "# %%\neight = 8  # nine\n"
    assert prose(text).split() == ["one", "seven"]


def test_only_terms_of_chapters_that_are_there_are_shown():
    text = glossary_text(ROOT, ["chapters/02_attention"])
    assert text.startswith("```{glossary}\nattention\n  An average of values, weighted by ")
    assert text.count("[Chapter 2](/chapters/02_attention.py).") == text.count("[Chapter")
    want = [term.term for term in TERMS if term.chapter == 2]
    assert re.findall(r"^(?!```)(\S.*)$", text, re.MULTILINE) == want


def test_an_unknown_key_is_refused(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / glossary.GLOSSARY).write_text("- {term: a, chapter: 2, text: b, colour: red}\n")
    with pytest.raises(TypeError, match="colour"):
        read_terms(tmp_path)
