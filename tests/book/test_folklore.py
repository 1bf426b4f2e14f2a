"""Every mistake and every saying of the errata has a home in a chapter: here is which.

The errata are the project's list of what popular tutorials get wrong: sayings (B), and
counterexamples that were measured (C). What the build makes of these homes is tested in
test_ext_folklore.py; that each mistake of C is noticed in lib, in tests/test_mutants_folklore.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from book._ext.bookext.book import read_plan
from tests.test_mutants_folklore import ERRATA

ROOT = Path(__file__).parents[2]
CHAPTERS = {chapter.number: chapter for chapter in read_plan(ROOT / "book" / "plan.yml")}

# C: the chapter that holds the box of each mistake.
BOXES = {
    1: ["D31", "D32", "D34"],
    2: ["D08", "D09", "D10", "D10b", "D14", "D15", "D22", "D38", "D40", "D41"],
    3: ["D07", "D09b", "D11", "D11b", "D12", "D13"],
    4: ["D01", "D02", "D03", "D04", "D05", "D28", "D30", "D33"],
    5: ["D26"],
    6: ["D06", "D16"],
    7: ["D17"],
    8: ["D18", "D20"],
    9: ["D21"],
    10: ["D39"],
    11: ["D27"],
    13: ["D23", "D24", "D37"],
    14: ["D25", "D25b", "D25c", "D29"],
    15: ["D35"],
    16: ["D36"],
}
# Shown in the box of another: two symptoms of one mistake.
TOGETHER = {"D10b": "D10"}

# B: each saying, and words that stand where it is set right: in a table of sayings, or a box.
SAYINGS = [
    ("a code is a sum of two sines", 4, "“The encoding is a sum of two sines, one number per"),
    ("a code in every layer", 4, "“Each layer adds a positional encoding.” | It is added once"),
    ("a code in every layer", 7, "“Every layer adds a positional encoding.” | It is added once"),
    ("Q, K, V are sub-layers", 3, "“Q, K and V are each a multi-head sub-layer.” | Each head has"),
    ("Softmax(X + MHA(X))", 6, "“Transformer(X) = Softmax(X + MHA(X))” | It is"),
    ("heads through ReLU", 3, "“The heads are projected through a ReLU, and their weights are"),
    ("2 to 8 heads", 3, "“Choose two to eight heads.” | The base model has 8, the big one 16"),
    ("x = E·e + P", 4, "“$x = E[t] + P$.” | The embedding is multiplied by $\\sqrt{d}$ first"),
    ("a learned code", 4, "“The positional code is learned automatically.” | The sinusoids hold"),
    ("one context vector", 1, "“The decoder of a Transformer gets the encoder's context"),
    ("one context vector", 7, "“The decoder uses the encoder's context vector.” | Masked"),
    ("dearer than an RNN", 1, "“A Transformer costs more to train than an RNN.” | The paper"),
    ("GPT's paper", 10, "“GPT came with ‘Language Models are Unsupervised Multitask Learners’,"),
    ("GPT's form", 10, "“GPT is an encoder–decoder.” | It is a decoder alone"),
    ("two one-way models", 11, "“BERT trains two independent one-way language models.” | That is"),
    ("BERT's activation", 5, "“BERT uses ReLU, and Swish is proven better in BERT.” | BERT uses"),
    ("BERT's activation", 11, "“BERT uses ReLU, and Swish is proven better in it.” | BERT uses"),
    ("two streams", 11, "“BERT is two-stream.” | Two-stream self-attention is XLNet's"),
    ("GELU is better", 5, "“GELU is proven better in the Transformer.” | In the pre-training of"),
    ("T5's positions", 8, "“T5 adds a relative position *layer*, for long sequences.” | It adds"),
    ("Longformer", 9, "“Longformer is a sliding window.” | A window, $w/2$ on each side, *and*"),
    ("ELECTRA", 13, "“ELECTRA adds a task to BERT.” | It replaces BERT's tasks"),
    ("DistilBERT", 14, "“DistilBERT changes BERT's connections.” | It is a training procedure"),
    ("zeros make it smaller", 15, "Broken on purpose D35: "),
    (
        "new structures explain",
        19,
        "“New structures are (or are not) interpretable.” | No such",
    ),
]


def source(number: int) -> str:
    """The chapter's file, its comments without marks and on one line a paragraph."""
    text = (ROOT / f"{CHAPTERS[number].docname}.py").read_text("utf8")
    return " ".join(re.sub(r"^# ?", "", text, flags=re.MULTILINE).split())


def test_every_mistake_has_one_home():
    named = [box for boxes in BOXES.values() for box in boxes]
    assert sorted(named) == sorted(ERRATA)


@pytest.mark.parametrize(
    ("chapter", "number"), [(chapter, box) for chapter, boxes in BOXES.items() for box in boxes]
)
def test_a_mistake_is_at_home_in_its_chapter(chapter, number):
    text = source(chapter)
    box = TOGETHER.get(number, number)
    title = f":::{{admonition}} Broken on purpose {box}: "
    assert title in text
    shown = text.partition(title)[2].partition(":::{admonition} Broken on purpose ")[0]
    assert f'"{number}' in shown  # as the label of `catches`


def test_there_are_as_many_sayings_as_in_the_errata():
    assert len({name for name, *_ in SAYINGS}) == 22  # 21 rows; that of GPT says two things


@pytest.mark.parametrize(
    ("chapter", "words"), [row[1:] for row in SAYINGS], ids=[f"{n}-{c}" for n, c, _ in SAYINGS]
)
def test_a_saying_is_set_right(chapter, words):
    assert words in source(chapter)
