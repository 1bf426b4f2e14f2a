"""The page of symbols: none of a chapter's is missing, none contradicts, and the code has each."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from pathlib import Path

import pytest

from book._ext.bookext import notation
from book._ext.bookext.notation import Symbol, named, symbols_of, table_of

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted(path.stem for path in (ROOT / "chapters").glob("*.py"))
NAMES = notation.read_names(ROOT)
each_chapter = pytest.mark.parametrize("chapter", CHAPTERS)


def table(chapter: str) -> list[Symbol]:
    return table_of(notation.source(ROOT, chapter), chapter)


def attributes(owner: type) -> set[str]:
    """What an instance has: fields, methods, and what `__init__` of the class or a base sets."""
    names = {name for base in owner.__mro__ for name in vars(base)}
    if dataclasses.is_dataclass(owner):
        names |= {field.name for field in dataclasses.fields(owner)}
    for base in owner.__mro__:
        if not base.__module__.startswith("lib."):
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "self.register_buffer":
                names.add(node.args[0].value)
    return names


def find(name: str) -> None:
    """Raise LookupError unless lib has what notation.yml calls `module.Class.name(parameter)`."""
    path, _, parameter = name.rstrip(")").partition("(")
    parts = path.split(".")
    length = max(
        size
        for size in range(len(parts))
        if (ROOT / "lib").joinpath(*parts[:size]).is_dir()
        or (ROOT / "lib").joinpath(*parts[:size]).with_suffix(".py").is_file()
    )
    found = importlib.import_module(".".join(["lib", *parts[:length]]))
    for part in parts[length:]:
        if inspect.isclass(found) and part in attributes(found):
            found = getattr(found, part, None)
        elif inspect.ismodule(found) and hasattr(found, part):
            found = getattr(found, part)
        else:
            raise LookupError(f"{name}: there is no {part!r}")
    if inspect.ismodule(found):
        raise LookupError(f"{name}: names a module")
    if parameter and parameter not in inspect.signature(found).parameters:
        raise LookupError(f"{name}: there is no parameter {parameter!r}")


@each_chapter
def test_every_symbol_of_a_chapter_is_listed_and_agrees_with_it(chapter):
    found = table(chapter)
    assert len(found) >= 3
    listed = list(named(found, NAMES[chapter]))
    assert [symbol.latex for symbol, _ in listed] == [symbol.latex for symbol in found]
    assert all(symbol.meaning and symbol.shape for symbol, _ in listed)


@each_chapter
def test_a_table_of_symbols_stands_below_the_formula(chapter):
    text = notation.source(ROOT, chapter)
    section = re.search(r"^# ## The formula\b.*?(?=^# ## )", text, re.MULTILINE | re.DOTALL)[0]
    assert table_of(section, chapter) == table(chapter)


@pytest.mark.parametrize("chapter", [*CHAPTERS, "sizes"])
def test_the_code_has_every_name(chapter):
    names = [n for value in NAMES[chapter].values() for n in notation.as_entry(value)["code"]]
    missing = []
    for name in names:
        try:
            find(name)
        except LookupError as error:
            missing.append(str(error))
    assert missing == []


def test_most_symbols_have_a_name_in_code():
    symbols = notation.all_symbols(ROOT, CHAPTERS)
    assert len(symbols) >= 80
    assert sum(bool(symbol.code) for symbol in symbols) / len(symbols) > 0.7


@pytest.mark.parametrize(
    "name",
    [
        "attention.scaled_dot_product_attention(queries)",
        "attention.soft_lookup",
        "layers.FeedForward.shrink",
        "models.gpt2.GPT2Config.depth",
        "models.gpt3.GPT3",
        "attention",
        "models.gpt2",
    ],
)
def test_a_name_that_the_code_lacks_is_found_out(name):
    with pytest.raises(LookupError):
        find(name)


def test_notation_lists_no_chapter_that_the_plan_lacks():
    plan = (ROOT / "book" / "plan.yml").read_text("utf8")
    slugs = re.findall(r"number: (\d+)\n\s+slug: (\w+)", plan)
    planned = [f"{int(number):02d}_{slug}" for number, slug in slugs]
    assert [name for name in NAMES if name != "sizes" and name not in planned] == []
    assert set(CHAPTERS) <= set(NAMES), "add the chapter's symbols to book/notation.yml"


def labels(chapter: str) -> list[str]:
    found = notation.EQUATION.findall(notation.source(ROOT, chapter))
    return [label for _, label in found if label]


def test_first_uses_are_equations_of_the_chapter_that_use_the_symbol():
    everything = [*notation.all_symbols(ROOT, CHAPTERS), *notation.sizes(ROOT, CHAPTERS)]
    for symbol in everything:
        if symbol.equation:
            assert symbol.equation in labels(symbol.chapter), symbol
    found = {
        (s.chapter, s.latex): notation.equation_with(notation.source(ROOT, s.chapter), s.latex)
        for s in everything
    }
    assert found["02_attention", "Q"] == "def-attention-formula"
    assert found["05_activations", "W_1"] == "def-activations-ffn"
    assert found["12_vision_transformer", "N"] == "def-vision-transformer-input"
    assert sum(label is not None for label in found.values()) / len(found) > 0.9


CHAPTER = """\
# | symbol | shape | meaning |
# |---|---|---|
# | $A = BC$ | $n \\times d$ | a product |
# | $u$, $v_{i,j}$ | $n$, $d$ | two vectors |
#
# $$
# \\text{u} = v_{i,j} + \\operatorname{A}(n)
# $$ (def-x-first)
#
# $$
# c
# $$
#
# a w in words, and no equation
#
# $$
# A = u_t
# $$ (def-x-second)
"""


@pytest.mark.parametrize(
    ("cell", "symbols"),
    [
        ("$S = QK^\\top / \\sqrt{d_k}$", ["S"]),
        ("$U$, $V$, $A_s$", ["U", "V", "A_s"]),
        ("$T, k, \\tau$", ["T", "k", "\\tau"]),
        ("$w$, and $h = w/2$", ["w", "h"]),
        ("$p(a, b)$", ["p(a, b)"]),
        ("$b,\\ \\beta$", ["b", "\\beta"]),
    ],
)
def test_a_cell_names_its_symbols(cell, symbols):
    assert symbols_of(cell) == symbols


def test_a_table_is_read_symbol_by_symbol():
    assert table_of(CHAPTER, "x") == [
        Symbol("A", "$n \\times d$", "a product", "x"),
        Symbol("u", "$n$", "two vectors", "x", shared=True),
        Symbol("v_{i,j}", "$d$", "two vectors", "x", shared=True),
    ]
    with pytest.raises(ValueError, match="x: expected a table"):
        table_of("# no table", "x")
    with pytest.raises(ValueError, match="expected 3 cells, got 2"):
        table_of(CHAPTER.replace(" | a product", ""), "x")


def test_the_equation_that_uses_a_symbol_is_found_by_its_marks_and_not_by_words():
    assert notation.equation_with(CHAPTER, "v_{i,j}") == "def-x-first"
    assert notation.equation_with(CHAPTER, "u") == "def-x-second"
    assert notation.equation_with(CHAPTER, "A") == "def-x-second"
    assert notation.equation_with(CHAPTER, "w") is None
    assert notation.equation_with(CHAPTER, "c") is None, "its equation has no number"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"A": None, "u": {"meaning": "m"}}, "expected the symbols of the chapter's table"),
        ({"A": None, "v_{i,j}": None, "u": None}, "expected the symbols of the chapter's table"),
        ({"A": None, "u": None, "v_{i,j}": {"meaning": "m"}}, "u: expected a meaning of its own"),
        (
            {"A": {"meaning": "a sum"}, "u": {"meaning": "m"}, "v_{i,j}": {"meaning": "m"}},
            "A: expected no meaning: the table has it",
        ),
        (
            {"A": {"colour": "red"}, "u": {"meaning": "m"}, "v_{i,j}": {"meaning": "m"}},
            r"A: unknown \['colour'\]",
        ),
    ],
)
def test_what_is_missing_or_contradicts_is_refused(names, message):
    with pytest.raises(ValueError, match=message):
        list(named(table_of(CHAPTER, "x"), names))


@pytest.fixture
def small(tmp_path):
    """A book of two chapters; the second has the first's A."""
    (tmp_path / "chapters").mkdir()
    (tmp_path / "book").mkdir()
    (tmp_path / "chapters" / "01_a.py").write_text(CHAPTER, "utf8")
    (tmp_path / "chapters" / "02_b.py").write_text(CHAPTER.replace("-x-", "-y-"), "utf8")
    shared = "u: {meaning: the first}\n  v_{i,j}: {meaning: the second, code: m.f(v)}\n"
    names = f"sizes: {{}}\n01_a:\n  A: [m.A, m.B]\n  {shared}02_b:\n  A: {{as: 01_a}}\n  {shared}"
    (tmp_path / "book" / "notation.yml").write_text(names, "utf8")
    return tmp_path


