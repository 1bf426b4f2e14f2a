"""Whole builds of a small book, with the real configuration and the real extension."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import nbformat
import pytest
import yaml
from pybtex.database import parse_file

from book._ext.bookext.citations import source_url

ROOT = Path(__file__).parents[2]

TOC = """\
format: jb-book
root: book/index
parts:
  - caption: The formulas
    numbered: 2
    chapters:
      - file: chapters/02_attention
  - caption: The architectures
    numbered: 2
    chapters:
      - file: chapters/07_encoder_decoder
  - caption: Back matter
    chapters:
      - file: book/map
      - file: book/ledger
      - file: book/folklore
      - file: book/glossary
      - file: book/general_index
      - file: book/bibliography
"""

# The outputs of lib.teaching, in the form that it writes, without the seconds that torch costs.
SHOW = """\
from html import escape
from IPython.display import display


def check(label, error=None, allowed="1e-12"):
    data, result = "", ""
    if error is not None:
        data = f' data-error="{error}" data-allowed="{allowed}"'
        result = f": max error {error} (allowed {allowed})"
    html = f'<p class="check" data-label="{escape(label)}"{data}>'
    html += f'✓ <span class="check-label">{escape(label)}</span> holds{result}</p>'
    display({"text/plain": f"✓ {label} holds{result}", "text/html": html}, raw=True)


def grade(label, state, words):
    html = f'<p class="grade grade-{state}" data-label="{label}">✓ {label}: {words}</p>'
    display({"text/plain": f"✓ {label}: {words}", "text/html": html}, raw=True)


def catches(label, symptom, test):
    html = f'<div class="caught" data-label="{label}">'
    html += f'<p class="caught-symptom">✗ {label}, broken: {escape(symptom)}</p>'
    html += f'<p class="caught-test">✓ <code>{test}</code> catches it, and passes once fixed</p>'
    display({"text/plain": f"✗ {label}", "text/html": html + "</div>"}, raw=True)


def figure(name, caption, alt):
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M0 0L9 9"/></svg>'
    html = f'<figure class="book-figure" id="{name}"><div class="book-figure-image" role="img" '
    html += f'aria-label="{alt}">{svg}</div><figcaption>{escape(caption)}</figcaption></figure>'
    display({"text/plain": f"Figure {name}: {alt}", "text/html": html}, raw=True)


def glue(name, value):
    metadata = {"scrapbook": {"name": name, "mime_prefix": ""}}
    display({"text/plain": repr(value)}, metadata=metadata, raw=True)
"""

ATTENTION = '''\
"""Attention."""


def double(x):
    """Twice x."""
    return 2 * x
'''

COMPONENTS = '''\
"""A component without its script."""


class TemperatureSoftmax:
    def __init__(self, *, label, **options):
        self.label = label

    def html(self):
        return f'<div class="component">{self.label}, live</div>'
'''

HEADER = """\
# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: Why is $x = x$?
#     goals: [see *it*, say `it`]
#     prerequisites: [01_from_recurrence, 02_attention, patience]
#     data: none
#     hardware: one CPU core
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

"""

CHAPTER_2 = f"""\
{HEADER}\
# %% [markdown]
# # Attention

# %% tags=["setup", "remove-cell"]
raise_nothing = True

# %% tags=["remove-input"]
from lib.attention import double
from lib.show import catches, check, figure, glue, grade

# %% [markdown]
# ## The scale
#
# After {{cite}}`vaswani2017`, by {{eq}}`eq-attention-scale` and {{numref}}`fig-attention-line`.
# A query at the {{index}}`turnstile` knows no `softmax`.
#
# $$
# a = b
# $$ (def-attention-a)
#
# $$
# \\operatorname{{Var}}(q \\cdot k) = d
# $$ (eq-attention-scale)

# %%
check("eq-attention-scale", "2.2e-16")
check("eq-attention-scale")
check("a claim & more")
glue("twice", double(21))

# %% tags=["remove-input"]
figure("fig-attention-line", "A line, $x$ < 1.", "A straight line from corner to corner.")

