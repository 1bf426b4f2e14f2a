"""The parts of the book's Sphinx extension that are plain functions."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import textwrap
import threading
from functools import partial
from pathlib import Path

import pytest
from docutils import nodes
from pybtex.database import Entry, Person

from book._ext.bookext import ahead, citations, config, export, libsource, numbering, theme
from book._ext.bookext.book import Planned, Repository, chapter_number, minutes, notebook_path
from book._ext.bookext.dependencies import chapter_state, dependencies
from book._ext.bookext.inline import parse_inline
from book._ext.bookext.ledger import SHORT, _short
from book._ext.bookext.punctuation import keep_together

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("docname", "number"),
    [
        ("chapters/02_attention", 2),
        ("chapters/22_scaling_out", 22),
        ("chapters/attention", None),
        ("book/02_attention", None),
        ("book/index", None),
    ],
)
def test_a_chapters_number_is_in_its_name(docname, number):
    assert chapter_number(docname) == number


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (31.4, "31 s"), (99.4, "99 s"), (150, "2.5 min")]
)
def test_a_duration_in_words(seconds, words):
    assert minutes(seconds) == words


def test_everything_about_the_repository_follows_from_its_address():
    repository = Repository("https://github.com/owner/name", "main", "pages")
    assert repository.path == "owner/name"
    assert repository.clone_url == "https://github.com/owner/name.git"
    assert repository.pages_url == "https://owner.github.io/name/"
    assert repository.colab_url(notebook_path("chapters/02_attention")) == (
        "https://colab.research.google.com/github/owner/name/blob/pages/notebooks/02_attention.ipynb"
    )


def test_a_planned_chapter_knows_its_document():
    assert Planned(2, "attention", "t", "q", "p").docname == "chapters/02_attention"


# What a chapter depends on, whose hash names its execution cache

CHAPTER = """\
# %% [markdown]
# ```{lib-source} lib.shown.function
# ```
# %%
from lib.models.bert import BERT
from lib.teaching import recorded
import numpy
recorded("large_run")
# %% tags=["solution"]
grade("ex-distillation-loss", loss)
"""
FILES = {
    "lib/__init__.py": "",
    "lib/shown.py": "x = 1\n",
    "lib/layers.py": "import lib.validation as v\n",
    "lib/validation.py": "",
    "lib/unused.py": "",
    "lib/models/__init__.py": "",
    "lib/models/bert.py": "def later():\n    from lib.layers import LayerNorm\n",
    "lib/models/gpt2.py": "",
    "lib/models/table.json": "{}",
    "lib/teaching/__init__.py": "from lib.teaching.rows import Rows\n",
    "lib/teaching/rows.py": "",
    "lib/teaching/rows.js": "export default {};\n",
    "lib/teaching/exercises/__init__.py": "",
    "lib/teaching/exercises/distillation.py": "",
    "lib/teaching/exercises/attention.py": "",
    "book/experiments/large_run.json": "{}",
    "book/experiments/other_run.json": "{}",
    "requirements.txt": "torch\n",
    "constraints.txt": "torch==2.13\n",
    "README.md": "",
}
UNUSED = {
    "lib/unused.py",
    "lib/models/gpt2.py",
    "lib/teaching/exercises/attention.py",
    "book/experiments/other_run.json",
    "README.md",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_chapter_depends_on_what_it_uses_at_any_remove_and_on_nothing_else(root):
    found = [path.relative_to(root).as_posix() for path in dependencies(root, CHAPTER)]
    assert found == sorted(set(FILES) - UNUSED)


@pytest.mark.parametrize("name", FILES)
def test_what_a_chapter_uses_names_its_cache(root, name):
    before = chapter_state(root, CHAPTER)
    (root / name).write_text(FILES[name] + "\n")
    assert (chapter_state(root, CHAPTER) == before) == (name in UNUSED)
    (root / name).write_text(FILES[name])
    assert chapter_state(root, CHAPTER) == before


def test_a_renamed_file_names_another_cache(root):
    before = chapter_state(root, CHAPTER)
    (root / "lib" / "models" / "table.json").rename(root / "lib" / "models" / "other.json")
    assert chapter_state(root, CHAPTER) != before


CHAPTERS = sorted((ROOT / "chapters").glob("*.py"))
# In one process that imports all other packages, and forks for each chapter: a chapter's imports
# alone take seconds, most of them for torch.
IMPORTS = """
import ast, json, os, sys
from pathlib import Path

