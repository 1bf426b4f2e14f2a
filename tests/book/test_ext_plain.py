"""MyST Markdown made plain for the notebooks that readers download."""

from __future__ import annotations

import re
import textwrap

import pytest

from book._ext.bookext.libsource import Source
from book._ext.bookext.plain import ADMONITIONS, PROOFS, Plain

PAGES = "https://owner.github.io/name/"


class Book:
    """A book with one of everything."""

    def equation(self, label: str) -> str | None:
        return {"eq-a": "2.4", "def-a": "2.1"}.get(label)

    def numbered(self, label: str) -> str | None:
        return {
            "fig-a": "Figure 2.1",
            "ex-a": "Exercise 2.3",
            "thm-a": "Theorem 2.2",
            "tab-a": "Table 2.1",
        }.get(label)

    def section(self, label: str) -> str | None:
        return {"sec-a": "The scale"}.get(label)

    def page(self, target: str) -> tuple[str, str] | None:
        pages = {"../book/ledger.md": "The ledger", "/book/map": "The map of the book"}
        if target not in pages:
            return None
        return pages[target], f"{PAGES}{target.strip('./').removesuffix('.md')}.html"

    def citation(self, key: str) -> tuple[str, str, str | None] | None:
        return {
            "vaswani2017": ("Vaswani et al.", "2017", "https://arxiv.org/abs/1706.03762"),
            "radford2018": ("Radford et al.", "2018", None),
        }.get(key)

    def glued(self, name: str, spec: str) -> str | None:
        return format(64.1234, spec) if name == "var" else None

    def source(self, dotted: str, *, docstring: bool) -> Source | None:
        if dotted == "lib.absent":
            return None
        return Source("lib/attention.py", 3, 5, f"def {dotted.rpartition('.')[2]}():\n    pass")


def convert(text: str, *, warnings: list[str] | None = None) -> str:
    """One cell made plain. Unless warnings are asked for, there must be none."""
    found: list[str] = []
    result = Plain(Book(), found.append).cell(textwrap.dedent(text))
    if warnings is None:
        assert found == []
    else:
        warnings += found
    return result


def leaks(text: str) -> list[str]:
    """What a notebook would print raw: roles, directives and targets outside code."""
    outside = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\{[\w:-]+\}`|^\s*(?::{3,}|`{3,}\{).*|^\(\S+\)=$", outside, re.MULTILINE)


@pytest.mark.parametrize(
    ("myst", "plain"),
    [
        ("By {eq}`eq-a`.", "By (2.4)."),
        ("See {numref}`fig-a`.", "See Figure 2.1."),
        ("See {numref}`Fig. %s <fig-a>`.", "See Fig. 2.1."),
        ("See {ref}`sec-a`.", "See The scale."),
        ("See {ref}`there <sec-a>`.", "See there."),
        ("See {ref}`ex-a`.", "See Exercise 2.3."),
        ("By {prf:ref}`thm-a`.", "By Theorem 2.2."),
        ("It is {glue:text}`var:.1f`.", "It is 64.1."),
        ("It is {glue:text}`var:.2e`.", "It is 6.41e+01."),
        ("{math}`x^2`", "$x^2$"),
        ("press {kbd}`Tab`", "press <kbd>Tab</kbd>"),
        ("the {term}`softmax <soft max>` and {term}`query`", "the softmax and query"),
        (
            "As {cite:t}`vaswani2017` say",
            "As Vaswani et al. ([2017](https://arxiv.org/abs/1706.03762)) say",
        ),
        ("{cite}`radford2018`", "(Radford et al., 2018)"),
        (
            "{cite:p}`vaswani2017,radford2018`",
            "([Vaswani et al., 2017](https://arxiv.org/abs/1706.03762); Radford et al., 2018)",
        ),
        ("[the ledger](../book/ledger.md)", f"[the ledger]({PAGES}book/ledger.html)"),
        ("[](../book/ledger.md)", f"[The ledger]({PAGES}book/ledger.html)"),
        ("{doc}`/book/map`", f"[The map of the book]({PAGES}book/map.html)"),
        ("{doc}`map </book/map>`", f"[map]({PAGES}book/map.html)"),
        ("[here](#sec-a) and [](#fig-a)", "here and Figure 2.1"),
        ("[out](https://example.org/a)", "[out](https://example.org/a)"),
        ("a note[^1].\n\n[^1]: The text.", "a note<sup>1</sup>.\n\n<sup>1</sup> The text."),
        ("Term\n: what it means", "**Term**: what it means"),
        ("![a plot](plot.svg)", "![a plot](plot.svg)"),
    ],
)
def test_roles_and_links(myst, plain):
    assert convert(myst) == plain


