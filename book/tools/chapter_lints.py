"""The book's own rules for a chapter, as functions from a chapter to the problems it has.

`python book/tools/chapter_lints.py [FILE…]` prints the problems of these chapters (default: all).
tests/book/test_chapters.py runs the same functions, and proves on bad chapters that each of them
catches what it is for.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jupytext

ROOT = Path(__file__).resolve().parents[2]

SECTIONS = (
    "The formula",
    "Derivation",
    "From scratch",
    "The library function",
    "On real data",
    "Broken on purpose",
    "Exercises",
    "Summary",
    "Sources",
)
CODE_WIDTH = 82  # a longer line would scroll in a page of 1280 px
ALT_LENGTH = range(40, 251)


@dataclass(frozen=True)
class Cell:
    kind: str  # "markdown" or "code"
    source: str
    tags: tuple[str, ...]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def calls(self) -> list[ast.Call]:
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]

    def calls_of(self, name: str) -> list[ast.Call]:
        return [
            call
            for call in self.calls
            if (isinstance(call.func, ast.Name) and call.func.id == name)
            or (isinstance(call.func, ast.Attribute) and call.func.attr == name)
        ]


@dataclass(frozen=True)
class Chapter:
    """A percent script, taken apart; `root` is the tree in which it looks up tests and sources."""

    name: str
    cells: tuple[Cell, ...]
    metadata: dict[str, Any]
    root: Path = ROOT

    @classmethod
    def parse(cls, text: str, name: str, root: Path = ROOT) -> Chapter:
        notebook = jupytext.reads(text, fmt="py:percent")
        cells = tuple(
            Cell(cell.cell_type, cell.source, tuple(cell.metadata.get("tags", ())))
            for cell in notebook.cells
        )
        return cls(name, cells, dict(notebook.metadata), root)

    @classmethod
    def read(cls, path: Path, root: Path = ROOT) -> Chapter:
        return cls.parse(path.read_text("utf8"), path.stem, root)

    @property
    def slug(self) -> str:
        """`multi_head` of 03_multi_head: the name of its checkers, and mostly of its module."""
        return self.name.partition("_")[2]

    @property
    def module(self) -> str:
        """`lib.attention` of 03_multi_head: what book/plan.yml says, else the chapter's name."""
        plan = (self.root / "book" / "plan.yml").read_text("utf8")
        entry = re.search(
            rf"^ +slug: {re.escape(self.slug)}\n(?: +(?:title|question): .*\n)* +module: (\S+)$",
            plan,
            re.MULTILINE,
        )
        return f"lib.{entry[1] if entry else self.slug}"

    @property
    def prefix(self) -> str:
        """`multi-head`: what the labels of its equations and figures begin with."""
        return self.slug.replace("_", "-")

    @property
    def code(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind == "code"]

    @property
    def markdown(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind == "markdown"]

    @cached_property
    def text(self) -> str:
        """All markdown, one blank line between cells, without comments and verbatim code."""
        return without_verbatim("\n\n".join(cell.source for cell in self.markdown))

    def calls_of(self, name: str) -> list[ast.Call]:
        return [call for cell in self.code for call in cell.calls_of(name)]

    def headings(self, level: int) -> list[str]:
        return re.findall(rf"^{'#' * level} +(.+?) *$", self.text, re.MULTILINE)