# %% [markdown]
# The answer is {{glue:text}}`twice:.1f`.
#
# ```{{lib-source}} lib.attention.double
# ```
#
# | Said | True | Source |
# |---|---|---|
# | “It is *not* $x$.” | It is, {{eq}}`eq-attention-scale`. | {{cite:t}}`vaswani2017` (§3.2.1) |
#
# ## Broken on purpose
#
# :::{{admonition}} Broken on purpose D09: no scaling by $\\sqrt{{d}}$
# :class: broken
# It was not divided {{cite}}`vaswani2017`.
# :::

# %%
catches("D09", "a variance of 5 > 4", "has_unit_variance")

# %% [markdown]
# **Fix:** divide, by {{eq}}`eq-attention-scale`; {{glue:text}}`twice:.1f` times.
#
# ## Exercises
#
# :::{{exercise-start}}
# :label: ex-attention-double
# :::
# Double it.

# %% tags=["exercise-stub"]
grade("ex-attention-double", "open", "not attempted yet")

# %% [markdown]
# :::{{exercise-end}}
# :::

# %% [markdown]
# :::{{solution-start}} ex-attention-double
# :class: dropdown
# :::

# %% tags=["solution"]
grade("ex-attention-double", "pass", "all 2 properties hold")

# %% [markdown]
# :::{{solution-end}}
# :::
"""

CHAPTER_7 = f"""\
{HEADER}\
# %% [markdown]
# # Encoder and decoder
#
# Compare {{eq}}`eq-attention-scale` in the chapter before.
#
# $$
# c = d
# $$ (eq-encoder-c)

# %%
from lib.show import check

