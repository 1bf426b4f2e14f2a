"""MyST Markdown turned into the plain Markdown that Jupyter and Colab show.

The book's sources use directives and roles (`:::{admonition}`, `` {eq}`label` ``) that a notebook
would print raw. Each one is replaced by its result: a number, a link, a quote, a fold. Whatever
has no rule here is reported, so that nothing raw reaches a reader unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import Protocol

from .libsource import Source


class Lookup(Protocol):
    """What the built book knows about its labels. None means: no such thing."""

    def equation(self, label: str) -> str | None: ...

    def numbered(self, label: str) -> str | None: ...

    def section(self, label: str) -> str | None: ...

    def page(self, target: str) -> tuple[str, str] | None: ...

    def citation(self, key: str) -> tuple[str, str, str | None] | None: ...

    def glued(self, name: str, spec: str) -> str | None: ...

    def source(self, dotted: str, *, docstring: bool) -> Source | None: ...


FENCE = re.compile(r"(?P<indent>\s*)(?P<fence>`{3,}|~{3,}|:{3,})(?P<rest>.*)")
DIRECTIVE = re.compile(r"\{(?P<name>[a-zA-Z][\w:+.-]*)\}\s*(?P<argument>.*)")
OPTION = re.compile(r":(?P<key>[\w-]+):\s*(?P<value>.*)")
TARGET = re.compile(r"\(\S+\)=\s*")
EXPLICIT = re.compile(r"(?P<text>.*?)\s*<(?P<target>[^<>]+)>", re.DOTALL)
DEFINITION = re.compile(r"^(?P<term>[^\s:].*)\n:[ \t]+", re.MULTILINE)

INLINE = re.compile(
    r"""
      \{(?P<role>[a-zA-Z][\w:+.-]*)\}(?P<tick>`+)(?P<content>.+?)(?P=tick)(?!`)
    | (?P<code>(?P<mark>`+)(?!`).+?(?<!`)(?P=mark)(?!`))
    | (?<!\\)\$\$(?P<display>.+?)\$\$(?:[ \t]*\((?P<label>[^()\s]+)\))?
    | (?P<math>(?<!\\)\$(?:\\.|[^$\\])+\$)
    | \[\^(?P<note>[\w-]+)\](?P<colon>:?)
    | (?<!!)\[(?P<text>[^\]]*)\]\((?P<href>[^)\s]+)\)
    """,
    re.VERBOSE | re.DOTALL,
)

ADMONITIONS = ("attention", "caution", "danger", "error", "hint", "important", "note")
ADMONITIONS += ("seealso", "tip", "warning")
PROOFS = ("theorem", "lemma", "definition", "proposition", "corollary", "remark", "property")
PROOFS += ("example", "observation", "conjecture", "assumption", "axiom", "criterion")

_SOLUTION, _END = "\0solution ", "\0end"


@dataclass
class Directive:
    """One directive as it stands in a cell."""

    name: str
    argument: str
    options: dict[str, str]
    body: list[str]


@dataclass
class Plain:
    """Converts the Markdown cells of one notebook, in order (a solution spans several)."""

    lookup: Lookup
    warn: Callable[[str], None]
    solution: str | None = None
    announced: bool = field(default=False, repr=False)

    def cell(self, text: str) -> str:
        """One Markdown cell. The result is empty if nothing is left to show."""
        shown: list[str] = []
        folded: list[str] = []
        for line in self.blocks(text.splitlines()):
            if line.startswith(_SOLUTION):
                self.solution, self.announced = line.removeprefix(_SOLUTION), False
            elif line == _END:
                shown += self.fold_solution(folded)
                folded, self.solution = [], None
            else:
                (shown if self.solution is None else folded).append(line)
        if self.solution is not None:
            shown += self.fold_solution(folded)
        return re.sub(r"\n{3,}", "\n\n", "\n".join(shown)).strip()

    def fold_solution(self, lines: list[str]) -> list[str]:
        title = f"Solution to {self.label(self.solution or '')}"
        if any(line.strip() for line in lines):
            self.announced = True
            return details(title, lines)
        if self.announced:
            return []
        self.announced = True
        return [f"**{title}**: in the next cell."]

    # Blocks

    def blocks(self, lines: list[str]) -> list[str]:
        """Lines with every directive replaced and everything between them made plain."""
        result: list[str] = []
        prose: list[str] = []
        in_math = False
        position = 0

        def flush() -> None:
            if prose:
                result.extend(self.prose("\n".join(prose)).split("\n"))
                prose.clear()

        while position < len(lines):
            line = lines[position]
            position += 1
            if in_math or line.count("$$") % 2:
                in_math ^= line.count("$$") % 2 == 1
                prose.append(line)
                continue
            match = FENCE.fullmatch(line)
            if match:
                end = closing(lines, position, match["fence"])
                inside = lines[position:end]
                position = end + 1
                flush()
                result += self.fenced(match, inside)
            elif TARGET.fullmatch(line) or line.startswith("% ") or line.rstrip() == "+++":
                continue
            else:
                prose.append(line)
        flush()
        return result

    def fenced(self, match: re.Match[str], inside: list[str]) -> list[str]:
        indent = match["indent"]
        directive = DIRECTIVE.fullmatch(match["rest"])
        if directive is None:
            if match["fence"].startswith(":"):
                self.warn(f"a colon fence without a directive: {match[0]!r}")
            return [match[0], *inside, f"{indent}{match['fence']}"]
        lines = [line.removeprefix(indent) for line in inside]
        options, body = read_options(lines)
        converted = self.directive(
            Directive(directive["name"], directive["argument"].strip(), options, body)
        )
        return ["", *(f"{indent}{line}" if line else line for line in converted), ""]

    def directive(self, d: Directive) -> list[str]:
        name = d.name
        if name == "admonition":
            return self.quote(self.prose(d.argument), d.body)
        if name in ADMONITIONS:
            title = "See also" if name == "seealso" else name.capitalize()
            body = ([d.argument] if d.argument else []) + d.body
            return self.quote(title, body)
        if name == "dropdown":
            return details(self.prose(d.argument), self.blocks(d.body))
        if name in ("exercise", "exercise-start"):
            title = self.label(d.options.get("label", ""), default="Exercise")
            subtitle = f" ({self.prose(d.argument)})" if d.argument else ""
            return [f"### {title}{subtitle}", "", *self.blocks(d.body)]
        if name == "exercise-end":
            return []
        if name == "solution":
            title = f"Solution to {self.label(d.argument)}"
            return details(title, self.blocks(d.body))
        if name == "solution-start":
            return [f"{_SOLUTION}{d.argument}", *self.blocks(d.body)]
        if name == "solution-end":
            return [_END]
        if name == "lib-source":
            source = self.lookup.source(d.argument, docstring="docstring" in d.options)
            if source is None:
                self.warn(f"{{lib-source}} {d.argument} leads nowhere")
                return []
            return [f"```python\n# {source.caption}", *source.code.split("\n"), "```"]
        if name.startswith("prf:") and name[4:] in PROOFS:
            title = self.label(d.options.get("label", ""), default=name[4:].capitalize())
            subtitle = f" ({self.prose(d.argument)})" if d.argument else ""
            return self.quote(f"{title}{subtitle}", d.body)
        if name == "prf:proof":
            return self.quote("Proof", d.body)
        if name == "math":
            label = d.options.get("label")
            tail = f" ({label})" if label else ""
            return self.prose("\n".join(["$$", *d.body, f"$${tail}"])).split("\n")
        if name in ("code-block", "code", "sourcecode"):
            return [f"```{d.argument}", *d.body, "```"]
        self.warn(f"no rule for the directive {{{name}}} in a notebook")
        return self.blocks(d.body)

    def quote(self, title: str, body: list[str]) -> list[str]:
        inside = "\n".join(self.blocks(body)).strip("\n").split("\n")
        lines = [f"**{title}**", "", *inside] if title else inside
        return [f"> {line}".rstrip() for line in lines]

    # Lines of prose

    def prose(self, text: str) -> str:
        """Roles, equations, footnotes and links of a stretch of text without directives."""
        return INLINE.sub(self.inline, DEFINITION.sub(r"**\g<term>**: ", text))

    def inline(self, match: re.Match[str]) -> str:
        if match["role"]:
            return self.role(match["role"], match["content"])
        if match["display"] is not None:
            return self.equation(match["display"], match["label"])
        if match["note"]:
            return f"<sup>{match['note']}</sup>"
        if match["href"] is not None:
            return self.link(match["text"], match["href"])
        return match[0]

    def equation(self, tex: str, label: str | None) -> str:
        if r"\\" in tex and r"\begin" not in tex:
            tex = rf"\begin{{split}}{tex.strip()}\end{{split}}"
        if label is None:
            return f"$${tex}$$"
        number = self.lookup.equation(label)
        if number is None:
            self.warn(f"the equation {label!r} has no number")
            return f"$${tex}$$"
        # What follows the last sign of the formula: a line break and the marks of a quotation.
        body, tail = re.fullmatch(r"(.*?)(\s*(?:\n[ >]*)?)", tex, re.DOTALL).groups()
        # A TeX comment would swallow what follows it on its line.
        gap = "\n" if re.search(r"(?<!\\)%.*$", body) else " "
        return rf"$${body}{gap}\tag{{{number}}}{tail}$$"

    def role(self, role: str, content: str) -> str:
        explicit = EXPLICIT.fullmatch(content)
        text = explicit["text"] if explicit else None
        target = (explicit["target"] if explicit else content).strip()
        if role == "eq":
            number = self.lookup.equation(target)
            return self.found(f"({number})" if number else None, role, target)
        if role in ("numref", "prf:ref"):
            return self.numref(role, text, target)
        if role == "ref":
            name = self.lookup.numbered(target) or self.lookup.section(target)
            return self.found(text or name, role, target)
        if role == "doc":
            return self.link(text or "", target)
        if role == "cite" or role.startswith("cite:"):
            return self.cite(role, content)
        if role == "glue:text" or role == "glue":
            name, _, spec = content.rpartition(":") if ":" in content else (content, "", "s")
            return self.found(self.lookup.glued(name, spec), role, content)
        if role == "math":
            return f"${content}$"
        if role in ("sub", "sup", "kbd"):
            return f"<{role}>{escape(content)}</{role}>"
        if role in ("term", "index", "abbr"):
            return text or content
        self.warn(f"no rule for the role {{{role}}} in a notebook")
        return content

    def found(self, result: str | None, role: str, target: str) -> str:
        if result is None:
            self.warn(f"{{{role}}}`{target}` leads nowhere")
            return target
        return result

    def numref(self, role: str, text: str | None, target: str) -> str:
        name = self.lookup.numbered(target)
        if name is None or text is None:
            return self.found(name, role, target)
        number = name.rpartition(" ")[2]
        return text.replace("%s", number).replace("{number}", number)

    def label(self, label: str, default: str | None = None) -> str:
        """`Exercise 2.1` for a label."""
        name = self.lookup.numbered(label)
        if name is None and (default is None or label):
            self.warn(f"{label!r} has no number")
        return name or default or label

    def cite(self, role: str, content: str) -> str:
        kind = role.partition(":")[2].rstrip("s") or "p"
        cited = []
        for key in content.split(","):
            source = self.lookup.citation(key.strip())
            if source is None:
                self.warn(f"{{{role}}}`{key.strip()}` is not in the bibliography")
                continue
            names, year, url = source
            if kind == "t":
                cited.append(f"{names} ({linked(year, url)})")
            elif kind == "p":
                cited.append(linked(f"{names}, {year}", url))
            else:
                self.warn(f"no rule for the role {{{role}}} in a notebook")
        return ", ".join(cited) if kind == "t" else f"({'; '.join(cited)})"

    def link(self, text: str, href: str) -> str:
        shown = self.prose(text)
        if re.match(r"[a-z][a-z0-9+.-]*:", href):
            return f"[{shown or href}]({href})"
        if href.startswith("#"):
            name = self.lookup.numbered(href[1:]) or self.lookup.section(href[1:])
            return shown or self.found(name, "ref", href)
        page = self.lookup.page(href)
        if page is None:
            self.warn(f"the link to {href!r} leads nowhere")
            return shown
        title, url = page
        return f"[{shown or title}]({url})"


def closing(lines: list[str], start: int, fence: str) -> int:
    """The index of the line that closes a fence, or the end."""
    pattern = re.compile(rf"\s*{re.escape(fence[0])}{{{len(fence)},}}\s*")
    for index in range(start, len(lines)):
        if pattern.fullmatch(lines[index]):
            return index
    return len(lines)


def read_options(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """Split a directive's `:key: value` lines from its body."""
    options: dict[str, str] = {}
    position = 0
    while position < len(lines) and (match := OPTION.fullmatch(lines[position])):
        options[match["key"]] = match["value"].strip()
        position += 1
    return options, lines[position:]


def details(title: str, body: list[str]) -> list[str]:
    """A fold. The empty lines let the Markdown inside be read as such."""
    inside = "\n".join(body).strip("\n").split("\n")
    return ["<details>", f"<summary><b>{title}</b></summary>", "", *inside, "", "</details>"]


def linked(text: str, url: str | None) -> str:
    return f"[{text}]({url})" if url else text