def test_a_symbol_that_is_the_same_in_two_chapters_stands_there_once(small):
    text = notation.notation_text(small, ["01_a", "02_b"])
    assert (
        "| $A$ | a product | $n \\times d$ | `m.A`, `m.B` | [1](/chapters/01_a.py) "
        "{eq}`def-x-second`; also [2](/chapters/02_b.py) |" in text
    )
    assert text.count("| $u$ | the first |") == 2
    # alone, the second chapter explains it
    assert "| $A$ | a product | $n \\times d$ | – | [2]" in notation.notation_text(small, ["02_b"])


def test_a_symbol_of_another_shape_is_not_the_same(small):
    path = small / "chapters" / "02_b.py"
    path.write_text(path.read_text("utf8").replace("n \\times d", "d \\times n"), "utf8")
    with pytest.raises(ValueError, match=r"expected the shape .* \$n \\times d\$, got \$d"):
        notation.all_symbols(small, ["01_a", "02_b"])


def test_symbols_stand_in_the_order_of_the_alphabet():
    latex = ["\\omega_i", "x", "\\hat{x}", "\\operatorname{PE}", "b", "\\beta", "A_s", "a_{tj}"]
    latex += ["\\mathbf{1}", "B", "\\tau"]
    symbols = [Symbol(name, "", "", "x") for name in latex]
    assert [s.latex for s in sorted(symbols, key=lambda s: s.order)] == [
        *["\\mathbf{1}", "A_s", "a_{tj}", "B", "b", "\\operatorname{PE}", "x", "\\hat{x}"],
        *["\\beta", "\\tau", "\\omega_i"],
    ]


def test_a_name_breaks_where_its_parts_end():
    html = notation.breakable("layers.FeedForward(d_ff)").astext()
    assert ">layers<wbr>.FeedForward<wbr>(d_<wbr>ff)</code>" in html


def test_a_chapter_that_is_not_listed_is_refused(small):
    (small / "chapters" / "03_c.py").write_text(CHAPTER, "utf8")
    with pytest.raises(ValueError, match="expected the symbols of 03_c, got none"):
        notation.all_symbols(small, ["01_a", "03_c"])


def test_no_cell_of_the_page_breaks_its_table():
    text = notation.notation_text(ROOT, CHAPTERS)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) > 90
    for line in rows:
        assert line.count("|") in (5, 6), line