@pytest.mark.parametrize(
    "text",
    [
        "`{eq}` is written `` {eq}`label` ``",
        "inline $a_{b}`c`$ math",
        "```python\nx = {'a': 1}  # {eq}`eq-a`\n:::{note}\n```",
        "    indented code",
        "| a | b |\n|---|---|\n| $x$ | `y` |",
        "costs \\$5 and \\$6",
        "$$\nx = y\n$$",
        "$$ x = y $$",
        "- one\n- two\n  - three",
    ],
)
def test_what_a_notebook_understands_is_left_alone(text):
    assert convert(text).strip() == text.strip()


def test_a_numbered_equation_gets_a_tag():
    assert convert("$$\nx = y\n$$ (eq-a)") == "$$\nx = y \\tag{2.4}\n$$"
    assert convert("$$ x = y $$ (eq-a)") == "$$ x = y \\tag{2.4} $$"


def test_an_aligned_equation_keeps_its_lines():
    text = "$$\n\\begin{aligned}\na &= b \\\\\nc &= d\n\\end{aligned}\n$$ (eq-a)"
    assert convert(text) == text.replace("aligned}\n$$ (eq-a)", "aligned} \\tag{2.4}\n$$")


def test_an_equation_of_two_lines_is_split_as_in_the_page():
    assert convert("$$\na \\\\\nb\n$$") == "$$\\begin{split}a \\\\\nb\\end{split}$$"


def test_an_equation_in_a_quotation_stays_in_it():
    assert convert("> $$\n> x\n> $$ (eq-a)") == "> $$\n> x \\tag{2.4}\n> $$"


def test_prose_around_equations_is_converted_and_their_tex_is_not():
    text = "By {eq}`eq-a`:\n\n$$\n\\text{see `a`}\n% a comment\n$$ (def-a)\n\nand {numref}`fig-a`."
    assert convert(text) == (
        "By (2.4):\n\n$$\n\\text{see `a`}\n% a comment\n\\tag{2.1}\n$$\n\nand Figure 2.1."
    )


def test_targets_comments_and_breaks_vanish():
    assert convert("(sec-a)=\n## The scale\n\n% a remark\n+++\ntext") == "## The scale\n\ntext"


def test_an_admonition_is_a_quotation_with_a_bold_title():
    text = """
        :::{admonition} The paper says $x$
        :class: paper
        One, by {eq}`eq-a`.

        - two
        :::
        after
        """
    assert convert(text) == ("> **The paper says $x$**\n>\n> One, by (2.4).\n>\n> - two\n\nafter")


@pytest.mark.parametrize("name", ADMONITIONS)
def test_every_admonition_has_its_title(name):
    title = "See also" if name == "seealso" else name.capitalize()
    assert convert(f"```{{{name}}}\nText.\n```") == f"> **{title}**\n>\n> Text."
    assert convert(f"```{{{name}}} First\nText.\n```") == f"> **{title}**\n>\n> First\n> Text."


@pytest.mark.parametrize("name", PROOFS)
def test_every_kind_of_theorem_is_quoted_under_its_number(name):
    text = f"```{{prf:{name}}} Shift\n:label: thm-a\nIt holds.\n```"
    assert convert(text) == "> **Theorem 2.2 (Shift)**\n>\n> It holds."


def test_directives_nest():
    text = """
        ::::{admonition} Outer
        :::{dropdown} Inner
        ```python
        x = 1
        ```
        :::
        ::::
        """
    assert convert(text) == (
        "> **Outer**\n>\n> <details>\n> <summary><b>Inner</b></summary>\n>\n"
        "> ```python\n> x = 1\n> ```\n>\n> </details>"
    )


def test_a_dropdown_is_a_fold():
    assert convert(":::{dropdown} Hint\nUse `ones`.\n:::") == (
        "<details>\n<summary><b>Hint</b></summary>\n\nUse `ones`.\n\n</details>"
    )


