"""`{notation}`: every symbol of the chapters' tables, what it means, and what the code calls it.

Shape and meaning are read from the table below each chapter's formula, so that they cannot drift.
What cannot be read there stands in book/notation.yml: the name in lib, the meaning of one symbol
of a row that several share, and the sizes that no table explains.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from .glossary import note_listing

NAMES = "book/notation.yml"
HEAD = re.compile(r"# \| symbol \| shape \| meaning \|\n# \|[-|]+\|\n((?:# \|.*\n)+)")
EQUATION = re.compile(r"^# \$\$\n((?:(?!# \$\$).*\n)+?)# \$\$(?: \(([\w-]+)\))?$", re.MULTILINE)
WORD = r"\\(?:text|operatorname|mathrm|mathbf|begin|end)\{[^{}]*\}"
TOKEN = re.compile(rf"{WORD}|\\[a-zA-Z]+|\\.|\S")
GREEK = "alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi pi rho"
GREEK = [*GREEK.split(), "sigma", "tau", "phi", "varphi", "chi", "psi", "omega"]


@dataclass(frozen=True)
class Symbol:
    """One symbol as one chapter uses it."""

    latex: str
    shape: str
    meaning: str
    chapter: str  # 02_attention
    shared: bool = False  # the chapter's table has one row for it and others
    code: tuple[str, ...] = ()  # below lib
    equation: str | None = None  # where the first that uses it is not the one that defines it
    also: tuple[str, ...] = ()  # other chapters in which it is the same

    @property
    def order(self) -> tuple[int, int, str, int, str, str]:
        """Latin letters, then Greek ones; a letter's capital first; what hangs on it last."""
        bare = re.sub(
            r"\\(hat|widehat|tilde|bar|mathbf|operatorname|text|mathcal)\b", "", self.latex
        )
        bare = re.sub(r"[{} ]", "", bare)
        if (match := re.match(r"\\(\w+?)(?=_|\b)", bare)) and match[1].lower() in GREEK:
            place = GREEK.index(match[1].lower())
            return 2, place, bare, len(self.latex), self.latex, self.chapter
        letter = re.search(r"[A-Za-z]", bare)
        place = ord(letter[0].lower()) if letter else 0
        first = letter[0] + bare if letter else bare
        return 1, place, first, len(self.latex), self.latex, self.chapter


def split(text: str) -> list[str]:
    """The parts of a cell or of a formula between commas that stand in no formula or bracket."""
    parts, depth, formula, current = [], 0, False, ""
    for character in text:
        formula ^= character == "$"
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0 and not formula:
            parts.append(current)
            current = ""
        else:
            current += character
    return [part.strip() for part in [*parts, current] if part.strip()]


def symbols_of(cell: str) -> list[str]:
    """The symbols that a cell names: `$S = QK^\\top$` names S, `$U$, $V$` names two."""
    formulas = [part for formula in re.findall(r"\$([^$]+)\$", cell) for part in split(formula)]
    names = [re.split(r"(?<!\\)=", formula)[0] for formula in formulas]
    return [re.sub(r"^(\\[ ,;]|\s)+|\s+$", "", name) for name in names]


def table_of(text: str, chapter: str) -> list[Symbol]:
    """The table of symbols in a chapter's source."""
    match = HEAD.search(text)
    if match is None:
        raise ValueError(f"{chapter}: expected a table `symbol | shape | meaning`, got none")
    found = []
    for line in match[1].splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line[2:].strip().strip("|"))]
        if len(cells) != 3:
            raise ValueError(f"{chapter}: expected 3 cells, got {len(cells)} in {line!r}")
        names, shapes = symbols_of(cells[0]), split(cells[1])
        if len(shapes) != len(names):
            shapes = [cells[1]] * len(names)
        found += [
            Symbol(name, shape, cells[2], chapter, shared=len(names) > 1)
            for name, shape in zip(names, shapes, strict=True)
        ]
    return found


def tokens(latex: str) -> list[str]:
    """A formula's marks, a word in it as one of them."""
    return [mark for mark in TOKEN.findall(latex) if mark not in (r"\!", r"\,", r"\;", r"\big")]


def equation_with(text: str, latex: str) -> str | None:
    """The label of the first numbered equation of a chapter that uses a symbol."""
    wanted = tokens(latex)
    for body, label in EQUATION.findall(text):
        if not label:
            continue
        marks = tokens(re.sub(r"^# ?", "", body, flags=re.MULTILINE))
        places = range(len(marks) - len(wanted) + 1)
        if any(marks[start : start + len(wanted)] == wanted for start in places):
            return label
    return None


def read_names(root: Path) -> dict[str, dict[str, Any]]:
    """notation.yml: for each chapter what it adds to each symbol, `sizes` for those in no table."""
    return yaml.safe_load((root / NAMES).read_text("utf8"))


def source(root: Path, chapter: str) -> str:
    return (root / "chapters" / f"{chapter}.py").read_text("utf8")


def as_entry(value: Any) -> dict[str, Any]:
    """`name`, `[names]`, or nothing, as the mapping that they are short for."""
    entry = value if isinstance(value, dict) else {"code": value}
    code = entry.get("code") or []
    return {**entry, "code": tuple([code] if isinstance(code, str) else code)}