def imports(path):
    nodes = ast.walk(ast.parse(path.read_text("utf8")))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]

chapters = [Path(name) for name in sys.argv[1:]]
codes = {path: "\\n".join(map(ast.unparse, imports(path))) for path in chapters}
experiments = Path("book", "experiments").resolve()
ours = ["lib", *(path.stem for path in experiments.glob("*.py"))]
others = {line for code in codes.values() for line in code.splitlines()
          if line.split()[1].split(".")[0] not in ours}
exec("\\n".join(sorted(others, key=lambda line: (" __future__ " not in line, line))), {})
assert not [name for name in sys.modules if name.split(".")[0] in ours]
sys.path.insert(1, str(experiments))
for path, code in codes.items():
    if os.fork() == 0:
        exec(code, {})
        files = [m.__file__ for n, m in sys.modules.items() if n.split(".")[0] in ours]
        print(json.dumps([path.stem, files]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[Path]]:
    """The interpreter's own account: every module of lib that the imports of a chapter load."""
    run = subprocess.run(
        [sys.executable, "-c", IMPORTS, *CHAPTERS],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    found = dict(json.loads(line) for line in run.stdout.splitlines())
    return {stem: set(map(Path, files)) for stem, files in found.items()}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_what_a_real_chapter_imports_is_what_was_found(path, loaded):
    assert ROOT / "lib" / "teaching" / "checks.py" in loaded[path.stem]
    assert loaded[path.stem] <= set(dependencies(ROOT, path.read_text("utf8")))


class TestAhead:
    """The chapters that a build runs before Sphinx reads them."""

    def test_as_many_at_a_time_as_there_are_threads(self):
        both = threading.Barrier(2)
        jobs = {name: lambda: both.wait(timeout=30) for name in "abcd"}
        running = ahead.Ahead(jobs, 2)
        for name in jobs:
            running.wait(name)
        assert not both.broken  # nobody waited in vain

    def test_in_their_order(self):
        done = []
        running = ahead.Ahead({n: partial(done.append, n) for n in range(31)}, 1)
        running.wait(30)
        assert done == list(range(31))

    def test_what_is_waited_for_is_done_and_what_is_unknown_is_not_waited_for(self):
        done, go_on = [], threading.Event()
        jobs = {"a": partial(done.append, "a"), "b": lambda: go_on.wait(timeout=30)}
        running = ahead.Ahead(jobs, 1)
        running.wait("a")
        assert done == ["a"]
        running.wait("c")
        go_on.set()
        running.wait("b")

    def test_an_error_is_told_and_keeps_nobody(self, monkeypatch):
        done, told = [], queue.SimpleQueue()
        monkeypatch.setattr(threading, "excepthook", told.put)
        running = ahead.Ahead({"a": lambda: 1 / 0, "b": partial(done.append, "b")}, 1)
        running.wait("a")
        running.wait("b")
        assert done == ["b"]
        assert told.get(timeout=30).exc_type is ZeroDivisionError


def test_kernels_find_the_root_run_on_one_thread_and_show_no_widgets(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    environment = config.kernel_environment(Path("/book"))
    assert environment["PYTHONPATH"] == "/book:/elsewhere"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["EXECUTABLE_TRANSFORMER_STATIC"] == "1"


# Numbers


class Environment:
    """What numbering touches of Sphinx's environment."""

    def __init__(self) -> None:
        doc = "chapters/07_encoder_decoder"
        self.toc_secnumbers = {doc: {"": (1,), "#a": (1, 1), "#b": (1, 2), "#deep": None}}
        references = [
            nodes.reference("", "", anchorname="", secnumber=[1]),
            nodes.reference("", "", anchorname="#a", secnumber=[1, 1]),
            nodes.reference("", "", anchorname="#deep", secnumber=None),
        ]
        self.tocs = {doc: nodes.bullet_list("", *references)}
        self.titles = {doc: nodes.title("", "", secnumber=[1])}


def test_only_the_first_part_of_a_number_moves():
    env = Environment()
    (doc,) = env.titles
    numbering._renumber(env, doc, 7)
    assert env.toc_secnumbers[doc] == {"": (7,), "#a": (7, 1), "#b": (7, 2), "#deep": None}
    found = [reference["secnumber"] for reference in env.tocs[doc].findall(nodes.reference)]
    assert found == [[7], [7, 1], None]
    assert env.titles[doc]["secnumber"] == [7]


# Inline text


def test_captions_read_math_code_and_emphasis():
    parts = parse_inline("Var is $d_k$, *not* `1`: see")
    assert [(type(part), part.astext()) for part in parts] == [
        (nodes.Text, "Var is "),
        (nodes.math, "d_k"),
        (nodes.Text, ", "),
        (nodes.emphasis, "not"),
        (nodes.Text, " "),
        (nodes.literal, "1"),
        (nodes.Text, ": see"),
    ]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("of $a$, $b$; ($c$) “$d$”.", ["a,", "b;", "(c)", "“d”."]),
        ("$a$$b$.", ["b."]),
        ("$a$ and $b$-th (or so) $c$", []),
        ("*a*, $b$, *c* ($d$ and *e* ($f$", ["b,", "(d", "(f"]),
    ],
)
def test_punctuation_stays_on_the_line_of_its_formula(text, parts):
    paragraph = nodes.paragraph("", "", *parse_inline(text))
    before = paragraph.astext()
    keep_together(paragraph)
    assert [part.astext() for part in paragraph.findall(nodes.inline)] == parts
    assert all(part["classes"] == ["nobreak"] for part in paragraph.findall(nodes.inline))
    assert paragraph.astext() == before
    assert len(list(paragraph.findall(nodes.math))) == text.count("$") // 2


def test_a_lone_dollar_or_star_stays():
    assert [part.astext() for part in parse_inline("5 $ and 2 * 3")] == ["5 $ and 2 * 3"]


# Code from lib


SOURCE = '''\
import torch


@torch.no_grad()
def attend(query):
    """Attend.

    More about it.
    """

    def inner():
        """Inner."""
        return query

    text = """not a docstring"""
    return inner(), text


class Layer:
    """A layer."""

    def forward(self, x):
        """Forward."""
        return x
'''


@pytest.fixture
def library(tmp_path: Path) -> Path:
    (tmp_path / "lib" / "teaching").mkdir(parents=True)
    (tmp_path / "lib" / "attention.py").write_text(SOURCE)
    (tmp_path / "lib" / "teaching" / "__init__.py").write_text("def start():\n    return 1\n")
    return tmp_path


def test_a_function_is_shown_with_its_decorator_and_without_its_docstring(library):
    source = libsource.read_source(library, "lib.attention.attend")
    assert source.caption == "lib/attention.py, lines 4–16"
    assert source.code == textwrap.dedent('''\
        @torch.no_grad()
        def attend(query):
            def inner():
                return query

            text = """not a docstring"""
            return inner(), text''')


def test_the_docstring_is_shown_on_request(library):
    source = libsource.read_source(library, "lib.attention.attend", docstring=True)
    assert source.code == "\n".join(SOURCE.splitlines()[3:16])


def test_a_class_loses_all_its_docstrings(library):
    source = libsource.read_source(library, "lib.attention.Layer")
    assert source.code == "class Layer:\n    def forward(self, x):\n        return x"


def test_a_method_is_shown_without_its_indent(library):
    source = libsource.read_source(library, "lib.attention.Layer.forward")
    assert source.code == "def forward(self, x):\n    return x"
    assert (source.first, source.last) == (22, 24)


def test_a_package_is_found_too(library):
    assert libsource.read_source(library, "lib.teaching.start").path == "lib/teaching/__init__.py"


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ("lib.attention.absent", "lib/attention.py defines no 'absent'"),
        ("lib.attention.Layer.backward", "lib/attention.py defines no 'backward'"),
        ("lib.absent.f", "no module of lib.absent.f"),
        ("torch.nn.Linear", "no module of torch.nn.Linear"),
    ],
)
def test_a_name_that_is_not_there_is_named(library, dotted, message):
    with pytest.raises(ValueError, match=message):
        libsource.read_source(library, dotted)