check("eq-encoder-c", "exact", "0")
"""


# A process that imports what a build imports, and forks for each: `jupyter-book build` without the
# seconds that its imports take. It reads where to write a log, and answers with the exit status.
BUILDER = """
import importlib, os, sys
from jupyter_book.cli.main import main
for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    if (child := os.fork()) == 0:
        log = os.open(line.strip(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv[1:] = ["build", ".", "--toc", "book/_toc.yml", "-W", "-n", "--keep-going"]
        sys.exit(main())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
IMPORTED = ["jupyter_book.sphinx", "jupyter_cache.executors.utils", "sphinx.builders.html"]


@dataclass
class Built:
    """How a build ended."""

    code: int
    log: str

    def warnings(self) -> list[str]:
        return [line for line in self.log.split("\n") if re.search(r"\b(WARNING|ERROR): ", line)]


@dataclass
class MiniBook:
    """A book of two chapters in a folder of its own."""

    root: Path
    builder: subprocess.Popen
    dirty: bool = True
    built: bool = False

    def build(self) -> Built:
        log = self.root / "log"
        self.builder.stdin.write(f"{log}\n")
        self.builder.stdin.flush()
        code = int(self.builder.stdout.readline())
        self.dirty, self.built = code != 0, True
        return Built(code, re.sub(r"\x1b\[[\d;]*m", "", log.read_text("utf8")))

    def html(self, page: str) -> str:
        return (self.root / "_build" / "html" / f"{page}.html").read_text("utf8")

    def text(self, page: str) -> str:
        """What the article of a page says."""
        article = self.html(page).partition('<article class="bd-article">')[2]
        article = article.partition("</article>")[0]
        return " ".join(unescape(re.sub(r"<[^>]+>", "", article)).split())

    def notebook(self, name: str = "02_attention") -> nbformat.NotebookNode:
        path = self.root / "_build" / "html" / "notebooks" / f"{name}.ipynb"
        return nbformat.read(path, as_version=4)

    @contextmanager
    def edited(self, name: str, old: str, new: str) -> Iterator[None]:
        """The book with one change, which is taken back afterwards."""
        path = self.root / name
        before = path.read_text("utf8")
        assert old in before
        path.write_text(before.replace(old, new, 1), "utf8")
        self.dirty = True
        try:
            yield
        finally:
            path.write_text(before, "utf8")
            self.dirty = True


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Iterator[MiniBook]:
    root = tmp_path_factory.mktemp("book")
    shutil.copytree(
        ROOT / "book",
        root / "book",
        ignore=shutil.ignore_patterns("__pycache__", "template", "tools"),
    )
    shutil.copyfile(ROOT / "_config.yml", root / "_config.yml")
    index = (ROOT / "book" / "index.md").read_text("utf8")  # with what this small book has
    index = index.replace("01_from_recurrence", "07_encoder_decoder").replace("cards.md", "map.md")
    index = index.replace("notation.md", "map.md")
    files = {
        "book/_toc.yml": TOC,
        "book/index.md": index,
        "lib/__init__.py": "",
        "lib/attention.py": ATTENTION,
        "lib/show.py": SHOW,
        "lib/teaching/components/__init__.py": COMPONENTS,
        "chapters/02_attention.py": CHAPTER_2,
        "chapters/07_encoder_decoder.py": CHAPTER_7,
    }
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(text, "utf8")
    config = yaml.safe_load((root / "_config.yml").read_text("utf8"))
    extensions = [name for name in config["sphinx"]["config"]["extensions"] if name != "bookext"]
    command = [sys.executable, "-c", BUILDER, *IMPORTED, *extensions]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=root, text=True, **pipes) as builder:
        yield MiniBook(root, builder)
        builder.stdin.close()


@pytest.fixture
def before(book) -> MiniBook:
    """The book, built before, though perhaps with other words here and there."""
    if not book.built:
        result = book.build()
        assert result.code == 0, result.log
    return book


@pytest.fixture
def built(book) -> MiniBook:
    """The book as it stands, built without a warning."""
    if book.dirty:
        result = book.build()
        assert result.code == 0, result.log
    return book


def test_a_chapter_has_the_number_of_its_file_everywhere(built):
    assert "2. Attention" in built.text("chapters/02_attention")
    assert "2.1. The scale" in built.text("chapters/02_attention")
    seventh = built.html("chapters/07_encoder_decoder")
    assert "<title>7. Encoder and decoder" in seventh
    assert '<span class="eqno">(7.1)' in seventh
    assert "7. Encoder and decoder" in built.html("book/index")  # the sidebar
    assert "Compare (2.2) in the chapter before" in built.text("chapters/07_encoder_decoder")


def test_a_check_links_to_its_equation_and_has_a_place_of_its_own(built):
    page = built.html("chapters/02_attention")
    first = re.search(r'<p class="check" id="check-eq-attention-scale">(.*?)</p>', page)[1]
    assert 'href="#equation-eq-attention-scale"' in first
    plain = re.sub(r"<[^>]+>", "", first)
    assert plain == "✓ Eq. (2.2) holds: max error 2.2e-16 (allowed 1e-12)"
    assert 'id="check-eq-attention-scale-2"' in page
    assert "✓ a claim & more holds" in built.text("chapters/02_attention")
    assert page.count('<div class="checks') == 1


def test_a_figure_is_numbered_referred_to_and_described(built):
    page = built.html("chapters/02_attention")
    figure = re.search(r"<figure .*?</figure>", page, re.DOTALL)[0]
    assert 'id="fig-attention-line"' in figure
    assert 'aria-label="A straight line from corner to corner."' in figure
    assert "<svg" in figure
    assert "Figure 2.1" in figure
    assert re.search(r'<span class="math[^"]*">\\\(x\\\)</span> &lt; 1\.', figure)
    assert "and Figure 2.1." in built.text("chapters/02_attention")


def test_the_ledger_lists_each_equation_with_its_checks(built):
    page = built.html("book/ledger")
    rows = [
        [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in row]
        for row in (
            re.findall(r"<td>(.*?)</td>", row, re.DOTALL)
            for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL)
        )
        if row
    ]
    assert [row[0] for row in rows] == ["(2.2)", "(7.1)"]
    assert rows[0][2:] == ["2.2e-16 holds", "1e-12"]
    assert rows[1][2:] == ["exact", "0"]
    assert 'href="../chapters/02_attention.html#check-eq-attention-scale-2"' in page
    assert 'href="../chapters/02_attention.html#equation-eq-attention-scale"' in page
    assert "mathjax/tex-chtml.js" in page  # the formulas came after Sphinx looked for some