def argument(call: ast.Call, name: str, position: int) -> ast.expr | None:
    """The expression that a call passes for a parameter, by keyword or by place."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    return call.args[position] if position < len(call.args) else None


def literal(node: ast.AST | None) -> str | None:
    """The text of a string literal; None for anything computed."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def name_pattern(node: ast.expr | None) -> str | None:
    """A pattern of the names that a string can be, with any word where a value is put in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            re.escape(part.value) if isinstance(part, ast.Constant) else r"[\w.-]+"
            for part in node.values
        )
    text = literal(node)
    return None if text is None else re.escape(text)


def fixed_parts(node: ast.expr | None) -> list[str]:
    """The typed parts of a string, whether or not numbers are computed into it."""
    if node is None:
        return []
    return [
        part.value
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]


# --- markdown ------------------------------------------------------------------------------------

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
# a language, as in ```python, or a directive whose content is code
_VERBATIM = re.compile(r"[^{\s]|\{(code|code-block|code-cell|lib-source|literalinclude|raw)\}")


def without_verbatim(text: str) -> str:
    """Drop MyST comments, and fences that hold code rather than prose or mathematics."""
    kept: list[str] = []
    closing: str | None = None
    for line in text.splitlines():
        if closing is not None:
            if line.strip().startswith(closing) and not line.strip().strip(closing[0]):
                closing = None
            continue
        fence = _FENCE.match(line)
        if fence and _VERBATIM.match(fence["info"].lstrip()):
            closing = fence["fence"]
        elif not line.startswith("% "):
            kept.append(line)
    return "\n".join(kept)


_EQUATION = re.compile(
    r"^[ \t]*\$\$(?P<body>.*?)\$\$[ \t]*(?:\((?P<label>[\w:.-]+)\))?[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
_MATH_DIRECTIVE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{math\}[ \t]*\n(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.DOTALL | re.MULTILINE,
)


def equation_labels(text: str) -> list[str]:
    """The labels of all numbered equations, in both of MyST's ways to write one."""
    found = [(m.start(), m["label"]) for m in _EQUATION.finditer(text) if m["label"]]
    for block in _MATH_DIRECTIVE.finditer(text):
        if label := re.search(r"^:label: *(\S+)", block["body"], re.MULTILINE):
            found.append((block.start(), label[1]))
    return [label for _, label in sorted(found)]


def roles(text: str, pattern: str) -> list[str]:
    """The contents of roles such as {cite}`…`, for a pattern of role names."""
    return re.findall(rf"\{{(?:{pattern})\}}`([^`]+)`", text)


def paragraphs(text: str) -> Iterator[str]:
    """The blocks between blank lines, without display mathematics and the marks of directives."""
    text = _MATH_DIRECTIVE.sub("\n\n", _EQUATION.sub("\n\n", text))
    text = re.sub(r"^ *(`{3,}|~{3,}|:{3,})(\{[\w:-]+\})?", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"^ *:[\w-]+:.*$", "", text, flags=re.MULTILINE)
    yield from (block.strip() for block in re.split(r"\n\s*\n", text) if block.strip())


# --- numbers that look measured ------------------------------------------------------------------

_NAMED = (
    r"(?i:§+|sections?|chapters?|tables?|figures?|equations?|eqs?\.|footnotes?|theorems?|lemmas?|"
    r"appendix|appendices|lines?|pages?|pp?\.|steps?|python|pytorch|torch|numpy|cuda)"
)
# What may hold digits without having measured anything.
_ALLOWED = (
    re.compile(r"\{[\w:-]+\}`[^`]*`"),  # roles: computed, cited, referred to
    re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL),  # inline code
    re.compile(r"<?https?://[^\s>)]+>?"),
    re.compile(r"\]\([^)]*\)"),  # the target of a link
    re.compile(r"(?:ar[Xx]iv:)?\b\d{4}\.\d{4,5}(?:v\d+)?\b"),
    re.compile(rf"(?:{_NAMED})[ \u00a0]?\(?\d+(?:\.\d+)*\)?(?:(?:[–-]|, ?| and )\d+(?:\.\d+)*)*"),
    re.compile(r"^\*Difficulty .*\*$", re.MULTILINE),
    re.compile(r"<[^>\n]+>"),  # HTML tags
    re.compile(r"(?<![\w.,])(?:19\d\d|20[0-3]\d)(?![\w%]|[.,]\d)"),  # years
)
_MATH = re.compile(r"(?<![\\$])\$(?!\$)(.+?)(?<!\\)\$", re.DOTALL)
_MATH_NUMBER = re.compile(r"\d*\.\d+|\d+(?:\\,)?\\%|\d[\d.]*\s*\\(?:times|cdot)\s*10\s*\^")
_MEASURED = re.compile(
    r"""(?<![\w.])\d+(?:\.\d+)?[eE][+-]?\d+\b            # 2.2e-16
    | \d[\d.]*\s?×\s?10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹^]                   # 2.2 × 10⁻¹⁶
    | (?<![\w.])\d*\.?\d+\s?(?:%|percent\b|per\ cent\b)
    | (?<![\w.])\d*\.\d+(?!\.?\d|\w)                    # 0.4, but no version such as 1.2.3
    | (?<![\w.])\d[\d.]*×(?!\s?\d)                      # 3×, but no shape such as 3×4
    | (?<![\w.])\d[\d.]*\s×\s(?=faster|slower|more|less|larger|smaller|as\b)
    | (?<=[\s(])(?<![\d)]\s)×\d[\d.]*                   # ×440
    | (?<![\w.,-])\d{1,3}(?:,\d{3})+(?!\w)              # 32,000
    | (?<![\w.,-])\d{3,}(?!\w)                          # 440
    | (?<![\w.,-])\d+[ \u00a0]?(?:ns|µs|us|ms|s|seconds?|minutes?|min|[kKMGT]i?B)\b
    """,
    re.VERBOSE | re.MULTILINE,
)


