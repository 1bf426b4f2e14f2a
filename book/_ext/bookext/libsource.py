"""`{lib-source} lib.attention.causal_mask`: code shown from its file, so that it cannot drift."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.directives.code import container_wrapper
from sphinx.util.docutils import SphinxDirective

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Source:
    """A definition as it stands in its file."""

    path: str
    first: int
    last: int
    code: str

    @property
    def caption(self) -> str:
        return f"{self.path}, lines {self.first}–{self.last}"


def _module(root: Path, names: list[str]) -> tuple[Path, list[str]]:
    """The file of the longest prefix that is a module, and the names that remain."""
    for length in range(len(names) - 1, 0, -1):
        base = root.joinpath(*names[:length])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path, names[length:]
    raise ValueError(f"no module of {'.'.join(names)} lies below the root")


def _docstring_lines(node: ast.AST) -> set[int]:
    """The lines that docstrings take up in `node` and all that it holds."""
    lines: set[int] = set()
    for inner in ast.walk(node):
        if isinstance(inner, Definition) and ast.get_docstring(inner, clean=False) is not None:
            string = inner.body[0]
            lines.update(range(string.lineno, string.end_lineno + 1))
    return lines


def read_source(root: Path, dotted: str, *, docstring: bool = False) -> Source:
    """Find `dotted` (module, then class or function) below `root`, without importing it."""
    path, names = _module(root, dotted.split("."))
    text = path.read_text("utf8")
    node: ast.AST = ast.parse(text)
    for name in names:
        found = [
            child
            for child in getattr(node, "body", [])
            if isinstance(child, Definition) and child.name == name
        ]
        if not found:
            raise ValueError(f"{path.relative_to(root)} defines no {name!r}")
        node = found[-1]
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    hidden = set() if docstring else _docstring_lines(node)
    lines = text.splitlines()
    kept = [lines[i - 1] for i in range(first, node.end_lineno + 1) if i not in hidden]
    indent = len(kept[0]) - len(kept[0].lstrip())
    # A blank line that only set the docstring apart would open the body now.
    code = "\n".join(line[indent:] for line in _without_leading_blank(kept))
    return Source(path.relative_to(root).as_posix(), first, node.end_lineno, code)


def _without_leading_blank(lines: list[str]) -> list[str]:
    result: list[str] = []
    for line in lines:
        if not line.strip() and result and result[-1].rstrip().endswith(":"):
            continue
        result.append(line)
    return result


class LibSource(SphinxDirective):
    """Show a function or class of lib, with the place where it stands as its caption."""

    required_arguments = 1
    has_content = False
    option_spec: ClassVar = {"docstring": directives.flag}

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.app.srcdir)
        dotted = self.arguments[0]
        try:
            source = read_source(root, dotted, docstring="docstring" in self.options)
        except ValueError as error:
            raise self.error(f"lib-source: {error}") from error
        self.env.note_dependency(source.path)
        block = nodes.literal_block(source.code, source.code, language="python")
        block["classes"].append("lib-source")
        self.set_source_info(block)
        wrapper = container_wrapper(self, block, source.caption)
        wrapper["classes"].append("lib-source")
        wrapper["lib_source"] = dotted  # for the index
        wrapper["ids"].append(nodes.make_id(f"source-{dotted}"))
        return [wrapper]


def setup(app: Sphinx) -> None:
    app.add_directive("lib-source", LibSource)