def test_the_header_says_what_a_reader_asks_first(built):
    text = built.text("chapters/07_encoder_decoder")
    assert text.startswith("7. Encoder and decoder# Why is \\(x = x\\)?")
    assert "After it you can see it say it" in text
    assert "1. From recurrence to attention (planned) 2. Scaled dot-product attention" in text
    assert re.search(r"Time to run ?[\d.]+ (s|min) on one CPU thread", text)
    page = built.html("chapters/07_encoder_decoder")
    assert 'href="02_attention.html"' in page
    assert 'href="../notebooks/07_encoder_decoder.ipynb"' in page
    assert "blob/gh-pages/notebooks/07_encoder_decoder.ipynb" in page
    assert '<meta name="description" content="Why is x = x?" />' in page


def test_the_page_of_folklore_has_each_mistake_and_each_saying(built):
    text, page = built.text("book/folklore"), built.html("book/folklore")
    assert "Mistakes made on purpose: 1. Sayings set right: 1. Chapters: 2" in text
    assert "D09 no scaling by \\(\\sqrt{d}\\)" in text
    assert "Symptoma variance of 5 > 4 Testhas_unit_variance FixDivide, by (2.2); 42.0 ti" in text
    assert "“It is not \\(x\\).” TrueIt is, (2.2). SourceVaswani et al. (2017) (§3.2.1)" in text
    assert "SourceVaswani et al. (2017)" in text.partition("Said")[0]
    assert "mathjax" in page.lower()
    chapter = built.html("chapters/02_attention")
    for anchor in ("broken-d09", "said-1"):
        assert f'href="../chapters/02_attention.html#{anchor}"' in page
        assert chapter.count(f'id="{anchor}"') == 1
    assert 'href="../chapters/02_attention.html#equation-eq-attention-scale"' in page


def test_the_map_links_what_is_whole_and_says_what_is_planned(built):
    page = built.html("book/map")
    assert page.count('class="chapter-whole"') == 2
    assert page.count('class="chapter-planned"') == 20
    assert 'href="../chapters/02_attention.html"' in page
    facts = r"[\d.]+ (s|min) · after 1 and 2"
    assert re.search(f"{facts} · one CPU core", built.text("book/map"))
    assert re.search(facts, built.text("book/index"))
    assert "one CPU core" not in built.text("book/index")


def test_the_glossary_has_the_terms_of_the_chapters_that_are_there(built):
    page = built.html("book/glossary")
    assert 'id="term-query"' in page
    assert 'id="term-decoder"' in page
    assert 'id="term-ReLU"' not in page  # of chapter 5
    assert re.search(r"compared with every key\. Chapter 2\.", built.text("book/glossary"))
    assert page.count('href="../chapters/02_attention.html">') > 10


def test_the_index_leads_to_sections_by_their_numbers(built):
    text = built.text("book/general_index")
    assert re.search(r"D# double 2\.1 .*Q# query 2\.1 .*T# turnstile 2\.1\b", text), text
    assert "softmax 2" not in text  # it is code
    page = built.html("book/general_index")
    assert 'href="glossary.html#term-query"' in page
    assert '<strong><a class="index-place' in page
    assert 'href="../chapters/02_attention.html#the-scale" title="' in page
    assert 'href="../chapters/02_attention.html#source-lib-attention-double"' in page
    assert 'href="../chapters/02_attention.html#index-0"' in page
    assert 'href="#letter-q"' in page and 'id="letter-q"' in page


def test_a_component_stands_on_a_page_that_is_not_executed(built):
    assert '<div class="component">Why attention divides by √d, live</div>' in built.html(
        "book/index"
    )


def test_each_source_of_the_bibliography_has_one_link(built):
    sources = parse_file(str(ROOT / "book" / "references.bib"), "bibtex").entries
    page = built.html("book/bibliography")
    entries = re.findall(r'<div class="citation".*?</div>', page, re.DOTALL)
    links = [re.findall(r'href="(https:[^"]+)"', entry) for entry in entries]
    assert sorted(links) == sorted([source_url(source)] for source in sources.values())


def test_code_of_lib_is_shown_with_its_lines(built):
    text = built.text("chapters/02_attention")
    assert "Listing 2.1 lib/attention.py, lines 4–6" in text
    assert "def double(x): return 2 * x" in text