def measured_numbers(prose: str) -> list[str]:
    """The numbers typed in a piece of prose that look as if somebody had measured them."""
    for allowed in _ALLOWED[:4]:
        prose = allowed.sub(" ", prose)
    found = [
        number.group()
        for math in _MATH.finditer(prose)
        for number in _MATH_NUMBER.finditer(math[1])
    ]
    prose = _MATH.sub(" x ", prose)
    for allowed in _ALLOWED[4:]:
        prose = allowed.sub(" ", prose)
    found += [number.group().strip() for number in _MEASURED.finditer(prose)]
    return [number for number in found if any(c.isdigit() for c in number)]


# --- the lints: each takes a chapter and yields its problems -------------------------------------


def header(chapter: Chapter) -> Iterator[str]:
    """The metadata that the page's header shows and Colab reads is all there."""
    if not re.fullmatch(r"\d\d_[a-z][a-z0-9_]*", chapter.name):
        yield f"the file's name {chapter.name!r} is not NN_slug"
    if chapter.metadata.get("accelerator") != "GPU":
        yield "the header lacks `accelerator: GPU`, by which Colab offers one"
    if chapter.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the header lacks the kernelspec python3"
    book = chapter.metadata.get("book", {})
    for key in ("question", "data", "hardware"):
        if not isinstance(book.get(key), str) or not book[key].strip():
            yield f"the header lacks `book: {key}:`"
    for key in ("goals", "prerequisites"):
        if not isinstance(book.get(key), list) or not book[key]:
            yield f"the header lacks a list `book: {key}:`"
    if not str(book.get("question", "")).rstrip().endswith("?"):
        yield "the header's question does not end with a question mark"
    code = chapter.code
    if not code or not {"setup", "remove-cell"} <= set(code[0].tags):
        yield "the first code cell is not tagged setup and remove-cell"
    if any("setup" in cell.tags for cell in code[1:]):
        yield "more than one cell is tagged setup"


def sections(chapter: Chapter) -> Iterator[str]:
    """One title, and the sections of every chapter in their order; others may stand between."""
    titles = chapter.headings(1)
    if len(titles) != 1:
        yield f"expected one title (`# …`), got {len(titles)}"
    found = [
        next((name for name in SECTIONS if re.match(rf"{name}(?!\w)", heading)), None)
        for heading in chapter.headings(2)
    ]
    named = [name for name in found if name is not None]
    for name in SECTIONS:
        if named.count(name) != 1:
            yield f"expected one section `## {name}`, got {named.count(name)}"
    if sorted(named, key=SECTIONS.index) != named:
        yield f"the sections stand in the order {', '.join(named)}"


def equations(chapter: Chapter) -> Iterator[str]:
    """Every numbered equation is checked, every check names one, every label is in order."""
    labels = equation_labels(chapter.text)
    prefix = chapter.prefix
    for label, count in Counter(labels).items():
        if count > 1:
            yield f"the equation label {label} is used {count} times"
        if not re.fullmatch(rf"(eq|def)-{re.escape(prefix)}-[a-z0-9-]+", label):
            yield f"the equation label {label} is not eq-{prefix}-… or def-{prefix}-…"
    checked = {
        pattern: ast.unparse(call)[:60]
        for call in chapter.calls_of("check")
        if (pattern := name_pattern(argument(call, "label", 0))) and pattern.startswith("eq")
    }
    numbered = {label for label in labels if label.startswith("eq-")}
    for label in sorted(numbered):
        if not any(re.fullmatch(pattern, label) for pattern in checked):
            yield f"the equation {label} has no check({label!r}, …)"
    for pattern, call in checked.items():
        if not any(re.fullmatch(pattern, label) for label in numbered):
            yield f"`{call}` names no numbered equation"


