"""The executed chapters as notebooks for download and for Colab, in plain Markdown.

They lie in `notebooks/` below the HTML, so that publishing the pages publishes them too.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from html import escape
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.util import logging

from .book import Repository, chapter_number, minutes, notebook_path, read_plan
from .config import GLUED
from .header import REQUIRED, book_metadata, plan_path, runtime
from .lookup import BookLookup, executed_notebook
from .plain import Lookup, Plain

logger = logging.getLogger(__name__)

HIDDEN_INPUT = {"hide-input", "hide-cell", "remove-input", "remove-cell"}

SETUP = """\
#@title Setup: find the book's code
# On Colab it is fetched; elsewhere it is the clone that this notebook lies in.
import subprocess
import sys
from pathlib import Path

if "google.colab" in sys.modules:
    root = Path("{name}").resolve()
    if not root.exists():
        subprocess.run(
            ["git", "clone", "--quiet", "--depth", "1", "--branch", "{branch}",
             "{clone_url}", str(root)],
            check=True,
        )
else:
    here = Path.cwd()
    roots = [p for p in (here, *here.parents) if (p / "lib" / "attention.py").exists()]
    if not roots:
        raise FileNotFoundError(
            "this notebook needs the book's code around it: git clone {clone_url}"
        )
    root = roots[0]
sys.path.insert(0, str(root))
"""


def setup_code(repository: Repository) -> str:
    """The first cell of every published notebook."""
    return SETUP.format(
        name=repository.name, branch=repository.branch, clone_url=repository.clone_url
    ).rstrip()


def header_table(app: Sphinx, docname: str, plain: Plain) -> str:
    """The chapter's header as a Markdown table."""
    book = book_metadata(app.env, docname)
    if any(key not in book for key in REQUIRED):
        return ""  # the page's own header has complained
    titles = {
        chapter.docname: f"{chapter.number}. {chapter.title}"
        for chapter in read_plan(plan_path(app))
    }

    def cell(text: str) -> str:
        return plain.prose(" ".join(text.split())).replace("|", r"\|")

    def items(texts: list[str]) -> str:
        return "<br>".join(cell(titles.get(f"chapters/{text}", text)) for text in texts)

    seconds = runtime(app.env, docname)
    page = f"{Repository.of(app.config).pages_url}{docname}.html"
    rows = [
        ("After it you can", items(book["goals"])),
        ("You need", items(book["prerequisites"])),
        ("Time to run", "" if seconds is None else f"{minutes(seconds)} on one CPU thread"),
        ("Hardware", cell(book["hardware"])),
        ("Data", cell(book["data"])),
        ("In the book", f"[{escape(page.removeprefix('https://'))}]({page})"),
    ]
    lines = [f"| **{name}** | {text} |" for name, text in rows if text]
    question = plain.prose(" ".join(book["question"].split()))
    return "\n".join([f"*{question}*", "", "| | |", "|---|---|", *lines])


def number_headings(text: str, chapter: int, section: int) -> tuple[str, int]:
    """Give `#` and `##` headings the numbers that they have in the book."""
    lines, in_code = [], False
    for line in text.split("\n"):
        if line.startswith("```"):
            in_code = not in_code
        if not in_code and line.startswith("# "):
            line = f"# {chapter}. {line[2:]}"
        elif not in_code and line.startswith("## "):
            section += 1
            line = f"## {chapter}.{section}. {line[3:]}"
        lines.append(line)
    return "\n".join(lines), section


def name_equations(code: str, lookup: Lookup) -> str:
    """Append `# Eq. (2.4)` to lines that name an equation by its label, as a check does."""
    lines = code.split("\n")
    named: dict[int, list[str]] = {}
    commented = set()
    for token in _tokens(code):
        if token.type == tokenize.COMMENT:
            commented.add(token.start[0])
        elif token.type == tokenize.STRING and token.start[0] == token.end[0]:
            label = token.string.strip("'\"")
            number = lookup.equation(label) if label.startswith("eq-") else None
            if number:
                named.setdefault(token.start[0], []).append(f"Eq. ({number})")
    for row, names in named.items():
        if row not in commented and not lines[row - 1].endswith("\\"):
            lines[row - 1] += f"  # {', '.join(names)}"
    return "\n".join(lines)