def test_the_notebook_reads_well_without_the_books_tools(built):
    notebook = built.notebook()
    nbformat.validate(notebook)
    assert notebook.metadata.accelerator == "GPU"
    assert "jupytext" not in notebook.metadata
    assert "book" not in notebook.metadata
    words = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert words.startswith("# 2. Attention\n\n*Why is $x = x$?*\n\n| | |\n|---|---|\n| **After")
    assert "## 2.1. The scale" in words
    assert "by (2.2) and Figure 2.1." in words
    assert "\\operatorname{Var}(q \\cdot k) = d \\tag{2.2}" in words
    assert "[Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)" in words
    assert "The answer is 42.0." in words
    assert "### Exercise 2.1\n\nDouble it." in words
    assert "```python\n# lib/attention.py, lines 4–6\ndef double(x):" in words
    assert not re.search(r"\{[\w:-]+\}`|^:::|^```\{", words, re.MULTILINE)


def test_the_notebooks_cells_are_ready_for_colab(built):
    code = [cell for cell in built.notebook().cells if cell.cell_type == "code"]
    assert '"google.colab" in sys.modules' in code[0].source
    assert "raise_nothing" not in code[0].source
    assert 'check("eq-attention-scale", "2.2e-16")  # Eq. (2.2)' in code[2].source
    solution = next(cell for cell in code if "solution" in cell.metadata.get("tags", []))
    assert solution.source.startswith("#@title Solution\n")
    assert solution.metadata.cellView == "form"
    assert solution.metadata.jupyter.source_hidden is True


def test_when_nothing_changed_nothing_is_read_or_written(built):
    pages = sorted((built.root / "_build" / "html").rglob("*.html"))
    before = [path.stat().st_mtime_ns for path in pages if path.parent.name != "html"]
    result = built.build()
    assert result.code == 0
    assert "no targets are out of date" in result.log
    assert [path.stat().st_mtime_ns for path in pages if path.parent.name != "html"] == before


def test_pages_gathered_from_chapters_follow_them(built):
    chapter, needs = "chapters/07_encoder_decoder.py", "02_attention, patience"
    assert "after 1 and 2" in built.text("book/map")
    with built.edited(chapter, needs, needs.replace("02_attention", "05_activations")):
        result = built.build()
        assert result.code == 0, result.log
        assert "Executing notebook" not in result.log
        assert "after 1 and 5" in built.text("book/map")
        assert "after 1 and 5" in built.text("book/index")
    built.build()
    assert "after 1 and 5" not in built.text("book/map")


def test_a_change_of_lib_runs_who_uses_it_and_its_return_finds_the_old_outputs(built):
    with built.edited("lib/attention.py", "return 2 * x", "return 3 * x"):
        result = built.build()
        assert result.code == 0, result.log
        assert result.log.count("Executing notebook") == 1
        assert "07_encoder_decoder: Executing notebook" not in result.log
        text = built.text("chapters/02_attention")
        assert "The answer is 63.0" in text
        assert "return 3 * x" in text
    result = built.build()
    assert "Executing notebook" not in result.log
    assert "The answer is 42.0" in built.text("chapters/02_attention")


# From here on each test leaves the book changed. One that needs it as it is would build it anew.


@pytest.fixture(scope="class")
def changed_prose(book) -> Iterator[Built]:
    """How the build of two changes in the second chapter's prose ended."""
    if not book.built:
        first = book.build()
        assert first.code == 0, first.log
    with (
        book.edited("chapters/02_attention.py", "The answer is", "The outcome is"),
        book.edited("chapters/02_attention.py", "A query at", "A query and a key at"),
    ):
        yield book.build()


class TestChangedProse:
    def test_runs_no_cell(self, book, changed_prose):
        assert changed_prose.code == 0, changed_prose.log
        assert "The outcome is 42.0" in book.text("chapters/02_attention")
        assert "Executing notebook" not in changed_prose.log
        assert "07_encoder_decoder" not in changed_prose.log
        # pages that this build did not write anew are still in the sitemap
        sitemap = (book.root / "_build" / "html" / "sitemap.xml").read_text("utf8")
        assert "chapters/02_attention.html" in sitemap
        assert "chapters/07_encoder_decoder.html" in sitemap

    def test_the_notebook_keeps_its_outputs_that_came_from_the_cache(self, book, changed_prose):
        assert "Using cached notebook" in changed_prose.log
        text = json.dumps(book.notebook(), ensure_ascii=False)
        assert "✓ Eq. (2.2) holds: max error 2.2e-16 (allowed 1e-12)" in text
        assert "<figcaption><b>Figure 2.1.</b> A line" in text
        assert "✓ Exercise 2.1: all 2 properties hold" in text
        assert "The outcome is 42.0." in text

    def test_a_term_that_comes_to_a_chapter_comes_to_the_index(self, book, changed_prose):
        assert "K# key 2.1 Q# query 2.1" in book.text("book/general_index")