def typed_numbers(chapter: Chapter) -> Iterator[str]:
    """Numbers that look measured come from code; a paper's own stand beside its {cite}."""
    advice = "compute it and {glue} it, or cite the paper that has it in the same paragraph"
    for paragraph in paragraphs(chapter.text):
        if roles(paragraph, "cite(?::[a-z]+)?"):
            continue
        for number in measured_numbers(paragraph):
            yield f"the number {number} is typed in “{paragraph[:60]}…”: {advice}"
    book = chapter.metadata.get("book", {})
    for key in ("question", "goals", "data"):
        for number in measured_numbers(str(book.get(key, ""))):
            yield f"the number {number} is typed in the header's {key}: {advice}"
    for call in chapter.calls_of("show_figure"):
        for number in measured_numbers(" ".join(fixed_parts(argument(call, "caption", 2)))):
            yield f"the number {number} is typed in a caption: compute it into the string"


def glued(chapter: Chapter) -> Iterator[str]:
    """Every {glue} names a value that a cell glues, and every glued value is used."""
    used = [re.sub(r":[^:]*$", "", name) for name in roles(chapter.text, "glue(?::[a-z]*)?")]
    used += re.findall(r"\{glue(?::[a-z]*)?\}[ \t]+(\S+)", chapter.text)
    patterns: dict[str, str] = {}
    for call in chapter.calls_of("glue"):
        pattern = name_pattern(argument(call, "name", 0))
        if pattern is None:
            yield f"`{ast.unparse(call)[:60]}`: write the name of what is glued into the call"
        elif pattern in patterns:
            yield f"`{ast.unparse(call)[:60]}`: another call glues the same name"
        else:
            patterns[pattern] = ast.unparse(call)[:60]
    for name in sorted(set(used)):
        if not any(re.fullmatch(pattern, name) for pattern in patterns):
            yield f"{{glue}} names {name}, which no cell glues"
    for pattern, call in patterns.items():
        if not any(re.fullmatch(pattern, name) for name in used):
            yield f"`{call}` is used nowhere"


def figures(chapter: Chapter) -> Iterator[str]:
    """Every figure has a label of the chapter, an alt text that says something, and a reference."""
    prefix = f"fig-{chapter.prefix}-"
    referred = [
        re.sub(r"^.*<(.*)>$", r"\1", target) for target in roles(chapter.text, "numref|ref")
    ]
    names: list[str] = []
    for call in chapter.calls_of("show_figure"):
        name = literal(argument(call, "name", 1))
        if name is None:
            yield f"`{ast.unparse(call)[:60]}`: write the figure's name into the call"
            continue
        names.append(name)
        if not name.startswith(prefix) or name == prefix:
            yield f"the figure {name} is not {prefix}…"
        if name not in referred:
            yield f"the figure {name} is not referred to: write {{numref}}`{name}` in the text"
        if argument(call, "caption", 2) is None:
            yield f"the figure {name} has no caption"
        alt = argument(call, "alt", 3)
        text = literal(alt)
        if alt is None:
            yield f"the figure {name} has no alt text"
        elif text is not None and len(text) not in ALT_LENGTH:
            yield f"the alt text of {name} has {len(text)} characters, expected 40 to 250"
    for name, count in Counter(names).items():
        if count > 1:
            yield f"the figure name {name} is used {count} times"


def code_width(chapter: Chapter) -> Iterator[str]:
    """No line of code has to be scrolled on a laptop."""
    for cell in chapter.code:
        for line in cell.source.splitlines():
            if len(line) > CODE_WIDTH:
                yield f"a line of {len(line)} characters, expected at most {CODE_WIDTH}: {line}"


def citations(chapter: Chapter) -> Iterator[str]:
    """Every source that is cited is in the bibliography, and the Sources section cites some."""
    bibliography = (chapter.root / "book" / "references.bib").read_text("utf8")
    known = set(re.findall(r"^@\w+\{\s*([^,\s]+)", bibliography, re.MULTILINE))
    cited = [
        key.strip()
        for keys in roles(chapter.text, "cite(?::[a-z]+)?")
        for key in keys.split(",")
    ]
    for key in sorted(set(cited) - known):
        yield f"{{cite}}`{key}` is not in book/references.bib"
    sources = re.split(r"^## +Sources\b.*$", chapter.text, maxsplit=1, flags=re.MULTILINE)
    if len(sources) == 2 and not roles(sources[1], "cite(?::[a-z]+)?"):
        yield "the section Sources cites nothing"