def test_a_directive_in_a_list_keeps_its_indent():
    text = "- first\n\n  :::{note}\n  Inside.\n  :::\n- second"
    assert convert(text) == "- first\n\n  > **Note**\n  >\n  > Inside.\n\n- second"


def test_code_of_lib_is_shown_with_its_place():
    assert convert("```{lib-source} lib.attention.mask\n```") == (
        "```python\n# lib/attention.py, lines 3–5\ndef mask():\n    pass\n```"
    )


def test_a_math_directive_is_an_equation():
    assert convert("```{math}\n:label: eq-a\nx = y\n```") == "$$\nx = y \\tag{2.4}\n$$"


def test_an_exercise_and_its_solution_over_several_cells():
    plain = Plain(Book(), pytest.fail)
    cells = [
        ":::{exercise-start} Masks\n:label: ex-a\n:::\n*Difficulty ●○○*\n\nDo {eq}`eq-a`.",
        ":::{exercise-end}\n:::",
        ":::{solution-start} ex-a\n:class: dropdown\n:::\nBecause.",
        "And more, by {eq}`eq-a`.",
        ":::{solution-end}\n:::\n\nAfterwards.",
    ]
    fold = "<details>\n<summary><b>Solution to Exercise 2.3</b></summary>\n\n{}\n\n</details>"
    assert [plain.cell(cell) for cell in cells] == [
        "### Exercise 2.3 (Masks)\n\n*Difficulty ●○○*\n\nDo (2.4).",
        "",
        fold.format("Because."),
        fold.format("And more, by (2.4)."),
        "Afterwards.",
    ]


def test_a_solution_without_words_is_announced_once():
    plain = Plain(Book(), pytest.fail)
    assert plain.cell(":::{solution-start} ex-a\n:class: dropdown\n:::") == (
        "**Solution to Exercise 2.3**: in the next cell."
    )
    assert plain.cell("") == ""
    assert plain.cell(":::{solution-end}\n:::") == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```{mermaid}\ngraph\n```", "no rule for the directive {mermaid}"),
        ("{unknown}`x`", "no rule for the role {unknown}"),
        ("{cite:year}`vaswani2017`", "no rule for the role {cite:year}"),
        ("{eq}`eq-z`", "{eq}`eq-z` leads nowhere"),
        ("{numref}`fig-z`", "{numref}`fig-z` leads nowhere"),
        ("{ref}`sec-z`", "{ref}`sec-z` leads nowhere"),
        ("{glue:text}`absent:.1f`", "{glue:text}`absent:.1f` leads nowhere"),
        ("{cite}`nobody`", "`nobody` is not in the bibliography"),
        ("{doc}`/book/absent`", "the link to '/book/absent' leads nowhere"),
        ("[x](absent.md)", "the link to 'absent.md' leads nowhere"),
        ("[](#sec-z)", "leads nowhere"),
        ("```{lib-source} lib.absent\n```", "{lib-source} lib.absent leads nowhere"),
        ("$$ x $$ (eq-z)", "the equation 'eq-z' has no number"),
        (":::{solution-start} ex-z\n:::", "'ex-z' has no number"),
        ("```{prf:theorem}\n:label: thm-z\nx\n```", "'thm-z' has no number"),
    ],
)
def test_what_has_no_rule_is_reported_and_does_not_leak(text, message):
    warnings: list[str] = []
    result = convert(text, warnings=warnings)
    assert len(warnings) == 1
    assert message in warnings[0]
    assert leaks(result) == []


def test_a_colon_fence_without_a_directive_is_reported():
    warnings: list[str] = []
    assert convert(":::note\nText.\n:::", warnings=warnings) == ":::note\nText.\n:::"
    assert len(warnings) == 1
    assert "a colon fence without a directive: ':::note'" in warnings[0]


def test_the_search_for_leaks_finds_them():
    assert leaks("see {eq}`eq-a`") == ["{eq}`"]
    assert leaks("> :::\n  :::{note}\nx") == ["  :::{note}"]
    assert leaks("```{note}\nx\n```") == ["```{note}"]
    assert leaks("(sec-a)=\n") == ["(sec-a)="]
    assert leaks("```python\n{eq}`eq-a`\n```") == []