def named(table: list[Symbol], names: dict[str, Any]) -> Iterator[tuple[Symbol, str | None]]:
    """A chapter's symbols with what notation.yml adds, and the chapter that they are the same as.

    Raises ValueError where a symbol is missing there, or where it names one that is not here.
    """
    chapter = table[0].chapter
    listed = [symbol.latex for symbol in table]
    if listed != list(names):
        raise ValueError(
            f"{NAMES}, {chapter}: expected the symbols of the chapter's table in its order, "
            f"{listed}, got {list(names)}"
        )
    for symbol in table:
        entry = as_entry(names[symbol.latex])
        if unknown := set(entry) - {"code", "meaning", "shape", "equation", "as"}:
            raise ValueError(f"{NAMES}, {chapter}, {symbol.latex}: unknown {sorted(unknown)}")
        if symbol.shared != ("meaning" in entry) and "as" not in entry:
            needs = "a meaning of its own" if symbol.shared else "no meaning: the table has it"
            raise ValueError(f"{NAMES}, {chapter}, {symbol.latex}: expected {needs}")
        changes = {
            key: entry[key] for key in ("meaning", "shape", "equation", "code") if key in entry
        }
        yield replace(symbol, **changes), entry.get("as")


def all_symbols(root: Path, chapters: Collection[str]) -> list[Symbol]:
    """The symbols of these chapters, one that is the same in several once, in the order shown."""
    names = read_names(root)
    found: dict[tuple[str, str], Symbol] = {}
    for chapter in sorted(chapters):
        if chapter not in names:
            raise ValueError(f"{NAMES}: expected the symbols of {chapter}, got none")
        for symbol, same in named(table_of(source(root, chapter), chapter), names[chapter]):
            if same is None or same not in chapters:
                found[chapter, symbol.latex] = symbol
                continue
            first = found.get((same, symbol.latex))
            if first is None:
                raise ValueError(f"{NAMES}, {chapter}, {symbol.latex}: {same} has no such symbol")
            if first.shape != symbol.shape:
                raise ValueError(
                    f"{NAMES}, {chapter}, {symbol.latex}: expected the shape that it has in "
                    f"{same}, {first.shape}, got {symbol.shape}"
                )
            found[same, symbol.latex] = replace(first, also=(*first.also, chapter))
    return sorted(found.values(), key=lambda symbol: symbol.order)


def sizes(root: Path, chapters: Collection[str]) -> list[Symbol]:
    """The sizes that whole chapters share, in the order of notation.yml."""
    return [
        Symbol(latex, "", **as_entry(entry))
        for latex, entry in read_names(root)["sizes"].items()
        if entry["chapter"] in chapters
    ]


def chapter_link(chapter: str) -> str:
    return f"[{int(chapter[:2])}](/chapters/{chapter}.py)"


def row(root: Path, symbol: Symbol, *, shape: bool) -> str:
    label = symbol.equation or equation_with(source(root, symbol.chapter), symbol.latex)
    use = chapter_link(symbol.chapter) + (f" {{eq}}`{label}`" if label else "")
    if symbol.also:
        use += "; also " + ", ".join(map(chapter_link, symbol.also))
    code = ", ".join(f"`{name}`" for name in symbol.code) or "–"
    cells = [f"${symbol.latex}$", symbol.meaning, symbol.shape, code, use]
    return "| " + " | ".join(cells if shape else [*cells[:2], *cells[3:]]) + " |"


def notation_text(root: Path, chapters: Collection[str]) -> str:
    """Both tables as MyST."""
    text = ["## Sizes", "", "| size | meaning | in code | chapter |", "|---|---|---|---|"]
    text += [row(root, size, shape=False) for size in sizes(root, chapters)]
    groups = {"Latin letters": [], "Greek letters": []}
    for symbol in all_symbols(root, chapters):
        groups["Greek letters" if symbol.order[0] == 2 else "Latin letters"].append(symbol)
    for title, symbols in groups.items():
        if symbols:
            text += ["", f"## {title}", "", "| symbol | meaning | shape | in code | chapter |"]
            text += ["|---|---|---|---|---|"]
            text += [row(root, symbol, shape=True) for symbol in symbols]
    return "\n".join(text) + "\n"


class Notation(SphinxDirective):
    """The symbols of all chapters of this book."""

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.app.srcdir)
        documents = [name for name in self.env.found_docs if name.startswith("chapters/")]
        for path in (NAMES, *(f"{name}.py" for name in documents)):
            self.env.note_dependency(path)
        note_listing(self.env)
        self.env.temp_data["bookext_notation"] = True
        chapters = [name.removeprefix("chapters/") for name in documents]
        try:
            text = notation_text(root, chapters)
        except ValueError as error:
            raise self.error(f"notation: {error}") from error
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def narrow(app: Sphinx, doctree: nodes.document) -> None:
    """Let the tables fit: headings stand beside the directive, so this sees the whole page."""
    if not app.env.temp_data.get("bookext_notation"):
        return
    for table in doctree.findall(nodes.table):
        table["classes"].append("notation")
        for name in list(table.findall(nodes.literal)):
            name.replace_self(breakable(name.astext()))


def breakable(name: str) -> nodes.raw:
    """A dotted name that a narrow column breaks where its parts end."""
    html = re.sub(r"(?=[.(])|(?<=_)", "<wbr>", escape(name))
    return nodes.raw("", f'<code class="docutils literal notranslate">{html}</code>', format="html")


def setup(app: Sphinx) -> None:
    app.add_directive("notation", Notation)
    app.connect("doctree-read", narrow)