def test_the_lib_itself_can_be_shown():
    root = Path(__file__).parents[2]
    source = libsource.read_source(root, "lib.attention.scaled_dot_product_attention")
    assert source.code.startswith("def scaled_dot_product_attention(")
    assert '"""' not in source.code
    lines = (root / "lib" / "attention.py").read_text().splitlines()
    assert lines[source.first - 1] == source.code.splitlines()[0]
    assert lines[source.last - 1].strip() == source.code.splitlines()[-1].strip()


# Citations


def entry(*authors: str, **fields: str) -> Entry:
    return Entry("article", fields=fields, persons={"author": [Person(name) for name in authors]})


def test_authors_are_named_as_a_reader_would():
    assert citations.names(entry("Hochreiter, Sepp")) == "Hochreiter"
    assert citations.names(entry("Jain, S.", "Wallace, B.")) == "Jain and Wallace"
    assert citations.names(entry("Vaswani, A.", "Shazeer, N.", "Parmar, N.")) == "Vaswani et al."
    assert citations.names(entry("van den Oord, A.")) == "van den Oord"
    assert citations.names(entry('Hyv{\\"a}rinen, A.', "{D}upont, B.")) == "Hyvärinen and Dupont"


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"doi": "10.1/x", "eprint": "1706.1"}, "https://doi.org/10.1/x"),
        ({"eprint": "1706.1", "archiveprefix": "arXiv"}, "https://arxiv.org/abs/1706.1"),
        ({"url": "https://example.org/a"}, "https://example.org/a"),
        ({}, None),
    ],
)
def test_a_source_links_to_its_doi_then_arxiv_then_its_address(fields, url):
    assert citations.source_url(entry("A, B", **fields)) == url


