"""`{ledger}`: every numbered equation, the check that ran on it, and what it measured."""

from __future__ import annotations

import re
from dataclasses import dataclass

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from .gathered import follow
from .outputs import Check, checks_of
from .tables import table

logger = logging.getLogger(__name__)

# A formula up to this length (in TeX) is shown in the ledger; a longer one by its label alone.
SHORT = 75


@dataclass(frozen=True)
class Equation:
    """A numbered equation and where it stands."""

    label: str
    docname: str
    latex: str
    line: int | None


class ledger_node(nodes.General, nodes.Element):
    """Stands where the table will be, once the numbers are known."""


class Ledger(SphinxDirective):
    """The table of all equations and their checks."""

    def run(self) -> list[nodes.Node]:
        return [ledger_node()]


def equations_of(env: BuildEnvironment) -> dict[str, list[Equation]]:
    if not hasattr(env, "bookext_equations"):
        env.bookext_equations = {}
    return env.bookext_equations


def collect(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.docname
    equations_of(app.env)[docname] = [
        Equation(block["label"], docname, block.astext(), block.line)
        for block in doctree.findall(nodes.math_block)
        if block.get("label")
    ]


def purge(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    equations_of(env).pop(docname, None)


def merge(app: Sphinx, env: BuildEnvironment, docnames: set[str], other: BuildEnvironment) -> None:
    for docname in docnames:
        if docname in equations_of(other):
            equations_of(env)[docname] = equations_of(other)[docname]


def all_equations(env: BuildEnvironment) -> list[Equation]:
    return [equation for doc in sorted(equations_of(env)) for equation in equations_of(env)[doc]]


def checks_by_label(env: BuildEnvironment) -> dict[str, list[Check]]:
    result: dict[str, list[Check]] = {}
    for doc in sorted(checks_of(env)):
        for check in checks_of(env)[doc]:
            result.setdefault(check.label, []).append(check)
    return result


def complain(app: Sphinx, env: BuildEnvironment) -> None:
    """An equation that nothing checks, and a check of nothing, are warnings."""
    checks = checks_by_label(env)
    known = set()
    for equation in all_equations(env):
        known.add(equation.label)
        if equation.label.startswith("eq-") and equation.label not in checks:
            logger.warning(
                "equation %r has no executed check",
                equation.label,
                location=(equation.docname, equation.line),
                type="bookext",
                subtype="ledger",
            )
        if not equation.label.startswith(("eq-", "def-")):
            logger.warning(
                "equation label %r begins with neither 'eq-' (checked) nor 'def-' (a definition)",
                equation.label,
                location=(equation.docname, equation.line),
                type="bookext",
                subtype="ledger",
            )
    for label, ran in checks.items():
        if label.startswith(("eq-", "def-")) and label not in known:
            logger.warning(
                "a check names %r, and no equation has that label",
                label,
                location=ran[0].docname,
                type="bookext",
                subtype="ledger",
            )


LINES = r"\\(?:begin|end)\{(?:aligned|alignedat|gathered|split)\}(?:\{\d\})?"
# What goes on in the next line: a relation or a sum; a condition or a conclusion stands apart.
CONTINUES = r"[=<>+-]|\\(?:le|ge|approx|to|in|cap|cdot|longrightarrow)\b"
APART = r"\\(?:text|iff|Rightarrow|Longrightarrow|Longleftrightarrow)\b"


def _short(latex: str) -> str | None:
    """A formula in one line, if it goes into one; a break of lines on a phone is none here."""
    latex = re.sub(LINES, "", latex).replace(r"\qquad", r"\quad").replace("{} &", "&")
    first, *others = re.split(r"\s*\\\\\s*", latex.strip())
    for line in others:
        line = re.sub(r"^(?:&|\\quad\b|\{\}|\s)+", "", line)
        if first.endswith(",") or re.match(APART, line):
            first += rf" \quad {line}"
        elif re.match(CONTINUES, line):
            first += f" {line}"
        else:
            return None
    latex = " ".join(first.replace("&", "").split()).rstrip(".,:; ")
    return latex if len(latex) <= SHORT and "\\begin" not in latex else None


def _measured(check: Check) -> str:
    if check.error is None:
        return "holds"
    return "exact" if check.error in {"0", "exact"} else check.error


def note_formulas(env: BuildEnvironment, document: nodes.document) -> None:
    """Have MathJax loaded on a page whose formulas came after Sphinx looked for them."""
    if any(document.findall(nodes.math)):
        env.get_domain("math").data["has_equations"][env.docname] = True


class WriteLedger(SphinxPostTransform):
    """Fill the table, late, when every equation has its number."""

    default_priority = 5  # before pending references are resolved (10)

    def run(self, **_) -> None:
        for node in list(self.document.findall(ledger_node)):
            node.replace_self(self.content())
            note_formulas(self.env, self.document)

    def link(self, docname: str, anchor: str, text: str) -> nodes.paragraph:
        builder, here = self.app.builder, self.env.docname
        return nodes.paragraph(
            "", "", make_refnode(builder, here, docname, anchor, nodes.Text(text))
        )

    def number(self, equation: Equation) -> str:
        numbers = self.env.toc_fignumbers.get(equation.docname, {}).get("displaymath", {})
        number = numbers.get(nodes.make_id(f"equation-{equation.label}"), ())
        return f"({'.'.join(map(str, number))})"

    def content(self) -> nodes.Element:
        checks = checks_by_label(self.env)
        rows = []
        for equation in all_equations(self.env):
            if not equation.label.startswith("eq-"):
                continue
            ran = checks.get(equation.label, [])
            short = _short(equation.latex)
            shown = nodes.paragraph()
            shown += nodes.math(short, short) if short else nodes.literal("", equation.label)
            rows.append(
                [
                    self.link(
                        equation.docname,
                        nodes.make_id(f"equation-{equation.label}"),
                        self.number(equation),
                    ),
                    shown,
                    self.each(ran, self.check_link),
                    self.each(ran, lambda check: nodes.Text(check.allowed or "")),
                ]
            )
        if not rows:
            return nodes.paragraph(text="No chapter with equations is whole yet.")
        head = ["Equation", "Formula, or its label", "Measured error", "Allowed"]
        return table(head, rows, classes=["ledger"])

    def check_link(self, check: Check) -> nodes.Node:
        """What was measured, leading to the place where it was."""
        reference = make_refnode(
            self.app.builder,
            self.env.docname,
            check.docname,
            check.anchor,
            nodes.Text(_measured(check)),
        )
        reference["reftitle"] = f"the check of {check.label}"
        return reference

    @staticmethod
    def each(checks: list[Check], show) -> nodes.Element:
        block = nodes.line_block()
        for check in checks:
            block += nodes.line("", "", show(check))
        return block


def shown(env: BuildEnvironment) -> tuple:
    """The equations and the checks of all chapters."""
    return (
        [(e.label, e.docname, e.latex) for e in all_equations(env)],
        [check for doc in sorted(checks_of(env)) for check in checks_of(env)[doc]],
    )


def setup(app: Sphinx) -> None:
    app.add_node(ledger_node)
    app.add_directive("ledger", Ledger)
    app.add_post_transform(WriteLedger)
    app.connect("doctree-read", collect)
    app.connect("env-purge-doc", purge)
    app.connect("env-merge-info", merge)
    app.connect("env-check-consistency", complain)
    follow(app, ledger_node, "ledger", shown)
