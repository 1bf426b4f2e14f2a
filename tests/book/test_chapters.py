"""Every chapter keeps the book's rules, and every rule catches what it is for."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from book.tools import chapter_lints as lints
from book.tools.chapter_lints import Chapter, measured_numbers
from tests.repository import repository_files

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "chapters").glob("*.py"))
TEMPLATE = (ROOT / "book" / "template" / "chapter.py").read_text("utf8")
NAME = "23_slug_here"
read = functools.cache(Chapter.read)  # taking one apart takes longer than looking at it


def test_there_are_chapters():
    assert CHAPTERS


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("lint", lints.LINTS, ids=lambda lint: lint.__name__)
def test_chapter(path, lint):
    assert list(lint(read(path))) == []


def test_the_template_keeps_every_rule():
    assert lints.problems(Chapter.parse(TEMPLATE, NAME)) == []


# Each line damages the template in one place: the lint, what is replaced, by what, and the problem.
DAMAGE = [
    ("header", "accelerator: GPU", "accelerator: None", "lacks `accelerator: GPU`"),
    ("header", "name: python3\n", "name: python2\n", "lacks the kernelspec"),
    ("header", "question: Question here?", "question: ''", "lacks `book: question:`"),
    ("header", "question: Question here?", "question: A claim.", "does not end with a question"),
    ("header", "#     data: Where the", "#     dates: Where the", "lacks `book: data:`"),
    ("header", "#     hardware: One CPU core.", "#     software: One", "lacks `book: hardware:`"),
    ("header", "#       - 02_attention\n", "", "lacks a list `book: prerequisites:`"),
    ("header", '["setup", "remove-cell"]', '["setup"]', "not tagged setup and remove-cell"),
    ("header", "# %%\nwords =", '# %% tags=["setup"]\nwords =', "more than one cell is tagged"),
    ("sections", "# # Title here", "# Title here", "expected one title (`# …`), got 0"),
    ("sections", "# ## Derivation", "# ### Derivation", "one section `## Derivation`, got 0"),
    ("sections", "# ## Summary", "# ## Summaries", "one section `## Summary`, got 0"),
    ("sections", "# ## Sources", "# ## Summary", "one section `## Summary`, got 2"),
    ("equations", 'check("eq-slug-here-moments"', 'check("it holds"', "moments has no check"),
    ("equations", "(eq-slug-here-moments)", "", "names no numbered equation"),
    ("equations", 'check("eq-slug-here-moments"', 'check(f"eq-other-{x}"', "names no numbered"),
    ("equations", "(def-slug-here-variance)", "(def-variance)", "def-variance is not eq-slug"),
    ("equations", "(def-slug-here-variance)", "(eq-slug-here-moments)", "is used 2 times"),
    ("equations", "(def-slug-here-variance)", "(claim-slug-here-x)", "claim-slug-here-x is not"),
    ("typed_numbers", "the numbers one, two and six.", "a mean of 3.0.", "the number 3.0 is typed"),
    ("typed_numbers", "of a word's length is", "of the 481 words is", "the number 481 is typed"),
    ("typed_numbers", "with mean $", "with mean $0.5$ or $", "the number 0.5 is typed"),
    ("typed_numbers", "# - What to remember,", "# - It is 3× faster,", "the number 3× is typed"),
    ("typed_numbers", "- and one line more", "- reach a loss of 1.93", "in the header's goals"),
    ("typed_numbers", "compute one variance,", "compute 14.2,", "typed in a caption"),
    ("glued", "{glue:text}`slug-here-spread", "{glue:text}`slug-here-sprawl", "no cell glues"),
    ("glued", "{glue:text}`slug-here-spread:.1f`", "a few", "is used nowhere"),
    ("glued", 'glue("slug-here-spread"', "glue(name", "write the name of what is glued"),
    (
        "glued",
        'check("words differ',
        'glue("slug-here-spread", 1)\ncheck("words differ',
        "another call glues the same name",
    ),
    ("figures", "{numref}`fig-slug-here-cancellation`", "It", "is not referred to"),
    ("figures", 'name="fig-slug-here-canc', 'name="fig-canc', "is not fig-slug-here-…"),
    ("figures", 'name="fig-slug-here-cancellation"', "name=name", "write the figure's name"),
    ("figures", "    alt=", "    title=", "has no alt text"),
    ("figures", "    caption=", "    title=", "has no caption"),
    ("figures", "Two curves of error over the mean", "x" * 250, "expected 40 to 250"),
    ("code_width", "numbers = [1, 2, 6]", "numbers = [1, 2, 6]" + "  " * 40 + "#", "a line of 100"),
    ("citations", "{cite}`vaswani2017`", "{cite}`nobody1999`", "nobody1999` is not in"),
    ("citations", "{cite}`vaswani2017`", "Nobody", "the section Sources cites nothing"),
    ("library", "lib.slug_here.variance\n# ```", "lib.other.f\n# ```", "no {lib-source} shows"),
    ("exercises", ":label: ex-slug_here-scores", ":label: ex-other", "is not ex-slug_here-…"),
    ("exercises", "*Difficulty ●○○ · 5 minutes*", "Easy.", "lacks its line `*Difficulty"),
    ("exercises", "●○○ · 5 minutes", "○●○ · 5 minutes", "lacks its line `*Difficulty"),
    ("exercises", "{dropdown} Hint", "{dropdown} More", "lacks a hint"),
    ("exercises", '["exercise-stub"]', '["stub"]', "expected one code cell tagged exercise-stub"),
    ("exercises", '["solution"]', '["answer"]', "expected one code cell tagged solution"),
    ("exercises", "    raise NotImplementedError", "    return 0", "does not raise NotImplemented"),
    ("exercises", "# :class: dropdown\n", "", "the solution is not folded"),
    (
        "exercises",
        "# ```{solution-start} ex-slug_here-scores",
        "# ```{solution-start} ex-slug_here-other",
        "which is no exercise above it",
    ),
    (
        "exercises",
        "NotImplementedError\n\n\ngrade(",
        "NotImplementedError\n\n\nprint(",
        "exercise-stub does not end with grade",
    ),
    (
        "exercises",
        '.sqrt()\n\n\ngrade("ex-slug_here-scores"',
        '.sqrt()\n\n\ngrade("ex-slug_here-other"',
        "solution does not end with grade",
    ),
    ("exercises", "# ## Exercises", "# ## Questions", "stands outside the section Exercises"),
    ("broken_boxes", "Broken on purpose D00:", "Broken:", "no box is titled"),
    ("broken_boxes", "Broken on purpose D00:", "Broken on purpose:", "is not titled"),
    ("broken_boxes", ":class: broken", ":class: note", "lacks `:class: broken`"),
    ("broken_boxes", "**Fix:**", "Fix:", "has no `**Fix:**`"),
    ("broken_boxes", 'catches("D00"', 'print("D00"', "call catches('D00', …)"),
    ("broken_boxes", 'catches("D00"', 'catches("D01"', "call catches('D00', …)"),
    (
        "broken_boxes",
        "precision both terms are large",
        "`tests/test_none.py::test_x` precision both",
        "names tests/test_none.py, which does not exist",
    ),
    (
        "broken_boxes",
        "precision both terms are large",
        "`tests/book/test_chapters.py::test_no_such` precision both",
        "test_no_such, which is not defined there",
    ),
]


@pytest.mark.parametrize(
    ("lint", "good", "bad", "problem"), DAMAGE, ids=[f"{d[0]}-{d[3][:30]}" for d in DAMAGE]
)
def test_each_rule_catches(lint, good, bad, problem):
    assert TEMPLATE.count(good) >= 1, f"the template no longer holds {good!r}"
    chapter = Chapter.parse(TEMPLATE.replace(good, bad, 1), NAME)
    found = list(getattr(lints, lint)(chapter))
    assert any(problem in line for line in found), found


def test_every_rule_is_damaged():
    assert {damage[0] for damage in DAMAGE} == {lint.__name__ for lint in lints.LINTS}


def test_the_plan_names_a_module_that_is_not_named_after_its_chapter():
    assert Chapter.parse(TEMPLATE, "03_multi_head").module == "lib.attention"
    assert Chapter.parse(TEMPLATE, "02_attention").module == "lib.attention"
    assert Chapter.parse(TEMPLATE, "14_distillation").module == "lib.losses"
    assert Chapter.parse(TEMPLATE, NAME).module == "lib.slug_here"


def test_sections_in_another_order():
    before, _, after = TEMPLATE.partition("# ## From scratch")
    swapped = before.replace("# ## Derivation", "# ## From scratch") + "# ## Derivation" + after
    (found,) = lints.sections(Chapter.parse(swapped, NAME))
    assert "stand in the order The formula, From scratch, Derivation" in found


def test_a_section_may_go_on_after_its_name_and_others_may_stand_between():
    text = TEMPLATE.replace("# ## Summary", "# ## An aside\n#\n# ## Summary: what to remember")
    assert list(lints.sections(Chapter.parse(text, NAME))) == []


def test_a_file_name_without_number():
    (found,) = lints.header(Chapter.parse(TEMPLATE, "slug_here"))
    assert "is not NN_slug" in found


def test_a_box_may_name_a_test_of_the_repository():
    named = "`tests/book/test_chapters.py::test_there_are_chapters` precision both terms"
    text = TEMPLATE.replace("precision both terms", named).replace('catches("D00"', 'print("D00"')
    assert list(lints.broken_boxes(Chapter.parse(text, NAME))) == []


def test_a_box_without_code():
    box = (
        "# %% [markdown]\n# :::{admonition} Broken on purpose D01: words only\n# :class: broken\n"
        "# No code.\n# :::\n\n"
    )
    position = TEMPLATE.rindex("# %% [markdown]", 0, TEMPLATE.index("# ## Exercises"))
    chapter = Chapter.parse(TEMPLATE[:position] + box + TEMPLATE[position:], NAME)
    found = list(lints.broken_boxes(chapter))
    assert [line for line in found if "D01: words only” runs no code" in line]


def test_names_computed_in_a_loop_are_understood():
    text = TEMPLATE.replace('glue("slug-here-spread"', 'glue(f"slug-here-{kind}"')
    text = text.replace('check("eq-slug-here-moments"', 'check(f"eq-slug-here-{kind}"')
    chapter = Chapter.parse(text, NAME)
    assert list(lints.glued(chapter)) == []
    assert list(lints.equations(chapter)) == []


def test_equations_in_both_notations():
    text = "$$ a = b $$ (eq-x-one)\n\n```{math}\n:label: eq-x-two\nc = d\n```\n\n$$ e $$\n"
    assert lints.equation_labels(text) == ["eq-x-one", "eq-x-two"]


@pytest.mark.parametrize(
    ("prose", "number"),
    [
        ("It falls to 0.145 of log n.", "0.145"),
        ("It falls to .145 of log n.", ".145"),
        ("It ends at 1.93.", "1.93"),
        ("The error is 2.2e-16.", "2.2e-16"),
        ("The error is 1e-12.", "1e-12"),
        ("The error is 2.2 × 10⁻¹⁶ at most.", "2.2 × 10⁻"),
        ("It fails in 84 % of rows.", "84 %"),
        ("It fails in 84% of rows.", "84%"),
        ("It fails in 3 percent of rows.", "3 percent"),
        ("It is 12× faster.", "12×"),
        ("It is 12 × faster.", "12 ×"),
        ("An unlikely token gets ×440 its weight.", "×440"),
        ("There are 440 of them.", "440"),
        ("There are 32,000 of them.", "32,000"),
        ("It takes 44 ms.", "44 ms"),
        ("It takes 5 minutes.", "5 minutes"),
        ("It needs 64 MB.", "64 MB"),
        ("With $p = 0.145$ it holds.", "0.145"),
        (r"With $p = 84\%$ it holds.", r"84\%"),
        (r"With $2 \times 10^{-16}$ it holds.", r"2 \times 10^"),
        ("| a | 0.58 |", "0.58"),
    ],
)
def test_a_number_that_looks_measured(prose, number):
    assert measured_numbers(prose) == [number]


@pytest.mark.parametrize(
    "prose",
    [
        "Two heads, 12 layers, 80/10/10.",
        "In §3.2.1 and §§3.1–3.4, also Section 3.2.2, Table 3, Tables 1.1, 2.2 and 3.3.",
        "In 2017, and again in 1964.",
        "In arXiv:1706.03762, also 1706.03762v5.",
        "The code `x = 0.145` and ``y = 440``.",
        "See [the page](https://example.org/440/0.5.html) or <https://example.org/440>.",
        "Loss {glue:text}`attention-loss:.2f`, see {eq}`eq-x-1.25` and {numref}`fig-x-440`.",
        "With $d = 1024$ and $2^{10}$, up to $10^{-12}$ and $e^{88}$.",
        "A matrix of 3 × 4, or 3×4, numbers in fp64, bf16 and int8.",
        "GPT-3, UTF-8, D09, step 7, Python 3.11, version 1.2.3.",
        "*Difficulty ●●○ · 10 minutes*",
    ],
)
def test_a_number_that_was_not_measured(prose):
    assert measured_numbers(prose) == []


def test_a_papers_number_stands_beside_its_citation():
    cited = TEMPLATE.replace("one, two and six.", "1.93, says {cite}`vaswani2017`.")
    assert list(lints.typed_numbers(Chapter.parse(cited, NAME))) == []


def test_numbers_in_code_blocks_equations_and_options_are_not_prose():
    text = TEMPLATE.replace(
        "# The same in plain Python",
        "# ```python\n# x = 0.145\n# ```\n#\n# $$\n# x = 0.145\n# $$\n#\n# ```{note}\n"
        "# :width: 440\n# Words.\n# ```\n#\n# % 0.145\n#\n# The same in plain Python",
    )
    assert list(lints.typed_numbers(Chapter.parse(text, NAME))) == []


def test_main_reports_and_fails(tmp_path, capsys):
    good, bad = tmp_path / "23_slug_here.py", tmp_path / "24_slug_here.py"
    good.write_text(TEMPLATE, "utf8")
    bad.write_text(TEMPLATE.replace("accelerator: GPU", "accelerator: None"), "utf8")
    assert lints.main([str(good)]) == 0
    assert lints.main([str(good), str(bad)]) == 1
    assert "24_slug_here: header: the header lacks `accelerator" in capsys.readouterr().out


def test_no_notebook_and_nothing_built_is_committed():
    names = [path.relative_to(ROOT).as_posix() for path in repository_files()]
    assert "README.md" in names
    built = [
        name
        for name in names
        if name.endswith((".ipynb", ".pyc", ".html.gz", ".doctree"))
        or name.startswith(("_build/", ".venv/"))
    ]
    assert built == []


def test_no_file_is_large():
    large = [path for path in repository_files() if path.stat().st_size > 500_000]
    assert large == []