def test_two_sources_of_one_author_and_year_are_told_apart():
    entries = [entry("A, B", year="2020"), entry("C, D", year="2020"), entry("A, E", year="2020")]
    labels = list(citations.AuthorYearLabels().format_labels(entries))
    assert labels == ["A, 2020a", "C, 2020", "A, 2020b"]


def test_every_source_of_the_book_can_be_opened():
    from pybtex.database import parse_file

    path = Path(__file__).parents[2] / "book" / "references.bib"
    entries = parse_file(str(path), "bibtex").entries
    assert len(entries) >= 5
    assert [key for key, source in entries.items() if not citations.source_url(source)] == []


# The theme


def test_a_theme_that_changed_is_not_mended_in_silence():
    page = "<!DOCTYPE html>" + "".join(mend.old for mend in theme.MENDS)
    mended = theme.mend(page, "book/index")
    assert all(place.new in mended for place in theme.MENDS)
    with pytest.raises(theme.ExtensionError, match="the theme no longer has"):
        theme.mend(page.replace(theme.MENDS[0].old, ""), "book/index")


def test_mathjax_is_where_the_pages_look_for_it():
    for name in theme.MATHJAX:
        assert (theme.mathjax_folder() / name).exists()


# Notebooks


class Numbers:
    """A lookup with one equation, one figure and one exercise."""

    def equation(self, label: str) -> str | None:
        return {"eq-a": "2.4", "def-a": "2.1"}.get(label)

    def numbered(self, label: str) -> str | None:
        return {"fig-a": "Figure 2.1", "ex-a": "Exercise 2.3"}.get(label)