def test_a_change_of_what_all_chapters_use_runs_them_all(before):
    with before.edited("lib/show.py", "holds{result}</p>", "holds still{result}</p>"):
        result = before.build()
        assert result.code == 0, result.log
        assert result.log.count("Executing notebook") == 2
        assert "holds still" in before.html("chapters/07_encoder_decoder")


def test_a_number_that_moves_moves_in_other_chapters_too(before):
    one_more = "# $$\n# z = z\n# $$ (def-attention-z)\n#\n# $$\n# a = b"
    with before.edited("chapters/02_attention.py", "# $$\n# a = b", one_more):
        result = before.build()
        assert result.code == 0, result.log
        assert "Compare (2.3) in the chapter before" in before.text("chapters/07_encoder_decoder")
        assert "(2.3)" in before.text("book/ledger")
        assert "Divide, by (2.3)" in before.text("book/folklore")


SEVENTH, SECOND = "chapters/07_encoder_decoder.py", "chapters/02_attention.py"
MISTAKES = [
    (
        SEVENTH,
        "(eq-encoder-c)\n\n# %%",
        "(eq-encoder-c)\n#\n# $$\n# e\n# $$ (eq-encoder-e)\n#\n# $$\n# g\n# $$ (encoder-g)\n\n# %%",
        [
            "equation 'eq-encoder-e' has no executed check",
            "equation label 'encoder-g' begins with neither",
        ],
    ),
    (
        SEVENTH,
        'check("eq-encoder-c", "exact", "0")',
        'check("eq-encoder-c", "exact", "0"); check("eq-encoder-q")',
        ["a check names 'eq-encoder-q', and no equation has that label"],
    ),
    (
        SEVENTH,
        "#     data: none\n",
        "",
        ["the chapter's header lacks data"],
    ),
    (
        SEVENTH,
        "# Compare {eq}`eq-attention-scale`",
        "# Compare {abbr}`x (y)` and {download}`../book/index.md` with {eq}`eq-attention-scale`",
        ["no rule for the role {download} in a notebook"],
    ),
    (
        SECOND,
        "**Fix:** divide",
        "We divide",
        ["the box “Broken on purpose D09” has no paragraph with **Fix:**"],
    ),
    (
        SECOND,
        'catches("D09"',
        'catches("D08"',
        ["the box “Broken on purpose D09” is caught by no test: call catches('D09', …)"],
    ),
    (
        SECOND,
        "lib.attention.double",
        "lib.attention.triple",
        ["lib/attention.py defines no 'triple'"],
    ),
    (
        "book/index.md",
        "\nTemperatureSoftmax(",
        "\nSoftmax(",
        ["NameError: name 'Softmax' is not defined"],
    ),
    (
        SECOND,
        "{numref}`fig-attention-line`",
        "{numref}`fig-attention-curve`",
        ["undefined label: 'fig-attention-curve'"],
    ),
]


def test_mistakes_fail_the_build_and_go_on_failing_it(before):
    """Sphinx alone warns of a file when it reads it, and passes the next time."""
    with ExitStack() as edits:
        for name, old, new, _ in MISTAKES:
            edits.enter_context(before.edited(name, old, new))
        first, second = before.build(), before.build()
    for result in (first, second):
        assert result.code != 0
        for *_, messages in MISTAKES:
            for message in messages:
                assert any(message in line for line in result.warnings()), result.log


def test_a_check_that_fails_fails_the_build(before):
    failing = "assert False, 'eq-encoder-c fails: max error 1'"
    check = 'check("eq-encoder-c"'
    with before.edited("chapters/07_encoder_decoder.py", check, f"{failing}; {check}"):
        result = before.build()
    assert result.code != 0
    assert "eq-encoder-c fails: max error 1" in result.log