def _tokens(code: str) -> Iterator[tokenize.TokenInfo]:
    # A cell with a line magic or shell escape is no Python: it names no equation either.
    if re.search(r"^\s*[%!]", code, re.MULTILINE):
        return
    yield from tokenize.generate_tokens(io.StringIO(code).readline)


def name_labels(text: str, lookup: Lookup) -> str:
    """In an output, the label of a check, a figure or an exercise becomes its number."""

    def name(match: re.Match[str]) -> str:
        label = match[0]
        if label.startswith(("eq-", "def-")):
            number = lookup.equation(label)
            return f"Eq. ({number})" if number else label
        return lookup.numbered(label) or label

    # Not inside an attribute: data-label, id and href keep the label.
    return re.sub(r"(?<![\w\"'#=/-])(?:eq|def|ex|fig)-[a-z0-9][\w-]*", name, text)


def convert_outputs(outputs: list[NotebookNode], lookup: Lookup) -> list[NotebookNode]:
    for output in outputs:
        output.pop("transient", None)
        if output.output_type not in ("display_data", "execute_result"):
            continue
        data = output.data
        html = data.get("text/html", "")
        if html.lstrip().startswith(('<p class="check"', '<p class="grade')):
            data["text/html"] = name_labels(html, lookup)
            data["text/plain"] = name_labels(data["text/plain"], lookup)
        elif html.lstrip().startswith('<figure class="book-figure"'):
            label = re.search(r'id="(fig-[\w-]+)"', html)[1]
            number = lookup.numbered(label) or label
            data["text/html"] = html.replace("<figcaption>", f"<figcaption><b>{number}.</b> ", 1)
            data["text/plain"] = data["text/plain"].replace(f"Figure {label}", number, 1)
    return outputs


def convert_code(cell: NotebookNode, lookup: Lookup, setup: str) -> NotebookNode:
    tags = set(cell.metadata.get("tags", []))
    cell.outputs = convert_outputs(cell.outputs, lookup)
    if "setup" in tags:
        cell.source = setup
        cell.metadata["cellView"] = "form"
        return cell
    cell.source = name_equations(cell.source, lookup)
    if "solution" in tags:
        cell.source = f"#@title Solution\n{cell.source}"
        cell.metadata["cellView"] = "form"
    if tags & (HIDDEN_INPUT | {"solution"}):
        cell.metadata["jupyter"] = {"source_hidden": True}
    return cell


def convert(app: Sphinx, docname: str) -> NotebookNode:
    """The chapter as a notebook that reads well without the book's tools."""
    notebook = nbformat.read(executed_notebook(app, docname), as_version=4)
    lookup = BookLookup(app, docname)

    def warn(message: str) -> None:
        logger.warning(message, location=docname, type="bookext", subtype="export")

    plain = Plain(lookup, warn)
    setup = setup_code(Repository.of(app.config))
    cells, section = [], 0
    for cell in notebook.cells:
        for key in ("execution", "lines_to_next_cell", "lines_to_end_of_cell_marker", GLUED):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cells.append(convert_code(cell, lookup, setup))
            continue
        text, section = number_headings(plain.cell(cell.source), chapter_number(docname), section)
        if text.startswith("# "):
            title, _, rest = text.partition("\n")
            text = f"{title}\n\n{header_table(app, docname, plain)}\n{rest}".rstrip()
        if text:
            cell.source = text
            cells.append(cell)
    for index, cell in enumerate(cells):
        cell["id"] = f"cell-{index:03d}"
    metadata = {
        key: notebook.metadata[key]
        for key in ("accelerator", "kernelspec", "language_info")
        if key in notebook.metadata
    }
    metadata["colab"] = {"name": notebook_path(docname).rpartition("/")[2], "toc_visible": True}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def export(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.name != "html":
        return
    for docname in sorted(app.env.found_docs):
        if chapter_number(docname) is None:
            continue
        text = nbformat.writes(convert(app, docname)) + "\n"
        target = Path(app.outdir) / notebook_path(docname)
        if not target.exists() or target.read_text("utf8") != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf8")


def setup(app: Sphinx) -> None:
    app.connect("build-finished", export)