def library(chapter: Chapter) -> Iterator[str]:
    """The library's function is shown from its source, not retyped."""
    shown = [
        target
        for cell in chapter.markdown
        for target in re.findall(r"^[`:]{3,}\{lib-source\} +(\S+)", cell.source, re.MULTILINE)
    ]
    if not any(target.startswith(f"{chapter.module}.") for target in shown):
        yield f"no {{lib-source}} shows a function of {chapter.module}"


_EXERCISE = re.compile(
    r"^[`:]{3,}\{(?P<kind>exercise-start|exercise-end|solution-start|solution-end)\}"
    r"[ \t]*(?P<argument>.*)\n(?P<options>(?:[ \t]*:[\w-]+:.*\n)*)",
    re.MULTILINE,
)
_DIFFICULTY = re.compile(r"^\*Difficulty (?:●○○|●●○|●●●) · [1-9]\d* minutes\*$", re.MULTILINE)


def _ends_with_grade(cell: Cell, label: str) -> bool:
    last = cell.tree.body[-1] if cell.tree.body else None
    return (
        isinstance(last, ast.Expr)
        and isinstance(last.value, ast.Call)
        and isinstance(last.value.func, ast.Name)
        and last.value.func.id == "grade"
        and literal(argument(last.value, "label", 0)) == label
    )


def exercises(chapter: Chapter) -> Iterator[str]:
    """Every exercise has its difficulty, minutes, hint, stub and hidden solution, both graded."""
    blocks: dict[str, dict[str, Any]] = {}
    order: list[str] = []
    label, part = "", ""
    section = ""
    for cell in chapter.cells:
        if cell.kind == "code":
            if part:
                blocks[label][part].append(cell)
            continue
        text, position = cell.source, 0
        if headings := re.findall(r"^## +(.+)$", text, re.MULTILINE):
            section = headings[-1]
        for mark in _EXERCISE.finditer(text):
            if part:
                blocks[label][f"{part} text"] += text[position : mark.start()]
            position = mark.end()
            kind = mark["kind"]
            if kind == "exercise-start":
                option = re.search(r":label: *(\S+)", mark["options"])
                label, part = option[1] if option else "", "exercise"
                order.append(label)
                blocks[label] = {
                    "exercise": [], "exercise text": "", "solution": [], "solution text": "",
                    "section": section, "folded": False,
                }
            elif kind == "solution-start":
                label, part = mark["argument"].strip(), "solution"
                if label not in blocks:
                    yield f"a solution to {label!r}, which is no exercise above it"
                    part = ""
                else:
                    blocks[label]["folded"] = bool(re.search(r":class:.*dropdown", mark["options"]))
            else:
                part = ""
        if part:
            blocks[label][f"{part} text"] += text[position:]
    if not order:
        yield "the chapter has no exercise"
    for label, count in Counter(order).items():
        if count > 1:
            yield f"the exercise label {label} is used {count} times"
    for label, block in blocks.items():
        if not re.fullmatch(rf"ex-{re.escape(chapter.slug)}-[a-z0-9-]+", label):
            yield f"the exercise label {label!r} is not ex-{chapter.slug}-…"
        if not block["section"].startswith("Exercises"):
            yield f"{label} stands outside the section Exercises"
        if not _DIFFICULTY.search(block["exercise text"]):
            yield f"{label} lacks its line `*Difficulty ●○○ · 10 minutes*`"
        if not re.search(r"\{dropdown\} +Hint", block["exercise text"]):
            yield f"{label} lacks a hint (`{{dropdown}} Hint`)"
        for part, tag in (("exercise", "exercise-stub"), ("solution", "solution")):
            cells = [cell for cell in block[part] if tag in cell.tags]
            if len(cells) != 1:
                yield f"{label}: expected one code cell tagged {tag}, got {len(cells)}"
            elif not _ends_with_grade(cells[0], label):
                yield f"{label}: the cell tagged {tag} does not end with grade({label!r}, …)"
            elif tag == "exercise-stub" and "raise NotImplementedError" not in cells[0].source:
                yield f"{label}: the stub does not raise NotImplementedError"
        if block["solution"] and not block["folded"]:
            yield f"{label}: the solution is not folded (`:class: dropdown`)"