def test_a_line_that_checks_an_equation_names_its_number():
    code = 'check("eq-a", x, y)\ncheck(\n    "eq-a",\n    x,\n)\ncheck("eq-b", x)\nx = "eq-a-b"'
    assert export.name_equations(code, Numbers()).split("\n") == [
        'check("eq-a", x, y)  # Eq. (2.4)',
        "check(",
        '    "eq-a",  # Eq. (2.4)',
        "    x,",
        ")",
        'check("eq-b", x)',
        'x = "eq-a-b"',
    ]


@pytest.mark.parametrize(
    "code", ['check("eq-a", x)  # why', '"""\neq-a\n"""', '!echo "eq-a"', 'f("eq-a", \\\n 1)']
)
def test_a_line_that_a_comment_would_break_is_left_alone(code):
    assert export.name_equations(code, Numbers()) == code


def test_outputs_show_numbers_and_keep_labels_in_attributes():
    html = '<p class="check" data-label="eq-a">✓ <span class="check-label">eq-a</span> holds</p>'
    assert export.name_labels(html, Numbers()) == html.replace(">eq-a<", ">Eq. (2.4)<")
    assert export.name_labels("✓ ex-a: all 3 properties hold", Numbers()) == (
        "✓ Exercise 2.3: all 3 properties hold"
    )
    assert export.name_labels("complex-a, eq-unknown", Numbers()) == "complex-a, eq-unknown"


def test_headings_get_the_numbers_of_the_book():
    text = "# Attention\n\n## One\n\n```python\n# not a heading\n```\n\n### Deep\n\n## Two"
    numbered, section = export.number_headings(text, 2, 0)
    assert numbered.split("\n")[::2] == [
        "# 2. Attention",
        "## 2.1. One",
        "```python",
        "```",
        "### Deep",
        "## 2.2. Two",
    ]
    assert "# not a heading" in numbered
    assert section == 2


def test_the_setup_cell_is_python_and_names_the_configured_repository():
    repository = Repository("https://github.com/owner/name", "trunk", "pages")
    code = export.setup_code(repository)
    compile(code, "setup", "exec")
    assert '"https://github.com/owner/name.git"' in code
    assert '"--branch", "trunk"' in code


@pytest.mark.parametrize(
    ("latex", "line"),
    [
        ("a = b .", "a = b"),
        ("\\begin{aligned}\n& a + b \\\\\n& \\quad = c .\n\\end{aligned}", "a + b = c"),
        ("\\begin{aligned}\na = {} & b \\\\\n& \\quad {} + c ,\n\\end{aligned}", "a = b + c"),
        ("\\begin{gathered}\na = b, \\\\\nc = d .\n\\end{gathered}", r"a = b, \quad c = d"),
        (r"\begin{gathered} a \\ \text{if } b \end{gathered}", r"a \quad \text{if } b"),
        (r"\begin{gathered} a \\ \Longrightarrow\quad b \end{gathered}",
         r"a \quad \Longrightarrow\quad b"),
        (r"\begin{alignedat}{2} a &= b \\ &\le c \end{alignedat}", r"a = b \le c"),
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", None),  # nothing is between the two
        (r"a = \begin{cases} 1 \\ 2 \end{cases}", None),
        ("a" * (SHORT + 1), None),
    ],
)  # fmt: skip
def test_the_ledger_shows_in_one_line_what_goes_into_one(latex, line):
    assert _short(latex) == line