_BOX = re.compile(r"^[`:]{3,}\{admonition\} +(?P<title>Broken on purpose.*)$", re.MULTILINE)
_TITLE = re.compile(r"Broken on purpose (?P<id>D\d\d[a-z]?): \S.*")
_TEST = re.compile(r"\b(tests/[\w/]+\.py)((?:::\w+)+)")


def _defines(path: Path, names: list[str]) -> bool:
    """Whether a test file defines this function, or this class with this method."""
    body: list[ast.stmt] = ast.parse(path.read_text("utf8")).body
    for name in names:
        found = [
            node
            for node in body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name
        ]
        if not found:
            return False
        body = found[0].body
    return True


def _boxes(chapter: Chapter) -> list[tuple[str, str, list[Cell]]]:
    """Of every box: its title, its text up to the next box or section, the code cells there."""
    parts: list[tuple[str, str, list[Cell]]] = []
    for cell in chapter.cells:
        if cell.kind == "code":
            if parts:
                parts[-1][2].append(cell)
            continue
        pieces = re.split(
            r"^(?=## |[`:]{3,}\{admonition\} +Broken on purpose)", cell.source, flags=re.MULTILINE
        )
        for piece in filter(None, pieces):
            if box := _BOX.match(piece):
                parts.append((box["title"], piece, []))
            elif piece.startswith("## "):
                parts.append(("", piece, []))
            elif parts:
                title, text, cells = parts[-1]
                parts[-1] = title, f"{text}\n{piece}", cells
    return [part for part in parts if part[0]]


def broken_boxes(chapter: Chapter) -> Iterator[str]:
    """Every mistake shown is numbered, marked as broken, run, and caught by a test that ran.

    The test is one of the chapter's own, run on both versions by `catches("D09", …)`, or one of
    the repository's, named as `tests/test_….py::test_…`.
    """
    boxes = _boxes(chapter)
    if not boxes:
        yield "no box is titled `Broken on purpose Dnn: …`"
    for title, text, cells in boxes:
        number = _TITLE.fullmatch(title)
        if not number:
            yield f"the box “{title}” is not titled `Broken on purpose Dnn: …`"
        if not re.match(r".*\n:class: .*\bbroken\b", text):
            yield f"“{title}” lacks `:class: broken`"
        if not cells:
            yield f"“{title}” runs no code"
        if "**Fix:**" not in text:
            yield f"“{title}” has no `**Fix:**`"
        # a label may come from a loop's table, so any text in a cell that calls `catches` counts
        caught = [
            string
            for cell in cells
            if cell.calls_of("catches")
            for node in ast.walk(cell.tree)
            if (string := literal(node)) is not None
        ]
        named = _TEST.findall(text)
        for path, names in named:
            if not (chapter.root / path).exists():
                yield f"“{title}” names {path}, which does not exist"
            elif not _defines(chapter.root / path, names.removeprefix("::").split("::")):
                yield f"“{title}” names {path}{names}, which is not defined there"
        if number and not named and not any(s.startswith(number["id"]) for s in caught):
            yield f"nothing catches “{title}”: call catches({number['id']!r}, …), or name a test"


LINTS: tuple[Callable[[Chapter], Iterator[str]], ...] = (
    header,
    sections,
    equations,
    typed_numbers,
    glued,
    figures,
    code_width,
    citations,
    library,
    exercises,
    broken_boxes,
)


def problems(chapter: Chapter) -> list[str]:
    """All that the lints find in a chapter, one line a problem."""
    return [
        f"{chapter.name}: {lint.__name__}: {problem}" for lint in LINTS for problem in lint(chapter)
    ]


def main(arguments: list[str]) -> int:
    paths = [Path(name) for name in arguments] or sorted((ROOT / "chapters").glob("*.py"))
    found = [problem for path in paths for problem in problems(Chapter.read(path))]
    print("\n".join(found or [f"{len(paths)} chapters keep the book's rules"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
